//! As whom the vault is read.

use std::fmt;
use std::sync::Arc;

use azure_core::credentials::{Secret, TokenCredential};
use azure_core::http::ClientOptions;
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use clap::ValueEnum;

/// An Azure identity that the daemon can act as. The default is the daemon's own, as its environment has it.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Identity {
    pub client_id: Option<String>,
    pub tenant_id: Option<String>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.client_id {
            Some(client_id) => write!(f, "client ID {client_id}"),
            None => f.write_str("the daemon's own identity"),
        }
    }
}

/// Where tokens come from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum CredentialKind {
    /// Workload identity where its token file is configured, else a client secret where one is, else managed identity
    #[default]
    Auto,
    /// The node's managed identity, from IMDS
    ManagedIdentity,
    /// The ServiceAccount's token, exchanged at Microsoft Entra
    WorkloadIdentity,
    /// `AZURE_TENANT_ID`, `AZURE_CLIENT_ID` and `AZURE_CLIENT_SECRET`
    Environment,
}

impl CredentialKind {
    /// Settles `Auto` by looking at the environment.
    fn settle(self, environment: &dyn Fn(&str) -> Option<String>) -> Self {
        match self {
            Self::Auto if environment("AZURE_FEDERATED_TOKEN_FILE").is_some() => {
                Self::WorkloadIdentity
            }
            Self::Auto if environment("AZURE_CLIENT_SECRET").is_some() => Self::Environment,
            Self::Auto => Self::ManagedIdentity,
            settled => settled,
        }
    }

    /// Makes the credential of an identity, which keeps its tokens to itself.
    pub(super) fn credential(
        self,
        identity: &Identity,
        options: ClientOptions,
    ) -> azure_core::Result<Arc<dyn TokenCredential>> {
        // An empty variable is what a chart leaves behind where no value was given.
        let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let client_id = identity
            .client_id
            .clone()
            .or_else(|| environment("AZURE_CLIENT_ID"));
        let tenant_id = identity
            .tenant_id
            .clone()
            .or_else(|| environment("AZURE_TENANT_ID"));
        Ok(match self.settle(&environment) {
            Self::WorkloadIdentity => {
                WorkloadIdentityCredential::new(Some(WorkloadIdentityCredentialOptions {
                    credential_options: ClientAssertionCredentialOptions {
                        client_options: options,
                    },
                    client_id,
                    tenant_id,
                    ..Default::default()
                }))?
            }
            Self::Environment => ClientSecretCredential::new(
                &tenant_id.unwrap_or_default(),
                client_id.unwrap_or_default(),
                Secret::new(environment("AZURE_CLIENT_SECRET").unwrap_or_default()),
                Some(ClientSecretCredentialOptions {
                    client_options: options,
                }),
            )?,
            Self::ManagedIdentity | Self::Auto => {
                ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
                    user_assigned_id: client_id.map(UserAssignedId::ClientId),
                    client_options: options,
                }))?
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_prefers_what_is_configured() {
        let with = |names: &'static [&str]| {
            move |name: &str| names.contains(&name).then(|| "x".to_owned())
        };
        let auto = CredentialKind::Auto;
        assert_eq!(auto.settle(&with(&[])), CredentialKind::ManagedIdentity);
        assert_eq!(
            auto.settle(&with(&["AZURE_CLIENT_SECRET"])),
            CredentialKind::Environment
        );
        assert_eq!(
            auto.settle(&with(&[
                "AZURE_CLIENT_SECRET",
                "AZURE_FEDERATED_TOKEN_FILE"
            ])),
            CredentialKind::WorkloadIdentity
        );
        assert_eq!(
            CredentialKind::ManagedIdentity.settle(&with(&["AZURE_FEDERATED_TOKEN_FILE"])),
            CredentialKind::ManagedIdentity
        );
    }
}
