//! The controller of mirrors: keeps each target as its vault objects are.
//!
//! ```text
//! KeyVaultMirror + KeyVaultGrants ──grant──▶ reads ──vault──▶ answers ──render──▶ data ──plan──▶ write ──apply──▶ Secret
//! ```
//!
//! Watches KeyVaultMirrors (what is wanted), KeyVaultGrants (what is allowed) and the metadata of Secrets with the label
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
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::Instrument;

use self::apply::Targets;
use self::plan::{Desired, Existing, Plan, Rival, plan};
use self::record::Content;
use self::schedule::{Ticks, backoff, interval};
use self::status::{Failure, Outcome, status};
use self::sweep::{LiveMirrors, Sweep, leftovers};
use crate::api::{KeyVaultGrant, KeyVaultMirror, condition};
use crate::clock::ServerClock;
use crate::digest::{DigestKey, Place};
use crate::render::{Rendered, render};
use crate::telemetry::{Events, Kind, Metrics};
use crate::vault::{DnsSuffixes, LINGER, ReadKey, Reader, VaultErrorKind};
use crate::watch;

pub use self::activity::{Activity, State};
pub use self::plan::MIRRORED_LABEL;
pub use self::record::{KeyRecord, Record, records};

/// Annotation that makes a mirror ask its vault at once, with any new value.
const SYNC_NOW: &str = "keytide.dev/sync-now";
/// How often leftovers are looked for though nothing happened.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Pause after someone else wrote at the same moment.
const RACE_PAUSE: Duration = Duration::from_millis(500);

