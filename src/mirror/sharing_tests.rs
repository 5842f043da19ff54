//! Mirrors that share a target: who is its owner, whatever comes in which order.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::super::ownership::manager;
use super::super::samples;
use super::*;
use DeletionPolicy::{Delete, Retain};

/// A target, with what the API server does to it.
#[derive(Default)]
struct Target {
    records: BTreeMap<String, Record>,
    owners: BTreeSet<String>,
    key_of_outsider: bool,
}

impl Target {
    fn existing(&self) -> Option<Existing> {
        let mut entries: Vec<_> = self
            .records
            .keys()
            .map(|uid| {
                let owner = self
                    .owners
                    .get(uid)
                    .map(|uid| format!("k:{{\"uid\":\"{uid}\"}}"));
                let references: serde_json::Map<_, _> =
                    owner.into_iter().map(|key| (key, json!({}))).collect();
                let fields = json!({
                    "f:data": {format!("f:{uid}"): {}},
                    "f:metadata": {
                        "f:labels": {format!("f:{MIRRORED_LABEL}"): {}},
                        "f:annotations": {format!("f:{}", annotation(uid)): {}},
                        "f:ownerReferences": references,
                    }
                });
                (manager(uid), fields.to_string())
            })
            .collect();
        if self.key_of_outsider {
            let fields = json!({"f:data": {"f:theirs": {}}});
            entries.push(("kubectl-edit".to_owned(), fields.to_string()));
        }
        (!entries.is_empty()).then(|| Existing {
            uid: "s".into(),
            resource_version: "1".into(),
            records: self.records.clone(),
            ownership: Ownership::of(entries),
            ..Existing::default()
        })
    }

    fn write(&mut self, uid: &str, write: Write) {
        self.owners.retain(|owner| !write.release.contains(owner));
        if write.record.is_owner() {
            self.owners.insert(uid.to_owned());
        } else {
            self.owners.remove(uid);
        }
        self.records.insert(uid.to_owned(), write.record);
    }

    /// Whether garbage collection can take what is to be kept.
    fn is_in_danger(&self) -> bool {
        let mut records = self.records.values();
        !self.owners.is_empty() && records.any(|record| record.deletion_policy == Retain)
    }
}

/// One of the mirrors `0`, `1`… looks at the target, and writes if it must. Gives whether it did.
fn look(target: &mut Target, policies: &[DeletionPolicy], number: usize) -> bool {
    let uid = number.to_string();
    let content = Content {
        digest: "d".into(),
        object: "o".into(),
        version: "1".into(),
        updated: None,
        expires: None,
        failed: None,
    };
    let desired = Desired {
        mirror: format!("mirror-{uid}"),
        uid: uid.clone(),
        owner: uid.clone(),
        origin: Origin::KeyVaultMirror,
        digest_key: "k".into(),
        immutable: false,
        deletion_policy: policies[number],
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        matched: None,
        keys: BTreeMap::from([(uid.clone(), content)]),
    };
    let rivals = policies.iter().enumerate();
    let rivals: Vec<_> = rivals
        .filter(|(other, _)| *other != number)
        .map(|(other, policy)| Rival {
            name: format!("mirror-{other}"),
            uid: other.to_string(),
            type_: SecretType::Opaque,
            deletion_policy: *policy,
            keys: vec![other.to_string()],
            fills_others: false,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            precedes: other < number,
        })
        .collect();
    let existing = target.existing();
    let now = Timestamp::UNIX_EPOCH;
    match plan(
        &samples::target(),
        SecretType::Opaque,
        &desired,
        existing.as_ref(),
        &rivals,
        now,
    ) {
        Plan::InSync(_) => false,
        Plan::Write(write) => {
            target.write(&uid, write);
            true
        }
        Plan::Conflict(conflict) => panic!("{conflict}"),
    }
}

#[test]
fn mirrors_with_delete_are_all_owners() {
    let mut target = Target::default();
    for number in [0, 1] {
        assert!(look(&mut target, &[Delete, Delete], number));
    }
    assert_eq!(target.owners, BTreeSet::from(["0".into(), "1".into()]));
}

#[test]
fn a_mirror_with_retain_that_joins_takes_the_ownership_away_before_it_writes() {
    let mut target = Target::default();
    look(&mut target, &[Delete], 0);
    assert_eq!(target.owners, BTreeSet::from(["0".into()]));
    look(&mut target, &[Delete, Retain], 1);
    assert!(target.owners.is_empty());
    assert!(look(&mut target, &[Delete, Retain], 0), "it notes that");
    assert!(target.records["0"].shared && target.owners.is_empty());
}

#[test]
fn a_key_that_somebody_added_is_not_garbage() {
    let mut target = Target::default();
    look(&mut target, &[Delete], 0);
    for there in [true, false] {
        target.key_of_outsider = there;
        assert!(look(&mut target, &[Delete], 0));
        assert_eq!(target.owners.is_empty(), there);
        assert!(!look(&mut target, &[Delete], 0));
    }
}

#[test]
fn what_a_mirror_with_retain_left_behind_is_not_garbage() {
    let mut target = Target::default();
    for number in [0, 1, 0] {
        look(&mut target, &[Delete, Retain], number);
    }
    assert!(!look(&mut target, &[Delete], 0));
    assert!(target.owners.is_empty());
}

fn policy() -> impl Strategy<Value = DeletionPolicy> {
    prop_oneof![Just(Delete), Just(Retain)]
}

proptest! {
    #[test]
    fn what_is_retained_has_no_owner_and_all_come_to_rest(
        mut policies in prop::collection::vec(policy(), 3),
        steps in prop::collection::vec((0usize..3, prop::option::of(policy())), 0..12),
        key_of_outsider: bool,
    ) {
        let mut target = Target::default();
        look(&mut target, &policies, 0);
        target.key_of_outsider = key_of_outsider;
        for (number, change) in steps {
            policies[number] = change.unwrap_or(policies[number]);
            look(&mut target, &policies, number);
            prop_assert!(!target.is_in_danger());
        }
        // Every write wakes all; each may have to write twice: for itself, and for what that changed for the others.
        let mut writes = 0;
        while (0..3).any(|number| look(&mut target, &policies, number)) {
            writes += 1;
            prop_assert!(writes <= 6);
        }
        prop_assert!(!target.is_in_danger());
        let owners = if policies.contains(&Retain) || key_of_outsider { 0 } else { 3 };
        prop_assert_eq!(target.owners.len(), owners);
    }
}
