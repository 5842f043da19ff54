//! `keytide run`: the daemon. Reads the configuration, wires the controllers to the cluster and ends on SIGTERM.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::channel::mpsc;
use jiff::SignedDuration;
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, PostParams};
use kube::client::ClientBuilder;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Config, watcher};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::Result;
use crate::api::{KeyVaultGrant, KeyVaultMirror};
use crate::clock::ServerClock;
use crate::digest::{DigestKey, KEY_LENGTH};
use crate::mirror::{self, Activity, MIRRORED_LABEL, Memories, Mirrors, mirrors_of};
use crate::rotation::{self, Rollouts, Rotations, Timing, Warned, workloads_of};
use crate::telemetry::{Events, Health, LogFormat, Metrics, serve, start_logging};
use crate::vault::{
    self, CredentialKind, DnsSuffixes, HintSource, Identity, Limits, SurveyMode, SurveySettings,
    Transport, Vaults,
};
use crate::watch::{follow, new_store};

/// Key of the digest key's Secret.
const DIGEST_KEY: &str = "key";
/// How often a missing CustomResourceDefinition is looked for.
const CRD_PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub struct Run {
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, env = "KEYTIDE_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Namespace of the daemon: that of the digest key's Secret
    #[arg(long, env = "KEYTIDE_NAMESPACE", default_value = "keytide")]
    namespace: String,
    /// Secret that holds the key of the digests; made if it is not there
    #[arg(
        long,
        env = "KEYTIDE_DIGEST_KEY_SECRET",
        default_value = "keytide-digest-key"
    )]
    digest_key_secret: String,
    /// DNS suffixes of vaults, separated by commas; the first completes vaults that are given by name
    #[arg(
        long,
        env = "KEYTIDE_VAULT_DNS_SUFFIX",
        default_value = "vault.azure.net"
    )]
    vault_dns_suffix: DnsSuffixes,
    /// PEM file with certificates to trust beside the system's
    #[arg(long, env = "KEYTIDE_CA_BUNDLE")]
    ca_bundle: Option<PathBuf>,
    /// Where tokens for Azure come from
    #[arg(long, env = "KEYTIDE_CREDENTIAL", value_enum, default_value_t)]
    credential: CredentialKind,
    /// No mirror asks its vault more often than this
    #[arg(long, env = "KEYTIDE_MIN_REFRESH_INTERVAL", default_value = "10s", value_parser = duration)]
    min_refresh_interval: SignedDuration,
    /// Whether vaults are listed to find out what changed
    #[arg(long, env = "KEYTIDE_SURVEY", value_enum, default_value_t)]
    survey: SurveyMode,
    /// Every object is read at least this often, however still its vault says it is
    #[arg(long, env = "KEYTIDE_FULL_SWEEP", default_value = "24h", value_parser = duration)]
    full_sweep: SignedDuration,
    /// Most requests per second to a vault; Key Vault itself allows 400 to all of its users together
    #[arg(long, env = "KEYTIDE_VAULT_REQUESTS_PER_SECOND", default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..))]
    vault_requests_per_second: u32,
    /// Queue of Azure Storage from which Key Vault's events are taken, to see changes sooner, such as
    /// https://contoso.queue.core.windows.net/keytide
    // Not parsed by clap, which would print it, with a SAS if it has one.
    #[arg(long, env = "KEYTIDE_HINTS_QUEUE")]
    hints_queue: Option<String>,
    /// Client ID of the identity that reads that queue; the default is the daemon's own
    #[arg(long, env = "KEYTIDE_HINTS_CLIENT_ID", requires = "hints_queue")]
    hints_client_id: Option<String>,
    /// Longest pause between two looks into that queue
    #[arg(long, env = "KEYTIDE_HINTS_PAUSE", default_value = "1s", value_parser = duration)]
    hints_pause: SignedDuration,
    /// How long changes must have stopped coming before a workload is rolled
    #[arg(long, env = "KEYTIDE_SETTLE", default_value = "10s", value_parser = duration)]
    settle: SignedDuration,
    /// Least time between two rotations of a workload
    #[arg(long, env = "KEYTIDE_MIN_ROTATION_INTERVAL", default_value = "1m", value_parser = duration)]
    min_rotation_interval: SignedDuration,
    /// How log lines look
    #[arg(long, env = "KEYTIDE_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// Which log lines there are, such as `info` or `keytide=debug,info`
    #[arg(long, env = "KEYTIDE_LOG_FILTER", default_value = "info")]
    log_filter: String,
}

fn duration(text: &str) -> std::result::Result<SignedDuration, String> {
    let wrong = || "write a duration such as 10s, 1m or 1h30m".to_owned();
    text.parse()
        .ok()
        .filter(|duration: &SignedDuration| !duration.is_negative())
        .ok_or_else(wrong)
}

impl Run {
    pub fn execute(self) -> Result {
        start_logging(self.log_format, &self.log_filter)?;
        super::runtime()?.block_on(self.run())
    }

