//! Who has what a mirror wants of a target: a function of what it wants, what is there and what the others want. Pure.

use std::collections::BTreeSet;

use super::adoption::consents;
use super::consent::ADOPT_BY;
use super::ownership::Fields;
use super::plan::{Desired, Existing, Rival};
use super::record::Record;
use super::target_name::TargetName;
use crate::api::SecretType;

/// Who has it, and what to do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Conflict {
    #[error(
        "{target} exists and was not made by Keytide; give the mirror another spec.target.name, delete the {}, and the mirror makes it anew, \
         or let the mirror take it over: kubectl annotate {} {ADOPT_BY}={mirror}",
        .target.kind, .target.as_arguments()
    )]
    Foreign { target: TargetName, mirror: String },
    #[error(
        "key {key} of {target} belongs to mirror {winner}; remove it from one of the two mirrors, or give this one another target"
    )]
    Key {
        target: TargetName,
        key: String,
        winner: String,
    },
    #[error(
        "mirror {winner} makes {target} with type {type_}; give both mirrors one type, or this one another target"
    )]
    Type {
        target: TargetName,
        type_: SecretType,
        winner: String,
    },
    #[error(
        "{target} has type {is}, which can't be changed; delete the Secret, and the mirror makes it anew with type {wanted}, or set spec.target.type to {is}"
    )]
    FixedType {
        target: TargetName,
        is: String,
        wanted: SecretType,
    },
    #[error(
        "{target} is immutable, and has not what the mirror would give it; give the mirror another spec.target.name, and have the workloads use that, or delete the {}, and the mirror makes it anew (nodes may go on with the old content for as long as they run a Pod that uses it)",
        .target.kind
    )]
    Immutable { target: TargetName },
    #[error(
        "mirror {winner} has keys in {target}, and an immutable {} is one mirror's; leave out spec.target.immutable, or give one of the two another target",
        .target.kind
    )]
    SharedImmutable { target: TargetName, winner: String },
    #[error(
        "mirror {winner} gives {what} {name} of {target} another value; give both mirrors one value, or leave it out of one"
    )]
    Metadata {
        target: TargetName,
        /// `label` or `annotation`.
        what: &'static str,
        name: String,
        winner: String,
    },
    #[error(
        "key {key} of {target} belongs to field manager {manager}; remove the key from the {}, give the mirror another key, \
         or let the mirror take it over: kubectl annotate {} {ADOPT_BY}={mirror}",
        .target.kind, .target.as_arguments()
    )]
    Outsider {
        target: TargetName,
        key: String,
        manager: String,
        mirror: String,
    },
}

/// What stands in the way of a mirror, if anything does.
pub fn find(
    target: &TargetName,
    type_: SecretType,
    desired: &Desired,
    existing: Option<&Existing>,
    rivals: &[Rival],
) -> Option<Conflict> {
    foreign(target, desired, existing, rivals)
        .or_else(|| of_type(target, type_, existing, rivals))
        .or_else(|| {
            rivals.iter().find_map(|rival| {
                of_metadata(target, desired, existing, rival)
                    .or_else(|| of_key(target, desired, existing, rival))
            })
        })
        .or_else(|| outsider(target, desired, existing?))
}

/// A target that neither the mirror nor any that is there has a part in.
fn foreign(
    target: &TargetName,
    desired: &Desired,
    existing: Option<&Existing>,
    rivals: &[Rival],
) -> Option<Conflict> {
    let existing = existing?;
    let is_ours = desired.record_on(existing).is_some();
    let has_part = |rival: &Rival| existing.records.contains_key(&rival.uid);
    let is_foreign = !is_ours && !rivals.iter().any(has_part) && !consents(existing, desired);
    is_foreign.then(|| Conflict::Foreign {
        target: target.clone(),
        mirror: desired.mirror.clone(),
    })
}

/// The type of a Secret that is there stays; where there is none yet, the oldest mirror's counts.
fn of_type(
    target: &TargetName,
    type_: SecretType,
    existing: Option<&Existing>,
    rivals: &[Rival],
) -> Option<Conflict> {
    let fixed_type = |is: String| Conflict::FixedType {
        target: target.clone(),
        is,
        wanted: type_,
    };
    let found = existing.and_then(|existing| existing.found.as_ref()?.type_.clone());
    if let Some(is) = found {
        return (is != type_.to_string()).then(|| fixed_type(is));
    }
    let records = existing.map(|existing| &existing.records);
    // All say the same, since none is written with another type.
    let fixed = records.and_then(|records| Some(records.values().next()?.type_));
    let mut winners = rivals.iter().filter(|rival| match fixed {
        Some(is) => rival.type_ == is && records.is_some_and(|r| r.contains_key(&rival.uid)),
        None => rival.precedes && rival.type_ != type_,
    });
    match (winners.next(), fixed) {
        (_, Some(is)) if is == type_ => None,
        (Some(winner), _) => Some(Conflict::Type {
            target: target.clone(),
            type_: winner.type_,
            winner: winner.name.clone(),
        }),
        (None, Some(is)) => Some(fixed_type(is.to_string())),
        (None, None) => None,
    }
}

