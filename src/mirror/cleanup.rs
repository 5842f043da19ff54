//! Removes what mirrors that are gone, or have another target now, left behind: carries out what [`super::sweep`] decides.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use kube::api::{Api, DynamicObject};

use super::akv2k8s;
use super::apply::Targets;
use super::controller::Mirrors;
use super::plan::Existing;
use super::record::Record;
use super::status::Failure;
use super::sweep::{LiveMirrors, Sweep, all_want, leftovers};
use super::target::Target;
use super::target_name::TargetName;
use crate::api::KeyVaultMirror;
use crate::daemon::Stop;

/// How often leftovers are looked for though nothing happened.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Least time between two such looks.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// What the API server has of a mirror.
enum Still {
    There(Box<KeyVaultMirror>),
    Gone,
    /// The resource that it was read from is gone, and what that owned with it, unless with `--cascade=orphan`.
    OwnerGone,
    /// Its resource is akv2k8s', and none of these is read.
    Unknown,
}

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
        let live = live(&mirrors);
        let none = LiveMirrors::new();
        for (kind, target) in self.targets.all() {
            let (namespace, name) = (&*target.namespace, &*target.name);
            let live = live.get(namespace).unwrap_or(&none);
            if all_want((kind, name), target.mirror_uids(), live) {
                continue;
            }
            let target_name = TargetName::new(kind, name);
            if let Err(error) = self
                .sweep_target(namespace, &target_name, target.existing(), live)
                .await
            {
                tracing::warn!(%namespace, target = %target_name, %error, "a leftover can't be removed; that is tried again");
            }
        }
        self.forget_gone();
    }

    /// Forgets what was remembered of mirrors that are gone.
    fn forget_gone(&self) {
        for id in self.memories.forget_all_but(|| self.mirrors.state()) {
            self.vaults.forget(&id);
            // One that was made anew under the same name has the same metrics.
            if self.mirrors.get(&id.reference()).is_none() {
                self.metrics.mirror_gone(id.namespace(), id.name());
                self.activity.forget(id.namespace(), id.name());
            }
        }
    }

    /// Removes one leftover of a target after the other: what is to be done with the next depends on what is there then.
    async fn sweep_target(
        &self,
        namespace: &str,
        target: &TargetName,
        mut existing: Existing,
        live: &LiveMirrors<'_>,
    ) -> Result<(), Failure> {
        let mut looked_at = HashSet::new();
        loop {
            let address = (target.kind, target.name.as_str());
            let mut sweeps = leftovers(address, &existing, live).into_iter();
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

    /// Asks the API server for a mirror.
    async fn still(&self, namespace: &str, mirror: &str) -> Result<Still, kube::Error> {
        let client = self.client.clone();
        let live = match akv2k8s::resource_name(mirror) {
            None => {
                let api: Api<KeyVaultMirror> = Api::namespaced(client, namespace);
                api.get_opt(mirror).await?
            }
            Some(_) if !self.akv2k8s => return Ok(Still::Unknown),
            Some(resource) => {
                let Some(kind) = akv2k8s::served(&client).await? else {
                    return Ok(Still::Unknown);
                };
                let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &kind);
                let Some(resource) = api.get_opt(resource).await? else {
                    return Ok(Still::OwnerGone);
                };
                let mut mirrors = akv2k8s::mirrors_of(resource).into_iter();
                mirrors.find(|it| it.name_any() == mirror)
            }
        };
        Ok(live.map_or(Still::Gone, |live| Still::There(Box::new(live))))
    }

    /// Whether a mirror has written its target.
    async fn has_filled(&self, namespace: &str, mirror: &KeyVaultMirror) -> Result<bool, Failure> {
        let target = TargetName::of(&mirror.spec.target);
        let targets = Targets::new(self.client.clone(), namespace, target.kind);
        let metadata = targets.metadata(&target.name).await?;
        let uid = mirror.uid().unwrap_or_default();
        let has_record = |metadata| Target::of(metadata).records().contains_key(&uid);
        Ok(metadata.is_some_and(has_record))
    }

    /// Gives the target's resourceVersion, if it was changed and is still there.
    async fn sweep_one(
        &self,
        namespace: &str,
        target: &TargetName,
        existing: &Existing,
        sweep: &Sweep,
    ) -> Result<Option<String>, Failure> {
        let (Sweep::Withdraw { mirror, uid } | Sweep::Delete { mirror, uid }) = sweep;
        // The cache alone is no ground to remove anything on.
        let still = self
            .still(namespace, mirror)
            .await
            .map_err(|error| Failure::ApiServer(error.to_string()))?;
        let is_wanted = match still {
            Still::There(live) if live.uid().as_ref() != Some(uid) => false,
            Still::There(live) if TargetName::of(&live.spec.target) == *target => true,
            // Until its new target has the content, this may be all that there is of it.
            Still::There(live) => !self.has_filled(namespace, &live).await?,
            Still::Gone => false,
            Still::OwnerGone => {
                let is_owner = existing.records.get(uid).is_some_and(Record::is_owner);
                is_owner && matches!(sweep, Sweep::Delete { .. })
            }
            Still::Unknown => true,
        };
        if is_wanted {
            return Ok(None);
        }
        let targets = Targets::new(self.client.clone(), namespace, target.kind);
        tracing::info!(
            namespace,
            %target,
            mirror,
            "removing what a mirror left behind"
        );
        match sweep {
            Sweep::Withdraw { uid, .. } => targets
                .withdraw(&target.name, uid, &existing.uid, &existing.resource_version)
                .await
                .map(Some),
            Sweep::Delete { .. } => targets
                .delete(&target.name, &existing.uid, &existing.resource_version)
                .await
                .map(|()| None),
        }
    }
}

/// Which targets the mirrors of each namespace want.
pub(super) fn live(mirrors: &[Arc<KeyVaultMirror>]) -> HashMap<&str, LiveMirrors<'_>> {
    let mut live: HashMap<&str, LiveMirrors> = HashMap::new();
    for mirror in mirrors {
        let (namespace, uid) = (&mirror.metadata.namespace, &mirror.metadata.uid);
        let target = (mirror.spec.target.kind, &*mirror.spec.target.name);
        let live = live.entry(namespace.as_deref().unwrap_or_default());
        live.or_default()
            .insert(uid.as_deref().unwrap_or_default(), target);
    }
    live
}
