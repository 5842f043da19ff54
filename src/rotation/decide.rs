//! Whether a workload is rolled: a function of what it uses, what its Pods have, what its policy says, what happens to others and
//! what time it is. Pure, and level-triggered: it looks at what is, never at what happened, so a crash, a missed event or a second
//! daemon changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::baseline::Baseline;
use super::gate::{Failed, Others, gate};
use super::policy::Policy;
use super::reference::{Reference, SourceKey, Via};
use super::rollout::Rollout;
use super::trial::Trial;
use super::window;
use super::workload::WorkloadId;
use crate::api::OnFailure;
use crate::mirror::KeyRecord;

/// Clocks of nodes differ, and a kubelet may serve an older Secret from its cache: a container that started this soon
/// after the change may have the old content, and so may a new one.
pub const MARGIN: SignedDuration = SignedDuration::from_secs(5);
/// Least time from a change to the new Pod template: new containers must start after the margin, and their start times are
/// cut to the second.
pub const PROPAGATION: SignedDuration = SignedDuration::from_secs(6);
/// A rollout without a deadline of its own delays nothing for longer than this after the latest change.
const ROLLOUT_DEADLINE: SignedDuration = SignedDuration::from_mins(10);
/// A mirror that has been failing for longer delays nothing.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);
/// For how long after a change a container may have started without its Pod's status saying so.
const UNREPORTED: SignedDuration = SignedDuration::from_secs(30);
/// How soon to look again at what ends without an event of its own.
pub const SOON: SignedDuration = SignedDuration::from_secs(1);
/// How soon to look again at what mostly wakes a workload by itself.
pub const POLL: SignedDuration = SignedDuration::from_secs(10);

/// The content of one key of a Secret or ConfigMap.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Content {
    /// ID of the key that the digest is made with.
    pub digest_key: String,
    pub record: KeyRecord,
}

/// A workload as far as the decision goes.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    pub references: BTreeSet<Reference>,
    pub baseline: Option<Baseline>,
    pub paused: bool,
    pub rollout: Rollout,
    /// Hash of its Pod template, where one was made.
    pub template: Option<u64>,
}

/// What there is of a workload's Pods.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Pods {
    pub containers: Vec<Container>,
    pub troubles: Vec<Trouble>,
}

/// A container that is running, is about to, or ran to prepare its Pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Container {
    pub name: String,
    /// When it started, with the variables of then. None: it has not, as far as is known.
    pub started: Option<Timestamp>,
    /// The files that it found are those of then, or newer. None: there are none yet.
    pub mounted: Option<Timestamp>,
}

/// What keeps a Pod from getting ready, and waiting does not cure.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trouble {
    /// When the Pod was made.
    pub pod_created: Timestamp,
    /// Such as `CrashLoopBackOff of container web in Pod web-1`.
    pub what: String,
}

/// A mirror that has a part in a Secret of the workload.
#[derive(Clone, Debug)]
pub struct MirrorState {
    pub name: String,
    pub in_flight: bool,
    pub failing_since: Option<Timestamp>,
}

/// What surrounds a workload.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The content of the keys in use.
    pub contents: &'a BTreeMap<SourceKey, Content>,
    /// None: nobody has looked yet.
    pub pods: Option<&'a Pods>,
    pub mirrors: &'a [MirrorState],
    pub policy: &'a Policy,
    /// Why the policy that the workload names can't be followed. Then `policy` is the cluster's default.
    pub obstacle: Option<&'a Hold>,
    pub others: &'a Others,
}

/// The decision.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Decision {
    /// The Pods have the content.
    Nothing,
    /// That depends on the Pods: look at them.
    Look,
    /// The Pods have the content, but that is not written down yet.
    Record(Baseline),
    /// Not now.
    Wait(Wait),
    /// Not until somebody does something.
    Hold(Hold),
    Rotate(Rotation),
}

/// A workload is to be rolled.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rotation {
    pub baseline: Baseline,
    pub changed: Vec<SourceKey>,
    /// Mirrors that were not waited for.
    pub failing: Vec<String>,
    pub cause: Cause,
}

