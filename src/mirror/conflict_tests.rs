use std::collections::BTreeMap;

use serde_json::json;

use super::super::ownership::Ownership;
use super::super::plan::{Plan, plan};
use super::super::samples::{at, decide, desired, managed, record, rival, target, written};
use super::*;

#[test]
fn a_foreign_target_is_left_alone() {
    let mut existing = written(&desired("x", "a"), at(1));
    existing.records.clear();
    let plan = decide(&desired("u", "a"), Some(&existing), &[]);
    assert!(matches!(plan, Plan::Conflict(Conflict::Foreign { .. })));
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
    assert!(matches!(plan, Plan::Conflict(Conflict::Key { winner, .. }) if winner == "mirror-r"));
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
        .insert("r".into(), record(&desired("r", "a"), at(1)));
    let other = |type_| Rival {
        type_,
        keys: Vec::new(),
        ..rival(true)
    };
    let tls = |existing, rivals: &[Rival]| {
        plan(
            &target(),
            SecretType::Tls,
            &ours,
            Some(existing),
            rivals,
            at(2),
        )
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
    for (value, precedes, conflicts) in [("b", true, true), ("b", false, false), ("a", true, false)]
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
fn sealed(uid: &str, digest: &str) -> Desired {
    Desired {
        immutable: true,
        ..desired(uid, digest)
    }
}

/// The target as it is after such a mirror was written.
fn written_sealed(uid: &str) -> Existing {
    let mut existing = written(&desired(uid, "a"), at(1));
    for record in existing.records.values_mut() {
        record.immutable = true;
    }
    existing
}

#[test]
fn a_target_is_made_immutable_and_then_keeps_its_content() {
    let before = written(&desired("u", "a"), at(1));
    let Plan::Write(write) = decide(&sealed("u", "a"), Some(&before), &[]) else {
        panic!("a write")
    };
    assert!(write.record.immutable && !write.changes_content);
    let existing = written_sealed("u");
    let plan = decide(&sealed("u", "a"), Some(&existing), &[]);
    assert!(matches!(plan, Plan::InSync(_)));
    let mut more = sealed("u", "a");
    let content = more.keys["token"].clone();
    more.keys.insert("more".into(), content);
    for other in [sealed("u", "b"), desired("u", "a"), more] {
        let plan = decide(&other, Some(&existing), &[]);
        assert!(matches!(plan, Plan::Conflict(Conflict::Immutable { .. })));
    }
    // Labels are no data.
    let mut labelled = sealed("u", "a");
    labelled.labels.insert("team".into(), "a".into());
    let plan = decide(&labelled, Some(&existing), &[]);
    assert!(matches!(plan, Plan::Write(_)));
}

#[test]
fn an_immutable_target_is_one_mirrors() {
    let mut second = desired("u", "a");
    let content = second.keys.remove("token").expect("a key");
    second.keys.insert("second".into(), content);
    let theirs = written_sealed("r");
    let plan = decide(&second, Some(&theirs), &[rival(true)]);
    assert!(matches!(plan, Plan::Conflict(Conflict::Immutable { .. })));
    second.immutable = true;
    let theirs = written(&desired("r", "a"), at(1));
    let plan = decide(&second, Some(&theirs), &[rival(true)]);
    assert!(
        matches!(plan, Plan::Conflict(Conflict::SharedImmutable { winner, .. }) if winner == "mirror-r")
    );
}

#[test]
fn a_mirror_made_anew_goes_on_with_the_immutable_target_of_its_name() {
    let mut successor = sealed("new", "a");
    successor.mirror = "mirror-old".into();
    let existing = written_sealed("old");
    let plan = decide(&successor, Some(&existing), &[]);
    assert!(matches!(plan, Plan::Write(write) if !write.changes_content));
}

#[test]
fn a_key_is_of_others_if_it_stays_whatever_the_mirror_does() {
    let mut existing = written(&desired("u", "a"), at(1));
    assert!(!existing.is_of_others("mirror-u", "token"));
    assert!(existing.is_of_others("mirror-x", "token"));
    existing.ownership =
        Ownership::of([managed("kubectl-edit", json!({"f:data": {"f:more": {}}}))]);
    assert!(existing.is_of_others("mirror-u", "more"));
}
