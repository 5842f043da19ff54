//! What to do with a target: a function of what the mirror wants, what is there and who else wants a part of it. Pure.
//!
//! A mirror with `deletionPolicy: Delete` is an owner of its target, which is garbage once all its owners are gone, daemon or
//! not. So it must be none while the target also has, or another mirror wants to put there, what has to outlive it: keys of a
//! mirror with `Retain`, or of somebody who is no mirror. Then [`super::sweep`] takes its keys out. That it is none follows from
//! what others have and want, never from what the mirror itself has written, and a mirror with `Retain` takes the
//! ownerReferences of others away before it writes. So no two mirrors can disagree on it for longer than a cache lags behind.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::ownership::{Fields, Ownership};
use super::record::{Content, Record, annotation};
use crate::api::{DeletionPolicy, SecretType};

/// Label on every target: what the daemon's watch of Secrets is limited to.
pub const MIRRORED_LABEL: &str = "keytide.dev/mirrored";

/// What a mirror wants its target to be.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Name and UID of the mirror.
    pub mirror: String,
    pub uid: String,
    pub digest_key: String,
    pub deletion_policy: DeletionPolicy,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub keys: BTreeMap<String, Content>,
}

/// A target as it is.
#[derive(Clone, Debug)]
pub struct Existing {
    pub uid: String,
    pub resource_version: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub records: BTreeMap<String, Record>,
    pub ownership: Ownership,
}

impl Existing {
    /// Takes in that the mirror with this UID was taken out of it.
    pub fn forget(&mut self, uid: &str, resource_version: String) {
        self.records.remove(uid);
        self.ownership.forget(uid);
        self.resource_version = resource_version;
    }

    /// Whether it has keys that no mirror put there. A mirrored key that somebody edited is none.
    pub fn has_keys_of_outsiders(&self) -> bool {
        let mirrored = |key| self.records.values().any(|r| r.keys.contains_key(key));
        self.ownership.keys_of_outsiders().any(|key| !mirrored(key))
    }
}

/// Another mirror of the namespace that wants the same target.
#[derive(Clone, Debug)]
pub struct Rival {
    pub name: String,
    pub uid: String,
    pub type_: SecretType,
    pub deletion_policy: DeletionPolicy,
    pub keys: Vec<String>,
    /// Its content may give it more keys: those that it has written count too.
    pub fills_others: bool,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// It comes first where nobody holds what both want: it is older, or as old and of smaller UID.
    pub precedes: bool,
}

/// The decision.
#[derive(Debug)]
pub enum Plan<'a> {
    /// The target is as it should be.
    InSync(&'a Existing),
    /// The target is to be written.
    Write(Write),
    /// Someone else has it.
    Conflict(Conflict),
}

/// A write that was decided on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Write {
    /// UID and resourceVersion that it was decided on; none where there is no target yet.
    pub precondition: Option<(String, String)>,
    /// UIDs of the mirrors whose ownerReferences must go first.
    pub release: Vec<String>,
    pub record: Record,
    /// Whether content changes, and not just its surroundings.
    pub changes_content: bool,
}

/// Who has what the mirror wants.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Conflict {
    #[error(
        "Secret {target} exists and was not made by Keytide; give the mirror another spec.target.name, or delete the Secret, and the mirror makes it anew"
    )]
    Foreign { target: String },
    #[error(
        "key {key} of Secret {target} belongs to mirror {winner}; remove it from one of the two mirrors, or give this one another target"
    )]
    Key {
        target: String,
        key: String,
        winner: String,
    },
    #[error(
        "mirror {winner} makes Secret {target} with type {type_}; give both mirrors one type, or this one another target"
    )]
    Type {
        target: String,
        type_: SecretType,
        winner: String,
    },
    #[error(
        "Secret {target} has type {is}, which can't be changed; delete the Secret, and the mirror makes it anew with type {wanted}, or set spec.target.type to {is}"
    )]
    FixedType {
        target: String,
        is: SecretType,
        wanted: SecretType,
    },
    #[error(
        "mirror {winner} gives {what} {name} of Secret {target} another value; give both mirrors one value, or leave it out of one"
    )]
    Metadata {
        target: String,
        /// `label` or `annotation`.
        what: &'static str,
        name: String,
        winner: String,
    },
    #[error(
        "key {key} of Secret {target} belongs to field manager {manager}; remove the key from the Secret, or give the mirror another key"
    )]
    Outsider {
        target: String,
        key: String,
        manager: String,
    },
}

