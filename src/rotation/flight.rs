//! The rotations under way in the cluster, and those that failed: read off the workloads themselves, so that a daemon that is started
//! again, or comes to lead, knows them too. What is only here is what the watch has not shown yet: rotations that were just decided
//! on. One is booked in the same breath as it is decided on, so that no two take one place. A booking stands beside what the watch
//! shows of the workload and never in its stead: it may be of a copy that is older than what the watch has shown meanwhile, and is
//! then refused, which must not end the rollout that is under way. Never I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use kube::core::ObjectMeta;

use super::baseline::{BASELINE, Baseline};
use super::decide::{Content, Decision, Hold, Reason, SOON, Wait, later};
use super::gate::{Failed, Others};
use super::policy::ROTATION_POLICY;
use super::reference::SourceKey;
use super::rollout::Rollout;
use super::workload::{Workload, WorkloadId, WorkloadKind};
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
    /// What the watch shows.
    flights: BTreeMap<WorkloadId, Flight>,
    /// What it does not show yet.
    bookings: BTreeMap<WorkloadId, Booking>,
    /// Those that wait for others, the longest first.
    waiting: BTreeSet<(Timestamp, WorkloadId)>,
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

/// A rotation that was decided on.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Booking {
    policy: PolicyName,
    rotated: Timestamp,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    UnderWay,
    /// Nothing but somebody's hand ends it.
    Endless,
    Failed,
}

impl Booking {
    /// That of a rotation which the metadata of a workload tell, unless it is being deleted.
    fn of(metadata: &ObjectMeta) -> Option<Self> {
        if metadata.deletion_timestamp.is_some() {
            return None;
        }
        let annotation = |name| metadata.annotations.as_ref()?.get(name);
        Some(Self {
            policy: annotation(ROTATION_POLICY).cloned(),
            rotated: annotation(BASELINE)
                .and_then(|text| Baseline::parse(text))?
                .rotated?,
        })
    }

    /// Whether it takes a place.
    fn is_under_way(&self, now: Timestamp) -> bool {
        now < later(self.rotated, UNSEEN)
    }
}

impl Flight {
    /// That of a workload whose rollout is not over. One that is being deleted makes no more new Pods, so its rollout has no end:
    /// it is over.
    fn of(workload: &Workload) -> Option<Self> {
        let phase = match workload.rollout {
            Rollout::Finished | Rollout::OnDelete => return None,
            Rollout::Failed => Phase::Failed,
            Rollout::UnderWayForEver => Phase::Endless,
            Rollout::UnderWay if workload.paused => Phase::Endless,
            Rollout::UnderWay => Phase::UnderWay,
        };
        let Booking { policy, rotated } = Booking::of(&workload.metadata)?;
        let baseline = workload.annotation(BASELINE).and_then(Baseline::parse)?;
        let accepted = workload.annotation(ACCEPT_FAILURE);
        let accepted: Option<Timestamp> = accepted.and_then(|time| time.trim().parse().ok());
        Some(Self {
            policy,
            excused: baseline.failing || accepted.is_some_and(|accepted| accepted >= rotated),
            keys: baseline.keys,
            rotated,
            phase,
            examination: None,
            examined: None,
        })
    }

