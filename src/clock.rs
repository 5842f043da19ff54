//! The cluster's clock. Times that are compared across machines (when content changed, when a container started) are
//! reckoned by the API server's clock, learned from the `Date` header of its answers: to the second, which the margin
//! of [`crate::rotation`] covers.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use http::Response;
use http::header::DATE;
use jiff::{SignedDuration, Timestamp};

/// This machine's clock, corrected by what the API server's answers say. Clones share the correction.
#[derive(Clone, Debug, Default)]
pub struct ServerClock {
    /// Milliseconds that the server is ahead.
    ahead: Arc<AtomicI64>,
}

impl ServerClock {
    /// Now, as the API server would say.
    pub fn now(&self) -> Timestamp {
        let ahead = SignedDuration::from_millis(self.ahead.load(Ordering::Relaxed));
        Timestamp::now()
            .saturating_add(ahead)
            .unwrap_or(Timestamp::MAX)
    }

    /// Learns from an answer of the API server. `Date` is cut to the second, so a difference below one is none.
    pub fn observe<B>(&self, answer: &Response<B>) {
        let date = answer
            .headers()
            .get(DATE)
            .and_then(|date| date.to_str().ok());
        if let Some(date) = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()) {
            self.ahead
                .store(ahead(date.timestamp(), Timestamp::now()), Ordering::Relaxed);
        }
    }
}

/// Milliseconds that a clock is ahead which shows `date`, cut to the second, when ours shows `now`.
fn ahead(date: Timestamp, now: Timestamp) -> i64 {
    let difference = date.as_millisecond() - now.as_millisecond();
    if (-1000..=0).contains(&difference) {
        0
    } else {
        difference
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> Timestamp {
        Timestamp::from_millisecond(milliseconds).expect("in range")
    }

    #[test]
    fn the_cut_second_is_no_difference() {
        assert_eq!(ahead(at(10_000), at(10_999)), 0);
        assert_eq!(ahead(at(10_000), at(10_000)), 0);
    }

    #[test]
    fn a_real_difference_counts() {
        assert_eq!(ahead(at(70_000), at(10_000)), 60_000);
        assert_eq!(ahead(at(10_000), at(70_000)), -60_000);
    }

    #[test]
    fn answers_correct_the_clock() {
        let clock = ServerClock::default();
        clock.observe(
            &Response::builder()
                .header(DATE, "not a date")
                .body(())
                .expect("response"),
        );
        assert!((clock.now().as_millisecond() - Timestamp::now().as_millisecond()).abs() < 1000);
        clock.observe(
            &Response::builder()
                .header(DATE, "Fri, 31 Dec 2100 23:59:59 GMT")
                .body(())
                .expect("response"),
        );
        assert!(clock.now() > at(4_102_400_000_000));
    }
}
