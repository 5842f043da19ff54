//! Carries out what [`super::decide`] decides: looks after each workload that opted in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::channel::mpsc;
use futures::{FutureExt, StreamExt};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::applier;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource, ResourceExt};
use tracing::Instrument;

use super::apply;
use super::baseline::{BASELINE, Baseline};
use super::decide::{
    self, Content, Decision, MirrorState, Timing, Wait, contents_in_use, decide, suspects,
};
use super::opt_in::{Context, OptIn, ROTATE, Typo};
use super::pods;
use super::reference::{Reference, SourceKey};
use super::rollout::Rollout;
use super::sources::Sources;
use super::workload::{Workload, WorkloadKind};
use super::workloads::Workloads;
use crate::clock::ServerClock;
use crate::daemon::Stop;
use crate::digest::DigestKey;
use crate::mirror::Activity;
use crate::telemetry::{Events, Kind, Metrics};

/// Workloads looked after at once; what they wait for is the API server alone.
const CONCURRENCY: u16 = 16;

/// Pause after someone else wrote at the same moment.
const RACE_PAUSE: Duration = Duration::from_millis(500);
/// Pause after the API server could not be asked.
const ERROR_PAUSE: Duration = Duration::from_secs(2);
/// How long after a workload came its mirrors may still be on their way.
const INSTALLATION: SignedDuration = SignedDuration::from_mins(1);

/// What the controller works with.
pub struct Rotations {
    pub client: Client,
    pub clock: ServerClock,
    pub digest_key: DigestKey,
    pub timing: Timing,
    pub workloads: Workloads,
    pub sources: Sources,
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Whether annotations of Reloader and wave opt in too.
    pub compatibility: bool,
    pub activity: Activity,
    pub events: Events,
    pub metrics: Arc<Metrics>,
    pub warned: Warned,
    pub rollouts: Rollouts,
}

/// The rollouts under way that a rotation began, by UID of the workload; losing one costs an observation.
pub type Rollouts = Mutex<HashMap<String, Rotated>>;

/// A rotation whose rollout is under way.
#[derive(Debug)]
pub struct Rotated {
    rotated: Timestamp,
    /// When the vault object was updated that caused it.
    updated: Timestamp,
}

/// The workloads that are to be looked at again, by their kind.
pub type Triggers = Vec<(WorkloadKind, mpsc::UnboundedReceiver<ObjectRef<Workload>>)>;

/// Which warning each workload was given last, so that it is not repeated; losing it costs an event.
#[derive(Default)]
pub struct Warned(Mutex<HashMap<String, String>>);

impl Warned {
    /// Whether this warning is news for the workload with this UID.
    fn is_news(&self, uid: String, warning: &str) -> bool {
        lock(&self.0).insert(uid, warning.to_owned()).as_deref() != Some(warning)
    }
}

/// Runs the controller until `stop`, and then until what is under way is done.
pub async fn run(rotations: Arc<Rotations>, triggers: Triggers, stop: Stop) {
    let kinds = triggers
        .into_iter()
        .map(|(kind, triggers)| run_kind(Arc::clone(&rotations), kind, triggers, stop.clone()));
    futures::future::join_all(kinds).await;
}

async fn run_kind(
    rotations: Arc<Rotations>,
    kind: WorkloadKind,
    triggers: mpsc::UnboundedReceiver<ObjectRef<Workload>>,
    stop: Stop,
) {
    let store = rotations.workloads.of(kind).clone();
    applier(
        |workload, rotations| Rotations::reconcile(workload, rotations).boxed(),
        |_, error, _| {
            // Whatever wrote in between is seen by the watch; the pause is for when it was seen already.
            if matches!(error, kube::Error::Api(status) if status.code == 409) {
                return Action::requeue(RACE_PAUSE);
            }
            tracing::warn!(%error, "a workload can't be looked after; that is tried again");
            Action::requeue(ERROR_PAUSE)
        },
        rotations,
        store,
        triggers.take_until(stop).map(Ok::<_, Infallible>),
        Config::default().concurrency(CONCURRENCY),
    )
    .for_each(|_| std::future::ready(()))
    .await;
}

impl Rotations {
    async fn reconcile(workload: Arc<Workload>, this: Arc<Self>) -> Result<Action, kube::Error> {
        // Not `name`: under that, a line of JSON has the name of the span.
        let span = tracing::info_span!(
            "rotation",
            namespace = workload.namespace(),
            kind = workload.kind.name(),
            workload = workload.name_any()
        );
        let action = this.look_after(&workload).instrument(span).await;
        this.metrics.reconciled("rotation", action.is_ok());
        action
    }

    fn opt_in(&self, workload: &Workload) -> OptIn {
        let namespace = ObjectRef::new(&workload.namespace().unwrap_or_default());
        let namespace = self.namespaces.get(&namespace);
        let default = namespace
            .as_ref()
            .and_then(|namespace| namespace.annotations().get(ROTATE));
        let context = Context {
            namespace: default.map(String::as_str),
            compatibility: self.compatibility,
        };
        OptIn::of(workload, context)
    }

