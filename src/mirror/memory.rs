//! What the controller remembers of each mirror from one look to the next.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use crate::api::{KeyVaultMirror, KeyVaultMirrorStatus};
use crate::vault::{ReadKey, VaultError};
use crate::watch;

/// Which mirror it is, also where one of the same name takes its place.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct MirrorId(Arc<Identifiers>);

#[derive(Debug, Eq, Hash, PartialEq)]
struct Identifiers {
    uid: String,
    namespace: String,
    name: String,
}

impl MirrorId {
    pub fn of(mirror: &KeyVaultMirror) -> Self {
        Self(Arc::new(Identifiers {
            uid: mirror.uid().unwrap_or_default(),
            namespace: mirror.namespace().unwrap_or_default(),
            name: mirror.name_any(),
        }))
    }

    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The mirror in the terms of the store.
    pub fn reference(&self) -> ObjectRef<KeyVaultMirror> {
        watch::reference(&self.0.namespace, &self.0.name)
    }
}

/// What the controller remembers of each mirror. Losing it costs a read.
#[derive(Default)]
pub struct Memories(Mutex<HashMap<MirrorId, Box<Memory>>>);

#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The mirror as it was when it last was in sync.
    pub seen: Option<Seen>,
    /// The target's resourceVersion (none: there was no target) when it was looked at before content was asked for. Content is
    /// only written on that: what another daemon wrote in between may be newer than what was read.
    pub looked: Option<Option<String>>,
    /// Failures in a row.
    pub failures: u32,
    /// The annotation [`super::SYNC_NOW`], once it was looked at.
    pub sync_now: Option<Option<String>>,
    /// The failure that was told last, so that it isn't told twice while the cache has an older status.
    pub told: Option<String>,
    /// What was last told of a mirror that is read in place: the status of its resource has no room for all of it.
    pub status: Option<Box<KeyVaultMirrorStatus>>,
    /// Whether that was seen on the resource: if it has a status of akv2k8s' after that, its controller still runs.
    pub status_seen: bool,
    /// The mirror's resourceVersion on which its status was last written. While the cache still has that one, it has the status of
    /// before.
    pub told_on: Option<String>,
    /// Versions before the vault's that are to be gone back to and can't be read.
    pub lost: BTreeMap<ReadKey, VaultError>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    pub generation: Option<i64>,
    /// How many objects it wanted.
    pub objects: usize,
    /// The target's resourceVersion; any other one may be drift.
    pub target: String,
    /// When an object becomes valid or expires, which changes what is said of it.
    pub valid_until: Option<Timestamp>,
}

impl Memories {
    pub fn of(&self, mirror: &MirrorId) -> Memory {
        self.lock()
            .get(mirror)
            .map(|memory| (**memory).clone())
            .unwrap_or_default()
    }

    pub fn keep(&self, mirror: MirrorId, memory: Memory) {
        self.lock().insert(mirror, Box::new(memory));
    }

    /// Forgets mirrors that are gone, and gives them.
    pub fn forget_all_but(&self, mirrors: &[Arc<KeyVaultMirror>]) -> Vec<MirrorId> {
        let uids = mirrors.iter().map(|mirror| mirror.metadata.uid.as_deref());
        let live: HashSet<&str> = uids.flatten().collect();
        let mut memories = self.lock();
        let gone = memories.extract_if(|id, _| !live.contains(&*id.0.uid));
        gone.map(|(id, _)| id).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MirrorId, Box<Memory>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mirror(name: &str, uid: &str) -> Arc<KeyVaultMirror> {
        let spec = json!({
            "vault": {"name": "contoso"},
            "data": [{"key": "token", "object": {"name": "pat"}}],
            "target": {"name": "t"},
        });
        let mut mirror = KeyVaultMirror::new(name, serde_json::from_value(spec).expect("a spec"));
        mirror.metadata.namespace = Some("n".into());
        mirror.metadata.uid = Some(uid.into());
        Arc::new(mirror)
    }

    #[test]
    fn a_mirror_that_is_gone_is_forgotten_once() {
        let memories = Memories::default();
        memories.keep(MirrorId::of(&mirror("a", "1")), Memory::default());
        memories.keep(MirrorId::of(&mirror("b", "2")), Memory::default());
        let gone = memories.forget_all_but(&[mirror("b", "2")]);
        assert_eq!(gone, [MirrorId::of(&mirror("a", "1"))]);
        assert!(memories.forget_all_but(&[mirror("b", "2")]).is_empty());
    }
}
