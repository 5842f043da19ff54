//! The controller of mirrors: keeps each target as its vault objects are.
//!
//! ```text
//! KeyVaultMirror + KeyVaultGrants ──grant──▶ reads ──vault──▶ content ──render──▶ data ──plan──▶ write ──apply──▶ Secret
//! ```
//!
//! A mirror says which objects it wants, and is woken when there is content for it: no mirror asks its vault by itself, and one whose objects
//! stay as they are does nothing. Watches KeyVaultMirrors (what is wanted), KeyVaultGrants (what is allowed) and the metadata of Secrets with the label
//! `keytide.dev/mirrored` (what is there). `grant`, `schedule`, `plan`, `status` and `sweep` decide and are pure; `apply`
//! carries out. It must never leave half a mirror in a target, take over a Secret that isn't Keytide's, or pass content to
//! anything but `apply` and the digest.

mod activity;
mod apply;
mod grant;
mod ownership;
mod plan;
mod record;
mod schedule;
mod status;
mod sweep;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::Notify;
use tracing::Instrument;

use self::apply::Targets;
use self::plan::{Desired, Existing, Plan, Rival, plan};
use self::record::Content;
use self::schedule::{backoff, interval};
use self::status::{Failure, Outcome, status};
use self::sweep::{LiveMirrors, Sweep, leftovers};
use crate::api::{KeyVaultGrant, KeyVaultMirror, condition};
use crate::clock::ServerClock;
use crate::digest::{DigestKey, Place};
use crate::render::{Rendered, render};
use crate::telemetry::{Events, Kind, Metrics};
use crate::vault::{Delivery, DnsSuffixes, Notice, ReadKey, VaultSecret, Vaults};
use crate::watch;

pub use self::activity::{Activity, State};
pub use self::plan::MIRRORED_LABEL;
pub use self::record::{KeyRecord, Record, records};

/// Annotation that makes a mirror ask its vault at once, with any new value.
const SYNC_NOW: &str = "keytide.dev/sync-now";
/// How often leftovers are looked for though nothing happened.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Pause after mirrors went that had left something behind, so that many of them are one sweep.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// Attempts at a target that someone else writes at the same moment, and the pause after them.
const RACES: usize = 3;
const RACE_PAUSE: Duration = Duration::from_millis(500);
/// Mirrors that are looked after at the same moment.
const CONCURRENCY: u16 = 64;
/// Longest time until a mirror looks at its validity again: timers can't be set for years.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// What the controller works with.
pub struct Mirrors {
    pub client: Client,
    pub vaults: Vaults<MirrorId>,
    pub clock: ServerClock,
    pub digest_key: DigestKey,
    pub suffixes: DnsSuffixes,
    /// No mirror asks its vault more often.
    pub min_refresh_interval: Duration,
    pub mirrors: Store<KeyVaultMirror>,
    pub grants: Store<KeyVaultGrant>,
    pub targets: Store<PartialObjectMeta<Secret>>,
    pub activity: Activity,
    pub events: Events,
    pub metrics: Arc<Metrics>,
    pub memories: Memories,
    /// Says that a mirror came, changed or went, so that leftovers may be there.
    pub mirrors_touched: Notify,
}

/// Which mirror it is, also where one of the same name takes its place.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct MirrorId(Arc<Identifiers>);

#[derive(Debug, Eq, Hash, PartialEq)]
struct Identifiers {
    uid: String,
    namespace: String,
    name: String,
}

impl MirrorId {
    fn of(mirror: &KeyVaultMirror) -> Self {
        Self(Arc::new(Identifiers {
            uid: mirror.uid().unwrap_or_default(),
            namespace: mirror.namespace().unwrap_or_default(),
            name: mirror.name_any(),
        }))
    }

    fn reference(&self) -> ObjectRef<KeyVaultMirror> {
        watch::reference(&self.0.namespace, &self.0.name)
    }
}

/// What the controller remembers of each mirror. Losing it costs a read.
#[derive(Default)]
pub struct Memories(Mutex<HashMap<MirrorId, Memory>>);

