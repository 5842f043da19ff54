use proptest::prelude::*;
use serde_json::json;

use super::super::conflict::Conflict;
use super::super::consent::{Consent, Origin};
use super::super::ownership::Ownership;
use super::super::plan::{Plan, Write, plan};
use super::super::samples::{
    at, content, decide, desired, managed, managed_by_mirror, record, rival, target, written,
};
use super::*;
use crate::api::{DeletionPolicy, SecretType};

/// A Secret that kubectl made, with these keys, each with its digest.
fn foreign(keys: &[(&str, &str)], adopt_by: Option<&str>) -> Existing {
    let data: serde_json::Map<_, _> = keys
        .iter()
        .map(|(key, _)| (format!("f:{key}"), json!({})))
        .collect();
    let found = keys
        .iter()
        .map(|(key, digest)| (key.to_string(), found(digest)));
    Existing {
        uid: "s".into(),
        resource_version: "1".into(),
        ownership: Ownership::of([managed("kubectl", json!({"f:data": data, "f:type": {}}))]),
        consent: Consent::of(adopt_by, std::iter::empty()),
        found: adopt_by.map(|_| Found {
            type_: Some("Opaque".into()),
            keys: found.collect(),
        }),
        ..Existing::default()
    }
}

fn found(digest: &str) -> KeyRecord {
    KeyRecord {
        first: false,
        ..content(digest).record(None, true, LONG_AGO)
    }
}

fn write(plan: Plan<'_>) -> Write {
    match plan {
        Plan::Write(write) => write,
        other => panic!("a write, and not {other:?}"),
    }
}

#[test]
fn without_consent_nothing_is_taken_over_and_it_is_said_how_to_give_it() {
    for adopt_by in [None, Some("mirror"), Some("mirror-v")] {
        let existing = foreign(&[("token", "a")], adopt_by);
        assert!(!must_look(&existing, &desired("u", "a")));
        let Plan::Conflict(conflict) = decide(&desired("u", "a"), Some(&existing), &[]) else {
            panic!("a conflict")
        };
        let text = conflict.to_string();
        assert!(
            text.ends_with("kubectl annotate secret t keytide.dev/adopt-by=mirror-u"),
            "{text}"
        );
    }
}

#[test]
fn equal_content_is_taken_over_without_a_change() {
    let existing = foreign(&[("token", "a")], Some("mirror-u"));
    let wanted = desired("u", "a");
    assert!(must_look(&existing, &wanted));
    let write = write(decide(&wanted, Some(&existing), &[]));
    assert!(!write.changes_content);
    let token = &write.record.keys["token"];
    // No container is older than that, so none is stale.
    assert_eq!((token.changed, token.first), (LONG_AGO, false));
    assert_eq!(token.unsettled_since, None);
    assert_eq!(write.record.last_change(), None, "nobody knows");
}

#[test]
fn other_content_replaces_what_containers_may_have() {
    let existing = foreign(&[("token", "a")], Some("mirror-u"));
    let write = write(decide(&desired("u", "b"), Some(&existing), &[]));
    assert!(write.changes_content);
    let token = &write.record.keys["token"];
    assert_eq!((token.changed, token.first), (at(100), false));
}

#[test]
fn a_key_that_is_not_there_yet_is_new() {
    let existing = foreign(&[("other", "a")], Some("mirror-u"));
    let write = write(decide(&desired("u", "b"), Some(&existing), &[]));
    assert!(write.changes_content && write.record.keys["token"].first);
}

#[test]
fn what_is_taken_over_is_never_keytides_to_delete() {
    let existing = foreign(&[("token", "a")], Some("mirror-u"));
    let wanted = desired("u", "a");
    assert_eq!(wanted.deletion_policy, DeletionPolicy::Delete);
    let taken = write(decide(&wanted, Some(&existing), &[])).record;
    assert!(taken.adopted && !taken.is_owner());
    assert_eq!(taken.deletion_policy, DeletionPolicy::Retain);

    // Also for a mirror that joins, one that follows under the same name, and when the annotation is gone.
    let mut adopted = written(&wanted, at(1));
    adopted.records.insert("u".into(), taken);
    let mut joins = desired("v", "a");
    joins.keys = BTreeMap::from([("more".to_owned(), content("a"))]);
    let mut follows = desired("w", "a");
    follows.mirror = wanted.mirror.clone();
    let mut first = rival(true);
    first.uid = "u".into();
    for (mirror, rivals) in [(joins, &[first][..]), (follows, &[]), (wanted, &[])] {
        let write = write(decide(&mirror, Some(&adopted), rivals));
        assert!(
            write.record.adopted && !write.record.is_owner(),
            "{}",
            mirror.uid
        );
    }
}

#[test]
fn what_akv2k8s_made_of_a_resource_goes_with_it_and_so_do_its_keys() {
    let mut existing = foreign(&[("token", "a")], Some(""));
    existing.consent = Consent::of(None, ["u"].into_iter());
    let mut wanted = desired("u", "a");
    wanted.origin = Origin::AzureKeyVaultSecret;
    assert!(must_look(&existing, &wanted));
    let alone = write(decide(&wanted, Some(&existing), &[]));
    assert!(!alone.changes_content);
    assert_eq!(alone.record.keys["token"].changed, LONG_AGO);
    assert!(alone.record.adopted && alone.record.is_owner());
    // Another resource's keys, as long as they are akv2k8s' own, have to outlive this one.
    let mut shared = foreign(&[("token", "a"), ("theirs", "b")], Some(""));
    shared.consent = existing.consent.clone();
    let shared = write(decide(&wanted, Some(&shared), &[])).record;
    assert_eq!(shared.deletion_policy, DeletionPolicy::Delete);
    assert!(shared.adopted && !shared.is_owner());
    // A resource of that name which was made anew is another one.
    wanted.uid = "anew".into();
    wanted.owner = "anew".into();
    let plan = decide(&wanted, Some(&existing), &[]);
    assert!(matches!(plan, Plan::Conflict(Conflict::Foreign { .. })));
}

