//! How often a mirror's objects are looked at, and when an attempt that failed is repeated. Pure.

use std::time::Duration;

use jiff::SignedDuration;

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

/// How long to wait after the `failures`th passing failure in a row; never longer than the interval.
pub fn backoff(failures: u32, interval: Duration) -> Duration {
    let doubled = FIRST_BACKOFF.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
    doubled.min(LONGEST_BACKOFF).min(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(backoff(1, minute), Duration::from_secs(2));
        assert_eq!(backoff(4, minute), Duration::from_secs(16));
        assert_eq!(backoff(40, minute), minute);
    }
}
