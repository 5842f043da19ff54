//! Secret values never leave the path from GET to apply.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use keytide::devvault::Fault;
use serde_json::{Value, json};

use crate::fixture::{Fixture, QUICK, revision};

/// A value that is found in any text that holds it, in plain, hex or base64.
const CANARY: &str = "canary-7f3a9c51d2e84b06-sings";
/// The same as the password of keystores.
const PASSWORD: &str = "canary-e19d04b7-unlocks";

const EC: &str = include_str!("../../src/render/testdata/ec.crt");
const EC_KEY: &str = include_str!("../../src/render/testdata/ec.key");
const RSA: &str = include_str!("../../src/render/testdata/rsa.crt");
const RSA_KEY: &str = include_str!("../../src/render/testdata/rsa.key");
const MODERN_PFX: &str = include_str!("../../src/render/testdata/modern.pfx");
const LEGACY_PFX: &str = include_str!("../../src/render/testdata/legacy.pfx");
const PASSWORD_PFX: &str = include_str!("../../src/render/testdata/password.pfx");

/// What was planted, each with the forms in which it could leak.
static PLANTED: LazyLock<Vec<(&str, Vec<String>)>> = LazyLock::new(|| {
    let mut planted = vec![
        ("a secret value", forms(CANARY.as_bytes())),
        ("a keystore's password", forms(PASSWORD.as_bytes())),
    ];
    for (what, base64) in [
        ("a private key", EC_KEY),
        ("a private key", RSA_KEY),
        ("a PFX", MODERN_PFX),
        ("a PFX", LEGACY_PFX),
        ("a PFX", PASSWORD_PFX),
    ] {
        let piece = piece(base64);
        let der = STANDARD.decode(piece).expect("base64");
        planted.push((what, [forms(piece.as_bytes()), forms(&der)].concat()));
    }
    planted
});

/// A piece of PEM or of base64 on one line that nothing else has: of no header, and of nothing public.
fn piece(base64: &str) -> &str {
    let lines = base64.lines().filter(|line| !line.starts_with("-----"));
    // In a private key the public part comes first, or after the line that is taken here.
    let line = lines.max_by_key(|line| line.len()).expect("a line");
    // Groups of four are whole bytes.
    let start = if base64.contains('\n') {
        0
    } else {
        line.len() / 8 * 4
    };
    &line[start..start + 24]
}

