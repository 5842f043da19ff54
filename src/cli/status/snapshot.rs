//! What `keytide status` decides by: lists of what the daemon watches. With one namespace, rights in it are enough.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::Row;
use crate::api::azure_key_vault_secret::KIND;
use crate::api::condition::{READY, REVERTED, STALLED};
use crate::api::{KeyVaultMirror, RotationPolicy, TargetKind};
use crate::cli::Result;
use crate::cli::rotation::RotationFlags;
use crate::clock::ServerClock;
use crate::mirror::{Activity, MIRRORED_LABEL, Target, TargetName, TargetStores, akv2k8s};
use crate::rotation::{
    Flights, Judge, Policies, Sources, Standing, State, Workload, WorkloadKind, Workloads,
};
use crate::watch::{filled, new_store};

/// Namespace and name of a target.
pub(in crate::cli) type Address = (String, TargetName);

/// The metadata of targets.
pub(in crate::cli) type Targets = BTreeMap<Address, ObjectMeta>;

/// Targets as the daemon keeps them.
pub(in crate::cli) fn stores(targets: Targets) -> TargetStores {
    let (secrets, config_maps): (Vec<_>, Vec<_>) = targets
        .into_iter()
        .partition(|((_, target), _)| target.kind == TargetKind::Secret);
    let of = |targets: Vec<(Address, ObjectMeta)>| {
        let targets = targets.into_iter();
        targets.map(|(_, metadata)| Target::of(metadata)).collect()
    };
    TargetStores::listed(of(secrets), of(config_maps))
}

/// Mirrors, and what it takes to decide about workloads.
pub struct Snapshot {
    mirrors: Vec<KeyVaultMirror>,
    judge: Judge,
}

/// Lists what there is, with AzureKeyVaultSecrets where those are read in place.
pub async fn snapshot(
    here: &Here<'_>,
    clock: &ServerClock,
    flags: &RotationFlags,
    in_place: bool,
) -> Result<Snapshot> {
    let mut mirrors = here.mirrors().await?;
    if in_place {
        mirrors.extend(here.mirrors_in_place().await?);
    }
    let targets = here.targets().await?;
    let judge = here.judge(clock, flags, targets, &mirrors).await?;
    Ok(Snapshot { mirrors, judge })
}

impl Snapshot {
    /// How everything stands.
    pub(super) async fn rows(&self) -> Result<Vec<Row>> {
        let first = self.mirrors.iter().filter(|it| !akv2k8s::is_second(it));
        let mut rows: Vec<Row> = first.map(row_of_mirror).collect();
        for workload in self.judge.workloads.all() {
            if let Some(standing) = self.judge.standing(&workload).await? {
                rows.push(Row {
                    namespace: workload.namespace().unwrap_or_default(),
                    kind: workload.kind.name(),
                    name: workload.name_any(),
                    standing,
                });
            }
        }
        rows.sort();
        Ok(rows)
    }
}

fn row_of_mirror(mirror: &KeyVaultMirror) -> Row {
    let status = mirror.status.as_ref();
    let condition = |type_| {
        let mut conditions = status.into_iter().flat_map(|status| &status.conditions);
        conditions.find(|condition| condition.type_ == type_)
    };
    let resource = akv2k8s::resource(mirror);
    let is_mirrored = resource.is_some()
        && !akv2k8s::has_status_of_akv2k8s(mirror)
        && status.is_some_and(|status| status.last_change.is_some());
    let stalled = condition(STALLED).is_some_and(|condition| condition.status == "True");
    let reverted = condition(REVERTED);
    let standing = match condition(READY) {
        Some(ready) if ready.status == "True" && reverted.is_some() => Standing::new(
            State::Held,
            None,
            reverted.map(|it| format!("{}: {}", it.reason, it.message)),
        ),
        Some(ready) if ready.status == "True" => Standing::new(State::Current, None, None),
        Some(ready) => {
            let state = if stalled { State::Held } else { State::Waiting };
            Standing::new(
                state,
                None,
                Some(format!("{}: {}", ready.reason, ready.message)),
            )
        }
        // What akv2k8s' own definition has no place for.
        None if is_mirrored => Standing::new(State::Current, None, None),
        None => Standing::new(
            State::Waiting,
            None,
            Some("the daemon has not looked at it yet".to_owned()),
        ),
    };
    Row {
        namespace: mirror.namespace().unwrap_or_default(),
        kind: resource.map_or("KeyVaultMirror", |_| KIND),
        name: resource.map_or_else(|| mirror.name_any(), |resource| resource.name.clone()),
        standing,
    }
}

/// What mirrors are doing, as far as their status says it.
fn activity(mirrors: &[KeyVaultMirror]) -> Activity {
    let activity = Activity::default();
    for mirror in mirrors {
        let conditions = mirror.status.iter().flat_map(|status| &status.conditions);
        let failed = conditions
            .filter(|condition| condition.type_ == READY && condition.status != "True")
            .map(|condition| condition.last_transition_time.0);
        let (namespace, name) = (mirror.namespace().unwrap_or_default(), mirror.name_any());
        for since in failed {
            let target = TargetName::of(&mirror.spec.target);
            activity.begin(&namespace, &name, target);
            activity.ended(&namespace, &name, true, since);
        }
    }
    activity
}

