//! Watches of workloads, a kind each. What is not in every cluster is followed for as long as it is there.

use std::fmt::Debug;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::CronJob;
use kube::api::DynamicObject;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::warn_of;
use crate::rotation::{Workload, WorkloadKind};
use crate::watch::{Change, follow, keep};

/// How often a kind that is not served is looked for.
const DISCOVERY_PAUSE: Duration = Duration::from_secs(30);

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
                WorkloadKind::Rollout => watch_where_served(client, kind, writer, changed).boxed(),
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

/// Follows a kind whose CustomResourceDefinition may come and go.
async fn watch_where_served(
    client: Client,
    kind: WorkloadKind,
    mut writer: Writer<Workload>,
    changed: impl Fn(Change<'_, Workload>) + Send + Sync,
) {
    loop {
        // None, so that nobody waits for them.
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        changed(Change::Listed(&[]));
        until_served(&client, kind).await;
        tracing::info!(
            kind = kind.name(),
            "the kind is served, and watched from now on"
        );
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind.api_resource());
        let stream = watcher(api, Config::default())
            .take_while(|event| std::future::ready(!is_not_found(event)))
            .map_ok(|event| keep(event, Workload::of_argo));
        follow(stream, &mut writer, &changed, warn_of(kind.name())).await;
    }
}

async fn until_served(client: &Client, kind: WorkloadKind) {
    let (group, version, plural) = kind.resource();
    loop {
        // One that can't be asked for now is asked for again, as one that is not there.
        let resources = client
            .list_api_group_resources(&format!("{group}/{version}"))
            .await;
        let mut resources = resources.into_iter().flat_map(|list| list.resources);
        if resources.any(|resource| resource.name == plural) {
            return;
        }
        tokio::time::sleep(DISCOVERY_PAUSE).await;
    }
}

fn is_not_found<K>(event: &watcher::Result<Event<K>>) -> bool {
    let error = match event {
        Err(watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) => {
            error
        }
        _ => return false,
    };
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
