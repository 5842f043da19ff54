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
    /// What the one before took. A list that is slow once has met a bad moment of the vault, the network or this machine.
    took_before: Option<Duration>,
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
            took_before: None,
            learned: None,
            forbidden: 0,
        }
    }

    /// Whether listing the vault is better than `gets` reads, which are due every `interval`. A list has fewer requests, but its pages
    /// come one after the other: where it takes more than half the interval, time and again, the reads must take less than half as long.
    pub fn choose_listing(&mut self, gets: usize, interval: Duration, now: Instant) -> bool {
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
        let reads = Duration::from_secs_f64(gets as f64 / self.per_second);
        let took = self.took.min(self.took_before);
        let in_time = took.is_none_or(|took| took <= interval / 2 || took <= 2 * reads);
        self.pages < gets && in_time
    }

    /// The whole list was read. What it took counts only if nothing disturbed it.
    pub fn listed(&mut self, pages: usize, took: Option<Duration>, now: Instant) {
        (self.pages, self.learned) = (pages, Some(now));
        if took.is_some() {
            self.took_before = std::mem::replace(&mut self.took, took);
        }
    }

    /// The list was given up after so many pages, with more to come.
    pub fn too_long(&mut self, pages: usize, now: Instant) {
        (self.pages, self.learned) = (pages + 1, Some(now));
        (self.took, self.took_before) = (None, None);
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
        assert!(!costs().choose_listing(1, MINUTE, Instant::now()));
    }

    #[test]
    fn an_unknown_vault_is_listed_to_learn() {
        assert!(costs().choose_listing(2, MINUTE, Instant::now()));
        assert!(!Costs::new(Mode::Never, 100.0).choose_listing(2, MINUTE, Instant::now()));
    }

    #[test]
    fn fewer_requests_decide() {
        let (mut costs, now) = (costs(), Instant::now());
        costs.listed(40, Some(Duration::from_secs(2)), now);
        assert!(costs.choose_listing(41, MINUTE, now));
        assert!(!costs.choose_listing(40, MINUTE, now));
    }

    #[test]
    fn a_list_that_takes_too_long_gives_way_to_reads_that_are_much_quicker() {
        let (mut costs, now) = (costs(), Instant::now());
        costs.listed(400, Some(Duration::from_secs(40)), now);
        costs.listed(400, Some(Duration::from_secs(40)), now);
        assert!(
            !costs.choose_listing(1_000, MINUTE, now),
            "ten seconds of reads"
        );
        assert!(
            costs.choose_listing(2_000, MINUTE, now),
            "half the time is not worth five times the requests"
        );
        assert!(
            costs.choose_listing(10_000, MINUTE, now),
            "a hundred of them"
        );
    }

    #[test]
    fn a_list_that_is_slow_once_is_tried_again() {
        let (mut costs, now) = (costs(), Instant::now());
        let (quick, slow) = (Duration::from_secs(2), Duration::from_secs(50));
        let pays = |costs: &mut Costs| costs.choose_listing(1_000, MINUTE, now);
        costs.listed(40, Some(slow), now);
        assert!(pays(&mut costs), "the first");
        costs.listed(40, Some(quick), now);
        costs.listed(40, Some(slow), now);
        assert!(pays(&mut costs), "one after a quick one");
        costs.listed(40, Some(slow), now);
        assert!(!pays(&mut costs), "two in a row");
        costs.listed(40, Some(quick), now);
        assert!(pays(&mut costs), "quick again");
    }

    #[test]
    fn a_list_that_was_disturbed_says_nothing_of_the_time_it_takes() {
        let (mut costs, now) = (costs(), Instant::now());
        costs.listed(10, Some(Duration::from_secs(1)), now);
        costs.listed(10, None, now);
        assert!(costs.choose_listing(20, MINUTE, now));
    }

    #[test]
    fn what_was_learned_is_learned_again() {
        let (mut costs, now) = (costs(), Instant::now());
        costs.too_long(10, now);
        assert!(!costs.choose_listing(10, MINUTE, now));
        assert!(costs.choose_listing(12, MINUTE, now));
        assert!(costs.choose_listing(10, MINUTE, now + LEARN_AGAIN));
    }

    #[test]
    fn a_forbidden_list_is_tried_again_later() {
        let (mut costs, now) = (costs(), Instant::now());
        costs.forbidden();
        let tries: Vec<bool> = (0..6)
            .map(|_| costs.choose_listing(9, MINUTE, now))
            .collect();
        assert_eq!(tries, [false, false, false, false, false, true]);
    }
}
