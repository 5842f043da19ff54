//! What the API server refuses at apply, and the sentence it gives.

use std::slice::from_ref;

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
            &["say what the keys are from: certificate, expand, match, basicAuth or dockerConfig"],
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
            "/spec/dataFrom",
            json!([{"match": {}}]),
            &["say which secrets are meant, by namePattern, by tags, or by both"],
        ),
        (
            "/spec/dataFrom",
            json!([{"match": {"tags": {"a": "b"}, "rename": "$1"}}]),
            &["rename goes with namePattern"],
        ),
        (
            "/spec/dataFrom",
            json!([{"match": {"namePattern": "a"}, "certificate": {"name": "a"}}]),
            &["match, basicAuth or dockerConfig, one of them"],
        ),
        (
            "/spec/template",
            json!({"data": {"with/slash": "x"}}),
            &[key_rule],
        ),
        (
            "/spec/template",
            json!({"data": {}}),
            &["spec.template.data", "at least 1 properties"],
        ),
        (
            "/spec/template",
            json!({"mergePolicy": "Add", "data": {"k": "x"}}),
            &["spec.template.mergePolicy", "\"Replace\""],
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
            "/spec/target",
            json!({"kind": "ConfigMap", "name": "t", "type": "kubernetes.io/tls"}),
            &["type is for Secrets"],
        ),
        (
            "/spec/target/kind",
            json!("Pod"),
            &["spec.target.kind", "\"ConfigMap\""],
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
async fn a_type_without_its_keys_is_refused_at_apply() {
    let fixture = Fixture::new("refused-type").await;
    let mirror = fixture.mirror("m", "t", &[("k", "s"), ("tls.crt", "s")]);
    for (type_, words) in [
        ("tls", ["tls.crt and tls.key", "a certificate in dataFrom"]),
        (
            "dockerconfigjson",
            ["the key .dockerconfigjson", "a dockerConfig in dataFrom"],
        ),
        (
            "dockercfg",
            ["the key .dockercfg", "a dockerConfig in dataFrom"],
        ),
        (
            "basic-auth",
            [
                "the key username or the key password",
                "a basicAuth in dataFrom",
            ],
        ),
        ("ssh-auth", ["the key ssh-privatekey", "name it in data"]),
    ] {
        let type_ = json!(format!("kubernetes.io/{type_}"));
        refused(&fixture, &mirror, "/spec/target/type", type_, &words).await;
    }
    for (name, type_, keys) in [
        ("tls", "tls", ["tls.crt", "tls.key"]),
        ("json", "dockerconfigjson", [".dockerconfigjson", "k"]),
        ("cfg", "dockercfg", [".dockercfg", "k"]),
        ("user", "basic-auth", ["username", "k"]),
        ("password", "basic-auth", ["password", "k"]),
        ("ssh", "ssh-auth", ["ssh-privatekey", "known_hosts"]),
    ] {
        let mut mirror = fixture.mirror(name, name, &keys.map(|key| (key, "s")));
        mirror["spec"]["target"]["type"] = json!(format!("kubernetes.io/{type_}"));
        fixture.apply(&mirror).await;
    }
    // Of dataFrom, only the content tells which keys it fills.
    let mut mirror = fixture.mirror("expanded", "expanded", &[("tls.crt", "s")]);
    mirror["spec"]["dataFrom"] = json!([{"expand": {"object": {"name": "s"}, "format": "json"}}]);
    mirror["spec"]["target"]["type"] = json!("kubernetes.io/tls");
    fixture.apply(&mirror).await;
}

#[tokio::test]
async fn logins_that_can_not_be_right_are_refused_at_apply() {
    let fixture = Fixture::new("refused-login").await;
    let mut mirror = fixture.mirror("m", "t", &[]);
    let registry = |server: &str, username: Value| {
        let mut registry = json!({"server": server, "password": {"name": "p"}});
        if let (Some(registry), Some(username)) = (registry.as_object_mut(), username.as_object()) {
            registry.extend(username.clone());
        }
        registry
    };
    let docker = |registries: &[Value]| json!([{"dockerConfig": {"registries": registries}}]);
    let basic = json!({"basicAuth": {"object": {"name": "s"}}});
    let good = registry("r", json!({"username": "u"}));
    let both = json!({"username": "u", "usernameFrom": {"name": "u"}});
    let one_user = "give either username or usernameFrom";
    for (value, words) in [
        (docker(&[]), ["registries", "at least 1 items"]),
        (
            docker(&[registry("r", json!({}))]),
            ["registries[0]", one_user],
        ),
        (docker(&[registry("r", both)]), ["registries[0]", one_user]),
        (
            docker(&[registry("r", json!({"username": "a:b"}))]),
            ["registries[0].username", "should match"],
        ),
        (
            docker(&[registry("with space", json!({"username": "u"}))]),
            ["registries[0].server", "should match"],
        ),
        (
            docker(&[good.clone(), good.clone()]),
            ["registries[1]", "Duplicate value"],
        ),
        (
            json!([docker(from_ref(&good))[0], docker(from_ref(&good))[0]]),
            ["only one dockerConfig", "all registries in one"],
        ),
        (
            json!([basic, basic]),
            ["only one basicAuth", "a target of its own"],
        ),
    ] {
        refused(&fixture, &mirror, "/spec/dataFrom", value, &words).await;
    }
    mirror["spec"]["dataFrom"] = json!([basic, docker(&[good])[0]]);
    fixture.apply(&mirror).await;
}

#[tokio::test]
async fn an_immutable_target_of_what_has_no_version_is_refused_at_apply() {
    let fixture = Fixture::new("refused-immutable").await;
    let pinned = |name: &str| json!({"name": name, "version": "0123456789abcdef0123456789abcdef"});
    let latest = json!({"name": "x"});
    let registries = |username: &Value, password: &Value| json!({"registries": [{"server": "r", "usernameFrom": username, "password": password}]});
    let certificate = |version: bool, format: &str, password: &Value| {
        let mut certificate = if version { pinned("c") } else { latest.clone() };
        certificate["keystore"] = json!({"format": format, "password": password});
        certificate
    };
    let mut mirror = fixture.mirror("m", "t", &[]);
    mirror["spec"]["data"] = json!([{"key": "k", "object": pinned("s")}]);
    mirror["spec"]["target"]["immutable"] = json!(true);
    let rule = ["give each object a version", "leave out target.immutable"];
    let data = json!([{"key": "k", "object": latest}]);
    refused(&fixture, &mirror, "/spec/data", data, &rule).await;
    let p = pinned("p");
    for source in [
        json!({"expand": {"object": latest, "format": "json"}}),
        json!({"basicAuth": {"object": latest}}),
        json!({"dockerConfig": registries(&latest, &p)}),
        json!({"dockerConfig": registries(&p, &latest)}),
        json!({"certificate": latest}),
        json!({"certificate": certificate(false, "JKS", &p)}),
        json!({"certificate": certificate(true, "JKS", &latest)}),
    ] {
        let sources = json!([source]);
        refused(&fixture, &mirror, "/spec/dataFrom", sources, &rule).await;
    }
    let sources = json!([{"certificate": certificate(true, "PKCS12", &p)}]);
    let words = ["a PKCS12 keystore", "write format: JKS"];
    refused(&fixture, &mirror, "/spec/dataFrom", sources, &words).await;

    mirror["spec"]["dataFrom"] = json!([
        {"expand": {"object": pinned("e"), "format": "json"}},
        {"basicAuth": {"object": pinned("b")}},
        {"dockerConfig": registries(&pinned("u"), &p)},
        {"certificate": certificate(true, "JKS", &p)},
    ]);
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
            "/spec/allowConfigMap",
            json!([]),
            &["spec.allowConfigMap", "at least 1 items"],
        ),
        (
            "/spec/allowConfigMap",
            json!(["a/b"]),
            &["spec.allowConfigMap[0]", "should match"],
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
