//! Watches that fill a store and tell others what was touched.

use std::fmt::Debug;
use std::hash::Hash;

use futures::{Stream, StreamExt};
use kube::Resource;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::utils::WatchStreamExt;
use kube::runtime::watcher::{self, Event};

/// Follows a watch for ever: fills the store, calls `touched` for every object that came, changed or went, and retries with
/// backoff. Errors go to `failed`.
pub async fn follow<K>(
    stream: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    mut writer: Writer<K>,
    touched: impl Fn(&K) + Send,
    failed: impl Fn(&watcher::Error) + Send,
) where
    K: Resource + Clone + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let mut stream = std::pin::pin!(stream.default_backoff());
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                writer.apply_watcher_event(&event);
                match &event {
                    Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) => {
                        touched(object)
                    }
                    Event::Init | Event::InitDone => {}
                }
            }
            Err(error) => failed(&error),
        }
    }
}

/// A store and what fills it.
pub fn new_store<K>() -> (Store<K>, Writer<K>)
where
    K: Resource + Clone + Debug + 'static,
    K::DynamicType: Default + Eq + Hash + Clone,
{
    store()
}

/// Name of an object in the terms of the store.
pub fn reference<K>(namespace: &str, name: &str) -> ObjectRef<K>
where
    K: Resource,
    K::DynamicType: Default,
{
    ObjectRef::new(name).within(namespace)
}
