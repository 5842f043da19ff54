//! The content of the sources that a workload uses, from the records that mirrors keep on them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kube::runtime::reflector::Store;

use super::decide::Content;
use super::reference::{Reference, Source, SourceKey, SourceKind};
use crate::mirror::{Record, Target};
use crate::watch;

/// The content of all mirrored keys of the sources that are referred to.
pub fn contents(
    targets: &Store<Target>,
    namespace: &str,
    references: &BTreeSet<Reference>,
) -> BTreeMap<SourceKey, Content> {
    let sources: BTreeSet<&Source> = references.iter().map(|it| &it.source).collect();
    let mut contents = BTreeMap::new();
    for source in sources {
        // Mirrors fill Secrets.
        if source.kind != SourceKind::Secret {
            continue;
        }
        let Some(target) = targets.get(&watch::reference(namespace, &source.name)) else {
            continue;
        };
        for (key, content) in latest(target.records().into_values()) {
            let source = source.clone();
            contents.insert(SourceKey { source, key }, content);
        }
    }
    contents
}

/// The content of each key by the latest of the records that speak of it: a mirror that fails may still have one of a key that it
/// gave up, and that another one has filled since.
fn latest(records: impl Iterator<Item = Record>) -> BTreeMap<String, Content> {
    let mut contents: BTreeMap<String, Content> = BTreeMap::new();
    for Record {
        digest_key, keys, ..
    } in records
    {
        for (key, record) in keys {
            let before = contents.get(&key);
            if before.is_none_or(|before| before.record.changed < record.changed) {
                let digest_key = digest_key.clone();
                contents.insert(key, Content { digest_key, record });
            }
        }
    }
    contents
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_two_records_of_one_key_the_later_counts() {
        let record = |digest: &str, changed: &str| -> Record {
            let key = json!({"digest": digest, "object": "o", "version": "1", "changed": changed});
            let record = json!({
                "mirror": "m", "digestKey": "k", "deletionPolicy": "Delete", "keys": {"token": key},
            });
            serde_json::from_value(record).expect("a record")
        };
        let earlier = record("a", "2026-01-01T00:00:00Z");
        let later = record("b", "2026-01-01T00:00:01Z");
        for records in [[earlier.clone(), later.clone()], [later, earlier]] {
            assert_eq!(latest(records.into_iter())["token"].record.digest, "b");
        }
    }
}
