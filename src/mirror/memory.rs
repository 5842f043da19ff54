//! What the controller remembers of each mirror, to know when a look at the vault is due. Losing it costs a read. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use tokio::time::Instant;

use crate::api::KeyVaultMirror;
use crate::vault::{ReadKey, VaultHost};

/// The memories of all mirrors, by UID.
#[derive(Default)]
pub struct Memories(Mutex<HashMap<String, Memory>>);

/// The memory of one mirror.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub namespace: String,
    pub name: String,
    pub last: Last,
    /// Failures in a row.
    pub failures: u32,
    pub sync_now: Option<String>,
    /// The failure that was told last, so that it isn't told twice while the cache has an older status.
    pub told: Option<String>,
}

/// How the last attempt ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Last {
    /// There was none, or it failed for another reason than the vault.
    #[default]
    Unknown,
    /// The target had what the vault had.
    InSync {
        about: About,
        read_at: Timestamp,
        /// The target's resourceVersion; any other one may be drift.
        target: String,
    },
    /// The vault did not answer.
    Refused {
        about: About,
        /// When that was known: an answer to a later question is news.
        at: Instant,
        /// When another attempt is worth it.
        again: Instant,
    },
}

/// What an attempt was about; about anything else, the next one is not bound by it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct About {
    pub generation: Option<i64>,
    pub reads: Vec<ReadKey>,
}

impl Last {
    /// How long an attempt about the same should still wait. The status that says how the last one failed is itself a change of
    /// the mirror, and no reason to ask sooner.
    pub fn pause(&self, about: &About, now: Instant) -> Option<Duration> {
        match self {
            Self::Refused {
                about: before,
                again,
                ..
            } if before == about => again
                .checked_duration_since(now)
                .filter(|pause| !pause.is_zero()),
            _ => None,
        }
    }

    /// The vault that it was about.
    pub fn vault(&self) -> Option<&VaultHost> {
        let (Self::InSync { about, .. } | Self::Refused { about, .. }) = self else {
            return None;
        };
        about.reads.first().map(|read| &read.vault)
    }
}

impl Memories {
    /// What is remembered of a mirror.
    pub fn of(&self, mirror: &KeyVaultMirror) -> Memory {
        self.lock()
            .get(&mirror.uid().unwrap_or_default())
            .cloned()
            .unwrap_or_default()
    }

    /// Remembers.
    pub fn keep(&self, mirror: &KeyVaultMirror, mut memory: Memory) {
        memory.namespace = mirror.namespace().unwrap_or_default();
        memory.name = mirror.name_any();
        self.lock().insert(mirror.uid().unwrap_or_default(), memory);
    }

    /// Forgets mirrors that are gone and gives the namespaces and names that no mirror has any longer.
    pub fn forget_all_but(&self, mirrors: &[Arc<KeyVaultMirror>]) -> Vec<(String, String)> {
        let live: HashSet<String> = mirrors.iter().filter_map(|mirror| mirror.uid()).collect();
        let names: HashSet<(String, String)> = mirrors
            .iter()
            .map(|mirror| (mirror.namespace().unwrap_or_default(), mirror.name_any()))
            .collect();
        let mut memories = self.lock();
        let gone = memories.extract_if(|uid, _| !live.contains(uid));
        gone.map(|(_, memory)| (memory.namespace, memory.name))
            .filter(|name| !names.contains(name))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Memory>> {
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
    fn a_vault_that_failed_is_left_alone_for_a_while_by_the_same_spec() {
        let about = |generation| About {
            generation: Some(generation),
            reads: Vec::new(),
        };
        let (now, pause) = (Instant::now(), Duration::from_secs(4));
        let last = Last::Refused {
            about: about(1),
            at: now,
            again: now + pause,
        };
        assert_eq!(last.pause(&about(1), now), Some(pause));
        assert_eq!(last.pause(&about(1), now + pause), None);
        assert_eq!(last.pause(&about(2), now), None);
    }

    #[test]
    fn a_mirror_that_is_gone_is_forgotten_once() {
        let memories = Memories::default();
        memories.keep(&mirror("a", "1"), Memory::default());
        memories.keep(&mirror("b", "2"), Memory::default());
        let gone = memories.forget_all_but(&[mirror("b", "2")]);
        assert_eq!(gone, [("n".into(), "a".into())]);
        assert!(memories.forget_all_but(&[mirror("b", "2")]).is_empty());
    }

    #[test]
    fn the_name_of_a_mirror_that_was_made_anew_is_not_gone() {
        let memories = Memories::default();
        memories.keep(&mirror("a", "1"), Memory::default());
        assert!(memories.forget_all_but(&[mirror("a", "2")]).is_empty());
    }
}
