//! Carries out a read: Azure's own client for one vault and one identity.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use azure_core::http::{ClientOptions, RetryOptions};
use azure_core::time::OffsetDateTime;
use azure_security_keyvault_secrets::models::SecretClientGetSecretOptions;
use azure_security_keyvault_secrets::{ResourceExt, SecretClient, SecretClientOptions};
use jiff::Timestamp;

use super::{VaultError, VaultErrorKind, VaultHost, VaultSecret};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request may take in all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// HTTP for Azure's clients: proxies by the usual environment variables, and extra root certificates.
#[derive(Clone, Debug)]
pub struct Transport {
    http: reqwest::Client,
}

/// Why the transport can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("the CA bundle {path} can't be read: {source}")]
    Read {
        path: String,
        source: std::io::Error,
    },
    #[error(
        "the CA bundle {path} holds no PEM certificate that can be used; it must hold at least one"
    )]
    Unusable { path: String },
    #[error("HTTP can't be set up: {0}")]
    Http(#[from] reqwest::Error),
}

impl Transport {
    /// Sets up HTTP; the certificates of `ca_bundle` (PEM) are trusted beside the system's.
    pub fn new(ca_bundle: Option<&Path>) -> Result<Self, TransportError> {
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT);
        if let Some(path) = ca_bundle {
            let shown = path.display().to_string();
            let pem = std::fs::read(path).map_err(|source| TransportError::Read {
                path: shown.clone(),
                source,
            })?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .ok()
                .filter(|certificates| !certificates.is_empty())
                .ok_or(TransportError::Unusable { path: shown })?;
            http = http.tls_certs_merge(certificates);
        }
        Ok(Self {
            http: http.build()?,
        })
    }

    /// Options for a client of Azure's. Its own retries are off: one place retries, and that is ours.
    pub(super) fn options(&self) -> ClientOptions {
        ClientOptions {
            transport: Some(azure_core::http::Transport::new(Arc::new(
                self.http.clone(),
            ))),
            retry: RetryOptions::none(),
            ..Default::default()
        }
    }
}

/// The client of one vault and one identity, kept open: one challenge, then a reused token and connections.
pub(super) struct VaultClient {
    host: VaultHost,
    secrets: SecretClient,
}

impl VaultClient {
    pub(super) fn new(
        transport: &Transport,
        credential: Arc<dyn TokenCredential>,
        host: &VaultHost,
    ) -> azure_core::Result<Self> {
        let client_options = transport.options();
        let options = SecretClientOptions {
            client_options,
            ..Default::default()
        };
        let secrets = SecretClient::new(&host.url(), credential, Some(options))?;
        Ok(Self {
            host: host.clone(),
            secrets,
        })
    }

    /// GET of a secret: <https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret/get-secret>.
    pub(super) async fn get_secret(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Result<VaultSecret, VaultError> {
        let object = format!("secret {name}");
        let malformed = || VaultError::new(VaultErrorKind::Malformed, &self.host, &object, "");
        let options = SecretClientGetSecretOptions {
            secret_version: version.map(str::to_owned),
            ..Default::default()
        };
        let answer = self
            .secrets
            .get_secret(name, Some(options))
            .await
            .map_err(|error| VaultError::classify(&error, &self.host, &object))?;
        let secret = answer.into_model().map_err(|_| malformed())?;
        let version = secret
            .resource_id()
            .ok()
            .and_then(|id| id.version)
            .ok_or_else(malformed)?;
        let attributes = secret.attributes.unwrap_or_default();
        Ok(VaultSecret {
            value: secret.value.ok_or_else(malformed)?.into_bytes().into(),
            version,
            updated: timestamp(attributes.updated),
            not_before: timestamp(attributes.not_before),
            expires: timestamp(attributes.expires),
        })
    }
}

fn timestamp(time: Option<OffsetDateTime>) -> Option<Timestamp> {
    time.and_then(|time| Timestamp::from_second(time.unix_timestamp()).ok())
}
