//! What others do to a workload while it is to be rolled, or is being rolled.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fixture::{Fixture, SOON, revision};
use crate::policies::{change, installed, under};
use crate::testbed::eventually;

/// Keeps what was deleted, as something that has to clean up first.
const FINALIZER: &str = "example.com/kept";

/// Writes of the scale, from before the content has settled until after the rotation has begun. An autoscaler looks every 15 s.
const SCALES: usize = 40;
const SCALE_PAUSE: Duration = Duration::from_millis(300);

async fn patch(fixture: &Fixture, name: &str, patch: Value) {
    let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
    let patched = fixture.deployments().patch(name, &params, &patch).await;
    patched.expect("patched");
}

async fn keep(fixture: &Fixture, name: &str, kept: bool) {
    let finalizers = if kept { vec![FINALIZER] } else { vec![] };
    let metadata = json!({"metadata": {"finalizers": finalizers}});
    patch(fixture, name, metadata).await;
}

#[tokio::test]
async fn scaling_meanwhile_is_kept_and_the_rotation_happens_once() {
    let fixture = Fixture::new("scaled").await;
    let _daemon = fixture.daemon().await;
    installed(&fixture, &[under(&fixture, "d", "p")], &json!({})).await;
    change(&fixture).await;
    // Again and again, so that some scale is written between what was decided on and the patch.
    let deployments = fixture.deployments();
    let scaling = async {
        for number in 0..SCALES {
            let scale = json!({"spec": {"replicas": 2 + number % 4}});
            let (params, scale) = (PatchParams::default(), Patch::Merge(&scale));
            let scaled = deployments.patch_scale("d", &params, &scale).await;
            scaled.expect("scaled");
            sleep(SCALE_PAUSE).await;
        }
    };
    tokio::select! {
        () = scaling => {}
        _ = fixture.event("d", "RotationStarted") => {}
    }
    patch(&fixture, "d", json!({"spec": {"replicas": 3}})).await;
    let settled = fixture.settled("d", "t", "k").await;
    assert_eq!(revision(&settled), "2");
    let replicas = settled.spec.and_then(|spec| spec.replicas);
    assert_eq!(replicas, Some(3));
    fixture.event("d", "RotationFinished").await;
    assert_eq!(fixture.events("d", "RotationStarted").await.len(), 1);
}

#[tokio::test]
async fn a_workload_that_is_deleted_during_its_rollout_holds_nobody_up() {
    let fixture = Fixture::new("deleted").await;
    let _daemon = fixture.daemon().await;
    let canary = json!({"maxConcurrent": 1, "canary": {"matchLabels": {"name": "first"}}});
    let deployments = ["first", "second"].map(|name| under(&fixture, name, "p"));
    installed(&fixture, &deployments, &canary).await;
    // From now on no new Pod of it is available for an hour.
    patch(
        &fixture,
        "first",
        json!({"spec": {"minReadySeconds": 3600, "progressDeadlineSeconds": 7200}}),
    )
    .await;
    keep(&fixture, "first", true).await;
    change(&fixture).await;
    fixture.event("first", "RotationStarted").await;
    let note = fixture.event("second", "RotationWaiting").await;
    assert!(note.contains("Deployment first"), "{note}");

    let delete = DeleteParams::default();
    let deleted = fixture.deployments().delete("first", &delete).await;
    deleted.expect("deleted");
    assert_eq!(revision(&fixture.settled("second", "t", "k").await), "2");
    let first = fixture.deployments().get("first").await.expect("first");
    assert!(first.metadata.deletion_timestamp.is_some());
    keep(&fixture, "first", false).await;
}

#[tokio::test]
async fn a_namespace_that_terminates_is_left_alone_and_others_go_on() {
    /// Requests of the daemon's in the namespace after the end of all that it wants: some attempts for what is on its way.
    const FEW: usize = 40;
    let (fixture, beside) = (Fixture::new("ending").await, Fixture::new("beside").await);
    let _daemon = fixture.daemon().await;
    for fixture in [&fixture, &beside] {
        installed(fixture, &[under(fixture, "d", "p")], &json!({})).await;
    }
    keep(&fixture, "d", true).await;
    for fixture in [&fixture, &beside] {
        change(fixture).await;
    }
    let audit = fixture.testbed.audit();
    let namespaces: Api<Namespace> = Api::all(fixture.client.clone());
    let (name, delete) = (&fixture.namespace, DeleteParams::default());
    namespaces.delete(name, &delete).await.expect("deleted");
    eventually(SOON, "the Deployment is being deleted", async || {
        let found = fixture.deployments().get("d").await;
        let found = found.map_err(|error| error.to_string())?;
        let deleted = found.metadata.deletion_timestamp;
        deleted.map(drop).ok_or_else(|| "not yet".to_owned())
    })
    .await;

    assert_eq!(revision(&beside.settled("d", "t", "k").await), "2");
    let left = fixture.deployments().get("d").await.expect("it is kept");
    let revision = revision(&left);
    assert!(["1", "2"].contains(&&*revision), "{revision}");
    if let Some(audit) = audit {
        let requests = audit.requests().into_iter();
        let ours = requests.filter(|it| it.about.namespace == *name);
        let asked: Vec<String> = ours.map(|it| it.what()).collect();
        assert!(asked.len() < FEW, "{asked:?}");
    }
    keep(&fixture, "d", false).await;
    eventually(SOON, "the namespace is gone", async || {
        let found = namespaces.get_opt(name).await;
        match found.map_err(|error| error.to_string())? {
            None => Ok(()),
            Some(found) => Err(format!("{:?}", found.status)),
        }
    })
    .await;
}

#[tokio::test]
async fn a_secret_that_is_deleted_and_comes_back_as_it_was_restarts_nothing() {
    let fixture = Fixture::new("asitwas").await;
    let _daemon = fixture.daemon().await;
    installed(&fixture, &[under(&fixture, "d", "p")], &json!({})).await;
    let before = fixture.secret_has("t", "k", b"first").await;
    let delete = DeleteParams::default();
    let deleted = fixture.secrets().delete("t", &delete).await;
    deleted.expect("deleted");
    let changed = eventually(SOON, "another Secret has the same content", async || {
        let found = fixture.secrets().get("t").await;
        let found = found.map_err(|error| error.to_string())?;
        if found.uid() == before.uid() {
            return Err("it is still the one before".to_owned());
        }
        let records = keytide::mirror::records(found.annotations());
        let record = records.values().find_map(|record| record.keys.get("k"));
        Ok(record.ok_or("no record of the key")?.changed)
    })
    .await;
    eventually(SOON, "there was time to roll it", async || {
        let since = jiff::Timestamp::now().duration_since(changed).as_secs();
        (since > 10).then_some(()).ok_or(format!("{since} s"))
    })
    .await;
    fixture.secret_has("t", "k", b"first").await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "1");
    change(&fixture).await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "2");
}
