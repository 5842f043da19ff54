//! Whether a workload's turn has come, by what happens to the others: how many rollouts are under way, whether one with the same
//! content has failed, and whether the canaries have it. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::decide::{Content, Hold, POLL, Reason, SOON, Wait, later};
use super::policy::Policy;
use super::reference::SourceKey;
use super::workload::WorkloadId;
use crate::api::OnFailure;

/// What the other workloads do, as far as one that is to be rolled is concerned.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Others {
    /// Rollouts of rotations under way, of workloads under the same policy.
    pub in_flight: usize,
    /// The same in the whole cluster.
    pub in_flight_everywhere: usize,
    /// Most that may be under way in the whole cluster.
    pub limit_everywhere: usize,
    /// Rotations to the same content that failed.
    pub failed: Vec<Failed>,
    /// Rollouts to the same content that take so long that they must be looked at first.
    pub unexamined: Vec<WorkloadId>,
    /// Canaries that don't have the same content yet, or not for long enough.
    pub canaries: Vec<Canary>,
}

/// A rotation that failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failed {
    /// The workload, such as `Deployment web`.
    pub workload: String,
    pub rotated: Timestamp,
    pub why: String,
}

/// A canary that holds the others up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Canary {
    /// The workload, such as `Deployment web`.
    pub workload: String,
    /// Until when it soaks; none while it does not have the content or is being rolled.
    pub soaks_until: Option<Timestamp>,
}

/// A workload as a canary.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub workload: &'a str,
    /// Digests of the content that its Pods have or are being given.
    pub keys: &'a BTreeMap<SourceKey, String>,
    pub rotated: Option<Timestamp>,
    pub is_rolling: bool,
}

impl Candidate<'_> {
    /// Whether it holds up those that are to be given these contents.
    pub fn holds_up(
        &self,
        contents: &BTreeMap<&SourceKey, &Content>,
        soak: SignedDuration,
        now: Timestamp,
    ) -> Option<Canary> {
        let shared = || {
            contents
                .iter()
                .filter_map(|(key, content)| Some((self.keys.get(*key)?, *content)))
        };
        let has_it = shared().all(|(digest, content)| *digest == content.record.digest);
        let changed = shared().map(|(_, content)| content.record.changed).max()?;
        let since = self.rotated.map_or(changed, |rotated| rotated.max(changed));
        let until = later(since, soak);
        let soaks = has_it && !self.is_rolling;
        (!soaks || until > now).then(|| Canary {
            workload: self.workload.to_owned(),
            soaks_until: soaks.then_some(until),
        })
    }
}

/// What a rotation has to wait for, or what holds it.
pub fn gate(policy: &Policy, others: &Others, now: Timestamp) -> Option<Result<Wait, Hold>> {
    let soon = |reason| {
        let until = later(now, SOON);
        Some(Ok(Wait { until, reason }))
    };
    // Content that is taken back is no more to be given to anybody.
    if policy.on_failure != OnFailure::Continue {
        if let Some(failed) = others.failed.first() {
            return Some(Err(Hold::Failed(failed.clone())));
        }
        if let Some(workload) = others.unexamined.first() {
            return soon(Reason::Examination {
                workload: workload.clone(),
            });
        }
    }
    if let Some(canary) = others.canaries.iter().max_by_key(|canary| {
        // One that is not even rolled tells more than one that soaks.
        (canary.soaks_until.is_none(), canary.soaks_until)
    }) {
        let workload = canary.workload.clone();
        let until = canary.soaks_until;
        return Some(Ok(Wait {
            until: until.unwrap_or_else(|| later(now, POLL)),
            reason: Reason::Canary { workload },
        }));
    }
    if others.in_flight >= policy.max_concurrent
        || others.in_flight_everywhere >= others.limit_everywhere
    {
        return Some(Ok(Wait {
            until: later(now, POLL),
            reason: Reason::MaxConcurrent,
        }));
    }
    None
}
