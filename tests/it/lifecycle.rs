//! Mirrors and targets that come and go at a bad moment.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use keytide::devvault::{Fault, Operation};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;

use crate::fixture::{Fixture, QUICK, SOON};
use crate::testbed::eventually;

async fn delete_mirror(fixture: &Fixture, name: &str) {
    let delete = DeleteParams::default();
    fixture.mirrors().delete(name, &delete).await.expect(name);
}

#[tokio::test]
async fn what_is_retained_stays_also_when_the_mirror_was_failing() {
    let fixture = Fixture::new("failing-retain").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    fixture.set("clock", "v");
    let mut mirror = fixture.mirror("m", "t", &[("k", "s")]);
    mirror["spec"]["deletionPolicy"] = json!("Retain");
    fixture.apply(&mirror).await;
    let before = fixture.secret_has("t", "k", b"v").await;
    fixture.reason("m", "Mirrored").await;
    let azure = fixture.azure();
    azure.delete_secret(&fixture.vault, "s").expect("deleted");
    fixture.reason("m", "ObjectNotFound").await;

    delete_mirror(&fixture, "m").await;
    let clock = fixture.mirror("clock", "clock", &[("k", "clock")]);
    fixture.apply(&clock).await;
    // A sweep comes within seconds of a mirror that goes.
    fixture.cycles(2).await;
    let after = fixture.secret_has("t", "k", b"v").await;
    assert_eq!(after.resource_version(), before.resource_version());
}

#[tokio::test]
async fn what_a_mirror_had_stays_until_what_it_wants_now_is_there() {
    let fixture = Fixture::new("moving").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    fixture.set("clock", "v");
    let mirror = |target: &str| fixture.mirror("m", target, &[("k", "s")]);
    fixture.apply(&mirror("before")).await;
    let before = fixture.secret_has("before", "k", b"v").await;
    let theirs = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "after"}});
    fixture.apply(&theirs).await;
    fixture.apply(&mirror("after")).await;
    fixture.reason("m", "TargetConflict").await;
    let clock = fixture.mirror("clock", "clock", &[("k", "clock")]);
    fixture.apply(&clock).await;
    // A sweep comes within seconds of a mirror that gets another target.
    fixture.cycles(2).await;
    let stays = fixture.secret_has("before", "k", b"v").await;
    assert_eq!(stays.uid(), before.uid());

    let delete = DeleteParams::default();
    let deleted = fixture.secrets().delete("after", &delete).await;
    deleted.expect("deleted");
    fixture.sync_now("m").await;
    fixture.secret_has("after", "k", b"v").await;
    fixture.secret_is_gone("before").await;
}

#[tokio::test]
async fn two_types_for_one_target_are_a_conflict_of_the_later_mirror() {
    let fixture = Fixture::new("two-types").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    let mirror = |name: &str, key: &str, type_: &str| {
        let mut mirror = fixture.mirror(name, "t", &[(key, "s")]);
        mirror["spec"]["target"]["type"] = json!(type_);
        mirror
    };
    let basic_auth = "kubernetes.io/basic-auth";
    fixture.apply(&mirror("a", "username", basic_auth)).await;
    fixture.reason("a", "Mirrored").await;
    fixture.apply(&mirror("b", "more", "Opaque")).await;
    let message = fixture.reason("b", "TargetConflict").await;
    assert!(
        message.contains("mirror a makes Secret t with type kubernetes.io/basic-auth"),
        "{message}"
    );
    fixture.secret_has_keys("t", &["username"]).await;
    fixture.apply(&mirror("b", "password", basic_auth)).await;
    fixture
        .secret_has_keys("t", &["password", "username"])
        .await;
}

