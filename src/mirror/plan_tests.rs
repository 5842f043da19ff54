use serde_json::json;

use super::super::samples::{at, decide, desired, managed, written};
use super::*;

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
