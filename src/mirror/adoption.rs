//! Taking over what somebody else made, and consents. Pure.
//!
//! What is taken over has content already, and workloads use it. So it is looked at once, before it is written: content that is the
//! same is no change and restarts nothing, other content replaces what containers may have. Whoever made it may come back for it, so
//! it is never Keytide's to delete. And what others own of the keys is taken from them (see [`super::ownership::claimed`]), because the
//! API server keeps a key for as long as anybody owns it.

use std::collections::BTreeMap;

use super::plan::{Desired, Existing};
use super::record::{KeyRecord, LONG_AGO};
use crate::vault::SecretValue;

/// What is in a target that a mirror takes over.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Found {
    /// Type of the Secret.
    pub type_: Option<String>,
    /// Of the keys that the mirror wants, those that there are.
    pub keys: BTreeMap<String, KeyRecord>,
}

impl Found {
    /// Keeps digests of what was read. How old it is nobody knows, so no container is too old for it.
    pub fn new(
        type_: Option<String>,
        content: &BTreeMap<String, SecretValue>,
        desired: &Desired,
        digest: impl Fn(&str, &[u8]) -> String,
    ) -> Self {
        let wanted = content
            .iter()
            .filter(|(key, _)| desired.keys.contains_key(*key));
        let record = |(key, value): (&String, &SecretValue)| {
            let record = KeyRecord {
                digest: digest(key, value.expose()),
                object: String::new(),
                version: String::new(),
                updated: None,
                expires: None,
                changed: LONG_AGO,
                first: false,
                unsettled_since: None,
                previous: None,
                failed: None,
            };
            (key.clone(), record)
        };
        Self {
            type_,
            keys: wanted.map(record).collect(),
        }
    }
}

/// Whether a target consents to be taken over by the mirror.
pub fn consents(existing: &Existing, desired: &Desired) -> bool {
    let (mirror, uid) = (&desired.mirror, &desired.owner);
    existing.consent.includes(desired.origin, mirror, uid)
}

/// Whether its content must be looked at before anything is decided: the mirror may take over a key that it does not have yet.
pub fn must_look(existing: &Existing, desired: &Desired) -> bool {
    consents(existing, desired) && new_keys(existing, desired).next().is_some()
}

/// Whether a target was taken over once, or is with this write.
pub fn is_adopted(existing: &Existing, desired: &Desired) -> bool {
    let takes_over = || {
        existing.records.is_empty()
            || new_keys(existing, desired).any(|key| existing.ownership.outsider(key).is_some())
    };
    existing.records.values().any(|record| record.adopted)
        || consents(existing, desired) && takes_over()
}

fn new_keys<'a>(existing: &'a Existing, desired: &'a Desired) -> impl Iterator<Item = &'a String> {
    let ours = desired.record_on(existing);
    let keys = desired.keys.keys();
    keys.filter(move |key| ours.is_none_or(|ours| !ours.keys.contains_key(*key)))
}

#[cfg(test)]
#[path = "adoption_tests.rs"]
mod tests;
