//! The flags that say how vaults are read, for who mirrors them and for who tells what that would do.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use crate::vault::{CredentialKind, DnsSuffixes, Limits};

/// Requests that may be sent to a vault at once after a quiet time.
const BURST: f64 = 100.0;
/// Requests that may be under way to a vault.
const CONCURRENCY: usize = 32;

#[derive(Debug, Args)]
pub struct VaultFlags {
    /// DNS suffixes of vaults, separated by commas; the first completes vaults that are given by name
    #[arg(
        long,
        env = "KEYTIDE_VAULT_DNS_SUFFIX",
        default_value = "vault.azure.net"
    )]
    vault_dns_suffix: DnsSuffixes,
    /// PEM file with certificates to trust beside the system's
    #[arg(long, env = "KEYTIDE_CA_BUNDLE")]
    ca_bundle: Option<PathBuf>,
    /// Where tokens for Azure come from
    #[arg(long, env = "KEYTIDE_CREDENTIAL", value_enum, default_value_t)]
    credential: CredentialKind,
    /// Let mirrors read as ServiceAccounts of their own namespaces, of which the API server is asked for tokens
    #[arg(long, env = "KEYTIDE_SERVICE_ACCOUNTS", default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    service_accounts: bool,
    /// Most requests per second to a vault with one identity; Key Vault itself allows 400 to all of its users together
    #[arg(long, env = "KEYTIDE_VAULT_REQUESTS_PER_SECOND", default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..))]
    vault_requests_per_second: u32,
}

impl VaultFlags {
    /// DNS suffixes of vaults.
    pub fn suffixes(&self) -> DnsSuffixes {
        self.vault_dns_suffix.clone()
    }

    /// File with certificates to trust beside the system's.
    pub fn ca_bundle(&self) -> Option<PathBuf> {
        self.ca_bundle.clone()
    }

    /// Where tokens come from.
    pub fn credential(&self) -> CredentialKind {
        self.credential
    }

    /// Whether mirrors may read as ServiceAccounts.
    pub fn service_accounts(&self) -> bool {
        self.service_accounts
    }

    /// What no vault is sent more of.
    pub fn limits(&self) -> Limits {
        let per_second = f64::from(self.vault_requests_per_second);
        Limits {
            per_second,
            burst: BURST.min(per_second),
            concurrency: CONCURRENCY,
        }
    }
}
