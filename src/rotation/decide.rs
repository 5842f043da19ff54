//! Whether a workload is rolled: a function of what it uses, what its Pods have and what time it is. Pure, and
//! level-triggered: it looks at what is, never at what happened, so a crash, a missed event or a second daemon changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::baseline::Baseline;
use super::reference::{Reference, SourceKey};
use super::rollout::Rollout;
use crate::mirror::KeyRecord;

/// Clocks of nodes differ, and a kubelet may serve an older Secret from its cache: a container that started this soon
/// after the change may have the old content, and so may a new one.
pub const MARGIN: SignedDuration = SignedDuration::from_secs(5);
/// Least time from a change to the new Pod template: new containers must start after the margin, and their start times are
/// cut to the second.
const PROPAGATION: SignedDuration = SignedDuration::from_secs(6);
/// A rollout without a deadline of its own delays nothing for longer than this after the latest change.
const ROLLOUT_DEADLINE: SignedDuration = SignedDuration::from_mins(10);
/// A mirror that has been failing for longer delays nothing.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);
/// How soon to look again at what ends without an event of its own.
const SOON: SignedDuration = SignedDuration::from_secs(1);

/// Waits that hold for every workload.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long changes must have stopped coming.
    pub settle: SignedDuration,
    /// Least time between two rotations of a workload.
    pub min_interval: SignedDuration,
}

/// The content of one key of a Secret or ConfigMap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Content {
    /// ID of the key that the digest is made with.
    pub digest_key: String,
    pub record: KeyRecord,
}

/// A workload as far as the decision goes.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    pub references: BTreeSet<Reference>,
    pub baseline: Option<Baseline>,
    pub paused: bool,
    pub rollout: Rollout,
}

/// A container that is running, or ran to prepare its Pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Started {
    pub container: String,
    pub at: Timestamp,
}

/// A mirror that has a part in a Secret of the workload.
#[derive(Clone, Debug)]
pub struct MirrorState {
    pub name: String,
    pub in_flight: bool,
    pub failing_since: Option<Timestamp>,
}

/// The decision.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// The Pods have the content.
    Nothing,
    /// The Pods have the content, but that is not written down yet.
    Record(Baseline),
    /// Not now.
    Wait { until: Timestamp, reason: Wait },
    /// Roll, for these keys.
    Rotate {
        baseline: Baseline,
        changed: Vec<SourceKey>,
        failing: Vec<String>,
    },
}

/// What a rotation waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wait {
    Settling,
    MinInterval,
    MirrorBusy,
    Paused,
    Rolling,
}

/// The keys that a workload uses and that have content.
pub fn contents_in_use(
    references: &BTreeSet<Reference>,
    contents: &BTreeMap<SourceKey, Content>,
) -> BTreeMap<SourceKey, Content> {
    contents
        .iter()
        .filter(|(key, _)| references.iter().any(|reference| uses(reference, key)))
        .map(|(key, content)| (key.clone(), content.clone()))
        .collect()
}

/// The keys whose content is not what the baseline says. Only for these do the start times of containers matter.
pub fn suspects(workload: &Workload, contents: &BTreeMap<SourceKey, Content>) -> Vec<SourceKey> {
    contents
        .iter()
        .filter(|(key, content)| {
            baseline_digest(workload, key, content) != Some(&content.record.digest)
        })
        .map(|(key, _)| key.clone())
        .collect()
}

/// Decides. `contents` are the keys in use, `started` the workload's containers (needed only where there are [`suspects`]).
pub fn decide(
    workload: &Workload,
    contents: &BTreeMap<SourceKey, Content>,
    started: &[Started],
    mirrors: &[MirrorState],
    timing: Timing,
    now: Timestamp,
) -> Decision {
    let stale: Vec<SourceKey> = suspects(workload, contents)
        .into_iter()
        .filter(|key| {
            contents
                .get(key)
                .is_some_and(|content| has_stale_container(workload, key, content, started))
        })
        .collect();
    let rotated = workload
        .baseline
        .as_ref()
        .and_then(|baseline| baseline.rotated);
    let mut baseline = baseline_of(workload, contents, rotated);
    if stale.is_empty() {
        if let Some(until) = may_still_become_stale(workload, contents).filter(|until| *until > now)
        {
            let reason = Wait::Settling;
            return Decision::Wait { until, reason };
        }
        return match &workload.baseline {
            Some(before) if *before == baseline => Decision::Nothing,
            None if contents.is_empty() => Decision::Nothing,
            _ => Decision::Record(baseline),
        };
    }
    if let Some((until, reason)) = wait(workload, contents, mirrors, timing, now) {
        return Decision::Wait { until, reason };
    }
    baseline.rotated = Some(now);
    let failing = mirrors
        .iter()
        .filter(|mirror| mirror.failing_since.is_some());
    Decision::Rotate {
        baseline,
        changed: stale,
        failing: failing.map(|mirror| mirror.name.clone()).collect(),
    }
}

