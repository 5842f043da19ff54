//! Which operation a request asks for, from its method and path.
//!
//! REST reference: "Secrets - Operations" (Set Secret, Get Secret, Get Secrets, Get Secret Versions, ...).

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

/// A Key Vault operation and the secret it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    Get { name: String, version: Option<Uuid> },
    List,
    ListVersions { name: String },
    Set { name: String },
    Update { name: String, version: Option<Uuid> },
    Delete { name: String },
    ListDeleted,
    GetDeleted { name: String },
    Purge { name: String },
    Recover { name: String },
}

impl Operation {
    pub fn parse(method: &Method, path: &str) -> Result<Self, Refusal> {
        // SDKs write "no version" as a trailing slash.
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let segments: Vec<&str> = path.split('/').collect();
        match (method.as_str(), segments.as_slice()) {
            ("GET", ["secrets"]) => Ok(Self::List),
            ("GET", ["secrets", name]) => Ok(Self::Get {
                name: valid(name)?,
                version: None,
            }),
            ("PUT", ["secrets", name]) => Ok(Self::Set { name: valid(name)? }),
            ("DELETE", ["secrets", name]) => Ok(Self::Delete { name: valid(name)? }),
            ("PATCH", ["secrets", name]) => Ok(Self::Update {
                name: valid(name)?,
                version: None,
            }),
            ("GET", ["secrets", name, "versions"]) => Ok(Self::ListVersions { name: valid(name)? }),
            ("GET", ["secrets", name, id]) => Ok(Self::Get {
                name: valid(name)?,
                version: Some(version(name, id)?),
            }),
            ("PATCH", ["secrets", name, id]) => Ok(Self::Update {
                name: valid(name)?,
                version: Some(version(name, id)?),
            }),
            ("GET", ["deletedsecrets"]) => Ok(Self::ListDeleted),
            ("GET", ["deletedsecrets", name]) => Ok(Self::GetDeleted { name: valid(name)? }),
            ("DELETE", ["deletedsecrets", name]) => Ok(Self::Purge { name: valid(name)? }),
            ("POST", ["deletedsecrets", name, "recover"]) => {
                Ok(Self::Recover { name: valid(name)? })
            }
            (method, segments) => Err(Refusal::bad_parameter(format!(
                "Method {method} does not allow operation '{}'",
                segments.first().unwrap_or(&"")
            ))),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Get { .. } => Kind::Get,
            Self::List => Kind::List,
            Self::ListVersions { .. } => Kind::ListVersions,
            Self::Set { .. } => Kind::Set,
            Self::Update { .. } => Kind::Update,
            Self::Delete { .. } => Kind::Delete,
            Self::ListDeleted => Kind::ListDeleted,
            Self::GetDeleted { .. } => Kind::GetDeleted,
            Self::Purge { .. } => Kind::Purge,
            Self::Recover { .. } => Kind::Recover,
        }
    }

    pub fn secret(&self) -> Option<&str> {
        match self {
            Self::List | Self::ListDeleted => None,
            Self::Get { name, .. }
            | Self::Update { name, .. }
            | Self::ListVersions { name }
            | Self::Set { name }
            | Self::Delete { name }
            | Self::GetDeleted { name }
            | Self::Purge { name }
            | Self::Recover { name } => Some(name),
        }
    }
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

fn version(name: &str, id: &str) -> Result<Uuid, Refusal> {
    // `Uuid` also reads the dashed forms, which Key Vault doesn't.
    if id.len() == 32
        && let Ok(version) = Uuid::try_parse(id)
    {
        return Ok(version);
    }
    Err(Refusal::secret_not_found(&format!("{name}/{id}")))
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
        let Ok(Operation::Get { version, .. }) =
            parse(Method::GET, &format!("/secrets/a/{VERSION}"))
        else {
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
    }
}