/// Why now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// The content changed, and nothing was in the way.
    Content,
    /// No window is open, but the deadline has passed.
    Deadline,
    /// No window is open, but the content of the Pods is about to expire.
    Expiry,
}

/// What a rotation waits for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wait {
    /// When to look again.
    pub until: Timestamp,
    pub reason: Reason,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reason {
    Settling,
    MinInterval,
    MirrorBusy,
    Paused,
    Rolling,
    Window,
    /// Another one's rollout to the same content takes long, and is looked at.
    Examination {
        workload: WorkloadId,
    },
    Canary {
        workload: String,
    },
    MaxConcurrent,
}

/// What holds a rotation.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Hold {
    #[error(
        "there is no RotationPolicy {name} in this namespace; create it, or correct the annotation keytide.dev/rotation-policy"
    )]
    NoPolicy { name: String },
    #[error("RotationPolicy {name} can't be followed: {error}")]
    BadPolicy { name: String, error: String },
    #[error(
        "the rollout of {} to the same content has failed ({}); mend it, or have its failure accepted by its annotation keytide.dev/accept-failure={}",
        .0.workload, .0.why, .0.rotated
    )]
    Failed(Failed),
}

impl Reason {
    /// All that [`Self::name`] gives.
    pub const NAMES: [&'static str; 9] = [
        "settling",
        "min_interval",
        "mirror_busy",
        "paused",
        "rolling",
        "window",
        "examination",
        "canary",
        "max_concurrent",
    ];

    /// A word for metrics and for telling one from the other.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Settling => "settling",
            Self::MinInterval => "min_interval",
            Self::MirrorBusy => "mirror_busy",
            Self::Paused => "paused",
            Self::Rolling => "rolling",
            Self::Window => "window",
            Self::Examination { .. } => "examination",
            Self::Canary { .. } => "canary",
            Self::MaxConcurrent => "max_concurrent",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settling => f.write_str("content may still change"),
            Self::MinInterval => f.write_str("it was rotated a short while ago"),
            Self::MirrorBusy => f.write_str("a mirror of its Secrets is busy, or began to fail"),
            Self::Paused => f.write_str("it is paused"),
            Self::Rolling => f.write_str("its latest rollout is under way"),
            Self::Window => f.write_str("no window of its policy is open"),
            Self::Examination { workload } => {
                write!(f, "the rollout of {workload} takes long, and is looked at")
            }
            Self::Canary { workload } => {
                write!(f, "{workload} goes first, as a canary")
            }
            Self::MaxConcurrent => {
                f.write_str("as many rollouts as are allowed at once are under way")
            }
        }
    }
}

impl Hold {
    /// All that [`Self::name`] gives.
    pub const NAMES: [&'static str; 3] = ["no_policy", "bad_policy", "failed"];

    /// A word for telling one from the other.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoPolicy { .. } => "no_policy",
            Self::BadPolicy { .. } => "bad_policy",
            Self::Failed(_) => "failed",
        }
    }
}

impl Cause {
    /// A word for metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Deadline => "deadline",
            Self::Expiry => "expiry",
        }
    }
}

impl Pods {
    /// What is wrong with those that were made since.
    pub fn trouble_since(&self, since: Timestamp) -> Option<&str> {
        // Times of creation are cut to the second.
        let mut troubles = self.troubles.iter();
        troubles
            .find(|trouble| trouble.pod_created.as_second() >= since.as_second())
            .map(|trouble| trouble.what.as_str())
    }
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

/// The keys whose content is not what the baseline says, or went away and came back since. Only for these do Pods matter.
pub fn suspects<'a>(
    workload: &Subject,
    contents: &'a BTreeMap<SourceKey, Content>,
) -> BTreeMap<&'a SourceKey, &'a Content> {
    contents
        .iter()
        .filter(|(key, content)| {
            let known = baseline_digest(workload, key, content);
            known != Some(&content.record.digest) || came_back(workload, content)
        })
        .collect()
}

