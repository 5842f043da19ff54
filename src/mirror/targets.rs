//! The targets of all kinds, as watches show them.

use std::sync::Arc;

use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::{Writer, WriterDropped};

use super::target::Target;
use crate::api::TargetKind;
use crate::watch::{filled, new_store, reference};

/// A store for each kind. Clones share them.
#[derive(Clone)]
pub struct TargetStores {
    secrets: Store<Target>,
    /// None where mirrors may write no ConfigMaps.
    config_maps: Option<Store<Target>>,
}

impl TargetStores {
    /// Empty ones, and what fills each.
    pub fn new(config_maps: bool) -> (Self, Vec<(TargetKind, Writer<Target>)>) {
        let (secrets, secrets_writer) = new_store();
        let mut writers = vec![(TargetKind::Secret, secrets_writer)];
        let config_maps = config_maps.then(|| {
            let (store, writer) = new_store();
            writers.push((TargetKind::ConfigMap, writer));
            store
        });
        let stores = Self {
            secrets,
            config_maps,
        };
        (stores, writers)
    }

    /// These, and none more.
    pub fn listed(secrets: Vec<Target>, config_maps: Vec<Target>) -> Self {
        Self {
            secrets: filled(secrets),
            config_maps: Some(filled(config_maps)),
        }
    }

    /// Waits until those of every kind are known.
    pub async fn wait_until_ready(&self) -> Result<(), WriterDropped> {
        self.secrets.wait_until_ready().await?;
        match &self.config_maps {
            Some(config_maps) => config_maps.wait_until_ready().await,
            None => Ok(()),
        }
    }

    /// Whether mirrors may write this kind.
    pub fn has(&self, kind: TargetKind) -> bool {
        self.of(kind).is_some()
    }

    pub fn get(&self, namespace: &str, kind: TargetKind, name: &str) -> Option<Arc<Target>> {
        self.of(kind)?.get(&reference(namespace, name))
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = (TargetKind, Arc<Target>)> {
        let of = |kind| {
            let targets = self.of(kind).map(Store::state).unwrap_or_default();
            targets.into_iter().map(move |target| (kind, target))
        };
        of(TargetKind::Secret).chain(of(TargetKind::ConfigMap))
    }

    fn of(&self, kind: TargetKind) -> Option<&Store<Target>> {
        match kind {
            TargetKind::Secret => Some(&self.secrets),
            TargetKind::ConfigMap => self.config_maps.as_ref(),
        }
    }
}
