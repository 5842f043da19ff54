//! The daemon: fills the caches, waits until it leads, then runs the controllers until it is told to stop or leads no more.
//!
//! A daemon that doesn't lead keeps its caches filled, so that it can take over at once. It asks no vault and writes nothing.
//! One that loses the lead ends, as Kubernetes' own components do, and the kubelet starts it again: nothing that it began can
//! then go on, whatever it waits for, and nothing that it remembers from its time as the leader can mislead it later.

mod caches;
mod clients;
mod digest_key;
mod tokens;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::future::{BoxFuture, Shared};
use kube::api::ListParams;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use self::caches::Caches;
pub use self::clients::Clients;
use self::digest_key::digest_key;
pub use self::digest_key::known_digest_key;
pub use self::tokens::TokenRequests;
use crate::api::{KeyVaultGrant, KeyVaultMirror, RotationPolicy};
use crate::clock::ServerClock;
use crate::leader::{self, Candidacy, Candidate, Fence};
use crate::mirror::{self, Activity, Memories, Mirrors, RevertRequests};
use crate::rotation::{self, Judge, Policies, Policy, Rotations, Sources, Unmirrored};
use crate::telemetry::{Events, Health, Metrics, serve};
use crate::vault::{
    self, CredentialKind, DnsSuffixes, HintSource, Limits, SurveySettings, Transport, Vaults,
};

/// How often a missing CustomResourceDefinition is looked for.
const CRD_PAUSE: Duration = Duration::from_secs(2);
/// How long what is under way may take when the daemon is told to stop. Then the next leader finishes it.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// How a daemon ends: an error is a sentence for the person who reads its log.
pub type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Resolves when the daemon shall stop.
pub type Stop = Shared<BoxFuture<'static, ()>>;

/// What the daemon is told.
pub struct Settings {
    /// Address of /healthz, /readyz and /metrics.
    pub listen: SocketAddr,
    /// Namespace of the digest key's Secret and of the Lease.
    pub namespace: String,
    pub digest_key_secret: String,
    pub vault_dns_suffixes: DnsSuffixes,
    /// PEM file with certificates to trust beside the system's.
    pub ca_bundle: Option<PathBuf>,
    pub credential: CredentialKind,
    /// Whether mirrors may read as ServiceAccounts of their namespaces.
    pub service_accounts: bool,
    /// Whether AzureKeyVaultSecrets of akv2k8s are mirrors too.
    pub akv2k8s: bool,
    /// Whether mirrors may write ConfigMaps.
    pub config_maps: bool,
    pub survey: SurveySettings,
    /// What no vault is sent more of.
    pub vault_limits: Limits,
    /// None: changes are seen at the interval.
    pub hints: Option<HintSource>,
    pub min_refresh_interval: Duration,
    /// The policy of workloads that name none.
    pub rotation_policy: Policy,
    /// Most rotations whose rollouts are under way at once.
    pub max_rotations: usize,
    /// Whether workloads are also rolled for Secrets and ConfigMaps that no mirror fills.
    pub rotation_watch_all: bool,
    /// Whether annotations of Reloader and wave opt in too.
    pub rotation_compatibility: bool,
    /// None: this is the only daemon.
    pub election: Option<Election>,
}

/// By which Lease the daemons agree on who leads.
pub struct Election {
    pub lease: String,
    pub timing: leader::Timing,
}

/// Runs until `stop`.
pub async fn run(settings: Settings, stop: Stop) -> Result {
    let (health, metrics) = (Health::default(), Arc::new(Metrics::default()));
    let listener = TcpListener::bind(settings.listen).await.map_err(|error| {
        format!(
            "can't listen on {}: {error}; choose another address by --listen",
            settings.listen
        )
    })?;
    tracing::info!(address = %listener.local_addr()?, version = env!("CARGO_PKG_VERSION"), "keytide starts");
    let acting = act(settings, health.clone(), Arc::clone(&metrics), stop);
    tokio::select! {
        served = serve(listener, health, metrics) => Ok(served?),
        acted = acting => acted,
    }
}

async fn act(settings: Settings, health: Health, metrics: Arc<Metrics>, stop: Stop) -> Result {
    // Found now and not when this daemon leads: then the one that worked may be gone already.
    Transport::new(settings.ca_bundle.as_deref())?;
    let clock = ServerClock::default();
    let fence = settings.election.as_ref().map(|_| Fence::default());
    let clients = Clients::new(&clock, fence.as_ref()).await?;
    let crds = async {
        wait_for_crd::<KeyVaultMirror>(&clients.watching, &health).await;
        wait_for_crd::<KeyVaultGrant>(&clients.watching, &health).await;
        wait_for_crd::<RotationPolicy>(&clients.watching, &health).await;
    };
    tokio::select! {
        () = crds => {}
        () = stop.clone() => return Ok(()),
    }
    health.waiting("the caches are being filled");
    let (caches, watches) = Caches::new(
        &clients.watching,
        settings.service_accounts,
        settings.config_maps,
        settings.rotation_watch_all,
        settings.max_rotations,
        settings.akv2k8s.then(|| Arc::clone(&metrics)),
    );
    let mut watching = JoinSet::new();
    watching.spawn(watches);
    let instance = std::env::var("HOSTNAME").unwrap_or_else(|_| "keytide".to_owned());
    let leading = async {
        tokio::select! {
            filled = caches.wait_until_filled() => filled?,
            () = stop.clone() => return Ok(()),
        }
        health.ready();
        tracing::info!("ready");
        let controllers = controllers(
            &settings,
            &caches,
            &clients.acting,
            clock,
            &instance,
            &metrics,
            stop.clone(),
        );
        let (Some(election), Some(fence)) = (&settings.election, fence) else {
            metrics.leads(true);
            return until_stopped(controllers, stop.clone()).await;
        };
        let candidacy = Candidacy {
            namespace: settings.namespace.clone(),
            lease: election.lease.clone(),
            identity: identity(&instance)?,
            timing: election.timing,
        };
        let config = clients.config.clone();
        let client = move || Client::try_from(config);
        let candidate = Candidate::start(candidacy, client, fence, Arc::clone(&metrics))?;
        lead(candidate, controllers, stop.clone()).await
    };
    tokio::select! {
        result = leading => result,
        ended = watching.join_next() => Ok(ended.transpose().map(drop)?),
    }
}

