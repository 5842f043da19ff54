use serde_json::{Value, json};

use super::*;

fn spec(data: Value, data_from: Value) -> KeyVaultMirrorSpec {
    serde_json::from_value(json!({
        "vault": {"name": "contoso"},
        "data": data,
        "dataFrom": data_from,
        "target": {"name": "t"},
    }))
    .expect("a spec")
}

/// Renders with what `value` says each source has.
fn rendered(
    spec: &KeyVaultMirrorSpec,
    value: impl Fn(&Source) -> &'static str,
) -> Result<Rendered, Unrenderable> {
    render(spec, &contents(spec, value)).map_err(|error| match error {
        RenderError::Object(error) => error,
        RenderError::Template(error) => panic!("{error}"),
    })
}

fn contents(spec: &KeyVaultMirrorSpec, value: impl Fn(&Source) -> &'static str) -> Contents {
    let read = |source: Source| {
        let secret = VaultSecret {
            value: value(&source).as_bytes().to_vec().into(),
            version: "1".into(),
            updated: None,
            not_before: None,
            expires: None,
        };
        (source, Arc::new(secret))
    };
    sources(spec).into_iter().map(read).collect()
}

const PASSWORD: &str = "changeit";

fn with_keystore(format: &str) -> KeyVaultMirrorSpec {
    let keystore = json!({"format": format, "password": {"name": "password"}});
    spec(
        json!([]),
        json!([{"certificate": {"name": "web", "keystore": keystore}}]),
    )
}

fn web(source: &Source) -> &'static str {
    match source.kind {
        ObjectKind::Secret => PASSWORD,
        _ => include_str!("testdata/modern.pfx"),
    }
}

#[test]
fn a_secret_is_taken_byte_for_byte() {
    let spec = spec(json!([{"key": "k", "object": {"name": "s"}}]), json!([]));
    let rendered = rendered(&spec, |_| " line\r\n").expect("rendered");
    assert_eq!(rendered["k"].value.expose(), b" line\r\n");
}

#[test]
fn an_object_that_two_keys_want_is_read_once() {
    let spec = spec(
        json!([
            {"key": "a", "object": {"name": "s"}},
            {"key": "b", "object": {"name": "s"}},
            {"key": "c", "object": {"kind": "certificate", "name": "s"}},
        ]),
        json!([]),
    );
    let collections: Vec<_> = sources(&spec)
        .iter()
        .map(|s| s.collection.to_string())
        .collect();
    assert_eq!(collections, ["secrets", "certificates"]);
}

#[test]
fn a_certificate_with_its_key_is_read_as_the_secret_behind_it_and_granted_as_a_certificate() {
    let spec = spec(json!([]), json!([{"certificate": {"name": "web"}}]));
    let source = &sources(&spec)[0];
    assert_eq!(source.kind, ObjectKind::Certificate);
    assert_eq!(source.collection.to_string(), "secrets");
}

#[test]
fn a_certificate_that_a_secret_holds_is_read_and_granted_as_a_secret() {
    let certificate = json!({"kind": "secret", "name": "web", "layout": "akv2k8s"});
    let spec = spec(json!([]), json!([{"certificate": certificate}]));
    assert_eq!(sources(&spec)[0].kind, ObjectKind::Secret);
    let rendered = rendered(&spec, |_| include_str!("testdata/modern.pfx")).expect("rendered");
    let keys: Vec<&str> = rendered.keys().map(String::as_str).collect();
    assert_eq!(keys, ["tls.crt", "tls.key"]);
    assert_eq!(super::keys(&spec), keys);
    assert_eq!(rendered["tls.key"].kind, ObjectKind::Secret);
}

#[test]
fn a_raw_certificate_is_read_as_the_secret_behind_it_and_granted_as_a_certificate() {
    let object = json!({"kind": "certificate", "name": "web", "format": "Raw"});
    let spec = spec(json!([{"key": "k", "object": object}]), json!([]));
    let source = &sources(&spec)[0];
    assert_eq!(source.kind, ObjectKind::Certificate);
    assert_eq!(source.collection.to_string(), "secrets");
    let pem = include_str!("testdata/rsa.crt");
    let rendered = rendered(&spec, |_| pem).expect("rendered");
    assert_eq!(rendered["k"].value.expose(), pem.as_bytes());
}

