//! The seed: a YAML file of identities and vaults that a dev vault starts with.
//!
//! ```yaml
//! identities:
//!   - {clientId: 1111…, tenantId: 2222…, clientSecret: for-tests, federated: [{subject: "system:serviceaccount:ns:sa"}]}
//! vaults:
//!   contoso:                      # contoso.vault.azure.net; a name with dots is a full host name
//!     access: [1111…]             # everyone if left out
//!     secrets:
//!       plain: a value
//!       full: {value: …, contentType: text/plain, tags: {app: web}, exp: 1893456000, versions: [{value: older}]}
//! ```

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::identity::Identity;
use super::secret::{NewSecret, Tags, Value};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seed {
    pub identities: Vec<Identity>,
    pub vaults: BTreeMap<String, VaultSeed>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VaultSeed {
    pub access: Option<Vec<String>>,
    pub secrets: BTreeMap<String, SecretSeed>,
}

/// A secret's versions, oldest first.
#[derive(Clone, Debug)]
pub struct SecretSeed(pub Vec<NewSecret>);

/// A seed that can't be read: where and why, without what stands there.
#[derive(Debug, thiserror::Error)]
#[error("the seed is not valid: {0}")]
pub struct SeedError(String);

impl Seed {
    pub fn parse(yaml: &str) -> Result<Self, SeedError> {
        // A snippet would show values.
        let options = serde_saphyr::options! { with_snippet: false };
        serde_saphyr::from_str_with_options(yaml, options)
            .map_err(|error| SeedError(error.to_string()))
    }
}

/// A secret in full: the current version, and `versions` that are older.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Full {
    value: Option<Value>,
    content_type: Option<String>,
    tags: Option<Tags>,
    enabled: Option<bool>,
    nbf: Option<i64>,
    exp: Option<i64>,
    #[serde(default)]
    managed: bool,
    created: Option<i64>,
    updated: Option<i64>,
    #[serde(default)]
    versions: Vec<NewSecret>,
}

impl<'de> Deserialize<'de> for SecretSeed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = SecretSeed;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value, or a map with value and attributes")
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<SecretSeed, E> {
        Ok(SecretSeed(vec![value.into()]))
    }

    // Serde's own message for these would quote the value.
    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<SecretSeed, E> {
        Err(unquoted())
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<SecretSeed, E> {
        Err(unquoted())
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<SecretSeed, E> {
        Err(unquoted())
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<SecretSeed, E> {
        Err(unquoted())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SecretSeed, A::Error> {
        let full = Full::deserialize(MapAccessDeserializer::new(map))?;
        let mut versions = full.versions;
        if let Some(value) = full.value {
            versions.push(NewSecret {
                value,
                content_type: full.content_type,
                tags: full.tags,
                enabled: full.enabled,
                nbf: full.nbf,
                exp: full.exp,
                managed: full.managed,
                created: full.created,
                updated: full.updated,
            });
        }
        if versions.is_empty() {
            return Err(A::Error::custom("a secret needs a value or versions"));
        }
        Ok(SecretSeed(versions))
    }
}

fn unquoted<E: serde::de::Error>() -> E {
    E::custom("a secret's value is text: put it in quotes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_short_and_full_secrets() {
        let seed = Seed::parse(
            "identities: [{clientId: c, tenantId: t, system: true, federated: [{subject: s}]}]\n\
             vaults:\n  v:\n    access: [c]\n    secrets:\n      a: one\n      \
             b: {value: new, contentType: x, tags: {k: v}, versions: [{value: old}]}\n",
        )
        .unwrap();
        let secrets = &seed.vaults["v"].secrets;
        assert_eq!(secrets["a"].0[0].value.expose(), "one");
        let versions: Vec<&str> = secrets["b"]
            .0
            .iter()
            .map(|version| version.value.expose())
            .collect();
        assert_eq!(versions, ["old", "new"]);
        assert!(seed.identities[0].system);
    }

    #[test]
    fn an_unknown_field_is_an_error_that_names_it_and_no_value() {
        let error =
            Seed::parse("vaults: {v: {secrets: {a: {value: hush, expires: 5}}}}").unwrap_err();
        assert!(error.to_string().contains("expires"), "{error}");
        assert!(!error.to_string().contains("hush"), "{error}");
    }

    #[test]
    fn a_number_must_be_quoted() {
        let error = Seed::parse("vaults: {v: {secrets: {a: 471147}}}").unwrap_err();
        assert!(!error.to_string().contains("471147"), "{error}");
    }
}
