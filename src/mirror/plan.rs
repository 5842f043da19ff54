//! What to do with a target: a function of what the mirror wants, what is there and who else wants a part of it. Pure.
//!
//! A mirror with `deletionPolicy: Delete` is an owner of its target, which is garbage once all its owners are gone, daemon or
//! not. So it must be none while the target also has, or another mirror wants to put there, what has to outlive it: keys of a
//! mirror with `Retain`, or of somebody who is no mirror. Then [`super::sweep`] takes its keys out. That it is none follows from
//! what others have and want, never from what the mirror itself has written, and a mirror with `Retain` takes the
//! ownerReferences of others away before it writes. So no two mirrors can disagree on it for longer than a cache lags behind.
//! A target that was taken over ([`super::adoption`]) is under `Retain`, whatever its mirrors say; but not one that akv2k8s made of
//! the resource that the mirror is read from.
//!
//! An immutable target is one mirror's. It is not deleted and made anew for other content: under the same name, nodes would go on
//! with what they have of it for as long as a Pod there uses it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::adoption::{Found, is_adopted};
use super::conflict::{self, Conflict};
use super::consent::{Consent, Origin};
use super::ownership::Ownership;
use super::record::{Content, KeyRecord, Record, annotation};
use super::target_name::TargetName;
use crate::api::{DeletionPolicy, SecretType};

/// Label on every target: what the daemon's watches are limited to.
pub const MIRRORED_LABEL: &str = "keytide.dev/mirrored";

/// What a mirror wants its target to be.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Name and UID of the mirror.
    pub mirror: String,
    pub uid: String,
    /// UID that its ownerReference on the target has: its own, or that of the resource which it is read from.
    pub owner: String,
    pub origin: Origin,
    pub digest_key: String,
    pub immutable: bool,
    pub deletion_policy: DeletionPolicy,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// See [`Record::matched`].
    pub matched: Option<String>,
    pub keys: BTreeMap<String, Content>,
}

impl Desired {
    /// The mirror's record on a target.
    pub fn record_on<'a>(&self, existing: &'a Existing) -> Option<&'a Record> {
        existing.record_of(&self.uid, &self.mirror)
    }
}

/// A target as it is.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    pub uid: String,
    pub resource_version: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub records: BTreeMap<String, Record>,
    pub ownership: Ownership,
    pub consent: Consent,
    /// What is in it, where that had to be looked at.
    pub found: Option<Found>,
}

impl Existing {
    /// The record of a mirror, or that of the mirror which had this one's name before and left its target behind: what that one made
    /// is this one's.
    pub fn record_of(&self, uid: &str, name: &str) -> Option<&Record> {
        let mut records = self.records.values();
        let own = self.records.get(uid);
        own.or_else(|| records.find(|record| record.mirror == name))
    }

    /// Takes in that the mirror with this UID was taken out of it.
    pub fn forget(&mut self, uid: &str, resource_version: String) {
        self.records.remove(uid);
        self.ownership.forget(uid);
        self.resource_version = resource_version;
    }

    /// Whether it has keys that no mirror put there. A mirrored key that somebody edited is none.
    pub fn has_keys_of_outsiders(&self) -> bool {
        self.keys_of_outsiders().next().is_some()
    }

    fn keys_of_outsiders(&self) -> impl Iterator<Item = &String> {
        let mirrored = |key| self.records.values().any(|r| r.keys.contains_key(key));
        let keys = self.ownership.keys_of_outsiders();
        keys.filter(move |key| !mirrored(*key))
    }

