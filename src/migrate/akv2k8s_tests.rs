//! What akv2k8s' documentation promises, byte for byte: its examples (<https://akv2k8s.io/tutorials/sync/>, and the types of
//! Secrets in <https://akv2k8s.io/reference/azure-key-vault-secret/>) written down from what it says they give.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::api::{KeyVaultMirrorSpec, SecretType};
use crate::render::{Rendered, Source, render, sources};
use crate::vault::VaultSecret;

const ROOT: &str = include_str!("../render/testdata/root.crt");
const INTERMEDIATE: &str = include_str!("../render/testdata/intermediate.crt");
const RSA: &str = include_str!("../render/testdata/rsa.crt");
const RSA_PKCS8: &str = include_str!("../render/testdata/rsa.key");
const RSA_PKCS1: &str = include_str!("../render/testdata/rsa.pkcs1.key");
const PFX: &str = include_str!("../render/testdata/modern.pfx");

/// A resource in a version of akv2k8s.
fn resource(version: &str, object: &Value, output: &Value) -> Value {
    json!({
        "apiVersion": format!("spv.no/{version}"),
        "kind": "AzureKeyVaultSecret",
        "metadata": {"name": "example", "namespace": "akv-test"},
        "spec": {"vault": {"name": "akv2k8s-test", "object": object}, "output": output},
    })
}

fn spec(version: &str, object: &Value, output: &Value) -> KeyVaultMirrorSpec {
    let spec = super::azure_key_vault_secret(resource(version, object, output));
    let mut specs = spec.unwrap_or_else(|error| panic!("{output}: {error}"));
    assert_eq!(specs.len(), 1, "{output}");
    specs.remove(0)
}

/// What is written of an object whose value is this.
fn rendered(spec: &KeyVaultMirrorSpec, value: &[u8]) -> Rendered {
    let read = |source: Source| {
        let secret = VaultSecret {
            value: value.to_vec().into(),
            version: "1".into(),
            updated: None,
            not_before: None,
            expires: None,
        };
        (source, Arc::new(secret))
    };
    let contents = sources(spec).into_iter().map(read).collect();
    render(spec, &contents).expect("rendered")
}

/// Checks that in every version the object becomes a Secret of this type and data.
#[track_caller]
fn gives(object: Value, output: Value, value: &[u8], type_: SecretType, data: &[(&str, &[u8])]) {
    for version in ["v1alpha1", "v1", "v2alpha1", "v2beta1"] {
        let spec = spec(version, &object, &output);
        assert_eq!(spec.target.type_, type_);
        let rendered = rendered(&spec, value);
        let given: Vec<(&str, &[u8])> = rendered
            .iter()
            .map(|(key, rendered)| (key.as_str(), rendered.value.expose()))
            .collect();
        assert_eq!(given, data, "{version} {object} {output}");
    }
}

/// One secret of the vault into a Secret of this type.
#[track_caller]
fn secret_gives(type_: SecretType, value: &[u8], data: &[(&str, &[u8])]) {
    let object = json!({"name": "my-secret", "type": "secret"});
    let output = json!({"secret": {"name": "s", "type": type_.to_string()}});
    gives(object, output, value, type_, data);
}

#[test]
fn a_secret_is_under_the_key_that_is_named() {
    for type_ in [json!(null), json!("Opaque")] {
        let mut output =
            json!({"secret": {"name": "my-secret-from-akv", "dataKey": "secret-value"}});
        if !type_.is_null() {
            output["secret"]["type"] = type_;
        }
        gives(
            json!({"name": "my-secret", "type": "secret"}),
            output,
            b"My super secret\n",
            SecretType::Opaque,
            &[("secret-value", b"My super secret\n")],
        );
    }
}

#[test]
fn types_with_a_key_of_their_own_have_it() {
    let config =
        br#"{"auths": {"some.azurecr.io": {"username": "u", "password": "p", "auth": "dTpw"}}}"#;
    secret_gives(
        SecretType::DockerConfigJson,
        config,
        &[(".dockerconfigjson", config)],
    );
    let config = br#"{"some.azurecr.io": {"username": "u", "password": "p", "auth": "dTpw"}}"#;
    secret_gives(SecretType::DockerCfg, config, &[(".dockercfg", config)]);
    let key = b"-----BEGIN OPENSSH PRIVATE KEY-----\n";
    secret_gives(SecretType::SshAuth, key, &[("ssh-privatekey", key)]);
}

#[test]
fn a_certificate_is_tls_in_the_order_and_with_the_key_that_akv2k8s_writes() {
    let object = json!({"name": "my-certificate", "type": "certificate"});
    let output = |order: Option<&str>| {
        let mut output = json!({"secret": {"name": "s", "type": "kubernetes.io/tls"}});
        if let Some(order) = order {
            output["secret"]["chainOrder"] = json!(order);
        }
        output
    };
    let gives = |order, value: &str, chain: &str| {
        let data: [(&str, &[u8]); 2] = [
            ("tls.crt", chain.as_bytes()),
            ("tls.key", RSA_PKCS1.as_bytes()),
        ];
        gives(
            object.clone(),
            output(order),
            value.as_bytes(),
            SecretType::Tls,
            &data,
        );
    };
    gives(None, PFX, &[RSA, ROOT, INTERMEDIATE].concat());
    let server_first = [INTERMEDIATE, RSA, ROOT].concat();
    gives(Some("ensureserverfirst"), PFX, &server_first);
    gives(
        None,
        &[RSA_PKCS8, RSA, ROOT].concat(),
        &[RSA, ROOT].concat(),
    );
}