    async fn look_after(&self, workload: &Workload) -> Result<Action, kube::Error> {
        let opt_in = self.opt_in(workload);
        if opt_in == OptIn::No || workload.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let namespace = workload.namespace().unwrap_or_default();
        let wanted = opt_in.wanted(&workload.references);
        let references = self.sources.resolve(&namespace, wanted);
        let contents = self.sources.contents(&namespace, &references).await?;
        let idle = self
            .warn_of_typos(workload, &opt_in, &references, &contents)
            .await
            .map_or_else(Action::await_change, Action::requeue);
        let looked_at = looked_at(workload, references);
        let contents = contents_in_use(&looked_at.references, &contents);
        let started = if suspects(&looked_at, &contents).is_empty() {
            Vec::new()
        } else {
            pods::started(&self.client, workload).await?
        };
        let mirrors = self.mirrors(&namespace, &looked_at.references);
        let now = self.clock.now();
        self.observe_rollout(workload, &looked_at, now);
        match decide(&looked_at, &contents, &started, &mirrors, self.timing, now) {
            Decision::Nothing => Ok(idle),
            Decision::Record(baseline) => {
                apply::record(&self.client, workload, &baseline).await?;
                tracing::info!("baseline recorded");
                Ok(idle)
            }
            Decision::Wait { until, reason } => {
                tracing::debug!(?reason, %until, "rotation waits");
                let pause = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                Ok(if reason == Wait::Paused {
                    // It wakes us itself when it goes on.
                    idle
                } else {
                    Action::requeue(pause)
                })
            }
            Decision::Rotate {
                baseline,
                changed,
                failing,
            } => {
                self.rotate(workload, &baseline, &changed, &failing, &contents, now)
                    .await?;
                Ok(Action::await_change())
            }
        }
    }

    async fn rotate(
        &self,
        workload: &Workload,
        baseline: &Baseline,
        changed: &[SourceKey],
        failing: &[String],
        contents: &BTreeMap<SourceKey, Content>,
        now: Timestamp,
    ) -> Result<(), kube::Error> {
        apply::rotate(&self.client, workload, baseline, &self.digest_key).await?;
        let namespace = workload.namespace().unwrap_or_default();
        let records = || {
            changed
                .iter()
                .filter_map(|key| Some((key, &contents.get(key)?.record)))
        };
        let updated = records().filter_map(|(_, record)| record.updated).min();
        let since_update = updated.map(|updated| now.duration_since(updated).as_secs_f64());
        self.metrics.rotated(&namespace, since_update);
        if let (Some(uid), Some(updated)) = (workload.uid(), updated) {
            let rotated = Rotated {
                rotated: now,
                updated,
            };
            lock(&self.rollouts).insert(uid, rotated);
        }
        let causes: Vec<String> = records()
            .map(|(key, record)| {
                format!(
                    "key {} of {} {} is version {} of {}",
                    key.key, key.source.kind, key.source.name, record.version, record.object
                )
            })
            .collect();
        let mut note = format!("rolled because {}", causes.join("; "));
        if !failing.is_empty() {
            note.push_str(&format!(
                "; not waited for, because failing: mirror {}",
                failing.join(", ")
            ));
        }
        tracing::info!(seconds_since_update = since_update, "{note}");
        self.events
            .publish(
                workload.object_ref(&workload.kind),
                Kind::Normal,
                "Rotated",
                "Rotate",
                note,
            )
            .await;
        Ok(())
    }

    /// Measures how long a change took until its rollout was finished.
    fn observe_rollout(&self, workload: &Workload, looked_at: &decide::Workload, now: Timestamp) {
        let Some(uid) = workload.uid() else { return };
        let rotated = looked_at
            .baseline
            .as_ref()
            .and_then(|baseline| baseline.rotated);
        let mut rollouts = lock(&self.rollouts);
        let finished = rollouts
            .get(&uid)
            .is_some_and(|begun| Some(begun.rotated) == rotated)
            && workload.rollout == Rollout::Finished;
        if finished && let Some(begun) = rollouts.remove(&uid) {
            self.metrics
                .rolled_out(now.duration_since(begun.updated).as_secs_f64());
        }
    }

    fn mirrors(&self, namespace: &str, references: &BTreeSet<Reference>) -> Vec<MirrorState> {
        self.activity
            .of(namespace, |target| {
                references
                    .iter()
                    .any(|reference| reference.source.name == target)
            })
            .into_iter()
            .map(|(name, state)| MirrorState {
                name,
                in_flight: state.in_flight,
                failing_since: state.failing_since,
            })
            .collect()
    }

    /// Tells names in the annotation that nothing goes by. Gives how soon it may have more to tell.
    async fn warn_of_typos(
        &self,
        workload: &Workload,
        opt_in: &OptIn,
        references: &BTreeSet<Reference>,
        contents: &BTreeMap<SourceKey, Content>,
    ) -> Option<Duration> {
        let namespace = workload.namespace().unwrap_or_default();
        let named = references.iter().map(|reference| &reference.source);
        let there = self.sources.are_there(&namespace, contents.keys(), named);
        let mut typos = opt_in.typos(&workload.references, &there, self.sources.filler());
        // What is installed together comes one after the other.
        let grace = workload
            .creation_timestamp()
            .map(|created| self.clock.now().duration_since(created.0))
            .and_then(|age| Duration::try_from(INSTALLATION.saturating_sub(age)).ok())
            .filter(|grace| !grace.is_zero() && !typos.is_empty());
        if grace.is_some() {
            typos.clear();
        }
        let note: Vec<String> = typos.iter().map(Typo::to_string).collect();
        let note = note.join("; ");
        if self
            .warned
            .is_news(workload.uid().unwrap_or_default(), &note)
            && !note.is_empty()
        {
            tracing::warn!("{note}");
            let about = workload.object_ref(&workload.kind);
            self.events
                .publish(about, Kind::Warning, "NothingToRotate", "Rotate", note)
                .await;
        }
        grace
    }
}

/// What is decided on.
fn looked_at(workload: &Workload, references: BTreeSet<Reference>) -> decide::Workload {
    decide::Workload {
        references,
        baseline: workload.annotation(BASELINE).and_then(Baseline::parse),
        paused: workload.paused,
        rollout: workload.rollout,
    }
}

/// A panic elsewhere leaves these maps whole, so their poison means nothing.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