/// What the controller works with.
pub struct Mirrors {
    pub client: Client,
    pub reader: Reader,
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

/// What the controller remembers of each mirror, by its UID, to know when a look at the vault is due. Losing it costs a read.
#[derive(Default)]
pub struct Memories(Mutex<HashMap<String, Memory>>);

#[derive(Clone, Debug, Default)]
struct Memory {
    namespace: String,
    name: String,
    /// The mirror as it was when it last was in sync.
    seen: Option<Seen>,
    /// Failures in a row.
    failures: u32,
    sync_now: Option<String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Seen {
    generation: Option<i64>,
    reads: Vec<ReadKey>,
    read_at: Timestamp,
    /// The target's resourceVersion; any other one may be drift.
    target: String,
}

/// Things that make mirrors look again.
pub struct Triggers {
    /// Mirrors that came or changed.
    pub mirrors: mpsc::UnboundedReceiver<ObjectRef<KeyVaultMirror>>,
    /// Targets that were touched.
    pub targets: mpsc::UnboundedReceiver<ObjectRef<KeyVaultMirror>>,
    /// Grants that were touched.
    pub grants: mpsc::UnboundedReceiver<()>,
}

/// Runs the controller for ever.
pub async fn run(mirrors: Arc<Mirrors>, triggers: Triggers) {
    let store = mirrors.mirrors.clone();
    let sweeping = Arc::clone(&mirrors).sweep_for_ever();
    let controller = Controller::for_stream(futures::stream::pending(), store)
        .reconcile_on(futures::stream::select(triggers.mirrors, triggers.targets))
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

/// What an attempt found where nothing failed.
enum Attempt {
    /// A look at the vault is not due.
    NotDue,
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
        // Not `name`: under that, a line of JSON has the name of the span.
        let span = tracing::info_span!(
            "mirror",
            namespace = mirror.namespace(),
            mirror = mirror.name_any()
        );
        Ok(this.reconcile_one(&mirror).instrument(span).await)
    }

    async fn reconcile_one(&self, mirror: &KeyVaultMirror) -> Action {
        let (namespace, name) = (mirror.namespace().unwrap_or_default(), mirror.name_any());
        let mut memory = self.memories.of(mirror);
        let attempt = self.attempt(mirror, &mut memory).await;
        let now = self.clock.now();
        memory.sync_now = mirror.annotations().get(SYNC_NOW).cloned();
        let failed = attempt.is_err();
        memory.failures = if failed { memory.failures + 1 } else { 0 };
        if failed {
            memory.seen = None;
        }
        let again = self.next(mirror, &memory, attempt.as_ref().err(), now);
        self.memories.keep(mirror, memory);
        self.activity.ended(&namespace, &name, failed, now);
        match &attempt {
            Ok(Attempt::NotDue) => return Action::requeue(again),
            Ok(Attempt::Mirrored { rendered, changed }) => {
                self.report(
                    mirror,
                    &Outcome::Mirrored {
                        rendered,
                        changed: *changed,
                    },
                    now,
                )
                .await;
            }
            // Nobody needs to hear of a race that the next attempt settles.
            Err(Failure::Raced(_)) => {}
            Err(failure) => self.report(mirror, &Outcome::Failed(failure), now).await,
        }
        self.metrics.reconciled("mirror", !failed);
        Action::requeue(again)
    }

    async fn attempt(
        &self,
        mirror: &KeyVaultMirror,
        memory: &mut Memory,
    ) -> Result<Attempt, Failure> {
        let namespace = mirror.namespace().unwrap_or_default();
        let target = &mirror.spec.target.name;
        let grants = self.grants.state();
        let reads = grant::reads(
            &namespace,
            &mirror.spec,
            grants.iter().map(|g| &g.spec),
            &self.suffixes,
        )?;
        let ticks = self.ticks(mirror, &reads)?;
        let now = self.clock.now();
        let targets = Targets::new(self.client.clone(), &namespace);
        let existing = self.existing(&targets, &namespace, target, memory).await?;

        let tick = ticks.last(now);
        let asked_for = memory.sync_now.as_ref() != mirror.annotations().get(SYNC_NOW);
        let due = memory.seen.as_ref().is_none_or(|seen| seen.read_at < tick);
        let same = memory.seen.as_ref().is_some_and(|seen| {
            seen.generation == mirror.metadata.generation
                && seen.reads == reads
                && existing
                    .as_ref()
                    .is_some_and(|existing| existing.resource_version == seen.target)
        });
        if same && !due && !asked_for {
            return Ok(Attempt::NotDue);
        }

        let _in_flight = self.activity.begin(&namespace, &mirror.name_any(), target);
        let not_before = match &memory.seen {
            _ if asked_for || memory.failures > 0 => Instant::now(),
            Some(_) if due => instant_of(tick, now),
            _ => before_now(LINGER),
        };
        let rendered = self.fetch(mirror, &reads, not_before).await?;
        let desired = self.desired(mirror, &reads, &rendered);
        let rivals = self.rivals(mirror);
        let planned = plan(
            target,
            mirror.spec.target.type_,
            &desired,
            existing.as_ref(),
            &rivals,
            self.clock.now(),
        );
        let (resource_version, changed) = match planned {
            Plan::Conflict(conflict) => return Err(conflict.into()),
            Plan::InSync => (
                existing
                    .map(|existing| existing.resource_version)
                    .unwrap_or_default(),
                false,
            ),
            Plan::Write(write) => {
                let resource_version = targets.write(mirror, &write, &rendered).await?;
                self.metrics.target_written(&namespace);
                tracing::info!(%target, keys = rendered.len(), content = write.changes_content, "Secret written");
                (resource_version, write.changes_content)
            }
        };
        memory.seen = Some(Seen {
            generation: mirror.metadata.generation,
            reads,
            read_at: now,
            target: resource_version,
        });
        Ok(Attempt::Mirrored { rendered, changed })
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

    /// All of a mirror's objects, or the first failure: a target never holds half of a mirror.
    async fn fetch(
        &self,
        mirror: &KeyVaultMirror,
        reads: &[ReadKey],
        not_before: Instant,
    ) -> Result<Rendered, Failure> {
        let answers = reads.iter().map(|key| self.reader.read(key, not_before));
        let answers = futures::future::try_join_all(answers).await?;
        let entries = mirror.spec.data.iter().zip(answers);
        Ok(render(entries.map(|(entry, secret)| {
            (entry.key.as_str(), entry.object.name.as_str(), secret)
        })))
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
            .state()
            .iter()
            .filter(|other| {
                other.namespace() == mirror.namespace()
                    && other.uid() != mirror.uid()
                    && other.spec.target.name == mirror.spec.target.name
                    && other.metadata.deletion_timestamp.is_none()
            })
            .map(|other| Rival {
                name: other.name_any(),
                uid: other.uid().unwrap_or_default(),
                type_: other.spec.target.type_,
                deletion_policy: other.spec.deletion_policy,
                keys: other
                    .spec
                    .data
                    .iter()
                    .map(|entry| entry.key.clone())
                    .collect(),
                labels: other.spec.target.labels.clone(),
                annotations: other.spec.target.annotations.clone(),
                precedes: precedence(other) < precedence(mirror),
            })
            .collect()
    }

    fn ticks(&self, mirror: &KeyVaultMirror, reads: &[ReadKey]) -> Result<Ticks, Failure> {
        let interval = interval(&mirror.spec.refresh_interval, self.min_refresh_interval)
            .map_err(Failure::InvalidSpec)?;
        let vault = reads.first().map(|read| &read.vault);
        vault
            .map(|vault| Ticks::new(vault, interval))
            .ok_or_else(|| {
                Failure::InvalidSpec(
                    "spec.data is empty; name at least one key and its object".to_owned(),
                )
            })
    }

    fn next(
        &self,
        mirror: &KeyVaultMirror,
        memory: &Memory,
        failure: Option<&Failure>,
        now: Timestamp,
    ) -> Duration {
        let interval = interval(&mirror.spec.refresh_interval, self.min_refresh_interval);
        let interval = interval.unwrap_or(self.min_refresh_interval);
        let until_tick = memory
            .seen
            .as_ref()
            .and_then(|seen| seen.reads.first())
            .map_or(interval, |read| {
                Ticks::new(&read.vault, interval).until_next(now)
            });
        match failure {
            None => until_tick,
            Some(Failure::Raced(_)) => RACE_PAUSE,
            Some(failure) if failure.is_transient() => {
                let retry_after = match failure {
                    Failure::Vault(error) => match error.kind {
                        VaultErrorKind::Throttled { retry_after } => retry_after,
                        _ => None,
                    },
                    _ => None,
                };
                backoff(memory.failures, interval, retry_after)
            }
            Some(_) => interval,
        }
    }

    /// Writes the status if it says something new, and tells it by event and metric.
    async fn report(&self, mirror: &KeyVaultMirror, outcome: &Outcome<'_>, now: Timestamp) {
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
            return;
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
        let patch = Patch::Merge(json!({"status": after}));
        match api
            .patch_status(&name, &PatchParams::default(), &patch)
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                tracing::warn!(%error, "the status can't be written; that is tried again")
            }
        }
    }

