//! What vaults are called, and where in them objects are.

use std::fmt;
use std::str::FromStr;

use crate::api::VaultRef;

/// Host of a Key Vault, such as `contoso.vault.azure.net`: lower case, and under one of the configured suffixes. Only
/// [`DnsSuffixes::host`] makes one, so that no token is ever sent to a host outside them.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VaultHost(String);

impl VaultHost {
    /// The endpoint as Azure's clients want it.
    pub fn url(&self) -> String {
        format!("https://{}/", self.0)
    }

    /// The host name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VaultHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where in a vault GET and LIST find an object. A certificate is in all three: its public part under `certificates` and `keys`, and
/// all of it, with its key where that can be exported, as the secret that backs it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Collection {
    Secrets,
    Certificates,
    Keys,
}

impl Collection {
    /// What one object of it is called.
    pub fn object(self) -> &'static str {
        match self {
            Self::Secrets => "secret",
            Self::Certificates => "certificate",
            Self::Keys => "key",
        }
    }
}

impl fmt::Display for Collection {
    /// As in the path of a URL.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.object())
    }
}

/// The DNS suffixes under which vaults are looked for; the first completes a vault that is given by name. The public
/// cloud's is `vault.azure.net`, China's `vault.azure.cn`, US Government's `vault.usgovcloudapi.net`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DnsSuffixes(Vec<String>);

/// A vault that can't be one; the text says what to write instead.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidVault {
    #[error("give spec.vault.name or spec.vault.url, one of them")]
    NotOne,
    #[error(
        "`{0}` is not the name of a Key Vault: 3 to 24 letters, digits and dashes, beginning with a letter"
    )]
    Name(String),
    #[error(
        "the vault's host `{host}` is not under a DNS suffix that the daemon is configured with ({suffixes}); correct the URL, or add the suffix to the chart's value vaultDnsSuffixes"
    )]
    Suffix { host: String, suffixes: String },
}

impl DnsSuffixes {
    /// Resolves a reference to the host that it means.
    pub fn host(&self, vault: &VaultRef) -> Result<VaultHost, InvalidVault> {
        match (&vault.name, &vault.url) {
            (Some(name), None) if is_vault_name(name) => Ok(VaultHost(format!(
                "{}.{}",
                name.to_ascii_lowercase(),
                self.0[0]
            ))),
            (Some(name), None) => Err(InvalidVault::Name(name.clone())),
            (None, Some(url)) => {
                let host = url
                    .trim_start_matches("https://")
                    .trim_end_matches('/')
                    .to_ascii_lowercase();
                let known = self.0.iter().any(|suffix| {
                    host.strip_suffix(suffix.as_str())
                        .and_then(|rest| rest.strip_suffix('.'))
                        .is_some_and(is_vault_name)
                });
                if known {
                    Ok(VaultHost(host))
                } else {
                    Err(InvalidVault::Suffix {
                        host,
                        suffixes: self.0.join(", "),
                    })
                }
            }
            _ => Err(InvalidVault::NotOne),
        }
    }
}

impl FromStr for DnsSuffixes {
    type Err = String;

    /// Parses a comma-separated list.
    fn from_str(list: &str) -> Result<Self, Self::Err> {
        let suffixes: Vec<String> = list
            .split(',')
            .map(|suffix| suffix.trim().trim_matches('.').to_ascii_lowercase())
            .filter(|suffix| !suffix.is_empty())
            .collect();
        let is_suffix = |s: &String| {
            s.contains('.')
                && s.chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
        };
        match suffixes.iter().find(|suffix| !is_suffix(suffix)) {
            Some(bad) => Err(format!(
                "`{bad}` is not a DNS suffix; write for example vault.azure.net"
            )),
            None if suffixes.is_empty() => {
                Err("give at least one DNS suffix, for example vault.azure.net".to_owned())
            }
            None => Ok(Self(suffixes)),
        }
    }
}

/// Azure's rule: 3 to 24 characters, letters, digits and dashes, beginning with a letter, ending with no dash.
pub fn is_vault_name(name: &str) -> bool {
    (3..=24).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: Option<&str>, url: Option<&str>) -> Result<String, InvalidVault> {
        let suffixes: DnsSuffixes = "vault.azure.net, vault.azure.cn".parse().expect("suffixes");
        suffixes
            .host(&VaultRef {
                name: name.map(Into::into),
                url: url.map(Into::into),
            })
            .map(|host| host.to_string())
    }

    #[test]
    fn a_name_is_completed_by_the_first_suffix() {
        assert_eq!(
            host(Some("Contoso"), None),
            Ok("contoso.vault.azure.net".into())
        );
    }

    #[test]
    fn a_url_may_be_under_any_configured_suffix() {
        assert_eq!(
            host(None, Some("https://contoso.vault.azure.cn/")),
            Ok("contoso.vault.azure.cn".into())
        );
    }

    #[test]
    fn no_other_host_gets_a_token() {
        for url in [
            "https://contoso.example.com",
            "https://vault.azure.net",
            "https://a.b.vault.azure.net",
            "https://evilvault.azure.net",
            "https://contoso.vault.azure.net.example.com",
        ] {
            assert!(
                matches!(host(None, Some(url)), Err(InvalidVault::Suffix { .. })),
                "{url}"
            );
        }
        assert!(matches!(
            host(Some("x.example.com/"), None),
            Err(InvalidVault::Name(_))
        ));
        assert_eq!(host(None, None), Err(InvalidVault::NotOne));
    }

    #[test]
    fn suffixes_are_checked() {
        assert!("".parse::<DnsSuffixes>().is_err());
        assert!("https://vault.azure.net".parse::<DnsSuffixes>().is_err());
    }
}
