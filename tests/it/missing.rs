//! `missingPolicy: Remove`: what becomes of a target whose vault objects are deleted or disabled. What `Keep` does is in `faults`
//! and `surveying`.

use keytide::api::MissingObject;
use keytide::devvault::{Changes, Fault};
use serde_json::{Value, json};

use crate::fixture::{Fixture, SOON, revision};
use crate::testbed::eventually;

fn removing(fixture: &Fixture, name: &str, data: &[(&str, &str)]) -> Value {
    let mut mirror = fixture.mirror(name, name, data);
    mirror["spec"]["missingPolicy"] = json!("Remove");
    mirror
}

fn enabled(fixture: &Fixture, secret: &str, enabled: bool) {
    let changes = Changes {
        enabled: Some(enabled),
        ..Changes::default()
    };
    let updated = fixture
        .azure()
        .update_secret(&fixture.vault, secret, changes);
    updated.expect("updated");
}

/// Waits until the mirror is Ready and says that it is without these objects, and gives the message.
async fn is_without(fixture: &Fixture, mirror: &str, names: &[&str]) -> String {
    let what = format!("{mirror} is Ready without {names:?}");
    eventually(SOON, &what, async || {
        let mirror = fixture.mirrors().get(mirror).await;
        let status = mirror.map_err(|error| error.to_string())?.status;
        let status = status.ok_or("no status yet")?;
        let missing: Vec<&MissingObject> = status.missing_objects.iter().collect();
        let ready = status.conditions.iter().find(|c| c.type_ == "Ready");
        let ready = ready.filter(|ready| ready.status == "True");
        match ready {
            Some(ready) if missing.iter().map(|object| &object.name).eq(names) => {
                Ok(ready.message.clone())
            }
            _ => Err(format!("{status:?}")),
        }
    })
    .await
}

#[tokio::test]
async fn keys_of_what_is_deleted_or_disabled_go_and_come_back() {
    let fixture = Fixture::new("missing").await;
    let _daemon = fixture.daemon().await;
    for secret in ["a", "b", "c"] {
        fixture.set(secret, "first");
    }
    let data = [("a", "a"), ("again", "a"), ("b", "b"), ("c", "c")];
    fixture.apply(&removing(&fixture, "t", &data)).await;
    fixture
        .secret_has_keys("t", &["a", "again", "b", "c"])
        .await;

    let azure = fixture.azure();
    azure.delete_secret(&fixture.vault, "a").expect("deleted");
    fixture.secret_has_keys("t", &["b", "c"]).await;
    let message = is_without(&fixture, "t", &["a"]).await;
    assert!(
        message.starts_with("2 keys are in the Secret") && message.ends_with("secret a"),
        "{message}"
    );
    enabled(&fixture, "b", false);
    fixture.secret_has_keys("t", &["c"]).await;
    is_without(&fixture, "t", &["a", "b"]).await;

    // The others are followed meanwhile.
    fixture.set("c", "second");
    fixture.secret_has("t", "c", b"second").await;
    is_without(&fixture, "t", &["a", "b"]).await;

    azure
        .recover_secret(&fixture.vault, "a")
        .expect("recovered");
    fixture.secret_has("t", "again", b"first").await;
    enabled(&fixture, "b", true);
    fixture
        .secret_has_keys("t", &["a", "again", "b", "c"])
        .await;
    is_without(&fixture, "t", &[]).await;
}

#[tokio::test]
async fn a_secret_is_left_empty_and_what_never_was_there_is_named() {
    let fixture = Fixture::new("empty").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    let data = [("k", "s"), ("typo", "no-such-secret")];
    fixture.apply(&removing(&fixture, "t", &data)).await;
    let before = fixture.secret_has_keys("t", &["k"]).await;
    is_without(&fixture, "t", &["no-such-secret"]).await;
    let azure = fixture.azure();
    azure.delete_secret(&fixture.vault, "s").expect("deleted");
    let after = fixture.secret_has_keys("t", &[]).await;
    assert_eq!(after.metadata.uid, before.metadata.uid);
    is_without(&fixture, "t", &["no-such-secret", "s"]).await;
}

#[tokio::test]
async fn a_key_that_the_type_needs_stays_and_the_mirror_says_why() {
    let fixture = Fixture::new("needed").await;
    let _daemon = fixture.daemon().await;
    for secret in ["key", "hosts"] {
        fixture.set(secret, "first");
    }
    let data = [("ssh-privatekey", "key"), ("known_hosts", "hosts")];
    let mut mirror = removing(&fixture, "t", &data);
    mirror["spec"]["target"]["type"] = json!("kubernetes.io/ssh-auth");
    fixture.apply(&mirror).await;
    fixture.secret_has("t", "known_hosts", b"first").await;

    let azure = fixture.azure();
    azure.delete_secret(&fixture.vault, "key").expect("deleted");
    let message = fixture.reason("t", "InvalidContent").await;
    assert!(
        message.contains("key ssh-privatekey") && message.ends_with("secret key"),
        "{message}"
    );
    // All or nothing: neither goes the key, nor comes what changed beside it.
    fixture.set("hosts", "second");
    fixture.sync_now("t").await;
    fixture.set("clock", "v");
    let clock = fixture.mirror("clock", "clock", &[("k", "clock")]);
    fixture.apply(&clock).await;
    fixture.cycles(2).await;
    fixture.secret_has("t", "known_hosts", b"first").await;
    fixture.secret_has("t", "ssh-privatekey", b"first").await;

    azure
        .recover_secret(&fixture.vault, "key")
        .expect("recovered");
    fixture.secret_has("t", "known_hosts", b"second").await;
    fixture.reason("t", "Mirrored").await;
}

#[tokio::test]
async fn a_key_that_goes_restarts_nothing_and_one_that_comes_back_changed_does() {
    let fixture = Fixture::new("went").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "first");
    fixture.set("clock", "v");
    let data = [("k", "s"), ("clock", "clock")];
    fixture.apply(&removing(&fixture, "t", &data)).await;
    let deployment = fixture.deployment("d", Some("true"), "t", "k");
    fixture.apply(&deployment).await;
    fixture.settled("d", "t", "k").await;

    let azure = fixture.azure();
    azure.delete_secret(&fixture.vault, "s").expect("deleted");
    fixture.secret_has_keys("t", &["clock"]).await;
    fixture.cycles(2).await;
    let deployment = fixture.deployments().get("d").await.expect("d");
    assert_eq!(revision(&deployment), "1");

    let recovered = azure.recover_secret(&fixture.vault, "s");
    recovered.expect("recovered");
    fixture.set("s", "second");
    fixture.secret_has("t", "k", b"second").await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "2");
}

#[tokio::test]
async fn what_only_can_not_be_read_is_not_missing() {
    let fixture = Fixture::new("unreadable").await;
    let _daemon = fixture.daemon().await;
    for secret in ["a", "b"] {
        fixture.set(secret, "v");
    }
    fixture
        .apply(&removing(&fixture, "t", &[("a", "a"), ("b", "b")]))
        .await;
    let before = fixture.secret_has_keys("t", &["a", "b"]).await;
    for (fault, reason) in [
        (Fault::status(403), "VaultForbidden"),
        (Fault::status(500), "VaultError"),
    ] {
        let set = fixture
            .azure()
            .set_faults(&fixture.vault, vec![fault.for_secret("a")]);
        set.expect("a fault");
        fixture.sync_now("t").await;
        fixture.reason("t", reason).await;
    }
    let kept = fixture.secret_has_keys("t", &["a", "b"]).await;
    assert_eq!(
        kept.metadata.resource_version,
        before.metadata.resource_version
    );
}