fn wait(
    workload: &Workload,
    contents: &BTreeMap<SourceKey, Content>,
    mirrors: &[MirrorState],
    timing: Timing,
    now: Timestamp,
) -> Option<(Timestamp, Wait)> {
    let last_change = contents
        .values()
        .map(|content| content.record.changed)
        .max();
    let settled = last_change.map(|changed| later(changed, timing.settle.max(PROPAGATION)));
    let rotated = workload
        .baseline
        .as_ref()
        .and_then(|baseline| baseline.rotated);
    let allowed = rotated.map(|rotated| later(rotated, timing.min_interval));
    let busy = mirrors
        .iter()
        .find_map(|mirror| match mirror.failing_since {
            _ if mirror.in_flight => Some(later(now, SOON)),
            // Looked at again often: it may recover, and the rotation should not wait out the minute then.
            Some(since) if now < later(since, PATIENCE) => Some(later(now, SOON)),
            _ => None,
        });
    let rolling = match workload.rollout {
        Rollout::Finished | Rollout::Failed | Rollout::OnDelete => None,
        // Its end is a change of the workload, which is looked at then.
        Rollout::UnderWay => Some(later(now, PATIENCE)),
        Rollout::UnderWayForEver => last_change.map(|changed| later(changed, ROLLOUT_DEADLINE)),
    };
    let until = |time: Option<Timestamp>, reason| {
        time.filter(|time| *time > now).map(|time| (time, reason))
    };
    until(settled, Wait::Settling)
        .or_else(|| {
            workload
                .paused
                .then(|| (later(now, PATIENCE), Wait::Paused))
        })
        .or_else(|| until(rolling, Wait::Rolling))
        .or_else(|| until(allowed, Wait::MinInterval))
        .or_else(|| until(busy, Wait::MirrorBusy))
}

/// Whether a container that uses the key may have started with older content. Content that appears for the first time makes
/// nothing stale, since a container waits for what it requires; only what started without an optional key lacks it.
fn has_stale_container(
    workload: &Workload,
    key: &SourceKey,
    content: &Content,
    started: &[Started],
) -> bool {
    affected(workload, key, content).any(|reference| {
        started.iter().any(|container| {
            reference.is_of(&container.container)
                && container.at <= later(content.record.changed, MARGIN)
        })
    })
}

/// Until when a container may still start with older content: what starts that soon after a change is not seen before it has
/// started, and once the content is recorded nobody would look again.
fn may_still_become_stale(
    workload: &Workload,
    contents: &BTreeMap<SourceKey, Content>,
) -> Option<Timestamp> {
    suspects(workload, contents)
        .into_iter()
        .filter_map(|key| Some((contents.get(&key)?, key)))
        .filter(|(content, key)| affected(workload, key, content).next().is_some())
        .map(|(content, _)| later(content.record.changed, PROPAGATION))
        .max()
}

/// The references by which a container can have started with older content of a key.
fn affected<'a>(
    workload: &'a Workload,
    key: &'a SourceKey,
    content: &Content,
) -> impl Iterator<Item = &'a Reference> {
    // Under another digest key nothing says that it is not the content that the baseline knows.
    let known = baseline_digest(workload, key, content).is_some();
    let appeared = content.record.first && !known;
    workload
        .references
        .iter()
        .filter(move |reference| uses(reference, key) && (!appeared || reference.optional))
}

fn baseline_digest<'a>(
    workload: &'a Workload,
    key: &SourceKey,
    content: &Content,
) -> Option<&'a String> {
    let baseline = workload
        .baseline
        .as_ref()
        .filter(|baseline| baseline.digest_key == content.digest_key)?;
    baseline.keys.get(key)
}

/// The baseline of Pods that have these contents. A key in use whose Secret is gone stays as it was: when it comes back with
/// other content, that is a change.
fn baseline_of(
    workload: &Workload,
    contents: &BTreeMap<SourceKey, Content>,
    rotated: Option<Timestamp>,
) -> Baseline {
    let before = workload.baseline.clone().unwrap_or_default();
    let digest_key = contents
        .values()
        .next()
        .map_or(before.digest_key.clone(), |content| {
            content.digest_key.clone()
        });
    let in_use = |key: &SourceKey| workload.references.iter().any(|r| uses(r, key));
    let gone = before
        .keys
        .into_iter()
        .filter(|(key, _)| before.digest_key == digest_key && in_use(key));
    let there = contents
        .iter()
        .map(|(key, content)| (key.clone(), content.record.digest.clone()));
    let keys = gone.chain(there).collect();
    Baseline {
        digest_key,
        keys,
        rotated,
    }
}

fn uses(reference: &Reference, key: &SourceKey) -> bool {
    reference.source == key.source && reference.key.as_ref().is_none_or(|used| *used == key.key)
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
