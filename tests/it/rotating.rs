//! Rotation: which Deployments are rolled, when, and how often.

use keytide::devvault::Fault;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::fixture::{Fixture, QUICK, SOON, revision};
use crate::testbed::eventually;

#[tokio::test]
async fn a_change_rolls_who_opted_in_and_nobody_else() {
    let fixture = Fixture::new("rotate").await;
    let daemon = fixture.daemon().await;
    fixture.set("s", "first");
    // Mirror and Deployments at once, as one release has them.
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s"), ("unused", "other")]))
        .await;
    fixture
        .apply(&fixture.deployment("all", Some("true"), "t", "k"))
        .await;
    fixture
        .apply(&fixture.deployment("named", Some("t"), "t", "k"))
        .await;
    fixture
        .apply(&fixture.deployment("bystander", None, "t", "k"))
        .await;
    fixture
        .apply(&fixture.deployment("other-key", Some("true"), "t", "unused"))
        .await;
    fixture.set("other", "constant");
    for name in ["all", "named"] {
        assert_eq!(
            revision(&fixture.settled(name, "t", "k").await),
            "1",
            "the installation restarted {name}"
        );
    }
    let other_key = fixture.settled("other-key", "t", "unused").await;

    let written = fixture.set("s", "second");
    fixture.secret_has("t", "k", b"second").await;
    for name in ["all", "named"] {
        let rolled = fixture.settled(name, "t", "k").await;
        assert_eq!(revision(&rolled), "2", "{name}");
    }
    let note = fixture.event("all", "RotationStarted").await;
    assert!(
        note.contains("Secret t") && note.contains(&written.version),
        "{note}"
    );
    let (_, metrics) = daemon.get("/metrics").await.expect("metrics");
    let counted = format!(
        "keytide_rotations_total{{namespace=\"{}\",reason=\"content\"}} 2",
        fixture.namespace
    );
    assert!(metrics.contains(&counted), "{metrics}");
    assert!(
        !metrics.contains("keytide_rotation_until_rolled_out_seconds_count 0"),
        "{metrics}"
    );
    let bystander = fixture
        .deployments()
        .get("bystander")
        .await
        .expect("bystander");
    assert_eq!(revision(&bystander), "1");
    assert!(!bystander.annotations().contains_key("keytide.dev/baseline"));
    let other_key_now = fixture
        .deployments()
        .get("other-key")
        .await
        .expect("other-key");
    assert_eq!(revision(&other_key_now), revision(&other_key));
}

#[tokio::test]
async fn a_daemon_that_is_killed_between_secret_and_rollout_rolls_once() {
    let fixture = Fixture::new("killed").await;
    {
        let _daemon = fixture.daemon().await;
        fixture.set("s", "first");
        fixture
            .apply(&fixture.mirror("m", "t", &[("k", "s")]))
            .await;
        fixture
            .apply(&fixture.deployment("d", Some("true"), "t", "k"))
            .await;
        fixture.settled("d", "t", "k").await;
    }
    let mut daemon = fixture.daemon_alone().await;
    fixture.set("s", "second");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "k", b"second").await;
    daemon.kill();
    assert_eq!(
        revision(&fixture.deployments().get("d").await.expect("d")),
        "1",
        "it was killed too late"
    );

    let log = fixture.testbed.log_file("keytide-after-kill.log");
    *daemon = fixture
        .system()
        .daemon(&log, &QUICK, &[])
        .await
        .expect("a daemon");
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "2");

    // And once more: a restart alone is no reason.
    assert_eq!(daemon.terminate().await.expect("ended"), 0);
    let log = fixture.testbed.log_file("keytide-after-term.log");
    *daemon = fixture
        .system()
        .daemon(&log, &QUICK, &[])
        .await
        .expect("a daemon");
    fixture.set("s", "second");
    fixture.sync_now("m").await;
    fixture.reason("m", "Mirrored").await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "2");
}

