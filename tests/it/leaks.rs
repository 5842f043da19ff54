//! Secret values never leave the path from GET to apply.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use keytide::devvault::Fault;
use serde_json::json;

use crate::fixture::{Fixture, QUICK, revision};

/// A value that is found in any text that holds it, in plain, hex or base64.
const CANARY: &str = "canary-7f3a9c51d2e84b06-sings";

/// The forms in which a value could leak. Base64 of a longer text holds one of three forms, by where the value begins in it; the
/// characters at the ends depend on the neighbours and are left out.
fn forms() -> Vec<String> {
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![CANARY.to_owned(), hex.to_uppercase(), hex];
    for offset in 0..3 {
        let padded = [vec![b'x'; offset], CANARY.as_bytes().to_vec()].concat();
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let text = engine.encode(&padded);
            forms.push(text[4..text.len() - 4].to_owned());
        }
    }
    forms
}

fn assert_silent(place: &str, text: &str) {
    assert!(
        !text.is_empty(),
        "{place} is empty, so nothing was looked at"
    );
    for form in forms() {
        if let Some(at) = text.find(&form) {
            let line = text[..at].matches('\n').count() + 1;
            panic!("{place} holds a secret value, as {form}, in line {line}");
        }
    }
}

#[test]
fn the_forms_are_found() {
    for offset in 0..6 {
        let text = STANDARD.encode(format!(
            "{}{CANARY}{}",
            "y".repeat(offset),
            "z".repeat(offset)
        ));
        assert!(forms().iter().any(|form| text.contains(form)), "{offset}");
    }
}

#[tokio::test]
async fn no_value_appears_anywhere_but_in_the_target() {
    let fixture = Fixture::new("canary").await;
    let mut shared = fixture.daemon_alone().await;
    assert_eq!(shared.terminate().await.expect("ended"), 0);
    let log = fixture.testbed.log_file("keytide-canary.log");
    let filter = [("KEYTIDE_LOG_FILTER", "trace"), ("RUST_BACKTRACE", "1")];
    let mut daemon = fixture
        .system()
        .daemon(&log, &QUICK, &filter)
        .await
        .expect("a daemon");

    fixture.set("s", CANARY);
    fixture.set("json", &json!({"auths": CANARY}).to_string());
    fixture
        .apply(&fixture.mirror("good", "good", &[("k", "s")]))
        .await;
    // Targets that the API server rejects: what it says about them could quote them.
    for (name, type_, key) in [
        (
            "docker",
            "kubernetes.io/dockerconfigjson",
            ".dockerconfigjson",
        ),
        ("tls", "kubernetes.io/tls", "tls.crt"),
    ] {
        let mut mirror = fixture.mirror(name, name, &[(key, "s")]);
        mirror["spec"]["target"]["type"] = json!(type_);
        fixture.apply(&mirror).await;
    }
    fixture
        .apply(&fixture.deployment("d", Some("true"), "good", "k"))
        .await;
    fixture.secret_has("good", "k", CANARY.as_bytes()).await;
    for name in ["docker", "tls"] {
        fixture.reason(name, "TargetRejected").await;
    }
    fixture.settled("d", "good", "k").await;
    let next = format!("{CANARY}-next");
    fixture.set("s", &next);
    fixture.sync_now("good").await;
    fixture.secret_has("good", "k", next.as_bytes()).await;
    assert_eq!(revision(&fixture.settled("d", "good", "k").await), "2");
    fixture
        .azure()
        .set_faults(&fixture.vault, vec![Fault::status(500)])
        .expect("a fault");
    fixture.sync_now("good").await;
    fixture.reason("good", "VaultError").await;

    assert_silent("the log", &daemon.log());
    assert_silent(
        "/metrics",
        &daemon.get("/metrics").await.expect("metrics").1,
    );
    assert_silent("/readyz", &daemon.get("/readyz").await.expect("readyz").1);
    for kind in [
        "keyvaultmirrors",
        "deployments",
        "pods",
        "replicasets",
        "events",
    ] {
        let shown = fixture
            .testbed
            .kubectl(&["get", kind, "-n", &fixture.namespace, "-o", "json"])
            .await
            .ok();
        assert_silent(kind, &shown);
    }
    let mut target = fixture.secrets().get("good").await.expect("the target");
    target.data = None;
    assert_silent(
        "the target's metadata",
        &serde_json::to_string(&target).expect("JSON"),
    );

    assert_eq!(daemon.terminate().await.expect("ended"), 0);
    let log = fixture.testbed.log_file("keytide-after-canary.log");
    *shared = fixture
        .system()
        .daemon(&log, &QUICK, &[])
        .await
        .expect("a daemon");
}
