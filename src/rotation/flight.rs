//! The rotations under way in the cluster, and those that failed: read off the workloads themselves, so that a daemon that is started
//! again, or comes to lead, knows them too. What is only here is what the watch has not shown yet: rotations that were just decided
//! on. One is booked in the same breath as it is decided on, so that no two take one place. Never I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use kube::core::ObjectMeta;
use kube::runtime::reflector::ObjectRef;

use super::baseline::{BASELINE, Baseline};
use super::decide::{Content, Decision, Reason, SOON, Wait, later};
use super::gate::{Failed, Others};
use super::policy::ROTATION_POLICY;
use super::reference::SourceKey;
use super::rollout::Rollout;
use super::workload::{Workload, WorkloadKind};
use crate::watch::Change;

/// Annotation of a workload whose rotation failed: failures of rotations up to this time hold nobody.
pub const ACCEPT_FAILURE: &str = "keytide.dev/accept-failure";

/// A rollout that takes longer is looked at before others are given the same content.
const EXAMINED_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// How long a look at a rollout is good for.
const EXAMINATION_HOLDS: SignedDuration = SignedDuration::from_secs(15);
/// A rollout that nothing ends takes a place no longer.
const ENDLESS: SignedDuration = SignedDuration::from_mins(10);
/// How long a rotation is believed to be under way that the watch does not show.
const UNSEEN: SignedDuration = SignedDuration::from_secs(30);
/// How many of those that wait are woken when something changes for them: the first may be held by something else.
const WOKEN: usize = 4;

/// A workload, by its name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Id {
    pub namespace: String,
    pub kind: WorkloadKind,
    pub name: String,
}

/// The policy that a workload is under: one of its namespace, or the cluster's default.
pub type PolicyName = Option<String>;

/// All flights. Clones share them.
#[derive(Clone, Debug)]
pub struct Flights {
    board: Arc<Mutex<Board>>,
}

#[derive(Debug, Default)]
struct Board {
    /// Most that may be under way in the whole cluster.
    limit: usize,
    flights: BTreeMap<Id, Flight>,
    /// Those that wait for others, the longest first.
    waiting: BTreeSet<(Timestamp, Id)>,
}

/// A rotation that is not over, or failed.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Flight {
    policy: PolicyName,
    keys: BTreeMap<SourceKey, String>,
    rotated: Timestamp,
    phase: Phase,
    /// Its failure holds nobody.
    excused: bool,
    /// When somebody began to look at it.
    examination: Option<Timestamp>,
    /// When it was looked at, and what was wrong.
    examined: Option<(Timestamp, Option<String>)>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Decided on, and not shown by the watch.
    Unseen,
    UnderWay,
    /// Nothing but somebody's hand ends it.
    Endless,
    Failed,
}

impl Flight {
    /// The flight of a workload whose rollout is where it says. One that is being deleted makes no more new Pods, so its rollout
    /// has no end: it is over.
    fn of(metadata: &ObjectMeta, baseline: Baseline, phase: Phase) -> Option<Self> {
        if metadata.deletion_timestamp.is_some() {
            return None;
        }
        let rotated = baseline.rotated?;
        let annotation = |name| metadata.annotations.as_ref()?.get(name);
        let accepted: Option<Timestamp> =
            annotation(ACCEPT_FAILURE).and_then(|time| time.trim().parse().ok());
        Some(Self {
            policy: annotation(ROTATION_POLICY).cloned(),
            excused: baseline.failing || accepted.is_some_and(|accepted| accepted >= rotated),
            keys: baseline.keys,
            rotated,
            phase,
            examination: None,
            examined: None,
        })
    }

    fn of_workload(workload: &Workload) -> Option<Self> {
        let phase = match workload.rollout {
            Rollout::Finished | Rollout::OnDelete => return None,
            Rollout::Failed => Phase::Failed,
            Rollout::UnderWayForEver => Phase::Endless,
            Rollout::UnderWay if workload.paused => Phase::Endless,
            Rollout::UnderWay => Phase::UnderWay,
        };
        let baseline = workload.annotation(BASELINE).and_then(Baseline::parse)?;
        Self::of(&workload.metadata, baseline, phase)
    }

    /// Whether it takes a place.
    fn is_under_way(&self, now: Timestamp) -> bool {
        match self.phase {
            Phase::Failed => false,
            Phase::UnderWay => true,
            Phase::Unseen => now < later(self.rotated, UNSEEN),
            Phase::Endless => now < later(self.rotated, ENDLESS),
        }
    }

    /// What is wrong with it.
    fn failure(&self) -> Option<String> {
        let found = self.examined.as_ref().and_then(|(_, found)| found.clone());
        let deadline = || "its progress deadline has passed".to_owned();
        found.or_else(|| (self.phase == Phase::Failed).then(deadline))
    }

