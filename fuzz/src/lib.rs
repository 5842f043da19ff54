//! All that takes bytes which somebody else has written: values of vaults, patterns of grants, manifests of other tools. Each
//! function takes anything, and must come back soon and without a panic. libFuzzer calls them with what it finds
//! (`make fuzz`), and the tests (`tests/it/bad_input.rs`) with examples and what can be made of these.

use std::sync::Arc;

use keytide::api::KeyVaultMirrorSpec;
use keytide::migrate::Conversion;
use keytide::mirror::glob_matches;
use keytide::render::{Contents, RenderError, Rendered, Source, is_key, render, sources};
use keytide::vault::VaultSecret;
use serde_json::{Value, json};

/// Longest value of a vault, in bytes.
pub const LONGEST: usize = 25_600;

/// What takes bytes.
pub type Target = fn(&[u8]);

/// All of them, by the names of their programs.
pub const TARGETS: [(&str, Target); 6] = [
    ("certificate", certificate),
    ("expand", expand),
    ("property", property),
    ("transforms", transforms),
    ("pattern", pattern),
    ("akv2k8s", akv2k8s),
];

/// PFX and PEM, and keystores made of them.
pub fn certificate(bytes: &[u8]) {
    for format in ["PKCS12", "JKS"] {
        let keystore = json!({"format": format, "password": {"name": "password"}});
        let certificate = json!({"certificate": {"name": "value", "keystore": keystore}});
        let _ = rendered(&json!([]), &json!([certificate]), bytes);
    }
    for kind in ["certificate", "key"] {
        let entry = json!({"key": "k", "object": {"kind": kind, "name": "value"}});
        let _ = rendered(&json!([entry]), &json!([]), bytes);
    }
}

/// Secrets with many values, in every format.
pub fn expand(bytes: &[u8]) {
    for format in ["json", "yaml", "dotenv"] {
        let expand = json!({"expand": {"object": {"name": "value"}, "format": format}});
        if let Ok(rendered) = rendered(&json!([]), &json!([expand]), bytes) {
            assert!(rendered.keys().all(|key| is_key(key)));
        }
    }
}

/// A path on the first line, and a value that it leads into.
pub fn property(bytes: &[u8]) {
    let (path, value) = first_line(bytes);
    let entry = json!({"key": "k", "object": {"name": "value", "property": path}});
    let _ = rendered(&json!([entry]), &json!([]), value);
}

/// Every transform, by itself and behind another.
pub fn transforms(bytes: &[u8]) {
    let all = [
        "trim",
        "base64Encode",
        "base64Decode",
        "lower",
        "upper",
        "jsonEscape",
        "pemBundle",
    ];
    for (index, transform) in all.iter().enumerate() {
        let transforms = [all[(index + 2) % all.len()], *transform];
        for transforms in [&transforms[1..], &transforms] {
            let object = json!({"name": "value"});
            let entry = json!({"key": "k", "object": object, "transforms": transforms});
            let _ = rendered(&json!([entry]), &json!([]), bytes);
        }
    }
}

/// A pattern of names on the first line, and a name.
pub fn pattern(bytes: &[u8]) {
    let (pattern, name) = first_line(bytes);
    let name = String::from_utf8_lossy(name);
    glob_matches(&pattern, &name);
    assert!(glob_matches("*", &name));
    // A star also stands for nothing.
    assert!(glob_matches(&name, &name.replace('*', "")));
}

/// Manifests of akv2k8s, or of anything else that is converted.
pub fn akv2k8s(bytes: &[u8]) {
    let options = serde_saphyr::options! { with_snippet: false };
    let text = String::from_utf8_lossy(bytes);
    let Ok(documents) = serde_saphyr::from_multiple_with_options::<Value>(&text, options) else {
        return;
    };
    let conversion = Conversion::of(documents, "web");
    for mirror in &conversion.mirrors {
        assert!(!(mirror.spec.data.is_empty() && mirror.spec.data_from.is_empty()));
    }
}

/// What a mirror of these sources makes of this value.
pub fn rendered(data: &Value, data_from: &Value, value: &[u8]) -> Result<Rendered, RenderError> {
    let spec: KeyVaultMirrorSpec = serde_json::from_value(json!({
        "vault": {"name": "contoso"},
        "data": data,
        "dataFrom": data_from,
        "target": {"name": "t"},
    }))
    .expect("a spec");
    let content = |source: Source| {
        let value = match source.name.as_str() {
            "password" => &b"changeit"[..],
            _ => value,
        };
        let secret = VaultSecret {
            value: value.to_vec().into(),
            version: "1".to_owned(),
            updated: None,
            not_before: None,
            expires: None,
        };
        (source, Arc::new(secret))
    };
    let contents: Contents = sources(&spec).into_iter().map(content).collect();
    render(&spec, &contents)
}

fn first_line(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (line, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
    (
        String::from_utf8_lossy(line).into_owned(),
        rest.get(1..).unwrap_or_default(),
    )
}
