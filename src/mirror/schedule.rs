//! When a mirror's vault is asked. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::vault::VaultHost;

/// First pause after a passing failure; it doubles up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_secs(2);
const LONGEST_BACKOFF: Duration = Duration::from_secs(300);

/// Parses a `refreshInterval`; what is below the floor becomes the floor.
pub fn interval(text: &str, floor: Duration) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "spec.refreshInterval `{text}` is not a duration; write for example 30s, 1m or 1h30m"
        )
    };
    let duration: SignedDuration = text.parse().map_err(|_| wrong())?;
    Duration::try_from(duration)
        .map(|duration| duration.max(floor))
        .map_err(|_| wrong())
}

/// The times at which mirrors of one vault ask it: the same for all with the same interval, so that they share their reads,
/// and different from vault to vault, so that not all vaults are asked at once.
#[derive(Clone, Copy, Debug)]
pub struct Ticks {
    interval: i64,
    phase: i64,
}

impl Ticks {
    pub fn new(vault: &VaultHost, interval: Duration) -> Self {
        let interval = i64::try_from(interval.as_millis())
            .unwrap_or(i64::MAX)
            .max(1);
        let mut hasher = DefaultHasher::new();
        vault.hash(&mut hasher);
        Self {
            interval,
            phase: (hasher.finish() % interval.unsigned_abs()) as i64,
        }
    }

    /// The latest tick that is not after `now`.
    pub fn last(self, now: Timestamp) -> Timestamp {
        let now = now.as_millisecond();
        let since = (now - self.phase).rem_euclid(self.interval);
        Timestamp::from_millisecond(now - since).unwrap_or(Timestamp::MIN)
    }

    /// How long it is from `now` to the next tick.
    pub fn until_next(self, now: Timestamp) -> Duration {
        let since = now.as_millisecond() - self.last(now).as_millisecond();
        Duration::from_millis((self.interval - since).max(1).unsigned_abs())
    }
}

/// How long to wait after the `failures`th passing failure in a row; never longer than the interval.
pub fn backoff(failures: u32, interval: Duration, retry_after: Option<Duration>) -> Duration {
    let doubled = FIRST_BACKOFF.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
    let pause = doubled.min(LONGEST_BACKOFF).min(interval);
    retry_after.map_or(pause, |after| after.max(pause))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vault::DnsSuffixes;

    fn vault() -> VaultHost {
        let suffixes: DnsSuffixes = "vault.azure.net".parse().expect("suffix");
        suffixes
            .host(&crate::api::VaultRef {
                name: Some("contoso".into()),
                url: None,
            })
            .expect("a host")
    }

    #[test]
    fn intervals_are_parsed_and_floored() {
        let floor = Duration::from_secs(10);
        assert_eq!(interval("1h30m", floor), Ok(Duration::from_secs(5400)));
        assert_eq!(interval("1s", floor), Ok(floor));
        assert!(interval("soon", floor).is_err());
    }

    #[test]
    fn passing_failures_are_retried_soon_and_then_seldom() {
        let minute = Duration::from_secs(60);
        assert_eq!(backoff(1, minute, None), Duration::from_secs(2));
        assert_eq!(backoff(4, minute, None), Duration::from_secs(16));
        assert_eq!(backoff(40, minute, None), minute);
        assert_eq!(backoff(1, minute, Some(minute * 2)), minute * 2);
    }

    proptest! {
        #[test]
        fn ticks_are_one_interval_apart(now in 0i64..4_000_000_000_000, seconds in 10u64..100_000) {
            let ticks = Ticks::new(&vault(), Duration::from_secs(seconds));
            let now = Timestamp::from_millisecond(now).expect("in range");
            let last = ticks.last(now);
            prop_assert!(last <= now);
            let next = now + ticks.until_next(now);
            prop_assert_eq!(next.as_millisecond() - last.as_millisecond(), seconds as i64 * 1000);
            prop_assert_eq!(ticks.last(next), next);
        }
    }
}