#[derive(Clone, Debug, Default)]
struct Memory {
    /// The mirror as it was when it last was in sync.
    seen: Option<Seen>,
    /// Failures in a row.
    failures: u32,
    /// The annotation [`SYNC_NOW`], once it was looked at.
    sync_now: Option<Option<String>>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Seen {
    generation: Option<i64>,
    /// The target's resourceVersion; any other one may be drift.
    target: String,
    /// When an object becomes valid or expires, which changes what is said of it.
    valid_until: Option<Timestamp>,
}

/// Things that make mirrors look again.
pub struct Triggers {
    /// Mirrors that came or changed.
    pub mirrors: mpsc::UnboundedReceiver<ObjectRef<KeyVaultMirror>>,
    /// Targets that were touched.
    pub targets: mpsc::UnboundedReceiver<ObjectRef<KeyVaultMirror>>,
    /// Grants that were touched.
    pub grants: mpsc::UnboundedReceiver<()>,
    /// Mirrors that there is content for, or no content.
    pub vaults: mpsc::UnboundedReceiver<Notice<MirrorId>>,
}

/// Runs the controller for ever. Before, no vault is asked for anything.
pub async fn run(mirrors: Arc<Mirrors>, triggers: Triggers) {
    let store = mirrors.mirrors.clone();
    // All at once, so that mirrors of one object share its first read too.
    for mirror in store.state() {
        if let Ok((reads, interval)) = mirrors.wants(&mirror) {
            mirrors
                .vaults
                .want(&MirrorId::of(&mirror), &reads, interval);
        }
    }
    let activity = mirrors.activity.clone();
    let vaults = triggers.vaults.filter_map(move |notice| {
        std::future::ready(match notice {
            Notice::Ready(mirror) => Some(mirror.reference()),
            Notice::Awaits(mirror) => {
                activity.awaits(&mirror.0.namespace, &mirror.0.name);
                None
            }
        })
    });
    let touched = futures::stream::select(triggers.mirrors, triggers.targets);
    let sweeping = Arc::clone(&mirrors).sweep_for_ever();
    let controller = Controller::for_stream(futures::stream::pending(), store)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(futures::stream::select(touched, vaults))
        .reconcile_all_on(triggers.grants)
        .run(Mirrors::reconcile, |_, error, _| match *error {}, mirrors)
        .for_each(|_| std::future::ready(()));
    futures::join!(controller, sweeping);
}

/// The mirrors that have a part in a target.
pub fn mirrors_of(target: &PartialObjectMeta<Secret>) -> Vec<ObjectRef<KeyVaultMirror>> {
    let namespace = target.namespace().unwrap_or_default();
    let records = records(target.annotations());
    records
        .values()
        .map(|record| watch::reference(&namespace, &record.mirror))
        .collect()
}

/// What an attempt came to where nothing failed.
enum Attempt {
    /// All is as it was when it last was in sync.
    Unchanged,
    /// Content is on its way.
    Waiting,
    Mirrored {
        rendered: Rendered,
        changed: bool,
    },
}

impl Mirrors {
    async fn reconcile(
        mirror: Arc<KeyVaultMirror>,
        this: Arc<Self>,
    ) -> Result<Action, std::convert::Infallible> {
        if mirror.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let span = tracing::info_span!(
            "mirror",
            namespace = mirror.namespace(),
            name = mirror.name_any()
        );
        Ok(this.reconcile_one(&mirror).instrument(span).await)
    }

