//! Who leads: a function of what the Lease said, and when that was seen. Pure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use tokio::time::Instant;

/// Times of the election; the names are those of Kubernetes' components.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// How long others wait for a sign of life before they take over. Whole seconds, since the Lease says it.
    lease_duration: Duration,
    /// How long a leader that can't renew goes on.
    renew_deadline: Duration,
    /// Pause between two looks at the Lease, or two renewals.
    retry_period: Duration,
}

/// Times that don't go together.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BadTiming {
    #[error("--leader-elect-lease-duration must be a whole number of seconds, at least 1s")]
    LeaseDuration,
    #[error(
        "--leader-elect-renew-deadline must be shorter than --leader-elect-lease-duration: a leader has to stop before another begins"
    )]
    RenewDeadline,
    #[error(
        "--leader-elect-retry-period must be above zero and at most half of --leader-elect-renew-deadline: a leader needs time to try again"
    )]
    RetryPeriod,
}

impl Timing {
    /// Checks that the times go together.
    pub fn new(
        lease_duration: Duration,
        renew_deadline: Duration,
        retry_period: Duration,
    ) -> Result<Self, BadTiming> {
        if lease_duration.as_secs() == 0
            || lease_duration.subsec_nanos() != 0
            || i32::try_from(lease_duration.as_secs()).is_err()
        {
            return Err(BadTiming::LeaseDuration);
        }
        if renew_deadline >= lease_duration {
            return Err(BadTiming::RenewDeadline);
        }
        if retry_period.is_zero() || retry_period > renew_deadline / 2 {
            return Err(BadTiming::RetryPeriod);
        }
        Ok(Self {
            lease_duration,
            renew_deadline,
            retry_period,
        })
    }

    /// How long an answer is waited for, so that one that doesn't come leaves time for another try.
    pub fn patience(&self) -> Duration {
        self.renew_deadline / 2
    }

    /// The pause before the next look or renewal: the retry period, give or take a fifth by `random`, so that candidates
    /// don't keep knocking at the same moment.
    pub fn pause(&self, random: u8) -> Duration {
        self.retry_period
            .mul_f64(0.8 + 0.4 * f64::from(random) / 255.0)
    }
}

/// What a candidate knows of the Lease.
#[derive(Debug)]
pub struct Election {
    identity: String,
    timing: Timing,
    /// The Lease as it was last read or written; none where there is none.
    lease: Option<Lease>,
    /// When it was first seen to be what it is. Told by its resourceVersion, since times in it are only as good as a clock.
    seen: Instant,
    /// When the latest claim of our own was sent, while it holds.
    claimed: Option<Instant>,
}

impl Election {
    /// `identity` tells this candidate from every other, earlier ones of the same name included.
    pub fn new(identity: String, timing: Timing, now: Instant) -> Self {
        Self {
            identity,
            timing,
            lease: None,
            seen: now,
            claimed: None,
        }
    }

    /// The Lease was read, and is as given.
    pub fn read(&mut self, lease: Option<Lease>, now: Instant) {
        let version = |lease: &Option<Lease>| lease.as_ref()?.metadata.resource_version.clone();
        if version(&lease) != version(&self.lease) {
            self.seen = now;
        }
        self.lease = lease;
        if self.holder() != Some(&self.identity) {
            self.claimed = None;
        }
    }

    /// A claim of ours was written by a request that was sent at `sent`.
    pub fn claimed(&mut self, lease: Lease, sent: Instant) {
        self.lease = Some(lease);
        self.seen = sent;
        self.claimed = Some(sent);
    }

    /// What to write in order to lead, or to go on leading; none while somebody else does. `wall` is for people to read.
    pub fn claim(&self, now: Instant, wall: Timestamp) -> Option<Lease> {
        let before = spec(self.lease.as_ref()).cloned().unwrap_or_default();
        let ours = self.holder() == Some(&self.identity);
        if !ours && self.holder().is_some() && now < self.seen + duration(&before, self.timing) {
            return None;
        }
        let transitions = before.lease_transitions.unwrap_or(0);
        Some(
            self.lease_with(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                acquire_time: before
                    .acquire_time
                    .clone()
                    .filter(|_| ours)
                    .or(Some(MicroTime(wall))),
                renew_time: Some(MicroTime(wall)),
                lease_duration_seconds: i32::try_from(self.timing.lease_duration.as_secs()).ok(),
                lease_transitions: Some(if ours {
                    transitions
                } else {
                    transitions.saturating_add(1)
                }),
                ..before
            }),
        )
    }

    /// What to write so that another may lead at once; none where there is nothing to let go.
    pub fn release(&self) -> Option<Lease> {
        let before = spec(self.lease.as_ref())?.clone();
        (self.holder() == Some(&self.identity)).then(|| {
            self.lease_with(LeaseSpec {
                holder_identity: None,
                acquire_time: None,
                renew_time: None,
                lease_duration_seconds: None,
                ..before
            })
        })
    }

    /// Until when this candidate surely leads; none when it doesn't.
    pub fn leads_until(&self) -> Option<Instant> {
        self.claimed.map(|sent| sent + self.timing.renew_deadline)
    }

    /// Who holds the Lease, by what was last seen.
    pub fn holder(&self) -> Option<&String> {
        spec(self.lease.as_ref())?
            .holder_identity
            .as_ref()
            .filter(|holder| !holder.is_empty())
    }

    /// The Lease with another spec: as it was read in all else, its resourceVersion included.
    fn lease_with(&self, spec: LeaseSpec) -> Lease {
        let metadata = self.lease.as_ref().map(|lease| lease.metadata.clone());
        Lease {
            metadata: ObjectMeta {
                managed_fields: None,
                ..metadata.unwrap_or_default()
            },
            spec: Some(spec),
        }
    }
}

fn spec(lease: Option<&Lease>) -> Option<&LeaseSpec> {
    lease?.spec.as_ref()
}

/// How long the holder has said that it may be silent.
fn duration(spec: &LeaseSpec, timing: Timing) -> Duration {
    spec.lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(timing.lease_duration, Duration::from_secs)
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;
