//! What a Secret of each type must have (<https://kubernetes.io/docs/concepts/configuration/secret/#secret-types>). The API server
//! would refuse most of it too, but not in words for the owner of a mirror; and what it lets pass, such as registries without
//! logins, its readers can't use.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;

use super::Rendered;
use crate::api::SecretType;

/// Why a Secret is none of its type.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UnfitSecret {
    #[error("a Secret of type {type_} needs key {}, which the mirror does not fill; {}", needed(.type_, .key), remedy(.type_))]
    NoKey {
        type_: SecretType,
        /// The first one that is missing.
        key: &'static str,
    },
    #[error(
        "a Secret of type {type_} needs something in key {key}, which is empty; set the vault object that it is from"
    )]
    Empty {
        type_: SecretType,
        key: &'static str,
    },
    #[error(
        "a Secret of type {type_} needs JSON in key {key}, which is none (line {line}, column {column}); correct the vault object that it is from, or have the key filled by dataFrom[].dockerConfig"
    )]
    NoJson {
        type_: SecretType,
        key: &'static str,
        line: usize,
        column: usize,
    },
    #[error("a Secret of type {type_} needs {} in key {key}, and the JSON there is something else; correct the vault object that it is from, or have the key filled by dataFrom[].dockerConfig", logins(.type_))]
    NoLogins {
        type_: SecretType,
        key: &'static str,
    },
}

fn needed(type_: &SecretType, key: &str) -> String {
    match type_ {
        SecretType::BasicAuth => keys(*type_).join(" or "),
        _ => key.to_owned(),
    }
}

fn remedy(type_: &SecretType) -> &'static str {
    match type_ {
        SecretType::Tls => {
            "take a certificate whose private key can be exported by dataFrom[].certificate, or name the key in data"
        }
        SecretType::DockerConfigJson | SecretType::DockerCfg => {
            "name it in data, or the registries in dataFrom[].dockerConfig"
        }
        SecretType::BasicAuth => {
            "name them in data, or a secret with user:password in dataFrom[].basicAuth"
        }
        SecretType::SshAuth | SecretType::Opaque => "name it in data",
    }
}

fn logins(type_: &SecretType) -> &'static str {
    match type_ {
        SecretType::DockerCfg => "an object of registries",
        _ => "an object with the registries in auths",
    }
}

/// The keys that a type needs: all of them, or for basic-auth one of them.
fn keys(type_: SecretType) -> &'static [&'static str] {
    match type_ {
        SecretType::Opaque => &[],
        SecretType::Tls => &["tls.crt", "tls.key"],
        SecretType::DockerConfigJson => &[".dockerconfigjson"],
        SecretType::DockerCfg => &[".dockercfg"],
        SecretType::BasicAuth => &["username", "password"],
        SecretType::SshAuth => &["ssh-privatekey"],
    }
}

/// Whether a Secret has the keys that its type needs.
pub fn check_keys(type_: SecretType, has: impl Fn(&str) -> bool) -> Result<(), UnfitSecret> {
    let keys = keys(type_);
    if type_ == SecretType::BasicAuth && keys.iter().any(|key| has(key)) {
        return Ok(());
    }
    match keys.iter().find(|key| !has(key)) {
        Some(key) => Err(UnfitSecret::NoKey { type_, key }),
        None => Ok(()),
    }
}

/// Whether a Secret of this data is of its type. `others` says which keys it has besides.
pub fn check(
    type_: SecretType,
    rendered: &Rendered,
    others: impl Fn(&str) -> bool,
) -> Result<(), UnfitSecret> {
    check_keys(type_, |key| rendered.contains_key(key) || others(key))?;
    keys(type_).iter().try_for_each(|key| {
        let value = rendered.get(*key).map(|rendered| rendered.value.expose());
        value.map_or(Ok(()), |value| check_value(type_, key, value))
    })
}

/// An object of JSON. What stands in it is no matter, and not kept.
type Object = HashMap<String, IgnoredAny>;
/// Registries and their logins.
type Logins = HashMap<String, Object>;

#[derive(Deserialize)]
struct DockerConfigJson {
    #[serde(rename = "auths")]
    _auths: Logins,
}

fn check_value(type_: SecretType, key: &'static str, value: &[u8]) -> Result<(), UnfitSecret> {
    match type_ {
        SecretType::DockerConfigJson => {
            // A list could stand for a structure too.
            check_json::<Object>(type_, key, value)?;
            check_json::<DockerConfigJson>(type_, key, value)
        }
        SecretType::DockerCfg => check_json::<Logins>(type_, key, value),
        SecretType::SshAuth if value.is_empty() => Err(UnfitSecret::Empty { type_, key }),
        SecretType::Opaque | SecretType::Tls | SecretType::BasicAuth | SecretType::SshAuth => {
            Ok(())
        }
    }
}

