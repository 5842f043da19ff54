//! Objects of a namespace by a name that they have in common, such as mirrors by their target: what would else be found by
//! looking at every object of the cluster.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use kube::Resource;
use kube::runtime::reflector::ObjectRef;

use super::Change;

/// The index. Clones share it. It may lag behind the store for a moment, so what it gives is looked up there.
pub struct Index<K: Resource> {
    reference: fn(&K) -> ObjectRef<K>,
    names: fn(&K) -> HashSet<String>,
    entries: Arc<Mutex<Entries<K>>>,
}

struct Entries<K: Resource> {
    /// By namespace and name.
    objects: HashMap<(String, String), HashSet<ObjectRef<K>>>,
    names: HashMap<ObjectRef<K>, HashSet<String>>,
}

impl<K> Index<K>
where
    K: Resource,
    K::DynamicType: Eq + Hash + Clone,
{
    /// An empty index of objects, known as `reference` says, by the names that `names` gives for each.
    pub fn new(reference: fn(&K) -> ObjectRef<K>, names: fn(&K) -> HashSet<String>) -> Self {
        let entries = Entries {
            objects: HashMap::new(),
            names: HashMap::new(),
        };
        Self {
            reference,
            names,
            entries: Arc::new(Mutex::new(entries)),
        }
    }

    /// The objects of a namespace that have this name in common.
    pub fn get(&self, namespace: &str, name: &str) -> Vec<ObjectRef<K>> {
        let objects = &self.lock().objects;
        let found = objects.get(&(namespace.to_owned(), name.to_owned()));
        found.into_iter().flatten().cloned().collect()
    }

    /// Takes in what a watch has seen.
    pub fn follow(&self, change: &Change<'_, K>) {
        let mut entries = self.lock();
        match change {
            Change::Applied(object) => entries.put((self.reference)(object), (self.names)(object)),
            Change::Deleted(object) => entries.remove(&(self.reference)(object)),
            Change::Listed(objects) => {
                entries.objects.clear();
                entries.names.clear();
                for object in *objects {
                    entries.put((self.reference)(object), (self.names)(object));
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Entries<K>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Resource> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self {
            reference: self.reference,
            names: self.names,
            entries: Arc::clone(&self.entries),
        }
    }
}

impl<K> Entries<K>
where
    K: Resource,
    K::DynamicType: Eq + Hash + Clone,
{
    fn put(&mut self, reference: ObjectRef<K>, names: HashSet<String>) {
        if self.names.get(&reference) == Some(&names) {
            return;
        }
        self.remove(&reference);
        let namespace = reference.namespace.clone().unwrap_or_default();
        for name in &names {
            let key = (namespace.clone(), name.clone());
            self.objects
                .entry(key)
                .or_default()
                .insert(reference.clone());
        }
        if !names.is_empty() {
            self.names.insert(reference, names);
        }
    }

    fn remove(&mut self, reference: &ObjectRef<K>) {
        let namespace = reference.namespace.clone().unwrap_or_default();
        for name in self.names.remove(reference).unwrap_or_default() {
            let key = (namespace.clone(), name);
            if let Some(objects) = self.objects.get_mut(&key) {
                objects.remove(reference);
                if objects.is_empty() {
                    self.objects.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn index() -> Index<ConfigMap> {
        Index::new(ObjectRef::from_obj, |object| {
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
