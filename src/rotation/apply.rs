//! Writes what was decided on a workload: by merge patch, on the version that was looked at and on no other.

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::baseline::{BASELINE, Baseline, CONTENT_DIGEST};
use super::workload::Workload;
use crate::digest::{DigestKey, Place};

/// Writes down what its Pods have.
pub async fn record(
    client: &Client,
    workload: &Workload,
    baseline: &Baseline,
) -> Result<(), kube::Error> {
    patch(client, workload, recorded(baseline)).await
}

/// Makes its Pod template another one, and writes down what the new Pods are being given.
pub async fn rotate(
    client: &Client,
    workload: &Workload,
    baseline: &Baseline,
    key: &DigestKey,
) -> Result<(), kube::Error> {
    let place = Place {
        namespace: &workload.namespace().unwrap_or_default(),
        kind: workload.kind.name(),
        target: &workload.name_any(),
        key: CONTENT_DIGEST,
    };
    // With the time of the rotation: after a rollback the template may still have the digest of this very content.
    let digest = key.content(place, json!(baseline).to_string().as_bytes());
    let mut rotated = recorded(baseline);
    rotated["spec"]["template"]["metadata"]["annotations"][CONTENT_DIGEST] = json!(digest);
    patch(client, workload, rotated).await
}

fn recorded(baseline: &Baseline) -> Value {
    json!({"metadata": {"annotations": {BASELINE: json!(baseline).to_string()}}})
}

async fn patch(client: &Client, workload: &Workload, patch: Value) -> Result<(), kube::Error> {
    let patch = decided_on(workload, patch);
    let api: Api<DynamicObject> = Api::namespaced_with(
        client.clone(),
        &workload.namespace().unwrap_or_default(),
        &workload.kind.api_resource(),
    );
    let params = PatchParams {
        field_manager: Some("keytide".to_owned()),
        ..Default::default()
    };
    api.patch_metadata(&workload.name_any(), &params, &Patch::Merge(&patch))
        .await
        .map(drop)
}

/// A patch of what was looked at, and of nothing else: the API server refuses it (409) on any other version.
fn decided_on(workload: &Workload, mut patch: Value) -> Value {
    let metadata = &workload.metadata;
    patch["metadata"]["uid"] = json!(metadata.uid);
    patch["metadata"]["resourceVersion"] = json!(metadata.resource_version);
    patch
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;

    use super::*;

    #[test]
    fn a_patch_carries_what_it_was_decided_on() {
        let mut deployment = Deployment::default();
        deployment.metadata.uid = Some("u".to_owned());
        deployment.metadata.resource_version = Some("7".to_owned());
        let patch = decided_on(&deployment.into(), recorded(&Baseline::default()));
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["metadata"]["uid"], "u");
        assert!(patch["metadata"]["annotations"][BASELINE].is_string());
    }
}
