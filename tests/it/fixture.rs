//! What a test of Keytide starts from: the daemon that all share, and a namespace, a vault and a grant of the test's own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use keytide::devvault::{DevVault, Operation, Written};
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, RwLock, RwLockReadGuard, RwLockWriteGuard};

use keytide::api::KeyVaultMirror;

use crate::alone::Alone;
use crate::testbed::daemon::Daemon;
use crate::testbed::rollouts::is_rolled_out;
use crate::testbed::system::System;
use crate::testbed::{Testbed, eventually, shared};

/// Longest that anything here may take, on a busy machine.
pub const SOON: Duration = Duration::from_secs(90);

/// The program under test.
pub const KEYTIDE: &str = env!("CARGO_BIN_EXE_keytide");

/// Short waits, so that tests are quick; the daemon's defaults are shown by the demo.
pub const QUICK: [&str; 4] = [
    "--rotation-policy",
    r#"{"settle": "5s", "minInterval": "1s"}"#,
    // The second is nobody's, and no proxy is asked for it.
    "--vault-dns-suffix",
    "vault.azure.net,vault.invalid",
];

struct Shared {
    system: System,
    daemon: RwLock<Daemon>,
}

async fn running() -> &'static Shared {
    static SHARED: OnceCell<Shared> = OnceCell::const_new();
    SHARED
        .get_or_init(async || {
            let testbed = shared().await;
            let values = ["--set", "targets.configMaps=true"];
            let system = System::start(testbed, Path::new(KEYTIDE), "{}", &values)
                .await
                .expect("a system")
                .with_flags(&["--config-maps"]);
            let daemon = RwLock::new(start(&system, testbed).await);
            Shared { system, daemon }
        })
        .await
}

async fn start(system: &System, testbed: &Testbed) -> Daemon {
    let log = testbed.log_file("keytide.log");
    let filter = [("KEYTIDE_LOG_FILTER", "keytide=debug,info")];
    let daemon = system.daemon(&log, &QUICK, &filter).await;
    daemon.expect("a daemon")
}

async fn lives(daemon: &Daemon) -> bool {
    let health = tokio::time::timeout(Duration::from_secs(30), daemon.get("/healthz"));
    matches!(health.await, Ok(Ok((200, _))))
}

/// What each key of each Secret held, in order.
pub type Contents = BTreeMap<(String, String), Vec<String>>;

/// A test's own corner of the shared system.
pub struct Fixture {
    pub testbed: &'static Testbed,
    pub namespace: String,
    /// Name of the vault.
    pub vault: String,
    pub client: Client,
    shared: &'static Shared,
}

impl Fixture {
    /// A new namespace, and a vault that it may mirror everything from.
    pub async fn new(prefix: &str) -> Self {
        let fixture = Self::without_grant(prefix).await;
        fixture.grant("*").await;
        fixture
    }

    /// The same without a grant.
    pub async fn without_grant(prefix: &str) -> Self {
        Self::at(shared().await, running().await, prefix).await
    }

    /// The same as [`Fixture::new`] in a cluster that no other test uses, with a daemon that is started with these arguments. The
    /// daemon must have ended before another test has the cluster.
    pub async fn alone(alone: &Alone, prefix: &str, arguments: &[&str]) -> Self {
        let testbed = alone.testbed;
        let system = System::start(testbed, Path::new(KEYTIDE), "{}", &[])
            .await
            .expect("a system");
        let log = testbed.log_file(&format!("keytide-{prefix}"));
        let daemon = system.daemon(&log, arguments, &[]).await;
        let daemon = RwLock::new(daemon.expect("a daemon"));
        // As long as the program, as what other tests share.
        let shared = Box::leak(Box::new(Shared { system, daemon }));
        let fixture = Self::at(testbed, shared, prefix).await;
        fixture.grant("*").await;
        fixture
    }

    async fn at(testbed: &'static Testbed, shared: &'static Shared, prefix: &str) -> Self {
        let namespace = testbed.namespace(prefix).await;
        // Vaults have short names; the end is what makes the namespace's unique.
        let end: String = namespace
            .chars()
            .rev()
            .filter(char::is_ascii_alphanumeric)
            .take(20)
            .collect();
        let vault = format!("kv{}", end.chars().rev().collect::<String>());
        let fixture = Self {
            testbed,
            namespace,
            vault,
            client: testbed.client().await,
            shared,
        };
        fixture
            .azure()
            .create_vault(&fixture.vault, None)
            .expect("a vault");
        fixture
    }

