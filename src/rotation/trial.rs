//! New content on trial: from its rotation until the end of the rollout, under a policy by which a failure has it taken back
//! (`onFailure: Revert`). A part of the baseline, so that every daemon knows it. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::baseline::Baseline;
use super::decide::Subject;
use super::reference::SourceKey;
use super::rollout::Rollout;
use crate::mirror::{AskedReverts, RevertRequest, TargetName};

/// Content on trial.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trial {
    /// Hash of what the Pod template had besides: a rollout of another one may fail for other reasons.
    pub template: u64,
    /// By key on trial, the digest of the content that Pods had before; none where that isn't known.
    pub before: BTreeMap<SourceKey, Option<String>>,
}

impl Trial {
    /// The trial that a rotation for these keys begins, which gives the workload the baseline `next`. What has not stood the trial before
    /// it is still on trial.
    pub fn begin(workload: &Subject, stale: &[&SourceKey], next: &Baseline) -> Option<Self> {
        let template = workload.template?;
        let last = workload.baseline.as_ref();
        // Digests under another key can't be compared.
        let last = last.filter(|last| last.digest_key == next.digest_key);
        let unfinished = last.and_then(|last| last.trial.as_ref());
        let unfinished = unfinished.filter(|trial| trial.template == template);
        let mut before = unfinished.map_or_else(BTreeMap::new, |trial| trial.before.clone());
        for key in stale {
            let had = || last.and_then(|last| last.keys.get(*key).cloned());
            before.entry((*key).clone()).or_insert_with(had);
        }
        Self { template, before }.without_given_back(&next.keys)
    }

    /// What is given back what it had, by these digests, has nothing to stand.
    pub fn without_given_back(mut self, keys: &BTreeMap<SourceKey, String>) -> Option<Self> {
        self.before.retain(|key, had| {
            let next = keys.get(key);
            next.is_some() && had.as_ref() != next
        });
        (!self.before.is_empty()).then_some(self)
    }

    /// Whether the rollout that it is for goes on, or has failed.
    pub fn goes_on(&self, workload: &Subject) -> bool {
        let has_ended = matches!(workload.rollout, Rollout::Finished | Rollout::OnDelete);
        workload.template == Some(self.template) && !has_ended
    }

    /// What is asked of the mirrors of its Secrets and ConfigMaps, where the rollout has failed. `baseline` is the one that it is a part of.
    pub fn reverts(&self, baseline: &Baseline, because: &str) -> AskedReverts {
        let revert = |(key, before): (&SourceKey, &Option<String>)| {
            let target = TargetName::new(key.source.kind.of_target()?, &key.source.name);
            let failed = baseline.keys.get(key)?.clone();
            let revert = RevertRequest {
                digest_key: baseline.digest_key.clone(),
                failed,
                before: before.clone(),
                because: because.to_owned(),
            };
            Some(((target, key.key.clone()), revert))
        };
        self.before.iter().filter_map(revert).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples::{at, token};
    use super::*;
    use crate::api::TargetKind;

    const TEMPLATE: u64 = 7;

    fn baseline(digest: &str, trial: Option<Trial>) -> Baseline {
        Baseline {
            digest_key: "k".into(),
            keys: BTreeMap::from([(token(), digest.into())]),
            rotated: Some(at(1)),
            trial,
            ..Baseline::default()
        }
    }

    fn workload(baseline: Baseline) -> Subject {
        Subject {
            baseline: Some(baseline),
            template: Some(TEMPLATE),
            rollout: Rollout::UnderWay,
            ..Subject::default()
        }
    }

    /// The trial that a rotation from `last` to this content begins.
    fn trial(last: Baseline, digest: &str) -> Option<Trial> {
        Trial::begin(&workload(last), &[&token()], &baseline(digest, None))
    }

    fn had(trial: Option<&Trial>) -> Option<&str> {
        trial?.before[&token()].as_deref()
    }

    #[test]
    fn what_pods_had_is_what_last_stood_its_trial() {
        let first = trial(baseline("a", None), "b");
        assert_eq!(had(first.as_ref()), Some("a"));
        let second = trial(baseline("b", first), "c");
        assert_eq!(had(second.as_ref()), Some("a"));
        // And so the way back is no trial.
        assert_eq!(trial(baseline("c", second), "a"), None);
    }

    #[test]
    fn what_is_given_back_without_a_rotation_is_no_trial_either() {
        let trial = trial(baseline("a", None), "b").expect("a trial");
        let with = |digest: &str| BTreeMap::from([(token(), digest.to_owned())]);
        assert_eq!(
            trial.clone().without_given_back(&with("b")),
            Some(trial.clone())
        );
        assert_eq!(trial.without_given_back(&with("a")), None);
    }

    #[test]
    fn what_pods_had_is_not_known_without_a_baseline_or_under_another_digest_key() {
        let mut last = baseline("a", None);
        last.digest_key = "another".into();
        let begun = trial(last, "b").expect("a trial");
        assert_eq!(begun.before[&token()], None);
        let mut new = workload(Baseline::default());
        new.baseline = None;
        let begun = Trial::begin(&new, &[&token()], &baseline("b", None)).expect("a trial");
        assert_eq!(begun.before[&token()], None);
    }

    #[test]
    fn a_trial_ends_with_its_rollout_and_when_the_template_becomes_another_one() {
        let trial = trial(baseline("a", None), "b").expect("a trial");
        let mut workload = workload(baseline("b", Some(trial.clone())));
        for (rollout, goes_on) in [
            (Rollout::UnderWay, true),
            (Rollout::UnderWayForEver, true),
            (Rollout::Failed, true),
            (Rollout::Finished, false),
            (Rollout::OnDelete, false),
        ] {
            workload.rollout = rollout;
            assert_eq!(trial.goes_on(&workload), goes_on, "{rollout:?}");
        }
        workload.rollout = Rollout::Failed;
        for template in [Some(TEMPLATE + 1), None] {
            workload.template = template;
            assert!(!trial.goes_on(&workload));
        }
        // Nor is what has failed with another template known to have failed by its content.
        let next = baseline("c", None);
        let begun = Trial::begin(&workload, &[&token()], &next);
        assert_eq!(begun, None);
        workload.template = Some(TEMPLATE + 1);
        let begun = Trial::begin(&workload, &[&token()], &next);
        assert_eq!(had(begun.as_ref()), Some("b"));
    }

    #[test]
    fn mirrors_are_asked_for_what_pods_had_in_place_of_what_failed() {
        let trial = trial(baseline("a", None), "b").expect("a trial");
        let reverts = trial.reverts(&baseline("b", None), "it failed");
        let revert = &reverts[&(
            TargetName::new(TargetKind::Secret, "adopat"),
            "token".to_owned(),
        )];
        assert_eq!(
            (&*revert.failed, revert.before.as_deref()),
            ("b", Some("a"))
        );
        assert_eq!((&*revert.digest_key, &*revert.because), ("k", "it failed"));
    }
}