    async fn reconcile_one(&self, mirror: &KeyVaultMirror) -> Action {
        let id = MirrorId::of(mirror);
        let mut memory = self.memories.of(&id);
        let attempt = self.attempt(mirror, &id, &mut memory).await;
        let now = self.clock.now();
        let outcome = match &attempt {
            Ok(Attempt::Waiting) => {
                self.memories.keep(id, memory);
                return Action::await_change();
            }
            Ok(Attempt::Unchanged) => Outcome::Unchanged,
            Ok(Attempt::Mirrored { rendered, changed }) => Outcome::Mirrored {
                rendered,
                changed: *changed,
            },
            Err(failure) => Outcome::Failed(failure),
        };
        let mut failure = attempt.as_ref().err();
        let unreported = match failure {
            // Nobody needs to hear of a race that the next attempt settles.
            Some(Failure::Raced(_)) => None,
            _ => self.report(mirror, &outcome, now).await.err(),
        };
        failure = failure.or(unreported.as_ref());
        if !matches!(outcome, Outcome::Unchanged) {
            let failed = attempt.is_err();
            self.activity
                .ended(&id.0.namespace, &id.0.name, failed, now);
            self.metrics.reconciled("mirror", !failed);
        }
        memory.failures = failure.map_or(0, |_| memory.failures + 1);
        // While only the vault fails, the target still is as it was.
        if failure.is_some_and(|failure| !matches!(failure, Failure::Vault(_))) {
            memory.seen = None;
        }
        let action = self.next(mirror, &memory, failure, now);
        self.memories.keep(id, memory);
        action
    }

    async fn attempt(
        &self,
        mirror: &KeyVaultMirror,
        id: &MirrorId,
        memory: &mut Memory,
    ) -> Result<Attempt, Failure> {
        let (reads, interval) = self.wants(mirror).inspect_err(|_| self.vaults.forget(id))?;
        self.vaults.want(id, &reads, interval);
        let sync_now = mirror.annotations().get(SYNC_NOW).cloned();
        let before = memory.sync_now.replace(sync_now.clone());
        if before.is_some_and(|before| before != sync_now) {
            self.vaults.ask_anew(id);
        }
        let target = &mirror.spec.target.name;
        let targets = Targets::new(self.client.clone(), &id.0.namespace);
        let existing = self
            .existing(&targets, &id.0.namespace, target, memory)
            .await?;
        let now = self.clock.now();
        let in_sync = memory.seen.as_ref().is_some_and(|seen| {
            seen.generation == mirror.metadata.generation
                && existing
                    .as_ref()
                    .is_some_and(|existing| existing.resource_version == seen.target)
                && seen.valid_until.is_none_or(|until| now < until)
        });
        match self.vaults.take(id) {
            Some(Delivery::Content(content)) => {
                self.activity.begin(&id.0.namespace, &id.0.name, target);
                self.write(mirror, &reads, content, &targets, existing, memory)
                    .await
            }
            Some(Delivery::Failed(error)) => Err(error.into()),
            Some(Delivery::Unchanged) | None if in_sync => Ok(Attempt::Unchanged),
            Some(Delivery::Unchanged) | None => {
                self.activity.begin(&id.0.namespace, &id.0.name, target);
                self.vaults.ask(id);
                Ok(Attempt::Waiting)
            }
        }
    }

    /// Brings the target to the content of all of the mirror's objects.
    async fn write(
        &self,
        mirror: &KeyVaultMirror,
        reads: &[ReadKey],
        content: Vec<Arc<VaultSecret>>,
        targets: &Targets,
        mut existing: Option<Existing>,
        memory: &mut Memory,
    ) -> Result<Attempt, Failure> {
        let target = &mirror.spec.target.name;
        let entries = mirror.spec.data.iter().zip(content);
        let rendered = render(
            entries.map(|(entry, secret)| (entry.key.as_str(), entry.object.name.as_str(), secret)),
        );
        let desired = self.desired(mirror, reads, &rendered);
        let rivals = self.rivals(mirror);
        let mut races = 0;
        let (resource_version, changed) = loop {
            let planned = plan(
                target,
                mirror.spec.target.type_,
                &desired,
                existing.as_ref(),
                &rivals,
                self.clock.now(),
            );
            let write = match planned {
                Plan::Conflict(conflict) => return Err(conflict.into()),
                Plan::InSync => break (resource_version(existing), false),
                Plan::Write(write) => write,
            };
            match targets.write(mirror, &write, &rendered).await {
                Ok(resource_version) => {
                    self.metrics
                        .target_written(&mirror.namespace().unwrap_or_default());
                    tracing::info!(%target, keys = rendered.len(), content = write.changes_content, "Secret written");
                    break (resource_version, write.changes_content);
                }
                Err(Failure::Raced(_)) if races < RACES => {
                    races += 1;
                    let metadata = targets.metadata(target).await?;
                    existing = metadata.map(|secret| Existing::of(secret.meta()));
                }
                Err(failure) => return Err(failure),
            }
        };
        memory.seen = Some(Seen {
            generation: mirror.metadata.generation,
            target: resource_version,
            valid_until: valid_until(&rendered, self.clock.now()),
        });
        Ok(Attempt::Mirrored { rendered, changed })
    }

