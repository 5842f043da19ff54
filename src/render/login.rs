//! Users with their passwords: of one secret `user:password`, and of image registries.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use zeroize::Zeroizing;

use super::source::{Contents, Source};
use super::transform::transform;
use super::{Problem, RenderedKey, Unrenderable};
use crate::api::{BasicAuth, DockerConfig, ObjectKind, SecretObject, SecretType};
use crate::vault::{SecretValue, VaultSecret};

/// Keys of a user and of the password.
pub(super) const BASIC_AUTH: [&str; 2] = ["username", "password"];

/// Why a value is no user, or no password.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LoginError {
    #[error(
        "its value has no colon, and is to be user:password; a user or a password alone is for data"
    )]
    NoColon,
    #[error("its value is no text in UTF-8, as users and passwords of registries are")]
    NotText,
    #[error(
        "its value has a line end or another control character, which users and passwords of registries have not; store it without"
    )]
    ControlCharacter,
    #[error("its value has a colon, which users have not; store the user alone")]
    Colon,
    #[error(
        "it is to be the password of nobody; give the registry in dataFrom[].dockerConfig a username or usernameFrom"
    )]
    NoUser,
}

/// User and password of one secret: what stands before its first colon, and what follows.
pub(super) fn basic_auth(
    wanted: &BasicAuth,
    secret: &Arc<VaultSecret>,
) -> Result<[(String, RenderedKey); 2], Problem> {
    let value = transform(&secret.value, &wanted.transforms)?;
    let bytes = value.expose();
    let colon = bytes.iter().position(|byte| *byte == b':');
    let colon = colon.ok_or(LoginError::NoColon)?;
    let key = |name: &str, part: &[u8]| {
        let rendered = key_of(&wanted.object, secret, part.to_vec().into());
        (name.to_owned(), rendered)
    };
    let [username, password] = BASIC_AUTH;
    Ok([
        key(username, &bytes[..colon]),
        key(password, &bytes[colon + 1..]),
    ])
}

/// The key of the registries: a Secret of type dockercfg has another one than all others.
pub(super) fn docker_config_key(type_: SecretType) -> &'static str {
    match type_ {
        SecretType::DockerCfg => ".dockercfg",
        _ => ".dockerconfigjson",
    }
}

/// What `kubectl create secret docker-registry` writes.
#[derive(Serialize)]
struct DockerConfigJson<'a> {
    auths: BTreeMap<&'a str, Login<'a>>,
}

#[derive(Serialize)]
struct Login<'a> {
    username: &'a str,
    password: &'a str,
    /// Both, with a colon between them, in base64.
    auth: &'a str,
}

/// Users and passwords of registries; nothing where there are no registries.
pub(super) fn docker_config(
    wanted: &DockerConfig,
    type_: SecretType,
    contents: &Contents,
) -> Result<Option<(String, RenderedKey)>, Unrenderable> {
    let mut made_of: Vec<(&SecretObject, &Arc<VaultSecret>)> = Vec::new();
    let mut logins = Vec::new();
    for registry in &wanted.registries {
        let (secret, password) = text(&registry.password, contents)?;
        made_of.push((&registry.password, secret));
        let username = match (&registry.username, &registry.username_from) {
            (Some(username), _) => username.as_str(),
            (None, Some(object)) => {
                let (secret, username) = text(object, contents)?;
                if username.contains(':') {
                    return Err(Source::of_secret(object).failed()(LoginError::Colon));
                }
                made_of.push((object, secret));
                username
            }
            (None, None) => {
                return Err(Source::of_secret(&registry.password).failed()(
                    LoginError::NoUser,
                ));
            }
        };
        let both = Zeroizing::new(format!("{username}:{password}"));
        let auth = Zeroizing::new(STANDARD.encode(both.as_bytes()));
        logins.push((registry.server.as_str(), username, password, auth));
    }
    // What is said of the key is said of the object that changed last: it tells how old the content is.
    let newest = made_of.into_iter().max_by_key(|(_, secret)| secret.updated);
    let Some((object, secret)) = newest else {
        return Ok(None);
    };
    let auths = logins.iter().map(|(server, username, password, auth)| {
        let login = Login {
            username,
            password,
            auth,
        };
        (*server, login)
    });
    let auths: BTreeMap<&str, Login> = auths.collect();
    let json = match type_ {
        SecretType::DockerCfg => serde_json::to_vec(&auths),
        _ => serde_json::to_vec(&DockerConfigJson { auths }),
    };
    let json = json.map_err(|_| Source::of_secret(object).failed()(LoginError::NotText))?;
    let key = docker_config_key(type_).to_owned();
    Ok(Some((key, key_of(object, secret, json.into()))))
}

/// A secret of a login, and its text.
fn text<'a>(
    object: &SecretObject,
    contents: &'a Contents,
) -> Result<(&'a Arc<VaultSecret>, &'a str), Unrenderable> {
    let source = Source::of_secret(object);
    let secret = contents.get(&source).map_err(source.failed())?;
    let text = std::str::from_utf8(secret.value.expose());
    let text = text.map_err(|_| source.failed()(LoginError::NotText))?;
    if text.chars().any(char::is_control) {
        return Err(source.failed()(LoginError::ControlCharacter));
    }
    Ok((secret, text))
}

