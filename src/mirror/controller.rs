//! Looks after each mirror: finds out what it may read and when, reads, and has the target written.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use jiff::Timestamp;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::Instrument;

use super::activity::Activity;
use super::apply::Targets;
use super::grant;
use super::memory::{About, Last, Memories, Memory};
use super::plan::{Desired, Existing, Plan, Rival, plan};
use super::record::{Content, Record};
use super::schedule::{Ticks, backoff, interval};
use super::status::{Failure, Outcome};
use super::target::Target;
use crate::api::{KeyVaultGrant, KeyVaultMirror};
use crate::clock::ServerClock;
use crate::daemon::Stop;
use crate::digest::{DigestKey, Place};
use crate::render::{Rendered, render};
use crate::telemetry::{Events, Metrics};
use crate::vault::{DnsSuffixes, LINGER, ReadKey, Reader};
use crate::watch::{self, Index};

/// Annotation that makes a mirror ask its vault at once, with any new value.
const SYNC_NOW: &str = "keytide.dev/sync-now";
/// Pause after someone else wrote at the same moment.
const RACE_PAUSE: Duration = Duration::from_millis(500);
/// So many races in a row are nothing that anybody need hear of.
const QUIET_RACES: u32 = 5;
/// Pause after a status could not be written.
const UNTOLD_PAUSE: Duration = Duration::from_secs(2);
/// Mirrors that are looked after at the same moment: kube's controller polls all of them whenever one moves.
const CONCURRENCY: u16 = 64;

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
    pub mirrors_by_target: Index<KeyVaultMirror>,
    pub grants: Store<KeyVaultGrant>,
    pub targets: Store<Target>,
    pub activity: Activity,
    pub events: Events,
    pub metrics: Arc<Metrics>,
    pub memories: Memories,
    /// Says that a mirror came, changed or went, so that leftovers may be there.
    pub mirrors_touched: Arc<Notify>,
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

/// Runs the controller until `stop`, and then until what is under way is done.
pub async fn run(mirrors: Arc<Mirrors>, triggers: Triggers, stop: Stop) {
    let store = mirrors.mirrors.clone();
    let sweeping = Arc::clone(&mirrors).sweep_until(stop.clone());
    let controller = Controller::for_stream(futures::stream::pending(), store)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(futures::stream::select(triggers.mirrors, triggers.targets))
        .reconcile_all_on(triggers.grants)
        .graceful_shutdown_on(stop)
        .run(Mirrors::reconcile, |_, error, _| match *error {}, mirrors)
        .for_each(|_| std::future::ready(()));
    futures::join!(controller, sweeping);
}

/// The mirrors that have a part in a target.
pub fn mirrors_of(target: &Target) -> Vec<ObjectRef<KeyVaultMirror>> {
    target
        .records()
        .values()
        .map(|record| watch::reference(&target.namespace, &record.mirror))
        .collect()
}

/// What an attempt found where nothing failed.
enum Attempt {
    /// A look at the vault is not due before this has passed.
    NotDue(Duration),
    Mirrored {
        rendered: Rendered,
        /// Whether content was written, and when it last was.
        changed: bool,
        last_change: Option<Timestamp>,
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
        let told = match &attempt {
            Ok(Attempt::NotDue(pause)) => return Action::requeue(*pause),
            Ok(Attempt::Mirrored {
                rendered,
                changed,
                last_change,
            }) => {
                memory.failures = 0;
                let outcome = Outcome::Mirrored {
                    rendered,
                    changed: *changed,
                    last_change: *last_change,
                };
                self.report(mirror, &mut memory.told, &outcome, now).await
            }
            Err(failure) => {
                memory.failures = memory.failures.saturating_add(1);
                let quiet = matches!(failure, Failure::Raced(_)) && memory.failures <= QUIET_RACES;
                let outcome = Outcome::Failed(failure);
                quiet || self.report(mirror, &mut memory.told, &outcome, now).await
            }
        };
        let failed = attempt.is_err();
        let mut pause = self.pause(mirror, &memory, attempt.err().as_ref(), now);
        if let Last::Refused { again, .. } = &mut memory.last {
            *again = Instant::now() + pause;
        }
        if !told {
            // So that the next attempt tells it, though there is nothing else to do.
            memory.last = Last::Unknown;
            pause = pause.min(UNTOLD_PAUSE);
        }
        memory.sync_now = mirror.annotations().get(SYNC_NOW).cloned();
        self.memories.keep(mirror, memory);
        self.activity.ended(&namespace, &name, failed, now);
        self.metrics.reconciled("mirror", !failed);
        Action::requeue(pause)
    }

