//! Carries out what [`super::decide`] decides: looks after each workload that opted in.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::{FutureExt, StreamExt};
use jiff::SignedDuration;
use kube::api::{DynamicObject, ListParams};
use kube::core::PartialObjectMeta;
use kube::runtime::applier;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use tracing::Instrument;

use super::apply;
use super::decide::{self, Content, Decision, Hold, Reason};
use super::flight::Course;
use super::judge::{Case, Judge};
use super::memory::{Memories, Memory, Pending};
use super::opt_in::{OptIn, Typo};
use super::policies;
use super::reference::{Reference, Source, SourceKey};
use super::telling::Telling;
use super::workload::{Workload, WorkloadId, WorkloadKind};
use crate::api::RotationPolicy;
use crate::daemon::Stop;
use crate::digest::DigestKey;
use crate::mirror::{AskedReverts, RevertRequests, TargetName, backoff};
use crate::telemetry::{Events, Metrics};

/// Workloads looked after at once; what they wait for is the API server alone.
const CONCURRENCY: u16 = 16;

/// Pause after someone else wrote at the same moment.
const RACE_PAUSE: Duration = Duration::from_millis(500);
/// Pause after workloads could not be listed at the start.
const ERROR_PAUSE: Duration = Duration::from_secs(2);
/// Longest time until a workload that waits is looked at again: clocks may be set meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// How long after a workload the mirrors may come that are installed with it.
const INSTALLATION: SignedDuration = SignedDuration::from_secs(10);
/// How often gauges are set.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(5);
/// Workloads that are listed by one request.
const PAGE: u32 = 500;

/// What the controller works with.
pub struct Rotations {
    pub judge: Judge,
    pub digest_key: DigestKey,
    /// What mirrors are asked to take back.
    pub reverts: RevertRequests,
    pub events: Events,
    pub metrics: Arc<Metrics>,
    pub memories: Memories,
}

/// What there is to look at again.
pub struct Triggers {
    /// Workloads, by their kind.
    pub workloads: Vec<(WorkloadKind, mpsc::UnboundedReceiver<ObjectRef<Workload>>)>,
    pub policies: mpsc::UnboundedReceiver<ObjectRef<RotationPolicy>>,
}

/// Runs the controller until `stop`, and then until what is under way is done.
pub async fn run(rotations: Arc<Rotations>, triggers: Triggers, stop: Stop) {
    tokio::select! {
        () = rotations.find_flights() => {}
        () = stop.clone() => return,
    }
    let kinds = triggers
        .workloads
        .into_iter()
        .map(|(kind, triggers)| run_kind(Arc::clone(&rotations), kind, triggers, stop.clone()));
    let policies = Arc::clone(&rotations.judge.policies);
    let acting = futures::future::join(
        futures::future::join_all(kinds),
        policies::report(policies, triggers.policies, stop),
    );
    tokio::select! {
        _ = acting => {}
        () = rotations.sum_up() => {}
    }
}

async fn run_kind(
    rotations: Arc<Rotations>,
    kind: WorkloadKind,
    triggers: mpsc::UnboundedReceiver<ObjectRef<Workload>>,
    stop: Stop,
) {
    let store = rotations.judge.workloads.of(kind).clone();
    applier(
        |workload, rotations| Rotations::reconcile(workload, rotations).boxed(),
        |_, error, _| match *error {},
        rotations,
        store,
        triggers.take_until(stop).map(Ok::<_, Infallible>),
        Config::default().concurrency(CONCURRENCY),
    )
    .for_each(|_| std::future::ready(()))
    .await;
}

impl Rotations {
    /// Finds the rotations that another daemon has begun and that the watch may not have shown yet.
    async fn find_flights(&self) {
        for kind in WorkloadKind::ALL {
            while let Err(error) = self.find_flights_of(kind).await {
                if matches!(&error, kube::Error::Api(status) if status.code == 404) {
                    break;
                }
                tracing::warn!(%error, kind = kind.name(), "workloads can't be listed; that is tried again, and none is rolled before");
                tokio::time::sleep(ERROR_PAUSE).await;
            }
        }
    }

