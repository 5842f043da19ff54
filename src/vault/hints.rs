//! Hints: Key Vault's events, which Event Grid puts into a queue of Azure Storage, say where to look before the next survey would.
//!
//! ```text
//! Key Vault ──▶ Event Grid ──▶ queue ──receive──▶ hint ──▶ engine: a read before its time
//!                                └────◀─delete──────┘
//! ```
//!
//! A hint is never content and never the reason to believe something: it makes an object that is wanted anyway be read
//! sooner, by the way of every other read. So one that is lost, late, doubled or forged changes how soon a change is seen, and nothing else.
//! [`event`] and [`pace`] decide and are pure; [`queue`] carries out. What a message holds must never be logged.

mod event;
mod pace;
mod queue;

use std::convert::Infallible;
use std::time::Duration;

use futures::StreamExt;

use self::event::NoHint;
use self::pace::Pace;
use self::queue::{Message, Received, VISIBILITY_TIMEOUT};
use super::task::random;
use super::{Identity, Subscriber, Vaults};
use crate::telemetry::Metrics;

pub use self::event::Hint;
pub use self::queue::{Queue, QueueUrl};

/// A message that was received more often is dropped: something goes wrong with it.
const MOST_DELIVERIES: i64 = 5;
/// Messages that are deleted at the same time.
const DELETES: usize = 8;
/// How long deletes may take in all, which leaves time until the messages are seen again.
const DELETES_TIMEOUT: Duration = VISIBILITY_TIMEOUT.saturating_sub(Duration::from_secs(5));

/// Where hints come from.
#[derive(Clone, Debug)]
pub struct Source {
    pub queue: QueueUrl,
    /// As whom the queue is read.
    pub identity: Identity,
    /// Longest pause between two looks into the queue.
    pub pause: Duration,
}

/// Why a message changes nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dropped {
    /// It is no event that could be understood.
    Malformed,
    /// It was received again and again.
    Poison,
    /// It is an event about something else.
    OtherEvent,
    /// Nothing is wanted of that vault, or no grant lets anybody read it.
    UnknownVault,
    /// Nobody wants the object, or no grant lets anybody read it.
    Unwanted,
}

impl Dropped {
    /// Label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Poison => "poison",
            Self::OtherEvent => "other_event",
            Self::UnknownVault => "unknown_vault",
            Self::Unwanted => "unwanted",
        }
    }
}

/// What a message that was received so often is good for.
fn judge(text: &str, deliveries: i64) -> Result<Hint, Dropped> {
    let hint = Hint::parse(text).map_err(|no_hint| match no_hint {
        NoHint::Malformed => Dropped::Malformed,
        NoHint::Other => Dropped::OtherEvent,
    })?;
    if deliveries > MOST_DELIVERIES {
        return Err(Dropped::Poison);
    }
    Ok(hint)
}

/// Follows the queue for ever.
pub async fn follow<S: Subscriber>(
    queue: Queue,
    longest_pause: Duration,
    vaults: &Vaults<S>,
    metrics: &Metrics,
) -> Infallible {
    let mut pace = Pace::new(longest_pause);
    let mut failure = None;
    loop {
        let received = queue.receive().await;
        metrics.hint_request(
            "receive",
            received.as_ref().err().map(|error| error.outcome),
        );
        let pause = match received {
            Ok(received) => {
                if failure.take().is_some() {
                    tracing::info!("hints can be received again");
                }
                heed(&received, vaults, metrics);
                delete(&queue, &received.messages, metrics).await;
                pace.received(received.messages.len())
            }
            Err(error) => {
                if failure.as_ref() != Some(&error) {
                    tracing::warn!(%error, "hints can't be received, so changes are seen at the next interval");
                    failure = Some(error);
                }
                pace.failed(random())
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Passes on what the messages hint at.
fn heed<S: Subscriber>(received: &Received, vaults: &Vaults<S>, metrics: &Metrics) {
    for message in &received.messages {
        metrics.hint_received();
        let hint = judge(&message.text, message.deliveries);
        let happened = hint.as_ref().ok().and_then(|hint| hint.happened);
        if let Some((now, happened)) = received.now.zip(happened) {
            let age = Duration::try_from(now.duration_since(happened)).unwrap_or_default();
            metrics.hint_age(age);
        }
        let Err(dropped) = hint.and_then(|hint| vaults.hint(hint)) else {
            continue;
        };
        metrics.hint_dropped(dropped.as_str());
        if matches!(dropped, Dropped::Malformed | Dropped::Poison) {
            let (reason, bytes) = (dropped.as_str(), message.text.len());
            tracing::warn!(
                reason,
                bytes,
                deliveries = message.deliveries,
                "a message that is of no use is removed from the queue of hints; only Event Grid's Key Vault events belong there"
            );
        }
    }
}

/// Deletes messages that are done with. One that can't be deleted comes back, and is heeded or dropped once more.
async fn delete(queue: &Queue, messages: &[Message], metrics: &Metrics) {
    let deletes = futures::stream::iter(messages).for_each_concurrent(DELETES, async |message| {
        let error = queue.delete(message).await.err();
        metrics.hint_request("delete", error.as_ref().map(|error| error.outcome));
        if let Some(error) = error {
            tracing::debug!(%error, "a hint can't be deleted, and will come again");
        }
    });
    if tokio::time::timeout(DELETES_TIMEOUT, deletes)
        .await
        .is_err()
    {
        tracing::debug!("not all hints could be deleted in time; the others will come again");
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;

    fn message(event_type: &str) -> String {
        let id = "https://contoso.vault.azure.net/secrets/ado-pat/1";
        STANDARD.encode(json!({"type": event_type, "data": {"id": id}}).to_string())
    }

    #[test]
    fn a_good_message_is_heeded_until_it_was_received_too_often() {
        let good = message("Microsoft.KeyVault.SecretNewVersionCreated");
        for deliveries in 1..=MOST_DELIVERIES {
            assert!(judge(&good, deliveries).is_ok());
        }
        assert_eq!(judge(&good, MOST_DELIVERIES + 1), Err(Dropped::Poison));
    }

    #[test]
    fn a_message_that_will_never_be_understood_is_dropped_at_once() {
        assert_eq!(judge("garbage", 1), Err(Dropped::Malformed));
        let other = message("Microsoft.Storage.BlobCreated");
        assert_eq!(judge(&other, 1), Err(Dropped::OtherEvent));
    }
}