/// Waits until the candidate leads, then runs the controllers for as long as it does.
async fn lead(
    mut candidate: Candidate,
    controllers: impl Future<Output = Result>,
    stop: Stop,
) -> Result {
    tokio::select! {
        won = candidate.won() => won?,
        () = stop.clone() => {
            candidate.release().await;
            return Ok(());
        }
    }
    let result = tokio::select! {
        result = until_stopped(controllers, stop) => result,
        lost = candidate.lost() => {
            let sentence = format!("this daemon led and does no longer: {lost}; it ends, to begin anew as a candidate");
            return Err(sentence.into());
        }
    };
    candidate.release().await;
    result
}

/// Runs the controllers until they have stopped, or have not in time.
async fn until_stopped(controllers: impl Future<Output = Result>, stop: Stop) -> Result {
    let impatient = async {
        stop.await;
        tokio::time::sleep(STOP_PATIENCE).await;
    };
    tokio::select! {
        result = controllers => result,
        () = impatient => Ok(()),
    }
}

/// The controllers: all that asks vaults and writes.
async fn controllers(
    settings: &Settings,
    caches: &Caches,
    client: &Client,
    clock: ServerClock,
    instance: &str,
    metrics: &Arc<Metrics>,
    stop: Stop,
) -> Result {
    let transport = Transport::new(settings.ca_bundle.as_deref())?;
    let digest_key = digest_key(client, &settings.namespace, &settings.digest_key_secret).await?;
    let events = Events::new(client.clone(), instance.to_owned());
    let activity = Activity::default();
    let (reverts, revert_triggers) = RevertRequests::new();
    let vaults = vault::Config {
        transport,
        credential: settings.credential,
        accounts: Arc::new(TokenRequests(client.clone())),
        settings: settings.survey,
        limits: settings.vault_limits,
        metrics: Arc::clone(metrics),
    };
    let (notices, vault_triggers) = mpsc::unbounded();
    let mirroring = Arc::new(Mirrors {
        client: client.clone(),
        vaults: Vaults::new(vaults, notices),
        clock: clock.clone(),
        digest_key: digest_key.clone(),
        suffixes: settings.vault_dns_suffixes.clone(),
        min_refresh_interval: settings.min_refresh_interval,
        mirrors: caches.mirrors.clone(),
        akv2k8s: settings.akv2k8s,
        mirrors_by_target: caches.mirrors_by_target.clone(),
        grants: caches.grants.clone(),
        namespaces: caches.namespaces.clone(),
        accounts: caches.accounts.clone(),
        targets: caches.targets.clone(),
        activity: activity.clone(),
        reverts: reverts.clone(),
        events: events.clone(),
        metrics: Arc::clone(metrics),
        memories: Memories::default(),
        mirrors_touched: Arc::clone(&caches.mirrors_touched),
    });
    let policies = Policies {
        client: client.clone(),
        clock: clock.clone(),
        store: caches.policies.clone(),
        default: settings.rotation_policy.clone(),
    };
    let unmirrored = caches.versions.as_ref().map(|versions| {
        let (secrets, config_maps) = (versions.secrets.clone(), versions.config_maps.clone());
        Unmirrored::new(client.clone(), digest_key.clone(), secrets, config_maps)
    });
    let sources = Sources {
        targets: caches.targets.clone(),
        classes: caches.classes.clone(),
        unmirrored,
    };
    let judge = Judge {
        client: client.clone(),
        clock,
        policies: Arc::new(policies),
        workloads: caches.workloads.clone(),
        flights: caches.flights.clone(),
        sources,
        namespaces: caches.namespaces.clone(),
        compatibility: settings.rotation_compatibility,
        activity,
    };
    let rotating = Arc::new(Rotations {
        judge,
        digest_key,
        reverts,
        events,
        metrics: Arc::clone(metrics),
        memories: rotation::Memories::default(),
    });
    let (mirror_triggers, rotation_triggers) = caches.wake(vault_triggers, revert_triggers);
    let hinted = Arc::clone(&mirroring);
    let hints = async {
        match settings.hints.clone() {
            Some(source) => hinted.vaults.follow(source).await,
            None => std::future::pending().await,
        }
    };
    let controllers = futures::future::join(
        mirror::run(mirroring, mirror_triggers, stop.clone()),
        rotation::run(rotating, rotation_triggers, stop),
    );
    tokio::select! {
        _ = controllers => Ok(()),
        Err(error) = hints => Err(error.into()),
    }
}

/// A name of this process alone: a daemon that is started again under its old name must not take itself for the old one.
fn identity(instance: &str) -> Result<String> {
    let mut random = [0; 4];
    getrandom::fill(&mut random)?;
    Ok(format!("{instance}_{:08x}", u32::from_be_bytes(random)))
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
                "the CustomResourceDefinition of {} is missing; run: keytide crd --apply",
                K::kind(&())
            ),
            Err(error) => format!(
                "{} can't be listed: {error}; that is tried again",
                K::kind(&())
            ),
        };
        if health.waiting(&sentence) {
            tracing::warn!("{sentence}");
        }
        tokio::time::sleep(CRD_PAUSE).await;
    }
}
