//! Certificates and keys of the vault.

use keytide::devvault::Operation;
use serde_json::{Value, json};

use crate::fixture::Fixture;

const ROOT: &str = include_str!("../../src/render/testdata/root.crt");
const INTERMEDIATE: &str = include_str!("../../src/render/testdata/intermediate.crt");
const EC: &str = include_str!("../../src/render/testdata/ec.crt");
const EC_KEY: &str = include_str!("../../src/render/testdata/ec.key");
const RSA: &str = include_str!("../../src/render/testdata/rsa.crt");
const RSA_KEY: &str = include_str!("../../src/render/testdata/rsa.key");

/// A mirror of these sources into a Secret of its own name.
fn mirror(fixture: &Fixture, name: &str, type_: &str, sources: Value) -> Value {
    let mut mirror = fixture.mirror(name, name, &[]);
    let spec = &mut mirror["spec"];
    for (field, value) in sources.as_object().into_iter().flatten() {
        spec[field] = value.clone();
    }
    spec["target"]["type"] = type_.into();
    mirror
}

/// A namespace that may mirror objects of these kinds.
async fn granted(prefix: &str, kinds: &[&str]) -> Fixture {
    let fixture = Fixture::without_grant(prefix).await;
    let mut grant = fixture.grant_of(&fixture.namespace, "*");
    let objects: Vec<Value> = kinds
        .iter()
        .map(|kind| json!({"kind": kind, "name": "*"}))
        .collect();
    grant["spec"]["objects"] = objects.into();
    fixture.apply(&grant).await;
    fixture
}

#[tokio::test]
async fn a_certificate_becomes_a_tls_secret_and_its_renewal_is_followed() {
    let fixture = granted("certificate", &["certificate"]).await;
    let _daemon = fixture.daemon().await;
    let import = |value: &[&str]| {
        let azure = fixture.azure();
        azure
            .import_certificate(&fixture.vault, "web", &value.concat())
            .expect("imported");
    };
    import(&[ROOT, INTERMEDIATE, EC_KEY, EC]);
    let sources = json!({"dataFrom": [{"certificate": {"name": "web"}}]});
    fixture
        .apply(&mirror(&fixture, "web", "kubernetes.io/tls", sources))
        .await;
    let chain = |leaf: &str| [leaf, INTERMEDIATE, ROOT].concat();
    fixture
        .secret_has("web", "tls.crt", chain(EC).as_bytes())
        .await;
    fixture
        .secret_has("web", "tls.key", EC_KEY.as_bytes())
        .await;
    fixture.secret_has("web", "ca.crt", ROOT.as_bytes()).await;

    import(&[RSA, RSA_KEY, INTERMEDIATE, ROOT]);
    fixture
        .secret_has("web", "tls.crt", chain(RSA).as_bytes())
        .await;
    fixture
        .secret_has("web", "tls.key", RSA_KEY.as_bytes())
        .await;
}

#[tokio::test]
async fn public_parts_are_read_as_certificates_and_keys_and_found_by_their_lists() {
    let fixture = granted("public", &["certificate", "key"]).await;
    let _daemon = fixture.daemon().await;
    let names = ["a", "b", "c"];
    let import = |certificate: &str, key: &str| {
        for name in names {
            let value = [certificate, key].concat();
            fixture
                .azure()
                .import_certificate(&fixture.vault, name, &value)
                .expect("imported");
        }
    };
    import(EC, EC_KEY);
    let entries = names.iter().flat_map(|name| {
        [
            json!({"key": format!("{name}.crt"), "object": {"kind": "certificate", "name": name}}),
            json!({"key": format!("{name}.jwk"), "object": {"kind": "key", "name": name, "format": "JWK"}}),
        ]
    });
    let sources = json!({"data": entries.collect::<Vec<_>>()});
    fixture
        .apply(&mirror(&fixture, "public", "Opaque", sources))
        .await;
    let secret = fixture.secret_has("public", "a.crt", EC.as_bytes()).await;
    let data = secret.data.unwrap_or_default();
    let jwk: Value = serde_json::from_slice(&data["a.jwk"].0).expect("JSON");
    assert_eq!((&jwk["kty"], &jwk["crv"]), (&json!("EC"), &json!("P-256")));

    import(RSA, RSA_KEY);
    fixture.secret_has("public", "c.crt", RSA.as_bytes()).await;
    let host = format!("{}.vault.azure.net", fixture.vault);
    let requests = fixture.azure().requests();
    assert!(
        requests.count(&host, Operation::List) >= 2,
        "both are listed: {requests:?}"
    );
    assert!(
        !requests.secret_gets.contains_key(&host),
        "nothing is read as a secret: {requests:?}"
    );
}

