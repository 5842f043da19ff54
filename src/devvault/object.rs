//! Objects of a vault with their versions, living and deleted softly. What a version is differs by type.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::operation::Type;
use super::refusal::Refusal;

/// Key Vault's longest retention, which is its default.
pub const RECOVERABLE_DAYS: i64 = 90;

/// An object's versions. There is always a current one: the version written last.
#[derive(Clone, Debug)]
pub struct Object<V> {
    /// As first written: Key Vault keeps the case and ignores it.
    pub name: String,
    pub current_id: Uuid,
    pub current: V,
    older: BTreeMap<Uuid, V>,
}

impl<V> Object<V> {
    pub fn new(name: &str, id: Uuid, version: V) -> Self {
        Self {
            name: name.to_owned(),
            current_id: id,
            current: version,
            older: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, id: Uuid, version: V) {
        let older = std::mem::replace(&mut self.current, version);
        self.older
            .insert(std::mem::replace(&mut self.current_id, id), older);
    }

    /// Makes a version current again, and forgets those that don't stay beside it.
    pub fn restore_if(&mut self, id: Uuid, stays: impl Fn(&V, &V) -> bool) -> bool {
        if id == self.current_id {
            return true;
        }
        let Some(version) = self.older.remove(&id) else {
            return false;
        };
        (self.current_id, self.current) = (id, version);
        let current = &self.current;
        self.older.retain(|_, older| stays(older, current));
        true
    }

    /// One version, or the current one.
    pub fn version(&self, id: Option<Uuid>) -> Option<(Uuid, &V)> {
        match id {
            Some(id) if id != self.current_id => self.older.get(&id).map(|version| (id, version)),
            _ => Some((self.current_id, &self.current)),
        }
    }

    pub fn version_mut(&mut self, id: Option<Uuid>) -> Option<(Uuid, &mut V)> {
        match id {
            Some(id) if id != self.current_id => {
                self.older.get_mut(&id).map(|version| (id, version))
            }
            _ => Some((self.current_id, &mut self.current)),
        }
    }

    /// All versions by id, which is the order they are listed in: it says nothing about age.
    pub fn versions(&self) -> BTreeMap<Uuid, &V> {
        let mut versions: BTreeMap<Uuid, &V> = self
            .older
            .iter()
            .map(|(id, version)| (*id, version))
            .collect();
        versions.insert(self.current_id, &self.current);
        versions
    }
}

/// A soft-deleted object.
#[derive(Clone, Debug)]
pub struct Deleted<V> {
    pub object: Object<V>,
    pub deleted: i64,
    pub scheduled_purge: i64,
}

impl<V> Deleted<V> {
    pub fn new(object: Object<V>, now: i64) -> Self {
        Self {
            object,
            deleted: now,
            scheduled_purge: now + RECOVERABLE_DAYS * 24 * 60 * 60,
        }
    }
}

/// All objects of one type.
#[derive(Clone, Debug)]
pub struct Shelf<V> {
    of: Type,
    /// By name in lower case, because Key Vault ignores case.
    living: BTreeMap<String, Object<V>>,
    deleted: BTreeMap<String, Deleted<V>>,
}

impl<V> Shelf<V> {
    pub fn new(of: Type) -> Self {
        Self {
            of,
            living: BTreeMap::new(),
            deleted: BTreeMap::new(),
        }
    }

    /// Whether the name can be written under.
    pub fn check(&self, name: &str) -> Result<(), Refusal> {
        if self.deleted.contains_key(&name.to_ascii_lowercase()) {
            return Err(Refusal::deleted_but_recoverable(self.of, name));
        }
        Ok(())
    }

    pub fn add(&mut self, name: &str, id: Uuid, version: V) -> Result<(), Refusal> {
        self.check(name)?;
        match self.living.get_mut(&name.to_ascii_lowercase()) {
            Some(object) => object.add(id, version),
            None => {
                let object = Object::new(name, id, version);
                self.living.insert(name.to_ascii_lowercase(), object);
            }
        }
        Ok(())
    }

    pub fn object(&self, name: &str) -> Result<&Object<V>, Refusal> {
        self.living
            .get(&name.to_ascii_lowercase())
            .ok_or_else(|| Refusal::not_found(self.of, name))
    }

    pub fn object_mut(&mut self, name: &str) -> Result<&mut Object<V>, Refusal> {
        self.living
            .get_mut(&name.to_ascii_lowercase())
            .ok_or_else(|| Refusal::not_found(self.of, name))
    }

    /// A version, or the current one.
    pub fn version(&self, name: &str, id: Option<Uuid>) -> Result<(Uuid, &V), Refusal> {
        self.object(name)?
            .version(id)
            .ok_or_else(|| Refusal::not_found(self.of, name))
    }

    pub fn version_mut(&mut self, name: &str, id: Option<Uuid>) -> Result<(Uuid, &mut V), Refusal> {
        let of = self.of;
        self.object_mut(name)?
            .version_mut(id)
            .ok_or_else(|| Refusal::not_found(of, name))
    }

    pub fn list(&self) -> &BTreeMap<String, Object<V>> {
        &self.living
    }

    pub fn list_deleted(&self) -> &BTreeMap<String, Deleted<V>> {
        &self.deleted
    }

    pub fn delete(&mut self, name: &str, now: i64) -> Result<&Deleted<V>, Refusal> {
        let key = name.to_ascii_lowercase();
        let object = self
            .living
            .remove(&key)
            .ok_or_else(|| Refusal::not_found(self.of, name))?;
        Ok(self.deleted.entry(key).or_insert(Deleted::new(object, now)))
    }

    pub fn deleted(&self, name: &str) -> Result<&Deleted<V>, Refusal> {
        self.deleted
            .get(&name.to_ascii_lowercase())
            .ok_or_else(|| Refusal::deleted_not_found(self.of, name))
    }

    pub fn purge(&mut self, name: &str) -> Result<(), Refusal> {
        match self.deleted.remove(&name.to_ascii_lowercase()) {
            Some(_) => Ok(()),
            None => Err(Refusal::deleted_not_found(self.of, name)),
        }
    }

    pub fn recover(&mut self, name: &str) -> Result<&Object<V>, Refusal> {
        let key = name.to_ascii_lowercase();
        if self.living.contains_key(&key) {
            return Err(Refusal::already_exists(self.of, name));
        }
        let deleted = self
            .deleted
            .remove(&key)
            .ok_or_else(|| Refusal::deleted_not_found(self.of, name))?;
        Ok(self.living.entry(key).or_insert(deleted.object))
    }
}