    fn must_be_examined(&self, now: Timestamp) -> bool {
        matches!(self.phase, Phase::UnderWay | Phase::Endless)
            && self.is_under_way(now)
            && now >= later(self.rotated, EXAMINED_AFTER)
            && !is_fresh(self.examined.as_ref().map(|(at, _)| *at), now)
    }

    /// Whether it gives its Pods one of these contents.
    fn gives(&self, contents: &BTreeMap<&SourceKey, &Content>) -> bool {
        contents
            .iter()
            .any(|(key, content)| self.keys.get(*key) == Some(&content.record.digest))
    }
}

/// How a rotation goes whose end is awaited.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Course {
    /// Nothing is known to be wrong; it is looked at again then.
    Rolls { look_at: Timestamp },
    /// What is wrong.
    Fails(String),
}

/// Whether a look is recent enough.
fn is_fresh(at: Option<Timestamp>, now: Timestamp) -> bool {
    at.is_some_and(|at| now < later(at, EXAMINATION_HOLDS))
}

impl Flights {
    /// None yet. In the whole cluster at most `limit` are to be under way at once.
    pub fn new(limit: usize) -> Self {
        let board = Board {
            limit,
            ..Board::default()
        };
        Self {
            board: Arc::new(Mutex::new(board)),
        }
    }

    /// Takes in what the watch of a kind has seen. Gives those that should look whether their turn has come.
    pub fn follow(&self, kind: WorkloadKind, change: &Change<'_, Workload>) -> Vec<Id> {
        let mut board = self.lock();
        let changed = match change {
            Change::Applied(workload) => board.put(workload),
            Change::Deleted(workload) => board.remove(&Id::of(workload)),
            Change::Listed(workloads) => {
                let listed: BTreeSet<Id> = workloads.iter().map(|it| Id::of(it)).collect();
                let gone: Vec<Id> = board
                    .flights
                    .keys()
                    .chain(board.waiting.iter().map(|(_, id)| id))
                    .filter(|id| id.kind == kind && !listed.contains(id))
                    .cloned()
                    .collect();
                for id in &gone {
                    board.remove(id);
                }
                for workload in *workloads {
                    board.put(workload);
                }
                true
            }
        };
        if changed { board.first() } else { Vec::new() }
    }

    /// Takes in what a list has shown that may be ahead of the watch.
    pub fn listed(&self, id: Id, metadata: &ObjectMeta, now: Timestamp) {
        let annotations = metadata.annotations.as_ref();
        let baseline =
            annotations.and_then(|annotations| Baseline::parse(annotations.get(BASELINE)?));
        let flight = baseline.and_then(|baseline| Flight::of(metadata, baseline, Phase::Unseen));
        if let Some(flight) = flight.filter(|flight| flight.is_under_way(now)) {
            self.lock().flights.entry(id).or_insert(flight);
        }
    }

    /// Has a decision made on what the others do. A rotation is under way from here on.
    pub fn consider(
        &self,
        id: &Id,
        policy: &PolicyName,
        contents: &BTreeMap<&SourceKey, &Content>,
        now: Timestamp,
        decide: impl FnOnce(Others) -> Decision,
    ) -> Decision {
        let mut board = self.lock();
        let own = board.flights.get(id);
        if own.is_some_and(|own| own.phase == Phase::Unseen && own.is_under_way(now)) {
            // The workload that is to be decided on is older than what was decided last.
            let (until, reason) = (later(now, SOON), Reason::Rolling);
            return Decision::Wait(Wait { until, reason });
        }
        let decision = decide(board.others(id, policy, contents, now));
        match &decision {
            Decision::Rotate(rotation) => {
                let flight = Flight {
                    policy: policy.clone(),
                    keys: rotation.baseline.keys.clone(),
                    rotated: now,
                    phase: Phase::Unseen,
                    excused: rotation.baseline.failing,
                    examination: None,
                    examined: None,
                };
                board.flights.insert(id.clone(), flight);
                board.stop_waiting(id);
            }
            Decision::Wait(_) | Decision::Hold(_) => {
                let changed = contents.values().map(|content| content.record.changed);
                board.stop_waiting(id);
                board
                    .waiting
                    .insert((changed.min().unwrap_or(now), id.clone()));
            }
            Decision::Nothing | Decision::Look | Decision::Record(_) => board.stop_waiting(id),
        }
        decision
    }

    /// A workload waits for others no more.
    pub fn waits_no_more(&self, id: &Id) {
        self.lock().stop_waiting(id);
    }

    /// A rotation that was decided on has not come to be.
    pub fn refused(&self, id: &Id, rotated: Timestamp) {
        let mut board = self.lock();
        let is_it = |flight: &Flight| flight.phase == Phase::Unseen && flight.rotated == rotated;
        if board.flights.get(id).is_some_and(is_it) {
            board.flights.remove(id);
        }
    }

    /// Asks to look at a long rollout. Gives when its rotation was; none if that isn't needed, or somebody else is at it.
    pub fn examine(&self, id: &Id, now: Timestamp) -> Option<Timestamp> {
        let mut board = self.lock();
        let flight = board.flights.get_mut(id)?;
        if !flight.must_be_examined(now) || is_fresh(flight.examination, now) {
            return None;
        }
        flight.examination = Some(now);
        Some(flight.rotated)
    }

