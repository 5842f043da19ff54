//! Watches of kinds that are not in every cluster: each is followed for as long as its CustomResourceDefinition is there.

use std::hash::Hash;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::reflector::Lookup;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Client};

use super::warn_of;
use crate::watch::{Change, fill, follow, keep};

/// How often a kind that is not served is looked for.
pub const DISCOVERY_PAUSE: Duration = Duration::from_secs(30);

/// Fills a store with `part` of each object for ever, and tells `changed` what was seen. Of what is not served, there is none.
pub async fn watch_where_served<K>(
    client: Client,
    kind: ApiResource,
    name: &'static str,
    part: fn(DynamicObject) -> K,
    mut writer: Writer<K>,
    changed: impl Fn(Change<'_, K>) + Send + Sync,
) where
    K: Lookup + Clone + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Send + Sync,
{
    loop {
        // None, so that nobody waits for them.
        fill(&mut writer, Vec::new());
        changed(Change::Listed(&[]));
        until_served(&client, &kind).await;
        tracing::info!(kind = name, "the kind is served, and watched from now on");
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        let stream = watcher(api, Config::default())
            .take_while(|event| std::future::ready(!is_not_found(event)))
            .map_ok(|event| keep(event, part));
        follow(stream, &mut writer, &changed, warn_of(name)).await;
    }
}

async fn until_served(client: &Client, kind: &ApiResource) {
    loop {
        // One that can't be asked for now is asked for again, as one that is not there.
        let resources = client.list_api_group_resources(&kind.api_version).await;
        let mut resources = resources.into_iter().flat_map(|list| list.resources);
        if resources.any(|resource| resource.name == kind.plural) {
            return;
        }
        tokio::time::sleep(DISCOVERY_PAUSE).await;
    }
}

pub fn is_not_found<K>(event: &watcher::Result<Event<K>>) -> bool {
    let error = match event {
        Err(watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) => {
            error
        }
        _ => return false,
    };
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