#[test]
fn what_others_own_of_it_is_claimed_until_it_is_the_mirrors_alone() {
    let wanted = desired("u", "a");
    let mut existing = written(&wanted, at(1));
    let mut record = record(&wanted, at(1));
    record.adopted = true;
    record.deletion_policy = DeletionPolicy::Retain;
    existing.records.insert("u".into(), record);
    let (manager, fields) = managed_by_mirror("u");
    let mut fields: serde_json::Value = serde_json::from_str(&fields).expect("JSON");
    fields["f:metadata"]["f:ownerReferences"].take();
    let ours = managed(&manager, fields);
    let theirs = |key: &str| managed("kubectl", json!({"f:data": {format!("f:{key}"): {}}}));
    existing.ownership = Ownership::of([ours.clone(), theirs("token")]);
    assert!(!write(decide(&wanted, Some(&existing), &[])).changes_content);
    existing.ownership = Ownership::of([ours, theirs("other")]);
    assert!(matches!(
        decide(&wanted, Some(&existing), &[]),
        Plan::InSync(_)
    ));
}

#[test]
fn one_key_of_somebody_else_is_taken_over_by_consent_too() {
    let mut wanted = desired("u", "a");
    let mut existing = written(&wanted, at(1));
    let theirs = managed("kubectl", json!({"f:data": {"f:more": {}}}));
    existing.ownership = Ownership::of([managed_by_mirror("u"), theirs]);
    assert!(!must_look(&existing, &wanted));
    wanted.keys.insert("more".into(), content("b"));
    assert!(matches!(
        decide(&wanted, Some(&existing), &[]),
        Plan::Conflict(Conflict::Outsider { .. })
    ));
    existing.consent = Consent::of(Some("mirror-u"), std::iter::empty());
    assert!(must_look(&existing, &wanted));
    existing.found = Some(Found {
        type_: Some("Opaque".into()),
        keys: BTreeMap::from([("more".to_owned(), found("b"))]),
    });
    let write = write(decide(&wanted, Some(&existing), &[]));
    assert!(write.record.adopted);
    assert_eq!(write.record.keys["more"].changed, LONG_AGO);
    assert_eq!(write.record.keys["token"].changed, at(1));
}

#[test]
fn consent_alone_makes_nothing_of_keytides_own_somebody_elses() {
    let wanted = desired("u", "a");
    let mut existing = written(&wanted, at(1));
    existing.consent = Consent::of(Some("mirror-u"), std::iter::empty());
    assert!(matches!(
        decide(&wanted, Some(&existing), &[]),
        Plan::InSync(_)
    ));
}

#[test]
fn the_secret_of_a_resource_of_akv2k8s_is_for_its_own_mirror() {
    let mut existing = foreign(&[("token", "a")], None);
    existing.consent = Consent::of(None, std::iter::once("u"));
    let mut wanted = desired("u", "a");
    assert!(!consents(&existing, &wanted));
    wanted.origin = Origin::AzureKeyVaultSecret;
    assert!(consents(&existing, &wanted));
}

#[test]
fn a_secret_of_another_type_is_not_taken_over() {
    let existing = foreign(&[("tls.crt", "a")], Some("mirror-u"));
    let wanted = desired("u", "a");
    let plan = plan(
        &target(),
        SecretType::Tls,
        &wanted,
        Some(&existing),
        &[],
        at(2),
    );
    assert!(
        matches!(&plan, Plan::Conflict(Conflict::FixedType { is, .. }) if is == "Opaque"),
        "{plan:?}"
    );
}

#[test]
fn only_digests_of_wanted_keys_are_kept_of_what_was_read() {
    let content = BTreeMap::from(["token", "other"].map(|key| {
        let value = SecretValue::from(format!("value of {key}").into_bytes());
        (key.to_owned(), value)
    }));
    let found = Found::new(None, &content, &desired("u", "a"), |key, value| {
        format!("{key} {}", value.len())
    });
    assert_eq!(found.keys.keys().collect::<Vec<_>>(), ["token"]);
    assert_eq!(found.keys["token"].digest, "token 14");
    assert!(!format!("{found:?}").contains("value of"));
}

proptest! {
    #[test]
    fn a_take_over_changes_what_differs_and_nothing_else(
        there in prop::collection::btree_map("[a-d]", "[xy]", 0..4),
        wanted in prop::collection::btree_map("[a-d]", "[xy]", 1..4),
    ) {
        let keys: Vec<_> = there.iter().map(|(key, digest)| (key.as_str(), digest.as_str())).collect();
        let mut existing = foreign(&keys, Some("mirror-u"));
        let mut mirror = desired("u", "a");
        mirror.keys = wanted.iter().map(|(key, digest)| (key.clone(), content(digest))).collect();
        if let Some(found) = &mut existing.found {
            found.keys.retain(|key, _| wanted.contains_key(key));
        }
        let write = write(decide(&mirror, Some(&existing), &[]));
        for (key, digest) in &wanted {
            let record = &write.record.keys[key];
            let same = there.get(key) == Some(digest);
            prop_assert_eq!(record.changed, if same { LONG_AGO } else { at(100) });
            prop_assert_eq!(record.first, !there.contains_key(key));
        }
        let differs = wanted.iter().any(|(key, digest)| there.get(key) != Some(digest));
        prop_assert_eq!(write.changes_content, differs);
    }
}
