//! What is measured: a control plane, the chart, a dev vault and mirrors. Each has a process of its own, as users have it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use keytide::api::{
    DataEntry, GrantedObjects, KeyVaultGrant, KeyVaultGrantSpec, KeyVaultMirror,
    KeyVaultMirrorSpec, ObjectKind, Target, VaultObject, VaultRef,
};
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep_until};

use super::bare;
use super::layout::{KEY, Layout, PREFIX};
use super::scenario::{Setting, Survey};
use super::testbed::audit::Audit;
use super::testbed::daemon::Daemon;
use super::testbed::system::{CHART, RELEASE};
use super::testbed::wait::within;
use super::testbed::{Result, Testbed};
use super::vault::Vault;

/// How long the garbage collector takes to learn of a new kind: it looks every 30 s. Until then it asks for the owner of every
/// Secret, which would count as the daemon's reads.
const NEW_KIND: Duration = Duration::from_secs(35);

const DEADLINE: Duration = Duration::from_secs(300);

/// Requests under way while a scenario is set up.
const CONCURRENCY: usize = 32;

/// All but the daemon.
pub struct System {
    pub client: Client,
    pub vault: Vault,
    pub layout: Layout,
    pub setting: Setting,
    testbed: Testbed,
    kubeconfig: PathBuf,
    program: PathBuf,
}

impl System {
    /// A control plane with nothing in it but the layout's mirrors, and their vaults.
    pub async fn start(
        scratch: &Path,
        program: &Path,
        layout: Layout,
        setting: Setting,
    ) -> Result<Self> {
        let testbed = Testbed::start(scratch).await?;
        // kwok runs no containers, so the daemon runs beside the cluster.
        let arguments = [
            "install",
            RELEASE,
            CHART,
            "--namespace",
            RELEASE,
            "--create-namespace",
            "--set",
            "replicaCount=0,crds.upgrade=false",
        ];
        testbed.helm(&arguments).await.ok();
        let client = testbed.client().await;
        bare::create_kind(&client).await?;
        let all_kinds_known = Instant::now() + NEW_KIND;
        let vault = Vault::start(program, &layout, scratch).await?;
        let system = Self {
            client,
            vault,
            layout,
            setting,
            kubeconfig: testbed.service_account_kubeconfig(RELEASE, RELEASE).await,
            program: program.to_owned(),
            testbed,
        };
        for vault in system.layout.vaults.keys() {
            system.vault.delay(vault, setting.latency).await?;
        }
        system.create_namespaces().await?;
        system.create_grants().await?;
        system.create_mirrors().await?;
        if !system.layout.mirrors.is_empty() {
            sleep_until(all_kinds_known).await;
        }
        Ok(system)
    }