fn key_of(object: &SecretObject, secret: &Arc<VaultSecret>, value: SecretValue) -> RenderedKey {
    RenderedKey {
        value,
        made_of: None,
        kind: ObjectKind::Secret,
        object: object.name.clone(),
        secret: Arc::clone(secret),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn secret(value: &[u8], updated: i64) -> Arc<VaultSecret> {
        Arc::new(VaultSecret {
            value: value.to_vec().into(),
            version: "1".into(),
            updated: jiff::Timestamp::from_second(updated).ok(),
            not_before: None,
            expires: None,
        })
    }

    fn split(value: &[u8], transforms: &[&str]) -> Result<[Vec<u8>; 2], Problem> {
        let wanted = json!({"object": {"name": "s"}, "transforms": transforms});
        let wanted = serde_json::from_value(wanted).expect("a source");
        let keys = basic_auth(&wanted, &secret(value, 1))?;
        assert_eq!(keys.each_ref().map(|(key, _)| key.as_str()), BASIC_AUTH);
        Ok(keys.map(|(_, rendered)| rendered.value.expose().to_vec()))
    }

    fn configured(
        registries: serde_json::Value,
        type_: SecretType,
        secrets: &[(&str, &str)],
    ) -> Result<Option<(String, RenderedKey)>, Unrenderable> {
        let wanted: DockerConfig =
            serde_json::from_value(json!({"registries": registries})).expect("registries");
        // Each is younger than the one before.
        let contents = (1..).zip(secrets).map(|(updated, (name, value))| {
            let object = SecretObject {
                name: (*name).to_owned(),
                version: None,
            };
            let secret = secret(value.as_bytes(), updated);
            (Source::of_secret(&object), secret)
        });
        docker_config(&wanted, type_, &contents.collect())
    }

    #[test]
    fn a_value_is_split_at_its_first_colon() {
        for (value, transform, parts) in [
            ("u:p", None, ["u", "p"]),
            ("u:p:q\n", None, ["u", "p:q\n"]),
            (" u:p\n", Some("trim"), ["u", "p"]),
            ("dTpw", Some("base64Decode"), ["u", "p"]),
            (":token", None, ["", "token"]),
        ] {
            let expected = parts.map(|part| part.as_bytes().to_vec());
            let split = split(value.as_bytes(), transform.as_slice());
            assert_eq!(split, Ok(expected), "{value}");
        }
        let [_, password] = split(b"u:\xff", &[]).expect("split");
        assert_eq!(password, b"\xff");
    }

    #[test]
    fn a_value_without_a_colon_is_said_and_not_quoted() {
        for value in ["hunter2", ""] {
            let error = split(value.as_bytes(), &[]).expect_err("refused");
            assert_eq!(error, Problem::Login(LoginError::NoColon));
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn registries_are_written_as_kubectl_writes_them() {
        let registries = json!([
            {"server": "b.example", "username": "u", "password": {"name": "p"}},
            {"server": "https://a.example/v1/", "usernameFrom": {"name": "u"}, "password": {"name": "q"}},
        ]);
        let secrets = [("p", "x\"y"), ("q", "z"), ("u", "me")];
        let auths = concat!(
            r#"{"b.example":{"username":"u","password":"x\"y","auth":"dTp4Ink="},"#,
            r#""https://a.example/v1/":{"username":"me","password":"z","auth":"bWU6eg=="}}"#
        );
        for (type_, key, expected) in [
            (
                SecretType::DockerConfigJson,
                ".dockerconfigjson",
                format!(r#"{{"auths":{auths}}}"#),
            ),
            (
                SecretType::Opaque,
                ".dockerconfigjson",
                format!(r#"{{"auths":{auths}}}"#),
            ),
            (SecretType::DockerCfg, ".dockercfg", auths.to_owned()),
        ] {
            let made = configured(registries.clone(), type_, &secrets).expect("made");
            let (name, made) = made.expect("a key");
            let text = String::from_utf8_lossy(made.value.expose());
            assert_eq!((name.as_str(), &*text), (key, expected.as_str()));
            assert_eq!(made.object, "u", "it changed last");
        }
    }

    #[test]
    fn what_no_registry_takes_is_said_with_its_object_and_not_quoted() {
        let by_name = json!([{"server": "r", "username": "u", "password": {"name": "p"}}]);
        let by_object =
            json!([{"server": "r", "usernameFrom": {"name": "u"}, "password": {"name": "p"}}]);
        let nobodys = json!([{"server": "r", "password": {"name": "p"}}]);
        for (registries, secrets, object, problem) in [
            (
                by_name,
                vec![("p", "hunter2\n")],
                "p",
                LoginError::ControlCharacter,
            ),
            (
                by_object,
                vec![("p", "p"), ("u", "hunter2:x")],
                "u",
                LoginError::Colon,
            ),
            (nobodys, vec![("p", "hunter2")], "p", LoginError::NoUser),
        ] {
            let error = configured(registries, SecretType::DockerConfigJson, &secrets)
                .expect_err("refused");
            assert_eq!(error.object, object);
            assert_eq!(error.problem, Problem::Login(problem));
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_split_was_together(user in "[^:]{0,20}", password in ".{0,20}") {
            let parts = split(format!("{user}:{password}").as_bytes(), &[]);
            prop_assert_eq!(parts, Ok([user.into_bytes(), password.into_bytes()]));
        }

        #[test]
        fn a_registry_is_given_the_password_of_the_vault(password in "[^\\p{Cc}]{0,30}") {
            let registries = json!([{"server": "r", "username": "u", "password": {"name": "p"}}]);
            let secrets = [("p", password.as_str())];
            let made = configured(registries, SecretType::DockerCfg, &secrets).expect("made");
            let (_, made) = made.expect("a key");
            let read: serde_json::Value = serde_json::from_slice(made.value.expose()).expect("JSON");
            prop_assert_eq!(&read["r"]["password"], password.as_str());
            let auth = STANDARD.decode(read["r"]["auth"].as_str().expect("text")).expect("base64");
            prop_assert_eq!(auth, format!("u:{password}").into_bytes());
        }
    }
}
