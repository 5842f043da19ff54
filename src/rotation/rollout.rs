//! How far the latest rollout of a workload is, as `kubectl rollout status` judges it for each kind
//! (<https://github.com/kubernetes/kubectl/blob/master/pkg/polymorphichelpers/rollout_status.go>). Pure.
//!
//! Of a Deployment the condition `Progressing` says more
//! (<https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status>): a deadline is kept while the
//! rollout is under way, and no longer once it was complete. So replicas that are not available are a rollout under way only until
//! then; afterwards they are Pods that got unready, or that were added by scaling up. StatefulSets and DaemonSets have neither
//! condition nor deadline.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, DeploymentStatus, StatefulSet};
use kube::core::ObjectMeta;
use serde_json::Value;

/// `progressDeadlineSeconds` of a Deployment that has none: the API server puts in 600 where it is left out. It has no
/// condition `Progressing`.
const NO_DEADLINE: i32 = i32::MAX;
/// The update strategy by which Pods are replaced when somebody deletes them.
const ON_DELETE: &str = "OnDelete";

/// How far the latest rollout of a workload is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Rollout {
    /// All its Pods were new and available; they need not be available still.
    #[default]
    Finished,
    Failed,
    UnderWay,
    /// It never fails, since it has no deadline.
    UnderWayForEver,
    /// Pods are replaced when somebody deletes them: it ends when somebody wants it to, and nothing waits for it.
    OnDelete,
}

/// Says how far that of a Deployment is. One past its progress deadline has failed: newer content may be its cure.
pub fn of_deployment(deployment: &Deployment) -> Rollout {
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
        Some(status) if can_make_no_pods(status) => Rollout::UnderWayForEver,
        _ if deadline == Some(NO_DEADLINE) => Rollout::UnderWayForEver,
        _ => Rollout::UnderWay,
    }
}