fn check_json<T: DeserializeOwned>(
    type_: SecretType,
    key: &'static str,
    value: &[u8],
) -> Result<(), UnfitSecret> {
    let parsed = serde_json::from_slice::<T>(value);
    parsed.map(drop).map_err(|error| match error.classify() {
        Category::Data => UnfitSecret::NoLogins { type_, key },
        Category::Syntax | Category::Eof | Category::Io => UnfitSecret::NoJson {
            type_,
            key,
            line: error.line(),
            column: error.column(),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::api::ObjectKind;
    use crate::render::RenderedKey;
    use crate::vault::VaultSecret;

    fn data(values: &[(&str, &[u8])]) -> Rendered {
        let key = |(key, value): &(&str, &[u8])| {
            let secret = VaultSecret {
                value: value.to_vec().into(),
                version: "1".into(),
                updated: None,
                not_before: None,
                expires: None,
            };
            let rendered = RenderedKey {
                value: secret.value.clone(),
                made_of: None,
                kind: ObjectKind::Secret,
                object: "o".into(),
                secret: Arc::new(secret),
            };
            ((*key).to_owned(), rendered)
        };
        values.iter().map(key).collect()
    }

    /// What is said of a Secret with these keys and values, `key=value`.
    fn checked(type_: SecretType, values: &[&str]) -> Result<(), String> {
        let pairs = values.iter().filter_map(|pair| pair.split_once('='));
        let pairs: Vec<(&str, &[u8])> = pairs.map(|(key, value)| (key, value.as_bytes())).collect();
        check(type_, &data(&pairs), |_| false).map_err(|unfit| unfit.to_string())
    }

    #[track_caller]
    fn refuses(type_: SecretType, values: &[&str], words: &[&str]) {
        let said = checked(type_, values).expect_err("refused");
        for word in words {
            assert!(said.contains(word), "{word} is not in: {said}");
        }
        assert!(said.contains(&type_.to_string()), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }

    #[test]
    fn a_type_has_its_keys() {
        use SecretType as T;
        for (type_, values) in [
            (T::Opaque, vec![]),
            (T::Tls, vec!["tls.crt=", "tls.key="]),
            (
                T::DockerConfigJson,
                vec![r#".dockerconfigjson={"auths": {"r": {"auth": "eDp5"}}, "x": 1}"#],
            ),
            (
                T::DockerConfigJson,
                vec![r#".dockerconfigjson={"auths": {}}"#],
            ),
            (T::DockerCfg, vec![r#".dockercfg={"r": {"auth": "eDp5"}}"#]),
            (T::BasicAuth, vec!["username=u"]),
            (T::BasicAuth, vec!["password=p", "more=m"]),
            (T::SshAuth, vec!["ssh-privatekey=k", "known_hosts=h"]),
        ] {
            assert_eq!(checked(type_, &values), Ok(()), "{type_}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_write() {
        use SecretType as T;
        refuses(
            T::Tls,
            &["tls.crt=c"],
            &["needs key tls.key,", "dataFrom[].certificate"],
        );
        refuses(
            T::Tls,
            &["tls.key=k"],
            &["needs key tls.crt,", "name the key in data"],
        );
        refuses(
            T::DockerConfigJson,
            &["config.json={}"],
            &["needs key .dockerconfigjson,", "dataFrom[].dockerConfig"],
        );
        refuses(
            T::DockerCfg,
            &[],
            &["needs key .dockercfg,", "dataFrom[].dockerConfig"],
        );
        refuses(
            T::BasicAuth,
            &["user=u"],
            &["needs key username or password,", "dataFrom[].basicAuth"],
        );
        refuses(
            T::SshAuth,
            &["key=k"],
            &["needs key ssh-privatekey,", "name it in data"],
        );
        refuses(T::SshAuth, &["ssh-privatekey="], &["is empty"]);
    }

    #[test]
    fn what_is_no_config_is_said_by_its_place_and_not_quoted() {
        for (value, word) in [
            ("hunter2", "line 1, column 1"),
            ("{\"auths\":\n\"hunter2", "line 2"),
            ("", "line 1, column 0"),
            ("\"hunter2\"", "registries in auths"),
            (r#"{"r": {"auth": "hunter2"}}"#, "registries in auths"),
            (r#"[{"r": {"auth": "hunter2"}}]"#, "registries in auths"),
            (r#"{"auths": "hunter2"}"#, "registries in auths"),
            (r#"{"auths": {"r": "hunter2"}}"#, "registries in auths"),
        ] {
            let pair = format!(".dockerconfigjson={value}");
            refuses(
                SecretType::DockerConfigJson,
                &[&pair],
                &[word, ".dockerconfigjson"],
            );
        }
        for value in [r#"["hunter2"]"#, r#"{"r": "hunter2"}"#] {
            let pair = format!(".dockercfg={value}");
            refuses(
                SecretType::DockerCfg,
                &[&pair],
                &["an object of registries", ".dockercfg"],
            );
        }
    }

    #[test]
    fn keys_that_others_have_put_there_count() {
        let more = data(&[("more", b"v")]);
        let pair = |key: &str| key.starts_with("tls.");
        assert_eq!(check(SecretType::Tls, &more, pair), Ok(()));
        assert!(check(SecretType::Tls, &more, |key| key == "tls.crt").is_err());
    }

    proptest! {
        #[test]
        fn no_value_panics(value: Vec<u8>, text in r#"[{}\[\]":,a0]{0,40}"#) {
            for value in [&value[..], text.as_bytes()] {
                for type_ in [SecretType::DockerConfigJson, SecretType::DockerCfg, SecretType::SshAuth] {
                    let values = keys(type_).iter().map(|key| (*key, value));
                    let _ = check(type_, &data(&values.collect::<Vec<_>>()), |_| false);
                }
            }
        }
    }
}
