//! Names that the API takes: what the definitions of mirrors and grants would refuse is said with the resource that it came
//! from instead.

use crate::api::VaultRef;
pub(super) use crate::render::is_key;
use crate::vault::is_vault_name;

/// A name of a Kubernetes object. It needs no quotes in a shell.
pub(super) fn is_dns(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 253 && name.chars().all(inner) && name.starts_with(edge) && name.ends_with(edge)
}

/// A name of a namespace.
pub(super) fn is_namespace(name: &str) -> bool {
    is_dns(name) && name.len() <= 63 && !name.contains('.')
}

/// A name of an object of a Key Vault.
pub(super) fn is_object(name: &str) -> bool {
    (1..=127).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

pub(super) fn is_version(version: &str) -> bool {
    version.len() == 32 && version.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

/// A vault by its name, as it is completed by the daemon's DNS suffix.
pub(super) fn vault_named(name: &str) -> Result<VaultRef, String> {
    if is_vault_name(name) {
        Ok(VaultRef {
            name: Some(name.to_owned()),
            url: None,
        })
    } else {
        Err(format!("{name:?} is not the name of a vault"))
    }
}

/// A vault by its URL, which is written with a lower-case host and without a slash at its end.
pub(super) fn vault_at(url: &str) -> Result<VaultRef, String> {
    let lower = url.to_lowercase();
    match lower
        .strip_prefix("https://")
        .map(|host| host.trim_end_matches('/'))
    {
        Some(host) if is_dns(host) => Ok(VaultRef {
            name: None,
            url: Some(format!("https://{host}")),
        }),
        _ => Err(format!(
            "{url:?} is not the URL of a vault, such as https://contoso.vault.azure.net"
        )),
    }
}