    /// What was found in the rollout of a rotation; the error is that nobody could look.
    pub fn examined<E>(
        &self,
        id: &Id,
        rotated: Timestamp,
        found: Result<Option<String>, E>,
        now: Timestamp,
    ) -> Result<(), E> {
        let mut board = self.lock();
        let flight = board.flights.get_mut(id);
        let Some(flight) = flight.filter(|flight| flight.rotated == rotated) else {
            return found.map(drop);
        };
        flight.examination = None;
        flight.examined = Some((now, found?));
        Ok(())
    }

    /// How a workload's own rotation goes; none where nothing more is to be learnt of it, or its failure is accepted.
    pub fn course(&self, id: &Id, now: Timestamp) -> Option<Course> {
        let board = self.lock();
        let flight = board.flights.get(id)?;
        if flight.excused || flight.phase == Phase::Unseen {
            return None;
        }
        if let Some(why) = flight.failure() {
            return Some(Course::Fails(why));
        }
        let looked = flight.examined.as_ref();
        let due = looked.map_or(later(flight.rotated, EXAMINED_AFTER), |(at, _)| {
            later(*at, EXAMINATION_HOLDS)
        });
        let look_at = due.max(later(now, SOON));
        flight
            .is_under_way(now)
            .then_some(Course::Rolls { look_at })
    }

    /// Those under way, and those that failed.
    pub fn count(&self, now: Timestamp) -> (usize, usize) {
        let board = self.lock();
        let under_way = board.flights.values().filter(|it| it.is_under_way(now));
        let failed = board.flights.values().filter(|it| it.failure().is_some());
        (under_way.count(), failed.count())
    }

    /// A panic elsewhere leaves the board whole, so its poison means nothing.
    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    /// Whether that changes anything for others.
    fn put(&mut self, workload: &Workload) -> bool {
        let id = Id::of(workload);
        let mut shown = Flight::of_workload(workload);
        let baseline = workload.annotation(BASELINE).and_then(Baseline::parse);
        let rotated = baseline.and_then(|baseline| baseline.rotated);
        let before = self.flights.get(&id);
        if let Some(before) = before {
            let is_behind = before.phase == Phase::Unseen && rotated < Some(before.rotated);
            if is_behind {
                return false;
            }
            if let Some(shown) = shown.as_mut().filter(|it| it.rotated == before.rotated) {
                shown.examination = before.examination;
                shown.examined = before.examined.clone();
            }
        }
        let changes = before != shown.as_ref();
        match shown {
            Some(flight) => self.flights.insert(id, flight),
            None => self.flights.remove(&id),
        };
        changes
    }

    fn remove(&mut self, id: &Id) -> bool {
        self.stop_waiting(id);
        self.flights.remove(id).is_some()
    }

    fn stop_waiting(&mut self, id: &Id) {
        self.waiting.retain(|(_, waiting)| waiting != id);
    }

    /// Those that wait the longest.
    fn first(&self) -> Vec<Id> {
        let waiting = self.waiting.iter().take(WOKEN);
        waiting.map(|(_, id)| id.clone()).collect()
    }

    fn others(
        &self,
        id: &Id,
        policy: &PolicyName,
        contents: &BTreeMap<&SourceKey, &Content>,
        now: Timestamp,
    ) -> Others {
        let mut others = Others {
            limit_everywhere: self.limit,
            ..Others::default()
        };
        for (other, flight) in self.flights.iter().filter(|(other, _)| *other != id) {
            let is_near = other.namespace == id.namespace;
            if flight.is_under_way(now) {
                others.in_flight_everywhere += 1;
                // The cluster's default is one policy for all namespaces.
                let is_shared = flight.policy == *policy && (is_near || policy.is_none());
                others.in_flight += usize::from(is_shared);
            }
            if !is_near || flight.excused || !flight.gives(contents) {
                continue;
            }
            if flight.must_be_examined(now) {
                others.unexamined.push(other.clone());
            } else if let Some(why) = flight.failure() {
                others.failed.push(Failed {
                    workload: other.to_string(),
                    rotated: flight.rotated,
                    why,
                });
            }
        }
        others
    }
}

impl Id {
    pub fn of(workload: &Workload) -> Self {
        let metadata = &workload.metadata;
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            kind: workload.kind,
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// Name in the terms of the store.
    pub fn reference(&self) -> ObjectRef<Workload> {
        ObjectRef::new_with(&self.name, self.kind).within(&self.namespace)
    }
}

impl From<&ObjectRef<Workload>> for Id {
    fn from(reference: &ObjectRef<Workload>) -> Self {
        Self {
            namespace: reference.namespace.clone().unwrap_or_default(),
            kind: reference.dyntype,
            name: reference.name.clone(),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)
    }
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
