//! Whether a cycle lists the vault or reads object by object: what the list costs is learned from the last one.

use std::time::Duration;

use clap::ValueEnum;
use tokio::time::Instant;

/// After this time the list is tried though it seemed not to pay: vaults shrink, and get quick again. Giving it up costs at most as
/// many pages as there are reads.
const LEARN_AGAIN: Duration = Duration::from_secs(900);
/// Cycles without the list after it was forbidden.
const FORBIDDEN_CYCLES: u32 = 5;

/// Whether vaults are listed at all.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Mode {
    /// Where that costs less than a GET per object
    #[default]
    Auto,
    /// Never: one GET per object and interval
    Never,
}

/// What the list costs, as far as it is known.
#[derive(Debug)]
pub struct Costs {
    mode: Mode,
    per_second: f64,
    /// At least so many pages.
    pages: usize,
    /// What the last whole list took that nothing disturbed.
    took: Option<Duration>,
    learned: Option<Instant>,
    /// Cycles to go without the list.
    forbidden: u32,
}

impl Costs {
    pub fn new(mode: Mode, per_second: f64) -> Self {
        Self {
            mode,
            per_second,
            pages: 1,
            took: None,
            learned: None,
            forbidden: 0,
        }
    }

    /// Whether listing the vault is better than `gets` reads, which are due every `interval`. A list has fewer requests, but its pages
    /// come one after the other: where it takes more than half the interval, it must also be quicker than the reads.
    pub fn listing_pays(&mut self, gets: usize, interval: Duration, now: Instant) -> bool {
        if self.mode == Mode::Never || gets < 2 {
            return false;
        }
        if self.forbidden > 0 {
            self.forbidden -= 1;
            return false;
        }
        let is_known = self
            .learned
            .is_some_and(|at| now.saturating_duration_since(at) < LEARN_AGAIN);
        if !is_known {
            return true;
        }
        let reads = gets as f64 / self.per_second;
        let in_time = self
            .took
            .is_none_or(|took| took <= interval / 2 || took.as_secs_f64() <= reads);
        self.pages < gets && in_time
    }

    /// The whole list was read. What it took counts only if nothing disturbed it.
    pub fn listed(&mut self, pages: usize, took: Option<Duration>, now: Instant) {
        (self.pages, self.learned) = (pages, Some(now));
        self.took = took.or(self.took);
    }

    /// The list was given up after so many pages, with more to come.
    pub fn too_long(&mut self, pages: usize, now: Instant) {
        (self.pages, self.took, self.learned) = (pages + 1, None, Some(now));
    }

    /// The identity may not list.
    pub fn forbidden(&mut self) {
        self.forbidden = FORBIDDEN_CYCLES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn costs() -> Costs {
        Costs::new(Mode::Auto, 100.0)
    }

    #[test]
    fn one_object_is_never_worth_a_list() {
        assert!(!costs().listing_pays(1, MINUTE, Instant::now()));
    }

    #[test]
    fn an_unknown_vault_is_listed_to_learn() {
        assert!(costs().listing_pays(2, MINUTE, Instant::now()));
        assert!(!Costs::new(Mode::Never, 100.0).listing_pays(2, MINUTE, Instant::now()));
    }

    #[test]
    fn fewer_requests_decide() {
        let (mut costs, now) = (costs(), Instant::now());
        costs.listed(40, Some(Duration::from_secs(2)), now);
        assert!(costs.listing_pays(41, MINUTE, now));
        assert!(!costs.listing_pays(40, MINUTE, now));
    }

    #[test]
    fn a_list_that_takes_too_long_must_beat_the_reads() {
        let (mut costs, now) = (costs(), Instant::now());
        costs.listed(400, Some(Duration::from_secs(40)), now);
        assert!(
            !costs.listing_pays(1_000, MINUTE, now),
            "ten seconds of reads"
        );
        assert!(costs.listing_pays(10_000, MINUTE, now), "a hundred of them");
    }

    #[test]
    fn a_list_that_was_disturbed_says_nothing_of_the_time_it_takes() {
        let (mut costs, now) = (costs(), Instant::now());
        costs.listed(10, Some(Duration::from_secs(1)), now);
        costs.listed(10, None, now);
        assert!(costs.listing_pays(20, MINUTE, now));
    }

    #[test]
    fn what_was_learned_is_learned_again() {
        let (mut costs, now) = (costs(), Instant::now());
        costs.too_long(10, now);
        assert!(!costs.listing_pays(10, MINUTE, now));
        assert!(costs.listing_pays(12, MINUTE, now));
        assert!(costs.listing_pays(10, MINUTE, now + LEARN_AGAIN));
    }

    #[test]
    fn a_forbidden_list_is_tried_again_later() {
        let (mut costs, now) = (costs(), Instant::now());
        costs.forbidden();
        let tries: Vec<bool> = (0..6).map(|_| costs.listing_pays(9, MINUTE, now)).collect();
        assert_eq!(tries, [false, false, false, false, false, true]);
    }
}
