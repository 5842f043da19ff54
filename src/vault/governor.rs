//! When a vault may be asked. Pure: time and jitter come in as values, and what may be sent now comes out.
//!
//! One governor stands before each vault and identity. It paces requests far below Key Vault's own limit, bounds how many are
//! under way, and learns that bound: one more per round of answers, half after an overload. A vault that throttles or is dead
//! is paused as a whole, and not just for the object whose request met it; a dead one is then tried with one request.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Requests under way before anything is known of the vault.
const FIRST_WINDOW: f64 = 4.0;
/// Failures in a row after which a vault counts as dead.
const DEAD_AFTER: u32 = 4;
/// First pause of a vault that throttles without saying for how long; it doubles up to [`LONGEST_PAUSE`].
const FIRST_THROTTLE: Duration = Duration::from_secs(1);
/// First pause of a dead vault; it doubles up to [`LONGEST_PAUSE`].
const FIRST_DEAD: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// No vault is left alone for longer, whatever its `Retry-After` says.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);
/// One start in so many is for the request that has waited longest, so that no priority starves another.
const FAIR_EVERY: u64 = 8;

/// How soon a request is sent. The first of the waiting ones goes first, but see [`FAIR_EVERY`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Priority {
    /// The regular look at the vault.
    Periodic,
    /// Someone says that the object changed.
    Hinted,
    /// A mirror has nothing yet, or its target is not as it should be.
    New,
}

/// What a governor never exceeds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests per second, in the long run.
    pub per_second: f64,
    /// Requests that may be sent at once after a quiet time.
    pub burst: f64,
    /// Requests under way.
    pub concurrency: usize,
}

/// How a request ended, as far as it says something about the whole vault.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The vault answered, be it by refusing this one object.
    Answered,
    /// The vault wants fewer requests.
    Throttled { retry_after: Option<Duration> },
    /// The vault gave no useful answer.
    Failed,
}

