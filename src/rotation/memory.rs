//! What is remembered of workloads between two looks at them. Losing it costs a request, an observation, or says an event twice;
//! never a rotation.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::decide::{Content, Pods};
use super::reference::SourceKey;
use super::workload::{WorkloadId, WorkloadKind};

/// The memories of all workloads.
#[derive(Default)]
pub struct Memories(Mutex<HashMap<WorkloadId, Memory>>);

/// What is remembered of one.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// UID of the workload: one that is made anew under the name begins anew.
    pub uid: Option<String>,
    /// The last warning about its annotation.
    pub warned: String,
    /// The Pods that lack content, as they were last looked at.
    pub looked: Option<Looked>,
    /// The rotation whose rollout is under way.
    pub begun: Option<Begun>,
    /// The rotation whose rollout was last seen to end.
    pub finished: Option<Timestamp>,
    /// The rotation of which it was told that its content is asked to be taken back.
    pub failed: Option<Timestamp>,
    /// What keeps it from being rolled.
    pub pending: Option<Pending>,
    /// What was told of that.
    pub told: BTreeSet<&'static str>,
    /// Of the content that it lacks, by digest.
    told_of: BTreeMap<SourceKey, String>,
    /// Looks in a row that failed.
    pub failures: u32,
}

/// A look at Pods. As long as the workload is the same and lacks the same content, they do too.
#[derive(Clone, Debug)]
pub struct Looked {
    pub resource_version: Option<String>,
    pub lacking: BTreeMap<SourceKey, String>,
    pub pods: Arc<Pods>,
}

/// A rotation whose rollout is under way.
#[derive(Clone, Copy, Debug)]
pub struct Begun {
    pub rotated: Timestamp,
    /// When the vault object was updated that caused it.
    pub updated: Option<Timestamp>,
}

/// A workload that should be rolled, and is not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pending {
    /// When the content changed that it lacks.
    pub since: Timestamp,
    pub held: bool,
    pub reason: &'static str,
}

/// What workloads are doing, for the metrics.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Summary {
    /// By what they wait for.
    pub waiting: BTreeMap<&'static str, usize>,
    /// By what holds them.
    pub held: BTreeMap<&'static str, usize>,
    /// When the content changed that one of the kind has lacked the longest.
    pub oldest: BTreeMap<WorkloadKind, Timestamp>,
    /// Those that are gone.
    pub gone: Vec<WorkloadId>,
}

impl Memories {
    /// What is remembered of a workload.
    pub fn of(&self, id: &WorkloadId, uid: Option<&str>) -> Memory {
        let memory = self.lock().get(id).cloned();
        let is_same = |memory: &Memory| memory.uid.as_deref() == uid;
        memory.filter(is_same).unwrap_or_else(|| Memory {
            uid: uid.map(str::to_owned),
            ..Memory::default()
        })
    }

    pub fn keep(&self, id: WorkloadId, memory: Memory) {
        self.lock().insert(id, memory);
    }

    /// Forgets a workload that is gone, or wants to be left alone.
    pub fn forget(&self, id: &WorkloadId) {
        self.lock().remove(id);
    }

    /// Forgets those that are gone, and sums up the others.
    pub fn sum_up(&self, is_there: impl Fn(&WorkloadId) -> bool) -> Summary {
        let mut memories = self.lock();
        let gone = memories.extract_if(|id, _| !is_there(id));
        let mut summary = Summary {
            gone: gone.map(|(id, _)| id).collect(),
            ..Summary::default()
        };
        for (id, memory) in memories.iter() {
            let Some(pending) = memory.pending else {
                continue;
            };
            let reasons = if pending.held {
                &mut summary.held
            } else {
                &mut summary.waiting
            };
            *reasons.entry(pending.reason).or_default() += 1;
            let oldest = summary.oldest.entry(id.kind).or_insert(pending.since);
            *oldest = pending.since.min(*oldest);
        }
        summary
    }

