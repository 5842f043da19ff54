//! What a mirror writes down about its keys, in an annotation of its own on the target: enough to tell, without the
//! content, whether the vault has something else, and when what changed. Nothing in it is secret.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::{DeletionPolicy, SecretType};

/// Start of the annotation's name; the mirror's UID follows.
const ANNOTATION_PREFIX: &str = "keytide.dev/mirror.";

/// The record of one mirror on one target.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Name of the mirror.
    pub mirror: String,
    /// ID of the key that the digests are made with.
    pub digest_key: String,
    /// Type that the target was made with.
    #[serde(default, rename = "type")]
    pub type_: SecretType,
    pub deletion_policy: DeletionPolicy,
    /// The target also has what must outlive the mirror, so that the mirror is no owner of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// By key of the target.
    pub keys: BTreeMap<String, KeyRecord>,
}

impl Record {
    /// When content last came into the target.
    pub fn last_change(&self) -> Option<Timestamp> {
        self.keys.values().map(|key| key.changed).max()
    }

    /// Whether the target has an ownerReference to the mirror, so that it is garbage when the mirror goes.
    pub fn is_owner(&self) -> bool {
        self.deletion_policy == DeletionPolicy::Delete && !self.shared
    }
}

/// The record of one key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRecord {
    /// Keyed digest of the content.
    pub digest: String,
    /// The vault object: host, kind and name, such as `contoso.vault.azure.net/secrets/ado-pat`.
    pub object: String,
    /// Its version.
    pub version: String,
    /// When that version was updated, by the vault's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<Timestamp>,
    /// When this content came into the target, by the API server's clock.
    pub changed: Timestamp,
    /// The key had no content before this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub first: bool,
}

/// Name of the annotation of the mirror with this UID.
pub fn annotation(uid: &str) -> String {
    format!("{ANNOTATION_PREFIX}{uid}")
}

/// UIDs of the mirrors that have a record among these annotations, readable or not.
pub fn mirror_uids<'a>(
    annotations: impl Iterator<Item = (&'a str, &'a str)>,
) -> impl Iterator<Item = &'a str> {
    annotations.filter_map(|(name, _)| name.strip_prefix(ANNOTATION_PREFIX))
}

/// The records among a target's annotations, by UID of the mirror. One that can't be read is as good as none: it is written anew.
pub fn records<'a, S: AsRef<str> + ?Sized + 'a>(
    annotations: impl IntoIterator<Item = (&'a S, &'a S)>,
) -> BTreeMap<String, Record> {
    annotations
        .into_iter()
        .filter_map(|(name, json)| {
            let uid = name.as_ref().strip_prefix(ANNOTATION_PREFIX)?;
            Some((uid.to_owned(), serde_json::from_str(json.as_ref()).ok()?))
        })
        .collect()
}

/// What is known of a key's content before it is written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Content {
    pub digest: String,
    pub object: String,
    pub version: String,
    pub updated: Option<Timestamp>,
}

impl Content {
    /// The key's next record. The content is the one of before if the digest says so or, where the digest key is another
    /// one and digests can't be compared, if it is the same version of the same object: a version's value never changes.
    pub fn record(
        &self,
        before: Option<&KeyRecord>,
        same_digest_key: bool,
        now: Timestamp,
    ) -> KeyRecord {
        let unchanged = |before: &&KeyRecord| {
            if same_digest_key {
                before.digest == self.digest
            } else {
                before.object == self.object && before.version == self.version
            }
        };
        let (changed, first) = match before {
            None => (now, true),
            Some(before) if unchanged(&before) => (before.changed, before.first),
            Some(_) => (now, false),
        };
        KeyRecord {
            digest: self.digest.clone(),
            object: self.object.clone(),
            version: self.version.clone(),
            updated: self.updated,
            changed,
            first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn content(digest: &str, version: &str) -> Content {
        Content {
            digest: digest.into(),
            object: "v/secrets/s".into(),
            version: version.into(),
            updated: None,
        }
    }

    #[test]
    fn content_that_appears_is_first() {
        let record = content("a", "1").record(None, true, at(1));
        assert!(record.first && record.changed == at(1));
    }

    #[test]
    fn a_new_version_with_equal_content_is_no_change() {
        let before = content("a", "1").record(None, true, at(1));
        let after = content("a", "2").record(Some(&before), true, at(2));
        assert_eq!(
            (after.changed, after.first, after.version.as_str()),
            (at(1), true, "2")
        );
    }

    #[test]
    fn other_content_is_a_change() {
        let before = content("a", "1").record(None, true, at(1));
        let after = content("b", "2").record(Some(&before), true, at(2));
        assert_eq!((after.changed, after.first), (at(2), false));
    }

    #[test]
    fn under_another_digest_key_the_version_decides() {
        let before = content("a", "1").record(None, true, at(1));
        assert_eq!(
            content("x", "1")
                .record(Some(&before), false, at(2))
                .changed,
            at(1)
        );
        assert_eq!(
            content("x", "2")
                .record(Some(&before), false, at(2))
                .changed,
            at(2)
        );
    }

    #[test]
    fn an_annotation_that_is_no_record_is_none() {
        let annotations = BTreeMap::from([
            (annotation("u"), "{".to_owned()),
            ("x".to_owned(), "{}".to_owned()),
        ]);
        assert!(records(&annotations).is_empty());
    }
}
