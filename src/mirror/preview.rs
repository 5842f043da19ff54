//! What would become of a target, key by key: told of what [`super::plan`] and [`super::sweep`] decide. Pure, but
//! for [`run`], which asks and has it decided.

mod run;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use kube::core::ObjectMeta;
use serde::Serialize;
use serde_json::json;

pub use self::run::Terms;
use super::plan::{Desired, Existing, Plan};
use super::record::{KeyRecord, Record, annotation};
use super::status::Failure;
use super::sweep::{LiveMirrors, Sweep, leftovers};
use super::target_name::TargetName;

/// What would become of a target by one mirror.
#[derive(Clone, Debug)]
pub struct Preview {
    pub namespace: String,
    /// Name of the mirror.
    pub mirror: String,
    pub target: TargetName,
    pub change: TargetChange,
    /// The mirror's keys.
    pub keys: Vec<KeyPreview>,
    afterwards: Afterwards,
}

/// What would become of a target. Also what is not content can change: labels, annotations, owners and the mirror's record.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetChange {
    Created,
    Changed,
    Deleted,
    Unchanged,
}

/// What would become of a key.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct KeyPreview {
    pub key: String,
    pub change: KeyChange,
    /// Host, kind and name of the vault object.
    pub object: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<KeyVersion>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<KeyVersion>,
}

/// Whether the content of a key would be another one.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyChange {
    Created,
    /// The vault has other content, or somebody has edited the key.
    Changed,
    Removed,
    Unchanged,
}

/// Which content a key has.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct KeyVersion {
    /// Version of the vault object.
    pub version: String,
    /// Keyed digest; none where its key is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// What a target would carry then.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Afterwards {
    AsBefore,
    /// This record of the mirror with this UID.
    Recorded(String, Box<Record>),
    /// No record of the mirror with this UID.
    Without(String),
    Gone,
}

impl Preview {
    /// What would become of a target by what was decided.
    pub(super) fn of(
        namespace: String,
        target: &TargetName,
        desired: &Desired,
        existing: Option<&Existing>,
        planned: Plan<'_>,
    ) -> Result<Self, Failure> {
        let (change, record) = match planned {
            Plan::Conflict(conflict) => return Err(conflict.into()),
            Plan::InSync(_) => (TargetChange::Unchanged, None),
            Plan::Write(write) => {
                let change = match write.precondition {
                    Some(_) => TargetChange::Changed,
                    None => TargetChange::Created,
                };
                (change, Some(write.record))
            }
        };
        let before = before(desired, existing);
        let after = record.as_ref().or(before);
        Ok(Self {
            namespace,
            mirror: desired.mirror.clone(),
            target: target.clone(),
            change,
            keys: keys(before, after, &edited(desired, existing)),
            afterwards: record.map_or(Afterwards::AsBefore, |record| {
                Afterwards::Recorded(desired.uid.clone(), Box::new(record))
            }),
        })
    }

    /// Leaves out digests that nothing can be compared with.
    pub(super) fn leave_out_digests(&mut self) {
        for key in &mut self.keys {
            for version in [&mut key.before, &mut key.after].into_iter().flatten() {
                version.digest = None;
            }
        }
    }

    /// Makes the metadata of targets, by namespace and name, what it would be.
    pub fn carry_out(&self, targets: &mut BTreeMap<(String, TargetName), ObjectMeta>) {
        let place = (self.namespace.clone(), self.target.clone());
        match &self.afterwards {
            Afterwards::AsBefore => {}
            Afterwards::Recorded(uid, record) => {
                let target = targets.entry(place).or_insert_with(|| ObjectMeta {
                    namespace: Some(self.namespace.clone()),
                    name: Some(self.target.name.clone()),
                    ..ObjectMeta::default()
                });
                let annotations = target.annotations.get_or_insert_default();
                annotations.insert(annotation(uid), json!(record).to_string());
            }
            Afterwards::Without(uid) => {
                let target = targets.get_mut(&place);
                if let Some(annotations) = target.and_then(|target| target.annotations.as_mut()) {
                    annotations.remove(&annotation(uid));
                }
            }
            Afterwards::Gone => {
                targets.remove(&place);
            }
        }
    }
}

