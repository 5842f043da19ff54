//! Watches that fill a store and tell others what was touched.

mod beside;
mod cached;
mod index;

use std::borrow::BorrowMut;
use std::hash::Hash;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Lookup, ObjectRef, Store, store};
use kube::runtime::utils::WatchStreamExt;
use kube::runtime::watcher::{self, Event};

pub use self::beside::beside;
pub use self::cached::Cached;
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
    mut writer: impl BorrowMut<Writer<K>> + Send,
    changed: impl Fn(Change<'_, K>) + Send,
    failed: impl Fn(&watcher::Error) + Send,
) where
    K: Lookup + Clone + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Send + Sync,
{
    let mut stream = std::pin::pin!(stream.default_backoff());
    let writer = writer.borrow_mut();
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

/// What is kept of the objects of an event.
pub fn keep<K, T>(event: Event<K>, part: impl Fn(K) -> T) -> Event<T> {
    match event {
        Event::Apply(object) => Event::Apply(part(object)),
        Event::Delete(object) => Event::Delete(part(object)),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(part(object)),
        Event::InitDone => Event::InitDone,
    }
}

/// A store and what fills it.
pub fn new_store<K>() -> (Store<K>, Writer<K>)
where
    K: Lookup + Clone + 'static,
    K::DynamicType: Default + Eq + Hash + Clone,
{
    store()
}

/// The same for objects of a kind that is known only now.
pub fn new_store_of<K>(kind: K::DynamicType) -> (Store<K>, Writer<K>)
where
    K: Lookup + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let writer = Writer::new(kind);
    (writer.as_reader(), writer)
}

/// A store of these objects, that nothing fills any further.
pub fn filled<K>(objects: Vec<K>) -> Store<K>
where
    K: Lookup + Clone + 'static,
    K::DynamicType: Default + Eq + Hash + Clone,
{
    let (store, mut writer) = new_store();
    fill(&mut writer, objects);
    store
}

/// Puts these objects in the place of all that is there.
pub fn fill<K>(writer: &mut Writer<K>, objects: Vec<K>)
where
    K: Lookup + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(object));
    }
    writer.apply_watcher_event(&Event::InitDone);
}

/// Name of an object in the terms of the store.
pub fn reference<K>(namespace: &str, name: &str) -> ObjectRef<K>
where
    K: Lookup,
    K::DynamicType: Default,
{
    ObjectRef::new(name).within(namespace)
}
