//! Watches that fill a store and tell others what was touched.

mod index;

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use kube::Resource;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::utils::WatchStreamExt;
use kube::runtime::watcher::{self, Event};

pub use self::index::Index;

/// What a watch has seen; the store has it already.
#[derive(Debug)]
pub enum Change<'a, K> {
    /// An object came or changed.
    Applied(&'a K),
    /// An object went.
    Deleted(&'a K),
    /// The watch began anew, and this is all there is.
    Listed(&'a [Arc<K>]),
}

impl<'a, K> Change<'a, K> {
    /// The objects that may not be as they were.
    pub fn objects(&self) -> Box<dyn Iterator<Item = &'a K> + 'a> {
        match *self {
            Self::Applied(object) | Self::Deleted(object) => Box::new(std::iter::once(object)),
            Self::Listed(objects) => Box::new(objects.iter().map(AsRef::as_ref)),
        }
    }
}

/// Follows a watch for ever: fills the store, tells `changed` what it saw, and retries with backoff. Errors go to `failed`.
pub async fn follow<K>(
    stream: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    mut writer: Writer<K>,
    changed: impl Fn(Change<'_, K>) + Send,
    failed: impl Fn(&watcher::Error) + Send,
) where
    K: Resource + Clone + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let mut stream = std::pin::pin!(stream.default_backoff());
    let store = writer.as_reader();
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                writer.apply_watcher_event(&event);
                match &event {
                    Event::Apply(object) => changed(Change::Applied(object)),
                    Event::Delete(object) => changed(Change::Deleted(object)),
                    // The store takes a list in when it is whole, so that is when there is something to look at.
                    Event::Init | Event::InitApply(_) => {}
                    Event::InitDone => changed(Change::Listed(&store.state())),
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
