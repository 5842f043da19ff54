//! Watches of what workloads use and no mirror fills: SecretProviderClasses, and all Secrets and ConfigMaps where that is asked for.

use std::fmt::Debug;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::ApiResource;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::{Writer, WriterDropped};
use kube::runtime::watcher::{Config, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::served::watch_where_served;
use super::warn_of;
use crate::rotation::{Class, Source, SourceKind, Version, class, version};
use crate::watch::{Change, follow, keep, new_store};

/// Versions of all Secrets and ConfigMaps.
pub struct Versions {
    pub secrets: Store<Version>,
    pub config_maps: Store<Version>,
}

/// What fills them.
pub struct VersionWriters {
    secrets: Writer<Version>,
    config_maps: Writer<Version>,
}

impl Versions {
    pub fn new() -> (Self, VersionWriters) {
        let (secrets, secrets_writer) = new_store();
        let (config_maps, config_maps_writer) = new_store();
        let writers = VersionWriters {
            secrets: secrets_writer,
            config_maps: config_maps_writer,
        };
        let versions = Self {
            secrets,
            config_maps,
        };
        (versions, writers)
    }

    pub async fn wait_until_ready(&self) -> Result<(), WriterDropped> {
        self.secrets.wait_until_ready().await?;
        self.config_maps.wait_until_ready().await
    }
}

/// Fills the cache of versions for ever, and tells `used` what was touched.
pub async fn watch_versions(
    client: Client,
    writers: VersionWriters,
    used: impl Fn(&str, &Source) + Clone + Send + Sync + 'static,
) {
    let secrets = watch_versions_of::<Secret>(
        client.clone(),
        SourceKind::Secret,
        writers.secrets,
        used.clone(),
    );
    let config_maps = watch_versions_of::<ConfigMap>(
        client.clone(),
        SourceKind::ConfigMap,
        writers.config_maps,
        used,
    );
    futures::join!(secrets, config_maps);
}

async fn watch_versions_of<K>(
    client: Client,
    kind: SourceKind,
    writer: Writer<Version>,
    used: impl Fn(&str, &Source) + Send,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let api: Api<PartialObjectMeta<K>> = Api::all(client);
    let stream = watcher(api, Config::default());
    let stream = stream.map_ok(|event| keep(event, |object| version(object.metadata)));
    let changed = move |change: Change<'_, Version>| {
        for object in change.objects() {
            let name = object.name.to_string();
            used(&object.namespace, &Source { kind, name });
        }
    };
    let what = match kind {
        SourceKind::ConfigMap => "ConfigMaps",
        _ => "Secrets",
    };
    follow(stream, writer, changed, warn_of(what)).await;
}

/// Fills the cache of SecretProviderClasses for ever, and tells `used` what was touched.
pub async fn watch_classes(
    client: Client,
    writer: Writer<Class>,
    used: impl Fn(&str, &Source) + Send + Sync,
) {
    let kind = ApiResource {
        group: "secrets-store.csi.x-k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "secrets-store.csi.x-k8s.io/v1".to_owned(),
        kind: "SecretProviderClass".to_owned(),
        plural: "secretproviderclasses".to_owned(),
    };
    let changed = move |change: Change<'_, Class>| {
        for object in change.objects() {
            used(&object.namespace, &Source::class(&*object.name));
        }
    };
    watch_where_served(
        client,
        kind,
        "SecretProviderClasses",
        class,
        writer,
        changed,
    )
    .await;
}

/// The classes of which a Secret is kept.
pub fn classes_of(classes: &Store<Class>, namespace: &str, source: &Source) -> Vec<Source> {
    let keeps = |class: &Class| {
        *class.namespace == *namespace && class.value.iter().any(|key| key.source == *source)
    };
    let classes = classes.state_filter(keeps);
    classes
        .iter()
        .map(|class| Source::class(&*class.name))
        .collect()
}
