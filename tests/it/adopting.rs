//! Secrets that somebody else made: taken over with consent, and not without.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::fixture::{Fixture, SOON, revision};
use crate::testbed::eventually;

/// A Secret of somebody else's.
fn theirs(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})
}

/// What is typed to give consent.
async fn consent(fixture: &Fixture, secret: &str, mirrors: &str) {
    let adopt_by = format!("keytide.dev/adopt-by={mirrors}");
    let annotate = ["annotate", "secret", secret, &adopt_by];
    let namespace = ["--namespace", &fixture.namespace];
    fixture
        .testbed
        .kubectl(&[&annotate[..], &namespace].concat())
        .await
        .ok();
}

/// Waits until a Secret has these keys and no others.
async fn has_keys(fixture: &Fixture, secret: &str, keys: &[&str]) -> Secret {
    let what = format!("Secret {secret} has {keys:?}");
    eventually(SOON, &what, async || {
        let found = fixture.secrets().get(secret).await;
        let found = found.map_err(|error| error.to_string())?;
        let there: Vec<_> = found.data.iter().flatten().map(|(key, _)| key).collect();
        if there == keys {
            Ok(found)
        } else {
            Err(format!("{there:?}"))
        }
    })
    .await
}

/// Has the mirror fill these keys and no others.
async fn fill(fixture: &Fixture, mirror: &str, target: &str, keys: &[&str]) {
    let data: Vec<_> = keys.iter().map(|key| (*key, *key)).collect();
    fixture.apply(&fixture.mirror(mirror, target, &data)).await;
}

#[tokio::test]
async fn a_secret_that_consents_is_taken_over_without_a_change_and_without_a_restart() {
    let fixture = Fixture::new("adopt").await;
    let _daemon = fixture.daemon().await;
    for key in ["kept", "dropped"] {
        fixture.set(key, "same");
    }
    let data = json!({"kept": "same", "dropped": "same", "own": "theirs"});
    fixture.apply(&theirs("t", data)).await;
    let before = fixture.secrets().get("t").await.expect("their Secret");
    let mut optional = fixture.deployment("optional", Some("true"), "t", "kept");
    optional["spec"]["template"]["spec"]["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]
        ["optional"] = json!(true);
    fixture.apply(&optional).await;
    fixture
        .apply(&fixture.deployment("d", Some("true"), "t", "kept"))
        .await;
    for name in ["deployment/d", "deployment/optional"] {
        let status = ["rollout", "status", name, "--timeout=60s"];
        let namespace = ["--namespace", &fixture.namespace];
        fixture
            .testbed
            .kubectl(&[&status[..], &namespace].concat())
            .await
            .ok();
    }
    fill(&fixture, "m", "t", &["kept", "dropped"]).await;
    let message = fixture.reason("m", "TargetConflict").await;
    let command = "kubectl annotate secret t keytide.dev/adopt-by=m";
    assert!(message.ends_with(command), "{message}");
    let untouched = fixture.secrets().get("t").await.expect("their Secret");
    assert_eq!(untouched.resource_version(), before.resource_version());

    consent(&fixture, "t", "m").await;
    fixture.reason("m", "Mirrored").await;
    let adopted = fixture.secrets().get("t").await.expect("the Secret");
    assert_eq!((&adopted.data, adopted.uid()), (&before.data, before.uid()));
    assert!(adopted.owner_references().is_empty(), "{adopted:?}");
    let note = fixture.event("m", "Adopted").await;
    assert!(note.contains("Secret t"), "{note}");
    let status = fixture.mirrors().get("m").await.expect("m").status;
    let status = status.expect("a status");
    assert!(status.target.is_some_and(|target| target.adopted));
    assert_eq!(status.last_change, None, "nothing changed");
    for name in ["d", "optional"] {
        let settled = fixture.settled(name, "t", "kept").await;
        assert_eq!(revision(&settled), "1", "{name} was restarted");
    }

    // From here on it is as any other target: what the mirror drops goes, and what changes is rolled for.
    fill(&fixture, "m", "t", &["kept"]).await;
    has_keys(&fixture, "t", &["kept", "own"]).await;
    fixture.set("kept", "other");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "kept", b"other").await;
    for name in ["d", "optional"] {
        let settled = fixture.settled(name, "t", "kept").await;
        assert_eq!(revision(&settled), "2", "{name}");
    }
}