#[tokio::test]
async fn a_deployment_that_its_owner_rolled_after_the_change_is_not_rolled_again() {
    let fixture = Fixture::new("owner").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "first");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    // Not opted in yet, so that the owner's rollout surely comes first.
    fixture
        .apply(&fixture.deployment("d", None, "t", "k"))
        .await;
    fixture.secret_has("t", "k", b"first").await;
    fixture.set("s", "second");
    fixture.sync_now("m").await;
    let secret = fixture.secret_has("t", "k", b"second").await;
    let changed = keytide::mirror::records(secret.annotations())
        .values()
        .next()
        .expect("record")
        .keys["k"]
        .changed;
    eventually(SOON, "the margin after the change is over", async || {
        let since = jiff::Timestamp::now().duration_since(changed).as_secs();
        if since > 6 {
            Ok(())
        } else {
            Err(format!("{since} s"))
        }
    })
    .await;
    let template =
        json!({"spec": {"template": {"metadata": {"annotations": {"owner": "rolled"}}}}});
    fixture
        .deployments()
        .patch("d", &PatchParams::default(), &Patch::Merge(&template))
        .await
        .expect("rolled");
    fixture
        .testbed
        .kubectl(&[
            "rollout",
            "status",
            "deployment/d",
            "-n",
            &fixture.namespace,
            "--timeout=60s",
        ])
        .await
        .ok();
    let opted_in = json!({"metadata": {"annotations": {"keytide.dev/rotate": "true"}}});
    fixture
        .deployments()
        .patch("d", &PatchParams::default(), &Patch::Merge(&opted_in))
        .await
        .expect("opted in");
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "2");
}

#[tokio::test]
async fn a_name_that_is_not_used_is_said_and_not_one_that_a_mirror_is_to_fill() {
    let fixture = Fixture::new("typo").await;
    let _daemon = fixture.daemon().await;
    fixture
        .apply(&fixture.mirror("m", "late", &[("token", "not-in-the-vault")]))
        .await;
    fixture.reason("m", "ObjectNotFound").await;
    // The one whose mirror fails comes first, so that it would be told of first.
    fixture
        .apply(&fixture.deployment("waits", Some("late"), "late", "token"))
        .await;
    fixture
        .apply(&fixture.deployment("d", Some("adpat"), "adopat", "token"))
        .await;
    let note = fixture.event("d", "NothingToRotate").await;
    assert!(note.contains("adpat") && note.contains("adopat"), "{note}");
    let told = fixture.events("waits", "NothingToRotate").await;
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test]
async fn a_secret_that_is_missing_at_first_restarts_nothing_when_it_comes() {
    let fixture = Fixture::new("missing").await;
    let _daemon = fixture.daemon().await;
    fixture
        .apply(&fixture.deployment("d", Some("true"), "t", "k"))
        .await;
    fixture
        .testbed
        .kubectl(&[
            "rollout",
            "status",
            "deployment/d",
            "-n",
            &fixture.namespace,
            "--timeout=60s",
        ])
        .await
        .ok();
    fixture.set("s", "v");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "1");
}

#[tokio::test]
async fn content_that_comes_back_after_a_rollback_rolls_again() {
    let fixture = Fixture::new("rollback").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "a");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture
        .apply(&fixture.deployment("d", Some("true"), "t", "k"))
        .await;
    fixture.settled("d", "t", "k").await;
    for (value, expected) in [("b", "2"), ("a", "3")] {
        fixture.set("s", value);
        fixture.sync_now("m").await;
        fixture.secret_has("t", "k", value.as_bytes()).await;
        assert_eq!(revision(&fixture.settled("d", "t", "k").await), expected);
    }
    // The template of `b`, while the content is `a` and stays recorded.
    fixture
        .testbed
        .kubectl(&["rollout", "undo", "deployment/d", "-n", &fixture.namespace])
        .await
        .ok();
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "4");
    fixture.set("s", "b");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "k", b"b").await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "5");
}

