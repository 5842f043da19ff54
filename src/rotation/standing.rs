//! How a workload or a mirror stands, in the words that people are told. Pure.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::decide::Decision;
use super::rollout::Rollout;
use super::workload::Workload;

/// How something stands, until when and why.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Standing {
    pub state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has the content, or is being given it with its next run.
    Current,
    /// It will have the content later.
    Waiting,
    /// Its Pods are being replaced.
    Rolling,
    /// Somebody must do something.
    Held,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Current => "current",
            Self::Waiting => "waiting",
            Self::Rolling => "rolling",
            Self::Held => "held",
        })
    }
}

impl Standing {
    pub fn new(state: State, until: Option<Timestamp>, why: Option<String>) -> Self {
        Self { state, until, why }
    }

    /// How a workload stands that this was decided about.
    pub fn of(workload: &Workload, decision: &Decision) -> Self {
        let plain = |state, why: &str| Self::new(state, None, Some(why.to_owned()));
        match decision {
            Decision::Nothing | Decision::Record(_) => match workload.rollout {
                Rollout::Failed => plain(
                    State::Held,
                    "its latest rollout has failed; mend it, or give it other content",
                ),
                Rollout::UnderWay | Rollout::UnderWayForEver => {
                    Self::new(State::Rolling, None, None)
                }
                Rollout::OnDelete => plain(
                    State::Current,
                    "Pods get the content when they are deleted (OnDelete)",
                ),
                Rollout::Finished => Self::new(State::Current, None, None),
            },
            Decision::Look => plain(State::Waiting, "its Pods are being looked at"),
            Decision::Wait(wait) => Self::new(
                State::Waiting,
                Some(wait.until),
                Some(wait.reason.to_string()),
            ),
            Decision::Hold(hold) => Self::new(State::Held, None, Some(hold.to_string())),
            Decision::Rotate(_) => plain(State::Waiting, "it is about to be rolled"),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;

    use super::super::baseline::Baseline;
    use super::super::decide::{Hold, Reason, Wait};
    use super::*;

    fn standing(rollout: Rollout, decision: &Decision) -> Standing {
        let mut workload = Workload::from(Deployment::default());
        workload.rollout = rollout;
        Standing::of(&workload, decision)
    }

    #[test]
    fn what_has_its_content_stands_as_its_rollout_does() {
        for (rollout, state) in [
            (Rollout::Finished, State::Current),
            (Rollout::OnDelete, State::Current),
            (Rollout::UnderWay, State::Rolling),
            (Rollout::UnderWayForEver, State::Rolling),
            (Rollout::Failed, State::Held),
        ] {
            assert_eq!(standing(rollout, &Decision::Nothing).state, state);
            let record = Decision::Record(Baseline::default());
            assert_eq!(standing(rollout, &record).state, state);
        }
    }

    #[test]
    fn what_lacks_content_says_until_when_or_what_to_do() {
        let (until, reason) = (Timestamp::UNIX_EPOCH, Reason::Window);
        let waits = standing(Rollout::Finished, &Decision::Wait(Wait { until, reason }));
        assert_eq!((waits.state, waits.until), (State::Waiting, Some(until)));
        assert!(waits.why.is_some_and(|why| why.contains("window")));
        let name = "p".to_owned();
        let held = standing(Rollout::Finished, &Decision::Hold(Hold::NoPolicy { name }));
        assert_eq!((held.state, held.until), (State::Held, None));
        assert!(held.why.is_some_and(|why| why.contains("create it")));
    }
}
