//! Carries out requests: Azure's own client for one vault and one identity.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::pager::{self, PagerContinuation, PagerOptions};
use azure_core::http::{ClientOptions, Pager, Response, RetryOptions, Url};
use azure_core::time::OffsetDateTime;
use azure_security_keyvault_certificates::models::CertificateAttributes;
use azure_security_keyvault_certificates::{CertificateClient, CertificateClientOptions};
use azure_security_keyvault_keys::models::KeyAttributes;
use azure_security_keyvault_keys::{KeyClient, KeyClientOptions};
use azure_security_keyvault_secrets::models::SecretAttributes;
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};
use futures::StreamExt;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::fingerprint::{Attributes, Revision};
use super::survey::{Answer, Link, ObjectId, Page};
use super::token::RenewingCredential;
use super::{Collection, VaultError, VaultErrorKind, VaultHost, VaultSecret};

mod certificates;
mod keys;
mod secrets;

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

/// The clients of one vault and one identity, kept open: one challenge each, then a reused token and connections.
pub(super) struct VaultClient {
    host: VaultHost,
    credential: Arc<RenewingCredential>,
    secrets: SecretClient,
    certificates: CertificateClient,
    keys: KeyClient,
}

impl VaultClient {
    pub(super) fn new(
        transport: &Transport,
        credential: Arc<RenewingCredential>,
        host: &VaultHost,
    ) -> azure_core::Result<Self> {
        let token_source = || -> Arc<dyn TokenCredential> { Arc::clone(&credential) as _ };
        let secrets = SecretClientOptions {
            client_options: transport.options(),
            ..Default::default()
        };
        let certificates = CertificateClientOptions {
            client_options: transport.options(),
            ..Default::default()
        };
        let keys = KeyClientOptions {
            client_options: transport.options(),
            ..Default::default()
        };
        Ok(Self {
            host: host.clone(),
            secrets: SecretClient::new(&host.url(), token_source(), Some(secrets))?,
            certificates: CertificateClient::new(&host.url(), token_source(), Some(certificates))?,
            keys: KeyClient::new(&host.url(), token_source(), Some(keys))?,
            credential,
        })
    }

    /// Where its tokens come from.
    pub(super) fn credential(&self) -> &RenewingCredential {
        &self.credential
    }

    /// GET of an object.
    pub(super) async fn get(&self, id: &ObjectId) -> Result<(VaultSecret, Answer), VaultError> {
        match id.collection {
            Collection::Secrets => secrets::get(self, id).await,
            Collection::Certificates => certificates::get(self, id).await,
            Collection::Keys => keys::get(self, id).await,
        }
    }

    /// A page of a collection's list.
    pub(super) async fn list(
        &self,
        collection: Collection,
        link: Option<&Link>,
    ) -> Result<Page, VaultError> {
        let method_options = PagerOptions {
            continuation: link.map(|link| self.continuation(link)).transpose()?,
            ..Default::default()
        };
        match collection {
            Collection::Secrets => secrets::list(self, method_options).await,
            Collection::Certificates => certificates::list(self, method_options).await,
            Collection::Keys => keys::list(self, method_options).await,
        }
    }

    /// What one of Azure's clients says went wrong with `object`.
    fn classify(&self, object: impl fmt::Display, error: &azure_core::Error) -> VaultError {
        VaultError::classify(error, &self.host, &object.to_string())
    }

    /// What a GET told of `id`. A certificate or key that is disabled is refused as Key Vault itself refuses a disabled secret.
    fn answered(
        &self,
        id: &ObjectId,
        told: Told<'_>,
        date: Option<i64>,
    ) -> Result<(VaultSecret, Answer), VaultError> {
        let error = |kind| VaultError::new(kind, &self.host, &id.to_string(), "");
        let attributes = told.attributes;
        if attributes.enabled == Some(false) {
            return Err(error(VaultErrorKind::Disabled));
        }
        let (Some(version), Some(value)) = (told.version, told.value) else {
            return Err(error(VaultErrorKind::Malformed));
        };
        let timestamp = |seconds: Option<i64>| Timestamp::from_second(seconds?).ok();
        let revision = Revision::new(&version, attributes);
        let secret = VaultSecret {
            updated: timestamp(attributes.updated),
            not_before: timestamp(attributes.not_before),
            expires: timestamp(attributes.expires),
            version,
            value: value.into(),
        };
        Ok((secret, Answer { revision, date }))
    }

    /// The page that a list begins or goes on with, and where it goes on after that.
    async fn page<P: DeserializeOwned + Send>(
        &self,
        list: &str,
        pager: azure_core::Result<Pager<P>>,
    ) -> Result<(P, Option<Link>), VaultError>
    where
        Response<P>: pager::Page,
    {
        let pager = pager.map_err(|error| self.classify(list, &error))?;
        let mut pages = pager.into_pages();
        let answer = pages.next().await.ok_or_else(|| self.malformed(list))?;
        let (page, _) = self.model(list, answer)?;
        Ok((page, pages.into_continuation().map(String::from)))
    }

    /// What an answer about `object` tells, and its `Date`.
    fn model<T: DeserializeOwned>(
        &self,
        object: impl fmt::Display,
        answer: azure_core::Result<Response<T>>,
    ) -> Result<(T, Option<i64>), VaultError> {
        let answer = answer.map_err(|error| self.classify(&object, &error))?;
        let date = date(answer.headers());
        let model = answer.into_model().map_err(|_| self.malformed(&object))?;
        Ok((model, date))
    }

    fn malformed(&self, object: impl fmt::Display) -> VaultError {
        let (kind, object) = (VaultErrorKind::Malformed, object.to_string());
        VaultError::new(kind, &self.host, &object, "")
    }

    /// Where a list goes on, which must be in the same vault: the token goes along.
    fn continuation(&self, link: &Link) -> Result<PagerContinuation, VaultError> {
        let url: Option<Url> = link.parse().ok();
        url.filter(|url| url.scheme() == "https" && url.host_str() == Some(self.host.as_str()))
            .map(PagerContinuation::Link)
            .ok_or_else(|| self.malformed("a list"))
    }
}

/// What a GET told of an object, whatever its collection.
struct Told<'a> {
    version: Option<String>,
    value: Option<Vec<u8>>,
    attributes: Attributes<'a>,
}

/// The attributes that all collections have, if there are any.
fn attributes<'a, A>(attributes: Option<&A>) -> Attributes<'a>
where
    for<'b> Attributes<'a>: From<&'b A>,
{
    attributes.map_or_else(Attributes::default, Attributes::from)
}

/// Azure's clients have a type for them each, with the same fields.
macro_rules! attributes_of {
    ($($theirs:ty),*) => {$(
        impl From<&$theirs> for Attributes<'_> {
            fn from(theirs: &$theirs) -> Self {
                Self {
                    updated: seconds(theirs.updated),
                    created: seconds(theirs.created),
                    not_before: seconds(theirs.not_before),
                    expires: seconds(theirs.expires),
                    enabled: theirs.enabled,
                    ..Self::default()
                }
            }
        }
    )*};
}

attributes_of!(SecretAttributes, CertificateAttributes, KeyAttributes);

fn seconds(time: Option<OffsetDateTime>) -> Option<i64> {
    time.map(OffsetDateTime::unix_timestamp)
}

/// The `Date` of an answer, in seconds since 1970: what the clock of who answered shows.
pub(super) fn date(headers: &Headers) -> Option<i64> {
    let date = headers.get_optional_str(&HeaderName::from_static("date"))?;
    let date = jiff::fmt::rfc2822::parse(date).ok()?;
    Some(date.timestamp().as_second())
}