/// Decides.
pub fn plan<'a>(
    target: &str,
    type_: SecretType,
    desired: &Desired,
    existing: Option<&'a Existing>,
    rivals: &[Rival],
    now: Timestamp,
) -> Plan<'a> {
    if let Some(conflict) = conflict(target, type_, desired, existing, rivals) {
        return Plan::Conflict(conflict);
    }
    let own = existing.and_then(|existing| existing.records.get(&desired.uid));
    let before = own.or_else(|| predecessor(desired, existing));
    let record = Record {
        type_,
        shared: must_outlive(desired, existing, rivals),
        ..next_record(desired, before, now)
    };
    let release = foreign_owners(desired, existing);
    let changes_content = before.is_none_or(|before| {
        before.keys.len() != record.keys.len()
            || record.keys.iter().any(|(key, now)| {
                before
                    .keys
                    .get(key)
                    .is_none_or(|b| b.changed != now.changed)
            })
    });
    match existing {
        Some(existing)
            if own == Some(&record)
                && release.is_empty()
                && is_whole(desired, &record, existing) =>
        {
            Plan::InSync(existing)
        }
        _ => Plan::Write(Write {
            precondition: existing.map(|e| (e.uid.clone(), e.resource_version.clone())),
            release,
            record,
            changes_content,
        }),
    }
}

fn conflict(
    target: &str,
    type_: SecretType,
    desired: &Desired,
    existing: Option<&Existing>,
    rivals: &[Rival],
) -> Option<Conflict> {
    let target = target.to_owned();
    let record_of = |uid: &str| existing.and_then(|existing| existing.records.get(uid));
    let ours = record_of(&desired.uid).or_else(|| predecessor(desired, existing));
    if existing.is_some()
        && ours.is_none()
        && rivals.iter().all(|rival| record_of(&rival.uid).is_none())
    {
        return Some(Conflict::Foreign { target });
    }
    if let Some(conflict) = type_conflict(&target, type_, existing, rivals) {
        return Some(conflict);
    }
    for rival in rivals {
        let theirs = record_of(&rival.uid);
        if let Some((what, name)) = disputed(desired, existing, rival) {
            return Some(Conflict::Metadata {
                target,
                what,
                name,
                winner: rival.name.clone(),
            });
        }
        let written = theirs.filter(|_| rival.fills_others);
        let written = written.into_iter().flat_map(|record| record.keys.keys());
        for key in rival
            .keys
            .iter()
            .chain(written)
            .filter(|key| desired.keys.contains_key(*key))
        {
            let held = |record: Option<&Record>| {
                record.is_some_and(|record| record.keys.contains_key(key))
            };
            let wins = match (held(ours), held(theirs)) {
                (true, false) => false,
                (false, true) => true,
                _ => rival.precedes,
            };
            if wins {
                return Some(Conflict::Key {
                    target,
                    key: key.clone(),
                    winner: rival.name.clone(),
                });
            }
        }
    }
    // A key that was ours and is another's now is drift, and taken back; one that never was ours is not.
    let ownership = existing.map(|existing| &existing.ownership)?;
    desired
        .keys
        .keys()
        .filter(|key| ours.is_none_or(|ours| !ours.keys.contains_key(*key)))
        .find_map(|key| {
            ownership.outsider(key).map(|manager| Conflict::Outsider {
                target: target.clone(),
                key: key.clone(),
                manager: manager.to_owned(),
            })
        })
}

