//! What is known of the Secrets and ConfigMaps that workloads use: the records that mirrors keep on them, and what was read of others.

use std::collections::{BTreeMap, BTreeSet};

use kube::runtime::reflector::Store;

use super::cached::Class;
use super::decide::Content;
use super::reference::{Reference, Source, SourceKey, SourceKind};
use super::unmirrored::Unmirrored;
use crate::mirror::{Record, TargetStores};
use crate::watch;

/// All sources.
pub struct Sources {
    pub targets: TargetStores,
    /// SecretProviderClasses, with the keys that the CSI driver keeps of them in Secrets.
    pub classes: Store<Class>,
    /// None where only what mirrors fill is to be rolled for.
    pub unmirrored: Option<Unmirrored>,
}

impl Sources {
    /// With the Secrets that the CSI driver keeps in place of the classes that they are kept of.
    pub fn resolve(&self, namespace: &str, references: BTreeSet<Reference>) -> BTreeSet<Reference> {
        let resolved = |reference: Reference| {
            if reference.source.kind != SourceKind::SecretProviderClass {
                return vec![reference];
            }
            let class = watch::reference(namespace, &reference.source.name);
            let class = self.classes.get(&class);
            let keys = class.iter().flat_map(|class| class.value.iter().cloned());
            keys.map(|key| reference.redirected(key)).collect()
        };
        references.into_iter().flat_map(resolved).collect()
    }

    /// The content of all keys of the sources that are referred to. Reads what no mirror fills, if that is asked for and not known.
    ///
    /// # Errors
    ///
    /// What must be read can't be read.
    pub async fn contents(
        &self,
        namespace: &str,
        references: &BTreeSet<Reference>,
    ) -> Result<BTreeMap<SourceKey, Content>, kube::Error> {
        let sources: BTreeSet<&Source> = references.iter().map(|it| &it.source).collect();
        let mut contents = BTreeMap::new();
        for source in sources {
            let mut found = self.mirrored(namespace, source);
            if let (true, Some(unmirrored)) = (found.is_empty(), &self.unmirrored) {
                found = unmirrored.contents(namespace, source).await?;
            }
            for (key, content) in found {
                let source = source.clone();
                contents.insert(SourceKey { source, key }, content);
            }
        }
        Ok(contents)
    }

    /// By key: what mirrors wrote down.
    fn mirrored(&self, namespace: &str, source: &Source) -> BTreeMap<String, Content> {
        let kind = source.kind.of_target();
        let target = kind.and_then(|kind| self.targets.get(namespace, kind, &source.name));
        let records = target.map(|target| target.records()).unwrap_or_default();
        latest(records.into_values())
    }

    /// Those that opting in by name can mean: what has content, or is there at all.
    pub fn are_there<'a>(
        &self,
        namespace: &str,
        contents: impl IntoIterator<Item = &'a SourceKey>,
        named: impl IntoIterator<Item = &'a Source>,
    ) -> BTreeSet<&'a Source> {
        let seen = named.into_iter().filter(|source| {
            let unmirrored = self.unmirrored.as_ref();
            unmirrored.is_some_and(|them| them.version(namespace, source).is_some())
        });
        let filled = contents.into_iter().map(|key| &key.source);
        filled.chain(seen).collect()
    }

    /// What is missing of a source without content, after *which*.
    pub fn filler(&self) -> &'static str {
        match self.unmirrored {
            None => "no KeyVaultMirror fills",
            Some(_) => "is not there",
        }
    }
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

    use super::super::cached::class;
    use super::super::reference::Via;
    use super::*;
    use crate::mirror::Target;
    use crate::watch::new_store;

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

    #[test]
    fn a_config_map_and_a_secret_of_one_name_are_two_sources() {
        let target = |key: &str| {
            let record = json!({
                "mirror": "m", "digestKey": "k", "deletionPolicy": "Delete",
                "keys": {key: {"digest": "d", "object": "o", "version": "1", "changed": "2026-01-01T00:00:00Z"}},
            });
            let annotation = ["keytide.dev/mirror.", "u"].concat();
            let annotations = json!({annotation: record.to_string()});
            let metadata = json!({"name": "t", "namespace": "n", "annotations": annotations});
            Target::of(serde_json::from_value(metadata).expect("metadata"))
        };
        let (classes, _) = new_store();
        let sources = Sources {
            targets: TargetStores::listed(vec![target("of-secret")], vec![target("of-map")]),
            classes,
            unmirrored: None,
        };
        let keys = |source| -> Vec<String> { sources.mirrored("n", &source).into_keys().collect() };
        assert_eq!(keys(Source::secret("t")), ["of-secret"]);
        assert_eq!(keys(Source::config_map("t")), ["of-map"]);
        assert!(keys(Source::class("t")).is_empty());
        assert!(keys(Source::config_map("u")).is_empty());
    }

    #[test]
    fn a_class_stands_for_the_keys_that_are_kept_of_it() {
        let (targets, _) = TargetStores::new(false);
        let (classes, mut writer) = new_store();
        let object = serde_json::from_value(json!({
            "metadata": {"name": "c", "namespace": "n"},
            "spec": {"provider": "azure", "secretObjects": [
                {"secretName": "s", "type": "Opaque", "data": [{"objectName": "o", "key": "k"}, {"objectName": "p", "key": "l"}]},
                {"secretName": "nothing"},
            ]},
        }));
        let object: Class = class(object.expect("an object"));
        writer.apply_watcher_event(&kube::runtime::watcher::Event::Apply(object));
        let sources = Sources {
            targets,
            classes,
            unmirrored: None,
        };
        let by = |source| Reference {
            container: Some("c".to_owned()),
            via: Via::Volume,
            ..Reference::to_whole(source)
        };
        let resolve = |namespace, source| -> Vec<String> {
            let resolved = sources.resolve(namespace, BTreeSet::from([by(source)]));
            let one = |it: Reference| format!("{}/{}", it.source, it.key.unwrap_or_default());
            resolved.into_iter().map(one).collect()
        };
        assert_eq!(resolve("n", Source::class("c")), ["s/k", "s/l"]);
        assert!(resolve("other", Source::class("c")).is_empty());
        assert_eq!(resolve("n", Source::secret("c")), ["c/"]);
    }
}
