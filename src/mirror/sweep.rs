//! Keys of mirrors that are gone. An ownerReference lets the garbage collector delete a whole target, but not one mirror's
//! keys of a shared one ([`super::plan`] says which mirrors are owners); and a mirror that was given another target leaves its
//! old one behind. Level-triggered: what is left over is found by looking, whenever that is.

use std::collections::BTreeMap;

use super::akv2k8s;
use super::plan::Existing;
use super::record::Record;
use crate::api::{DeletionPolicy, TargetKind};

/// A target's kind and name.
pub type Address<'a> = (TargetKind, &'a str);

/// The mirrors of a namespace as far as sweeping is concerned: their UIDs, and their targets.
pub type LiveMirrors<'a> = BTreeMap<&'a str, Address<'a>>;

/// What to do about a record on a target whose mirror no longer wants it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Sweep {
    /// Take the mirror's keys out; others have a part in the target.
    Withdraw { mirror: String, uid: String },
    /// Delete the target; nobody else has a part in it.
    Delete { mirror: String, uid: String },
}

impl Sweep {
    /// UID of the mirror whose leftover it is.
    pub fn uid(&self) -> &str {
        let (Self::Withdraw { uid, .. } | Self::Delete { uid, .. }) = self;
        uid
    }
}

/// Whether all of the mirrors that have a record on a target want it: cheaper to know than what is left over.
pub fn all_want<'a>(
    target: Address<'_>,
    mut mirrors: impl Iterator<Item = &'a str>,
    live: &LiveMirrors<'_>,
) -> bool {
    mirrors.all(|uid| live.get(uid).is_some_and(|wanted| *wanted == target))
}