    /// Folder for files that are gone with the system.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.testbed.folder(name)
    }

    /// What daemons ask of the API server from now on.
    pub fn audit(&self) -> Result<Audit> {
        let audit = self.testbed.audit();
        Ok(audit.ok_or("the audit log of this cluster is not ours to read")?)
    }

    /// Starts a daemon with the token of the chart's ServiceAccount and its own defaults.
    pub fn daemon(&self) -> Result<Daemon> {
        self.daemon_with(&[], &[])
    }

    /// The same with more arguments and environment.
    pub fn daemon_with(&self, more: &[&str], environment: &[(&str, &str)]) -> Result<Daemon> {
        let (proxy, ca, kubeconfig) = (
            self.vault.proxy(),
            self.vault.ca().display().to_string(),
            self.kubeconfig.display().to_string(),
        );
        let mut arguments = vec!["run", "--namespace", RELEASE, "--ca-bundle", &ca];
        if self.setting.survey == Survey::Never {
            arguments.push("--survey=never");
        }
        arguments.extend(more);
        let mut variables = vec![
            ("KUBECONFIG", kubeconfig.as_str()),
            ("HTTPS_PROXY", &proxy),
            ("HTTP_PROXY", &proxy),
            ("NO_PROXY", "127.0.0.1,localhost"),
        ];
        variables.extend(environment);
        let log = self.testbed.log_file("keytide");
        Daemon::start(&self.program, &arguments, &variables, &log)
    }

    async fn create_namespaces(&self) -> Result<()> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let names = self.layout.mirrors.iter().map(|mirror| &mirror.namespace);
        let names: std::collections::BTreeSet<&String> = names.collect();
        let count = names.len();
        in_parallel(names, async |name| {
            let namespace = Namespace {
                metadata: named(name),
                ..Namespace::default()
            };
            api.create(&PostParams::default(), &namespace).await
        })
        .await?;
        // What the controllers do in new namespaces is over before anything is measured.
        let accounts: Api<ServiceAccount> = Api::all(self.client.clone());
        within(DEADLINE, "namespaces have ServiceAccounts", async || {
            let accounts = accounts.list_metadata(&Default::default()).await;
            let accounts = accounts.map_err(|error| error.to_string())?.items;
            let ours = |namespace: &Option<String>| {
                let namespace = namespace.as_deref().unwrap_or_default();
                namespace.starts_with(PREFIX)
            };
            let mut accounts = accounts.iter().map(|account| &account.metadata.namespace);
            match accounts.by_ref().filter(|name| ours(name)).count() {
                found if found >= count => Ok(()),
                found => Err(format!("{found} of {count} have")),
            }
        })
        .await?;
        Ok(())
    }

    async fn create_grants(&self) -> Result<()> {
        let api: Api<KeyVaultGrant> = Api::all(self.client.clone());
        in_parallel(self.layout.vaults.keys(), async |vault| {
            let spec = KeyVaultGrantSpec {
                vault: vault_ref(vault),
                identity: None,
                namespaces: Some(vec![format!("{PREFIX}-*")]),
                namespace_selector: None,
                objects: vec![GrantedObjects {
                    kind: ObjectKind::Secret,
                    name: "*".to_owned(),
                }],
                allow_config_map: None,
            };
            let grant = KeyVaultGrant::new(vault, spec);
            api.create(&PostParams::default(), &grant).await
        })
        .await
    }

    async fn create_mirrors(&self) -> Result<()> {
        in_parallel(&self.layout.mirrors, async |mirror| {
            let spec = self.spec(&mirror.vault, &mirror.object, &mirror.name);
            let api: Api<KeyVaultMirror> = Api::namespaced(self.client.clone(), &mirror.namespace);
            let created = KeyVaultMirror::new(&mirror.name, spec);
            api.create(&PostParams::default(), &created).await
        })
        .await
    }

    /// The wish to have one object of a vault in a target.
    pub fn spec(&self, vault: &str, object: &str, target: &str) -> KeyVaultMirrorSpec {
        KeyVaultMirrorSpec {
            vault: vault_ref(vault),
            identity: None,
            data: vec![DataEntry {
                key: KEY.to_owned(),
                object: VaultObject {
                    kind: ObjectKind::Secret,
                    name: object.to_owned(),
                    version: None,
                    property: None,
                    format: None,
                },
                transforms: Vec::new(),
            }],
            data_from: Vec::new(),
            template: None,
            target: Target {
                kind: Default::default(),
                name: target.to_owned(),
                type_: Default::default(),
                labels: Default::default(),
                annotations: Default::default(),
                immutable: false,
            },
            deletion_policy: Default::default(),
            missing_policy: Default::default(),
            refresh_interval: format!("{}s", self.setting.interval.as_secs()),
        }
    }
}

/// Does something with each of many, some at a time.
pub async fn in_parallel<I: IntoIterator, T, E: Into<super::testbed::Error>>(
    items: I,
    each: impl AsyncFn(I::Item) -> Result<T, E>,
) -> Result<()> {
    let each = &each;
    let work = items
        .into_iter()
        .map(|item| async move { each(item).await.map(drop).map_err(Into::into) });
    let done = stream::iter(work).buffer_unordered(CONCURRENCY);
    done.try_collect::<Vec<()>>().await.map(drop)
}

fn vault_ref(name: &str) -> VaultRef {
    VaultRef {
        name: Some(name.to_owned()),
        url: None,
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}