/// The record of the mirror that had this one's name before and left its target behind: what that one made is this one's.
fn predecessor<'a>(desired: &Desired, existing: Option<&'a Existing>) -> Option<&'a Record> {
    let mut records = existing?.records.iter();
    records
        .find(|(uid, record)| **uid != desired.uid && record.mirror == desired.mirror)
        .map(|(_, record)| record)
}

/// The type of a Secret that is there stays; where there is none yet, the oldest mirror's counts.
fn type_conflict(
    target: &str,
    type_: SecretType,
    existing: Option<&Existing>,
    rivals: &[Rival],
) -> Option<Conflict> {
    let records = existing.map(|existing| &existing.records);
    // All say the same, since none is written with another type.
    let fixed = records.and_then(|records| Some(records.values().next()?.type_));
    let mut winners = rivals.iter().filter(|rival| match fixed {
        Some(is) => rival.type_ == is && records.is_some_and(|r| r.contains_key(&rival.uid)),
        None => rival.precedes && rival.type_ != type_,
    });
    match (winners.next(), fixed) {
        (_, Some(is)) if is == type_ => None,
        (Some(winner), _) => Some(Conflict::Type {
            target: target.to_owned(),
            type_: winner.type_,
            winner: winner.name.clone(),
        }),
        (None, Some(is)) => Some(Conflict::FixedType {
            target: target.to_owned(),
            is,
            wanted: type_,
        }),
        (None, None) => None,
    }
}

/// A label or annotation to which a rival that comes first gives another value. Without this each of the two mirrors would take it
/// from the other for ever.
fn disputed(
    desired: &Desired,
    existing: Option<&Existing>,
    rival: &Rival,
) -> Option<(&'static str, String)> {
    let owned = |uid: &str| existing.and_then(|existing| existing.ownership.mirror(uid));
    let (ours, theirs) = (owned(&desired.uid), owned(&rival.uid));
    type Names = fn(&Fields) -> &BTreeSet<String>;
    let kinds: [(_, _, _, Names); 2] = [
        ("label", &desired.labels, &rival.labels, |f| &f.labels),
        (
            "annotation",
            &desired.annotations,
            &rival.annotations,
            |f| &f.annotations,
        ),
    ];
    kinds.into_iter().find_map(|(what, wanted, other, names)| {
        let holds = |fields: Option<&Fields>, name: &String| {
            fields.is_some_and(|fields| names(fields).contains(name))
        };
        let lost = |name: &&String| match (holds(ours, name), holds(theirs, name)) {
            (true, false) => false,
            (false, true) => true,
            _ => rival.precedes,
        };
        let differs = |name: &&String| {
            other
                .get(*name)
                .is_some_and(|value| wanted[*name] != *value)
        };
        let name = wanted.keys().filter(differs).find(lost)?;
        Some((what, name.clone()))
    })
}

/// Whether the target has, or a rival wants to put there, what must be left when the mirror goes.
fn must_outlive(desired: &Desired, existing: Option<&Existing>, rivals: &[Rival]) -> bool {
    let wanted = rivals
        .iter()
        .any(|rival| rival.deletion_policy == DeletionPolicy::Retain);
    let there = existing.is_some_and(|existing| {
        let mut others = existing.records.iter();
        let retained = others
            .any(|(uid, r)| *uid != desired.uid && r.deletion_policy == DeletionPolicy::Retain);
        retained || existing.has_keys_of_outsiders()
    });
    desired.deletion_policy == DeletionPolicy::Delete && (wanted || there)
}

/// The other mirrors with which the target would go, though this one is to leave its keys behind.
fn foreign_owners(desired: &Desired, existing: Option<&Existing>) -> Vec<String> {
    existing
        .filter(|_| desired.deletion_policy == DeletionPolicy::Retain)
        .into_iter()
        .flat_map(|existing| existing.ownership.owners())
        .filter(|uid| *uid != desired.uid)
        .map(str::to_owned)
        .collect()
}