    async fn attempt(
        &self,
        mirror: &KeyVaultMirror,
        memory: &mut Memory,
    ) -> Result<Attempt, Failure> {
        let namespace = mirror.namespace().unwrap_or_default();
        let target = &mirror.spec.target.name;
        let last = std::mem::take(&mut memory.last);
        let grants = self.grants.state();
        let reads = grant::reads(
            &namespace,
            &mirror.spec,
            grants.iter().map(|g| &g.spec),
            &self.suffixes,
        )?;
        let ticks = self.ticks(mirror, &reads)?;
        let about = About {
            generation: mirror.metadata.generation,
            reads,
        };
        let now = self.clock.now();
        let tick = ticks.last(now);
        let asked_for = memory.sync_now.as_ref() != mirror.annotations().get(SYNC_NOW);
        if let Some(pause) = last.pause(&about, Instant::now()).filter(|_| !asked_for) {
            return Ok(Attempt::NotDue(pause));
        }
        let targets = Targets::new(self.client.clone(), &namespace);
        let existing = self
            .existing(&targets, &namespace, target, &last, memory.failures)
            .await?;
        let not_before = match &last {
            _ if asked_for => Instant::now(),
            Last::InSync { read_at, .. } if *read_at < tick => instant_of(tick, now),
            Last::InSync {
                about: before,
                target: seen,
                ..
            } if *before == about
                && existing
                    .as_ref()
                    .is_some_and(|e| e.resource_version == *seen) =>
            {
                return Ok(Attempt::NotDue(ticks.until_next(now)));
            }
            Last::Refused { at, .. } => *at,
            Last::InSync { .. } | Last::Unknown => before_now(LINGER),
        };

        let _in_flight = self.activity.begin(&namespace, &mirror.name_any(), target);
        let fetched = self.fetch(mirror, &about.reads, not_before).await;
        let rendered = fetched.inspect_err(|_| {
            let at = Instant::now();
            memory.last = Last::Refused {
                about: about.clone(),
                at,
                again: at,
            };
        })?;
        let desired = self.desired(mirror, &about.reads, &rendered);
        let rivals = self.rivals(mirror);
        let planned = plan(
            target,
            mirror.spec.target.type_,
            &desired,
            existing.as_ref(),
            &rivals,
            self.clock.now(),
        );
        let (resource_version, changed, last_change) = match planned {
            Plan::Conflict(conflict) => return Err(conflict.into()),
            Plan::InSync(existing) => {
                let record = existing.records.get(&desired.uid);
                let last_change = record.and_then(Record::last_change);
                (existing.resource_version.clone(), false, last_change)
            }
            Plan::Write(write) => {
                let resource_version = targets.write(mirror, &write, &rendered).await?;
                self.metrics.target_written(&namespace);
                tracing::info!(%target, keys = rendered.len(), content = write.changes_content, "Secret written");
                let last_change = write.record.last_change();
                (resource_version, write.changes_content, last_change)
            }
        };
        memory.last = Last::InSync {
            about,
            read_at: now,
            target: resource_version,
        };
        Ok(Attempt::Mirrored {
            rendered,
            changed,
            last_change,
        })
    }

    /// The target as it is: from the watch if that is as new as the last write, else from the API server. At first the watch
    /// is believed even where it has none, since a first write is refused if there is one.
    async fn existing(
        &self,
        targets: &Targets,
        namespace: &str,
        name: &str,
        last: &Last,
        failures: u32,
    ) -> Result<Option<Existing>, Failure> {
        let watched = self
            .targets
            .get(&watch::reference(namespace, name))
            .map(|target| target.existing());
        match (last, watched) {
            (Last::Unknown, watched) if failures == 0 => Ok(watched),
            (Last::InSync { target, .. }, Some(existing))
                if existing.resource_version == *target =>
            {
                Ok(Some(existing))
            }
            _ => Ok(targets
                .metadata(name)
                .await?
                .map(|secret| Target::of(secret).existing())),
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
        let namespace = mirror.namespace().unwrap_or_default();
        self.mirrors_by_target
            .get(&namespace, &mirror.spec.target.name)
            .iter()
            .filter_map(|other| self.mirrors.get(other))
            .filter(|other| {
                other.uid() != mirror.uid()
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
                precedes: precedence(&other) < precedence(mirror),
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

    /// How long to wait for the next attempt.
    fn pause(
        &self,
        mirror: &KeyVaultMirror,
        memory: &Memory,
        failure: Option<&Failure>,
        now: Timestamp,
    ) -> Duration {
        let interval = interval(&mirror.spec.refresh_interval, self.min_refresh_interval)
            .unwrap_or(self.min_refresh_interval);
        match failure {
            None => memory.last.vault().map_or(interval, |vault| {
                Ticks::new(vault, interval).until_next(now)
            }),
            Some(Failure::Raced(_)) if memory.failures <= QUIET_RACES => RACE_PAUSE,
            Some(failure) if failure.is_transient() => {
                backoff(memory.failures, interval, failure.retry_after())
            }
            Some(_) => interval,
        }
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
