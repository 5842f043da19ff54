//! Which operation a request asks for, from its method and path.
//!
//! REST reference: "Secrets - Operations" (Set Secret, Get Secret, Get Secrets, Get Secret Versions, ...), "Certificates -
//! Operations" and "Keys - Operations".

use http::Method;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::refusal::Refusal;

/// An operation's name: what faults are matched by and requests are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    Get,
    List,
    ListVersions,
    Set,
    Create,
    Import,
    GetPending,
    GetPolicy,
    Update,
    Delete,
    ListDeleted,
    GetDeleted,
    Purge,
    Recover,
    /// A token request, to Entra or to IMDS.
    Token,
    /// What Entra is asked before a token: its instances and a tenant's OpenID configuration.
    Discovery,
    /// Anything that isn't served here.
    Other,
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Secret,
    Certificate,
    Key,
}

impl Type {
    /// As Key Vault's codes and messages have it.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::Certificate => "Certificate",
            Self::Key => "Key",
        }
    }

    /// The collection in a path, and that of what is deleted.
    fn parse(collection: &str) -> Option<(Self, bool)> {
        match collection {
            "secrets" => Some((Self::Secret, false)),
            "deletedsecrets" => Some((Self::Secret, true)),
            "certificates" => Some((Self::Certificate, false)),
            "deletedcertificates" => Some((Self::Certificate, true)),
            "keys" => Some((Self::Key, false)),
            "deletedkeys" => Some((Self::Key, true)),
            _ => None,
        }
    }
}

/// A Key Vault operation and the object it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub of: Type,
    pub action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Get {
        name: String,
        version: Option<Uuid>,
    },
    List,
    ListVersions {
        name: String,
    },
    /// Of a secret.
    Set {
        name: String,
    },
    /// Of a certificate or key.
    Create {
        name: String,
    },
    /// Of a certificate or key.
    Import {
        name: String,
    },
    /// The state of a certificate's creation.
    GetPending {
        name: String,
    },
    /// A certificate's policy.
    GetPolicy {
        name: String,
    },
    Update {
        name: String,
        version: Option<Uuid>,
    },
    Delete {
        name: String,
    },
    ListDeleted,
    GetDeleted {
        name: String,
    },
    Purge {
        name: String,
    },
    Recover {
        name: String,
    },
}

impl Operation {
    pub fn parse(method: &Method, path: &str) -> Result<Self, Refusal> {
        // SDKs write "no version" as a trailing slash.
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let segments: Vec<&str> = path.split('/').collect();
        let first = segments.first().copied().unwrap_or_default();
        let unknown = || {
            Refusal::bad_parameter(format!(
                "Method {method} does not allow operation '{first}'"
            ))
        };
        let (of, deleted) = Type::parse(first).ok_or_else(unknown)?;
        let rest = &segments[1..];
        let action = if deleted {
            deleted_action(method, rest)
        } else {
            action(of, method, rest)
        };
        action
            .unwrap_or_else(|| Err(unknown()))
            .map(|action| Self { of, action })
    }

    pub fn kind(&self) -> Kind {
        match self.action {
            Action::Get { .. } => Kind::Get,
            Action::List => Kind::List,
            Action::ListVersions { .. } => Kind::ListVersions,
            Action::Set { .. } => Kind::Set,
            Action::Create { .. } => Kind::Create,
            Action::Import { .. } => Kind::Import,
            Action::GetPending { .. } => Kind::GetPending,
            Action::GetPolicy { .. } => Kind::GetPolicy,
            Action::Update { .. } => Kind::Update,
            Action::Delete { .. } => Kind::Delete,
            Action::ListDeleted => Kind::ListDeleted,
            Action::GetDeleted { .. } => Kind::GetDeleted,
            Action::Purge { .. } => Kind::Purge,
            Action::Recover { .. } => Kind::Recover,
        }
    }

    /// Name of the secret that it is about.
    pub fn secret(&self) -> Option<&str> {
        match &self.action {
            _ if self.of != Type::Secret => None,
            Action::List | Action::ListDeleted => None,
            Action::Get { name, .. }
            | Action::Update { name, .. }
            | Action::ListVersions { name }
            | Action::Set { name }
            | Action::Create { name }
            | Action::Import { name }
            | Action::GetPending { name }
            | Action::GetPolicy { name }
            | Action::Delete { name }
            | Action::GetDeleted { name }
            | Action::Purge { name }
            | Action::Recover { name } => Some(name),
        }
    }
}

