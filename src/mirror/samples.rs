//! Values that the tests of several modules begin with.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::consent::Origin;
use super::ownership::{Ownership, manager};
use super::plan::{Desired, Existing, MIRRORED_LABEL, Plan, Rival, plan};
use super::record::{Content, Record, annotation};
use super::target_name::TargetName;
use crate::api::{DeletionPolicy, SecretType, TargetKind};

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

pub fn content(digest: &str) -> Content {
    Content {
        digest: digest.into(),
        object: "o".into(),
        version: format!("of {digest}"),
        updated: None,
        expires: None,
        failed: None,
    }
}

/// A mirror with one key, `token`.
pub fn desired(uid: &str, digest: &str) -> Desired {
    Desired {
        mirror: format!("mirror-{uid}"),
        uid: uid.into(),
        owner: uid.into(),
        origin: Origin::KeyVaultMirror,
        digest_key: "k".into(),
        immutable: false,
        deletion_policy: DeletionPolicy::Delete,
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        matched: None,
        keys: BTreeMap::from([("token".to_owned(), content(digest))]),
    }
}

/// What a mirror wrote down at `now`, which had nothing before.
pub fn record(desired: &Desired, now: Timestamp) -> Record {
    let keys = desired.keys.iter();
    Record {
        mirror: desired.mirror.clone(),
        digest_key: desired.digest_key.clone(),
        type_: SecretType::Opaque,
        immutable: desired.immutable,
        deletion_policy: desired.deletion_policy,
        shared: false,
        adopted: false,
        written: None,
        matched: None,
        keys: keys
            .map(|(key, content)| (key.clone(), content.record(None, true, now)))
            .collect(),
    }
}

/// A field manager and what it owns.
pub fn managed(manager: &str, fields: Value) -> (String, String) {
    (manager.to_owned(), fields.to_string())
}

/// What a mirror is in managedFields that wrote a key `token` and is an owner.
pub fn managed_by_mirror(uid: &str) -> (String, String) {
    let fields = json!({
        "f:data": {"f:token": {}},
        "f:metadata": {
            "f:labels": {format!("f:{MIRRORED_LABEL}"): {}},
            "f:annotations": {format!("f:{}", annotation(uid)): {}},
            "f:ownerReferences": {format!("k:{{\"uid\":\"{uid}\"}}"): {}},
        }
    });
    managed(&manager(uid), fields)
}

/// The target as it is after `desired` was written at `now`.
pub fn written(desired: &Desired, now: Timestamp) -> Existing {
    let uid = &desired.uid;
    Existing {
        uid: "s".into(),
        resource_version: "1".into(),
        records: BTreeMap::from([(uid.clone(), record(desired, now))]),
        ownership: Ownership::of([managed_by_mirror(uid)]),
        ..Existing::default()
    }
}

pub fn decide<'a>(desired: &Desired, existing: Option<&'a Existing>, rivals: &[Rival]) -> Plan<'a> {
    plan(
        &target(),
        SecretType::Opaque,
        desired,
        existing,
        rivals,
        at(100),
    )
}

pub fn target() -> TargetName {
    TargetName::new(TargetKind::Secret, "t")
}

/// Another mirror, which wants `token` too.
pub fn rival(precedes: bool) -> Rival {
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