    /// Lets the namespace mirror the secrets that the pattern means.
    pub async fn grant(&self, pattern: &str) {
        self.apply(&self.grant_of(&self.namespace, pattern)).await;
    }

    /// Such a grant, as JSON to change before it is applied.
    pub fn grant_of(&self, name: &str, pattern: &str) -> Value {
        json!({
            "apiVersion": "keytide.dev/v1alpha1",
            "kind": "KeyVaultGrant",
            "metadata": {"name": name},
            "spec": {
                "vault": {"name": self.vault},
                "namespaces": [self.namespace],
                "objects": [{"kind": "secret", "name": pattern}],
            },
        })
    }

    /// The dev vault, which holds the vaults of all tests.
    pub fn azure(&self) -> &DevVault {
        self.shared.system.vault()
    }

    pub fn system(&self) -> &System {
        &self.shared.system
    }

    /// Host name of the test's vault.
    pub fn host(&self) -> String {
        format!("{}.vault.azure.net", self.vault)
    }

    /// Puts a secret into the test's vault.
    pub fn set(&self, secret: &str, value: &str) -> Written {
        self.azure()
            .set_secret(&self.vault, secret, value)
            .expect("set")
    }

    /// The shared daemon, for tests that leave it running.
    pub async fn daemon(&self) -> RwLockReadGuard<'static, Daemon> {
        let shared = &self.shared.daemon;
        let daemon = shared.read().await;
        if lives(&daemon).await {
            return daemon;
        }
        drop(daemon);
        // A test that had it alone has failed, and left none.
        let mut daemon = shared.write().await;
        if !lives(&daemon).await {
            *daemon = start(&self.shared.system, self.testbed).await;
        }
        RwLockWriteGuard::downgrade(daemon)
    }

    /// The shared daemon, for a test that ends it and starts it again. It waits until no other test counts on it, so tests that
    /// do must hold [`Fixture::daemon`].
    pub async fn daemon_alone(&self) -> RwLockWriteGuard<'_, Daemon> {
        self.shared.daemon.write().await
    }

    pub async fn apply(&self, manifest: &Value) {
        self.testbed
            .apply(&self.namespace, &manifest.to_string())
            .await
            .ok();
    }

    /// A mirror of `data` (key and secret) into `target`, as JSON to change before it is applied.
    pub fn mirror(&self, name: &str, target: &str, data: &[(&str, &str)]) -> Value {
        let data: Vec<Value> = data
            .iter()
            .map(|(key, object)| json!({"key": key, "object": {"name": object}}))
            .collect();
        json!({
            "apiVersion": "keytide.dev/v1alpha1",
            "kind": "KeyVaultMirror",
            "metadata": {"name": name},
            "spec": {
                "vault": {"name": self.vault},
                "refreshInterval": "10s",
                "data": data,
                "target": {"name": target},
            },
        })
    }

    /// A Deployment whose only container takes `key` of `secret` as a variable.
    pub fn deployment(&self, name: &str, rotate: Option<&str>, secret: &str, key: &str) -> Value {
        let annotations = rotate.map_or(json!({}), |rotate| json!({"keytide.dev/rotate": rotate}));
        let variable =
            json!({"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}});
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": name}},
                "template": {
                    "metadata": {"labels": {"app": name}},
                    "spec": {"containers": [{"name": "main", "image": "none", "env": [variable]}]},
                },
            },
        })
    }

    /// Makes a mirror ask its vault at once.
    pub async fn sync_now(&self, mirror: &str) {
        let value = self.testbed.unique("sync");
        let patch = json!({"metadata": {"annotations": {"keytide.dev/sync-now": value}}});
        self.mirrors()
            .patch(mirror, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .expect("patched");
    }

    /// Waits until the mirror is Ready for this reason, and gives the message.
    pub async fn reason(&self, mirror: &str, reason: &str) -> String {
        self.message(mirror, reason, "").await
    }

    /// The same, where the message must have this part: the reason alone may be that of what was before.
    pub async fn message(&self, mirror: &str, reason: &str, part: &str) -> String {
        eventually(
            SOON,
            &format!("{mirror} says {reason} {part}"),
            async || {
                let mirror = self
                    .mirrors()
                    .get(mirror)
                    .await
                    .map_err(|error| error.to_string())?;
                let conditions = mirror
                    .status
                    .map(|status| status.conditions)
                    .unwrap_or_default();
                let ready = conditions
                    .into_iter()
                    .find(|c| c.type_ == "Ready")
                    .ok_or("no condition yet")?;
                if ready.reason == reason && ready.message.contains(part) {
                    Ok(ready.message)
                } else {
                    Err(format!("{}: {}", ready.reason, ready.message))
                }
            },
        )
        .await
    }

    /// What the mirror's conditions say: type, status and reason.
    pub async fn conditions(&self, mirror: &str) -> Vec<(String, String, String)> {
        let mirror = self.mirrors().get(mirror).await.expect("the mirror");
        let conditions = mirror.status.map(|status| status.conditions);
        conditions
            .unwrap_or_default()
            .into_iter()
            .map(|c| (c.type_, c.status, c.reason))
            .collect()
    }

    /// The texts of all events of this reason about an object.
    pub async fn events(&self, object: &str, reason: &str) -> Vec<String> {
        let events: Api<k8s_openapi::api::events::v1::Event> =
            Api::namespaced(self.client.clone(), &self.namespace);
        let events = events.list(&Default::default()).await.expect("events");
        events
            .items
            .into_iter()
            .filter(|event| {
                let about = event
                    .regarding
                    .as_ref()
                    .and_then(|about| about.name.as_deref());
                event.reason.as_deref() == Some(reason) && about == Some(object)
            })
            .filter_map(|event| event.note)
            .collect()
    }

    /// Waits until a key of a Secret has this content, and gives the Secret.
    pub async fn secret_has(&self, secret: &str, key: &str, value: &[u8]) -> Secret {
        eventually(
            SOON,
            &format!("Secret {secret} has the wanted {key}"),
            async || {
                let found = self
                    .secrets()
                    .get(secret)
                    .await
                    .map_err(|error| error.to_string())?;
                let content = found
                    .data
                    .as_ref()
                    .and_then(|data| data.get(key))
                    .map(|content| content.0.as_slice());
                if content == Some(value) {
                    Ok(found)
                } else {
                    Err(format!("{content:?}"))
                }
            },
        )
        .await
    }

    /// Waits until a Secret has these keys and no others, and gives it.
    pub async fn secret_has_keys(&self, secret: &str, keys: &[&str]) -> Secret {
        let what = format!("Secret {secret} has only {keys:?}");
        eventually(SOON, &what, async || {
            let found = self.secrets().get(secret).await;
            let found = found.map_err(|error| error.to_string())?;
            if found.data.iter().flatten().map(|(key, _)| key).eq(keys) {
                Ok(found)
            } else {
                Err(format!(
                    "{:?}",
                    found
                        .data
                        .iter()
                        .flatten()
                        .map(|(key, _)| key)
                        .collect::<Vec<_>>()
                ))
            }
        })
        .await
    }

    /// Waits until a Secret is gone.
    pub async fn secret_is_gone(&self, secret: &str) {
        eventually(
            SOON,
            &format!("Secret {secret} is gone"),
            async || match self.secrets().get_opt(secret).await {
                Ok(None) => Ok(()),
                Ok(Some(_)) => Err("it is there".to_owned()),
                Err(error) => Err(error.to_string()),
            },
        )
        .await;
    }

    /// Waits until a Deployment is rolled out and its baseline is of this Secret's content, and gives it.
    pub async fn settled(&self, deployment: &str, secret: &str, key: &str) -> Deployment {
        eventually(
            SOON,
            &format!("{deployment} has the content of {secret} as its baseline"),
            async || {
                let error = |error: kube::Error| error.to_string();
                let found = self.deployments().get(deployment).await.map_err(error)?;
                let target = self.secrets().get(secret).await.map_err(error)?;
                is_settled(&found, &target, key).map(|()| found)
            },
        )
        .await
    }

    /// The same for every Deployment of the namespace.
    pub async fn all_settled(
        &self,
        secret: &str,
        key: &str,
        deadline: Duration,
    ) -> Vec<Deployment> {
        let what = format!("all Deployments have the content of {secret} as their baseline");
        let error = |error: kube::Error| error.to_string();
        let mut last: Option<String> = None;
        eventually(deadline, &what, async || {
            let target = self.secrets().get(secret).await.map_err(error)?;
            // As long as one is known that is not: to list all is much for a machine that has to roll them meanwhile.
            if let Some(name) = &last {
                let found = self.deployments().get(name).await.map_err(error)?;
                is_settled(&found, &target, key).map_err(|why| format!("{name}: {why}"))?;
            }
            let all = self.deployments().list(&Default::default()).await;
            let all = all.map_err(error)?.items;
            for deployment in all.iter().rev() {
                let name = deployment.name_any();
                if let Err(why) = is_settled(deployment, &target, key) {
                    let why = format!("{name}: {why}");
                    last = Some(name);
                    return Err(why);
                }
            }
            Ok(all)
        })
        .await
    }

    /// Waits until there is an event of this reason about an object, and gives its text.
    pub async fn event(&self, object: &str, reason: &str) -> String {
        let what = format!("an event {reason} about {object}");
        eventually(SOON, &what, async || {
            let found = self.events(object, reason).await;
            found.into_iter().next().ok_or_else(|| "none".to_owned())
        })
        .await
    }

    /// Waits for so many more looks at the vault's secret `clock`, by a list or a read: where something does not happen, its
    /// mirror is the clock.
    pub async fn cycles(&self, count: u64) {
        let looks = || {
            let requests = self.azure().requests();
            requests.gets_of(&self.host(), "clock") + requests.count(&self.host(), Operation::List)
        };
        let before = looks();
        eventually(SOON, "some cycles", async || {
            let more = looks() - before;
            if more >= count {
                Ok(())
            } else {
                Err(format!("{more}"))
            }
        })
        .await;
    }

    /// What the Secrets of the namespace hold, from now on.
    pub fn record(&self) -> Arc<Mutex<Contents>> {
        let contents: Arc<Mutex<Contents>> = Arc::default();
        let record = Arc::clone(&contents);
        let secrets = watcher(self.secrets(), watcher::Config::default());
        tokio::spawn(async move {
            let mut secrets = std::pin::pin!(secrets.default_backoff().applied_objects());
            while let Some(secret) = secrets.next().await {
                let Ok(secret) = secret else { continue };
                let name = secret.name_any();
                let mut record = record.lock().expect("not poisoned");
                for (key, value) in secret.data.into_iter().flatten() {
                    let value = String::from_utf8_lossy(&value.0).into_owned();
                    record.entry((name.clone(), key)).or_default().push(value);
                }
            }
        });
        contents
    }

    pub fn mirrors(&self) -> Api<KeyVaultMirror> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// Whether a Deployment is rolled out and its baseline is of the content of a key; the error says why not.
fn is_settled(deployment: &Deployment, secret: &Secret, key: &str) -> Result<(), String> {
    let records = keytide::mirror::records(secret.annotations());
    let record = records.values().find_map(|record| record.keys.get(key));
    let digest = &record.ok_or("no record of the key")?.digest;
    let baseline = deployment.annotations().get("keytide.dev/baseline");
    let baseline = baseline.ok_or("no baseline")?;
    // What the Pods had before may be there too, as a part of the trial.
    let parsed: Value = serde_json::from_str(baseline).map_err(|error| error.to_string())?;
    let mut keys = parsed["keys"].as_object().into_iter().flatten();
    if !keys.any(|(_, known)| known.as_str() == Some(digest.as_str())) {
        return Err(format!("the baseline is {baseline}"));
    }
    if is_rolled_out(deployment) {
        Ok(())
    } else {
        Err(format!("its status is {:?}", deployment.status))
    }
}

/// How often a Deployment's Pod template was changed: the number that its ReplicaSets count.
pub fn revision(deployment: &Deployment) -> String {
    deployment
        .annotations()
        .get("deployment.kubernetes.io/revision")
        .cloned()
        .unwrap_or_default()
}
