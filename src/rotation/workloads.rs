//! The workloads of all kinds, as the caches have them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use kube::runtime::reflector::store::{Writer, WriterDropped};
use kube::runtime::reflector::{ObjectRef, Store};

use super::opt_in::{Context, OptIn};
use super::policy::ROTATION_POLICY;
use super::reference::Source;
use super::workload::{Workload, WorkloadKind};
use crate::watch::{Change, Index, fill, new_store_of};

/// All workloads. Clones share them.
#[derive(Clone)]
pub struct Workloads {
    kinds: [OfKind; WorkloadKind::ALL.len()],
}

/// Those of one kind: a watch tells all of one kind at a time.
#[derive(Clone)]
struct OfKind {
    store: Store<Workload>,
    by_source: Index<Workload>,
}

impl Workloads {
    /// None yet, and what fills each kind.
    pub fn new() -> (Self, Vec<(WorkloadKind, Writer<Workload>)>) {
        let mut writers = Vec::new();
        let kinds = WorkloadKind::ALL.map(|kind| {
            let (store, writer) = new_store_of(kind);
            writers.push((kind, writer));
            OfKind {
                store,
                by_source: Index::new(kind, sources),
            }
        });
        (Self { kinds }, writers)
    }

    /// These, and none more.
    pub fn listed(listed: Vec<Workload>) -> Self {
        let (workloads, writers) = Self::new();
        let mut by_kind: BTreeMap<WorkloadKind, Vec<Workload>> = BTreeMap::new();
        for workload in listed {
            by_kind.entry(workload.kind).or_default().push(workload);
        }
        for (kind, mut writer) in writers {
            fill(&mut writer, by_kind.remove(&kind).unwrap_or_default());
            let listed = workloads.of(kind).state();
            workloads.follow(kind, &Change::Listed(&listed));
        }
        workloads
    }

    /// Those of one kind.
    pub fn of(&self, kind: WorkloadKind) -> &Store<Workload> {
        &self.kind(kind).store
    }

    /// Waits until those of every kind are known.
    pub async fn wait_until_ready(&self) -> Result<(), WriterDropped> {
        for kind in &self.kinds {
            kind.store.wait_until_ready().await?;
        }
        Ok(())
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = Arc<Workload>> {
        self.kinds.iter().flat_map(|kind| kind.store.state())
    }

    /// Those that are under a policy of their namespace.
    pub fn under(&self, namespace: &str, policy: &str) -> Vec<ObjectRef<Workload>> {
        self.all()
            .filter(|it| it.metadata.namespace.as_deref() == Some(namespace))
            .filter(|it| it.annotation(ROTATION_POLICY) == Some(policy))
            .map(|it| it.reference())
            .collect()
    }

    /// Takes in what a watch of a kind has seen.
    pub fn follow(&self, kind: WorkloadKind, change: &Change<'_, Workload>) {
        self.kind(kind).by_source.follow(change);
    }

    /// Those that use a source, whether they opted in or not.
    pub fn using(&self, namespace: &str, source: &Source) -> Vec<ObjectRef<Workload>> {
        let name = source.to_string();
        let kinds = self.kinds.iter();
        kinds
            .flat_map(|kind| kind.by_source.get(namespace, &name))
            .collect()
    }

    fn kind(&self, kind: WorkloadKind) -> &OfKind {
        &self.kinds[kind as usize]
    }
}

/// What it uses or names, whether it opted in or not: a Namespace may opt in later.
fn sources(workload: &Workload) -> HashSet<String> {
    let context = Context {
        namespace: None,
        compatibility: true,
    };
    let wanted = OptIn::of(workload, context).wanted(&workload.references);
    let references = workload.references.iter().chain(&wanted);
    references
        .map(|reference| reference.source.to_string())
        .collect()
}
