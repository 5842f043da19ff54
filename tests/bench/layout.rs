//! What a scenario has: which vaults with which objects, and which mirrors want them. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

/// Where the names of everything that a scenario makes begin.
pub const PREFIX: &str = "bench";

/// Key of each target that holds the content.
pub const KEY: &str = "value";

/// `updated` of the first object: so long ago that no object counts as just changed.
const FIRST_UPDATED: i64 = 1_700_000_000;

/// Vaults with their objects, and mirrors.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    pub vaults: BTreeMap<String, BTreeSet<String>>,
    pub mirrors: Vec<Mirror>,
}

/// A mirror of one object. Its target has the mirror's name.
#[derive(Clone, Debug)]
pub struct Mirror {
    pub namespace: String,
    pub name: String,
    pub vault: String,
    pub object: String,
}

impl Layout {
    /// So many objects, spread over vaults and namespaces, with a mirror each.
    pub fn spread(objects: usize, vaults: usize, namespaces: usize) -> Self {
        let mut layout = Self::default();
        for number in 0..objects {
            let vault = vault_name(number % vaults);
            let object = format!("object-{number:05}");
            layout.add(number, namespaces, &object, &vault, &object);
        }
        layout
    }

    /// So many mirrors of one and the same object of a vault, and so many more of another object each.
    pub fn shared(object: &str, mirrors: usize, others: usize, namespaces: usize) -> Self {
        let mut layout = Self::default();
        let vault = vault_name(0);
        for number in 0..mirrors {
            let name = format!("mirror-{number:05}");
            layout.add(number, namespaces, &name, &vault, object);
        }
        for number in 0..others {
            let other = format!("other-{number:05}");
            layout.add(number, namespaces, &other, &vault, &other);
        }
        layout
    }

    fn add(&mut self, number: usize, namespaces: usize, name: &str, vault: &str, object: &str) {
        let objects = self.vaults.entry(vault.to_owned()).or_default();
        objects.insert(object.to_owned());
        self.mirrors.push(Mirror {
            namespace: format!("{PREFIX}-{:03}", number % namespaces),
            name: name.to_owned(),
            vault: vault.to_owned(),
            object: object.to_owned(),
        });
    }

    /// All objects, each with its vault first.
    pub fn objects(&self) -> impl Iterator<Item = (&str, &str)> {
        let vaults = self.vaults.iter();
        vaults.flat_map(|(vault, objects)| {
            let objects = objects.iter();
            objects.map(|object| (vault.as_str(), object.as_str()))
        })
    }

    /// The dev vault's seed. JSON is YAML.
    pub fn seed(&self) -> Value {
        let vaults = self.vaults.iter().map(|(vault, objects)| {
            let secrets = objects.iter().enumerate().map(|(number, object)| {
                let updated = FIRST_UPDATED + i64::try_from(number).unwrap_or_default();
                let secret =
                    json!({"value": first_content(object), "created": updated, "updated": updated});
                (object.clone(), secret)
            });
            let secrets: serde_json::Map<_, _> = secrets.collect();
            (vault.clone(), json!({"secrets": secrets}))
        });
        let vaults: serde_json::Map<_, _> = vaults.collect();
        json!({"vaults": vaults})
    }
}

/// Name of the vault with this number.
pub fn vault_name(number: usize) -> String {
    format!("{PREFIX}-{number:03}")
}

/// Content that the object had before anything was measured.
pub fn first_content(object: &str) -> String {
    content(object, 0)
}

/// Content that no object ever had.
pub fn fresh_content(object: &str) -> String {
    content(object, Timestamp::now().as_microsecond())
}

/// As long as a token.
fn content(object: &str, time: i64) -> String {
    format!("{object}-{time:016}-{}", "0123456789abcdef".repeat(3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_spread_evenly_and_each_has_a_mirror() {
        let layout = Layout::spread(100, 4, 10);
        let sizes: Vec<usize> = layout.vaults.values().map(BTreeSet::len).collect();
        assert_eq!(sizes, [25; 4]);
        assert_eq!(layout.mirrors.len(), 100);
        let first = |mirror: &&Mirror| mirror.namespace == "bench-000";
        assert_eq!(layout.mirrors.iter().filter(first).count(), 10);
    }

    #[test]
    fn an_object_that_many_share_is_in_the_vault_once() {
        let layout = Layout::shared("shared", 50, 3, 5);
        assert_eq!(layout.vaults[&vault_name(0)].len(), 4);
        assert_eq!(layout.mirrors.len(), 53);
    }

    #[test]
    fn the_seed_is_one_that_the_dev_vault_takes() {
        let seed = Layout::spread(3, 1, 1).seed().to_string();
        let seed = keytide::devvault::Seed::parse(&seed).expect("a seed");
        assert_eq!(seed.vaults[&vault_name(0)].secrets.len(), 3);
    }
}
