//! Carries out requests: Azure's own client for one vault and one identity.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::pager::{PagerContinuation, PagerOptions};
use azure_core::http::{ClientOptions, RetryOptions, Url};
use azure_core::time::OffsetDateTime;
use azure_security_keyvault_secrets::models::{
    SecretAttributes, SecretClientGetSecretOptions, SecretClientListSecretPropertiesOptions,
};
use azure_security_keyvault_secrets::{ResourceExt, SecretClient, SecretClientOptions};
use futures::StreamExt;
use jiff::Timestamp;

use super::fingerprint::{Attributes, Revision};
use super::survey::{Answer, Link, ObjectId, Page};
use super::token::RenewingCredential;
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
    credential: Arc<RenewingCredential>,
    secrets: SecretClient,
}

impl VaultClient {
    pub(super) fn new(
        transport: &Transport,
        credential: Arc<RenewingCredential>,
        host: &VaultHost,
    ) -> azure_core::Result<Self> {
        let client_options = transport.options();
        let options = SecretClientOptions {
            client_options,
            ..Default::default()
        };
        let token_source: Arc<dyn TokenCredential> = Arc::clone(&credential) as _;
        let secrets = SecretClient::new(&host.url(), token_source, Some(options))?;
        Ok(Self {
            host: host.clone(),
            credential,
            secrets,
        })
    }

    /// Where its tokens come from.
    pub(super) fn credential(&self) -> &RenewingCredential {
        &self.credential
    }

    /// GET of a secret: <https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret/get-secret>.
    pub(super) async fn get_secret(
        &self,
        id: &ObjectId,
    ) -> Result<(VaultSecret, Answer), VaultError> {
        let object = id.to_string();
        let malformed = || VaultError::new(VaultErrorKind::Malformed, &self.host, &object, "");
        let options = SecretClientGetSecretOptions {
            secret_version: id.version.clone(),
            ..Default::default()
        };
        let answer = self
            .secrets
            .get_secret(&id.name, Some(options))
            .await
            .map_err(|error| VaultError::classify(&error, &self.host, &object))?;
        let date = date(answer.headers());
        let secret = answer.into_model().map_err(|_| malformed())?;
        let version = secret
            .resource_id()
            .ok()
            .and_then(|id| id.version)
            .ok_or_else(malformed)?;
        let content_type = secret.content_type.as_deref();
        let attributes = attributes(
            secret.attributes.as_ref(),
            content_type,
            secret.tags.as_ref(),
        );
        let revision = Revision::new(&version, attributes);
        let timestamp = |seconds: Option<i64>| Timestamp::from_second(seconds?).ok();
        let secret = VaultSecret {
            updated: timestamp(attributes.updated),
            not_before: timestamp(attributes.not_before),
            expires: timestamp(attributes.expires),
            version,
            value: secret.value.ok_or_else(malformed)?.into_bytes().into(),
        };
        Ok((secret, Answer { revision, date }))
    }

    /// A page of the list of secrets: <https://learn.microsoft.com/rest/api/keyvault/secrets/get-secrets/get-secrets>.
    pub(super) async fn list_secrets(&self, link: Option<&Link>) -> Result<Page, VaultError> {
        const OBJECT: &str = "the list of secrets";
        let classify = |error| VaultError::classify(&error, &self.host, OBJECT);
        let malformed = || VaultError::new(VaultErrorKind::Malformed, &self.host, OBJECT, "");
        let continuation = link.map(|link| self.continuation(link)).transpose();
        let options = SecretClientListSecretPropertiesOptions {
            method_options: PagerOptions {
                continuation: continuation.map_err(|_| malformed())?,
                ..Default::default()
            },
            ..Default::default()
        };
        let list = self.secrets.list_secret_properties(Some(options));
        let mut pages = list.map_err(classify)?.into_pages();
        let answer = pages
            .next()
            .await
            .ok_or_else(malformed)?
            .map_err(classify)?;
        let next = pages.into_continuation().map(String::from);
        let page = answer.into_model().map_err(|_| malformed())?;
        let items = page.value.into_iter().filter_map(|item| {
            let name = item.resource_id().ok()?.name.to_ascii_lowercase();
            let content_type = item.content_type.as_deref();
            let attributes = attributes(item.attributes.as_ref(), content_type, item.tags.as_ref());
            Some((name, attributes.into()))
        });
        let items = items.collect();
        Ok(Page { items, next })
    }

    /// Where a list goes on, which must be in the same vault: the token goes along.
    fn continuation(&self, link: &Link) -> Result<PagerContinuation, ForeignLink> {
        let url: Url = link.parse().map_err(|_| ForeignLink)?;
        if url.scheme() == "https" && url.host_str() == Some(self.host.as_str()) {
            Ok(PagerContinuation::Link(url))
        } else {
            Err(ForeignLink)
        }
    }
}

/// A `nextLink` that leads elsewhere.
struct ForeignLink;

fn attributes<'a>(
    attributes: Option<&SecretAttributes>,
    content_type: Option<&'a str>,
    tags: Option<&'a HashMap<String, String>>,
) -> Attributes<'a> {
    let seconds = |time: Option<OffsetDateTime>| time.map(OffsetDateTime::unix_timestamp);
    let attribute = |field: fn(&SecretAttributes) -> Option<OffsetDateTime>| {
        seconds(attributes.and_then(field))
    };
    Attributes {
        updated: attribute(|attributes| attributes.updated),
        created: attribute(|attributes| attributes.created),
        not_before: attribute(|attributes| attributes.not_before),
        expires: attribute(|attributes| attributes.expires),
        enabled: attributes.and_then(|attributes| attributes.enabled),
        content_type,
        tags,
    }
}

/// The `Date` of an answer, in seconds since 1970: what the clock of who answered shows.
pub(super) fn date(headers: &Headers) -> Option<i64> {
    let date = headers.get_optional_str(&HeaderName::from_static("date"))?;
    let date = jiff::fmt::rfc2822::parse(date).ok()?;
    Some(date.timestamp().as_second())
}
