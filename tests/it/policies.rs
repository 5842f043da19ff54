//! Rotation policies: what is refused, and who waits for whom.

use keytide::api::RotationPolicy;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::fixture::{Fixture, SOON, revision};
use crate::testbed::eventually;

pub fn policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "keytide.dev/v1alpha1",
        "kind": "RotationPolicy",
        "metadata": {"name": name},
        "spec": spec,
    })
}

/// A Deployment under a policy, with a label of its own.
pub fn under(fixture: &Fixture, name: &str, policy: &str) -> Value {
    let mut deployment = fixture.deployment(name, Some("true"), "t", "k");
    deployment["metadata"]["annotations"]["keytide.dev/rotation-policy"] = json!(policy);
    deployment["metadata"]["labels"] = json!({"name": name});
    deployment
}

/// A policy `p`, and a mirror `m` of `s` in `t` whose first content Deployments have.
pub async fn installed(fixture: &Fixture, deployments: &[Value], spec: &Value) {
    fixture.apply(&policy("p", spec)).await;
    fixture.set("s", "first");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    for deployment in deployments {
        fixture.apply(deployment).await;
    }
    for deployment in deployments {
        let name = deployment["metadata"]["name"].as_str().expect("a name");
        fixture.settled(name, "t", "k").await;
    }
}

/// Gives the mirror other content.
pub async fn change(fixture: &Fixture) {
    fixture.set("s", "second");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "k", b"second").await;
}

pub async fn patch(fixture: &Fixture, name: &str, patch: Value) {
    fixture
        .deployments()
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .expect("patched");
}

#[tokio::test]
async fn a_policy_that_can_not_be_meant_is_refused_at_apply() {
    let fixture = Fixture::new("badpolicy").await;
    let window = |more: Value| {
        let mut window = json!({"from": "22:00", "to": "04:00", "timeZone": "Europe/Berlin"});
        for (name, value) in more.as_object().expect("an object") {
            window[name] = value.clone();
        }
        json!({"windows": [window]})
    };
    for (spec, word) in [
        (window(json!({"to": "22:00"})), "would never be open"),
        (window(json!({"days": []})), "days"),
        (window(json!({"days": ["Someday"]})), "Someday"),
        (window(json!({"from": "24:00"})), "from"),
        (window(json!({"timeZone": "Mars/Olympus"})), "Mars/Olympus"),
        (window(json!({"timeZone": "../etc"})), "timeZone"),
        (json!({"settle": "soon"}), "settle"),
        (json!({"deadline": "3d"}), "deadline"),
        (json!({"maxConcurrent": 0}), "maxConcurrent"),
        (json!({"onFailure": "Panic"}), "Panic"),
        (json!({"on": []}), "on"),
        (json!({"canary": {"matchLabels": {}}}), "matchLabels"),
        (json!({"widnows": []}), "widnows"),
    ] {
        let manifest = policy("p", &spec).to_string();
        let output = fixture.testbed.apply(&fixture.namespace, &manifest).await;
        assert!(!output.success, "{spec} was taken");
        assert!(output.stderr.contains(word), "{spec}: {}", output.stderr);
    }
    let whole = window(json!({"days": ["Monday"], "to": "24:00"}));
    fixture.apply(&policy("p", &whole)).await;
}

#[tokio::test]
async fn a_closed_window_is_waited_for_and_an_open_one_is_not() {
    let fixture = Fixture::new("window").await;
    let _daemon = fixture.daemon().await;
    // One that is not open on any of the next days.
    let day = jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .weekday()
        .wrapping_add(3);
    let window = json!({"days": [format!("{day:?}")], "from": "00:00", "to": "01:00"});
    let windows = json!({"windows": [window]});
    fixture.apply(&policy("p", &windows)).await;
    let policies: Api<RotationPolicy> = Api::namespaced(fixture.client.clone(), &fixture.namespace);
    eventually(SOON, "the policy is accepted", async || {
        let found = policies.get("p").await.map_err(|error| error.to_string())?;
        let status = found.status.ok_or("no status")?;
        let reason = status.conditions.first().map(|it| it.reason.as_str());
        (reason == Some("Accepted"))
            .then_some(())
            .ok_or("not yet".to_owned())
    })
    .await;
    let deployments = [under(&fixture, "d", "p"), under(&fixture, "lost", "none")];
    installed(&fixture, &deployments, &windows).await;
    change(&fixture).await;
    let note = fixture.event("d", "RotationScheduled").await;
    assert!(note.contains("no window of its policy is open"), "{note}");
    let note = fixture.event("lost", "RotationHeld").await;
    assert!(note.contains("no RotationPolicy none"), "{note}");
    let waiting = fixture.deployments().get("d").await.expect("d");
    assert_eq!(revision(&waiting), "1");

    fixture.apply(&policy("p", &json!({"windows": []}))).await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "2");
    fixture.apply(&policy("none", &json!({}))).await;
    assert_eq!(revision(&fixture.settled("lost", "t", "k").await), "2");
    assert_eq!(fixture.events("d", "RotationScheduled").await.len(), 1);
    fixture.event("d", "RotationFinished").await;
}

/// Has a quota block the rollout of the canary `first`, and waits until `second` is held by that.
async fn held(fixture: &Fixture) -> String {
    let canary = json!({"canary": {"matchLabels": {"name": "first"}}});
    let mut first = under(fixture, "first", "p");
    first["spec"]["progressDeadlineSeconds"] = json!(3);
    first["spec"]["strategy"] = json!({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}});
    let deployments = [first, under(fixture, "second", "p")];
    installed(fixture, &deployments, &canary).await;
    let quota = json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "full"},
        "spec": {"hard": {"pods": "4"}},
    });
    fixture.apply(&quota).await;
    change(fixture).await;
    fixture.event("second", "RotationHeld").await
}

#[tokio::test]
async fn a_quota_that_blocks_the_first_holds_the_others_until_it_is_gone() {
    let fixture = Fixture::new("quota").await;
    let _daemon = fixture.daemon().await;
    let note = held(&fixture).await;
    assert!(
        note.contains("Deployment first") && note.contains("accept-failure"),
        "{note}"
    );
    let held = fixture.deployments().get("second").await.expect("second");
    assert_eq!(revision(&held), "1");

    let quotas: Api<k8s_openapi::api::core::v1::ResourceQuota> =
        Api::namespaced(fixture.client.clone(), &fixture.namespace);
    let delete = DeleteParams::default();
    quotas.delete("full", &delete).await.expect("deleted");
    // The ReplicaSet controller backs off; a change of scale is tried at once.
    patch(&fixture, "first", json!({"spec": {"replicas": 3}})).await;
    for name in ["first", "second"] {
        assert_eq!(
            revision(&fixture.settled(name, "t", "k").await),
            "2",
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_failure_that_is_accepted_holds_nobody() {
    let fixture = Fixture::new("accept").await;
    let _daemon = fixture.daemon().await;
    held(&fixture).await;
    let now = jiff::Timestamp::now().to_string();
    let accepted = json!({"metadata": {"annotations": {"keytide.dev/accept-failure": now}}});
    patch(&fixture, "first", accepted).await;
    fixture.event("second", "RotationStarted").await;
}
