//! What the controller remembers of each mirror from one look to the next.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
    /// Statuses in a row that could not be written.
    pub untold: u32,
    /// Versions before the vault's that are to be gone back to and can't be read.
    pub lost: BTreeMap<ReadKey, VaultError>,
    /// Since when the first of them.
    pub lost_since: Option<Timestamp>,
}

impl Memory {
    /// Notes that a version before the vault's can't be read.
    pub fn lose(&mut self, read: ReadKey, error: VaultError, now: Timestamp) {
        if self.lost.is_empty() {
            self.lost_since = Some(now);
        }
        self.lost.insert(read, error);
    }

    /// Whether so much time has gone by that what can't be read is to be tried again.
    pub fn tries_lost_again(&self, after: Duration, now: Timestamp) -> bool {
        let since = self.lost_since.filter(|_| !self.lost.is_empty());
        since.is_some_and(|since| now.duration_since(since).unsigned_abs() >= after)
    }
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

impl Seen {
    /// Whether nothing has changed since that could ask for another write.
    pub fn holds(
        &self,
        mirror: &KeyVaultMirror,
        objects: usize,
        target: Option<&str>,
        now: Timestamp,
    ) -> bool {
        self.generation == mirror.metadata.generation
            && self.objects == objects
            && Some(self.target.as_str()) == target
            && self.valid_until.is_none_or(|until| now < until)
    }
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

    /// Forgets mirrors that are gone, and gives them. Which there are is asked when nothing can come to be remembered: a mirror that
    /// came after that was asked would be taken for one that is gone.
    pub fn forget_all_but(
        &self,
        mirrors: impl FnOnce() -> Vec<Arc<KeyVaultMirror>>,
    ) -> Vec<MirrorId> {
        let mut memories = self.lock();
        let mirrors = mirrors();
        // One that is read in place may get another name under its UID.
        let metadata = mirrors.iter().map(|mirror| &mirror.metadata);
        let live: HashSet<_> = metadata
            .map(|it| [&it.uid, &it.namespace, &it.name].map(Option::as_deref))
            .collect();
        let gone = memories.extract_if(|id, _| {
            let id = [&id.0.uid, &id.0.namespace, &id.0.name];
            !live.contains(&id.map(|it| Some(it.as_str())))
        });
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
    use crate::vault::{Collection, DnsSuffixes, Identity, VaultErrorKind};

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
    fn what_is_lost_is_tried_again_after_a_while() {
        let at = |second| Timestamp::from_second(second).expect("in range");
        let minute = Duration::from_secs(60);
        let suffixes: DnsSuffixes = "vault.azure.net".parse().expect("a suffix");
        let host = suffixes.host(&mirror("m", "1").spec.vault).expect("a host");
        let read = |name: &str| ReadKey {
            vault: host.clone(),
            identity: Identity::default(),
            collection: Collection::Secrets,
            name: name.to_owned(),
            version: Some("1".into()),
        };
        let error = VaultError::new(VaultErrorKind::Disabled, &host, "secret a", "");
        let mut memory = Memory::default();
        assert!(!memory.tries_lost_again(minute, at(1000)));
        memory.lose(read("a"), error.clone(), at(1000));
        memory.lose(read("b"), error.clone(), at(1030));
        assert!(!memory.tries_lost_again(minute, at(1059)));
        assert!(memory.tries_lost_again(minute, at(1060)));
        memory.lost.clear();
        assert!(!memory.tries_lost_again(minute, at(1061)));
        memory.lose(read("a"), error, at(1062));
        assert!(!memory.tries_lost_again(minute, at(1063)));
    }

    #[test]
    fn a_mirror_that_is_gone_is_forgotten_once() {
        let memories = Memories::default();
        memories.keep(MirrorId::of(&mirror("a", "1")), Memory::default());
        memories.keep(MirrorId::of(&mirror("b", "2")), Memory::default());
        let forget = |live: &[Arc<KeyVaultMirror>]| {
            memories.forget_all_but(|| {
                assert!(memories.0.try_lock().is_err(), "nothing comes meanwhile");
                live.to_vec()
            })
        };
        let b = mirror("b", "2");
        assert_eq!(
            forget(std::slice::from_ref(&b)),
            [MirrorId::of(&mirror("a", "1"))]
        );
        assert!(forget(std::slice::from_ref(&b)).is_empty());
        // Its name is another one now.
        assert_eq!(forget(&[mirror("c", "2")]), [MirrorId::of(&b)]);
    }
}
