//! What the survey knows of one object: a few words, because there can be ten thousand of them.

use std::time::Duration;

use tokio::time::Instant;

use super::Answer;
use crate::vault::VaultErrorKind;
use crate::vault::fingerprint::{Fingerprint, Revision};
use crate::vault::governor::Priority;

/// `updated` has whole seconds: an answer this close to it, by its own `Date`, may be followed by a change that shows the same
/// `updated`.
const UNSETTLED_SECONDS: u64 = 2;
/// When such an object may be read again, at the earliest; and when one is, if a hint came before what it hints at.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// An answer that may be older than one before is believed if it is the same after this time. Then it is no replica that lags, but
/// a restore.
const CONFIRM_AFTER: Duration = Duration::from_secs(5);
/// Failures that may pass are kept from those who don't wait for the object for this long.
const PATIENCE: Duration = Duration::from_secs(10);
/// First pause before an object that failed is read again; it doubles.
const FIRST_BACKOFF: Duration = Duration::from_secs(2);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub struct Object {
    /// How often it is looked at.
    pub interval: Duration,
    /// Its content is needed, whatever the list says.
    pub need: Option<Priority>,
    /// When a read is tried again.
    pub retry_at: Option<Instant>,
    /// The listing that last showed it.
    pub listing: u32,
    state: State,
    /// What the last answer said that was believed.
    known: Option<Revision>,
    /// The attributes that the list last showed, and those it had shown when the last answered read began. GET and LIST should show the
    /// same: if they don't, one may lag. If they still don't when it is read once more, they never will, and that must do.
    listed: Option<u64>,
    answered: Option<u64>,
    /// When it must be read once more, because it had changed just before it was read, or the list says something else.
    settles_at: Option<Instant>,
    /// An answer that may be older than what is known, and when it came first.
    doubt: Option<Box<(Revision, Instant)>>,
    // In boxes, since few objects have one.
    failure: Option<Box<Failure>>,
    hinted: Option<Box<Hinted>>,
}

/// A version that a hint spoke of, and that no answer has shown yet.
#[derive(Clone, Copy, Debug)]
struct Hinted {
    version: u64,
    /// A read has looked for it in vain, and the next is the last.
    missed: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Idle,
    /// In line for being read.
    Waiting(Priority),
    UnderWay {
        /// Number of the request.
        number: u64,
        /// What the list had shown when the read began.
        listed: Option<u64>,
        /// What is wanted must be from a read that begins later.
        again: Option<Priority>,
    },
}

#[derive(Clone, Copy, Debug)]
struct Failure {
    kind: VaultErrorKind,
    since: Instant,
    count: u32,
}

impl Failure {
    /// Whether it is one that all must know, if it lasts until then.
    fn lasts(&self, until: Instant) -> bool {
        until.saturating_duration_since(self.since) >= PATIENCE
    }
}

/// How an object compares with the list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Look {
    Same,
    /// It is the same, and its failure is over.
    Well,
    /// It must be read.
    Moved,
}

impl Object {
    /// An object that nothing is known of, and that the listing under way need not show.
    pub fn new(interval: Duration, listing: u32) -> Self {
        Self {
            interval,
            need: None,
            retry_at: None,
            listing,
            state: State::Idle,
            known: None,
            listed: None,
            answered: None,
            settles_at: None,
            doubt: None,
            failure: None,
            hinted: None,
        }
    }

    /// Takes in that somebody says that it changed, and to which version where that is known. Whether it must be read to know.
    pub fn hint(&mut self, version: Option<u64>) -> bool {
        let known = self.known.map(|known| known.version);
        if version.is_some() && version == known {
            return false;
        }
        if let Some(version) = version {
            let missed = false;
            self.hinted = Some(Box::new(Hinted { version, missed }));
        }
        true
    }