/// A namespace, or all.
pub(in crate::cli) struct Here<'a> {
    pub client: Client,
    pub namespace: Option<&'a str>,
}

impl Here<'_> {
    pub async fn mirrors(&self) -> Result<Vec<KeyVaultMirror>> {
        let mirrors = self.api::<KeyVaultMirror>();
        Ok(mirrors.list(&ListParams::default()).await?.items)
    }

    /// AzureKeyVaultSecrets as the mirrors that they are read as; none where the cluster has no such kind.
    pub async fn mirrors_in_place(&self) -> Result<Vec<KeyVaultMirror>> {
        let Some(kind) = akv2k8s::served(&self.client).await? else {
            return Ok(Vec::new());
        };
        let resources = self.dynamic_api(&kind).list(&ListParams::default()).await?;
        let mirrors = resources.items.into_iter().flat_map(akv2k8s::mirrors_of);
        Ok(mirrors.collect())
    }

    /// The metadata of all that mirrors have written.
    pub async fn targets(&self) -> Result<Targets> {
        let secrets = self.targets_of::<Secret>(TargetKind::Secret).await?;
        // None where the daemon may write none, and not list them either.
        let config_maps = self.targets_of::<ConfigMap>(TargetKind::ConfigMap).await;
        let all = secrets.into_iter().chain(or_none(config_maps)?);
        Ok(all.collect())
    }

    /// What it takes to decide about workloads, given these targets and mirrors.
    pub async fn judge(
        &self,
        clock: &ServerClock,
        flags: &RotationFlags,
        targets: Targets,
        mirrors: &[KeyVaultMirror],
    ) -> Result<Judge> {
        let policies = self.api::<RotationPolicy>();
        let policies = policies.list(&ListParams::default()).await?.items;
        let workloads = Workloads::listed(self.workloads().await?);
        let flights = Flights::new(flags.max_rotations());
        for kind in WorkloadKind::ALL {
            let listed = workloads.of(kind).state();
            flights.follow(kind, &crate::watch::Change::Listed(&listed));
        }
        // Filled by no list: what is kept of classes can't be decided on without reading it.
        let (classes, _) = new_store();
        Ok(Judge {
            client: self.client.clone(),
            clock: clock.clone(),
            policies: Arc::new(Policies {
                client: self.client.clone(),
                clock: clock.clone(),
                store: filled(policies),
                default: flags.policy(),
            }),
            workloads,
            flights,
            sources: Sources {
                targets: stores(targets),
                classes,
                unmirrored: None,
            },
            namespaces: filled(self.namespaces().await?),
            compatibility: flags.compatibility(),
            activity: activity(mirrors),
        })
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    fn dynamic_api(&self, kind: &ApiResource) -> Api<DynamicObject> {
        match self.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, kind),
            None => Api::all_with(self.client.clone(), kind),
        }
    }

    async fn targets_of<K>(
        &self,
        kind: TargetKind,
    ) -> std::result::Result<Vec<(Address, ObjectMeta)>, kube::Error>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let mirrored = ListParams::default().labels(&format!("{MIRRORED_LABEL}=true"));
        let found = self.api::<K>().list_metadata(&mirrored).await?.items;
        let address = |metadata: &ObjectMeta| {
            let namespace = metadata.namespace.clone().unwrap_or_default();
            let name = metadata.name.as_deref().unwrap_or_default();
            (namespace, TargetName::new(kind, name))
        };
        Ok(found
            .into_iter()
            .map(|object| (address(&object.metadata), object.metadata))
            .collect())
    }

    async fn workloads(&self) -> Result<Vec<Workload>> {
        let mut all = Vec::new();
        all.extend(self.of::<Deployment>().await?);
        all.extend(self.of::<StatefulSet>().await?);
        all.extend(self.of::<DaemonSet>().await?);
        all.extend(self.of::<CronJob>().await?);
        all.extend(self.rollouts().await?);
        Ok(all)
    }

    async fn of<K>(&self) -> Result<impl Iterator<Item = Workload>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Into<Workload>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let found = self.api::<K>().list(&ListParams::default()).await?;
        Ok(found.items.into_iter().map(K::into))
    }

    /// None where Argo Rollouts is not installed.
    async fn rollouts(&self) -> Result<Vec<Workload>> {
        let api = self.dynamic_api(&WorkloadKind::Rollout.api_resource());
        match api.list(&ListParams::default()).await {
            Ok(found) => Ok(found.items.into_iter().map(Workload::of_argo).collect()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// None where that is not allowed: it takes a right beyond the namespace.
    pub async fn namespaces(&self) -> Result<Vec<PartialObjectMeta<Namespace>>> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let found = match self.namespace {
            // The daemon may list them, and others may get their own.
            Some(namespace) => match api.get_metadata_opt(namespace).await {
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    let this = ListParams::default().fields(&format!("metadata.name={namespace}"));
                    api.list_metadata(&this).await.map(|list| list.items)
                }
                found => found.map(Vec::from_iter),
            },
            None => {
                let list = api.list_metadata(&ListParams::default()).await;
                list.map(|list| list.items)
            }
        };
        or_none(found)
    }
}

/// What was listed, or nothing where that is not allowed.
fn or_none<T>(listed: std::result::Result<Vec<T>, kube::Error>) -> Result<Vec<T>> {
    match listed {
        Ok(listed) => Ok(listed),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}