    /// What a mirror may read, and how often that is looked at.
    fn wants(&self, mirror: &KeyVaultMirror) -> Result<(Vec<ReadKey>, Duration), Failure> {
        let grants = self.grants.state();
        let reads = grant::reads(
            &mirror.namespace().unwrap_or_default(),
            &mirror.spec,
            grants.iter().map(|g| &g.spec),
            &self.suffixes,
        )?;
        if reads.is_empty() {
            return Err(Failure::InvalidSpec(
                "spec.data is empty; name at least one key and its object".to_owned(),
            ));
        }
        interval(&mirror.spec.refresh_interval, self.min_refresh_interval)
            .map(|interval| (reads, interval))
            .map_err(Failure::InvalidSpec)
    }

    /// The target as it is: from the watch if that is as new as the last write, else from the API server.
    async fn existing(
        &self,
        targets: &Targets,
        namespace: &str,
        name: &str,
        memory: &Memory,
    ) -> Result<Option<Existing>, Failure> {
        let watched = self
            .targets
            .get(&watch::reference(namespace, name))
            .map(|secret| Existing::of(secret.meta()));
        match (&memory.seen, watched) {
            (None, Some(existing)) if memory.failures == 0 => Ok(Some(existing)),
            (Some(seen), Some(existing)) if existing.resource_version == seen.target => {
                Ok(Some(existing))
            }
            _ => Ok(targets
                .metadata(name)
                .await?
                .map(|secret| Existing::of(secret.meta()))),
        }
    }

    fn desired(&self, mirror: &KeyVaultMirror, reads: &[ReadKey], rendered: &Rendered) -> Desired {
        let namespace = mirror.namespace().unwrap_or_default();
        let target = &mirror.spec.target;
        let vault = reads
            .first()
            .map(|read| read.vault.to_string())
            .unwrap_or_default();
        let keys = rendered.iter().map(|(key, from)| {
            let place = Place {
                namespace: &namespace,
                kind: "Secret",
                target: &target.name,
                key,
            };
            let content = Content {
                digest: self.digest_key.content(place, from.value.expose()),
                object: format!("{vault}/secrets/{}", from.object),
                version: from.secret.version.clone(),
                updated: from.secret.updated,
            };
            (key.clone(), content)
        });
        Desired {
            mirror: mirror.name_any(),
            uid: mirror.uid().unwrap_or_default(),
            digest_key: self.digest_key.id().to_owned(),
            deletion_policy: mirror.spec.deletion_policy,
            labels: target.labels.clone(),
            annotations: target.annotations.clone(),
            keys: keys.collect(),
        }
    }

    fn rivals(&self, mirror: &KeyVaultMirror) -> Vec<Rival> {
        let precedence = |mirror: &KeyVaultMirror| {
            (mirror.creation_timestamp().map(|time| time.0), mirror.uid())
        };
        self.mirrors
            .state_filter(|other| {
                other.metadata.namespace == mirror.metadata.namespace
                    && other.metadata.uid != mirror.metadata.uid
                    && other.spec.target.name == mirror.spec.target.name
                    && other.metadata.deletion_timestamp.is_none()
            })
            .iter()
            .map(|other| Rival {
                name: other.name_any(),
                uid: other.uid().unwrap_or_default(),
                type_: other.spec.target.type_,
                keys: other
                    .spec
                    .data
                    .iter()
                    .map(|entry| entry.key.clone())
                    .collect(),
                precedes: precedence(other) < precedence(mirror),
            })
            .collect()
    }