    async fn find_flights_of(&self, kind: WorkloadKind) -> Result<(), kube::Error> {
        let api: Api<DynamicObject> =
            Api::all_with(self.judge.client.clone(), &kind.api_resource());
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list_metadata(&params).await?;
            let now = self.judge.clock.now();
            for PartialObjectMeta { metadata, .. } in &page.items {
                let id = WorkloadId {
                    namespace: metadata.namespace.clone().unwrap_or_default(),
                    kind,
                    name: metadata.name.clone().unwrap_or_default(),
                };
                let watched = self.judge.workloads.of(kind).get(&id.reference());
                let version = watched.and_then(|watched| watched.resource_version());
                if version != metadata.resource_version {
                    self.judge.flights.listed(id, metadata, now);
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    /// Keeps the gauges up to date, for ever.
    async fn sum_up(&self) {
        loop {
            let is_there = |id: &WorkloadId| {
                self.judge
                    .workloads
                    .of(id.kind)
                    .get(&id.reference())
                    .is_some()
            };
            let summary = self.memories.sum_up(is_there);
            for id in &summary.gone {
                self.ask(id, AskedReverts::new());
            }
            if let Some(unmirrored) = &self.judge.sources.unmirrored {
                unmirrored.forget_gone();
            }
            let now = self.judge.clock.now();
            let (in_flight, failed) = self.judge.flights.count(now);
            let staleness = WorkloadKind::ALL.map(|kind| {
                let oldest = summary.oldest.get(&kind);
                let seconds =
                    oldest.map_or(0.0, |oldest| now.duration_since(*oldest).as_secs_f64());
                (kind.name(), seconds)
            });
            let of = |names: &[&'static str], counts: &BTreeMap<&str, usize>| {
                let count = |name: &&'static str| (*name, counts.get(name).copied().unwrap_or(0));
                names.iter().map(count).collect::<Vec<_>>()
            };
            self.metrics.rotation_states(
                &of(&Reason::NAMES, &summary.waiting),
                &of(&Hold::NAMES, &summary.held),
                in_flight,
                failed,
                &staleness,
            );
            tokio::time::sleep(SUMMARY_INTERVAL).await;
        }
    }

    async fn reconcile(workload: Arc<Workload>, this: Arc<Self>) -> Result<Action, Infallible> {
        // Not `name`: under that, a line of JSON has the name of the span.
        let span = tracing::info_span!(
            "rotation",
            namespace = workload.namespace(),
            kind = workload.kind.name(),
            workload = workload.name_any()
        );
        Ok(this.look_after(&workload).instrument(span).await)
    }

    async fn look_after(&self, workload: &Workload) -> Action {
        let id = WorkloadId::of(workload);
        let opt_in = self.judge.opt_in(workload);
        if opt_in == OptIn::No || workload.metadata.deletion_timestamp.is_some() {
            self.memories.forget(&id);
            self.judge.flights.waits_no_more(&id);
            self.ask(&id, AskedReverts::new());
            return Action::await_change();
        }
        let mut memory = self.memories.of(&id, workload.metadata.uid.as_deref());
        let acted = self.act(&id, workload, &opt_in, &mut memory).await;
        self.metrics.reconciled("rotation", acted.is_ok());
        let pause = match acted {
            Ok(pause) => {
                memory.failures = 0;
                pause
            }
            // Whatever wrote in between is seen by the watch; the pause is for when it was seen already.
            Err(error) if is_race(&error) => Some(RACE_PAUSE),
            Err(error) => {
                memory.failures = memory.failures.saturating_add(1);
                tracing::warn!(%error, "a workload can't be looked after; that is tried again");
                Some(backoff(memory.failures, LONGEST_PAUSE))
            }
        };
        self.memories.keep(id, memory);
        pause.map_or_else(Action::await_change, Action::requeue)
    }

    /// What a workload asks of mirrors from now on.
    fn ask(&self, id: &WorkloadId, reverts: AskedReverts) {
        self.reverts.put(&id.namespace, &id.to_string(), reverts);
    }

    /// Does what is to be done. Gives when there may be more without anything having changed.
    async fn act(
        &self,
        id: &WorkloadId,
        workload: &Workload,
        opt_in: &OptIn,
        memory: &mut Memory,
    ) -> Result<Option<Duration>, kube::Error> {
        let telling = Telling {
            events: &self.events,
            metrics: &self.metrics,
            workload,
        };
        let references = self.judge.references(id, workload, opt_in);
        let all = self
            .judge
            .sources
            .contents(&id.namespace, &references)
            .await?;
        let typos = self
            .warn_of_typos(telling, opt_in, &references, &all, memory)
            .await;
        let case = self.judge.case(id.clone(), workload, references, &all);
        telling
            .follow_rollout(case.rotated(), self.judge.clock.now(), memory)
            .await;
        let trial = self.follow_trial(telling, &case, memory).await?;
        let idle = typos.into_iter().chain(trial).min();
        let (decision, now) = self.judge.decision(&case, memory).await?;
        let lacks = |memory: &mut Memory, held, reason| {
            let suspects = case.suspects();
            let since = suspects.values().map(|it| it.record.changed).min();
            let pending = Pending {
                since: since.unwrap_or(now),
                held,
                reason,
            };
            memory.lacks(&suspects, pending);
        };
        match decision {
            // Looked at already.
            Decision::Nothing | Decision::Look => {
                memory.clear_pending();
                Ok(idle)
            }
            Decision::Record(baseline) => {
                apply::record(&self.judge.client, workload, &baseline).await?;
                tracing::info!("baseline recorded");
                memory.clear_pending();
                Ok(idle)
            }
            Decision::Wait(wait) => {
                lacks(memory, false, wait.reason.name());
                telling.tell_waiting(&wait, memory).await;
                let pause = Duration::try_from(wait.until.duration_since(now)).unwrap_or_default();
                Ok(Some(pause.min(idle.unwrap_or(LONGEST_PAUSE))))
            }
            Decision::Hold(hold) => {
                lacks(memory, true, hold.name());
                telling.tell_held(&hold, memory).await;
                let pause = Duration::try_from(decide::POLL).unwrap_or(ERROR_PAUSE);
                Ok(Some(pause))
            }
            Decision::Rotate(rotation) => {
                let written = apply::rotate(
                    &self.judge.client,
                    workload,
                    &rotation.baseline,
                    &self.digest_key,
                );
                if let Err(error) = written.await {
                    // Of an error that is no answer nobody knows whether the API server took it.
                    if matches!(&error, kube::Error::Api(status) if status.code < 500) {
                        self.judge.flights.refused(id, now);
                    }
                    if !is_race(&error) {
                        telling.tell_refused(&error, memory).await;
                    }
                    return Err(error);
                }
                memory.clear_pending();
                telling
                    .tell_started(&rotation, &case.contents, now, memory)
                    .await;
                Ok(idle)
            }
        }
    }

    /// Has the mirrors asked to take back what its rollout has failed with. Gives when to look at that rollout again.
    async fn follow_trial(
        &self,
        telling: Telling<'_>,
        case: &Case<'_>,
        memory: &mut Memory,
    ) -> Result<Option<Duration>, kube::Error> {
        let course = self.judge.course(case).await?;
        let (reverts, look_at) = match course {
            None => (AskedReverts::new(), None),
            Some(Course::Rolls { look_at }) => (AskedReverts::new(), Some(look_at)),
            Some(Course::Fails(why)) => {
                let reverts = case.reverts(&why);
                let mirrors = self.judge.asked(&case.id.namespace, &reverts);
                telling
                    .tell_failed(case.rotated(), &why, &mirrors, memory)
                    .await;
                (reverts, None)
            }
        };
        self.ask(&case.id, reverts);
        let pause = look_at.map(|look_at| look_at.duration_since(self.judge.clock.now()));
        Ok(pause.map(|pause| Duration::try_from(pause).unwrap_or_default()))
    }

    /// Tells names in the annotation that nothing goes by. Gives how soon it may have more to tell.
    async fn warn_of_typos(
        &self,
        telling: Telling<'_>,
        opt_in: &OptIn,
        references: &BTreeSet<Reference>,
        contents: &BTreeMap<SourceKey, Content>,
        memory: &mut Memory,
    ) -> Option<Duration> {
        let workload = telling.workload;
        let namespace = workload.namespace().unwrap_or_default();
        let named = references.iter().map(|reference| &reference.source);
        let mut there = self
            .judge
            .sources
            .are_there(&namespace, contents.keys(), named.clone());
        // A mirror that has not filled it yet says itself why.
        let is_coming = |source: &&Source| {
            let is_it = |target: &TargetName| source.is(target);
            !there.contains(source) && !self.judge.activity.of(&namespace, is_it).is_empty()
        };
        let coming: Vec<&Source> = named.filter(is_coming).collect();
        there.extend(coming);
        let mut typos = opt_in.typos(&workload.references, &there, self.judge.sources.filler());
        // What is installed together comes one after the other.
        let grace = workload
            .creation_timestamp()
            .map(|created| self.judge.clock.now().duration_since(created.0))
            .and_then(|age| Duration::try_from(INSTALLATION.saturating_sub(age)).ok())
            .filter(|grace| !grace.is_zero() && !typos.is_empty());
        if grace.is_some() {
            typos.clear();
        }
        let note: Vec<String> = typos.iter().map(Typo::to_string).collect();
        let note = note.join("; ");
        let is_news = std::mem::replace(&mut memory.warned, note.clone()) != note;
        if is_news && !note.is_empty() {
            telling.nothing_to_rotate(note).await;
        }
        grace
    }
}

fn is_race(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