/// What is left over on a target.
pub fn leftovers(target: Address<'_>, existing: &Existing, live: &LiveMirrors<'_>) -> Vec<Sweep> {
    let wanted = |uid: &str| live.get(uid).is_some_and(|wanted| *wanted == target);
    let stays = existing.has_keys_of_outsiders()
        || existing
            .records
            .iter()
            .any(|(uid, record)| wanted(uid) || record.deletion_policy == DeletionPolicy::Retain);
    // A mirror that was made anew under the same name has taken over, so nothing is lost by it.
    let succeeded = |gone: &Record| {
        let mut records = existing.records.iter();
        records.any(|(uid, record)| wanted(uid) && record.mirror == gone.mirror)
    };
    existing
        .records
        .iter()
        .filter(|(uid, record)| {
            !wanted(uid) && (record.deletion_policy == DeletionPolicy::Delete || succeeded(record))
        })
        .filter_map(|(uid, record)| {
            let (mirror, uid) = (record.mirror.clone(), uid.clone());
            if record.immutable && existing.has_keys_of_outsiders() {
                // Nothing can be taken out of it, and it is not only Keytide's to delete.
                None
            } else if stays {
                Some(Sweep::Withdraw { mirror, uid })
            } else if record.is_owner() && !live.contains_key(&*uid) {
                // The garbage collector's, or kept by `--cascade=orphan`; but a resource of akv2k8s' that is there may have lost its
                // output.
                let may_be_there = akv2k8s::resource_name(&mirror).is_some();
                may_be_there.then_some(Sweep::Delete { mirror, uid })
            } else if existing.records.len() > 1 {
                // The last one to go deletes, since each is looked at by itself.
                Some(Sweep::Withdraw { mirror, uid })
            } else {
                Some(Sweep::Delete { mirror, uid })
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::api::SecretType;
    use crate::mirror::ownership::Ownership;
    use crate::mirror::record::KeyRecord;

    fn target(uids: &[&str], policy: DeletionPolicy, outsider: Option<&str>) -> Existing {
        let key = KeyRecord {
            digest: "d".into(),
            object: "o".into(),
            version: "1".into(),
            updated: None,
            expires: None,
            changed: Timestamp::UNIX_EPOCH,
            first: true,
            unsettled_since: None,
            previous: None,
            failed: None,
        };
        let record = |uid: &str| Record {
            mirror: format!("mirror-{uid}"),
            digest_key: "k".into(),
            type_: SecretType::Opaque,
            immutable: false,
            deletion_policy: policy,
            shared: false,
            adopted: false,
            written: None,
            matched: None,
            keys: BTreeMap::from([(uid.to_owned(), key.clone())]),
        };
        let entry = outsider.map(|key| {
            let fields = json!({"f:data": {format!("f:{key}"): {}}});
            ("kubectl", fields.to_string())
        });
        Existing {
            uid: "s".into(),
            resource_version: "1".into(),
            records: uids
                .iter()
                .map(|uid| ((*uid).to_owned(), record(uid)))
                .collect(),
            ownership: Ownership::of(entry),
            ..Existing::default()
        }
    }

    /// The target that is looked at.
    const T: Address<'_> = (TargetKind::Secret, "t");

    /// Mirrors and the names of their Secrets.
    fn live<'a>(mirrors: &[(&'a str, &'a str)]) -> LiveMirrors<'a> {
        let secret = |(uid, name): &(&'a str, &'a str)| (*uid, (TargetKind::Secret, *name));
        mirrors.iter().map(secret).collect()
    }

    #[test]
    fn a_gone_mirror_leaves_a_shared_target() {
        let existing = target(&["a", "b"], DeletionPolicy::Delete, None);
        let sweeps = leftovers(T, &existing, &live(&[("a", "t")]));
        assert_eq!(
            sweeps,
            [Sweep::Withdraw {
                mirror: "mirror-b".into(),
                uid: "b".into()
            }]
        );
    }

    #[test]
    fn a_gone_mirror_that_was_alone_is_the_garbage_collectors() {
        assert!(leftovers(T, &target(&["a"], DeletionPolicy::Delete, None), &live(&[])).is_empty());
    }

    #[test]
    fn a_mirror_with_another_target_leaves_its_old_one() {
        let delete = leftovers(
            T,
            &target(&["a"], DeletionPolicy::Delete, None),
            &live(&[("a", "new")]),
        );
        assert!(matches!(delete[..], [Sweep::Delete { .. }]));
        let withdraw = leftovers(
            T,
            &target(&["a"], DeletionPolicy::Delete, Some("theirs")),
            &live(&[("a", "new")]),
        );
        assert!(matches!(withdraw[..], [Sweep::Withdraw { .. }]));
    }

    #[test]
    fn a_mirror_whose_target_is_of_another_kind_now_leaves_its_old_one() {
        let now = LiveMirrors::from([("a", (TargetKind::ConfigMap, "t"))]);
        assert!(!all_want(T, ["a"].into_iter(), &now));
        let existing = target(&["a"], DeletionPolicy::Delete, None);
        let delete = leftovers(T, &existing, &now);
        assert!(matches!(delete[..], [Sweep::Delete { .. }]));
        let retained = target(&["a"], DeletionPolicy::Retain, None);
        assert!(leftovers(T, &retained, &now).is_empty());
    }

    #[test]
    fn retained_keys_go_once_a_mirror_of_the_same_name_has_taken_over() {
        let mut existing = target(&["a", "b"], DeletionPolicy::Retain, None);
        for record in existing.records.values_mut() {
            record.mirror = "same".into();
        }
        let sweeps = leftovers(T, &existing, &live(&[("b", "t")]));
        let gone = Sweep::Withdraw {
            mirror: "same".into(),
            uid: "a".into(),
        };
        assert_eq!(sweeps, [gone]);
    }

    #[test]
    fn a_target_is_looked_at_if_not_all_of_its_mirrors_want_it() {
        let wanted = |mirrors| all_want(T, ["a", "b"].into_iter(), &live(mirrors));
        assert!(wanted(&[("a", "t"), ("b", "t"), ("c", "other")]));
        assert!(!wanted(&[("a", "t")]));
        assert!(!wanted(&[("a", "t"), ("b", "other")]));
    }

    #[test]
    fn a_gone_mirror_was_no_owner_of_what_somebody_else_must_keep() {
        let mut with_retained = target(&["a", "b"], DeletionPolicy::Delete, None);
        if let Some(record) = with_retained.records.get_mut("b") {
            record.deletion_policy = DeletionPolicy::Retain;
        }
        let with_theirs = target(&["a"], DeletionPolicy::Delete, Some("theirs"));
        for existing in [with_retained, with_theirs] {
            let sweeps = leftovers(T, &existing, &live(&[]));
            let gone = Sweep::Withdraw {
                mirror: "mirror-a".into(),
                uid: "a".into(),
            };
            assert_eq!(sweeps, [gone]);
        }
        // A mirrored key that somebody edited is not theirs.
        let edited = target(&["a"], DeletionPolicy::Delete, Some("a"));
        assert!(leftovers(T, &edited, &live(&[])).is_empty());
    }

    #[test]
    fn what_no_garbage_collector_looks_after_is_deleted_by_the_last_to_go() {
        let mut existing = target(&["a", "b"], DeletionPolicy::Delete, None);
        for record in existing.records.values_mut() {
            record.shared = true;
        }
        let sweeps = leftovers(T, &existing, &live(&[]));
        assert!(matches!(
            sweeps[..],
            [Sweep::Withdraw { .. }, Sweep::Withdraw { .. }]
        ));
        existing.forget("a", "2".into());
        let sweeps = leftovers(T, &existing, &live(&[]));
        assert!(matches!(sweeps[..], [Sweep::Delete { .. }]));
    }

    #[test]
    fn what_was_taken_over_is_never_deleted_nor_taken_out() {
        let mut existing = target(&["a", "b"], DeletionPolicy::Delete, None);
        for record in existing.records.values_mut() {
            record.adopted = true;
            record.deletion_policy = DeletionPolicy::Retain;
        }
        for mirrors in [live(&[]), live(&[("a", "new")]), live(&[("b", "t")])] {
            assert!(leftovers(T, &existing, &mirrors).is_empty());
        }
    }

    #[test]
    fn nothing_is_taken_out_of_an_immutable_target() {
        let immutable = |outsider| {
            let mut existing = target(&["a"], DeletionPolicy::Delete, outsider);
            for record in existing.records.values_mut() {
                record.immutable = true;
            }
            leftovers(T, &existing, &live(&[("a", "new")]))
        };
        assert!(immutable(Some("theirs")).is_empty());
        assert!(matches!(immutable(None)[..], [Sweep::Delete { .. }]));
    }

    #[test]
    fn retained_keys_stay() {
        assert!(
            leftovers(
                T,
                &target(&["a", "b"], DeletionPolicy::Retain, None),
                &live(&[("a", "t")])
            )
            .is_empty()
        );
    }
}
