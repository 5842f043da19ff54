//! Carries out looks into the queue, with Azure's own client.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use azure_core::error::ErrorKind;
use azure_core::http::{StatusCode, Url};
use azure_storage_queue::models::{QueueClientReceiveMessagesOptions, ReceivedMessage};
use azure_storage_queue::{QueueClient, QueueClientOptions};
use jiff::Timestamp;

use super::pace::MOST_AT_ONCE;
use crate::vault::Transport;
use crate::vault::client::date;
use crate::vault::error::one_line;
use crate::vault::token::RenewingCredential;

/// For how long others don't see a message that was received. What is done with it takes less, and what is lost with a daemon that
/// crashes comes back after it.
pub const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(30);

/// Host suffixes of queues: of the public cloud, China's, US Government's, and of accounts with an Azure DNS zone.
const SUFFIXES: [&str; 4] = [
    ".queue.core.windows.net",
    ".queue.core.chinacloudapi.cn",
    ".queue.core.usgovcloudapi.net",
    ".queue.storage.azure.net",
];

/// The URL of a queue, such as `https://contoso.queue.core.windows.net/keytide`: at Azure Storage, because it is sent a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct QueueUrl(Url);

impl FromStr for QueueUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // It is not quoted, because it may hold a SAS.
        const WRONG: &str = "that is not the URL of a queue of Azure Storage; write for example https://contoso.queue.core.windows.net/keytide, without a SAS";
        let url: Url = text.parse().map_err(|_| WRONG.to_owned())?;
        let host = url.host_str().unwrap_or_default();
        let is_azure = SUFFIXES.iter().any(|suffix| {
            host.strip_suffix(suffix)
                .is_some_and(|rest| !rest.is_empty())
        });
        let bare = url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let path = url.path();
        let queue = path.strip_prefix('/').unwrap_or(path);
        if url.scheme() == "https" && is_azure && bare && is_queue_name(queue) {
            Ok(Self(url))
        } else {
            Err(WRONG.to_owned())
        }
    }
}

