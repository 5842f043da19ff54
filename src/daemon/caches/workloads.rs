//! Watches of workloads, a kind each.

use std::fmt::Debug;

use futures::TryStreamExt;
use futures::future::{BoxFuture, FutureExt, join_all};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::CronJob;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{Config, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::served::watch_where_served;
use super::warn_of;
use crate::rotation::{Workload, WorkloadKind};
use crate::watch::{Change, follow, keep};

/// Fills the caches of all kinds for ever, and tells `changed` what was seen.
pub async fn watch_workloads(
    client: Client,
    writers: Vec<(WorkloadKind, Writer<Workload>)>,
    changed: impl Fn(WorkloadKind, Change<'_, Workload>) + Clone + Send + Sync + 'static,
) {
    let watches = writers
        .into_iter()
        .map(|(kind, writer)| -> BoxFuture<'static, ()> {
            let (client, changed) = (client.clone(), changed.clone());
            let changed = move |change: Change<'_, Workload>| changed(kind, change);
            match kind {
                WorkloadKind::Deployment => {
                    watch::<Deployment>(client, kind, writer, changed).boxed()
                }
                WorkloadKind::StatefulSet => {
                    watch::<StatefulSet>(client, kind, writer, changed).boxed()
                }
                WorkloadKind::DaemonSet => {
                    watch::<DaemonSet>(client, kind, writer, changed).boxed()
                }
                WorkloadKind::CronJob => watch::<CronJob>(client, kind, writer, changed).boxed(),
                WorkloadKind::Rollout => watch_where_served(
                    client,
                    kind.api_resource(),
                    kind.name(),
                    Workload::of_argo,
                    writer,
                    changed,
                )
                .boxed(),
            }
        });
    join_all(watches).await;
}

async fn watch<K>(
    client: Client,
    kind: WorkloadKind,
    mut writer: Writer<Workload>,
    changed: impl Fn(Change<'_, Workload>) + Send + Sync,
) where
    K: Resource<DynamicType = ()>
        + Into<Workload>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
{
    let stream = watcher(Api::<K>::all(client.clone()), Config::default());
    let stream = stream.map_ok(|event| keep(event, K::into));
    follow(stream, &mut writer, changed, warn_of(kind.name())).await;
}