#[tokio::test]
async fn a_grant_for_one_kind_is_none_for_another() {
    let fixture = granted("kinds", &["certificate"]).await;
    let _daemon = fixture.daemon().await;
    let azure = fixture.azure();
    azure
        .import_certificate(&fixture.vault, "web", &[EC, EC_KEY].concat())
        .expect("imported");
    for (name, kind) in [("secret", "secret"), ("key", "key")] {
        let sources = json!({"data": [{"key": "k", "object": {"kind": kind, "name": "web"}}]});
        fixture
            .apply(&mirror(&fixture, name, "Opaque", sources))
            .await;
        fixture.reason(name, "NotGranted").await;
    }
    let keystore = json!({"format": "JKS", "password": {"name": "password"}});
    let sources = json!({"dataFrom": [{"certificate": {"name": "web", "keystore": keystore}}]});
    fixture
        .apply(&mirror(&fixture, "keystore", "Opaque", sources))
        .await;
    fixture.reason("keystore", "NotGranted").await;
}

#[tokio::test]
async fn content_that_is_no_certificate_is_said_and_the_secret_keeps_what_it_had() {
    let fixture = granted("invalid", &["certificate", "secret"]).await;
    let _daemon = fixture.daemon().await;
    fixture.set("web", &[EC, EC_KEY].concat());
    fixture.set("password", "changeit");
    let keystore = json!({"format": "PKCS12", "password": {"name": "password"}});
    let sources = json!({"dataFrom": [{"certificate": {"name": "web", "keystore": keystore}}]});
    fixture
        .apply(&mirror(&fixture, "web", "kubernetes.io/tls", sources))
        .await;
    fixture.secret_has("web", "tls.crt", EC.as_bytes()).await;
    fixture.set("web", &[EC, RSA_KEY].concat());
    fixture.reason("web", "InvalidContent").await;
    fixture
        .secret_has("web", "tls.key", EC_KEY.as_bytes())
        .await;

    // And is mended in the vault.
    fixture.set("web", &[RSA, RSA_KEY].concat());
    let written = fixture.secret_has("web", "tls.crt", RSA.as_bytes()).await;
    fixture.reason("web", "Mirrored").await;

    // What is read again has other salts, and is no other content.
    fixture.sync_now("web").await;
    fixture.cycles(2).await;
    let later = fixture.secrets().get("web").await.expect("a Secret");
    assert_eq!(later.data, written.data);
}

#[tokio::test]
async fn parts_of_a_secret_fill_keys() {
    let fixture = granted("values", &["secret"]).await;
    let _daemon = fixture.daemon().await;
    fixture.set("config", r#"{"db": {"password": " p\n"}, "user": "u"}"#);
    fixture.set("env", "HOST=h\nPORT=1\n");
    let sources = json!({
        "data": [{
            "key": "password",
            "object": {"name": "config", "property": "db.password"},
            "transforms": ["trim", "base64Encode"],
        }],
        "dataFrom": [{"expand": {"object": {"name": "env"}, "format": "dotenv"}}],
    });
    fixture
        .apply(&mirror(&fixture, "values", "Opaque", sources))
        .await;
    fixture.secret_has("values", "password", b"cA==").await;
    fixture.secret_has("values", "PORT", b"1").await;

    // A value that goes takes its key along; what can't be read is said without what it is.
    fixture.set("env", "HOST=other\n");
    let secret = fixture.secret_has("values", "HOST", b"other").await;
    assert!(!secret.data.unwrap_or_default().contains_key("PORT"));
    fixture.set("config", "hunter2: [");
    let message = fixture.reason("values", "InvalidContent").await;
    assert!(
        message.contains("secret config") && !message.contains("hunter2"),
        "{message}"
    );
}
