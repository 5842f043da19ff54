//! Removes what mirrors that are gone, or have another target now, left behind: carries out what [`super::sweep`] decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::api::Api;
use kube::{Resource, ResourceExt};

use super::apply::Targets;
use super::controller::Mirrors;
use super::plan::Existing;
use super::status::Failure;
use super::sweep::{LiveMirrors, Sweep, leftovers};
use crate::api::KeyVaultMirror;

/// How often leftovers are looked for though nothing happened.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

impl Mirrors {
    /// Looks for leftovers again and again.
    pub(super) async fn sweep_for_ever(self: Arc<Self>) {
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                _ = interval.tick() => {}
                () = self.mirrors_touched.notified() => {}
            }
            self.sweep().await;
        }
    }

    /// Removes what mirrors that are gone, or have another target now, left behind.
    async fn sweep(&self) {
        let mirrors = self.mirrors.state();
        let mut live: HashMap<String, LiveMirrors> = HashMap::new();
        for mirror in &mirrors {
            let of_namespace = live
                .entry(mirror.namespace().unwrap_or_default())
                .or_default();
            of_namespace.insert(
                mirror.uid().unwrap_or_default(),
                mirror.spec.target.name.clone(),
            );
        }
        for target in self.targets.state() {
            let (namespace, name) = (target.namespace().unwrap_or_default(), target.name_any());
            let existing = Existing::of(target.meta());
            let live = live.entry(namespace.clone()).or_default();
            for sweep in leftovers(&name, &existing, live) {
                if let Err(error) = self.sweep_one(&namespace, &name, &existing, &sweep).await {
                    tracing::warn!(%namespace, target = %name, %error, "a leftover can't be removed; that is tried again");
                }
            }
        }
        for (namespace, name) in self.memories.forget_all_but(&mirrors) {
            self.metrics.mirror_gone(&namespace, &name);
            self.activity.forget(&namespace, &name);
        }
    }

    async fn sweep_one(
        &self,
        namespace: &str,
        target: &str,
        existing: &Existing,
        sweep: &Sweep,
    ) -> Result<(), Failure> {
        let (Sweep::Withdraw { mirror, uid } | Sweep::Delete { mirror, uid }) = sweep;
        // The cache alone is no ground to remove anything on.
        let api: Api<KeyVaultMirror> = Api::namespaced(self.client.clone(), namespace);
        let live = api
            .get_opt(mirror)
            .await
            .map_err(|error| Failure::ApiServer(error.to_string()))?;
        if live
            .is_some_and(|live| live.uid().as_ref() == Some(uid) && live.spec.target.name == target)
        {
            return Ok(());
        }
        let targets = Targets::new(self.client.clone(), namespace);
        tracing::info!(
            namespace,
            target,
            mirror,
            "removing what a mirror left behind"
        );
        match sweep {
            Sweep::Withdraw { uid, .. } => {
                let seen = (existing.uid.as_str(), existing.resource_version.as_str());
                targets.withdraw(target, uid, Some(seen)).await
            }
            Sweep::Delete { .. } => {
                targets
                    .delete(target, &existing.uid, &existing.resource_version)
                    .await
            }
        }
    }
}