impl fmt::Display for QueueUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Azure's rule: <https://learn.microsoft.com/rest/api/storageservices/naming-queues-and-metadata>.
fn is_queue_name(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// A message of the queue.
#[derive(Debug)]
pub struct Message {
    id: String,
    /// Which delivery it is: another one's can't be deleted by it.
    receipt: String,
    pub text: String,
    /// How often it was received, this time included.
    pub deliveries: i64,
}

impl Message {
    /// None is one that can't be deleted; the queue always gives what that takes.
    fn new(message: ReceivedMessage) -> Option<Self> {
        Some(Self {
            id: message.message_id?,
            receipt: message.pop_receipt?,
            text: message.message_text.unwrap_or_default(),
            deliveries: message.dequeue_count.unwrap_or_default(),
        })
    }
}

/// What a look gave.
#[derive(Debug)]
pub struct Received {
    pub messages: Vec<Message>,
    /// The time by Azure's clock.
    pub now: Option<Timestamp>,
}

/// A request that failed. What it says is for who set the queue up, and says what to do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{sentence}")]
pub struct QueueError {
    /// Label for metrics.
    pub outcome: &'static str,
    sentence: String,
}

/// The queue, and as whom it is read.
pub struct Queue {
    url: QueueUrl,
    credential: Arc<RenewingCredential>,
    client: QueueClient,
}

impl Queue {
    pub fn new(
        url: QueueUrl,
        transport: &Transport,
        credential: Arc<RenewingCredential>,
    ) -> azure_core::Result<Self> {
        let options = QueueClientOptions {
            client_options: transport.options(),
            ..Default::default()
        };
        let token_source: Arc<dyn TokenCredential> = Arc::clone(&credential) as _;
        let client = QueueClient::new(url.0.clone(), Some(token_source), Some(options))?;
        Ok(Self {
            url,
            credential,
            client,
        })
    }

    /// Takes messages, if there are any: <https://learn.microsoft.com/rest/api/storageservices/get-messages>. Others don't see them for
    /// [`VISIBILITY_TIMEOUT`].
    pub async fn receive(&self) -> Result<Received, QueueError> {
        let options = QueueClientReceiveMessagesOptions {
            number_of_messages: i32::try_from(MOST_AT_ONCE).ok(),
            visibility_timeout: i32::try_from(VISIBILITY_TIMEOUT.as_secs()).ok(),
            ..Default::default()
        };
        let answer = self.client.receive_messages(Some(options)).await;
        let answer = answer.map_err(|error| self.classify(&error))?;
        let now = date(answer.headers()).and_then(|seconds| Timestamp::from_second(seconds).ok());
        let messages = answer.into_model().map_err(|error| self.classify(&error))?;
        let messages = messages.items.unwrap_or_default();
        Ok(Received {
            messages: messages.into_iter().filter_map(Message::new).collect(),
            now,
        })
    }

    /// Deletes a message, unless it is gone already: <https://learn.microsoft.com/rest/api/storageservices/delete-message2>.
    pub async fn delete(&self, message: &Message) -> Result<(), QueueError> {
        let deleted = self
            .client
            .delete_message(&message.id, &message.receipt, None);
        match deleted.await {
            Err(error) if error.http_status() != Some(StatusCode::NotFound) => {
                Err(self.classify(&error))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn classify(&self, error: &azure_core::Error) -> QueueError {
        let (url, detail) = (&self.url, one_line(error));
        let (outcome, sentence) = match error.kind() {
            ErrorKind::HttpResponse { status, .. } => {
                let status = u16::from(*status);
                if status == 401 {
                    self.credential.rejected();
                }
                refused(url, status, error_code(error).unwrap_or_default())
            }
            ErrorKind::Credential => (
                "bad_credentials",
                format!(
                    "no token for the queue {url} ({detail}); check the identity's client ID and, for workload identity, its federated credential for the daemon's ServiceAccount"
                ),
            ),
            ErrorKind::Connection | ErrorKind::Io => (
                "unreachable",
                format!(
                    "the queue {url} can't be reached ({detail}); check its URL, DNS, network policies, proxy and CA bundle"
                ),
            ),
            _ => (
                "malformed",
                format!(
                    "what answered as the queue {url} is not Azure Storage; check DNS and proxies between the cluster and the queue"
                ),
            ),
        };
        QueueError { outcome, sentence }
    }
}

fn error_code(error: &azure_core::Error) -> Option<&str> {
    match error.kind() {
        ErrorKind::HttpResponse { error_code, .. } => error_code.as_deref(),
        _ => None,
    }
}

/// What a status and an error code mean: <https://learn.microsoft.com/rest/api/storageservices/queue-service-error-codes>.
fn refused(url: &QueueUrl, status: u16, code: &str) -> (&'static str, String) {
    let code = if code.is_empty() {
        "no error code"
    } else {
        code
    };
    match (status, code) {
        (401, _) => (
            "unauthorized",
            format!(
                "the queue {url} does not accept the identity's token ({code}); check that identity and storage account belong to one tenant and cloud"
            ),
        ),
        (403, "AuthorizationFailure") => (
            "firewall",
            format!(
                "the storage account's firewall refuses this cluster at the queue {url} ({code}); allow the cluster's outbound address or use a private endpoint"
            ),
        ),
        (403, _) => (
            "forbidden",
            format!(
                "the queue {url} may not be read ({code}); give the identity the role 'Storage Queue Data Message Processor' on the queue"
            ),
        ),
        (404, _) => (
            "not_found",
            format!("there is no queue {url} ({code}); create it, or correct the URL"),
        ),
        (429 | 503, _) => (
            "throttled",
            format!(
                "the queue {url} asks for fewer requests ({status}, {code}); it is asked again"
            ),
        ),
        _ => (
            "server_error",
            format!("the queue {url} answered {status} ({code}); it is asked again"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_at_azure_storage_and_reached_by_https() {
        for url in [
            "https://contoso.queue.core.windows.net/keytide",
            "https://Contoso.queue.core.windows.net/key-tide-1",
            "https://contoso.queue.core.usgovcloudapi.net/keytide",
            "https://contoso.queue.core.chinacloudapi.cn/keytide",
            "https://contoso.z01.queue.storage.azure.net/keytide",
        ] {
            assert!(url.parse::<QueueUrl>().is_ok(), "{url}");
        }
        for url in [
            "",
            "keytide",
            "http://contoso.queue.core.windows.net/keytide",
            "https://queue.core.windows.net/keytide",
            "https://contoso.queue.core.windows.net.example.com/keytide",
            "https://contoso.example.com/keytide",
            "https://contoso.blob.core.windows.net/keytide",
            "https://contoso.queue.core.windows.net",
            "https://contoso.queue.core.windows.net/keytide/",
            "https://contoso.queue.core.windows.net/keytide/messages",
            "https://contoso.queue.core.windows.net/Keytide",
            "https://contoso.queue.core.windows.net/keytide?sig=x",
            "https://user:word@contoso.queue.core.windows.net/keytide",
        ] {
            let sentence = url.parse::<QueueUrl>().expect_err(url);
            assert!(sentence.contains("write for example"), "{sentence}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let url = "https://contoso.queue.core.windows.net/keytide";
        let url: QueueUrl = url.parse().expect("a queue");
        for (status, code, outcome, remedy) in [
            (401, "AuthenticationFailed", "unauthorized", "one tenant"),
            (403, "AuthorizationFailure", "firewall", "outbound address"),
            (
                403,
                "AuthorizationPermissionMismatch",
                "forbidden",
                "Storage Queue Data Message Processor",
            ),
            (404, "QueueNotFound", "not_found", "create it"),
            (503, "ServerBusy", "throttled", "asked again"),
            (500, "", "server_error", "asked again"),
        ] {
            let (found, sentence) = refused(&url, status, code);
            assert_eq!(found, outcome);
            assert!(sentence.contains(remedy), "{sentence}");
        }
    }
}