/// A Deployment with one container for each way to use a key of the Secret.
fn of_all_uses(secret: &str) -> serde_json::Value {
    let key = |key: &str| json!([{"key": key, "path": key}]);
    let mount = |name: &str| json!([{"name": name, "mountPath": "/in"}]);
    let init = json!({
        "name": "init",
        "image": "none",
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": secret, "key": "init"}}}],
    });
    let containers = json!([
        {"name": "variables", "image": "none", "envFrom": [{"secretRef": {"name": "whole"}}]},
        {"name": "volume", "image": "none", "volumeMounts": mount("volume")},
        {"name": "projected", "image": "none", "volumeMounts": mount("projected")},
    ]);
    let volumes = json!([
        {"name": "volume", "secret": {"secretName": secret, "items": key("volume")}},
        {"name": "projected", "projected": {"sources": [
            {"secret": {"name": secret, "items": key("projected")}},
        ]}},
        {"name": "not-mounted", "secret": {"secretName": secret, "items": key("unused")}},
    ]);
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "annotations": {"keytide.dev/rotate": "true"}},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "d"}},
            "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {"initContainers": [init], "containers": containers, "volumes": volumes},
            },
        },
    })
}

#[tokio::test]
async fn every_way_to_use_a_key_counts_and_no_other_key() {
    let fixture = Fixture::new("uses").await;
    let _daemon = fixture.daemon().await;
    let keys = ["init", "volume", "projected", "unused", "whole"];
    for key in keys {
        fixture.set(key, "first");
    }
    let some = [keys[0], keys[1], keys[2], keys[3]].map(|key| (key, key));
    fixture.apply(&fixture.mirror("m", "t", &some)).await;
    fixture
        .apply(&fixture.mirror("whole", "whole", &[("any", "whole")]))
        .await;
    fixture.secret_has("t", "init", b"first").await;
    fixture.secret_has("whole", "any", b"first").await;
    fixture.apply(&of_all_uses("t")).await;
    fixture.settled("d", "t", "init").await;
    let mut expected = 1;
    for (object, mirror, secret, key) in [
        ("init", "m", "t", "init"),
        ("volume", "m", "t", "volume"),
        ("projected", "m", "t", "projected"),
        ("whole", "whole", "whole", "any"),
    ] {
        // Changed too each time, and no reason.
        for (object, mirror) in [("unused", "m"), (object, mirror)] {
            fixture.set(object, &format!("{secret} {key}"));
            fixture.sync_now(mirror).await;
        }
        let content = format!("{secret} {key}");
        fixture.secret_has(secret, key, content.as_bytes()).await;
        let rolled = fixture.settled("d", secret, key).await;
        expected += 1;
        assert_eq!(revision(&rolled), expected.to_string(), "{object}");
        assert!(!rolled.annotations()["keytide.dev/baseline"].contains("unused"));
    }
    fixture.set("unused", "last");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "unused", b"last").await;
    // A change that counts, after the one that doesn't: had that been a reason, there would be one revision more.
    fixture.set("init", "last");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "init", b"last").await;
    let rolled = fixture.settled("d", "t", "init").await;
    assert_eq!(revision(&rolled), (expected + 1).to_string());
}

#[tokio::test]
async fn a_secret_that_is_deleted_and_comes_back_with_other_content_rolls_once() {
    let fixture = Fixture::new("recreated").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "first");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture
        .apply(&fixture.deployment("d", Some("true"), "t", "k"))
        .await;
    fixture.settled("d", "t", "k").await;
    // It stays away for a while, since the vault fails.
    let failing = fixture
        .azure()
        .set_faults(&fixture.vault, vec![Fault::status(500)]);
    failing.expect("a fault");
    let delete = DeleteParams::default();
    fixture
        .secrets()
        .delete("t", &delete)
        .await
        .expect("deleted");
    fixture.reason("m", "VaultError").await;
    fixture.set("s", "second");
    fixture
        .azure()
        .clear_faults(&fixture.vault)
        .expect("a vault");
    fixture.secret_has("t", "k", b"second").await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "2");
}