    /// A panic elsewhere leaves the map whole, so its poison means nothing.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<WorkloadId, Memory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// The Pods as they were last looked at, if that still holds.
    pub fn pods(
        &self,
        resource_version: Option<&str>,
        lacking: &BTreeMap<&SourceKey, &Content>,
    ) -> Option<Arc<Pods>> {
        let looked = self.looked.as_ref()?;
        let same = looked.resource_version.as_deref() == resource_version
            && digests(lacking).eq(&looked.lacking);
        same.then(|| Arc::clone(&looked.pods))
    }

    /// Keeps a look at Pods.
    pub fn look(
        &mut self,
        resource_version: Option<&str>,
        lacking: &BTreeMap<&SourceKey, &Content>,
        pods: Arc<Pods>,
    ) {
        self.looked = Some(Looked {
            resource_version: resource_version.map(str::to_owned),
            lacking: digests(lacking)
                .map(|(key, digest)| (key.clone(), digest.clone()))
                .collect(),
            pods,
        });
    }

    /// It lacks this content: what is in the way of other content is to be told anew.
    pub fn lacks(&mut self, lacking: &BTreeMap<&SourceKey, &Content>, pending: Pending) {
        self.pending = Some(pending);
        if !digests(lacking).eq(&self.told_of) {
            let lacking = digests(lacking);
            self.told_of = lacking.map(|(key, it)| (key.clone(), it.clone())).collect();
            self.told.clear();
        }
    }

    /// It has all content, or is being given it.
    pub fn clear_pending(&mut self) {
        self.pending = None;
        self.looked = None;
        self.told.clear();
        self.told_of.clear();
    }
}

fn digests<'a>(
    contents: &'a BTreeMap<&'a SourceKey, &'a Content>,
) -> impl Iterator<Item = (&'a SourceKey, &'a String)> {
    contents
        .iter()
        .map(|(key, content)| (*key, &content.record.digest))
}

#[cfg(test)]
mod tests {
    use super::super::samples::{content, token};
    use super::*;

    fn id(name: &str) -> WorkloadId {
        WorkloadId {
            namespace: "n".into(),
            kind: WorkloadKind::Deployment,
            name: name.into(),
        }
    }

    fn pending(since: i64, held: bool) -> Memory {
        Memory {
            pending: Some(Pending {
                since: Timestamp::from_second(since).expect("in range"),
                held,
                reason: "r",
            }),
            ..Memory::default()
        }
    }

    #[test]
    fn what_is_in_the_way_of_other_content_is_told_anew() {
        let (key, first, second) = (token(), content("a", 1), content("b", 2));
        let waits = pending(1, false).pending.expect("it waits");
        let mut memory = Memory::default();
        let mut news = |content| {
            memory.lacks(&BTreeMap::from([(&key, content)]), waits);
            memory.told.insert("r")
        };
        assert!(news(&first) && !news(&first));
        assert!(news(&second) && !news(&second));
    }

    #[test]
    fn what_is_gone_is_forgotten_and_the_rest_summed_up() {
        let memories = Memories::default();
        for (name, memory) in [
            ("a", pending(7, false)),
            ("b", pending(5, true)),
            ("gone", pending(1, true)),
        ] {
            memories.keep(id(name), memory);
        }
        let summary = memories.sum_up(|id| id.name != "gone");
        assert_eq!((summary.waiting["r"], summary.held["r"]), (1, 1));
        let oldest = summary.oldest[&WorkloadKind::Deployment];
        assert_eq!(oldest.as_second(), 5);
        assert_eq!(summary.gone, [id("gone")]);
        assert!(memories.of(&id("gone"), None).pending.is_none());
    }

    #[test]
    fn one_that_is_made_anew_under_the_name_begins_anew() {
        let memories = Memories::default();
        let memory = Memory {
            uid: Some("u".into()),
            warned: "w".into(),
            ..Memory::default()
        };
        memories.keep(id("a"), memory);
        assert_eq!(memories.of(&id("a"), Some("u")).warned, "w");
        assert_eq!(memories.of(&id("a"), Some("v")).warned, "");
    }
}
