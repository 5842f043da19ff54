//! What `keytide status` decides by: lists of what the daemon watches. With one namespace, rights in it are enough.

use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DynamicObject, ListParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::Row;
use crate::api::condition::{READY, STALLED};
use crate::api::{KeyVaultMirror, RotationPolicy};
use crate::cli::Result;
use crate::cli::rotation::RotationFlags;
use crate::clock::ServerClock;
use crate::mirror::{Activity, MIRRORED_LABEL, Target};
use crate::rotation::{
    Flights, Judge, Policies, Sources, Standing, State, Workload, WorkloadKind, Workloads,
};
use crate::watch::{filled, new_store};

/// Mirrors, and what it takes to decide about workloads.
pub struct Snapshot {
    mirrors: Vec<KeyVaultMirror>,
    judge: Judge,
}

/// Lists what there is, in a namespace or in all.
pub async fn snapshot(
    client: Client,
    clock: &ServerClock,
    namespace: Option<&str>,
    flags: &RotationFlags,
) -> Result<Snapshot> {
    let here = Here {
        client: client.clone(),
        namespace,
    };
    let all = ListParams::default();
    let mirrored = ListParams::default().labels(&format!("{MIRRORED_LABEL}=true"));
    let mirrors = here.api::<KeyVaultMirror>().list(&all).await?.items;
    let policies = here.api::<RotationPolicy>().list(&all).await?.items;
    let targets = here.api::<Secret>().list_metadata(&mirrored).await?.items;
    let workloads = Workloads::listed(here.workloads().await?);
    let flights = Flights::new(flags.max_rotations());
    for kind in WorkloadKind::ALL {
        let listed = workloads.of(kind).state();
        flights.follow(kind, &crate::watch::Change::Listed(&listed));
    }
    // Filled by no list: what is kept of classes can't be decided on without reading it.
    let (classes, _) = new_store();
    let judge = Judge {
        client: client.clone(),
        clock: clock.clone(),
        policies: Arc::new(Policies {
            client,
            clock: clock.clone(),
            store: filled(policies),
            default: flags.policy(),
        }),
        workloads,
        flights,
        sources: Sources {
            targets: filled(targets.into_iter().map(Target::of).collect()),
            classes,
            unmirrored: None,
        },
        namespaces: filled(here.namespaces().await?),
        compatibility: flags.compatibility(),
        activity: activity(&mirrors),
    };
    Ok(Snapshot { mirrors, judge })
}

impl Snapshot {
    /// How everything stands.
    pub async fn rows(&self) -> Result<Vec<Row>> {
        let mut rows: Vec<Row> = self.mirrors.iter().map(row_of_mirror).collect();
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
    let stalled = condition(STALLED).is_some_and(|condition| condition.status == "True");
    let standing = match condition(READY) {
        Some(ready) if ready.status == "True" => Standing::new(State::Current, None, None),
        Some(ready) => {
            let state = if stalled { State::Held } else { State::Waiting };
            Standing::new(
                state,
                None,
                Some(format!("{}: {}", ready.reason, ready.message)),
            )
        }
        None => Standing::new(
            State::Waiting,
            None,
            Some("the daemon has not looked at it yet".to_owned()),
        ),
    };
    Row {
        namespace: mirror.namespace().unwrap_or_default(),
        kind: "KeyVaultMirror",
        name: mirror.name_any(),
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
            activity.begin(&namespace, &name, &mirror.spec.target.name);
            activity.ended(&namespace, &name, true, since);
        }
    }
    activity
}

/// A namespace, or all.
struct Here<'a> {
    client: Client,
    namespace: Option<&'a str>,
}

impl Here<'_> {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
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
        let kind = WorkloadKind::Rollout.api_resource();
        let api: Api<DynamicObject> = match self.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind),
            None => Api::all_with(self.client.clone(), &kind),
        };
        match api.list(&ListParams::default()).await {
            Ok(found) => Ok(found.items.into_iter().map(Workload::of_argo).collect()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// None where that is not allowed: it takes a right beyond the namespace.
    async fn namespaces(&self) -> Result<Vec<PartialObjectMeta<Namespace>>> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let found = match self.namespace {
            Some(namespace) => api.get_metadata_opt(namespace).await.map(Vec::from_iter),
            None => {
                let list = api.list_metadata(&ListParams::default()).await;
                list.map(|list| list.items)
            }
        };
        match found {
            Ok(found) => Ok(found),
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}
