//! Two watches that fill one store. To a store, a list is all that there is; here the list of one watch is only what that one has
//! to say, and leaves alone what the other brought.

use std::collections::HashSet;

use futures::stream::{Stream, StreamExt, iter, select};
use kube::runtime::reflector::{Lookup, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};

enum Either<K> {
    First(watcher::Result<Event<K>>),
    Second(Event<K>),
}

/// The events of `first`, and those of `second` so that they can stand beside them in `store`, which is filled by what this gives.
/// `is_second` tells whose an object is.
pub fn beside<K>(
    first: impl Stream<Item = watcher::Result<Event<K>>> + Send,
    second: impl Stream<Item = Event<K>> + Send,
    store: Store<K>,
    is_second: fn(&K) -> bool,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Lookup<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let mut listed = Vec::new();
    // One event after the other: what was given is in the store before the next one is looked at.
    select(first.map(Either::First), second.map(Either::Second)).flat_map(move |event| {
        let there = || store.state().into_iter().filter(move |it| is_second(it));
        iter(match event {
            Either::First(Ok(Event::InitDone)) => {
                let kept = there().map(|object| Ok(Event::InitApply((*object).clone())));
                kept.chain([Ok(Event::InitDone)]).collect()
            }
            Either::First(other) => vec![other],
            Either::Second(Event::Init) => {
                listed.clear();
                Vec::new()
            }
            Either::Second(Event::InitApply(object)) => {
                listed.push(object);
                Vec::new()
            }
            Either::Second(Event::InitDone) => {
                let listed = std::mem::take(&mut listed);
                let names: HashSet<ObjectRef<K>> =
                    listed.iter().map(|it| it.to_object_ref(())).collect();
                let gone = there().filter(|it| !names.contains(&it.to_object_ref(())));
                gone.map(|object| Ok(Event::Delete((*object).clone())))
                    .chain(listed.into_iter().map(|it| Ok(Event::Apply(it))))
                    .collect()
            }
            Either::Second(other) => vec![Ok(other)],
        })
    })
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;

    use super::*;
    use crate::watch::new_store;

    fn object(name: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.to_owned());
        object.metadata.namespace = Some("n".to_owned());
        object
    }

    /// What is in the store after these events; names of the second watch's objects begin with `b`.
    fn after(events: Vec<Either<ConfigMap>>) -> Vec<String> {
        let (store, mut writer) = new_store();
        let (first, firsts) = mpsc::unbounded();
        let (second, seconds) = mpsc::unbounded();
        let is_second = |object: &ConfigMap| object.name_any().starts_with('b');
        let mut both = Box::pin(beside(firsts, seconds, store.clone(), is_second));
        for event in events {
            match event {
                Either::First(event) => first.unbounded_send(event).is_ok(),
                Either::Second(event) => second.unbounded_send(event).is_ok(),
            };
            // All that can be had now.
            while let Some(Some(event)) = futures::FutureExt::now_or_never(both.next()) {
                writer.apply_watcher_event(&event.expect("no error"));
            }
        }
        let mut names: Vec<String> = store.state().iter().map(|it| it.name_any()).collect();
        names.sort();
        names
    }

    fn list(
        names: &[&str],
        side: fn(Event<ConfigMap>) -> Either<ConfigMap>,
    ) -> Vec<Either<ConfigMap>> {
        let objects = names.iter().map(|name| Event::InitApply(object(name)));
        let events = std::iter::once(Event::Init)
            .chain(objects)
            .chain([Event::InitDone]);
        events.map(side).collect()
    }

    fn first(event: Event<ConfigMap>) -> Either<ConfigMap> {
        Either::First(Ok(event))
    }

    #[test]
    fn a_list_of_one_leaves_alone_what_the_other_brought() {
        let events = [
            list(&["a1", "a2"], first),
            list(&["b1", "b2"], Either::Second),
            list(&["a2", "a3"], first),
        ];
        assert_eq!(
            after(events.into_iter().flatten().collect()),
            ["a2", "a3", "b1", "b2"]
        );
    }

    #[test]
    fn what_a_list_of_the_second_no_longer_has_is_gone() {
        let events = [
            list(&["b1", "b2"], Either::Second),
            list(&["a1"], first),
            list(&["b2", "b3"], Either::Second),
        ];
        assert_eq!(
            after(events.into_iter().flatten().collect()),
            ["a1", "b2", "b3"]
        );
    }

    #[test]
    fn what_changes_while_the_other_lists_is_not_lost() {
        let changes = [Event::Apply(object("b3")), Event::Delete(object("b1"))];
        let mut events = list(&["b1", "b2"], Either::Second);
        events.push(first(Event::Init));
        events.push(first(Event::InitApply(object("a1"))));
        events.extend(changes.map(Either::Second));
        events.push(first(Event::InitDone));
        assert_eq!(after(events), ["a1", "b2", "b3"]);
    }
}