/// A request that was let go; its number tells the governor what was known when it was.
#[derive(Debug)]
pub struct Started<R> {
    pub number: u64,
    pub request: R,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Health {
    Well,
    Paused {
        until: Instant,
        dead: bool,
    },
    /// A dead vault is tried with one request.
    Probing,
}

/// The governor of one vault and identity, with the requests that wait.
#[derive(Debug)]
pub struct Governor<R> {
    limits: Limits,
    /// The waiting requests by priority, each with the number of its arrival.
    lanes: [VecDeque<(u64, R)>; 3],
    arrivals: u64,
    starts: u64,
    under_way: usize,
    tokens: f64,
    refilled: Instant,
    window: f64,
    /// Requests up to this number went when, or before, the window was full: only their answers say that it may be larger.
    filled: u64,
    /// Requests up to this number tell nothing new about an overload.
    cut: u64,
    /// Requests up to this number are of the time before the last pause.
    paused_at: u64,
    health: Health,
    failures: u32,
    throttles: u32,
    deaths: u32,
}

impl<R> Governor<R> {
    pub fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            lanes: Default::default(),
            arrivals: 0,
            starts: 0,
            under_way: 0,
            tokens: limits.burst,
            refilled: now,
            window: FIRST_WINDOW.min(limits.concurrency as f64),
            filled: 0,
            cut: 0,
            paused_at: 0,
            health: Health::Well,
            failures: 0,
            throttles: 0,
            deaths: 0,
        }
    }

    /// Puts a request in line.
    pub fn submit(&mut self, priority: Priority, request: R) {
        self.arrivals += 1;
        self.lanes[priority as usize].push_back((self.arrivals, request));
    }

    /// Lets a request go, if one waits that `is_wanted` still and may go now. Others that it meets are dropped.
    pub fn start(
        &mut self,
        now: Instant,
        mut is_wanted: impl FnMut(&R) -> bool,
    ) -> Option<Started<R>> {
        if self.paused(now).is_some() {
            return None;
        }
        if let Health::Paused { dead, .. } = self.health {
            self.health = if dead { Health::Probing } else { Health::Well };
        }
        self.refill(now);
        if self.under_way >= self.bound() || self.tokens < 1.0 {
            return None;
        }
        loop {
            let request = self.pop()?;
            if !is_wanted(&request) {
                continue;
            }
            self.starts += 1;
            self.under_way += 1;
            self.tokens -= 1.0;
            let number = self.starts;
            if self.under_way >= self.bound() {
                self.filled = number;
            }
            return Some(Started { number, request });
        }
    }

    /// Takes in how a request ended. `jitter`, from 0 to 1, spreads pauses; a dead vault is left alone for at most `patience`.
    pub fn finish(
        &mut self,
        now: Instant,
        number: u64,
        outcome: Outcome,
        jitter: f64,
        patience: Duration,
    ) {
        self.under_way = self.under_way.saturating_sub(1);
        match outcome {
            Outcome::Answered if number > self.paused_at => {
                self.failures = 0;
                self.throttles = 0;
                self.deaths = 0;
                self.health = Health::Well;
                if number <= self.filled && number > self.cut {
                    self.window =
                        (self.window + 1.0 / self.window).min(self.limits.concurrency as f64);
                }
            }
            Outcome::Answered => {}
            Outcome::Throttled { retry_after } => self.throttled(now, number, retry_after, jitter),
            Outcome::Failed if number > self.paused_at => {
                self.failures += 1;
                self.slow_down(number);
                if self.failures >= DEAD_AFTER || self.health == Health::Probing {
                    self.deaths += 1;
                    let pause = doubled(FIRST_DEAD, self.deaths).min(patience);
                    // Sooner rather than later: it must not get longer than the patience.
                    let until = now + pause.mul_f64(1.0 - jitter / 4.0);
                    self.pause(until, true);
                }
            }
            Outcome::Failed => {}
        }
    }

    fn throttled(&mut self, now: Instant, number: u64, retry_after: Option<Duration>, jitter: f64) {
        let asked = retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
        let pause = if number > self.paused_at {
            self.failures = 0;
            self.throttles += 1;
            self.slow_down(number);
            asked.max(doubled(FIRST_THROTTLE, self.throttles))
        } else {
            // Of the same flood as the answer that began the pause.
            asked
        };
        // Later rather than sooner: the vault said when.
        let until = now + pause.mul_f64(1.0 + jitter / 4.0);
        match self.health {
            Health::Paused { until: before, .. } if before >= until => {}
            Health::Paused { dead, .. } => self.pause(until, dead),
            Health::Probing | Health::Well if number > self.paused_at || !asked.is_zero() => {
                self.pause(until, false);
            }
            Health::Probing | Health::Well => {}
        }
    }

    fn pause(&mut self, until: Instant, dead: bool) {
        self.health = Health::Paused { until, dead };
        self.paused_at = self.starts;
    }

    fn slow_down(&mut self, number: u64) {
        if number > self.cut {
            self.window = (self.window / 2.0).max(1.0);
            self.cut = self.starts;
        }
    }

    /// Until when the vault is left alone, if it is.
    pub fn paused(&self, now: Instant) -> Option<Instant> {
        match self.health {
            Health::Paused { until, .. } if until > now => Some(until),
            _ => None,
        }
    }

    /// Whether the pause of a dead vault is over and nothing has been sent since.
    pub fn wants_probe(&self, now: Instant) -> bool {
        matches!(self.health, Health::Paused { until, dead: true } if until <= now)
    }

    /// When a waiting request may go, unless one that is under way must end first.
    pub fn wake(&self, now: Instant) -> Option<Instant> {
        if self.lanes.iter().all(VecDeque::is_empty) {
            return None;
        }
        if let Some(until) = self.paused(now) {
            return Some(until);
        }
        if self.under_way >= self.bound() {
            return None;
        }
        let missing = 1.0 - self.tokens_at(now);
        let pause = if missing > 0.0 {
            // At least so long that rounding can't make it none.
            Duration::from_secs_f64(missing / self.limits.per_second).max(Duration::from_millis(1))
        } else {
            Duration::ZERO
        };
        Some(now + pause)
    }

    /// Takes all waiting requests out of the line.
    pub fn drain(&mut self) -> impl Iterator<Item = R> {
        self.lanes
            .iter_mut()
            .rev()
            .flat_map(|lane| lane.drain(..))
            .map(|(_, request)| request)
    }

    /// How many requests may be under way.
    pub fn bound(&self) -> usize {
        match self.health {
            Health::Paused { dead: true, .. } | Health::Probing => 1,
            _ => self.window as usize,
        }
    }

    fn pop(&mut self) -> Option<R> {
        let fair = (self.starts + 1).is_multiple_of(FAIR_EVERY);
        let waiting = self.lanes.iter_mut().filter(|lane| !lane.is_empty());
        let lane = if fair {
            waiting.min_by_key(|lane| lane.front().map(|(arrival, _)| *arrival))
        } else {
            waiting.last()
        };
        lane?.pop_front().map(|(_, request)| request)
    }

    fn refill(&mut self, now: Instant) {
        self.tokens = self.tokens_at(now);
        self.refilled = self.refilled.max(now);
    }

    fn tokens_at(&self, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.refilled).as_secs_f64();
        (self.tokens + since * self.limits.per_second).min(self.limits.burst)
    }
}

/// The `count`th pause of those that begin with `first` and double.
fn doubled(first: Duration, count: u32) -> Duration {
    first
        .saturating_mul(2u32.saturating_pow(count.saturating_sub(1)))
        .min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests;