fn action(of: Type, method: &Method, rest: &[&str]) -> Option<Result<Action, Refusal>> {
    let action = match (method.as_str(), of, rest) {
        ("GET", _, []) => Ok(Action::List),
        ("GET", _, [name]) => valid(name).map(|name| Action::Get {
            name,
            version: None,
        }),
        ("PUT", Type::Secret, [name]) => valid(name).map(|name| Action::Set { name }),
        ("PUT", Type::Key, [name]) | ("POST", Type::Certificate, [name, "import"]) => {
            valid(name).map(|name| Action::Import { name })
        }
        ("POST", Type::Certificate | Type::Key, [name, "create"]) => {
            valid(name).map(|name| Action::Create { name })
        }
        ("GET", Type::Certificate, [name, "pending"]) => {
            valid(name).map(|name| Action::GetPending { name })
        }
        ("GET", Type::Certificate, [name, "policy"]) => {
            valid(name).map(|name| Action::GetPolicy { name })
        }
        ("DELETE", _, [name]) => valid(name).map(|name| Action::Delete { name }),
        ("PATCH", _, [name]) => valid(name).map(|name| Action::Update {
            name,
            version: None,
        }),
        ("GET", _, [name, "versions"]) => valid(name).map(|name| Action::ListVersions { name }),
        ("GET" | "PATCH", _, [name, id]) => {
            let update = method == Method::PATCH;
            let named = valid(name).and_then(|name| {
                let version = Some(version(of, &name, id)?);
                Ok((name, version))
            });
            named.map(|(name, version)| match update {
                true => Action::Update { name, version },
                false => Action::Get { name, version },
            })
        }
        _ => return None,
    };
    Some(action)
}

fn deleted_action(method: &Method, rest: &[&str]) -> Option<Result<Action, Refusal>> {
    let action = match (method.as_str(), rest) {
        ("GET", []) => Ok(Action::ListDeleted),
        ("GET", [name]) => valid(name).map(|name| Action::GetDeleted { name }),
        ("DELETE", [name]) => valid(name).map(|name| Action::Purge { name }),
        ("POST", [name, "recover"]) => valid(name).map(|name| Action::Recover { name }),
        _ => return None,
    };
    Some(action)
}

/// Whether Key Vault would take this as an object's name: `^[0-9a-zA-Z-]{1,127}$`.
pub fn is_valid_name(name: &str) -> bool {
    (1..=127).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn valid(name: &str) -> Result<String, Refusal> {
    if is_valid_name(name) {
        Ok(name.to_owned())
    } else {
        Err(Refusal::bad_parameter(format!(
            "The request URI contains an invalid name: {name}"
        )))
    }
}

fn version(of: Type, name: &str, id: &str) -> Result<Uuid, Refusal> {
    // `Uuid` also reads the dashed forms, which Key Vault doesn't.
    if id.len() == 32
        && let Ok(version) = Uuid::try_parse(id)
    {
        return Ok(version);
    }
    Err(Refusal::not_found(of, &format!("{name}/{id}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: &str = "0123456789abcdef0123456789abcdef";

    fn parse(method: Method, path: &str) -> Result<Operation, Refusal> {
        Operation::parse(&method, path)
    }

    #[test]
    fn a_trailing_slash_means_the_current_version() {
        let plain = parse(Method::GET, "/secrets/a").unwrap();
        assert_eq!(parse(Method::GET, "/secrets/a/").unwrap(), plain);
        assert_eq!(plain.kind(), Kind::Get);
    }

    #[test]
    fn a_version_is_32_hex_digits() {
        let operation = parse(Method::GET, &format!("/secrets/a/{VERSION}")).unwrap();
        let Action::Get { version, .. } = operation.action else {
            panic!("not a get");
        };
        assert_eq!(version.unwrap().simple().to_string(), VERSION);
        assert_eq!(parse(Method::GET, "/secrets/a/1").unwrap_err().status, 404);
    }

    #[test]
    fn names_outside_the_alphabet_are_bad_parameters() {
        for name in ["a_b", "a.b", "a%20b", "", &"x".repeat(128)] {
            assert!(!is_valid_name(name), "{name}");
        }
        assert_eq!(
            parse(Method::GET, "/secrets/a_b").unwrap_err().code,
            "BadParameter"
        );
        assert!(is_valid_name(&"x".repeat(127)));
    }

    #[test]
    fn what_key_vault_does_not_offer_is_a_bad_parameter() {
        assert_eq!(parse(Method::POST, "/secrets").unwrap_err().status, 400);
        assert_eq!(parse(Method::GET, "/").unwrap_err().status, 400);
        assert_eq!(
            parse(Method::PUT, "/certificates/a").unwrap_err().status,
            400
        );
        assert_eq!(
            parse(Method::GET, "/keys/a/policy").unwrap_err().status,
            404
        );
    }
}
