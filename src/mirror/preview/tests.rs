use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::api::TargetKind;
use crate::mirror::plan::plan;
use crate::mirror::record::Content;
use crate::mirror::samples::{self, content};
use crate::mirror::target::Target;

fn record(keys: Value) -> Record {
    let record =
        json!({"mirror": "m", "digestKey": "daemon's", "deletionPolicy": "Delete", "keys": keys});
    serde_json::from_value(record).expect("a record")
}

fn key(version: &str, changed: &str) -> Value {
    json!({"digest": format!("of {version}"), "object": "o", "version": version, "changed": changed})
}

fn secret() -> TargetName {
    TargetName::new(TargetKind::Secret, "t")
}

const EARLIER: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-02T00:00:00Z";

/// A target with this record of the mirror with UID `u`, who owns these fields of its data.
fn target(record: &Record, owned: Value) -> ObjectMeta {
    let fields = json!({"f:data": owned, "f:metadata": {"f:annotations": {}}});
    serde_json::from_value(json!({
        "name": "t", "namespace": "n", "uid": "s", "resourceVersion": "7",
        "annotations": {annotation("u"): json!(record).to_string()},
        "managedFields": [{"manager": "keytide/u", "operation": "Apply", "fieldsV1": fields}],
    }))
    .expect("metadata")
}

fn existing(record: &Record, owned: Value) -> Existing {
    Target::of(target(record, owned)).existing()
}

fn desired(version: &str) -> Desired {
    let content = Content {
        version: version.into(),
        ..content("by a key of our own")
    };
    Desired {
        mirror: "m".into(),
        digest_key: "our own".into(),
        keys: BTreeMap::from([("token".to_owned(), content)]),
        ..samples::desired("u", "")
    }
}

fn changes(keys: &[KeyPreview]) -> Vec<(&str, KeyChange)> {
    keys.iter().map(|it| (it.key.as_str(), it.change)).collect()
}

#[test]
fn every_key_is_told_with_what_becomes_of_it() {
    let before = record(json!({
        "gone": key("1", EARLIER), "new": key("1", EARLIER), "same": key("1", EARLIER), "theirs": key("1", EARLIER),
    }));
    let after = record(json!({
        "added": key("1", LATER), "new": key("2", LATER), "same": key("2", EARLIER), "theirs": key("1", EARLIER),
    }));
    let edited = BTreeSet::from(["theirs".to_owned()]);
    let keys = keys(Some(&before), Some(&after), &edited);
    let expected = [
        ("added", KeyChange::Created),
        ("gone", KeyChange::Removed),
        ("new", KeyChange::Changed),
        ("same", KeyChange::Unchanged),
        ("theirs", KeyChange::Changed),
    ];
    assert_eq!(changes(&keys), expected);
    let version = |version: &Option<KeyVersion>| version.clone().map(|it| it.version);
    let same = &keys[3];
    assert_eq!(version(&same.before).as_deref(), Some("1"));
    assert_eq!(version(&same.after).as_deref(), Some("2"));
    assert_eq!((&keys[0].before, &keys[1].after), (&None, &None));
}

#[test]
fn a_key_that_the_mirror_owns_no_more_was_edited() {
    let record = record(json!({"mine": key("1", EARLIER), "theirs": key("1", EARLIER)}));
    let existing = existing(&record, json!({"f:mine": {}}));
    let edited = edited(&desired("1"), Some(&existing));
    assert_eq!(edited.into_iter().collect::<Vec<_>>(), ["theirs"]);
}

#[test]
fn without_the_digest_key_content_is_known_by_its_version() {
    let before = record(json!({"token": key("1", EARLIER)}));
    let existing = existing(&before, json!({"f:token": {}}));
    let (mut same, mut newer) = (desired("1"), desired("2"));
    for desired in [&mut same, &mut newer] {
        known_by_version(desired, Some(&existing));
        assert_eq!(desired.digest_key, "daemon's");
    }
    assert_eq!(same.keys["token"].digest, "of 1");
    assert_eq!(newer.keys["token"].digest, "by a key of our own");
    let decide = |desired: &Desired| {
        let now = Timestamp::UNIX_EPOCH;
        match plan(
            &secret(),
            Default::default(),
            desired,
            Some(&existing),
            &[],
            now,
        ) {
            Plan::Write(write) => write.changes_content,
            _ => panic!("the record lacks what is written beside the content"),
        }
    };
    assert!(!decide(&same) && decide(&newer));
}

#[test]
fn what_a_mirror_leaves_behind_is_removed() {
    let record = record(json!({"token": key("1", EARLIER)}));
    let place = ("n".to_owned(), secret());
    let mut targets = BTreeMap::from([(place, target(&record, json!({"f:token": {}})))]);
    let live = LiveMirrors::from([("u", (TargetKind::Secret, "elsewhere"))]);
    let swept = swept(
        "n",
        &secret(),
        existing(&record, json!({"f:token": {}})),
        &live,
    );
    assert_eq!(swept.len(), 1);
    assert_eq!(swept[0].change, TargetChange::Deleted);
    assert_eq!(changes(&swept[0].keys), [("token", KeyChange::Removed)]);
    swept[0].carry_out(&mut targets);
    assert!(targets.is_empty());
}

#[test]
fn what_would_be_written_is_what_workloads_would_see() {
    let record = record(json!({"token": key("1", EARLIER)}));
    let mut preview = Preview {
        namespace: "n".into(),
        mirror: "m".into(),
        target: secret(),
        change: TargetChange::Created,
        keys: Vec::new(),
        afterwards: Afterwards::Recorded("u".into(), Box::new(record.clone())),
    };
    let mut targets = BTreeMap::new();
    let records = |targets: &BTreeMap<_, ObjectMeta>| {
        let target = targets.values().next().expect("a target").clone();
        Target::of(target).records()
    };
    preview.carry_out(&mut targets);
    assert_eq!(records(&targets)["u"], record);
    preview.afterwards = Afterwards::Without("u".into());
    preview.carry_out(&mut targets);
    assert!(records(&targets).is_empty());
}
