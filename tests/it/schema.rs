//! What the API server refuses at apply, and the sentence it gives.

use serde_json::{Value, json};

use crate::fixture::Fixture;

/// Applies a changed manifest, which must be refused with a message that holds these words.
async fn refused(fixture: &Fixture, manifest: &Value, pointer: &str, value: Value, words: &[&str]) {
    let mut manifest = manifest.clone();
    let (parent, field) = pointer.rsplit_once('/').expect("a pointer");
    let parent = manifest.pointer_mut(parent).expect("a parent");
    match parent {
        Value::Array(items) => items.push(value.clone()),
        object => object[field] = value.clone(),
    }
    let output = fixture
        .testbed
        .apply(&fixture.namespace, &manifest.to_string())
        .await;
    assert!(!output.success, "{pointer} = {value} was taken");
    for word in words {
        assert!(
            output.stderr.contains(word),
            "{pointer} = {value}: {word} is not in: {}",
            output.stderr
        );
    }
}

#[tokio::test]
async fn a_mirror_that_can_not_be_right_is_refused_at_apply() {
    let fixture = Fixture::new("refused").await;
    let mirror = fixture.mirror("m", "t", &[("k", "s")]);
    let key_rule = "a key of a Secret consists of letters, digits, '-', '_' and '.'";
    for key in ["with/slash", "with space", "..", ".", "ä"] {
        refused(
            &fixture,
            &mirror,
            "/spec/data/0/key",
            json!(key),
            &[key_rule],
        )
        .await;
    }
    let one_vault = "give either name or url of the vault, not both and not neither";
    let url = "https://contoso.vault.azure.net";
    for (pointer, value, words) in [
        (
            "/spec/data/0/key",
            json!(""),
            ["spec.data[0].key", "at least 1 chars"].as_slice(),
        ),
        (
            "/spec/data",
            json!([]),
            &["give at least one entry of data or dataFrom"],
        ),
        (
            "/spec/dataFrom",
            json!([{}]),
            &["say what the keys are from: certificate or expand"],
        ),
        (
            "/spec/dataFrom",
            json!([{"certificate": {"name": "a"}}, {"certificate": {"name": "b"}}]),
            &["only one certificate can fill tls.crt"],
        ),
        (
            "/spec/dataFrom",
            json!([{"certificate": {"name": "a", "keystore": {"format": "JKS", "key": "tls.key", "password": {"name": "p"}}}}]),
            &["give the keystore another key"],
        ),
        (
            "/spec/data/0/object",
            json!({"kind": "key", "name": "k", "property": "a"}),
            &["property is for secrets"],
        ),
        (
            "/spec/data/0/object/format",
            json!("JWK"),
            &["format is for keys"],
        ),
        (
            "/spec/data/-",
            json!({"key": "k", "object": {"name": "other"}}),
            &["Duplicate value"],
        ),
        (
            "/spec/data/0/object/name",
            json!("under_score"),
            &["spec.data[0].object.name", "should match"],
        ),
        (
            "/spec/data/0/object/version",
            json!("latest"),
            &["spec.data[0].object.version", "should match"],
        ),
        (
            "/spec/data/0/object/kind",
            json!("password"),
            &["spec.data[0].object.kind", "\"secret\""],
        ),
        (
            "/spec/identity",
            json!({"serviceAccountName": "Upper"}),
            &["spec.identity.serviceAccountName", "should match"],
        ),
        ("/spec/vault/url", json!(url), &[one_vault]),
        ("/spec/vault", json!({}), &[one_vault]),
        (
            "/spec/vault",
            json!({"url": "http://contoso.vault.azure.net"}),
            &["spec.vault.url", "should match"],
        ),
        (
            "/spec/vault/name",
            json!("x"),
            &["spec.vault.name", "should match"],
        ),
        (
            "/spec/refreshInterval",
            json!("soon"),
            &["spec.refreshInterval", "should match"],
        ),
        (
            "/spec/refreshInterval",
            json!("5s"),
            &["refreshInterval must be at least 10s"],
        ),
        (
            "/spec/target/name",
            json!("Upper"),
            &["spec.target.name", "should match"],
        ),
        (
            "/spec/target/type",
            json!("kubernetes.io/service-account-token"),
            &["spec.target.type", "\"Opaque\""],
        ),
        (
            "/spec/target/labels",
            json!({"keytide.dev/mirrored": "x"}),
            &["labels under keytide.dev are the daemon's own"],
        ),
        (
            "/spec/target/annotations",
            json!({"keytide.dev/x": "x"}),
            &["annotations under keytide.dev are the daemon's own"],
        ),
        (
            "/spec/deletionPolicy",
            json!("Orphan"),
            &["spec.deletionPolicy", "\"Retain\""],
        ),
        (
            "/spec/unknown",
            json!(1),
            &["unknown field \"spec.unknown\""],
        ),
    ] {
        refused(&fixture, &mirror, pointer, value, words).await;
    }
    fixture.apply(&mirror).await;
}

#[tokio::test]
async fn a_grant_that_can_not_be_right_is_refused_at_apply() {
    let fixture = Fixture::without_grant("refused-grant").await;
    let grant = fixture.grant_of(&fixture.namespace, "*");
    for (pointer, value, words) in [
        (
            "/spec/namespaces",
            json!([]),
            ["spec.namespaces", "at least 1 items"].as_slice(),
        ),
        (
            "/spec/namespaces",
            json!(["Upper"]),
            &["spec.namespaces[0]", "should match"],
        ),
        (
            "/spec/objects",
            json!([]),
            &["spec.objects", "at least 1 items"],
        ),
        (
            "/spec/objects/0/name",
            json!("a/b"),
            &["spec.objects[0].name", "should match"],
        ),
        (
            "/spec/vault",
            json!({}),
            &["give either name or url of the vault"],
        ),
        (
            "/spec/identity",
            json!({"clientId": ""}),
            &["spec.identity.clientId", "at least 1 chars"],
        ),
        (
            "/spec/identity",
            json!({}),
            &["give either clientId or mirrorsOwn"],
        ),
        (
            "/spec/identity",
            json!({"clientId": "a", "mirrorsOwn": {}}),
            &["give either clientId or mirrorsOwn"],
        ),
        (
            "/spec/identity",
            json!({"tenantId": "t", "mirrorsOwn": {}}),
            &["tenantId goes with clientId"],
        ),
        (
            "/spec/namespaceSelector",
            json!({}),
            &["an empty selector would be every namespace"],
        ),
        (
            "/spec/namespaces",
            Value::Null,
            &["say which namespaces may read"],
        ),
    ] {
        refused(&fixture, &grant, pointer, value, words).await;
    }
    fixture.apply(&grant).await;
}

#[tokio::test]
async fn a_mirror_is_shown_in_columns_and_explained() {
    let fixture = Fixture::new("columns").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture.reason("m", "Mirrored").await;
    let shown = fixture
        .testbed
        .kubectl(&["get", "kvm", "m", "-n", &fixture.namespace])
        .await
        .ok();
    let words: Vec<&str> = shown.split_whitespace().collect();
    assert_eq!(
        words[..9],
        [
            "NAME", "READY", "REASON", "TARGET", "AGE", "m", "True", "Mirrored", "t"
        ]
    );
    let explained = fixture
        .testbed
        .kubectl(&["explain", "keyvaultmirror.spec.refreshInterval"])
        .await
        .ok();
    assert!(
        explained.contains("How often the vault is asked"),
        "{explained}"
    );
}
