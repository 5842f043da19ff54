//! What a RotationPolicy says, with the cluster's default put in where it says nothing. Pure.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::window::Window;
use crate::api::{Canary, OnFailure, RotationPolicySpec, SecretUse};

/// Annotation of a workload that names the policy that it is under.
pub const ROTATION_POLICY: &str = "keytide.dev/rotation-policy";

/// When workloads are rolled.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How long changes must have stopped coming.
    pub settle: SignedDuration,
    /// Least time between two rotations of a workload.
    pub min_interval: SignedDuration,
    /// None at all are always open.
    pub windows: Vec<Window>,
    /// How long after a change windows are no longer waited for.
    pub deadline: Option<SignedDuration>,
    /// How long before the old version expires windows are no longer waited for.
    pub before_expiry: SignedDuration,
    /// Most workloads under it whose rollouts are under way at once.
    pub max_concurrent: usize,
    pub canary: Option<Canaries>,
    pub on_failure: OnFailure,
    pub on: Uses,
}

/// The workloads that are rolled first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Canaries {
    pub labels: BTreeMap<String, String>,
    /// How long their rotation must be ago before the others follow.
    pub soak: SignedDuration,
}

/// The uses of a Secret that workloads are rolled for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Uses {
    pub env: bool,
    pub volume: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            settle: SignedDuration::from_secs(10),
            min_interval: SignedDuration::from_mins(1),
            windows: Vec::new(),
            deadline: None,
            before_expiry: SignedDuration::from_hours(1),
            max_concurrent: 10,
            canary: None,
            on_failure: OnFailure::Hold,
            on: Uses {
                env: true,
                volume: true,
            },
        }
    }
}

impl Policy {
    /// The policy of this spec; what it leaves out is as in `self`. The error is a sentence that names the field.
    pub fn with(&self, spec: &RotationPolicySpec) -> Result<Self, String> {
        let time = |name, text: &Option<String>, default| match text {
            Some(text) => duration(name, text),
            None => Ok(default),
        };
        let windows = match &spec.windows {
            Some(windows) => windows
                .iter()
                .enumerate()
                .map(|(i, window)| {
                    Window::parse(window).map_err(|error| format!("windows[{i}]: {error}"))
                })
                .collect::<Result<_, _>>()?,
            None => self.windows.clone(),
        };
        let max_concurrent =
            match spec.max_concurrent {
                Some(0) => return Err(
                    "maxConcurrent is 0, so that nothing would ever be rolled; write at least 1"
                        .to_owned(),
                ),
                Some(max) => usize::try_from(max).unwrap_or(usize::MAX),
                None => self.max_concurrent,
            };
        Ok(Self {
            settle: time("settle", &spec.settle, self.settle)?,
            min_interval: time("minInterval", &spec.min_interval, self.min_interval)?,
            windows,
            deadline: match &spec.deadline {
                Some(text) => Some(duration("deadline", text)?),
                None => self.deadline,
            },
            before_expiry: time("beforeExpiry", &spec.before_expiry, self.before_expiry)?,
            max_concurrent,
            canary: match &spec.canary {
                Some(canary) => Some(canaries(canary)?),
                None => self.canary.clone(),
            },
            on_failure: spec.on_failure.unwrap_or(self.on_failure),
            on: match &spec.on {
                Some(on) => uses(on)?,
                None => self.on,
            },
        })
    }
}

impl Canaries {
    /// Whether a workload with these labels is one.
    pub fn includes(&self, labels: &BTreeMap<String, String>) -> bool {
        let mut wanted = self.labels.iter();
        wanted.all(|(name, value)| labels.get(name) == Some(value))
    }
}

fn canaries(canary: &Canary) -> Result<Canaries, String> {
    if canary.match_labels.is_empty() {
        return Err("canary.matchLabels is empty, so that all workloads would be first; name the labels of those that shall be".to_owned());
    }
    Ok(Canaries {
        labels: canary.match_labels.clone(),
        soak: duration("canary.soak", &canary.soak)?,
    })
}

fn uses(on: &[SecretUse]) -> Result<Uses, String> {
    let uses = Uses {
        env: on.contains(&SecretUse::Env),
        volume: on.contains(&SecretUse::Volume),
    };
    if uses.env || uses.volume {
        Ok(uses)
    } else {
        Err(
            "on is empty, so that nothing would ever be rolled; write env, volume or both"
                .to_owned(),
        )
    }
}

fn duration(name: &str, text: &str) -> Result<SignedDuration, String> {
    text.parse()
        .ok()
        .filter(|duration: &SignedDuration| !duration.is_negative())
        .ok_or_else(|| format!("{name} is {text:?}; write a duration such as 10s, 1m or 1h30m"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policy(spec: Value) -> Result<Policy, String> {
        let spec: RotationPolicySpec = serde_json::from_value(spec).expect("a spec");
        Policy::default().with(&spec)
    }

    #[test]
    fn what_is_left_out_is_as_the_default_says() {
        assert_eq!(policy(json!({})), Ok(Policy::default()));
        let spec = json!({
            "settle": "1m30s", "deadline": "72h", "maxConcurrent": 3, "onFailure": "Continue", "on": ["env"],
            "canary": {"matchLabels": {"tier": "canary"}, "soak": "10m"},
            "windows": [{"days": ["Monday"], "from": "22:00", "to": "04:00", "timeZone": "Europe/Berlin"}],
        });
        let named = policy(spec).expect("a policy");
        assert_eq!(named.settle, SignedDuration::from_secs(90));
        assert_eq!(named.deadline, Some(SignedDuration::from_hours(72)));
        assert_eq!((named.max_concurrent, named.windows.len()), (3, 1));
        assert_eq!(named.on_failure, OnFailure::Continue);
        assert!(named.on.env && !named.on.volume);
        assert_eq!(named.min_interval, Policy::default().min_interval);
        let canaries = named.canary.clone().expect("canaries");
        let labels = |tier: &str| BTreeMap::from([("tier".to_owned(), tier.to_owned())]);
        assert!(canaries.includes(&labels("canary")) && !canaries.includes(&labels("web")));
        // No windows is something else than none said.
        let always: RotationPolicySpec =
            serde_json::from_value(json!({"windows": []})).expect("a spec");
        assert!(named.with(&always).expect("a policy").windows.is_empty());
        assert_eq!(named.with(&RotationPolicySpec::default()), Ok(named));
    }

    #[test]
    fn what_can_not_be_meant_is_said_by_the_name_of_its_field() {
        let zone = json!([{"from": "22:00", "to": "04:00", "timeZone": "Mars/Olympus"}]);
        for (spec, word) in [
            (json!({"settle": "soon"}), "settle"),
            (json!({"minInterval": "-1s"}), "minInterval"),
            (json!({"deadline": ""}), "deadline"),
            (json!({"beforeExpiry": "1 month"}), "beforeExpiry"),
            (json!({"maxConcurrent": 0}), "maxConcurrent"),
            (json!({"on": []}), "on is empty"),
            (json!({"canary": {"matchLabels": {}}}), "canary.matchLabels"),
            (
                json!({"canary": {"matchLabels": {"a": "b"}, "soak": "x"}}),
                "canary.soak",
            ),
            (json!({"windows": zone}), "windows[0]"),
        ] {
            let error = policy(spec).expect_err("an error");
            assert!(error.contains(word), "{error}");
        }
    }
}