    async fn run(self) -> Result {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let signal = tokio::select! {
            result = self.serve() => return result,
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "keytide ends");
        Ok(())
    }

    async fn serve(self) -> Result {
        let (health, metrics) = (Health::default(), Arc::new(Metrics::default()));
        let listener = TcpListener::bind(self.listen).await.map_err(|error| {
            format!(
                "can't listen on {}: {error}; choose another address by --listen",
                self.listen
            )
        })?;
        tracing::info!(address = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "keytide starts");
        let control = self.control(health.clone(), Arc::clone(&metrics));
        tokio::select! {
            served = serve(listener, health, metrics) => Ok(served?),
            controlled = control => controlled,
        }
    }

    fn vaults(&self, transport: Transport, metrics: Arc<Metrics>) -> Result<vault::Config> {
        let per_second = f64::from(self.vault_requests_per_second);
        Ok(vault::Config {
            transport,
            credential: self.credential,
            settings: SurveySettings {
                mode: self.survey,
                full_sweep: Duration::try_from(self.full_sweep)?,
                per_second,
            },
            limits: Limits {
                per_second,
                burst: VAULT_BURST.min(per_second),
                concurrency: VAULT_CONCURRENCY,
            },
            metrics,
        })
    }

    fn hints(&self) -> Result<Option<HintSource>> {
        let Some(queue) = &self.hints_queue else {
            return Ok(None);
        };
        let queue = queue
            .parse()
            .map_err(|error| format!("--hints-queue: {error}"))?;
        Ok(Some(HintSource {
            queue,
            identity: Identity {
                client_id: self.hints_client_id.clone(),
                tenant_id: None,
            },
            pause: Duration::try_from(self.hints_pause)?,
        }))
    }

    async fn control(self, health: Health, metrics: Arc<Metrics>) -> Result {
        let hints = self.hints()?;
        let transport = Transport::new(self.ca_bundle.as_deref())?;
        let clock = ServerClock::default();
        let client = client(&clock).await?;
        wait_for_crd::<KeyVaultMirror>(&client, &health).await;
        wait_for_crd::<KeyVaultGrant>(&client, &health).await;
        health.waiting("the caches are being filled".to_owned());
        let digest_key = digest_key(&client, &self.namespace, &self.digest_key_secret).await?;
        let instance = std::env::var("HOSTNAME").unwrap_or_else(|_| "keytide".to_owned());
        let events = Events::new(client.clone(), instance);
        let activity = Activity::default();

        let (mirrors, mirrors_writer) = new_store();
        let (grants, grants_writer) = new_store();
        let (targets, targets_writer) = new_store::<PartialObjectMeta<Secret>>();
        let (workloads, workloads_writer) = new_store();
        let (mirror_touched, mirror_triggers) = mpsc::unbounded();
        let (target_touched_mirror, target_triggers_mirror) = mpsc::unbounded();
        let (grant_touched, grant_triggers) = mpsc::unbounded();
        let (workload_touched, workload_triggers) = mpsc::unbounded();
        let (target_touched_workload, target_triggers_workload) = mpsc::unbounded();

        let (notices, vault_triggers) = mpsc::unbounded();
        let vaults = Vaults::new(self.vaults(transport, Arc::clone(&metrics))?, notices);
        let mirroring = Arc::new(Mirrors {
            client: client.clone(),
            vaults,
            clock: clock.clone(),
            digest_key: digest_key.clone(),
            suffixes: self.vault_dns_suffix,
            min_refresh_interval: Duration::try_from(self.min_refresh_interval)?,
            mirrors: mirrors.clone(),
            grants: grants.clone(),
            targets: targets.clone(),
            activity: activity.clone(),
            events: events.clone(),
            metrics: Arc::clone(&metrics),
            memories: Memories::default(),
            mirrors_touched: Notify::new(),
        });
        let rotating = Arc::new(Rotations {
            client: client.clone(),
            clock,
            digest_key,
            timing: Timing {
                settle: self.settle,
                min_interval: self.min_rotation_interval,
            },
            workloads: workloads.clone(),
            targets: targets.clone(),
            activity,
            events,
            metrics,
            warned: Warned::default(),
            rollouts: Rollouts::default(),
        });

        let touched = Arc::clone(&mirroring);
        let watch_mirrors = follow(
            watcher(
                Api::<KeyVaultMirror>::all(client.clone()),
                Config::default(),
            )
            .modify(trim),
            mirrors_writer,
            move |mirror| {
                send(&mirror_touched, ObjectRef::from_obj(mirror));
                touched.mirrors_touched.notify_one();
            },
            warn_of("KeyVaultMirrors"),
        );
        let watch_grants = follow(
            watcher(Api::<KeyVaultGrant>::all(client.clone()), Config::default()).modify(trim),
            grants_writer,
            move |_| send(&grant_touched, ()),
            warn_of("KeyVaultGrants"),
        );
        let known_workloads = workloads.clone();
        let watch_targets = follow(
            watcher(
                Api::<PartialObjectMeta<Secret>>::all(client.clone()),
                Config::default().labels(&format!("{MIRRORED_LABEL}=true")),
            ),
            targets_writer,
            move |target| {
                mirrors_of(target)
                    .into_iter()
                    .for_each(|mirror| send(&target_touched_mirror, mirror));
                for workload in workloads_of(target, &known_workloads) {
                    send(&target_touched_workload, workload);
                }
            },
            warn_of("Secrets"),
        );
        let watch_workloads = follow(
            watcher(Api::<Deployment>::all(client.clone()), Config::default()).modify(trim),
            workloads_writer,
            move |workload| send(&workload_touched, ObjectRef::from_obj(workload)),
            warn_of("Deployments"),
        );

        let controllers = async {
            let ready = futures::try_join!(
                mirrors.wait_until_ready(),
                grants.wait_until_ready(),
                targets.wait_until_ready(),
                workloads.wait_until_ready()
            );
            ready?;
            health.ready();
            tracing::info!("ready");
            let mirror_triggers = mirror::Triggers {
                mirrors: mirror_triggers,
                targets: target_triggers_mirror,
                grants: grant_triggers,
                vaults: vault_triggers,
            };
            let rotation_triggers = rotation::Triggers {
                workloads: workload_triggers,
                targets: target_triggers_workload,
            };
            let hinted = Arc::clone(&mirroring);
            let hints = async {
                match hints {
                    Some(source) => hinted.vaults.follow(source).await,
                    None => std::future::pending().await,
                }
            };
            let controllers = futures::future::join(
                mirror::run(mirroring, mirror_triggers),
                rotation::run(rotating, rotation_triggers),
            );
            tokio::select! {
                _ = controllers => Ok(()),
                Err(error) = hints => Err(error.into()),
            }
        };
        let watches = async {
            futures::join!(watch_mirrors, watch_grants, watch_targets, watch_workloads);
            Ok(())
        };
        tokio::select! {
            result = controllers => result,
            result = watches => result,
        }
    }
}

