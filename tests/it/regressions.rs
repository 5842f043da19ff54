//! Mistakes that were found by using Keytide, and must not come back.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::fixture::{Fixture, SOON, revision};
use crate::testbed::eventually;

#[tokio::test]
async fn a_deployment_whose_pods_got_unready_is_rolled_for_what_may_be_their_cure() {
    let fixture = Fixture::new("unready").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "revoked");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture
        .apply(&fixture.deployment("d", Some("true"), "t", "k"))
        .await;
    fixture.settled("d", "t", "k").await;

    let pods: Api<Pod> = Api::namespaced(fixture.client.clone(), &fixture.namespace);
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    for pod in pods.list(&ListParams::default()).await.expect("Pods") {
        let patch = Patch::Strategic(&unready);
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch)
            .await
            .expect("unready");
    }
    eventually(SOON, "no replica is available", async || {
        let status = fixture.deployments().get("d").await.map(|d| d.status);
        let status = status.map_err(|error| error.to_string())?;
        let available = status.and_then(|status| status.available_replicas);
        available.map_or(Ok(()), |available| Err(format!("{available} are")))
    })
    .await;

    fixture.set("s", "new");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "k", b"new").await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "2");
}

#[tokio::test]
async fn two_mirrors_with_two_values_for_a_label_do_not_fight() {
    let fixture = Fixture::new("label").await;
    let daemon = fixture.daemon().await;
    fixture.set("s", "v");
    let mirror = |name: &str, team: &str| {
        let mut mirror = fixture.mirror(name, "t", &[(name, "s")]);
        mirror["spec"]["target"]["labels"] = json!({"team": team, "stage": "test"});
        mirror
    };
    fixture.apply(&mirror("first", "a")).await;
    fixture.secret_has("t", "first", b"v").await;
    fixture.apply(&mirror("second", "b")).await;
    let message = fixture.reason("second", "TargetConflict").await;
    assert!(
        message.contains("label team") && message.contains("mirror first"),
        "{message}"
    );

    fixture.apply(&mirror("second", "a")).await;
    let both = fixture.secret_has("t", "second", b"v").await;
    assert_eq!(both.labels()["team"], "a");
    for name in ["first", "second"] {
        fixture.sync_now(name).await;
        fixture.reason(name, "Mirrored").await;
    }
    let (_, metrics) = daemon.get("/metrics").await.expect("metrics");
    let series = format!(
        "keytide_target_writes_total{{namespace=\"{}\"}} ",
        fixture.namespace
    );
    let writes = metrics
        .lines()
        .find_map(|line| line.strip_prefix(&series)?.parse::<u32>().ok());
    assert!(writes.is_some_and(|writes| writes <= 4), "{writes:?}");
}
