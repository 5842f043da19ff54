//! The RotationPolicies of the cluster: which one a workload is under, and what is said on each.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::decide::Hold;
use super::flight::PolicyName;
use super::policy::Policy;
use crate::api::condition::{READY, STALLED, Wanted, reason};
use crate::api::{RotationPolicy, RotationPolicyStatus};
use crate::clock::ServerClock;
use crate::daemon::Stop;
use crate::watch;

/// Pause after a status could not be written.
const ERROR_PAUSE: Duration = Duration::from_secs(2);

/// The policies.
pub struct Policies {
    pub client: Client,
    pub clock: ServerClock,
    pub store: Store<RotationPolicy>,
    /// The cluster's default.
    pub default: Policy,
}

impl Policies {
    /// The policy that a workload of a namespace is under. If that can't be followed, the cluster's default and why.
    pub fn of(&self, namespace: &str, name: &PolicyName) -> (Policy, Option<Hold>) {
        let Some(name) = name.clone() else {
            return (self.default.clone(), None);
        };
        let hold = match self.store.get(&watch::reference(namespace, &name)) {
            None => Hold::NoPolicy { name },
            Some(policy) => match self.default.with(&policy.spec) {
                Ok(policy) => return (policy, None),
                Err(error) => Hold::BadPolicy { name, error },
            },
        };
        (self.default.clone(), Some(hold))
    }

    async fn report(policy: Arc<RotationPolicy>, this: Arc<Self>) -> Result<Action, kube::Error> {
        if let Some(status) = status(&policy, &this.default, this.clock.now()) {
            let namespace = policy.namespace().unwrap_or_default();
            let api: Api<RotationPolicy> = Api::namespaced(this.client.clone(), &namespace);
            let patch = Patch::Merge(json!({"status": status}));
            api.patch_status(&policy.name_any(), &PatchParams::default(), &patch)
                .await?;
        }
        Ok(Action::await_change())
    }
}

/// Says on each policy that was touched whether it can be followed, until `stop`.
pub async fn report(
    policies: Arc<Policies>,
    touched: mpsc::UnboundedReceiver<ObjectRef<RotationPolicy>>,
    stop: Stop,
) {
    Controller::for_stream(futures::stream::pending(), policies.store.clone())
        .reconcile_on(touched)
        .graceful_shutdown_on(stop)
        .run(
            Policies::report,
            |policy, error, _| {
                tracing::warn!(%error, policy = policy.name_any(), "a policy's status can't be written; that is tried again");
                Action::requeue(ERROR_PAUSE)
            },
            policies,
        )
        .for_each(|_| std::future::ready(()))
        .await;
}

/// The status that a policy should have; none if it has it.
fn status(
    policy: &RotationPolicy,
    default: &Policy,
    now: Timestamp,
) -> Option<RotationPolicyStatus> {
    let before = policy.status.clone().unwrap_or_default();
    let parsed = default.with(&policy.spec);
    let (status, reason) = match parsed {
        Ok(_) => (true, reason::ACCEPTED),
        Err(_) => (false, reason::INVALID_SPEC),
    };
    let message = match parsed {
        Ok(_) => "workloads that name this policy are rolled by it".to_owned(),
        Err(error) => format!("{error}; until then workloads that name this policy are held"),
    };
    let wanted = |type_, status| Wanted {
        type_,
        status,
        reason,
        message: message.clone(),
    };
    let mut conditions = vec![wanted(READY, status)];
    if !status {
        conditions.push(wanted(STALLED, true));
    }
    let generation = policy.metadata.generation;
    let status = RotationPolicyStatus {
        observed_generation: generation,
        conditions: conditions
            .into_iter()
            .map(|condition| condition.after(&before.conditions, generation, now))
            .collect(),
    };
    (status != before).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_says_once_whether_it_can_be_followed() {
        let mut policy: RotationPolicy = serde_json::from_value(json!({
            "metadata": {"name": "p", "generation": 1},
            "spec": {"windows": [{"from": "22:00", "to": "04:00", "timeZone": "Mars/Olympus"}]},
        }))
        .expect("a policy");
        let (default, now) = (Policy::default(), Timestamp::UNIX_EPOCH);
        let bad = status(&policy, &default, now).expect("a status");
        assert_eq!(bad.conditions[0].reason, "InvalidSpec");
        assert_eq!(bad.conditions[1].type_, "Stalled");
        assert!(bad.conditions[0].message.contains("Mars/Olympus"));
        policy.status = Some(bad);
        assert_eq!(status(&policy, &default, now), None);
        policy.spec.windows = None;
        let good = status(&policy, &default, now).expect("a status");
        assert_eq!(good.conditions.len(), 1);
        assert_eq!(good.conditions[0].reason, "Accepted");
    }
}