#[test]
fn an_error_names_the_object_and_not_its_content() {
    let spec = with_keystore("JKS");
    let short = |source: &Source| match source.kind {
        ObjectKind::Secret => "12345",
        _ => web(source),
    };
    let error = rendered(&spec, short).expect_err("refused");
    assert_eq!(
        (error.kind, error.object.as_str()),
        (ObjectKind::Secret, "password")
    );
    assert!(!error.to_string().contains("12345"), "{error}");
    let error = rendered(&spec, |_| "hunter2").expect_err("refused");
    assert!(error.to_string().starts_with("certificate web "), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn a_keystore_of_java_is_the_same_each_time() {
    let make = || rendered(&with_keystore("JKS"), web).expect("rendered");
    assert_eq!(make()["keystore.jks"].value, make()["keystore.jks"].value);
    assert_eq!(make().len(), 4);
}

#[test]
fn a_pkcs12_keystore_differs_each_time_and_counts_as_the_same() {
    let make = |password| {
        let value = move |source: &Source| match source.kind {
            ObjectKind::Secret => password,
            _ => web(source),
        };
        rendered(&with_keystore("PKCS12"), value)
            .expect("rendered")
            .remove("keystore.p12")
    };
    let (first, second, other) = (make(PASSWORD), make(PASSWORD), make("another one"));
    let (first, second, other) = (
        first.expect("p12"),
        second.expect("p12"),
        other.expect("p12"),
    );
    assert_ne!(first.value, second.value);
    assert_eq!(first.identity(), second.identity());
    assert_ne!(first.identity(), other.identity());
}

#[test]
fn a_property_is_taken_out_and_transformed() {
    let entry = json!({"key": "k", "object": {"name": "s", "property": "db.password"}, "transforms": ["trim", "upper"]});
    let rendered = rendered(
        &spec(json!([entry]), json!([])),
        |_| r#"{"db": {"password": " x\n"}}"#,
    );
    assert_eq!(rendered.expect("rendered")["k"].value.expose(), b"X");
}

#[test]
fn an_expanded_secret_fills_keys_that_nobody_else_fills() {
    let expand = json!([{"expand": {"object": {"name": "s"}, "format": "json"}}]);
    let value = |_: &Source| r#"{"a": 1, "b": 2}"#;
    let all = rendered(&spec(json!([]), expand.clone()), value).expect("rendered");
    assert_eq!(all.keys().collect::<Vec<_>>(), ["a", "b"]);
    let entry = json!([{"key": "b", "object": {"name": "s"}}]);
    let error = rendered(&spec(entry, expand), value).expect_err("refused");
    assert_eq!(error.problem, Problem::KeyTwice("b".into()));
}

#[test]
fn a_template_fills_keys_beside_the_others_or_in_their_place() {
    let mut spec = spec(
        json!([{"key": "user", "object": {"name": "u"}}, {"key": "password", "object": {"name": "p"}}]),
        json!([]),
    );
    let value = |source: &Source| match source.name.as_str() {
        "u" => "app",
        _ => "a/b",
    };
    for (policy, expected) in [
        ("Merge", vec!["password", "url", "user"]),
        ("Replace", vec!["url"]),
    ] {
        let url = "https://{{ data.user }}:{{ data.password|urlencode }}@host\n";
        let template = json!({"mergePolicy": policy, "data": {"url": url}});
        spec.template = serde_json::from_value(template).expect("a template");
        let rendered = rendered(&spec, value).expect("rendered");
        assert_eq!(rendered.keys().collect::<Vec<_>>(), expected);
        assert_eq!(rendered["url"].value.expose(), b"https://app:a%2Fb@host\n");
        assert_eq!(rendered["url"].object, "p, u");
        let mut told = keys(&spec);
        told.sort_unstable();
        assert_eq!(told, expected);
    }
}

#[test]
fn a_keystore_needs_a_key() {
    let value = |source: &Source| match source.kind {
        ObjectKind::Secret => PASSWORD,
        _ => include_str!("testdata/nokey.pfx"),
    };
    let error = rendered(&with_keystore("PKCS12"), value).expect_err("refused");
    assert_eq!(error.problem, Problem::Keystore(KeystoreError::NoKey));
}

/// Java's own tool reads what was written, where it is installed.
#[test]
fn keytool_reads_the_keystores() {
    let folder = tempfile::tempdir().expect("a folder");
    for (format, key) in [("JKS", "keystore.jks"), ("PKCS12", "keystore.p12")] {
        let rendered = rendered(&with_keystore(format), web).expect("rendered");
        let path = folder.path().join(key);
        std::fs::write(&path, rendered[key].value.expose()).expect("written");
        let keytool = |arguments: &[&str]| {
            std::process::Command::new("keytool")
                .args(arguments)
                .args(["-storetype", format, "-storepass", PASSWORD, "-keystore"])
                .arg(&path)
                .output()
        };
        let Ok(listed) = keytool(&["-list", "-v"]) else {
            eprintln!("keytool is not installed");
            return;
        };
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        for line in [
            "Alias name: certificate",
            "PrivateKeyEntry",
            "Certificate chain length: 3",
        ] {
            assert!(listed.contains(line), "{line} in {listed}");
        }
        // This takes the private key out.
        let request = keytool(&["-certreq", "-alias", "certificate"]).expect("keytool");
        assert!(request.status.success());
    }
}
