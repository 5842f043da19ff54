//! A target as the cache has it: as small as decisions allow, since there is one for every mirror. Its managed fields, as the
//! API server tells them, would be most of the daemon's memory; here they are text until somebody asks.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::core::ObjectMeta;

use super::consent::{ADOPT_BY, Consent, resource};
use super::ownership::{Ownership, manager};
use super::plan::Existing;
use super::record::{Record, mirror_uids, records};
use crate::watch::Cached;

type Pairs = Box<[(Box<str>, Box<str>)]>;

/// A target.
pub type Target = Cached<Metadata>;

/// What is kept of its metadata besides the name.
#[derive(Clone, Debug)]
pub struct Metadata {
    resource_version: Box<str>,
    uid: Box<str>,
    labels: Pairs,
    annotations: Pairs,
    /// Field managers, each with the JSON of its fields.
    managers: Pairs,
    /// When each field manager last applied, by the API server's clock.
    applied: Box<[(Box<str>, Timestamp)]>,
    /// UIDs of the resources of akv2k8s that own it.
    resources: Box<[Box<str>]>,
}

impl Target {
    pub fn of(mut metadata: ObjectMeta) -> Self {
        let text = |text: Option<String>| text.unwrap_or_default().into_boxed_str();
        let entries = metadata.managed_fields.take().unwrap_or_default();
        let applied = entries
            .iter()
            .filter(|entry| entry.operation.as_deref() == Some("Apply"))
            .filter_map(|entry| Some((entry.manager.as_deref()?.into(), entry.time.as_ref()?.0)))
            .collect();
        let managers = entries.into_iter().map(|entry| {
            let fields = entry.fields_v1.map(|fields| fields.0).unwrap_or_default();
            (text(entry.manager), fields.to_string().into_boxed_str())
        });
        let owners = metadata.owner_references.take().unwrap_or_default();
        let kept = Metadata {
            resource_version: text(metadata.resource_version.take()),
            uid: text(metadata.uid.take()),
            labels: pairs(metadata.labels.take()),
            annotations: pairs(metadata.annotations.take()),
            managers: managers.collect(),
            applied,
            resources: owners.iter().filter_map(resource).map(Into::into).collect(),
        };
        Cached::new(metadata, kept)
    }

    /// The records on it, by UID of the mirror.
    pub fn records(&self) -> BTreeMap<String, Record> {
        let records = records(borrowed(&self.value.annotations)).into_iter();
        records
            .map(|(uid, record)| match self.applied(&uid) {
                Some(applied) => (uid, record.arrived(applied)),
                None => (uid, record),
            })
            .collect()
    }

    /// When a mirror last wrote it, to the second.
    fn applied(&self, uid: &str) -> Option<Timestamp> {
        let manager = manager(uid);
        let mut applied = self.value.applied.iter();
        applied
            .find(|(name, _)| **name == *manager)
            .map(|(_, time)| *time)
    }

    /// UIDs of the mirrors that have a record on it, readable or not.
    pub fn mirror_uids(&self) -> impl Iterator<Item = &str> {
        mirror_uids(borrowed(&self.value.annotations))
    }

    /// All that is known of it.
    pub fn existing(&self) -> Existing {
        let mut annotations = borrowed(&self.value.annotations);
        let adopt_by = annotations.find(|(name, _)| *name == ADOPT_BY);
        let resources = self.value.resources.iter().map(|uid| &**uid);
        Existing {
            uid: self.value.uid.to_string(),
            resource_version: self.value.resource_version.to_string(),
            labels: map(&self.value.labels),
            annotations: map(&self.value.annotations),
            records: self.records(),
            ownership: Ownership::of(borrowed(&self.value.managers)),
            consent: Consent::of(adopt_by.map(|(_, names)| names), resources),
            found: None,
        }
    }
}

fn pairs(map: Option<BTreeMap<String, String>>) -> Pairs {
    let pairs = map.into_iter().flatten();
    pairs
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn borrowed(pairs: &Pairs) -> impl Iterator<Item = (&str, &str)> {
    pairs.iter().map(|(name, value)| (&**name, &**value))
}

fn map(pairs: &Pairs) -> BTreeMap<String, String> {
    borrowed(pairs)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Secret;
    use kube::core::PartialObjectMeta;
    use serde_json::json;

    use super::super::consent::Origin;
    use super::super::record::annotation;
    use super::*;

    #[test]
    fn what_is_kept_says_all_that_decisions_need() {
        let record =
            json!({"mirror": "m", "digestKey": "k", "deletionPolicy": "Retain", "keys": {}});
        let secret: PartialObjectMeta<Secret> = serde_json::from_value(json!({"metadata": {
            "name": "t", "namespace": "n", "uid": "s", "resourceVersion": "7",
            "labels": {"l": "v"},
            "annotations": {annotation("u"): record.to_string(), annotation("w"): "{", ADOPT_BY: "n"},
            "ownerReferences": [
                {"apiVersion": "spv.no/v2beta1", "kind": "AzureKeyVaultSecret", "name": "a", "uid": "a1", "controller": true},
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "c1"},
            ],
            "managedFields": [
                {"manager": "keytide/u", "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:token": {}}}},
                {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:data": {"f:theirs": {}}}},
                {"manager": "none", "operation": "Update"},
            ],
        }}))
        .expect("metadata");
        let target = Target::of(secret.metadata);
        assert_eq!((&*target.namespace, &*target.name), ("n", "t"));
        assert_eq!(target.mirror_uids().collect::<Vec<_>>(), ["u", "w"]);
        let existing = target.existing();
        assert_eq!((&*existing.uid, &*existing.resource_version), ("s", "7"));
        assert_eq!(existing.labels["l"], "v");
        assert_eq!(existing.annotations.len(), 3);
        assert!(existing.consent.includes(Origin::KeyVaultMirror, "n", ""));
        let owns = |uid| {
            existing
                .consent
                .includes(Origin::AzureKeyVaultSecret, "", uid)
        };
        assert!(owns("a1") && !owns("c1"));
        assert_eq!(existing.records["u"].mirror, "m");
        assert!(
            existing
                .ownership
                .mirror("u")
                .is_some_and(|fields| fields.data.contains("token"))
        );
        assert!(existing.has_keys_of_outsiders());
    }

    #[test]
    fn content_that_waited_on_its_way_changed_when_it_arrived() {
        let key = json!({"digest": "d", "object": "o", "version": "1", "changed": "2026-01-01T00:00:00.5Z"});
        let record = json!({
            "mirror": "m", "digestKey": "k", "deletionPolicy": "Retain",
            "written": "2026-01-01T00:00:00.5Z", "keys": {"token": key},
        });
        let applied = |manager: &str, operation: &str, time: &str| json!({"manager": manager, "operation": operation, "time": time});
        let secret: PartialObjectMeta<Secret> = serde_json::from_value(json!({"metadata": {
            "name": "t", "namespace": "n", "annotations": {annotation("u"): record.to_string()},
            "managedFields": [
                applied("keytide/u", "Update", "2026-01-01T00:05:00Z"),
                applied("keytide/w", "Apply", "2026-01-01T00:04:00Z"),
                applied("keytide/u", "Apply", "2026-01-01T00:00:20Z"),
            ],
        }}))
        .expect("metadata");
        let records = Target::of(secret.metadata).records();
        let arrived = "2026-01-01T00:00:20Z".parse().expect("a time");
        assert_eq!(records["u"].keys["token"].changed, arrived);
    }
}
