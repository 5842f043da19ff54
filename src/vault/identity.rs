//! As whom the vault is read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::Error;
use azure_core::credentials::{AccessToken, Secret, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind;
use azure_core::http::{ClientMethodOptions, ClientOptions};
use azure_identity::{
    ClientAssertion, ClientAssertionCredential, ClientAssertionCredentialOptions,
    ClientSecretCredential, ClientSecretCredentialOptions, ManagedIdentityCredential,
    ManagedIdentityCredentialOptions, UserAssignedId, WorkloadIdentityCredential,
    WorkloadIdentityCredentialOptions,
};
use clap::ValueEnum;
use tokio::time::timeout;

/// How long a token may take in all.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(20);

/// An Azure identity that the daemon can act as.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Identity {
    /// The daemon's own, as its environment has it.
    #[default]
    Daemon,
    /// Another one, by the same kind of credential.
    Application {
        client_id: String,
        /// None: that of the daemon.
        tenant_id: Option<String>,
    },
    /// That of a ServiceAccount.
    ServiceAccount(ServiceAccount),
}

/// A ServiceAccount, and the Azure identity that has a federated credential for it.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServiceAccount {
    pub namespace: String,
    pub name: String,
    pub client_id: String,
    /// None: that of the daemon.
    pub tenant_id: Option<String>,
}

impl Identity {
    /// Label for metrics: nothing for the daemon's own, a client ID, or `namespace/name` of a ServiceAccount.
    pub fn label(&self) -> String {
        match self {
            Self::Daemon => String::new(),
            Self::Application { client_id, .. } => client_id.clone(),
            Self::ServiceAccount(account) => format!("{}/{}", account.namespace, account.name),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon => f.write_str("the daemon's own identity"),
            Self::Application { client_id, .. } => write!(f, "client ID {client_id}"),
            Self::ServiceAccount(account) => {
                write!(
                    f,
                    "client ID {} of ServiceAccount {}",
                    account.client_id, account.name
                )
            }
        }
    }
}

/// Has the API server make tokens of ServiceAccounts.
#[async_trait]
pub trait ServiceAccountTokens: fmt::Debug + Send + Sync {
    /// A token of this ServiceAccount for [`EXCHANGE_AUDIENCE`]. The error is for the owner of the namespace.
    async fn token(&self, account: &ServiceAccount) -> Result<String, String>;
}

/// The audience of tokens that Microsoft Entra takes for a federated credential
/// (<https://learn.microsoft.com/entra/workload-id/workload-identity-federation>).
pub const EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";

/// Gives tokens of one ServiceAccount.
#[derive(Debug)]
struct Assertion {
    account: ServiceAccount,
    tokens: Arc<dyn ServiceAccountTokens>,
}

#[async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let token = self.tokens.token(&self.account).await;
        token.map_err(|sentence| Error::with_message(ErrorKind::Credential, sentence))
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
        accounts: &Arc<dyn ServiceAccountTokens>,
        options: ClientOptions,
    ) -> azure_core::Result<Arc<dyn TokenCredential>> {
        // An empty variable is what a chart leaves behind where no value was given.
        let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (client_id, tenant_id) = match identity {
            Identity::Daemon => (None, None),
            Identity::Application {
                client_id,
                tenant_id,
            } => (Some(client_id.clone()), tenant_id.clone()),
            Identity::ServiceAccount(account) => {
                let tenant_id = account.tenant_id.clone();
                let tenant_id = tenant_id.or_else(|| environment("AZURE_TENANT_ID"));
                let assertion = Assertion {
                    account: account.clone(),
                    tokens: Arc::clone(accounts),
                };
                let credential = ClientAssertionCredential::new(
                    tenant_id.ok_or_else(|| no_tenant(account))?,
                    account.client_id.clone(),
                    assertion,
                    Some(ClientAssertionCredentialOptions {
                        client_options: options,
                    }),
                )?;
                return Ok(Arc::new(Bounded(credential)));
            }
        };
        let client_id = client_id.or_else(|| environment("AZURE_CLIENT_ID"));
        let tenant_id = tenant_id.or_else(|| environment("AZURE_TENANT_ID"));
        let credential: Arc<dyn TokenCredential> = match self.settle(&environment) {
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
        };
        Ok(Arc::new(Bounded(credential)))
    }
}

fn no_tenant(account: &ServiceAccount) -> Error {
    let message = format!(
        "ServiceAccount {} has no annotation azure.workload.identity/tenant-id, and the daemon no tenant of its own; set one of them",
        account.name
    );
    Error::with_message(ErrorKind::Credential, message)
}

/// A credential that fails in time: that of managed identities tries for more than a minute by itself.
#[derive(Debug)]
struct Bounded(Arc<dyn TokenCredential>);

#[async_trait]
impl TokenCredential for Bounded {
    async fn get_token(
        &self,
        scopes: &[&str],
        options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        let late = |_| {
            let message = format!(
                "the endpoint that gives tokens gave none within {} s",
                TOKEN_TIMEOUT.as_secs()
            );
            Error::with_message(ErrorKind::Credential, message)
        };
        timeout(TOKEN_TIMEOUT, self.0.get_token(scopes, options))
            .await
            .map_err(late)?
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