    /// Whether it is worth another look because a hint spoke of a version that is not `shown` yet: once, because versions come and go
    /// without being seen.
    fn expects_more(&mut self, shown: Option<u64>) -> bool {
        self.hinted
            .take_if(|hinted| shown == Some(hinted.version) || hinted.missed);
        if let Some(hinted) = &mut self.hinted {
            hinted.missed = true;
        }
        self.hinted.is_some()
    }

    /// Puts it in line, or further to the front. Whether a request is to be sent for that.
    pub fn queue(&mut self, priority: Priority) -> bool {
        let moves = match self.state {
            State::Idle => true,
            State::Waiting(before) => before < priority,
            State::UnderWay { .. } => false,
        };
        if moves {
            self.state = State::Waiting(priority);
        }
        moves
    }

    /// Reads it once more after the read that is under way, if one is.
    pub fn read_again(&mut self, priority: Priority) {
        if let State::UnderWay { again, .. } = &mut self.state {
            *again = (*again).max(Some(priority));
        }
    }

    /// Takes it out of the line to be read by the request of this number; not if it isn't in line (any more).
    pub fn start(&mut self, number: u64) -> bool {
        let is_waiting = matches!(self.state, State::Waiting(_));
        if is_waiting {
            self.state = State::UnderWay {
                number,
                listed: self.listed,
                again: None,
            };
        }
        is_waiting
    }

    /// Ends the read that this request was for. What the list had shown when it began, and the read that must follow.
    fn end(&mut self, ended: u64) -> Option<(Option<u64>, Option<Priority>)> {
        match self.state {
            State::UnderWay {
                number,
                listed,
                again,
            } if number == ended => {
                self.state = State::Idle;
                Some((listed, again))
            }
            // Of a time when somebody else wanted it.
            _ => None,
        }
    }

    /// Takes in an answer. Whether it tells a change, unless it is not believed yet; and whether another read must follow.
    pub fn answered(
        &mut self,
        number: u64,
        answer: Answer,
        now: Instant,
    ) -> Option<(Option<bool>, Option<Priority>)> {
        let (listed, again) = self.end(number)?;
        let revision = answer.revision;
        if self.is_doubtful(revision, now) {
            self.need = self.need.max(Some(Priority::Periodic));
            self.retry_at = Some(now + CONFIRM_AFTER);
            return Some((None, again));
        }
        let changed = self.known != Some(revision);
        let is_young = match (answer.date, revision.fingerprint.updated) {
            (Some(date), Some(updated)) => date.abs_diff(updated) <= UNSETTLED_SECONDS,
            _ => changed,
        };
        let is_disputed = listed.is_some_and(|listed| {
            listed != revision.fingerprint.attributes && self.answered != Some(listed)
        });
        self.settles_at = (is_young || is_disputed).then(|| now + SETTLED_AFTER);
        self.known = Some(revision);
        self.answered = listed;
        self.doubt = None;
        self.failure = None;
        self.need = again;
        self.retry_at = None;
        if again.is_none() && self.expects_more(Some(revision.version)) {
            self.need = Some(Priority::Hinted);
            self.retry_at = Some(now + SETTLED_AFTER);
        }
        Some((Some(changed), again))
    }

    fn is_doubtful(&mut self, revision: Revision, now: Instant) -> bool {
        if !self.known.is_some_and(|known| revision.may_precede(&known)) {
            return false;
        }
        let since = match self.doubt.as_deref() {
            Some(&(doubted, since)) if doubted == revision => since,
            _ => now,
        };
        self.doubt = Some(Box::new((revision, since)));
        now.saturating_duration_since(since) < CONFIRM_AFTER
    }