    /// Whether it takes a place.
    fn is_under_way(&self, now: Timestamp) -> bool {
        match self.phase {
            Phase::Failed => false,
            Phase::UnderWay => true,
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
        self.phase != Phase::Failed
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

/// Whether others can end the wait.
fn waits_for_others(decision: &Decision) -> bool {
    match decision {
        Decision::Wait(wait) => matches!(
            wait.reason,
            Reason::MaxConcurrent | Reason::Canary { .. } | Reason::Examination { .. }
        ),
        Decision::Hold(hold) => matches!(hold, Hold::Failed(_)),
        _ => false,
    }
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
    pub fn follow(&self, kind: WorkloadKind, change: &Change<'_, Workload>) -> Vec<WorkloadId> {
        let mut board = self.lock();
        let changed = match change {
            Change::Applied(workload) => board.put(workload),
            Change::Deleted(workload) => board.remove(&WorkloadId::of(workload)),
            Change::Listed(workloads) => {
                let listed: BTreeSet<WorkloadId> =
                    workloads.iter().map(|it| WorkloadId::of(it)).collect();
                let gone: Vec<WorkloadId> = board
                    .flights
                    .keys()
                    .chain(board.bookings.keys())
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
    pub fn listed(&self, id: WorkloadId, metadata: &ObjectMeta, now: Timestamp) {
        let Some(booking) = Booking::of(metadata).filter(|it| it.is_under_way(now)) else {
            return;
        };
        let mut board = self.lock();
        let shown = board.flights.get(&id);
        if shown.is_none_or(|shown| shown.rotated < booking.rotated) {
            board.bookings.entry(id).or_insert(booking);
        }
    }

    /// Has a decision made on what the others do. A rotation is under way from here on.
    pub fn consider(
        &self,
        id: &WorkloadId,
        policy: &PolicyName,
        contents: &BTreeMap<&SourceKey, &Content>,
        now: Timestamp,
        decide: impl FnOnce(Others) -> Decision,
    ) -> Decision {
        let mut board = self.lock();
        if board.is_booked(id, now) {
            // The workload that is to be decided on is older than what was decided last, which is nothing to tell.
            let (until, reason) = (later(now, SOON), Reason::Settling);
            return Decision::Wait(Wait { until, reason });
        }
        let decision = decide(board.others(id, policy, contents, now));
        match &decision {
            Decision::Rotate(_) => {
                let booking = Booking {
                    policy: policy.clone(),
                    rotated: now,
                };
                board.bookings.insert(id.clone(), booking);
                board.stop_waiting(id);
            }
            decision if waits_for_others(decision) => {
                let changed = contents.values().map(|content| content.record.changed);
                board.stop_waiting(id);
                board
                    .waiting
                    .insert((changed.min().unwrap_or(now), id.clone()));
            }
            _ => board.stop_waiting(id),
        }
        decision
    }

    /// A workload waits for others no more.
    pub fn waits_no_more(&self, id: &WorkloadId) {
        self.lock().stop_waiting(id);
    }

    /// A rotation that was decided on has not come to be.
    pub fn refused(&self, id: &WorkloadId, rotated: Timestamp) {
        let mut board = self.lock();
        let booking = board.bookings.get(id);
        if booking.is_some_and(|booking| booking.rotated == rotated) {
            board.bookings.remove(id);
        }
    }

    /// Asks to look at a long rollout. Gives when its rotation was; none if that isn't needed, or somebody else is at it.
    pub fn examine(&self, id: &WorkloadId, now: Timestamp) -> Option<Timestamp> {
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
        id: &WorkloadId,
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
    pub fn course(&self, id: &WorkloadId, now: Timestamp) -> Option<Course> {
        let board = self.lock();
        let flight = board.flights.get(id)?;
        if flight.excused || board.is_booked(id, now) {
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
        let is_open = flight.is_under_way(now) || flight.examined.is_none();
        is_open.then_some(Course::Rolls { look_at })
    }

    /// Those under way, and those that failed.
    pub fn count(&self, now: Timestamp) -> (usize, usize) {
        let board = self.lock();
        let failed = board.flights.values().filter(|it| it.failure().is_some());
        (board.under_way(now).len(), failed.count())
    }

    /// A panic elsewhere leaves the board whole, so its poison means nothing.
    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    /// Whether that changes anything for others.
    fn put(&mut self, workload: &Workload) -> bool {
        let id = WorkloadId::of(workload);
        let mut shown = Flight::of(workload);
        let before = self.flights.get(&id);
        if let Some((shown, before)) = shown.as_mut().zip(before)
            && shown.rotated == before.rotated
        {
            shown.examination = before.examination;
            shown.examined = before.examined.clone();
        }
        let changes = before != shown.as_ref();
        let baseline = workload.annotation(BASELINE).and_then(Baseline::parse);
        let rotated = baseline.and_then(|baseline| baseline.rotated);
        let booking = self.bookings.get(&id);
        let was_booked = booking.is_some_and(|booking| rotated >= Some(booking.rotated));
        if was_booked {
            self.bookings.remove(&id);
        }
        match shown {
            Some(flight) => self.flights.insert(id, flight),
            None => self.flights.remove(&id),
        };
        changes || was_booked
    }

    fn remove(&mut self, id: &WorkloadId) -> bool {
        self.stop_waiting(id);
        let was_booked = self.bookings.remove(id).is_some();
        self.flights.remove(id).is_some() || was_booked
    }

    /// Whether a rotation was decided on that the watch may yet show.
    fn is_booked(&self, id: &WorkloadId, now: Timestamp) -> bool {
        let booking = self.bookings.get(id);
        booking.is_some_and(|booking| booking.is_under_way(now))
    }

    /// Those that take a place, and their policies.
    fn under_way(&self, now: Timestamp) -> BTreeMap<&WorkloadId, &PolicyName> {
        let shown = self.flights.iter().filter(|(_, it)| it.is_under_way(now));
        let booked = self.bookings.iter().filter(|(_, it)| it.is_under_way(now));
        let shown = shown.map(|(id, flight)| (id, &flight.policy));
        shown
            .chain(booked.map(|(id, it)| (id, &it.policy)))
            .collect()
    }

    fn stop_waiting(&mut self, id: &WorkloadId) {
        self.waiting.retain(|(_, waiting)| waiting != id);
    }

    /// Those that wait the longest.
    fn first(&self) -> Vec<WorkloadId> {
        let waiting = self.waiting.iter().take(WOKEN);
        waiting.map(|(_, id)| id.clone()).collect()
    }

    fn others(
        &self,
        id: &WorkloadId,
        policy: &PolicyName,
        contents: &BTreeMap<&SourceKey, &Content>,
        now: Timestamp,
    ) -> Others {
        let mut others = Others {
            limit_everywhere: self.limit,
            ..Others::default()
        };
        let is_near = |other: &WorkloadId| other.namespace == id.namespace;
        for (other, its_policy) in self.under_way(now) {
            if other != id {
                others.in_flight_everywhere += 1;
                // The cluster's default is one policy for all namespaces.
                let is_shared = its_policy == policy && (is_near(other) || policy.is_none());
                others.in_flight += usize::from(is_shared);
            }
        }
        for (other, flight) in self.flights.iter().filter(|(other, _)| *other != id) {
            // One that is booked is on its way to other content.
            let is_over = self.is_booked(other, now);
            if !is_near(other) || is_over || flight.excused || !flight.gives(contents) {
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

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