/// Decides.
pub fn decide(workload: &Subject, around: &Surroundings<'_>, now: Timestamp) -> Decision {
    let suspects = suspects(workload, around.contents);
    let mut affected = suspects.iter().filter(|(key, _)| {
        self::affected(workload, key, around.contents)
            .next()
            .is_some()
    });
    if affected.next().is_none() {
        return unchanged(workload, around.contents, !suspects.is_empty());
    }
    let last_change = around.contents.values().map(|it| it.record.changed).max();
    let last_change = last_change.unwrap_or(now);
    let settled = later(last_change, around.policy.settle.max(PROPAGATION));
    if settled > now {
        return wait(settled, Reason::Settling);
    }
    let Some(pods) = around.pods else {
        return Decision::Look;
    };
    let stale: Vec<&SourceKey> = suspects
        .iter()
        .filter(|(key, content)| has_stale_container(workload, key, content, around, pods))
        .map(|(key, _)| *key)
        .collect();
    if stale.is_empty() {
        return if now < later(last_change, UNREPORTED) && may_have_started(workload, around, pods) {
            wait(later(now, SOON), Reason::Settling)
        } else {
            unchanged(workload, around.contents, true)
        };
    }
    rotate(workload, around, pods, &stale, now)
}

/// The Pods have the content.
fn unchanged(
    workload: &Subject,
    contents: &BTreeMap<SourceKey, Content>,
    pods_were_seen: bool,
) -> Decision {
    let baseline = baseline_of(workload, contents);
    match &workload.baseline {
        Some(before) if !pods_were_seen && before.says_the_same(&baseline) => Decision::Nothing,
        None if contents.is_empty() => Decision::Nothing,
        _ => Decision::Record(baseline),
    }
}

/// It must be rolled: now, later, or when somebody has done something.
fn rotate(
    workload: &Subject,
    around: &Surroundings<'_>,
    pods: &Pods,
    stale: &[&SourceKey],
    now: Timestamp,
) -> Decision {
    if let Some(hold) = around.obstacle {
        return Decision::Hold(hold.clone());
    }
    if let Some(wait) = own_wait(workload, around, pods, now) {
        return Decision::Wait(wait);
    }
    let cause = match opening(workload, around, stale, now) {
        Ok(cause) => cause,
        Err(until) => return wait(until, Reason::Window),
    };
    match gate(around.policy, around.others, now) {
        Some(Ok(wait)) => return Decision::Wait(wait),
        Some(Err(hold)) => return Decision::Hold(hold),
        None => {}
    }
    let before = workload.baseline.as_ref();
    let is_failing = workload.rollout == Rollout::Failed || !pods.troubles.is_empty();
    // Its failure says nothing of the content, unless it was Keytide's doing.
    let failing =
        is_failing && before.is_none_or(|before| before.rotated.is_none() || before.failing);
    let mirrors = around.mirrors.iter();
    let next = baseline_of(workload, around.contents);
    let unfinished = before.and_then(|before| before.trial.as_ref());
    // What was failing without new content says nothing of it.
    let tells = !is_failing || unfinished.is_some_and(|trial| trial.goes_on(workload));
    let is_on_trial = tells && around.policy.on_failure == OnFailure::Revert;
    let trial = is_on_trial.then(|| Trial::begin(workload, stale, &next));
    Decision::Rotate(Rotation {
        baseline: Baseline {
            rotated: Some(now),
            failing,
            trial: trial.flatten(),
            ..next
        },
        changed: stale.iter().map(|key| (*key).clone()).collect(),
        failing: mirrors
            .filter(|mirror| mirror.failing_since.is_some())
            .map(|mirror| mirror.name.clone())
            .collect(),
        cause,
    })
}

