//! What becomes of a workload once the content that its Secrets are about to have has settled. Decides by the same function as the
//! controller, later by the clock.

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::decide::{Cause, Decision, Reason, Rotation, Wait};
use super::judge::Judge;
use super::memory::Memory;
use super::reference::SourceKey;
use super::rollout::Rollout;
use super::workload::{Workload, WorkloadKind};

/// Least step from one look ahead to the next.
const STEP: SignedDuration = SignedDuration::from_secs(10);
/// Most looks ahead. Content settles at most a few steps after its policy's settle time.
const LOOKS: usize = 10;

/// What becomes of a workload.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Outlook {
    pub restart: Restart,
    /// When it can be restarted, where time alone is waited for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    pub why: String,
}

/// Whether a workload is restarted.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Restart {
    /// As soon as the content has settled.
    Yes,
    Later,
    /// Not until somebody does something.
    Held,
    No,
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "yes",
            Self::Later => "later",
            Self::Held => "held",
            Self::No => "no",
        })
    }
}

impl Judge {
    /// What becomes of a workload given the targets as they are about to be, with these keys changed; none if it did not opt in. One
    /// that is restarted counts as under way for those that are asked for after it.
    ///
    /// # Errors
    ///
    /// Its Pods, or what it uses, can't be read.
    pub async fn outlook(
        &self,
        workload: &Workload,
        changed: &BTreeSet<SourceKey>,
    ) -> Result<Option<Outlook>, kube::Error> {
        let Some(case) = self.case_of(workload).await? else {
            return Ok(None);
        };
        let uses_changed = case.contents.keys().any(|key| changed.contains(key));
        let mut ahead = SignedDuration::ZERO;
        let mut looks = 0;
        loop {
            let (decision, now) = self
                .decision_in(ahead, &case, &mut Memory::default())
                .await?;
            looks += 1;
            match decision {
                Decision::Wait(Wait {
                    until,
                    reason: Reason::Settling,
                }) if looks < LOOKS => {
                    let more = until.duration_since(now).max(STEP);
                    ahead = ahead.saturating_add(more);
                }
                decision => return Ok(Some(Outlook::of(workload, &decision, uses_changed))),
            }
        }
    }
}

impl Outlook {
    fn of(workload: &Workload, decision: &Decision, uses_changed: bool) -> Self {
        let plain = |restart, why: &str| Self {
            restart,
            until: None,
            why: why.to_owned(),
        };
        match decision {
            Decision::Rotate(rotation) => Self {
                restart: Restart::Yes,
                until: None,
                why: because(workload, rotation),
            },
            Decision::Wait(wait) => Self {
                restart: Restart::Later,
                // Else it is only when to look again.
                until: matches!(wait.reason, Reason::Window | Reason::MinInterval)
                    .then_some(wait.until)
                    .filter(|until| *until < Timestamp::MAX),
                why: wait.reason.to_string(),
            },
            Decision::Hold(hold) => plain(Restart::Held, &hold.to_string()),
            Decision::Nothing | Decision::Record(_) | Decision::Look if !uses_changed => plain(
                Restart::No,
                "none of the keys that it uses gets other content",
            ),
            Decision::Nothing | Decision::Record(_) | Decision::Look => match workload.kind {
                WorkloadKind::CronJob => {
                    plain(Restart::No, "its next run starts with the new content")
                }
                _ => plain(Restart::No, "none of its containers has older content"),
            },
        }
    }
}

fn because(workload: &Workload, rotation: &Rotation) -> String {
    let keys = rotation.changed.iter();
    let keys = keys.map(|key| format!("{} of {} {}", key.key, key.source.kind, key.source.name));
    let keys: Vec<String> = keys.collect();
    let mut why = format!("its containers have older content of {}", keys.join(", "));
    why.push_str(match rotation.cause {
        Cause::Content => "",
        Cause::Deadline => {
            "; outside the windows of its policy, because the deadline will have passed"
        }
        Cause::Expiry => {
            "; outside the windows of its policy, because the version before is about to expire"
        }
    });
    if workload.rollout == Rollout::OnDelete {
        why.push_str("; its Pods get the new content when they are deleted (OnDelete)");
    }
    why
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::batch::v1::CronJob;

    use super::super::baseline::Baseline;
    use super::super::decide::Hold;
    use super::super::reference::Source;
    use super::*;

    fn deployment() -> Workload {
        Deployment::default().into()
    }

    fn rotation(cause: Cause) -> Decision {
        let key = SourceKey {
            source: Source::secret("db"),
            key: "password".into(),
        };
        Decision::Rotate(Rotation {
            baseline: Baseline::default(),
            changed: vec![key],
            failing: Vec::new(),
            cause,
        })
    }

    fn wait(reason: Reason) -> Decision {
        let until = Timestamp::from_second(100).expect("in range");
        Decision::Wait(Wait { until, reason })
    }

    #[test]
    fn a_restart_names_the_keys_that_are_its_cause() {
        let outlook = Outlook::of(&deployment(), &rotation(Cause::Content), true);
        assert_eq!(outlook.restart, Restart::Yes);
        assert!(
            outlook.why.ends_with("password of Secret db"),
            "{outlook:?}"
        );
        let mut on_delete = deployment();
        on_delete.rollout = Rollout::OnDelete;
        let outlook = Outlook::of(&on_delete, &rotation(Cause::Deadline), true);
        for word in ["deadline", "OnDelete"] {
            assert!(outlook.why.contains(word), "{outlook:?}");
        }
    }

    #[test]
    fn only_what_time_alone_ends_has_an_end() {
        for (reason, ends) in [
            (Reason::Window, true),
            (Reason::MinInterval, true),
            (Reason::Paused, false),
            (Reason::MaxConcurrent, false),
        ] {
            let outlook = Outlook::of(&deployment(), &wait(reason.clone()), true);
            assert_eq!(outlook.restart, Restart::Later);
            assert_eq!(outlook.until.is_some(), ends, "{reason:?}");
            assert_eq!(outlook.why, reason.to_string());
        }
    }

    #[test]
    fn what_is_held_says_what_to_do_and_what_is_not_restarted_says_why() {
        let name = "p".to_owned();
        let held = Outlook::of(
            &deployment(),
            &Decision::Hold(Hold::NoPolicy { name }),
            true,
        );
        assert_eq!(held.restart, Restart::Held);
        assert!(held.why.contains("create it"), "{held:?}");
        let job = CronJob::default().into();
        for (workload, uses_changed, why) in [
            (&deployment(), false, "none of the keys"),
            (&deployment(), true, "older content"),
            (&job, true, "next run"),
        ] {
            let outlook = Outlook::of(workload, &Decision::Nothing, uses_changed);
            assert_eq!(outlook.restart, Restart::No);
            assert!(outlook.why.contains(why), "{outlook:?}");
        }
    }

    #[test]
    fn json_has_only_what_there_is() {
        let json =
            serde_json::to_value(Outlook::of(&deployment(), &rotation(Cause::Content), true));
        let json = json.expect("JSON");
        assert_eq!(json["restart"], "yes");
        assert_eq!(json.get("until"), None);
    }
}