/// What the mirror, or the one whose place it takes, has written.
fn before<'a>(desired: &Desired, existing: Option<&'a Existing>) -> Option<&'a Record> {
    existing.and_then(|existing| desired.record_on(existing))
}

/// Without the daemon's digest key, content of the same version of the same object is the same: it gets the digest that the record
/// has. Other content has one that is unlike all others.
pub(super) fn known_by_version(desired: &mut Desired, existing: Option<&Existing>) {
    let Some(before) = before(desired, existing) else {
        return;
    };
    desired.digest_key.clone_from(&before.digest_key);
    for (key, content) in &mut desired.keys {
        let known = before.keys.get(key);
        if let Some(known) =
            known.filter(|known| known.object == content.object && known.version == content.version)
        {
            content.digest.clone_from(&known.digest);
        }
    }
}

/// The keys that somebody else has written since the mirror did.
fn edited(desired: &Desired, existing: Option<&Existing>) -> BTreeSet<String> {
    let Some(existing) = existing else {
        return BTreeSet::new();
    };
    let Some(record) = existing.records.get(&desired.uid) else {
        return BTreeSet::new();
    };
    let owned = existing.ownership.mirror(&desired.uid);
    let keys = record.keys.keys();
    keys.filter(|key| owned.is_none_or(|owned| !owned.data.contains(*key)))
        .cloned()
        .collect()
}

fn keys(
    before: Option<&Record>,
    after: Option<&Record>,
    edited: &BTreeSet<String>,
) -> Vec<KeyPreview> {
    let of = |record: Option<&Record>, key: &str| record?.keys.get(key).cloned();
    let records = [before, after].into_iter().flatten();
    let names: BTreeSet<&String> = records.flat_map(|record| record.keys.keys()).collect();
    let told = |key: &String| {
        let (before, after) = (of(before, key), of(after, key));
        let change = match (&before, &after) {
            (None, _) => KeyChange::Created,
            (Some(_), None) => KeyChange::Removed,
            (Some(before), Some(after)) if before.changed != after.changed => KeyChange::Changed,
            (Some(_), Some(_)) if edited.contains(key) => KeyChange::Changed,
            (Some(_), Some(_)) => KeyChange::Unchanged,
        };
        let latest = after.as_ref().or(before.as_ref());
        KeyPreview {
            key: key.clone(),
            change,
            object: latest.map_or_else(String::new, |record| record.object.clone()),
            before: before.map(KeyVersion::from),
            after: after.map(KeyVersion::from),
        }
    };
    names.into_iter().map(told).collect()
}

impl From<KeyRecord> for KeyVersion {
    fn from(record: KeyRecord) -> Self {
        Self {
            version: record.version,
            digest: Some(record.digest),
        }
    }
}

/// What would be removed of a target, one leftover after the other: what is done with the next depends on what is there then.
pub(super) fn swept(
    namespace: &str,
    target: &TargetName,
    mut existing: Existing,
    live: &LiveMirrors<'_>,
) -> Vec<Preview> {
    let mut previews = Vec::new();
    let mut looked_at = HashSet::new();
    loop {
        let mut sweeps = leftovers((target.kind, &target.name), &existing, live).into_iter();
        let Some(sweep) = sweeps.find(|sweep| looked_at.insert(sweep.uid().to_owned())) else {
            return previews;
        };
        let before = existing.records.get(sweep.uid()).cloned();
        let version = existing.resource_version.clone();
        existing.forget(sweep.uid(), version);
        let mut keys = keys(before.as_ref(), None, &BTreeSet::new());
        // What others have stays.
        keys.retain(|key| {
            let mut others = existing.records.values();
            !others.any(|other| other.keys.contains_key(&key.key))
        });
        let (mirror, change, afterwards) = match sweep {
            Sweep::Withdraw { mirror, uid } => {
                (mirror, TargetChange::Changed, Afterwards::Without(uid))
            }
            Sweep::Delete { mirror, .. } => (mirror, TargetChange::Deleted, Afterwards::Gone),
        };
        previews.push(Preview {
            namespace: namespace.to_owned(),
            mirror,
            target: target.clone(),
            change,
            keys,
            afterwards,
        });
    }
}

#[cfg(test)]
mod tests;
