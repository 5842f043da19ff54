//! What a mirror writes down about its keys, in an annotation of its own on the target: enough to tell, without the
//! content, whether the vault has something else, and when what changed. Nothing in it is secret.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::api::{DeletionPolicy, ObjectKind, SecretType};
use crate::vault::VaultHost;

/// Start of the annotation's name; the mirror's UID follows.
const ANNOTATION_PREFIX: &str = "keytide.dev/mirror.";

/// When content came that was there before Keytide: nobody knows when, and no container counts as older.
pub const LONG_AGO: Timestamp = Timestamp::UNIX_EPOCH;

/// Changes that are less apart follow in quick succession.
const QUICK_SUCCESSION: SignedDuration = SignedDuration::from_mins(10);

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
    /// The target's data can't be changed any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub immutable: bool,
    pub deletion_policy: DeletionPolicy,
    /// The target also has what must outlive the mirror, so that the mirror is no owner of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
    /// The target was somebody else's and was taken over, so that it is never deleted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
    /// When this record was about to be written; the content that this write brought has it as `changed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub written: Option<Timestamp>,
    /// Stands for the mirror's wishes for secrets by name or tag, where it has any: keys that were found for others are not missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<String>,
    /// By key of the target.
    pub keys: BTreeMap<String, KeyRecord>,
}

impl Record {
    /// When content last came into the target, as far as that is known.
    pub fn last_change(&self) -> Option<Timestamp> {
        let changes = self.keys.values().map(|key| key.changed);
        changes.max().filter(|latest| *latest != LONG_AGO)
    }

    /// The record of a target whose latest write by this mirror the API server put at `applied`. A write may have waited on its way,
    /// and until it arrived containers started with the old content: what it brought changed when it arrived.
    pub fn arrived(mut self, applied: Timestamp) -> Self {
        for key in self.keys.values_mut() {
            if Some(key.changed) == self.written {
                key.changed = key.changed.max(applied);
            }
        }
        self
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
    /// When that version expires, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
    /// When this content came into the target, by the API server's clock.
    pub changed: Timestamp,
    /// The key had no content before this one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub first: bool,
    /// When the content before this one had come, and where several came in quick succession, the first of them: what started since
    /// may have any of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsettled_since: Option<Timestamp>,
    /// The version of the content before this one, where that was of the same object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// The version that the vault has: its rollout failed, and this content is the one before ([`super::revert`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// How records name an object.
pub fn object(vault: &VaultHost, kind: ObjectKind, name: &str) -> String {
    format!("{vault}/{kind}s/{name}")
}

/// Whether that names several objects, of which a template made one key: no object's name has a comma.
pub fn is_of_several(object: &str) -> bool {
    object.contains(',')
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
    pub expires: Option<Timestamp>,
    /// The version that the vault has, where this is the one before.
    pub failed: Option<String>,
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
        let (changed, first, unsettled_since) = match before {
            None => (now, true, None),
            Some(before) if unchanged(&before) => {
                (before.changed, before.first, before.unsettled_since)
            }
            Some(before) => {
                let came = before.changed;
                let is_quick =
                    |earlier: &Timestamp| came.duration_since(*earlier) < QUICK_SUCCESSION;
                let earlier = before.unsettled_since.filter(is_quick);
                (now, false, Some(earlier.unwrap_or(came)))
            }
        };
        let previous = match before {
            // What was gone back to is not gone back from.
            _ if self.failed.is_some() => None,
            Some(before) if unchanged(&before) => {
                let is_of_it = |_: &String| before.object == self.object;
                before.previous.clone().filter(is_of_it)
            }
            Some(before) if before.object == self.object && before.version != self.version => {
                Some(before.version.clone())
            }
            _ => None,
        };
        KeyRecord {
            digest: self.digest.clone(),
            object: self.object.clone(),
            version: self.version.clone(),
            updated: self.updated,
            expires: self.expires,
            changed,
            first,
            unsettled_since,
            previous,
            failed: self.failed.clone(),
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
            expires: None,
            failed: None,
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
    fn changes_in_quick_succession_are_reckoned_from_the_first_that_was_replaced() {
        let mut record = content("a", "1").record(None, true, at(0));
        assert_eq!(record.unsettled_since, None);
        for (digest, time, expected) in [("b", 2000, 0), ("c", 2010, 2000), ("a", 2020, 2000)] {
            record = content(digest, "2").record(Some(&record), true, at(time));
            assert_eq!(record.unsettled_since, Some(at(expected)), "{digest}");
        }
    }

    #[test]
    fn the_version_before_is_that_of_the_content_before() {
        let first = content("a", "1").record(None, true, at(1));
        assert_eq!(first.previous, None);
        let second = content("b", "2").record(Some(&first), true, at(2));
        assert_eq!(second.previous.as_deref(), Some("1"));
        let same_content = content("b", "3").record(Some(&second), true, at(3));
        assert_eq!(same_content.previous.as_deref(), Some("1"));
        // A transform, or a property of another name.
        let same_version = content("c", "3").record(Some(&same_content), true, at(4));
        assert_eq!(same_version.previous, None);
        let mut other_object = content("d", "4");
        other_object.object = "v/secrets/other".into();
        let other_object = other_object.record(Some(&second), true, at(3));
        assert_eq!(other_object.previous, None);
    }

    #[test]
    fn what_was_gone_back_to_has_none_before_and_what_comes_then_has_it_before() {
        let first = content("a", "1").record(None, true, at(1));
        let second = content("b", "2").record(Some(&first), true, at(2));
        let mut reverted = content("a", "1");
        reverted.failed = Some("2".into());
        let reverted = reverted.record(Some(&second), true, at(3));
        assert_eq!(
            (reverted.previous.as_deref(), reverted.changed),
            (None, at(3))
        );
        assert_eq!(reverted.failed.as_deref(), Some("2"));
        let third = content("c", "3").record(Some(&reverted), true, at(4));
        assert_eq!(third.previous.as_deref(), Some("1"));
        assert_eq!(third.failed, None);
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
    fn content_changed_when_its_write_arrived() {
        let (old, new) = (content("a", "1"), content("b", "2"));
        let record = Record {
            mirror: "m".into(),
            digest_key: "k".into(),
            type_: SecretType::default(),
            immutable: false,
            deletion_policy: DeletionPolicy::Delete,
            shared: false,
            adopted: false,
            written: Some(at(50)),
            matched: None,
            keys: BTreeMap::from([
                ("old".to_owned(), old.record(None, true, at(10))),
                ("new".to_owned(), new.record(None, true, at(50))),
            ]),
        };
        let changed = |record: &Record, key: &str| record.keys[key].changed;
        let late = record.clone().arrived(at(80));
        assert_eq!(
            (changed(&late, "old"), changed(&late, "new")),
            (at(10), at(80))
        );
        // The API server's time is cut to the second.
        assert_eq!(changed(&record.arrived(at(49)), "new"), at(50));
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
