//! `onFailure: Revert`: the rollout of new content fails, and the Secret goes back to the version before.

use k8s_openapi::api::core::v1::ResourceQuota;
use keytide::devvault::Changes;
use kube::api::{Api, DeleteParams};
use serde_json::json;

use crate::fixture::{Fixture, QUICK, SOON, revision};
use crate::policies::{change, installed, patch, under};
use crate::testbed::eventually;

/// A mirror `m` of `s` in `t` with its first content, and a Deployment `d` that has it and whose next rollout a quota blocks.
async fn blocked(fixture: &Fixture) {
    let mut deployment = under(fixture, "d", "p");
    deployment["spec"]["progressDeadlineSeconds"] = json!(3);
    deployment["spec"]["strategy"] = json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    installed(fixture, &[deployment], &json!({"onFailure": "Revert"})).await;
    let quota = json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "full"},
        "spec": {"hard": {"pods": "2"}},
    });
    fixture.apply(&quota).await;
}

async fn unblock(fixture: &Fixture) {
    let quotas: Api<ResourceQuota> = Api::namespaced(fixture.client.clone(), &fixture.namespace);
    let delete = DeleteParams::default();
    quotas.delete("full", &delete).await.expect("deleted");
    // The ReplicaSet controller backs off; a change of scale is tried at once.
    patch(fixture, "d", json!({"spec": {"replicas": 3}})).await;
}

/// Waits until the mirror says this of going back: status and reason, or nothing.
async fn says(fixture: &Fixture, wanted: Option<(&str, &str)>) {
    eventually(SOON, &format!("m says {wanted:?}"), async || {
        let conditions = fixture.conditions("m").await;
        let mut conditions = conditions.iter();
        let found = conditions
            .find(|(type_, ..)| type_ == "Reverted")
            .map(|(_, status, reason)| (status.as_str(), reason.as_str()));
        if found == wanted {
            Ok(())
        } else {
            Err(format!("{found:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn content_whose_rollout_fails_goes_back_once_until_the_vault_has_another_version() {
    let fixture = Fixture::new("revert").await;
    let mut daemon = fixture.daemon_alone().await;
    fixture.set("clock", "tick");
    fixture
        .apply(&fixture.mirror("clock", "c", &[("k", "clock")]))
        .await;
    blocked(&fixture).await;
    change(&fixture).await;

    fixture.secret_has("t", "k", b"first").await;
    let note = fixture.event("d", "RotationFailed").await;
    assert!(
        note.contains("progress deadline") && note.contains("mirror m"),
        "{note}"
    );
    let note = fixture.event("m", "RolloutFailed").await;
    assert!(
        note.contains("Deployment d") && note.contains("secrets/s is at version"),
        "{note}"
    );
    says(&fixture, Some(("True", "RolloutFailed"))).await;
    unblock(&fixture).await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "3");
    let started = fixture.events("d", "RotationStarted").await;
    let back = started.iter().filter(|note| note.contains(" again, "));
    assert_eq!((started.len(), back.count()), (2, 1), "{started:?}");

    // Another daemon knows it too, and nothing more happens.
    assert_eq!(daemon.terminate().await.expect("ended"), 0);
    let log = format!("{}-after.log", fixture.namespace);
    let log = fixture.testbed.log_file(&log);
    *daemon = fixture
        .system()
        .daemon(&log, &QUICK, &[])
        .await
        .expect("a daemon");
    fixture.sync_now("m").await;
    fixture.cycles(2).await;
    fixture.secret_has("t", "k", b"first").await;
    says(&fixture, Some(("True", "RolloutFailed"))).await;
    let deployment = fixture.deployments().get("d").await.expect("d");
    assert_eq!(revision(&deployment), "3");
    assert_eq!(fixture.events("m", "RolloutFailed").await.len(), 1);
    let series = format!(
        "keytide_mirror_reverted{{namespace=\"{}\",mirror=\"m\"}} 1",
        fixture.namespace
    );
    let (_, metrics) = daemon.get("/metrics").await.expect("metrics");
    assert!(metrics.contains(&series), "{metrics}");

    fixture.set("s", "third");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "k", b"third").await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "4");
    says(&fixture, None).await;
}

#[tokio::test]
async fn where_the_version_before_is_disabled_the_content_stays_and_the_next_one_comes() {
    let fixture = Fixture::new("noway").await;
    let _daemon = fixture.daemon().await;
    blocked(&fixture).await;
    let disabled = Changes {
        enabled: Some(false),
        ..Changes::default()
    };
    fixture
        .azure()
        .update_secret(&fixture.vault, "s", disabled)
        .expect("disabled");
    change(&fixture).await;

    let note = fixture.event("m", "NoWayBack").await;
    assert!(
        note.contains("Deployment d") && note.contains("is disabled"),
        "{note}"
    );
    says(&fixture, Some(("False", "NoWayBack"))).await;
    fixture.secret_has("t", "k", b"second").await;

    fixture.set("s", "third");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "k", b"third").await;
}

#[tokio::test]
async fn who_took_the_content_well_goes_back_with_who_did_not() {
    let fixture = Fixture::new("revert-shared").await;
    let _daemon = fixture.daemon().await;
    let class = format!("limited-{}", fixture.namespace);
    let limited = json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": class}, "value": 0,
    });
    fixture.apply(&limited).await;
    let mut fails = under(&fixture, "d", "p");
    fails["spec"]["progressDeadlineSeconds"] = json!(3);
    fails["spec"]["strategy"] = json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    fails["spec"]["template"]["spec"]["priorityClassName"] = json!(class);
    let well = under(&fixture, "well", "p");
    installed(&fixture, &[fails, well], &json!({"onFailure": "Revert"})).await;
    // Only Pods of the class are too many.
    let scope = json!({"scopeName": "PriorityClass", "operator": "In", "values": [class]});
    let quota = json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "full"},
        "spec": {"hard": {"pods": "2"}, "scopeSelector": {"matchExpressions": [scope]}},
    });
    fixture.apply(&quota).await;
    change(&fixture).await;

    fixture.secret_has("t", "k", b"first").await;
    fixture.event("d", "RotationFailed").await;
    says(&fixture, Some(("True", "RolloutFailed"))).await;
    eventually(
        SOON,
        "well was rolled to the content and back",
        async || match revision(&fixture.settled("well", "t", "k").await).as_str() {
            "3" => Ok(()),
            other => Err(other.to_owned()),
        },
    )
    .await;
    assert_eq!(fixture.events("well", "RotationStarted").await.len(), 2);
    assert_eq!(fixture.events("well", "RotationFailed").await.len(), 0);
    unblock(&fixture).await;
    fixture.settled("d", "t", "k").await;
}
