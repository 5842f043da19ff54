//! Objects of a namespace by a name that they have in common, such as mirrors by their target: what would else be found by
//! looking at every object of the cluster.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use super::Change;

/// The index. Clones share it. It may lag behind the store for a moment, so what it gives is looked up there.
pub struct Index<K> {
    names: fn(&K) -> HashSet<String>,
    entries: Arc<Mutex<Entries>>,
}

/// Sorted triples that share their words, and no maps of maps: there is an entry for every mirror.
#[derive(Default)]
struct Entries {
    /// Namespace, name in common, object.
    objects: BTreeSet<[Arc<str>; 3]>,
    /// Namespace, object, name in common.
    names: BTreeSet<[Arc<str>; 3]>,
}

impl<K> Index<K>
where
    K: Resource,
    K::DynamicType: Default,
{
    /// An empty index of objects by the names that `names` gives for each.
    pub fn new(names: fn(&K) -> HashSet<String>) -> Self {
        Self {
            names,
            entries: Arc::default(),
        }
    }

    /// The objects of a namespace that have this name in common.
    pub fn get(&self, namespace: &str, name: &str) -> Vec<ObjectRef<K>> {
        let entries = self.lock();
        third(&entries.objects, namespace, name)
            .map(|object| super::reference(namespace, object))
            .collect()
    }

    /// Takes in what a watch has seen. Whether an object came or went, or has other names now.
    pub fn follow(&self, change: &Change<'_, K>) -> bool {
        let mut entries = self.lock();
        match change {
            Change::Applied(object) => self.put(&mut entries, object),
            Change::Deleted(object) => {
                entries.remove(&object.namespace().unwrap_or_default(), &object.name_any());
                true
            }
            Change::Listed(objects) => {
                *entries = Entries::default();
                for object in *objects {
                    self.put(&mut entries, object);
                }
                true
            }
        }
    }

    fn put(&self, entries: &mut Entries, object: &K) -> bool {
        let namespace = object.namespace().unwrap_or_default();
        entries.put(&namespace, &object.name_any(), &(self.names)(object))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self {
            names: self.names,
            entries: Arc::clone(&self.entries),
        }
    }
}

impl Entries {
    fn put(&mut self, namespace: &str, object: &str, names: &HashSet<String>) -> bool {
        let before: HashSet<&str> = third(&self.names, namespace, object)
            .map(|name| &**name)
            .collect();
        if names.iter().map(String::as_str).collect::<HashSet<_>>() == before {
            return false;
        }
        self.remove(namespace, object);
        let (namespace, object): (Arc<str>, Arc<str>) = (namespace.into(), object.into());
        for name in names {
            let name: Arc<str> = name.as_str().into();
            let [namespace, object] = [&namespace, &object].map(Arc::clone);
            self.names
                .insert([&namespace, &object, &name].map(Arc::clone));
            self.objects.insert([namespace, name, object]);
        }
        true
    }

    fn remove(&mut self, namespace: &str, object: &str) {
        let names: Vec<_> = third(&self.names, namespace, object)
            .map(Arc::clone)
            .collect();
        let (namespace, object): (Arc<str>, Arc<str>) = (namespace.into(), object.into());
        for name in names {
            self.objects
                .remove(&[&namespace, &name, &object].map(Arc::clone));
            self.names
                .remove(&[&namespace, &object, &name].map(Arc::clone));
        }
    }
}

/// The third words of the triples that begin with these two.
fn third<'a>(
    triples: &'a BTreeSet<[Arc<str>; 3]>,
    first: &'a str,
    second: &'a str,
) -> impl Iterator<Item = &'a Arc<str>> {
    triples
        .range([first.into(), second.into(), "".into()]..)
        .take_while(move |[one, two, _]| (&**one, &**two) == (first, second))
        .map(|[_, _, third]| third)
}
#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn index() -> Index<ConfigMap> {
        Index::new(|object| {
            object
                .data
                .iter()
                .flatten()
                .map(|(key, _)| key.clone())
                .collect()
        })
    }

    fn object(name: &str, keys: &[&str]) -> ConfigMap {
        let mut object = ConfigMap {
            data: Some(
                keys.iter()
                    .map(|key| ((*key).to_owned(), String::new()))
                    .collect(),
            ),
            ..Default::default()
        };
        object.metadata.name = Some(name.to_owned());
        object.metadata.namespace = Some("n".to_owned());
        object
    }

    fn found(index: &Index<ConfigMap>, name: &str) -> Vec<String> {
        let mut found: Vec<String> = index
            .get("n", name)
            .into_iter()
            .map(|object| object.name)
            .collect();
        found.sort();
        found
    }

    #[test]
    fn objects_are_found_by_each_of_their_names() {
        let index = index();
        index.follow(&Change::Applied(&object("a", &["x", "y"])));
        index.follow(&Change::Applied(&object("b", &["y"])));
        assert_eq!(found(&index, "x"), ["a"]);
        assert_eq!(found(&index, "y"), ["a", "b"]);
        assert!(index.get("other", "y").is_empty());
    }

    #[test]
    fn a_name_that_an_object_no_longer_has_does_not_find_it() {
        let index = index();
        index.follow(&Change::Applied(&object("a", &["x", "y"])));
        index.follow(&Change::Applied(&object("a", &["y"])));
        assert!(found(&index, "x").is_empty());
        assert_eq!(found(&index, "y"), ["a"]);
        index.follow(&Change::Deleted(&object("a", &["y"])));
        assert!(found(&index, "y").is_empty());
        let entries = index.lock();
        assert!(
            entries.objects.is_empty() && entries.names.is_empty(),
            "nothing is left behind"
        );
    }

    #[test]
    fn a_list_takes_the_place_of_all_that_was_known() {
        let index = index();
        index.follow(&Change::Applied(&object("gone", &["x"])));
        index.follow(&Change::Listed(&[Arc::new(object("a", &["x"]))]));
        assert_eq!(found(&index, "x"), ["a"]);
    }
}
