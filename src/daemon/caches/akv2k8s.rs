//! The watch of akv2k8s' AzureKeyVaultSecrets, which are mirrors beside those of Keytide's own kind. In a cluster that has no
//! definition of them there are none, until it has one.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use futures::channel::mpsc;
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Client, ResourceExt};

use super::PAGE;
use super::served::{DISCOVERY_PAUSE, is_not_found};
use crate::api::KeyVaultMirror;
use crate::api::azure_key_vault_secret::KIND;
use crate::mirror::akv2k8s::{mirrors_of, no_mirror, served};
use crate::telemetry::Metrics;

/// Tells of the mirrors that these resources are for ever, to whom it may concern.
pub async fn watch(
    client: Client,
    metrics: Arc<Metrics>,
    mirrors: mpsc::UnboundedSender<Event<KeyVaultMirror>>,
) {
    let mut told = false;
    loop {
        // None, until there is a list.
        let mut resources = Resources::default();
        for event in [Event::Init, Event::InitDone] {
            send(&mirrors, resources.follow(event));
        }
        metrics.without_output(0);
        let kind = loop {
            // One that can't be asked for now is asked for again, as one that is not there.
            if let Ok(Some(kind)) = served(&client).await {
                break kind;
            }
            if !std::mem::replace(&mut told, true) {
                tracing::info!("this cluster has no {KIND}; it is looked for again and again");
            }
            tokio::time::sleep(DISCOVERY_PAUSE).await;
        };
        tracing::info!(version = %kind.version, "{KIND} is served, and read in place from now on");
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
        let stream = watcher(api, Config::default().page_size(PAGE))
            .take_while(|event| std::future::ready(!is_not_found(event)))
            .default_backoff();
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => {
                    let is_listing = matches!(event, Event::InitApply(_));
                    send(&mirrors, resources.follow(event));
                    if !is_listing {
                        metrics.without_output(resources.without_output());
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "{KIND} can't be watched; that is tried again");
                }
            }
        }
    }
}

/// A receiver that is gone means that the daemon ends.
fn send(
    mirrors: &mpsc::UnboundedSender<Event<KeyVaultMirror>>,
    events: Vec<Event<KeyVaultMirror>>,
) {
    for event in events {
        let _ = mirrors.unbounded_send(event);
    }
}

/// What is known of the resources.
#[derive(Default)]
struct Resources {
    /// Names of the mirrors that each is, by its namespace and name.
    mirrors: HashMap<(String, String), Vec<String>>,
}

impl Resources {
    /// How many are no mirrors, and left to akv2k8s' env injector.
    fn without_output(&self) -> usize {
        self.mirrors.values().filter(|it| it.is_empty()).count()
    }

    /// What an event is to mirrors.
    fn follow(&mut self, event: Event<DynamicObject>) -> Vec<Event<KeyVaultMirror>> {
        match event {
            Event::Init => {
                self.mirrors.clear();
                vec![Event::Init]
            }
            Event::InitDone => vec![Event::InitDone],
            Event::InitApply(resource) => {
                let (_, mirrors) = self.put(resource);
                mirrors.into_iter().map(Event::InitApply).collect()
            }
            Event::Apply(resource) => {
                let (gone, mirrors) = self.put(resource);
                let mirrors = mirrors.into_iter().map(Event::Apply);
                gone.into_iter().map(Event::Delete).chain(mirrors).collect()
            }
            Event::Delete(resource) => {
                let namespace = resource.namespace();
                let gone = self.mirrors.remove(&key(&resource)).unwrap_or_default();
                let gone = gone.iter().map(|name| no_mirror(namespace.clone(), name));
                gone.map(Event::Delete).collect()
            }
        }
    }

    /// Takes in a resource. Gives the mirrors that it is no more, and those that it is.
    fn put(&mut self, resource: DynamicObject) -> (Vec<KeyVaultMirror>, Vec<KeyVaultMirror>) {
        let (namespace, key) = (resource.namespace(), key(&resource));
        let mirrors = mirrors_of(resource);
        let names: Vec<String> = mirrors.iter().map(ResourceExt::name_any).collect();
        let gone = self.mirrors.get(&key).into_iter().flatten();
        let gone = gone.filter(|name| !names.contains(name));
        let gone = gone
            .map(|name| no_mirror(namespace.clone(), name))
            .collect();
        self.mirrors.insert(key, names);
        (gone, mirrors)
    }
}

fn key(resource: &DynamicObject) -> (String, String) {
    (
        resource.namespace().unwrap_or_default(),
        resource.name_any(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resource(name: &str, output: &Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "spv.no/v1",
            "kind": KIND,
            "metadata": {"name": name, "namespace": "n", "uid": name},
            "spec": {
                "vault": {"name": "contoso", "object": {"name": "s", "type": "secret"}},
                "output": output,
            },
        }))
        .expect("an object")
    }

    #[test]
    fn a_resource_is_as_many_mirrors_as_it_has_outputs_and_without_is_counted() {
        let one = json!({"secret": {"name": "t", "dataKey": "k"}});
        let mut two = one.clone();
        two["configMap"] = json!({"name": "c", "dataKey": "k"});
        let mut resources = Resources::default();
        let mut told = |event| {
            let events = resources.follow(event).into_iter();
            let told: Vec<String> = events
                .map(|event| match event {
                    Event::Init => "init".to_owned(),
                    Event::InitDone => "done".to_owned(),
                    Event::InitApply(mirror) => format!("list {}", mirror.name_any()),
                    Event::Apply(mirror) => format!("apply {}", mirror.name_any()),
                    Event::Delete(mirror) => format!("delete {}", mirror.name_any()),
                })
                .collect();
            let told = told.join(", ").replace("azurekeyvaultsecret/", "");
            (told, resources.without_output())
        };
        let none = Value::Null;
        for (event, expected, count) in [
            (Event::Init, "init", 0),
            (Event::InitApply(resource("a", &one)), "list a", 0),
            (Event::InitApply(resource("b", &none)), "", 1),
            (Event::InitDone, "done", 1),
            (Event::Apply(resource("a", &none)), "delete a", 2),
            (Event::Apply(resource("a", &none)), "", 2),
            (
                Event::Apply(resource("a", &two)),
                "apply a, apply a/configmap",
                1,
            ),
            (
                Event::Apply(resource("a", &one)),
                "delete a/configmap, apply a",
                1,
            ),
            (Event::Delete(resource("b", &none)), "", 0),
            (Event::Delete(resource("a", &one)), "delete a", 0),
        ] {
            assert_eq!(told(event), (expected.to_owned(), count));
        }
    }
}