/// What a workload waits for by itself.
fn own_wait(
    workload: &Subject,
    around: &Surroundings<'_>,
    pods: &Pods,
    now: Timestamp,
) -> Option<Wait> {
    if workload.paused {
        let until = later(now, PATIENCE);
        let reason = Reason::Paused;
        return Some(Wait { until, reason });
    }
    let last_change = around.contents.values().map(|it| it.record.changed).max();
    let rotated = workload.baseline.as_ref().and_then(|it| it.rotated);
    // Newer content is the cure of a rotation that goes wrong.
    let is_stuck = rotated.is_some_and(|rotated| pods.trouble_since(rotated).is_some());
    let rolling = match workload.rollout {
        Rollout::Finished | Rollout::Failed | Rollout::OnDelete => None,
        _ if is_stuck => None,
        // Its end is a change of the workload, which is looked at then.
        Rollout::UnderWay => Some(later(now, PATIENCE)),
        Rollout::UnderWayForEver => last_change.map(|changed| later(changed, ROLLOUT_DEADLINE)),
    };
    let allowed = rotated.map(|rotated| later(rotated, around.policy.min_interval));
    let mut mirrors = around.mirrors.iter();
    let busy = mirrors.any(|mirror| {
        // Looked at again often: it may recover, and the rotation should not wait out the minute then.
        let since = mirror.failing_since;
        mirror.in_flight || since.is_some_and(|since| now < later(since, PATIENCE))
    });
    [
        (rolling, Reason::Rolling),
        (allowed, Reason::MinInterval),
        (busy.then(|| later(now, SOON)), Reason::MirrorBusy),
    ]
    .into_iter()
    .filter_map(|(until, reason)| {
        Some(Wait {
            until: until?,
            reason,
        })
    })
    .find(|wait| wait.until > now)
}

/// Why the workload may be rolled now as far as windows go, or when it may.
fn opening(
    workload: &Subject,
    around: &Surroundings<'_>,
    stale: &[&SourceKey],
    now: Timestamp,
) -> Result<Cause, Timestamp> {
    let policy = around.policy;
    if window::is_open(&policy.windows, now) {
        return Ok(Cause::Content);
    }
    let changed = stale.iter().filter_map(|key| around.contents.get(*key));
    let changed = changed.map(|content| content.record.changed).min();
    let deadline = policy
        .deadline
        .zip(changed)
        .map(|(deadline, changed)| later(changed, deadline));
    let expiries = workload.baseline.iter().flat_map(|baseline| {
        let expiries = stale.iter().filter_map(|key| baseline.expires.get(*key));
        expiries.copied()
    });
    let expiry = expiries
        .min()
        .map(|expires| later(expires, -policy.before_expiry));
    let passed = |time: Option<Timestamp>| time.is_some_and(|time| time <= now);
    if passed(expiry) {
        return Ok(Cause::Expiry);
    }
    if passed(deadline) {
        return Ok(Cause::Deadline);
    }
    let opens = window::next_opening(&policy.windows, now);
    let next = [opens, deadline, expiry].into_iter().flatten().min();
    Err(next.unwrap_or(Timestamp::MAX))
}

/// Whether a container that uses the key may have older content.
fn has_stale_container(
    workload: &Subject,
    key: &SourceKey,
    content: &Content,
    around: &Surroundings<'_>,
    pods: &Pods,
) -> bool {
    let until = later(content.record.changed, MARGIN);
    // What went away and came back is missed only by what started meanwhile.
    let known = baseline_digest(workload, key, content);
    let from = (known == Some(&content.record.digest))
        .then_some(content.record.unsettled_since)
        .flatten();
    affected(workload, key, around.contents).any(|reference| {
        pods.containers.iter().any(|container| {
            let since = content_since(reference, container);
            reference.is_of(&container.name)
                && since
                    .is_some_and(|since| since <= until && from.is_none_or(|from| since >= from))
        })
    })
}

/// Whether a container without a start may have started before the content came, and its Pod's status not say so yet.
fn may_have_started(workload: &Subject, around: &Surroundings<'_>, pods: &Pods) -> bool {
    let suspects = suspects(workload, around.contents);
    suspects.iter().any(|(key, content)| {
        let until = later(content.record.changed, MARGIN);
        affected(workload, key, around.contents).any(|reference| {
            pods.containers.iter().any(|container| {
                reference.is_of(&container.name)
                    && container.started.is_none()
                    && container.mounted.is_some_and(|mounted| mounted <= until)
            })
        })
    })
}