fn next_record(desired: &Desired, before: Option<&Record>, now: Timestamp) -> Record {
    let same_digest_key = before.is_some_and(|before| before.digest_key == desired.digest_key);
    let key_record = |(key, content): (&String, &Content)| {
        let before = before.and_then(|before| before.keys.get(key));
        (key.clone(), content.record(before, same_digest_key, now))
    };
    Record {
        mirror: desired.mirror.clone(),
        digest_key: desired.digest_key.clone(),
        type_: SecretType::default(),
        deletion_policy: desired.deletion_policy,
        shared: false,
        keys: desired.keys.iter().map(key_record).collect(),
    }
}

/// Whether all that the mirror wrote is still there and its own: what another manager changes, it takes over.
fn is_whole(desired: &Desired, record: &Record, existing: &Existing) -> bool {
    let Some(ours) = existing.ownership.mirror(&desired.uid) else {
        return false;
    };
    let owns_reference = ours.owners.contains(&desired.uid);
    ours.data.iter().eq(desired.keys.keys())
        && owns_reference == record.is_owner()
        && ours
            .labels
            .iter()
            .eq(with(&desired.labels, MIRRORED_LABEL).keys())
        && ours
            .annotations
            .iter()
            .eq(with(&desired.annotations, &annotation(&desired.uid)).keys())
        && desired
            .labels
            .iter()
            .all(|(name, value)| existing.labels.get(name) == Some(value))
        && desired
            .annotations
            .iter()
            .all(|(name, value)| existing.annotations.get(name) == Some(value))
}

