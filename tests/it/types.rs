//! Secrets of the types that Kubernetes knows: what they must have, what is built for them, and how large they may be.

use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::fixture::{Fixture, SOON};
use crate::testbed::eventually;

/// A mirror into a Secret of its own name and of this type.
fn typed(fixture: &Fixture, name: &str, type_: &str, sources: Value) -> Value {
    let mut mirror = fixture.mirror(name, name, &[]);
    for (field, value) in sources.as_object().into_iter().flatten() {
        mirror["spec"][field] = value.clone();
    }
    mirror["spec"]["target"]["type"] = type_.into();
    mirror
}

fn expanded(object: &str) -> Value {
    json!({"dataFrom": [{"expand": {"object": {"name": object}, "format": "json"}}]})
}

#[tokio::test]
async fn a_secret_without_a_key_of_its_type_is_not_written() {
    let fixture = Fixture::new("unfit").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", r#"{"tls.crt": "c"}"#);
    let mirror = typed(&fixture, "t", "kubernetes.io/tls", expanded("s"));
    fixture.apply(&mirror).await;
    let message = fixture.reason("t", "InvalidContent").await;
    assert!(
        message.contains("key tls.key") && message.contains("dataFrom[].certificate"),
        "{message}"
    );
    let nothing = fixture.secrets().get_opt("t").await.expect("asked");
    assert!(nothing.is_none(), "{nothing:?}");

    fixture.set("s", r#"{"tls.crt": "c", "tls.key": "k"}"#);
    let written = fixture.secret_has("t", "tls.key", b"k").await;
    assert_eq!(written.type_.as_deref(), Some("kubernetes.io/tls"));
    fixture.reason("t", "Mirrored").await;

    fixture.set("s", r#"{"tls.crt": "other"}"#);
    fixture.reason("t", "InvalidContent").await;
    fixture.event("t", "InvalidContent").await;
    let kept = fixture.secrets().get("t").await.expect("the Secret");
    assert_eq!(kept.resource_version(), written.resource_version());
}

/// One of the mirrors that fill the TLS Secret `t` together.
fn part(fixture: &Fixture, name: &str) -> Value {
    let mut mirror = typed(fixture, name, "kubernetes.io/tls", expanded(name));
    mirror["spec"]["target"]["name"] = json!("t");
    mirror
}

/// What they fill it with.
fn set_parts(fixture: &Fixture) {
    fixture.set("pair", r#"{"tls.crt": "c", "tls.key": "k"}"#);
    fixture.set("more", r#"{"more": "m"}"#);
}

#[tokio::test]
async fn keys_of_a_type_that_another_mirror_fills_are_there() {
    let fixture = Fixture::new("unfit-shared").await;
    let _daemon = fixture.daemon().await;
    set_parts(&fixture);
    fixture.apply(&part(&fixture, "pair")).await;
    fixture.reason("pair", "Mirrored").await;
    fixture.apply(&part(&fixture, "more")).await;
    fixture
        .secret_has_keys("t", &["more", "tls.crt", "tls.key"])
        .await;
}

#[tokio::test]
async fn a_mirror_that_came_before_those_that_fill_the_rest_is_looked_at_when_they_have() {
    let fixture = Fixture::new("unfit-first").await;
    let _daemon = fixture.daemon().await;
    set_parts(&fixture);
    let mirror = |name: &str| {
        let mut mirror = part(&fixture, name);
        mirror["spec"]["refreshInterval"] = json!("2h");
        mirror
    };
    fixture.apply(&mirror("more")).await;
    fixture.reason("more", "InvalidContent").await;
    fixture.apply(&mirror("pair")).await;
    fixture
        .secret_has_keys("t", &["more", "tls.crt", "tls.key"])
        .await;
    fixture.reason("more", "Mirrored").await;
}

#[tokio::test]
async fn a_docker_config_that_is_none_is_said_and_mended_in_the_vault() {
    let fixture = Fixture::new("docker").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "{\n\"auths\": hunter2");
    let data = json!({"data": [{"key": ".dockerconfigjson", "object": {"name": "s"}}]});
    let type_ = "kubernetes.io/dockerconfigjson";
    fixture.apply(&typed(&fixture, "t", type_, data)).await;
    let message = fixture.reason("t", "InvalidContent").await;
    assert!(
        message.contains("line 2") && message.contains(type_) && !message.contains("hunter2"),
        "{message}"
    );
    let config = r#"{"auths": {"registry.example.com": {"auth": "dTpw"}}}"#;
    fixture.set("s", config);
    fixture
        .secret_has("t", ".dockerconfigjson", config.as_bytes())
        .await;
    fixture.reason("t", "Mirrored").await;
}

#[tokio::test]
async fn logins_become_secrets_of_their_types() {
    let fixture = Fixture::new("logins").await;
    let _daemon = fixture.daemon().await;
    fixture.set("login", " u:p:q\n");
    fixture.set("user", "me");
    fixture.set("password", "first");
    let basic =
        json!({"dataFrom": [{"basicAuth": {"object": {"name": "login"}, "transforms": ["trim"]}}]});
    let type_ = "kubernetes.io/basic-auth";
    fixture.apply(&typed(&fixture, "basic", type_, basic)).await;
    let registries = json!([
        {"server": "contoso.azurecr.io", "username": "pull", "password": {"name": "password"}},
        {"server": "registry.example.com", "usernameFrom": {"name": "user"}, "password": {"name": "password"}},
    ]);
    let docker = json!({"dataFrom": [{"dockerConfig": {"registries": registries}}]});
    for (name, type_) in [
        ("json", "kubernetes.io/dockerconfigjson"),
        ("cfg", "kubernetes.io/dockercfg"),
    ] {
        let mirror = typed(&fixture, name, type_, docker.clone());
        fixture.apply(&mirror).await;
    }
    let ssh = json!({"data": [{"key": "ssh-privatekey", "object": {"name": "password"}}]});
    let type_ = "kubernetes.io/ssh-auth";
    fixture.apply(&typed(&fixture, "ssh", type_, ssh)).await;

    fixture.secret_has("basic", "username", b"u").await;
    let secret = fixture.secret_has("basic", "password", b"p:q").await;
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/basic-auth"));
    fixture.secret_has("ssh", "ssh-privatekey", b"first").await;
    let auths = |first: &str, second: &str| {
        format!(r#"{{"contoso.azurecr.io":{first},"registry.example.com":{second}}}"#)
    };
    let before = auths(
        r#"{"username":"pull","password":"first","auth":"cHVsbDpmaXJzdA=="}"#,
        r#"{"username":"me","password":"first","auth":"bWU6Zmlyc3Q="}"#,
    );
    let json = format!(r#"{{"auths":{before}}}"#);
    fixture
        .secret_has("json", ".dockerconfigjson", json.as_bytes())
        .await;
    fixture
        .secret_has("cfg", ".dockercfg", before.as_bytes())
        .await;

    fixture.set("password", "2nd");
    let after = auths(
        r#"{"username":"pull","password":"2nd","auth":"cHVsbDoybmQ="}"#,
        r#"{"username":"me","password":"2nd","auth":"bWU6Mm5k"}"#,
    );
    fixture
        .secret_has("cfg", ".dockercfg", after.as_bytes())
        .await;
    for name in ["basic", "json", "cfg", "ssh"] {
        fixture.reason(name, "Mirrored").await;
    }
}

#[tokio::test]
async fn an_immutable_secret_keeps_its_content_and_needs_another_name_for_other() {
    let fixture = Fixture::new("immutable").await;
    let _daemon = fixture.daemon().await;
    let (first, second) = (fixture.set("s", "first"), fixture.set("s", "second"));
    let mirror = |target: &str, version: &str| {
        let mut mirror = fixture.mirror("m", target, &[("k", "s")]);
        mirror["spec"]["data"][0]["object"]["version"] = json!(version);
        mirror["spec"]["target"]["immutable"] = json!(true);
        mirror
    };
    fixture.apply(&mirror("t", &first.version)).await;
    let written = fixture.secret_has("t", "k", b"first").await;
    assert_eq!(written.immutable, Some(true));
    fixture.reason("m", "Mirrored").await;

    let mut labelled = mirror("t", &first.version);
    labelled["spec"]["target"]["labels"] = json!({"team": "a"});
    fixture.apply(&labelled).await;
    eventually(SOON, "it has the label", async || {
        let secret = fixture.secrets().get("t").await;
        let labels = secret.map_err(|error| error.to_string())?.metadata.labels;
        match labels.unwrap_or_default().get("team") {
            Some(_) => Ok(()),
            None => Err("not yet".to_owned()),
        }
    })
    .await;

    fixture.apply(&mirror("t", &second.version)).await;
    let message = fixture.reason("m", "TargetConflict").await;
    assert!(
        message.contains("immutable")
            && message.contains("another spec.target.name")
            && message.contains("delete the Secret"),
        "{message}"
    );
    let kept = fixture.secret_has("t", "k", b"first").await;
    assert_eq!(kept.uid(), written.uid());

    // Both ways that the message names lead on.
    let delete = DeleteParams::default();
    fixture.secrets().delete("t", &delete).await.expect("t");
    fixture.secret_has("t", "k", b"second").await;
    fixture.reason("m", "Mirrored").await;
    fixture.apply(&mirror("u", &first.version)).await;
    fixture.secret_has("u", "k", b"first").await;
    fixture.secret_is_gone("t").await;
}

#[tokio::test]
async fn a_secret_that_would_be_too_large_is_said_once_and_not_tried() {
    let fixture = Fixture::new("large").await;
    let _daemon = fixture.daemon().await;
    fixture.set("large", &"x".repeat(25_000));
    fixture.set("clock", "v");
    let keys: Vec<String> = (0..45).map(|number| format!("k{number:02}")).collect();
    let data: Vec<(&str, &str)> = keys.iter().map(|key| (&**key, "large")).collect();
    fixture.apply(&fixture.mirror("m", "t", &data[..40])).await;
    fixture.reason("m", "Mirrored").await;
    let before = fixture.secrets().get("t").await.expect("the Secret");

    fixture.apply(&fixture.mirror("m", "t", &data)).await;
    let message = fixture.reason("m", "TooLarge").await;
    assert!(
        message.contains("1125000 bytes") && message.contains("several mirrors"),
        "{message}"
    );
    let conditions = fixture.conditions("m").await;
    assert!(
        conditions.iter().any(|(type_, ..)| type_ == "Stalled"),
        "{conditions:?}"
    );
    fixture.event("m", "TooLarge").await;
    let told = fixture.mirrors().get("m").await.expect("the mirror");
    let clock = fixture.mirror("clock", "clock", &[("k", "clock")]);
    fixture.apply(&clock).await;
    fixture.cycles(3).await;
    let again = fixture.mirrors().get("m").await.expect("the mirror");
    assert_eq!(again.resource_version(), told.resource_version());
    assert_eq!(fixture.events("m", "TooLarge").await.len(), 1);
    let kept = fixture.secrets().get("t").await.expect("the Secret");
    assert_eq!(kept.resource_version(), before.resource_version());

    // What the vault has then is small enough.
    fixture.set("large", "small");
    fixture.secret_has("t", "k44", b"small").await;
    fixture.reason("m", "Mirrored").await;
}
