//! Waiting for conditions. Nothing in the tests waits for a time to pass: that is either too short on a busy machine
//! or too long on every other.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

const PAUSE: Duration = Duration::from_millis(100);

/// Polls `attempt` until it succeeds, and panics with its last reason when it hasn't by the deadline.
#[track_caller]
pub fn eventually<T>(
    deadline: Duration,
    what: &str,
    attempt: impl AsyncFnMut() -> Result<T, String>,
) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move {
        match within(deadline, what, attempt).await {
            Ok(value) => value,
            Err(reason) => panic!("{caller}: {reason}"),
        }
    }
}

/// Polls `attempt` until it succeeds; the error says what was waited for, how long, and what stood against it last.
pub async fn within<T>(
    deadline: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    let end = Instant::now() + deadline;
    let mut last = None;
    loop {
        // An attempt that hangs must not hide what the one before it said.
        match timeout_at(end, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(reason)) => last = Some(reason),
            Err(_) => last = last.or_else(|| Some("the first attempt never answered".into())),
        }
        if Instant::now() + PAUSE >= end {
            let reason = last.unwrap_or_default();
            return Err(format!(
                "{what}: not within {} s: {reason}",
                deadline.as_secs_f32()
            ));
        }
        sleep(PAUSE).await;
    }
}