/// Of when the content is that a container has by a reference.
fn content_since(reference: &Reference, container: &Container) -> Option<Timestamp> {
    match reference.via {
        Via::Environment | Via::ImagePull | Via::Named => container.started,
        Via::Volume | Via::SubPath => container.mounted,
    }
}

/// The references by which a container can have older content of a key. Content that appears for the first time makes nothing stale,
/// since a container waits for what it requires. What started without an optional key lacks it, and so does what takes a whole
/// Secret that was there already.
fn affected<'a>(
    workload: &'a Subject,
    key: &'a SourceKey,
    contents: &BTreeMap<SourceKey, Content>,
) -> impl Iterator<Item = &'a Reference> {
    // Under another digest key nothing says that it is not the content that the baseline knows.
    let appeared = contents.get(key).is_some_and(|content| {
        content.record.first && baseline_digest(workload, key, content).is_none()
    });
    let was_there = appeared && was_there_before(key, contents);
    let lacks_it = move |reference: &Reference| {
        !appeared || reference.optional || (was_there && reference.key.is_none())
    };
    let references = workload.references.iter();
    references.filter(move |reference| uses(reference, key) && lacks_it(reference))
}

/// Whether a Secret had another key before this one came.
fn was_there_before(key: &SourceKey, contents: &BTreeMap<SourceKey, Content>) -> bool {
    let came = contents.get(key).map(|content| content.record.changed);
    let mut others = contents
        .iter()
        .filter(|(other, _)| other.source == key.source);
    others.any(|(_, other)| {
        let since = other.record.unsettled_since;
        Some(since.unwrap_or(other.record.changed)) < came
    })
}

fn baseline_digest<'a>(
    workload: &'a Subject,
    key: &SourceKey,
    content: &Content,
) -> Option<&'a String> {
    let baseline = workload
        .baseline
        .as_ref()
        .filter(|baseline| baseline.digest_key == content.digest_key)?;
    baseline.keys.get(key)
}

/// Whether the content was another one since the baseline was written.
fn came_back(workload: &Subject, content: &Content) -> bool {
    let as_of = workload.baseline.as_ref().and_then(|it| it.as_of);
    content.record.unsettled_since.is_some()
        && as_of.is_some_and(|as_of| content.record.changed > as_of)
}

/// The baseline of Pods that have these contents. A key in use whose Secret is gone stays as it was: when it comes back with
/// other content, that is a change.
fn baseline_of(workload: &Subject, contents: &BTreeMap<SourceKey, Content>) -> Baseline {
    let before = workload.baseline.clone().unwrap_or_default();
    let digest_key = contents
        .values()
        .next()
        .map_or(before.digest_key.clone(), |content| {
            content.digest_key.clone()
        });
    let stays = |key: &SourceKey| {
        before.digest_key == digest_key && workload.references.iter().any(|r| uses(r, key))
    };
    let gone = before.keys.into_iter().filter(|(key, _)| stays(key));
    let there = contents
        .iter()
        .map(|(key, content)| (key.clone(), content.record.digest.clone()));
    let expires = contents
        .iter()
        .filter_map(|(key, content)| Some((key.clone(), content.record.expires?)));
    let changed = contents.values().map(|content| content.record.changed);
    let keys = gone.chain(there).collect();
    Baseline {
        expires: expires.collect(),
        as_of: changed.max().or(before.as_of),
        digest_key,
        rotated: before.rotated,
        failing: before.failing,
        trial: before
            .trial
            .filter(|trial| trial.goes_on(workload))
            .and_then(|trial| trial.without_given_back(&keys)),
        keys,
    }
}

fn uses(reference: &Reference, key: &SourceKey) -> bool {
    reference.source == key.source && reference.key.as_ref().is_none_or(|used| *used == key.key)
}

fn wait(until: Timestamp, reason: Reason) -> Decision {
    Decision::Wait(Wait { until, reason })
}

pub fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
