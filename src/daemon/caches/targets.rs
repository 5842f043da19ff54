//! Watches of targets, a kind each.

use std::fmt::Debug;

use futures::TryStreamExt;
use futures::future::{BoxFuture, FutureExt, join_all};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{Config, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::{PAGE, warn_of};
use crate::api::TargetKind;
use crate::mirror::{MIRRORED_LABEL, Target};
use crate::watch::{Change, follow, keep};

/// Fills the caches of all kinds for ever, and tells `changed` what was seen.
pub async fn watch_targets(
    client: Client,
    writers: Vec<(TargetKind, Writer<Target>)>,
    changed: impl Fn(TargetKind, Change<'_, Target>) + Clone + Send + Sync + 'static,
) {
    let watches = writers
        .into_iter()
        .map(|(kind, writer)| -> BoxFuture<'static, ()> {
            let (client, changed) = (client.clone(), changed.clone());
            let changed = move |change: Change<'_, Target>| changed(kind, change);
            match kind {
                TargetKind::Secret => watch::<Secret>(client, "Secrets", writer, changed).boxed(),
                TargetKind::ConfigMap => {
                    watch::<ConfigMap>(client, "ConfigMaps", writer, changed).boxed()
                }
            }
        });
    join_all(watches).await;
}

async fn watch<K>(
    client: Client,
    what: &'static str,
    writer: Writer<Target>,
    changed: impl Fn(Change<'_, Target>) + Send + Sync,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = Config::default()
        .page_size(PAGE)
        .labels(&format!("{MIRRORED_LABEL}=true"));
    let stream = watcher(Api::<PartialObjectMeta<K>>::all(client), config);
    let stream = stream.map_ok(|event| keep(event, |object| Target::of(object.metadata)));
    follow(stream, writer, changed, warn_of(what)).await;
}