/// A key that a rival holds, or wants and comes first.
fn of_key(
    target: &TargetName,
    desired: &Desired,
    existing: Option<&Existing>,
    rival: &Rival,
) -> Option<Conflict> {
    let ours = existing.and_then(|existing| desired.record_on(existing));
    let theirs = existing.and_then(|existing| existing.records.get(&rival.uid));
    let written = theirs.filter(|_| rival.fills_others);
    let written = written.into_iter().flat_map(|record| record.keys.keys());
    let wins = |key: &&String| {
        let held = |record: Option<&Record>| record.is_some_and(|it| it.keys.contains_key(*key));
        match (held(ours), held(theirs)) {
            (true, false) => false,
            (false, true) => true,
            _ => rival.precedes,
        }
    };
    let mut wanted = rival.keys.iter().chain(written);
    let key = wanted.find(|key| desired.keys.contains_key(*key) && wins(key))?;
    Some(Conflict::Key {
        target: target.clone(),
        key: key.clone(),
        winner: rival.name.clone(),
    })
}

/// An immutable target keeps its data, and stays immutable; and it has the keys of one mirror only, since it can't lose those of
/// another.
pub fn of_immutable(
    target: &TargetName,
    desired: &Desired,
    existing: Option<&Existing>,
    rivals: &[Rival],
    changes_content: bool,
) -> Option<Conflict> {
    let target = target.clone();
    let records = &existing?.records;
    if records.values().any(|record| record.immutable) {
        let keeps = desired.immutable && !changes_content;
        return (!keeps).then_some(Conflict::Immutable { target });
    }
    let mut others = rivals
        .iter()
        .filter(|rival| desired.immutable && records.contains_key(&rival.uid));
    others.next().map(|rival| Conflict::SharedImmutable {
        target,
        winner: rival.name.clone(),
    })
}

/// A label or annotation to which a rival that comes first gives another value. Without this each of the two mirrors would take it
/// from the other for ever.
fn of_metadata(
    target: &TargetName,
    desired: &Desired,
    existing: Option<&Existing>,
    rival: &Rival,
) -> Option<Conflict> {
    let owned = |uid: &str| existing.and_then(|existing| existing.ownership.mirror(uid));
    let (ours, theirs) = (owned(&desired.uid), owned(&rival.uid));
    type Names = fn(&Fields) -> &BTreeSet<String>;
    let kinds: [(_, _, _, Names); 2] = [
        ("label", &desired.labels, &rival.labels, |f| &f.labels),
        (
            "annotation",
            &desired.annotations,
            &rival.annotations,
            |f| &f.annotations,
        ),
    ];
    kinds.into_iter().find_map(|(what, wanted, other, names)| {
        let holds = |fields: Option<&Fields>, name: &String| {
            fields.is_some_and(|fields| names(fields).contains(name))
        };
        let lost = |name: &&String| match (holds(ours, name), holds(theirs, name)) {
            (true, false) => false,
            (false, true) => true,
            _ => rival.precedes,
        };
        let differs = |name: &&String| {
            other
                .get(*name)
                .is_some_and(|value| wanted[*name] != *value)
        };
        let name = wanted.keys().filter(differs).find(lost)?;
        Some(Conflict::Metadata {
            target: target.clone(),
            what,
            name: name.clone(),
            winner: rival.name.clone(),
        })
    })
}

/// A key that was ours and is another's now is drift, and taken back; one that never was ours is not.
fn outsider(target: &TargetName, desired: &Desired, existing: &Existing) -> Option<Conflict> {
    if consents(existing, desired) {
        return None;
    }
    let ours = desired.record_on(existing);
    let mut new = desired
        .keys
        .keys()
        .filter(|key| ours.is_none_or(|ours| !ours.keys.contains_key(*key)));
    new.find_map(|key| {
        let manager = existing.ownership.outsider(key)?;
        Some(Conflict::Outsider {
            target: target.clone(),
            key: key.clone(),
            manager: manager.to_owned(),
            mirror: desired.mirror.clone(),
        })
    })
}

#[cfg(test)]
#[path = "conflict_tests.rs"]
mod tests;
