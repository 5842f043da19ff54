//! Tools that apply: what they do leaves a rotation alone, and where they undo it, nobody fights.

use std::fs;

use keytide::rotation::WorkloadKind::Deployment;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::fixture::{Fixture, SOON, revision};
use crate::testbed::eventually;
use crate::workloads::workload;

const STAMP: &str = "keytide.dev/content-digest";

/// The stamp on the Pod template.
fn stamp(deployment: &k8s_openapi::api::apps::v1::Deployment) -> Option<String> {
    let template = &deployment.spec.as_ref()?.template;
    template
        .metadata
        .as_ref()?
        .annotations
        .as_ref()?
        .get(STAMP)
        .cloned()
}

/// A Deployment `d` that was made by `make` and rotated once. Gives its stamp.
async fn rotated(fixture: &Fixture, make: impl AsyncFnOnce()) -> String {
    fixture.set("s", "first");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    make().await;
    fixture.settled("d", "t", "k").await;
    fixture.set("s", "second");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "k", b"second").await;
    let deployment = fixture.settled("d", "t", "k").await;
    assert_eq!(revision(&deployment), "2");
    stamp(&deployment).expect("a stamp")
}

fn manifest(label: &str) -> Value {
    let mut manifest = workload(Deployment, "d", Some("true"), json!({"replicas": 1}));
    manifest["metadata"]["labels"] = json!({"release": label});
    manifest
}

/// What an apply that changes a label leaves as it was.
async fn is_left_alone(fixture: &Fixture, before: &str) {
    let deployment = fixture.deployments().get("d").await.expect("d");
    assert_eq!(deployment.labels()["release"], "two", "it was applied");
    assert_eq!(stamp(&deployment).as_deref(), Some(before));
    assert_eq!(revision(&deployment), "2");
    assert!(
        deployment
            .annotations()
            .contains_key("keytide.dev/baseline")
    );
}

#[tokio::test]
async fn a_server_side_apply_by_another_manager_leaves_the_rotation_alone_and_sees_no_drift() {
    let fixture = Fixture::new("server-side").await;
    let _daemon = fixture.daemon().await;
    let arguments = ["--server-side", "--field-manager=flux", "--filename=-"];
    let namespace = ["--namespace", &fixture.namespace];
    let apply = async |verb: &str, label: &str| {
        let all = [&[verb][..], &namespace, &arguments].concat();
        let manifest = manifest(label).to_string();
        fixture.testbed.kubectl_with(&manifest, &all).await
    };
    let before = rotated(&fixture, async || {
        apply("apply", "one").await.ok();
    })
    .await;
    let drift = apply("diff", "one").await;
    assert!(drift.success && drift.stdout.is_empty(), "{}", drift.stdout);
    apply("apply", "two").await.ok();
    is_left_alone(&fixture, &before).await;
}

#[tokio::test]
async fn a_client_side_apply_leaves_the_rotation_alone_and_sees_no_drift() {
    let fixture = Fixture::new("client-side").await;
    let _daemon = fixture.daemon().await;
    let before = rotated(&fixture, async || fixture.apply(&manifest("one")).await).await;
    let diff = ["diff", "--namespace", &fixture.namespace, "--filename=-"];
    let drift = manifest("one").to_string();
    let drift = fixture.testbed.kubectl_with(&drift, &diff).await;
    assert!(drift.success && drift.stdout.is_empty(), "{}", drift.stdout);
    fixture.apply(&manifest("two")).await;
    is_left_alone(&fixture, &before).await;
}

#[tokio::test]
async fn a_helm_upgrade_leaves_the_rotation_alone() {
    for major in [4, 3] {
        let fixture = Fixture::new("helm").await;
        let _daemon = fixture.daemon().await;
        let chart = fixture.testbed.folder(&fixture.namespace);
        fs::create_dir_all(chart.join("templates")).expect("a folder");
        fs::write(
            chart.join("Chart.yaml"),
            "{apiVersion: v2, name: app, version: 0.1.0}",
        )
        .expect("a chart");
        let template = manifest("LABEL")
            .to_string()
            .replace("LABEL", "{{ .Values.label }}");
        fs::write(chart.join("templates/d.yaml"), template).expect("a template");
        let chart = chart.to_string_lossy();
        let upgrade = async |label: &str| {
            let label = format!("label={label}");
            let upgrade = ["upgrade", "--install", "app", &*chart, "--set", &label];
            let upgrade = [&upgrade[..], &["--namespace", &fixture.namespace]].concat();
            match major {
                4 => fixture.testbed.helm(&upgrade).await.ok(),
                _ => fixture.testbed.helm3(&upgrade).await.ok(),
            };
        };
        let before = rotated(&fixture, async || upgrade("one").await).await;
        upgrade("two").await;
        is_left_alone(&fixture, &before).await;
    }
}

#[tokio::test]
async fn a_replace_takes_the_stamp_away_and_nobody_puts_it_back() {
    let fixture = Fixture::new("replace").await;
    let _daemon = fixture.daemon().await;
    rotated(&fixture, async || fixture.apply(&manifest("one")).await).await;
    let replace = ["replace", "--namespace", &fixture.namespace, "--filename=-"];
    let replacement = manifest("two").to_string();
    fixture
        .testbed
        .kubectl_with(&replacement, &replace)
        .await
        .ok();
    // The baseline is written anew, and that is all: taking the stamp away was a rollout already.
    let deployment = fixture.settled("d", "t", "k").await;
    assert_eq!(stamp(&deployment), None);
    assert_eq!(revision(&deployment), "3");
    // The next change is one rotation more.
    fixture.set("s", "third");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "k", b"third").await;
    eventually(SOON, "it is rotated", async || {
        let deployment = fixture
            .deployments()
            .get("d")
            .await
            .map_err(|error| error.to_string())?;
        stamp(&deployment)
            .map(drop)
            .ok_or_else(|| "no stamp yet".to_owned())
    })
    .await;
    let deployment = fixture.settled("d", "t", "k").await;
    assert_eq!(revision(&deployment), "4");
}
