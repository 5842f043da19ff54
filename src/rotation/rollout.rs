//! How far the latest rollout of a Deployment is. Pure.
//!
//! The Deployment controller says so by its condition `Progressing`
//! (<https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status>): a deadline is kept while the
//! rollout is under way, and no longer once it was complete. So replicas that are not available are a rollout under way only until
//! then; afterwards they are Pods that got unready, or that were added by scaling up.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};

use super::decide::Rollout;

/// `progressDeadlineSeconds` of a Deployment that has none: the API server puts in 600 where it is left out. It has no
/// condition `Progressing`.
const NO_DEADLINE: i32 = i32::MAX;

/// Says how far it is. One past its progress deadline has failed: newer content may be its cure.
pub fn rollout(deployment: &Deployment) -> Rollout {
    let spec = deployment.spec.as_ref();
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let deadline = spec.and_then(|spec| spec.progress_deadline_seconds);
    let seen = deployment
        .status
        .as_ref()
        .filter(|status| status.observed_generation >= deployment.metadata.generation);
    match seen {
        Some(status) if reason(status) == Some("ProgressDeadlineExceeded") => Rollout::Failed,
        Some(status) if is_finished(status, wanted) => Rollout::Finished,
        _ if deadline == Some(NO_DEADLINE) => Rollout::UnderWayForEver,
        _ => Rollout::UnderWay,
    }
}

fn reason(status: &DeploymentStatus) -> Option<&str> {
    let mut conditions = status.conditions.iter().flatten();
    conditions
        .find(|condition| condition.type_ == "Progressing")
        .and_then(|condition| condition.reason.as_deref())
}

/// Whether all replicas are new and available, or were it.
fn is_finished(status: &DeploymentStatus, wanted: i32) -> bool {
    let all = status.replicas.unwrap_or(0);
    let updated = status.updated_replicas.unwrap_or(0);
    let available = status.available_replicas.unwrap_or(0);
    let complete = updated >= wanted && all <= updated && available >= updated;
    // The reason outlives the beginning of a rollback, whose Pods are old ones at first, and of a recreation, when there are none.
    let was_complete =
        reason(status) == Some("NewReplicaSetAvailable") && all <= updated && updated > 0;
    complete || was_complete
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A Deployment of which three replicas are wanted.
    fn with(status: Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "d", "generation": 2},
            "spec": {"replicas": 3, "selector": {}, "template": {}, "progressDeadlineSeconds": 600},
            "status": status,
        }))
        .expect("a Deployment")
    }

    fn replicas(all: i32, updated: i32, available: i32, reason: &str) -> Deployment {
        with(json!({
            "observedGeneration": 2,
            "replicas": all,
            "updatedReplicas": updated,
            "availableReplicas": available,
            "conditions": [
                {"type": "Available", "status": "True", "reason": "MinimumReplicasAvailable"},
                {"type": "Progressing", "status": "True", "reason": reason},
            ],
        }))
    }

    #[test]
    fn a_rollout_is_finished_when_all_replicas_are_new_and_available() {
        let done = json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3});
        assert_eq!(rollout(&with(done.clone())), Rollout::Finished);
        for (field, value) in [
            ("observedGeneration", 1),
            ("replicas", 4),
            ("updatedReplicas", 2),
            ("availableReplicas", 2),
        ] {
            let mut status = done.clone();
            status[field] = json!(value);
            assert_eq!(rollout(&with(status)), Rollout::UnderWay, "{field}");
        }
    }

    #[test]
    fn until_it_was_complete_a_rollout_is_under_way_however_it_goes() {
        for reason in [
            "NewReplicaSetCreated",
            "FoundNewReplicaSet",
            "ReplicaSetUpdated",
            "DeploymentResumed",
        ] {
            assert_eq!(rollout(&replicas(3, 3, 2, reason)), Rollout::UnderWay);
        }
    }

    #[test]
    fn pods_that_get_unready_after_a_rollout_are_none() {
        for available in [0, 2] {
            let unready = replicas(3, 3, available, "NewReplicaSetAvailable");
            assert_eq!(rollout(&unready), Rollout::Finished, "{available}");
        }
    }

    #[test]
    fn scaling_after_a_rollout_is_none() {
        for (all, updated, available) in [(1, 1, 1), (2, 2, 1), (5, 5, 5)] {
            let scaled = replicas(all, updated, available, "NewReplicaSetAvailable");
            assert_eq!(rollout(&scaled), Rollout::Finished, "{all}");
        }
    }

    #[test]
    fn a_rollback_and_a_recreation_begin_under_the_reason_of_the_rollout_before() {
        for (all, updated) in [(3, 0), (4, 1), (0, 0)] {
            let begun = replicas(all, updated, 0, "NewReplicaSetAvailable");
            assert_eq!(rollout(&begun), Rollout::UnderWay, "{all}, {updated}");
        }
    }

    #[test]
    fn a_rollout_past_its_deadline_has_failed_also_if_it_was_the_first() {
        for (all, updated) in [(4, 1), (3, 3)] {
            let stuck = replicas(all, updated, 0, "ProgressDeadlineExceeded");
            assert_eq!(rollout(&stuck), Rollout::Failed);
        }
    }

    #[test]
    fn a_rollout_without_a_deadline_is_known() {
        let mut deployment = with(json!({"observedGeneration": 1}));
        let spec = deployment.spec.as_mut().expect("a spec");
        spec.progress_deadline_seconds = Some(NO_DEADLINE);
        assert_eq!(rollout(&deployment), Rollout::UnderWayForEver);
    }
}