    async fn sweep_for_ever(self: Arc<Self>) {
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = self.mirrors_touched.notified() => {}
            }
            self.sweep().await;
        }
    }

    /// Removes what mirrors that are gone, or have another target now, left behind.
    async fn sweep(&self) {
        let mirrors = self.mirrors.state();
        for target in self.targets.state() {
            let (namespace, name) = (target.namespace().unwrap_or_default(), target.name_any());
            let live: LiveMirrors = mirrors
                .iter()
                .filter(|mirror| mirror.namespace().as_ref() == Some(&namespace))
                .filter_map(|mirror| Some((mirror.uid()?, mirror.spec.target.name.clone())))
                .collect();
            let existing = Existing::of(target.meta());
            for sweep in leftovers(&name, &existing, &live) {
                if let Err(error) = self.sweep_one(&namespace, &name, &existing, &sweep).await {
                    tracing::warn!(%namespace, target = %name, %error, "a leftover can't be removed; that is tried again");
                }
            }
        }
        for (namespace, name) in self.memories.forget_all_but(&mirrors) {
            self.metrics.mirror_gone(&namespace, &name);
            self.activity.forget(&namespace, &name);
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
    fn of(&self, mirror: &KeyVaultMirror) -> Memory {
        self.lock()
            .get(&mirror.uid().unwrap_or_default())
            .cloned()
            .unwrap_or_default()
    }

    fn keep(&self, mirror: &KeyVaultMirror, mut memory: Memory) {
        memory.namespace = mirror.namespace().unwrap_or_default();
        memory.name = mirror.name_any();
        self.lock().insert(mirror.uid().unwrap_or_default(), memory);
    }

    /// Forgets mirrors that are gone and gives their namespaces and names.
    fn forget_all_but(&self, mirrors: &[Arc<KeyVaultMirror>]) -> Vec<(String, String)> {
        let live: std::collections::HashSet<String> =
            mirrors.iter().filter_map(|mirror| mirror.uid()).collect();
        let gone = |(uid, memory): (&String, &mut Memory)| {
            (!live.contains(uid)).then(|| (memory.namespace.clone(), memory.name.clone()))
        };
        let mut memories = self.lock();
        let forgotten = memories.iter_mut().filter_map(gone).collect();
        memories.retain(|uid, _| live.contains(uid));
        forgotten
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The instant of a time that is not after `now`.
fn instant_of(time: Timestamp, now: Timestamp) -> Instant {
    before_now(Duration::try_from(now.duration_since(time)).unwrap_or_default())
}

fn before_now(ago: Duration) -> Instant {
    let now = Instant::now();
    now.checked_sub(ago).unwrap_or(now)
}
