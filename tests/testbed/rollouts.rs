//! How far the rollout of a Deployment is, as its status tells.

use k8s_openapi::api::apps::v1::Deployment;

/// Whether all replicas are there, new and available, and no others.
pub fn is_rolled_out(deployment: &Deployment) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    // What is zero is left out.
    let is_wanted = |count: Option<i32>| count.or(Some(0)) == wanted;
    status.observed_generation == deployment.metadata.generation
        && is_wanted(status.updated_replicas)
        && is_wanted(status.available_replicas)
        && is_wanted(status.replicas)
}