fn with(map: &BTreeMap<String, String>, name: &str) -> BTreeMap<String, ()> {
    map.keys()
        .cloned()
        .chain([name.to_owned()])
        .map(|name| (name, ()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn desired(uid: &str, digest: &str) -> Desired {
        let content = Content {
            digest: digest.into(),
            object: "o".into(),
            version: format!("of {digest}"),
            updated: None,
        };
        Desired {
            mirror: format!("mirror-{uid}"),
            uid: uid.into(),
            digest_key: "k".into(),
            deletion_policy: DeletionPolicy::Delete,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            keys: BTreeMap::from([("token".to_owned(), content)]),
        }
    }

    fn managed(manager: &str, fields: Value) -> (String, String) {
        (manager.to_owned(), fields.to_string())
    }

    /// The target as it is after `desired` was written at `now`.
    fn written(desired: &Desired, now: Timestamp) -> Existing {
        let uid = &desired.uid;
        let name = annotation(uid);
        let fields = json!({
            "f:data": {"f:token": {}},
            "f:metadata": {
                "f:labels": {format!("f:{MIRRORED_LABEL}"): {}},
                "f:annotations": {format!("f:{name}"): {}},
                "f:ownerReferences": {format!("k:{{\"uid\":\"{uid}\"}}"): {}},
            }
        });
        Existing {
            uid: "s".into(),
            resource_version: "1".into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            records: BTreeMap::from([(uid.clone(), next_record(desired, None, now))]),
            ownership: Ownership::of([managed(&format!("keytide/{uid}"), fields)]),
        }
    }

    fn decide<'a>(desired: &Desired, existing: Option<&'a Existing>, rivals: &[Rival]) -> Plan<'a> {
        plan("t", SecretType::Opaque, desired, existing, rivals, at(100))
    }

    fn rival(precedes: bool) -> Rival {
        Rival {
            name: "mirror-r".into(),
            uid: "r".into(),
            type_: SecretType::Opaque,
            deletion_policy: DeletionPolicy::Delete,
            keys: vec!["token".into()],
            fills_others: false,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            precedes,
        }
    }

    #[test]
    fn a_missing_target_is_written_without_precondition() {
        let Plan::Write(write) = decide(&desired("u", "a"), None, &[]) else {
            panic!("a write")
        };
        assert!(write.precondition.is_none() && write.changes_content);
        assert!(write.record.keys["token"].first);
    }

    #[test]
    fn equal_content_is_not_written_again() {
        let wanted = desired("u", "a");
        let existing = written(&wanted, at(1));
        assert!(matches!(
            decide(&wanted, Some(&existing), &[]),
            Plan::InSync(_)
        ));
    }

    #[test]
    fn other_content_is_written_on_what_was_seen() {
        let existing = written(&desired("u", "a"), at(1));
        let Plan::Write(write) = decide(&desired("u", "b"), Some(&existing), &[]) else {
            panic!("a write")
        };
        assert_eq!(write.precondition, Some(("s".into(), "1".into())));
        assert_eq!(write.record.keys["token"].changed, at(100));
    }

    #[test]
    fn drift_is_repaired_and_is_no_change_of_content() {
        let wanted = desired("u", "a");
        let mut existing = written(&wanted, at(1));
        existing.ownership = Ownership::of([
            managed("keytide/u", json!({})),
            managed("kubectl-edit", json!({"f:data": {"f:token": {}}})),
        ]);
        let Plan::Write(write) = decide(&wanted, Some(&existing), &[]) else {
            panic!("a write")
        };
        assert!(!write.changes_content);
        assert_eq!(write.record.keys["token"].changed, at(1));
    }

    #[test]
    fn a_foreign_target_is_left_alone() {
        let mut existing = written(&desired("x", "a"), at(1));
        existing.records.clear();
        let plan = decide(&desired("u", "a"), Some(&existing), &[]);
        assert!(matches!(plan, Plan::Conflict(Conflict::Foreign { .. })));
    }

    #[test]
    fn what_a_mirror_of_the_same_name_left_behind_is_taken_over() {
        let mut successor = desired("new", "a");
        successor.mirror = "mirror-old".into();
        let existing = written(&desired("old", "a"), at(1));
        let Plan::Write(write) = decide(&successor, Some(&existing), &[]) else {
            panic!("a write")
        };
        assert!(!write.changes_content);
        assert_eq!(write.record.keys["token"].changed, at(1));
    }

    #[test]
    fn a_key_that_an_outsider_owns_is_left_alone() {
        let mut before = desired("u", "a");
        let mut existing = written(&before, at(1));
        existing.ownership =
            Ownership::of([managed("kubectl-edit", json!({"f:data": {"f:more": {}}}))]);
        let content = before.keys["token"].clone();
        before.keys.insert("more".into(), content);
        let plan = decide(&before, Some(&existing), &[]);
        assert!(matches!(plan, Plan::Conflict(Conflict::Outsider { .. })));
    }

    #[test]
    fn the_holder_of_a_key_keeps_it_even_from_an_older_mirror() {
        let wanted = desired("u", "a");
        let ours = written(&wanted, at(1));
        assert!(matches!(
            decide(&wanted, Some(&ours), &[rival(true)]),
            Plan::InSync(_)
        ));
        let theirs = written(&desired("r", "a"), at(1));
        let plan = decide(&wanted, Some(&theirs), &[rival(false)]);
        assert!(
            matches!(plan, Plan::Conflict(Conflict::Key { winner, .. }) if winner == "mirror-r")
        );
    }

    #[test]
    fn where_nobody_holds_a_key_the_older_mirror_gets_it() {
        assert!(matches!(
            decide(&desired("u", "a"), None, &[rival(true)]),
            Plan::Conflict(Conflict::Key { .. })
        ));
        assert!(matches!(
            decide(&desired("u", "a"), None, &[rival(false)]),
            Plan::Write(_)
        ));
    }

    #[test]
    fn a_key_that_the_content_of_another_mirror_gave_it_is_its_own() {
        let theirs = written(&desired("r", "a"), at(1));
        let other = Rival {
            keys: Vec::new(),
            fills_others: true,
            ..rival(false)
        };
        let plan = decide(&desired("u", "a"), Some(&theirs), &[other]);
        assert!(matches!(plan, Plan::Conflict(Conflict::Key { .. })));
    }

    #[test]
    fn mirrors_of_one_target_agree_on_its_type() {
        let other = Rival {
            type_: SecretType::Tls,
            keys: Vec::new(),
            ..rival(true)
        };
        assert!(matches!(
            decide(&desired("u", "a"), None, &[other]),
            Plan::Conflict(Conflict::Type { .. })
        ));
    }

    #[test]
    fn the_type_of_a_target_that_is_there_stays() {
        let ours = desired("u", "a");
        let alone = written(&ours, at(1));
        let mut shared = written(&ours, at(1));
        shared
            .records
            .insert("r".into(), next_record(&desired("r", "a"), None, at(1)));
        let other = |type_| Rival {
            type_,
            keys: Vec::new(),
            ..rival(true)
        };
        let tls = |existing, rivals: &[Rival]| {
            plan("t", SecretType::Tls, &ours, Some(existing), rivals, at(2))
        };
        assert!(matches!(
            tls(&alone, &[]),
            Plan::Conflict(Conflict::FixedType { .. })
        ));
        assert!(matches!(
            tls(&shared, &[other(SecretType::Opaque)]),
            Plan::Conflict(Conflict::Type { .. })
        ));
        assert!(matches!(
            tls(&shared, &[other(SecretType::Tls)]),
            Plan::Conflict(Conflict::FixedType { .. })
        ));
        // And who agrees with it is not troubled by an older mirror that no longer does.
        assert!(matches!(
            decide(&ours, Some(&alone), &[other(SecretType::Tls)]),
            Plan::InSync(_)
        ));
    }

    #[test]
    fn a_label_with_two_values_is_the_older_mirrors() {
        let mut wanted = desired("u", "a");
        wanted.labels.insert("team".into(), "a".into());
        let rival = |value: &str, precedes| Rival {
            keys: Vec::new(),
            labels: BTreeMap::from([("team".into(), value.into())]),
            ..rival(precedes)
        };
        for (value, precedes, conflicts) in
            [("b", true, true), ("b", false, false), ("a", true, false)]
        {
            let rivals = [rival(value, precedes)];
            let plan = decide(&wanted, None, &rivals);
            let conflict = matches!(plan, Plan::Conflict(Conflict::Metadata { .. }));
            assert_eq!(conflict, conflicts, "{value}, {precedes}");
        }
    }

    #[test]
    fn the_holder_of_an_annotation_keeps_it_even_from_an_older_mirror() {
        let mut wanted = desired("u", "a");
        wanted.annotations.insert("team".into(), "a".into());
        let rival = |precedes| Rival {
            keys: Vec::new(),
            annotations: BTreeMap::from([("team".into(), "b".into())]),
            ..rival(precedes)
        };
        let held_by = |uid: &str| {
            let mut target = written(&wanted, at(1));
            let fields = json!({"f:metadata": {"f:annotations": {"f:team": {}}}});
            target.ownership = Ownership::of([managed(&format!("keytide/{uid}"), fields)]);
            target
        };
        assert!(matches!(
            decide(&wanted, Some(&held_by("u")), &[rival(true)]),
            Plan::Write(_)
        ));
        assert!(matches!(
            decide(&wanted, Some(&held_by("r")), &[rival(false)]),
            Plan::Conflict(Conflict::Metadata { what: "annotation", winner, .. }) if winner == "mirror-r"
        ));
    }

    #[test]
    fn another_digest_key_changes_digests_but_not_content() {
        let before = desired("u", "a");
        let mut after = desired("u", "a");
        after.digest_key = "other".into();
        let content = after.keys.get_mut("token").expect("token");
        content.digest = "x".into();
        let Plan::Write(write) = decide(&after, Some(&written(&before, at(1))), &[]) else {
            panic!("a write")
        };
        assert!(!write.changes_content);
        assert_eq!(write.record.digest_key, "other");
    }
}

#[cfg(test)]
#[path = "sharing_tests.rs"]
mod sharing_tests;