    fn next(
        &self,
        mirror: &KeyVaultMirror,
        memory: &Memory,
        failure: Option<&Failure>,
        now: Timestamp,
    ) -> Action {
        let interval = interval(&mirror.spec.refresh_interval, self.min_refresh_interval);
        let interval = interval.unwrap_or(self.min_refresh_interval);
        match failure {
            // Each of these is told when something changes: by the vault, the grants, or the mirror itself.
            Some(Failure::Vault(_) | Failure::Refused(_) | Failure::InvalidSpec(_)) => {
                Action::await_change()
            }
            Some(Failure::Raced(_)) => Action::requeue(RACE_PAUSE),
            Some(Failure::ApiServer(_)) => Action::requeue(backoff(memory.failures, interval)),
            Some(Failure::Conflict(_) | Failure::Rejected { .. }) => Action::requeue(interval),
            None => {
                let valid_until = memory.seen.as_ref().and_then(|seen| seen.valid_until);
                valid_until.map_or_else(Action::await_change, |until| {
                    let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                    Action::requeue(wait.min(LONGEST_WAIT))
                })
            }
        }
    }

    /// Writes the status if it says something new, and tells it by event and metric.
    async fn report(
        &self,
        mirror: &KeyVaultMirror,
        outcome: &Outcome<'_>,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let (namespace, name) = (mirror.namespace().unwrap_or_default(), mirror.name_any());
        let after = status(mirror, outcome, now);
        let has = |type_: &str| {
            after
                .conditions
                .iter()
                .any(|c| c.type_ == type_ && c.status == "True")
        };
        self.metrics.mirror_state(
            &namespace,
            &name,
            has(condition::READY),
            has(condition::OUTSIDE_VALIDITY),
        );
        // The cache may lag behind our own last write of the status; one write too many is the worst that comes of it.
        if mirror.status.as_ref() == Some(&after) {
            return Ok(());
        }
        let said = |status: Option<&crate::api::KeyVaultMirrorStatus>| {
            let ready = status?
                .conditions
                .iter()
                .find(|c| c.type_ == condition::READY)?;
            Some((ready.reason.clone(), ready.message.clone()))
        };
        if let Outcome::Failed(failure) = outcome
            && said(mirror.status.as_ref()) != said(Some(&after))
        {
            tracing::warn!(reason = failure.reason(), "{failure}");
            let about = mirror.object_ref(&());
            self.events
                .publish(
                    about,
                    Kind::Warning,
                    failure.reason(),
                    "Mirror",
                    failure.to_string(),
                )
                .await;
        }
        if let Outcome::Mirrored { changed: true, .. } = outcome {
            let versions: Vec<String> = after
                .objects
                .iter()
                .map(|o| format!("{} from {} version {}", o.key, o.name, o.version))
                .collect();
            let note = format!(
                "Secret {} written: {}",
                mirror.spec.target.name,
                versions.join(", ")
            );
            self.events
                .publish(
                    mirror.object_ref(&()),
                    Kind::Normal,
                    "Mirrored",
                    "Mirror",
                    note,
                )
                .await;
        }
        let api: Api<KeyVaultMirror> = Api::namespaced(self.client.clone(), &namespace);
        let patch = match outcome {
            Outcome::Mirrored { .. } => json!({"status": after}),
            // Of the rest the cache may know less than is there.
            Outcome::Failed(_) | Outcome::Unchanged => json!({"status": {
                "conditions": after.conditions,
                "observedGeneration": after.observed_generation,
            }}),
        };
        let patch = Patch::Merge(patch);
        match api
            .patch_status(&name, &PatchParams::default(), &patch)
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "the status can't be written; that is tried again");
                Err(Failure::ApiServer(error.to_string()))
            }
        }
    }

    async fn sweep_for_ever(self: Arc<Self>) {
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = self.mirrors_touched.notified() => tokio::time::sleep(SWEEP_PAUSE).await,
            }
            self.sweep().await;
        }
    }

    /// Removes what mirrors that are gone, or have another target now, left behind.
    async fn sweep(&self) {
        let mirrors = self.mirrors.state();
        let mut live: HashMap<String, LiveMirrors> = HashMap::new();
        for mirror in &mirrors {
            if let (Some(namespace), Some(uid)) = (mirror.namespace(), mirror.uid()) {
                let target = mirror.spec.target.name.clone();
                live.entry(namespace).or_default().insert(uid, target);
            }
        }
        let none = LiveMirrors::default();
        for target in self.targets.state() {
            let (namespace, name) = (target.namespace().unwrap_or_default(), target.name_any());
            let live = live.get(&namespace).unwrap_or(&none);
            let existing = Existing::of(target.meta());
            for sweep in leftovers(&name, &existing, live) {
                if let Err(error) = self.sweep_one(&namespace, &name, &existing, &sweep).await {
                    tracing::warn!(%namespace, target = %name, %error, "a leftover can't be removed; that is tried again");
                }
            }
        }
        for id in self.memories.forget_all_but(&mirrors) {
            self.vaults.forget(&id);
            self.metrics.mirror_gone(&id.0.namespace, &id.0.name);
            self.activity.forget(&id.0.namespace, &id.0.name);
        }
    }

    async fn sweep_one(
        &self,
        namespace: &str,
        target: &str,
        existing: &Existing,
        sweep: &Sweep,
    ) -> Result<(), Failure> {
        let (Sweep::Withdraw { mirror, uid } | Sweep::Delete { mirror, uid }) = sweep;
        // The cache alone is no ground to remove anything on.
        let api: Api<KeyVaultMirror> = Api::namespaced(self.client.clone(), namespace);
        let live = api
            .get_opt(mirror)
            .await
            .map_err(|error| Failure::ApiServer(error.to_string()))?;
        if live
            .is_some_and(|live| live.uid().as_ref() == Some(uid) && live.spec.target.name == target)
        {
            return Ok(());
        }
        let targets = Targets::new(self.client.clone(), namespace);
        tracing::info!(
            namespace,
            target,
            mirror,
            "removing what a mirror left behind"
        );
        match sweep {
            Sweep::Withdraw { uid, .. } => {
                let seen = (existing.uid.as_str(), existing.resource_version.as_str());
                targets.withdraw(target, uid, Some(seen)).await
            }
            Sweep::Delete { .. } => {
                targets
                    .delete(target, &existing.uid, &existing.resource_version)
                    .await
            }
        }
    }
}

impl Memories {
    fn of(&self, mirror: &MirrorId) -> Memory {
        self.lock().get(mirror).cloned().unwrap_or_default()
    }

    fn keep(&self, mirror: MirrorId, memory: Memory) {
        self.lock().insert(mirror, memory);
    }

    /// Forgets mirrors that are gone, and gives them.
    fn forget_all_but(&self, mirrors: &[Arc<KeyVaultMirror>]) -> Vec<MirrorId> {
        let live: std::collections::HashSet<String> =
            mirrors.iter().filter_map(|mirror| mirror.uid()).collect();
        let mut memories = self.lock();
        let gone = memories.extract_if(|id, _| !live.contains(&id.0.uid));
        gone.map(|(id, _)| id).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MirrorId, Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn resource_version(existing: Option<Existing>) -> String {
    existing
        .map(|existing| existing.resource_version)
        .unwrap_or_default()
}

/// When the first of the objects becomes valid or expires.
fn valid_until(rendered: &Rendered, now: Timestamp) -> Option<Timestamp> {
    rendered
        .values()
        .flat_map(|from| [from.secret.not_before, from.secret.expires])
        .flatten()
        .filter(|time| *time > now)
        .min()
}