/// Requests that may be sent to a vault at once after a quiet time, and that may be under way to it.
const VAULT_BURST: f64 = 100.0;
const VAULT_CONCURRENCY: usize = 32;

/// Drops from a cached object what nobody asks of it. Targets keep their managedFields: drift is seen by them.
fn trim(object: &mut impl ResourceExt) {
    object.managed_fields_mut().clear();
    object
        .annotations_mut()
        .remove("kubectl.kubernetes.io/last-applied-configuration");
}

/// A receiver that is gone means that the daemon ends.
fn send<T>(sender: &mpsc::UnboundedSender<T>, item: T) {
    let _ = sender.unbounded_send(item);
}

fn warn_of(what: &'static str) -> impl Fn(&watcher::Error) + Send {
    move |error| tracing::warn!(%error, "{what} can't be watched; that is tried again")
}

/// A client of the API server whose answers set the clock.
async fn client(clock: &ServerClock) -> Result<Client> {
    let config = kube::Config::infer().await.map_err(|error| {
        format!("no cluster is configured: {error}; run in a Pod with a ServiceAccount, or set KUBECONFIG")
    })?;
    let clock = clock.clone();
    let observe = tower::util::MapResponseLayer::new(move |answer| {
        clock.observe(&answer);
        answer
    });
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&observe)
        .build())
}

/// Waits until a kind is served, and says what to do until then.
async fn wait_for_crd<K>(client: &Client, health: &Health)
where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::all(client.clone());
    loop {
        let sentence = match api.list(&ListParams::default().limit(1)).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.code == 404 => format!(
                "the CustomResourceDefinition of {} is missing; run: keytide crd | kubectl apply --server-side -f -",
                K::kind(&())
            ),
            Err(error) => format!(
                "{} can't be listed: {error}; that is tried again",
                K::kind(&())
            ),
        };
        tracing::warn!("{sentence}");
        health.waiting(sentence);
        tokio::time::sleep(CRD_PAUSE).await;
    }
}

/// Reads the digest key, or makes one where there is none. Of two daemons that make one at once, the later takes the earlier's.
async fn digest_key(client: &Client, namespace: &str, name: &str) -> Result<DigestKey> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = match api.get_opt(name).await? {
        Some(secret) => secret,
        None => {
            let mut bytes = vec![0; KEY_LENGTH];
            getrandom::fill(&mut bytes)?;
            let mut secret = Secret {
                data: Some([(DIGEST_KEY.to_owned(), ByteString(bytes))].into()),
                ..Default::default()
            };
            secret.metadata.name = Some(name.to_owned());
            secret.labels_mut().insert(
                "app.kubernetes.io/managed-by".to_owned(),
                "keytide".to_owned(),
            );
            match api.create(&PostParams::default(), &secret).await {
                Ok(secret) => secret,
                Err(kube::Error::Api(status)) if status.code == 409 => api.get(name).await?,
                Err(error) => return Err(error.into()),
            }
        }
    };
    let bytes = secret
        .data
        .and_then(|mut data| data.remove(DIGEST_KEY))
        .unwrap_or_default();
    Ok(DigestKey::new(bytes.0)?)
}
