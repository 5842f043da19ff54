//! When the queue is looked into again. Pure.

use std::time::Duration;

/// Messages that one look takes, which is as many as Azure gives.
pub const MOST_AT_ONCE: usize = 32;
/// Pause after messages came, because more may follow. It doubles while none do.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// First pause after a look that failed; it doubles up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// How quickly looks into the queue follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Pause while nothing comes.
    longest: Duration,
    pause: Duration,
    /// Looks in a row that failed.
    failures: u32,
}

impl Pace {
    pub fn new(longest: Duration) -> Self {
        Self {
            longest,
            pause: longest,
            failures: 0,
        }
    }

    /// The pause after a look that gave so many messages. A full one may have left some.
    pub fn received(&mut self, messages: usize) -> Duration {
        self.failures = 0;
        self.pause = match messages {
            0 => (self.pause * 2).clamp(SHORTEST_PAUSE, self.longest.max(SHORTEST_PAUSE)),
            MOST_AT_ONCE.. => Duration::ZERO,
            _ => SHORTEST_PAUSE,
        };
        self.pause
    }

    /// The pause after a look that failed. `jitter`, from 0 to 1, makes it up to a quarter shorter.
    pub fn failed(&mut self, jitter: f64) -> Duration {
        let backoff = FIRST_BACKOFF.saturating_mul(2u32.saturating_pow(self.failures));
        self.failures += 1;
        backoff.min(LONGEST_BACKOFF).mul_f64(1.0 - jitter / 4.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_quick_while_messages_come_and_then_slows_down() {
        let mut pace = Pace::new(SECOND);
        assert_eq!(pace.received(3), SHORTEST_PAUSE);
        let pauses: Vec<u128> = (0..6).map(|_| pace.received(0).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1000, 1000, 1000]);
        assert_eq!(pace.received(1), SHORTEST_PAUSE);
    }

    #[test]
    fn a_full_look_is_followed_by_the_next_at_once() {
        let mut pace = Pace::new(SECOND);
        assert_eq!(pace.received(MOST_AT_ONCE), Duration::ZERO);
        assert_eq!(pace.received(0), SHORTEST_PAUSE, "and that was all");
    }

    #[test]
    fn failures_back_off_up_to_a_minute_and_are_forgotten() {
        let mut pace = Pace::new(SECOND);
        let pauses: Vec<u64> = (0..8).map(|_| pace.failed(0.0).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pace.failed(1.0), Duration::from_secs(45));
        pace.received(0);
        assert_eq!(pace.failed(0.0), SECOND);
    }

    proptest! {
        #[test]
        fn no_pause_is_longer_than_allowed_and_none_but_a_full_look_spins(
            longest in 0u64..20_000, looks in prop::collection::vec(prop::option::of(0..=MOST_AT_ONCE), 1..200),
            jitter in 0.0..=1.0,
        ) {
            let longest = Duration::from_millis(longest);
            let mut pace = Pace::new(longest);
            for look in looks {
                match look {
                    Some(messages) => {
                        let pause = pace.received(messages);
                        prop_assert!(pause <= longest.max(SHORTEST_PAUSE));
                        prop_assert!(messages == MOST_AT_ONCE || pause >= SHORTEST_PAUSE);
                    }
                    None => {
                        let pause = pace.failed(jitter);
                        prop_assert!((FIRST_BACKOFF.mul_f64(0.75)..=LONGEST_BACKOFF).contains(&pause));
                    }
                }
            }
        }
    }
}