    /// Takes in that a read failed, after which the vault may be left alone until `not_before`. Whether the failure has lasted so long
    /// that all must know; and whether another read must follow.
    pub fn failed(
        &mut self,
        number: u64,
        kind: VaultErrorKind,
        is_pinned: bool,
        now: Instant,
        not_before: Option<Instant>,
    ) -> Option<(bool, Option<Priority>)> {
        let (listed, again) = self.end(number)?;
        self.answered = listed;
        let failure = self.fail(kind, now);
        self.retry_at = match kind {
            // The list, or the next regular read, shows when that is over; a hint says that it is soon.
            VaultErrorKind::NotFound | VaultErrorKind::Disabled if !is_pinned => {
                (again.is_none() && self.expects_more(None)).then(|| now + SETTLED_AFTER)
            }
            kind => {
                self.need = self.need.max(Some(Priority::Periodic));
                let pause = if kind.concerns_vault() {
                    backoff(failure.count).min(self.interval)
                } else {
                    self.interval
                };
                Some((now + pause).max(not_before.unwrap_or(now)))
            }
        };
        let lasts = !kind.concerns_vault() || failure.lasts(not_before.unwrap_or(now));
        Some((lasts, again))
    }

    /// Takes in that a read was not sent, because the vault is left alone until `not_before`. Whether that lasts so long that all must
    /// know.
    pub fn delayed(
        &mut self,
        kind: VaultErrorKind,
        now: Instant,
        not_before: Instant,
    ) -> Option<bool> {
        if !matches!(self.state, State::Waiting(_)) {
            return None;
        }
        self.state = State::Idle;
        // What only the regular look would have read is left to the next one, unless the vault does answer.
        let is_throttled = matches!(kind, VaultErrorKind::Throttled { .. });
        self.retry_at = (is_throttled || self.need.is_some()).then_some(not_before);
        Some(self.fail(kind, now).lasts(not_before))
    }

    fn fail(&mut self, kind: VaultErrorKind, now: Instant) -> Failure {
        let before = self
            .failure
            .as_deref()
            .filter(|failure| failure.kind.concerns_vault() == kind.concerns_vault());
        let failure = Failure {
            kind,
            since: before.map_or(now, |before| before.since),
            count: before.map_or(1, |before| before.count.saturating_add(1)),
        };
        self.failure = Some(Box::new(failure));
        failure
    }

    /// Takes in that it was due then, and that the list it would be compared with can't be had until `not_before`. Whether that
    /// lasts so long that all must know: longer than its interval, unless it was failing before.
    pub fn missed(&mut self, kind: VaultErrorKind, due: Instant, not_before: Instant) -> bool {
        match &self.failure {
            Some(failure) => failure.kind.concerns_vault() && failure.lasts(not_before),
            None if due + self.interval <= not_before => {
                self.failure = Some(Box::new(Failure {
                    kind,
                    since: due,
                    count: 0,
                }));
                true
            }
            None => false,
        }
    }

    /// Compares it with what a listing says of it, which may be that it is not there.
    pub fn look(&mut self, listed: Option<Fingerprint>, listing: u32, now: Instant) -> Look {
        self.listing = listing;
        self.listed = listed.map(|listed| listed.attributes);
        if self.state != State::Idle || self.retry_at.is_some() {
            return Look::Same;
        }
        if self.has_moved(listed, now) {
            self.need = self.need.max(Some(Priority::Periodic));
            return Look::Moved;
        }
        match &self.failure {
            Some(failure) if failure.kind.concerns_vault() => {
                self.failure = None;
                Look::Well
            }
            _ => Look::Same,
        }
    }

    fn has_moved(&self, listed: Option<Fingerprint>, now: Instant) -> bool {
        use VaultErrorKind as K;
        match (self.failure.as_ref().map(|failure| failure.kind), listed) {
            (Some(K::NotFound), listed) => listed.is_some(),
            (Some(K::Disabled), Some(listed)) => {
                listed.enabled || self.answered != Some(listed.attributes)
            }
            (_, None) => true,
            (_, Some(listed)) => self.known.is_none_or(|known| {
                let known = known.fingerprint;
                let answered = [Some(known.attributes), self.answered];
                listed.updated != known.updated
                    || !answered.contains(&Some(listed.attributes))
                    || self.settles_at.is_some_and(|at| at <= now)
            }),
        }
    }
}

fn backoff(failures: u32) -> Duration {
    FIRST_BACKOFF
        .saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)))
        .min(LONGEST_BACKOFF)
}