#[test]
fn a_pfx_in_a_secret_is_tls_too() {
    let chain = [RSA, ROOT, INTERMEDIATE].concat();
    let data: [(&str, &[u8]); 2] = [
        ("tls.crt", chain.as_bytes()),
        ("tls.key", RSA_PKCS1.as_bytes()),
    ];
    secret_gives(SecretType::Tls, PFX.as_bytes(), &data);
}

#[test]
fn a_certificate_is_public_without_a_type_and_whole_as_opaque() {
    let object = json!({"name": "my-certificate", "type": "certificate"});
    let der = pem::parse(RSA).expect("PEM");
    gives(
        object.clone(),
        json!({"secret": {"name": "s", "dataKey": "ca.pem"}}),
        der.contents(),
        SecretType::Opaque,
        &[("ca.pem", RSA.as_bytes())],
    );
    let pfx = STANDARD.decode(PFX.trim()).expect("base64");
    gives(
        object,
        json!({"secret": {"name": "s", "type": "Opaque", "dataKey": "cert.pfx"}}),
        PFX.as_bytes(),
        SecretType::Opaque,
        &[("cert.pfx", &pfx)],
    );
}

#[test]
fn a_key_is_its_modulus() {
    let modulus = URL_SAFE_NO_PAD.encode([0xab; 256]);
    let jwk = json!({"kty": "RSA", "n": modulus, "e": "AQAB"}).to_string();
    gives(
        json!({"name": "my-key", "type": "key"}),
        json!({"secret": {"name": "my-key-from-akv", "dataKey": "my-key"}}),
        jwk.as_bytes(),
        SecretType::Opaque,
        &[("my-key", modulus.as_bytes())],
    );
}

#[test]
fn each_entry_of_a_multi_key_value_secret_is_a_key() {
    let json = r#"{"key1": "value1", "key2": "value2", "key3": "value3"}"#;
    let yaml = "key1: value1\nkey2: value2\nkey3: value3\n";
    for (content_type, value) in [("application/x-json", json), ("application/x-yaml", yaml)] {
        gives(
            json!({"name": "my-multi", "type": "multi-key-value-secret", "contentType": content_type}),
            json!({"secret": {"name": "s", "dataKey": "ignored"}}),
            value.as_bytes(),
            SecretType::Opaque,
            &[
                ("key1", b"value1"),
                ("key2", b"value2"),
                ("key3", b"value3"),
            ],
        );
    }
}

#[test]
fn secrets_are_transformed_one_transform_after_the_other() {
    for field in ["transform", "transforms"] {
        let mut output = json!({"secret": {"name": "s", "dataKey": "k"}});
        output[field] = json!(["trim", "base64decode"]);
        gives(
            json!({"name": "my-secret", "type": "secret"}),
            output,
            b" aHVudGVyMg==\n",
            SecretType::Opaque,
            &[("k", b"hunter2")],
        );
    }
}

#[test]
fn a_version_is_pinned_and_an_empty_one_is_the_latest() {
    let pinned = "0123456789abcdef0123456789abcdef";
    for (version, read) in [(pinned, Some(pinned)), ("", None)] {
        let object = json!({"name": "s", "type": "secret", "version": version});
        let output = json!({"secret": {"name": "s", "dataKey": "k"}});
        let spec = spec("v1", &object, &output);
        assert_eq!(spec.data[0].object.version.as_deref(), read);
    }
}

#[test]
fn an_azure_identity_is_taken_in_both_forms_and_changes_nothing() {
    for identity in [json!({"name": "reader"}), json!("reader")] {
        let object = json!({"name": "s", "type": "secret"});
        let output = json!({"secret": {"name": "s", "dataKey": "k"}});
        let mut with = resource("v2beta1", &object, &output);
        with["spec"]["vault"]["azureIdentity"] = identity;
        let specs = super::azure_key_vault_secret(with).expect("a mirror");
        assert_eq!(specs, [spec("v2beta1", &object, &output)]);
    }
}

#[test]
fn what_can_not_be_is_said() {
    for (object, output, word) in [
        (
            json!({"name": "s", "type": "secret"}),
            json!({"secret": {"name": "s"}}),
            "dataKey is missing",
        ),
        (
            json!({"name": "s", "type": "secret"}),
            json!({"secret": {"name": "s", "dataKey": "k"}, "transform": ["rot13"]}),
            "rot13",
        ),
        (
            json!({"name": "s", "type": "multi-key-value-secret"}),
            json!({"secret": {"name": "s"}}),
            "contentType",
        ),
        (
            json!({"name": "s_s", "type": "secret"}),
            json!({"secret": {"name": "s", "dataKey": "k"}}),
            "s_s",
        ),
        (
            json!({"name": "s", "type": "secret"}),
            json!({"secret": {"name": "s", "type": "opaque", "dataKey": "k"}}),
            "opaque",
        ),
        (
            json!({"name": "s", "type": "secret"}),
            json!({"secret": {"name": "s", "dataKey": "k", "hologram": 1}}),
            "hologram",
        ),
    ] {
        let error = super::azure_key_vault_secret(resource("v1", &object, &output));
        let error = error.expect_err("refused");
        assert!(error.contains(word), "{error}");
    }
}