    /// Whether somebody else than the mirror of this name has put a key there, which stays whatever the mirror does.
    pub fn is_of_others(&self, mirror: &str, key: &str) -> bool {
        let mirrored = self
            .records
            .values()
            .any(|record| record.mirror != mirror && record.keys.contains_key(key));
        mirrored || self.ownership.outsider(key).is_some()
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

/// Decides.
pub fn plan<'a>(
    target: &TargetName,
    type_: SecretType,
    desired: &Desired,
    existing: Option<&'a Existing>,
    rivals: &[Rival],
    now: Timestamp,
) -> Plan<'a> {
    if let Some(conflict) = conflict::find(target, type_, desired, existing, rivals) {
        return Plan::Conflict(conflict);
    }
    let own = existing.and_then(|existing| existing.records.get(&desired.uid));
    let adopted = existing.is_some_and(|existing| is_adopted(existing, desired));
    // What akv2k8s made of a resource is that resource's, and goes with it.
    let is_anothers = adopted && desired.origin == Origin::KeyVaultMirror;
    let deletion_policy = if is_anothers {
        DeletionPolicy::Retain
    } else {
        desired.deletion_policy
    };
    let before = content_before(desired, existing);
    let mut record = Record {
        mirror: desired.mirror.clone(),
        digest_key: desired.digest_key.clone(),
        type_,
        immutable: desired.immutable,
        deletion_policy,
        shared: deletion_policy == DeletionPolicy::Delete
            && must_outlive(desired, existing, rivals),
        adopted,
        written: own.and_then(|own| own.written),
        matched: desired.matched.clone(),
        keys: next_keys(desired, &before, now),
    };
    let release = match deletion_policy {
        DeletionPolicy::Delete => Vec::new(),
        DeletionPolicy::Retain => foreign_owners(desired, existing),
    };
    let changes_content = before.len() != record.keys.len()
        || record.keys.iter().any(|(key, now)| {
            let before = before.get(key);
            before.is_none_or(|(before, _)| before.changed != now.changed)
        });
    let immutable = conflict::of_immutable(target, desired, existing, rivals, changes_content);
    if let Some(conflict) = immutable {
        return Plan::Conflict(conflict);
    }
    match existing {
        Some(existing)
            if own == Some(&record)
                && release.is_empty()
                && is_whole(desired, &record, existing) =>
        {
            Plan::InSync(existing)
        }
        _ => {
            record.written = Some(now);
            Plan::Write(Write {
                precondition: existing.map(|e| (e.uid.clone(), e.resource_version.clone())),
                release,
                record,
                changes_content,
            })
        }
    }
}

/// The content that a mirror's keys have, and whether its digests are made with the key of today: as the mirror wrote it down, or as
/// it was found where the mirror takes it over.
type Before<'a> = BTreeMap<&'a String, (&'a KeyRecord, bool)>;

fn content_before<'a>(desired: &Desired, existing: Option<&'a Existing>) -> Before<'a> {
    let found = existing.and_then(|existing| existing.found.as_ref());
    let found = found.into_iter().flat_map(|found| &found.keys);
    let record = existing.and_then(|existing| desired.record_on(existing));
    let recorded = record.into_iter().flat_map(|record| {
        let comparable = record.digest_key == desired.digest_key;
        let keys = record.keys.iter();
        keys.map(move |(key, record)| (key, (record, comparable)))
    });
    let found = found.map(|(key, record)| (key, (record, true)));
    found.chain(recorded).collect()
}

fn next_keys(
    desired: &Desired,
    before: &Before<'_>,
    now: Timestamp,
) -> BTreeMap<String, KeyRecord> {
    let next = |(key, content): (&String, &Content)| {
        let record = match before.get(key) {
            Some(&(before, comparable)) => content.record(Some(before), comparable, now),
            None => content.record(None, true, now),
        };
        (key.clone(), record)
    };
    desired.keys.iter().map(next).collect()
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
        // A key of the mirror's own that an outsider has is about to be taken over.
        let mut outsiders = existing.keys_of_outsiders();
        retained || outsiders.any(|key| !desired.keys.contains_key(key))
    });
    wanted || there
}

/// The other mirrors with which the target would go, though this one is to leave its keys behind.
fn foreign_owners(desired: &Desired, existing: Option<&Existing>) -> Vec<String> {
    existing
        .into_iter()
        .flat_map(|existing| existing.ownership.owners())
        .filter(|uid| *uid != desired.owner)
        .map(str::to_owned)
        .collect()
}

/// Whether all that the mirror wrote is still there and its own: what another manager changes, it takes over.
fn is_whole(desired: &Desired, record: &Record, existing: &Existing) -> bool {
    let Some(ours) = existing.ownership.mirror(&desired.uid) else {
        return false;
    };
    let owns_reference = ours.owners.contains(&desired.owner);
    ours.data.iter().eq(desired.keys.keys())
        && owns_reference == record.is_owner()
        && !(record.adopted && existing.ownership.is_shared_with_outsiders(&desired.uid))
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
#[path = "plan_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "sharing_tests.rs"]
mod sharing_tests;
