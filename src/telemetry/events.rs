//! Kubernetes events. Each is written once and as it is: kube's recorder counts events of one reason as one and keeps the
//! first one's text, but here the text is the point (which Secret, which version).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::PostParams;
use kube::{Api, Client};

/// Longest note that the API server takes, in bytes.
const LONGEST_NOTE: usize = 1024;

/// Whether an event is as it should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Normal,
    Warning,
}

/// Writes events in the daemon's name.
#[derive(Clone)]
pub struct Events {
    client: Client,
    instance: String,
}

impl Events {
    /// `instance` names this daemon among others, such as its Pod's name.
    pub fn new(client: Client, instance: String) -> Self {
        Self { client, instance }
    }

    /// Writes an event about an object. A failure is logged and is no reason to stop: events are for people.
    pub async fn publish(
        &self,
        about: ObjectReference,
        kind: Kind,
        reason: &str,
        action: &str,
        note: String,
    ) {
        let now = Timestamp::now();
        let name = about.name.clone().unwrap_or_default();
        let namespace = about
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let mut event = Event {
            event_time: Some(MicroTime(now)),
            action: Some(action.to_owned()),
            reason: Some(reason.to_owned()),
            note: Some(cut(note)),
            type_: Some(format!("{kind:?}")),
            regarding: Some(about),
            reporting_controller: Some("keytide".to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Default::default()
        };
        event.metadata.name = Some(event_name(&name, now));
        event.metadata.namespace = Some(namespace.clone());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        if let Err(error) = api.create(&PostParams::default(), &event).await {
            tracing::warn!(%namespace, object = %name, reason, %error, "an event can't be written");
        }
    }
}

/// The name of the object and the time; names have at most 253 characters.
fn event_name(object: &str, now: Timestamp) -> String {
    let start: String = object.chars().take(230).collect();
    let start = start.trim_end_matches(['-', '.']);
    format!("{start}.{:x}", now.as_nanosecond())
}

fn cut(mut note: String) -> String {
    let end = (0..=LONGEST_NOTE.min(note.len()))
        .rev()
        .find(|end| note.is_char_boundary(*end))
        .unwrap_or(0);
    note.truncate(end);
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_event_is_never_too_long() {
        let now = Timestamp::UNIX_EPOCH;
        assert_eq!(event_name("web", now), "web.0");
        assert_eq!(event_name(&"a.".repeat(126), now).len(), 231);
        assert!(event_name(&"x".repeat(253), Timestamp::MAX).len() <= 253);
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        assert_eq!(cut("ä".repeat(1000)).len(), 1024);
        assert_eq!(cut(format!("x{}", "ä".repeat(1000))).len(), 1023);
        assert_eq!(cut("short".into()), "short");
    }
}