#[tokio::test]
async fn a_secret_that_was_taken_over_stays_when_its_mirror_goes() {
    let fixture = Fixture::new("adopt-kept").await;
    let _daemon = fixture.daemon().await;
    fixture.set("k", "v");
    fixture.apply(&theirs("stays", json!({"k": "v"}))).await;
    consent(&fixture, "stays", "stays").await;
    for name in ["stays", "goes"] {
        fill(&fixture, name, name, &["k"]).await;
        fixture.reason(name, "Mirrored").await;
    }
    for name in ["stays", "goes"] {
        let mirrors = fixture.mirrors();
        let deleted = mirrors.delete(name, &DeleteParams::default()).await;
        deleted.expect("deleted");
    }
    // Both are under Delete; what befalls the one would have befallen the other.
    eventually(
        SOON,
        "the mirror's own Secret is gone",
        async || match fixture.secrets().get_opt("goes").await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|it| it.map(|it| it.name_any())))),
        },
    )
    .await;
    has_keys(&fixture, "stays", &["k"]).await;

    // Nor does a mirror that gets another target take it along.
    fill(&fixture, "stays", "stays", &["k"]).await;
    fixture.reason("stays", "Mirrored").await;
    fill(&fixture, "stays", "elsewhere", &["k"]).await;
    fixture.secret_has("elsewhere", "k", b"v").await;
    let delete = DeleteParams::default();
    fixture
        .mirrors()
        .delete("stays", &delete)
        .await
        .expect("deleted");
    eventually(SOON, "the new target is gone", async || {
        match fixture.secrets().get_opt("elsewhere").await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|it| it.map(|it| it.name_any())))),
        }
    })
    .await;
    has_keys(&fixture, "stays", &["k"]).await;
}

#[tokio::test]
async fn a_key_that_is_dropped_goes_whoever_had_it_before() {
    let fixture = Fixture::new("adopt-drop").await;
    let _daemon = fixture.daemon().await;
    for key in ["kept", "dropped"] {
        fixture.set(key, "same");
    }
    let data = json!({"kept": "same", "dropped": "same", "own": "theirs"});
    let namespace = ["--namespace", &fixture.namespace];
    let kubectl = async |arguments: &[&str], input: &str| {
        let all = [arguments, &namespace].concat();
        fixture.testbed.kubectl_with(input, &all).await.ok();
    };
    // By an applier, by one that creates, and before there were managed fields.
    let applied = theirs("applied", data.clone()).to_string();
    let server_side = ["apply", "--server-side", "--field-manager=flux", "-f", "-"];
    kubectl(&server_side, &applied).await;
    let literals =
        ["kept=same", "dropped=same", "own=theirs"].map(|it| format!("--from-literal={it}"));
    let create = ["create", "secret", "generic", "created"];
    let literals = literals.iter().map(String::as_str);
    kubectl(&create.into_iter().chain(literals).collect::<Vec<_>>(), "").await;
    fixture.apply(&theirs("stripped", data)).await;
    let strip = r#"--patch={"metadata": {"managedFields": [{}]}}"#;
    let strip = ["patch", "secret", "stripped", "--type=merge", strip];
    for name in ["applied", "created", "stripped"] {
        consent(&fixture, name, name).await;
        if name == "stripped" {
            kubectl(&strip, "").await;
        }
        fill(&fixture, name, name, &["kept", "dropped"]).await;
        fixture.reason(name, "Mirrored").await;
        fill(&fixture, name, name, &["kept"]).await;
        has_keys(&fixture, name, &["kept", "own"]).await;
    }
}

#[tokio::test]
async fn other_content_is_replaced_and_rolled_for() {
    let fixture = Fixture::new("adopt-other").await;
    let daemon = fixture.daemon().await;
    fixture.set("k", "new");
    let old = "canary-of-what-was-there";
    fixture.apply(&theirs("t", json!({"k": old}))).await;
    fixture
        .apply(&fixture.deployment("d", Some("true"), "t", "k"))
        .await;
    let status = ["rollout", "status", "deployment/d", "--timeout=60s"];
    let namespace = ["--namespace", &fixture.namespace];
    let status = [&status[..], &namespace].concat();
    fixture.testbed.kubectl(&status).await.ok();
    consent(&fixture, "t", "m").await;
    fill(&fixture, "m", "t", &["k"]).await;
    fixture.secret_has("t", "k", b"new").await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "2");
    assert!(!daemon.log().contains(old), "what was read is told");
}

#[tokio::test]
async fn two_mirrors_share_what_consents_to_both() {
    let fixture = Fixture::new("adopt-two").await;
    let _daemon = fixture.daemon().await;
    for key in ["a", "b", "c"] {
        fixture.set(key, "v");
    }
    let data = json!({"a": "v", "b": "v", "c": "theirs"});
    fixture.apply(&theirs("t", data)).await;
    consent(&fixture, "t", "a, b").await;
    for name in ["a", "b"] {
        fill(&fixture, name, "t", &[name]).await;
        fixture.reason(name, "Mirrored").await;
    }
    // A third one has no consent, and the key is not its own.
    fill(&fixture, "c", "t", &["c"]).await;
    let message = fixture.reason("c", "TargetConflict").await;
    let manager = "belongs to field manager kubectl";
    assert!(message.contains(manager), "{message}");
    assert!(message.ends_with("adopt-by=c"), "{message}");
    let secret = has_keys(&fixture, "t", &["a", "b", "c"]).await;
    assert_eq!(secret.data.unwrap_or_default()["c"].0, b"theirs");
}