/// Whether no Pod is there of those that are wanted after a rollout that was complete. Where none can be made, by a quota or a webhook,
/// Kubernetes keeps no deadline.
fn can_make_no_pods(status: &DeploymentStatus) -> bool {
    let is_none = |count: Option<i32>| count.unwrap_or(0) == 0;
    let nothing = is_none(status.replicas) && is_none(status.updated_replicas);
    nothing && reason(status) == Some("NewReplicaSetAvailable")
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

/// Says how far that of a StatefulSet is. With a partition, it ends there.
pub fn of_stateful_set(set: &StatefulSet) -> Rollout {
    let spec = set.spec.as_ref();
    let strategy = spec.and_then(|spec| spec.update_strategy.as_ref());
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some(ON_DELETE) {
        return Rollout::OnDelete;
    }
    let partition = strategy
        .and_then(|strategy| strategy.rolling_update.as_ref()?.partition)
        .unwrap_or(0);
    let wanted = spec.and_then(|spec| spec.replicas).unwrap_or(1);
    let status = set.status.as_ref();
    let seen = status.filter(|status| status.observed_generation >= set.metadata.generation);
    let finished = seen.is_some_and(|status| {
        let all_ready = status.ready_replicas.unwrap_or(0) >= wanted;
        all_ready
            && if partition > 0 {
                status.updated_replicas.unwrap_or(0) >= wanted - partition
            } else {
                status.update_revision == status.current_revision
            }
    });
    under_way_unless(finished)
}

/// Says how far that of a DaemonSet is.
pub fn of_daemon_set(set: &DaemonSet) -> Rollout {
    let strategy = set
        .spec
        .as_ref()
        .and_then(|spec| spec.update_strategy.as_ref());
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some(ON_DELETE) {
        return Rollout::OnDelete;
    }
    let status = set.status.as_ref();
    let seen = status.filter(|status| status.observed_generation >= set.metadata.generation);
    let finished = seen.is_some_and(|status| {
        let wanted = status.desired_number_scheduled;
        status.updated_number_scheduled.unwrap_or(0) >= wanted
            && status.number_available.unwrap_or(0) >= wanted
    });
    under_way_unless(finished)
}

/// Says how far that of a Rollout of Argo is, by its phase
/// (<https://github.com/argoproj/argo-rollouts/blob/master/utils/rollout/rolloututil.go>). `Degraded` is past its deadline, or aborted.
pub fn of_argo(metadata: &ObjectMeta, rollout: &Value) -> Rollout {
    let text = |path: &str| rollout.pointer(path).and_then(Value::as_str);
    // Text, and in old versions a hash, which says nothing.
    let observed = text("/status/observedGeneration").and_then(|text| text.parse::<i64>().ok());
    let seen = metadata
        .generation
        .zip(observed)
        .is_none_or(|(generation, observed)| observed >= generation);
    match text("/status/phase") {
        Some("Healthy") if seen => Rollout::Finished,
        Some("Degraded") if seen => Rollout::Failed,
        _ => Rollout::UnderWay,
    }
}

fn under_way_unless(finished: bool) -> Rollout {
    if finished {
        Rollout::Finished
    } else {
        Rollout::UnderWayForEver
    }
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
        assert_eq!(of_deployment(&with(done.clone())), Rollout::Finished);
        for (field, value) in [
            ("observedGeneration", 1),
            ("replicas", 4),
            ("updatedReplicas", 2),
            ("availableReplicas", 2),
        ] {
            let mut status = done.clone();
            status[field] = json!(value);
            assert_eq!(of_deployment(&with(status)), Rollout::UnderWay, "{field}");
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
            assert_eq!(of_deployment(&replicas(3, 3, 2, reason)), Rollout::UnderWay);
        }
    }

    #[test]
    fn pods_that_get_unready_after_a_rollout_are_none() {
        for available in [0, 2] {
            let unready = replicas(3, 3, available, "NewReplicaSetAvailable");
            assert_eq!(of_deployment(&unready), Rollout::Finished, "{available}");
        }
    }

    #[test]
    fn scaling_after_a_rollout_is_none() {
        for (all, updated, available) in [(1, 1, 1), (2, 2, 1), (5, 5, 5)] {
            let scaled = replicas(all, updated, available, "NewReplicaSetAvailable");
            assert_eq!(of_deployment(&scaled), Rollout::Finished, "{all}");
        }
    }

    #[test]
    fn a_rollback_and_a_recreation_begin_under_the_reason_of_the_rollout_before() {
        for (all, updated) in [(3, 0), (4, 1)] {
            let begun = replicas(all, updated, 0, "NewReplicaSetAvailable");
            assert_eq!(of_deployment(&begun), Rollout::UnderWay, "{all}, {updated}");
        }
        // It may also be that none can be made, of which nobody keeps a deadline.
        let none = replicas(0, 0, 0, "NewReplicaSetAvailable");
        assert_eq!(of_deployment(&none), Rollout::UnderWayForEver);
    }

    #[test]
    fn a_rollout_past_its_deadline_has_failed_also_if_it_was_the_first() {
        for (all, updated) in [(4, 1), (3, 3)] {
            let stuck = replicas(all, updated, 0, "ProgressDeadlineExceeded");
            assert_eq!(of_deployment(&stuck), Rollout::Failed);
        }
    }

    #[test]
    fn a_rollout_without_a_deadline_is_known() {
        let mut deployment = with(json!({"observedGeneration": 1}));
        let spec = deployment.spec.as_mut().expect("a spec");
        spec.progress_deadline_seconds = Some(NO_DEADLINE);
        assert_eq!(of_deployment(&deployment), Rollout::UnderWayForEver);
    }

    fn stateful_set(strategy: Value, status: Value) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "s", "generation": 2},
            "spec": {"replicas": 3, "serviceName": "s", "selector": {}, "template": {}, "updateStrategy": strategy},
            "status": status,
        }))
        .expect("a StatefulSet")
    }

    #[test]
    fn a_stateful_set_is_rolled_out_when_all_are_ready_at_the_new_revision() {
        let rolling = json!({"type": "RollingUpdate"});
        let done = json!({"observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "updateRevision": "b", "currentRevision": "b"});
        let set = stateful_set(rolling.clone(), done.clone());
        assert_eq!(of_stateful_set(&set), Rollout::Finished);
        for (field, value) in [
            ("observedGeneration", json!(1)),
            ("readyReplicas", json!(2)),
            ("currentRevision", json!("a")),
        ] {
            let mut status = done.clone();
            status[field] = value;
            let set = stateful_set(rolling.clone(), status);
            assert_eq!(of_stateful_set(&set), Rollout::UnderWayForEver, "{field}");
        }
    }

    #[test]
    fn a_partitioned_stateful_set_is_rolled_out_down_to_its_partition() {
        let partitioned = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
        for (updated, expected) in [(1, Rollout::Finished), (0, Rollout::UnderWayForEver)] {
            let status = json!({
                "observedGeneration": 2, "replicas": 3, "readyReplicas": 3, "updatedReplicas": updated,
                "updateRevision": "b", "currentRevision": "a",
            });
            let set = stateful_set(partitioned.clone(), status);
            assert_eq!(of_stateful_set(&set), expected, "{updated}");
        }
    }

    #[test]
    fn nobody_waits_for_pods_that_somebody_is_to_delete() {
        let on_delete = json!({"type": "OnDelete"});
        let set = stateful_set(on_delete.clone(), json!({"replicas": 3}));
        assert_eq!(of_stateful_set(&set), Rollout::OnDelete);
        let mut set = daemon_set(
            json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 2, "numberMisscheduled": 0, "numberReady": 0}),
        );
        let strategy = serde_json::from_value(on_delete).expect("a strategy");
        set.spec.as_mut().expect("a spec").update_strategy = Some(strategy);
        assert_eq!(of_daemon_set(&set), Rollout::OnDelete);
    }

    fn daemon_set(status: Value) -> DaemonSet {
        serde_json::from_value(json!({
            "metadata": {"name": "s", "generation": 2},
            "spec": {"selector": {}, "template": {}, "updateStrategy": {"type": "RollingUpdate"}},
            "status": status,
        }))
        .expect("a DaemonSet")
    }

    #[test]
    fn a_daemon_set_is_rolled_out_when_every_node_has_an_available_new_pod() {
        let done = json!({
            "observedGeneration": 2, "currentNumberScheduled": 2, "desiredNumberScheduled": 2, "numberMisscheduled": 0,
            "numberReady": 2, "numberAvailable": 2, "updatedNumberScheduled": 2,
        });
        assert_eq!(of_daemon_set(&daemon_set(done.clone())), Rollout::Finished);
        for field in [
            "observedGeneration",
            "numberAvailable",
            "updatedNumberScheduled",
        ] {
            let mut status = done.clone();
            status[field] = json!(1);
            let set = daemon_set(status);
            assert_eq!(of_daemon_set(&set), Rollout::UnderWayForEver, "{field}");
        }
    }

    #[test]
    fn a_rollout_of_argo_is_as_far_as_its_phase_says() {
        let metadata = ObjectMeta {
            generation: Some(2),
            ..Default::default()
        };
        for (phase, observed, expected) in [
            ("Healthy", "2", Rollout::Finished),
            ("Healthy", "1", Rollout::UnderWay),
            ("Healthy", "7f9c8b6d5d", Rollout::Finished),
            ("Degraded", "2", Rollout::Failed),
            ("Progressing", "2", Rollout::UnderWay),
            ("Paused", "2", Rollout::UnderWay),
        ] {
            let rollout = json!({"status": {"phase": phase, "observedGeneration": observed}});
            assert_eq!(of_argo(&metadata, &rollout), expected, "{phase} {observed}");
        }
        assert_eq!(of_argo(&metadata, &json!({})), Rollout::UnderWay);
    }
}
