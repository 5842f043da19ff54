//! Removes what mirrors that are gone, or have another target now, left behind: carries out what [`super::sweep`] decides.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::api::Api;

use super::apply::Targets;
use super::controller::Mirrors;
use super::plan::Existing;
use super::status::Failure;
use super::sweep::{LiveMirrors, Sweep, all_want, leftovers};
use crate::api::KeyVaultMirror;
use crate::daemon::Stop;

/// How often leftovers are looked for though nothing happened.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Least time between two such looks.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

impl Mirrors {
    /// Looks for leftovers again and again until `stop`.
    pub(super) async fn sweep_until(self: Arc<Self>, stop: Stop) {
        let mut interval = tokio::time::interval(SWEEP_INTERVAL);
        let sweeps = async {
            loop {
                tokio::select! {
                    _ = interval.tick() => {}
                    () = self.mirrors_touched.notified() => {}
                }
                self.sweep().await;
                tokio::time::sleep(SWEEP_PAUSE).await;
            }
        };
        tokio::select! {
            () = sweeps => {}
            () = stop => {}
        }
    }

    /// Removes what mirrors that are gone, or have another target now, left behind.
    async fn sweep(&self) {
        let mirrors = self.mirrors.state();
        let mut live: HashMap<&str, LiveMirrors> = HashMap::new();
        for mirror in &mirrors {
            let (namespace, uid) = (&mirror.metadata.namespace, &mirror.metadata.uid);
            live.entry(namespace.as_deref().unwrap_or_default())
                .or_default()
                .insert(uid.as_deref().unwrap_or_default(), &mirror.spec.target.name);
        }
        let none = LiveMirrors::new();
        for target in self.targets.state() {
            let (namespace, name) = (&*target.namespace, &*target.name);
            let live = live.get(namespace).unwrap_or(&none);
            if all_want(name, target.mirror_uids(), live) {
                continue;
            }
            if let Err(error) = self
                .sweep_target(namespace, name, target.existing(), live)
                .await
            {
                tracing::warn!(%namespace, target = %name, %error, "a leftover can't be removed; that is tried again");
            }
        }
        let names: HashSet<(Option<&str>, Option<&str>)> = mirrors
            .iter()
            .map(|mirror| {
                let (namespace, name) = (&mirror.metadata.namespace, &mirror.metadata.name);
                (namespace.as_deref(), name.as_deref())
            })
            .collect();
        for id in self.memories.forget_all_but(&mirrors) {
            self.vaults.forget(&id);
            // One that was made anew under the same name has the same metrics.
            if !names.contains(&(Some(id.namespace()), Some(id.name()))) {
                self.metrics.mirror_gone(id.namespace(), id.name());
                self.activity.forget(id.namespace(), id.name());
            }
        }
    }

    /// Removes one leftover of a target after the other: what is to be done with the next depends on what is there then.
    async fn sweep_target(
        &self,
        namespace: &str,
        target: &str,
        mut existing: Existing,
        live: &LiveMirrors<'_>,
    ) -> Result<(), Failure> {
        let mut looked_at = HashSet::new();
        loop {
            let mut sweeps = leftovers(target, &existing, live).into_iter();
            let Some(sweep) = sweeps.find(|sweep| !looked_at.contains(sweep.uid())) else {
                return Ok(());
            };
            looked_at.insert(sweep.uid().to_owned());
            if let Some(resource_version) =
                self.sweep_one(namespace, target, &existing, &sweep).await?
            {
                existing.forget(sweep.uid(), resource_version);
            }
        }
    }

    /// Gives the target's resourceVersion, if it was changed and is still there.
    async fn sweep_one(
        &self,
        namespace: &str,
        target: &str,
        existing: &Existing,
        sweep: &Sweep,
    ) -> Result<Option<String>, Failure> {
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
            return Ok(None);
        }
        let targets = Targets::new(self.client.clone(), namespace);
        tracing::info!(
            namespace,
            target,
            mirror,
            "removing what a mirror left behind"
        );
        match sweep {
            Sweep::Withdraw { uid, .. } => targets
                .withdraw(target, uid, &existing.uid, &existing.resource_version)
                .await
                .map(Some),
            Sweep::Delete { .. } => targets
                .delete(target, &existing.uid, &existing.resource_version)
                .await
                .map(|()| None),
        }
    }
}
