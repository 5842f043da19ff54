//! How large a target may be. Pure. The API server would refuse what is larger (`ValidateSecret` and `ValidateAnnotations` of
//! Kubernetes), but only after all of it was sent, and again at every attempt.

use std::collections::BTreeMap;

use serde_json::json;

use super::plan::Existing;
use super::record::{Record, annotation};
use super::target_name::TargetName;
use crate::api::KeyVaultMirror;
use crate::render::Rendered;

/// Most bytes that all values of a Secret may have together.
pub const MOST_DATA: usize = 1024 * 1024;
/// Most bytes that all annotations of an object may have together, names and values.
const MOST_ANNOTATIONS: usize = 256 * 1024;
/// Most of them that a mirror takes for itself: others need some too.
pub const MOST_OWN_ANNOTATIONS: usize = 200 * 1024;

/// A target that would be larger than it may be.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TooLarge {
    #[error(
        "the data of {target} would have {bytes} bytes, and can have {MOST_DATA}; leave keys out, or have several mirrors, each with a target of its own"
    )]
    Data { target: TargetName, bytes: usize },
    #[error(
        "the annotations of {target} that are this mirror's would have {bytes} bytes, and it takes {MOST_OWN_ANNOTATIONS} at most, since it writes down each key; leave keys out, or have several mirrors, each with a target of its own"
    )]
    OwnAnnotations { target: TargetName, bytes: usize },
    #[error(
        "all annotations of {target} together would have {bytes} bytes, and can have {MOST_ANNOTATIONS}; remove some from the {}, or give this mirror another target",
        .target.kind
    )]
    Annotations { target: TargetName, bytes: usize },
}

/// Whether a target of this data, with this record on it, is one that the API server takes. Of data that others put there only
/// the API server knows the size.
pub fn check(
    mirror: &KeyVaultMirror,
    record: &Record,
    rendered: &Rendered,
    existing: Option<&Existing>,
) -> Result<(), TooLarge> {
    let target = || TargetName::of(&mirror.spec.target);
    let sizes = rendered.values().map(|key| key.value.expose().len());
    let data: usize = sizes.sum();
    if data > MOST_DATA {
        let (target, bytes) = (target(), data);
        return Err(TooLarge::Data { target, bytes });
    }
    let uid = mirror.metadata.uid.as_deref().unwrap_or_default();
    let mut own = mirror.spec.target.annotations.clone();
    own.insert(annotation(uid), json!(record).to_string());
    let bytes = size(&own);
    if bytes > MOST_OWN_ANNOTATIONS {
        let target = target();
        return Err(TooLarge::OwnAnnotations { target, bytes });
    }
    let all = existing.map_or_else(BTreeMap::new, |existing| existing.annotations.clone());
    let bytes = size(&all.into_iter().chain(own).collect());
    if bytes > MOST_ANNOTATIONS {
        let target = target();
        return Err(TooLarge::Annotations { target, bytes });
    }
    Ok(())
}

fn size(annotations: &BTreeMap<String, String>) -> usize {
    let sizes = annotations
        .iter()
        .map(|(name, value)| name.len() + value.len());
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::api::{DeletionPolicy, ObjectKind, SecretType};
    use crate::mirror::ownership::Ownership;
    use crate::mirror::record::Content;
    use crate::render::RenderedKey;
    use crate::vault::VaultSecret;

    fn mirror(note: usize) -> KeyVaultMirror {
        let spec = json!({
            "vault": {"name": "contoso"},
            "target": {"name": "t", "annotations": {"note": "n".repeat(note)}},
        });
        let mut mirror = KeyVaultMirror::new("m", serde_json::from_value(spec).expect("a spec"));
        mirror.metadata.uid = Some("u".into());
        mirror
    }

    fn data(sizes: &[usize]) -> Rendered {
        let key = |(number, size): (usize, &usize)| {
            let secret = VaultSecret {
                value: vec![b'x'; *size].into(),
                version: "1".into(),
                updated: None,
                not_before: None,
                expires: None,
            };
            let rendered = RenderedKey {
                value: secret.value.clone(),
                made_of: None,
                kind: ObjectKind::Secret,
                object: "o".into(),
                secret: Arc::new(secret),
            };
            (format!("k{number}"), rendered)
        };
        sizes.iter().enumerate().map(key).collect()
    }

    fn record(keys: usize) -> Record {
        let content = Content {
            digest: "d".repeat(43),
            object: format!("v.vault.azure.net/secrets/{}", "o".repeat(127)),
            version: "0".repeat(32),
            updated: None,
            expires: None,
            failed: None,
        };
        let key = |number| {
            let record = content.record(None, true, Timestamp::UNIX_EPOCH);
            (format!("{number:0>200}"), record)
        };
        Record {
            mirror: "m".into(),
            digest_key: "k".into(),
            type_: SecretType::default(),
            immutable: false,
            deletion_policy: DeletionPolicy::Delete,
            shared: false,
            adopted: false,
            written: None,
            matched: None,
            keys: (0..keys).map(key).collect(),
        }
    }

    fn existing(annotations: &[(&str, usize)]) -> Existing {
        let annotation = |(name, size): &(&str, usize)| ((*name).to_owned(), "x".repeat(*size));
        Existing {
            uid: "s".into(),
            resource_version: "1".into(),
            labels: BTreeMap::new(),
            annotations: annotations.iter().map(annotation).collect(),
            records: BTreeMap::new(),
            ownership: Ownership::default(),
            ..Existing::default()
        }
    }

    #[test]
    fn values_have_a_mebibyte_together() {
        let check = |sizes: &[usize]| check(&mirror(0), &record(1), &data(sizes), None);
        assert_eq!(check(&[MOST_DATA / 2, MOST_DATA / 2]), Ok(()));
        let error = check(&[MOST_DATA / 2, MOST_DATA / 2 + 1]).expect_err("refused");
        assert!(error.to_string().contains("1048577 bytes"), "{error}");
    }

    #[test]
    fn a_record_of_many_keys_leaves_room_for_others() {
        let check = |keys| check(&mirror(0), &record(keys), &data(&[1]), None);
        assert_eq!(check(300), Ok(()));
        let error = check(500).expect_err("refused");
        assert!(
            matches!(error, TooLarge::OwnAnnotations { bytes, .. } if bytes > MOST_OWN_ANNOTATIONS)
        );
    }

    #[test]
    fn annotations_of_all_count_and_what_is_written_anew_counts_once() {
        let check = |there: &[(&str, usize)]| {
            let existing = existing(there);
            check(&mirror(150_000), &record(1), &data(&[1]), Some(&existing))
        };
        let own = annotation("u");
        assert_eq!(check(&[("theirs", 100_000)]), Ok(()));
        assert_eq!(check(&[("note", 150_000), (own.as_str(), 90_000)]), Ok(()));
        let error = check(&[("theirs", 112_000)]).expect_err("refused");
        assert!(matches!(error, TooLarge::Annotations { bytes, .. } if bytes > MOST_ANNOTATIONS));
    }
}