/// The forms in which bytes could leak. Base64 of a longer text holds one of three forms, by where they begin in it; the
/// characters at the ends depend on the neighbours and are left out.
fn forms(bytes: &[u8]) -> Vec<String> {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = format!("{bytes:?}");
    let mut forms = vec![hex.to_uppercase(), hex, list[1..list.len() - 1].to_owned()];
    forms.extend(std::str::from_utf8(bytes).map(str::to_owned));
    for offset in 0..3 {
        let padded = [vec![b'x'; offset], bytes.to_vec()].concat();
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
    for (what, forms) in PLANTED.iter() {
        for form in forms {
            if let Some(at) = text.find(form) {
                let line = text[..at].matches('\n').count() + 1;
                panic!("{place} holds {what}, as {form}, in line {line}");
            }
        }
    }
}

/// A mirror of a certificate with a keystore into a Secret of its own name.
fn certificate(fixture: &Fixture, name: &str, format: &str) -> Value {
    let mut mirror = fixture.mirror(name, name, &[]);
    let keystore = json!({"format": format, "password": {"name": "password"}});
    mirror["spec"]["dataFrom"] = json!([{"certificate": {"name": name, "keystore": keystore}}]);
    mirror
}

/// Has certificates mirrored, and some that can't be.
async fn plant_certificates(fixture: &Fixture) {
    let mut grant = fixture.grant_of(&fixture.testbed.unique("certificates"), "*");
    grant["spec"]["objects"] = json!([{"kind": "certificate", "name": "*"}]);
    fixture.apply(&grant).await;
    fixture.set("password", PASSWORD);
    let azure = fixture.azure();
    azure
        .import_certificate(&fixture.vault, "imported", &[EC, EC_KEY].concat())
        .expect("imported");
    fixture.set("modern", MODERN_PFX);
    fixture.set("legacy", LEGACY_PFX);
    fixture.set("locked", PASSWORD_PFX);
    fixture.set("mismatched", &[EC, RSA_KEY].concat());
    fixture.set("cut", &[RSA, &RSA_KEY[..RSA_KEY.len() / 2]].concat());
    for (name, format) in [
        ("imported", "JKS"),
        ("modern", "PKCS12"),
        ("legacy", "JKS"),
        ("locked", "JKS"),
        ("mismatched", "PKCS12"),
        ("cut", "PKCS12"),
    ] {
        fixture.apply(&certificate(fixture, name, format)).await;
    }
    for (name, key) in [
        ("imported", EC_KEY),
        ("modern", RSA_KEY),
        ("legacy", RSA_KEY),
    ] {
        fixture.secret_has(name, "tls.key", key.as_bytes()).await;
    }
    for name in ["locked", "mismatched", "cut"] {
        fixture.reason(name, "InvalidContent").await;
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
        let forms = forms(CANARY.as_bytes());
        assert!(forms.iter().any(|form| text.contains(form)), "{offset}");
    }
}

#[test]
fn a_key_is_found_in_what_it_is_written_as() {
    let (_, key) = &PLANTED[3];
    let der = pem::parse(RSA_KEY).expect("PEM").into_contents();
    for text in [
        RSA_KEY.to_owned(),
        json!(RSA_KEY).to_string(),
        STANDARD.encode(RSA_KEY),
        STANDARD.encode(&der),
        format!("{der:?}"),
    ] {
        assert!(key.iter().any(|form| text.contains(form)), "{text}");
    }
    for (what, forms) in PLANTED.iter() {
        let short = forms.iter().find(|form| form.len() < 16);
        assert_eq!(short, None, "{what}: would be found in what is none");
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
    // Templates that fail over the value.
    for (name, text) in [
        ("decoded", "{{ data.k|b64decode }}"),
        (
            "unpacked",
            "{% for a, b in data.k|split(\"-\") %}{% endfor %}",
        ),
        ("called", "{{ data.k.upper() - data.k }}"),
    ] {
        let mut mirror = fixture.mirror(name, name, &[("k", "s")]);
        mirror["spec"]["template"] = json!({"data": {"made": text}});
        fixture.apply(&mirror).await;
    }
    // Targets that are none of their types, and one that the API server rejects: what is said of them could quote them.
    for (name, object) in [("text", "s"), ("json", "json")] {
        let mut mirror = fixture.mirror(name, name, &[(".dockerconfigjson", object)]);
        mirror["spec"]["target"]["type"] = json!("kubernetes.io/dockerconfigjson");
        fixture.apply(&mirror).await;
    }
    let mut mirror = fixture.mirror("login", "login", &[]);
    mirror["spec"]["dataFrom"] = json!([{"basicAuth": {"object": {"name": "s"}}}]);
    fixture.apply(&mirror).await;
    let mut mirror = fixture.mirror("rejected", "rejected", &[("k", "s")]);
    mirror["spec"]["target"]["labels"] = json!({"team": "not a value of a label"});
    fixture.apply(&mirror).await;
    fixture
        .apply(&fixture.deployment("d", Some("true"), "good", "k"))
        .await;
    fixture.secret_has("good", "k", CANARY.as_bytes()).await;
    for name in ["text", "json", "login"] {
        fixture.reason(name, "InvalidContent").await;
    }
    for name in ["decoded", "unpacked", "called"] {
        fixture.reason(name, "InvalidTemplate").await;
    }
    fixture.reason("rejected", "TargetRejected").await;
    fixture.settled("d", "good", "k").await;
    plant_certificates(&fixture).await;
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
    for name in ["good", "imported", "modern", "legacy"] {
        let mut target = fixture.secrets().get(name).await.expect("the target");
        target.data = None;
        assert_silent(
            "the target's metadata",
            &serde_json::to_string(&target).expect("JSON"),
        );
    }

    assert_eq!(daemon.terminate().await.expect("ended"), 0);
    let log = fixture.testbed.log_file("keytide-after-canary.log");
    *shared = fixture
        .system()
        .daemon(&log, &QUICK, &[])
        .await
        .expect("a daemon");
}