#[tokio::test]
async fn a_foreign_secret_that_comes_between_look_and_write_is_left_alone() {
    let fixture = Fixture::new("between").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "ours");
    // While this read is under way, the mirror has looked and not yet written.
    let late = Fault::delay(Duration::from_secs(3))
        .on(Operation::Get)
        .for_secret("s")
        .times(1);
    let set = fixture.azure().set_faults(&fixture.vault, vec![late]);
    set.expect("a fault");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    eventually(SOON, "it is asked for", async || {
        match fixture.azure().requests().gets_of(&fixture.host(), "s") {
            0 => Err("not yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    let theirs = json!({"metadata": {"name": "t"}, "stringData": {"k": "theirs"}});
    let theirs = serde_json::from_value(theirs).expect("a Secret");
    let created = fixture
        .secrets()
        .create(&PostParams::default(), &theirs)
        .await
        .expect("created");
    let message = fixture.reason("m", "TargetConflict").await;
    assert!(message.contains("was not made by Keytide"), "{message}");
    let kept = fixture.secrets().get("t").await.expect("their Secret");
    assert_eq!(kept, created);
}

#[tokio::test]
async fn mirrors_that_are_deleted_while_the_daemon_is_down_leave_what_they_should() {
    let fixture = Fixture::new("down").await;
    let mut daemon = fixture.daemon_alone().await;
    fixture.set("s", "v");
    for (name, target) in [("alone", "alone"), ("goes", "shared"), ("stays", "shared")] {
        let mirror = fixture.mirror(name, target, &[(name, "s")]);
        fixture.apply(&mirror).await;
    }
    let mut retained = fixture.mirror("retained", "retained", &[("k", "s")]);
    retained["spec"]["deletionPolicy"] = json!("Retain");
    fixture.apply(&retained).await;
    for name in ["alone", "goes", "stays", "retained"] {
        fixture.reason(name, "Mirrored").await;
    }
    let shared = fixture.secret_has_keys("shared", &["goes", "stays"]).await;
    let kept = fixture.secret_has_keys("retained", &["k"]).await;

    assert_eq!(daemon.terminate().await.expect("ended"), 0);
    for name in ["alone", "goes", "retained"] {
        delete_mirror(&fixture, name).await;
    }
    fixture.secret_is_gone("alone").await;
    fixture.secret_has_keys("shared", &["goes", "stays"]).await;

    let log = fixture.testbed.log_file("keytide-after-down.log");
    *daemon = fixture
        .system()
        .daemon(&log, &QUICK, &[])
        .await
        .expect("a daemon");
    let swept = fixture.secret_has_keys("shared", &["stays"]).await;
    assert_eq!(swept.uid(), shared.uid());
    let after = fixture.secret_has("retained", "k", b"v").await;
    assert_eq!(after.resource_version(), kept.resource_version());
}

#[tokio::test]
async fn a_namespace_that_is_deleted_goes_and_its_vault_is_asked_no_more() {
    let fixture = Fixture::new("leaving").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    for name in ["a", "b"] {
        let mut mirror = fixture.mirror(name, name, &[("k", "s")]);
        // One has an owner to be collected by, the other has none.
        mirror["spec"]["deletionPolicy"] = json!(if name == "a" { "Delete" } else { "Retain" });
        fixture.apply(&mirror).await;
        fixture.secret_has(name, "k", b"v").await;
    }
    let namespaces: Api<Namespace> = Api::all(fixture.client.clone());
    namespaces
        .delete(&fixture.namespace, &DeleteParams::default())
        .await
        .expect("deleted");
    eventually(SOON, "the namespace is gone", async || {
        match namespaces.get_opt(&fixture.namespace).await {
            Ok(None) => Ok(()),
            Ok(Some(namespace)) => Err(format!("{:?}", namespace.status)),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;

    // Another namespace's looks at its vault are the clock.
    let other = Fixture::new("staying").await;
    other.set("clock", "v");
    let clock = other.mirror("clock", "clock", &[("k", "clock")]);
    other.apply(&clock).await;
    other.reason("clock", "Mirrored").await;
    let gets = || fixture.azure().requests().gets_of(&fixture.host(), "s");
    other.cycles(1).await;
    let before = gets();
    other.cycles(2).await;
    assert_eq!(gets(), before);
}
