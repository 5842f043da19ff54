//! When the containers of a workload's Pods started.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use super::decide::Started;
use super::workload::Workload;

/// The containers of a workload's Pods that run, or ran to prepare one. A kind without Pods to restart has none.
pub async fn started(client: &Client, workload: &Workload) -> Result<Vec<Started>, kube::Error> {
    let Some(selector) = &workload.selector else {
        return Ok(Vec::new());
    };
    let namespace = workload.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let pods = api.list(&ListParams::default().labels(selector)).await?;
    Ok(pods.iter().flat_map(started_in).collect())
}

fn started_in(pod: &Pod) -> impl Iterator<Item = Started> {
    let stays = pod.metadata.deletion_timestamp.is_none();
    let statuses = pod.status.iter().filter(move |_| stays);
    statuses
        .flat_map(|status| {
            let ran = status.init_container_statuses.iter().flatten();
            ran.chain(status.container_statuses.iter().flatten())
        })
        .filter_map(started_of)
}

fn started_of(container: &ContainerStatus) -> Option<Started> {
    let state = container.state.as_ref()?;
    let running = state
        .running
        .as_ref()
        .and_then(|running| running.started_at.as_ref());
    let done = state
        .terminated
        .as_ref()
        .filter(|ended| ended.exit_code == 0)
        .and_then(|ended| ended.started_at.as_ref());
    Some(Started {
        container: container.name.clone(),
        at: running.or(done)?.0,
    })
}
