//! How far the rollout of a Deployment is, as `kubectl rollout status` reckons it. Pure.

use k8s_openapi::api::apps::v1::Deployment;

use super::decide::Rollout;

/// `progressDeadlineSeconds` of a Deployment that has none: the API server puts in 600 where it is left out.
const NO_DEADLINE: i32 = i32::MAX;

/// How far the rollout is. One past its progress deadline has failed: newer content may be its cure.
pub fn rollout(deployment: &Deployment) -> Rollout {
    let deadline = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.progress_deadline_seconds);
    match is_under_way(deployment) {
        false => Rollout::Over,
        true if deadline == Some(NO_DEADLINE) => Rollout::UnderWayForEver,
        true => Rollout::UnderWay,
    }
}

fn is_under_way(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else {
        return true;
    };
    if status.observed_generation < deployment.metadata.generation {
        return true;
    }
    let progressing = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "Progressing");
    if progressing
        .is_some_and(|condition| condition.reason.as_deref() == Some("ProgressDeadlineExceeded"))
    {
        return false;
    }
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let (all, updated) = (
        status.replicas.unwrap_or(0),
        status.updated_replicas.unwrap_or(0),
    );
    let available = status.available_replicas.unwrap_or(0);
    updated < wanted || all > updated || available < updated
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(status: serde_json::Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "d", "generation": 2},
            "spec": {"replicas": 3, "selector": {}, "template": {}},
            "status": status,
        }))
        .expect("a Deployment")
    }

    #[test]
    fn a_rollout_ends_when_all_replicas_are_new_and_available() {
        let done = json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3});
        assert_eq!(rollout(&deployment(done.clone())), Rollout::Over);
        for (field, value) in [
            ("observedGeneration", 1),
            ("replicas", 4),
            ("updatedReplicas", 2),
            ("availableReplicas", 2),
        ] {
            let mut status = done.clone();
            status[field] = json!(value);
            assert_eq!(rollout(&deployment(status)), Rollout::UnderWay, "{field}");
        }
    }

    #[test]
    fn a_rollout_past_its_deadline_is_over() {
        let condition =
            json!({"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"});
        let failed = json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 1, "conditions": [condition]});
        assert_eq!(rollout(&deployment(failed)), Rollout::Over);
    }

    #[test]
    fn a_rollout_without_a_deadline_is_known() {
        let mut deployment = deployment(json!({"observedGeneration": 1}));
        let spec = deployment.spec.as_mut().expect("a spec");
        spec.progress_deadline_seconds = Some(NO_DEADLINE);
        assert_eq!(rollout(&deployment), Rollout::UnderWayForEver);
    }
}
