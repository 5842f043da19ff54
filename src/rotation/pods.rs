//! What a workload's Pods have: when their containers started, when their volumes were mounted, and what is wrong with them.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::decide::{Container, Pods, Trouble};
use super::workload::Workload;

/// How old the files of a volume may be that a kubelet keeps up to date: its period of a minute with its jitter of half that, and a
/// minute more where it doesn't watch Secrets but reads them again when its cache expires
/// (<https://kubernetes.io/docs/concepts/configuration/secret/#using-secrets-as-files-from-a-pod>).
const RENEWAL: SignedDuration = SignedDuration::from_secs(150);

/// Reasons of a container that waits for something that waiting does not bring
/// (<https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/images/types.go> and `kuberuntime/kuberuntime_container.go`).
const TROUBLES: [&str; 8] = [
    "CrashLoopBackOff",
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// Lists a workload's Pods. A kind without Pods to restart has none.
pub async fn look(client: &Client, workload: &Workload) -> Result<Pods, kube::Error> {
    let Some(selector) = &workload.selector else {
        return Ok(Pods::default());
    };
    let namespace = workload.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let pods = api.list(&ListParams::default().labels(selector)).await?;
    Ok(seen(&pods.items))
}

/// What there is of those that stay.
fn seen(pods: &[Pod]) -> Pods {
    let mut seen = Pods::default();
    for pod in pods {
        let Some(status) = &pod.status else { continue };
        let has_ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        if has_ended || pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let acknowledged = status.start_time.as_ref().map(|time| time.0);
        let init = status.init_container_statuses.iter().flatten();
        for container in init.chain(status.container_statuses.iter().flatten()) {
            seen.containers.push(container_of(container, acknowledged));
            seen.troubles.extend(trouble_of(pod, container));
        }
    }
    seen
}

/// Volumes are mounted when the kubelet has acknowledged the Pod, before images are pulled: a container may find files that are
/// much older than itself.
fn container_of(container: &ContainerStatus, acknowledged: Option<Timestamp>) -> Container {
    let state = container.state.as_ref();
    let running = state.and_then(|state| state.running.as_ref()?.started_at.as_ref());
    let done = state
        .and_then(|state| state.terminated.as_ref())
        .filter(|ended| ended.exit_code == 0)
        .and_then(|ended| ended.started_at.as_ref());
    let started = running.or(done).map(|time| time.0);
    let renewed = started.and_then(|started| started.checked_sub(RENEWAL).ok());
    Container {
        name: container.name.clone(),
        started,
        mounted: acknowledged.map(|time| renewed.map_or(time, |renewed| time.max(renewed))),
    }
}

fn trouble_of(pod: &Pod, container: &ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    TROUBLES.contains(&reason).then(|| Trouble {
        pod_created: pod
            .creation_timestamp()
            .map_or(Timestamp::MIN, |time| time.0),
        what: format!(
            "{reason} of container {} in Pod {}",
            container.name,
            pod.name_any()
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(time: &str) -> Option<Timestamp> {
        Some(format!("2026-01-01T{time}Z").parse().expect("a time"))
    }

    /// A Pod that was acknowledged at 10:00, with a container in this state.
    fn pod(phase: &str, state: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "creationTimestamp": "2026-01-01T09:59:59Z"},
            "status": {
                "phase": phase,
                "startTime": "2026-01-01T10:00:00Z",
                "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}],
            },
        }))
        .expect("a Pod")
    }

    #[test]
    fn volumes_are_mounted_before_a_container_starts_and_renewed_while_it_runs() {
        let running = |time: &str| json!({"running": {"startedAt": format!("2026-01-01T{time}Z")}});
        for (state, started, mounted) in [
            (running("10:02:00"), at("10:02:00"), at("10:00:00")),
            (running("11:00:00"), at("11:00:00"), at("10:57:30")),
            (
                json!({"waiting": {"reason": "ContainerCreating"}}),
                None,
                at("10:00:00"),
            ),
        ] {
            let pods = seen(&[pod("Running", state)]);
            let found = &pods.containers[0];
            assert_eq!((found.started, found.mounted), (started, mounted));
            assert!(pods.troubles.is_empty());
        }
    }

    #[test]
    fn a_pod_that_has_ended_has_nothing() {
        let ended = json!({"terminated": {"exitCode": 0, "startedAt": "2026-01-01T10:00:00Z"}});
        assert_eq!(seen(&[pod("Failed", ended.clone())]), Pods::default());
        // As an init container does.
        assert_eq!(
            seen(&[pod("Running", ended)]).containers[0].started,
            at("10:00:00")
        );
    }

    #[test]
    fn what_waiting_does_not_cure_is_trouble() {
        let waiting = |reason: &str| pod("Pending", json!({"waiting": {"reason": reason}}));
        for reason in TROUBLES {
            let pods = seen(&[waiting(reason)]);
            let since = at("09:59:59").expect("a time");
            assert!(
                pods.trouble_since(since)
                    .is_some_and(|what| what.contains(reason))
            );
            assert_eq!(pods.trouble_since(at("10:00:00").expect("a time")), None);
        }
        assert!(seen(&[waiting("PodInitializing")]).troubles.is_empty());
    }
}
