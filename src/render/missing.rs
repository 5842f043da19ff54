//! Mirrors some of whose objects are not there (`missingPolicy: Remove`).

use std::collections::BTreeSet;

use super::source::{Source, sources_of};
use crate::api::KeyVaultMirrorSpec;

/// The spec without what is made of these objects, as if it had never been asked for. A certificate whose keystore has no
/// password is one without a keystore.
pub fn without(spec: &KeyVaultMirrorSpec, missing: &BTreeSet<Source>) -> KeyVaultMirrorSpec {
    let is_missing = |source: &Source| missing.contains(source);
    let mut spec = spec.clone();
    spec.data
        .retain(|entry| !is_missing(&Source::of(&entry.object)));
    for certificate in spec
        .data_from
        .iter_mut()
        .filter_map(|from| from.certificate.as_mut())
    {
        certificate
            .keystore
            .take_if(|keystore| is_missing(&Source::of_secret(&keystore.password)));
    }
    spec.data_from
        .retain(|from| !sources_of(from).iter().any(is_missing));
    spec
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{keys, sources};
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

    fn all() -> KeyVaultMirrorSpec {
        let keystore = json!({"format": "JKS", "password": {"name": "p"}});
        let registries = json!([
            {"server": "r", "usernameFrom": {"name": "user"}, "password": {"name": "a"}},
            {"server": "s", "username": "u", "password": {"name": "b"}},
        ]);
        spec(
            json!([
                {"key": "k", "object": {"name": "a"}},
                {"key": "pinned", "object": {"name": "a", "version": "0123456789abcdef0123456789abcdef"}},
            ]),
            json!([
                {"certificate": {"name": "web", "keystore": keystore}},
                {"expand": {"object": {"name": "many"}, "format": "json"}},
                {"basicAuth": {"object": {"name": "login"}}},
                {"dockerConfig": {"registries": registries}},
            ]),
        )
    }

    #[test]
    fn without_an_object_all_that_is_made_of_it_goes_and_nothing_else() {
        let every = keys(&all()).len();
        for (name, gone) in [
            ("a", vec!["k", ".dockerconfigjson"]),
            ("b", vec![".dockerconfigjson"]),
            ("user", vec![".dockerconfigjson"]),
            ("login", vec!["username", "password"]),
            ("p", vec!["keystore.jks"]),
            ("web", vec!["tls.crt", "tls.key", "ca.crt", "keystore.jks"]),
            ("many", vec![]),
        ] {
            let is_it = |source: &Source| source.name == name && source.version.is_none();
            let missing: BTreeSet<Source> = sources(&all()).into_iter().filter(is_it).collect();
            assert!(!missing.is_empty(), "{name}");
            let left = without(&all(), &missing);
            assert_eq!(keys(&left).len(), every - gone.len(), "{name}");
            for key in gone {
                assert!(!keys(&left).contains(&key), "{key} of {name}");
            }
            assert!(
                sources(&left)
                    .iter()
                    .all(|source| !missing.contains(source))
            );
        }
    }

    #[test]
    fn where_nothing_is_missing_nothing_goes() {
        assert_eq!(without(&all(), &BTreeSet::new()), all());
    }
}
