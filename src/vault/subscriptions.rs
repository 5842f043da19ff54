//! Who wants which objects, and what each has yet to be given. Pure.
//!
//! A subscriber (a mirror) gets the content of all its objects at once, or the first failure. If it says so, an object that is not
//! there is no failure of the others: it is told as what it is, once, like content. Content is held from the answer until the last
//! of those it is for has taken it, and no longer: it is not a cache. Who comes later causes a read of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::governor::Priority;
use super::{ReadKey, VaultError, VaultSecret};

/// What became of an object: its content, or why it has none. In a box, since there is a place for each object that is awaited.
pub type Found = Result<Arc<VaultSecret>, Box<VaultError>>;

/// What a subscriber is given if an object of its is not there, or disabled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IfMissing {
    /// That failure, and nothing else.
    Fail,
    /// The others, and that this one is missing.
    LeaveOut,
}

/// What a subscriber is given.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// The content of all its objects, in the order in which it named them. None is missing but for who leaves those out.
    Content(Vec<Found>),
    /// Why it can't have them, and which of them it is about, in the same order.
    Failed { place: usize, error: VaultError },
    /// After a failure: its objects are as they were last given.
    Unchanged,
}

/// What is to be done after a change.
#[derive(Debug)]
pub enum Effect<S> {
    /// An object is to be looked at this often.
    Want(Arc<ReadKey>, Duration),
    /// Nobody wants the object any more.
    Unwant(Arc<ReadKey>),
    /// An object is to be read; by a read that begins now, if `fresh`.
    Ask {
        key: Arc<ReadKey>,
        priority: Priority,
        fresh: bool,
    },
    /// There will be content for the subscriber.
    Awaits(S),
    /// There is something to take for the subscriber.
    Ready(S),
}

/// All subscribers and their objects.
#[derive(Debug)]
pub struct Subscriptions<S> {
    subscribers: HashMap<S, Box<Subscription>>,
    objects: HashMap<Arc<ReadKey>, Object<S>>,
    /// Subscribers whose content lies ready.
    ready: usize,
}

#[derive(Debug)]
struct Object<S> {
    subscribers: Vec<S>,
    interval: Duration,
}

#[derive(Debug)]
struct Subscription {
    reads: Vec<Arc<ReadKey>>,
    interval: Duration,
    if_missing: IfMissing,
    awaited: Option<Awaited>,
    /// By index of the object.
    failures: BTreeMap<usize, VaultError>,
    /// Objects that were left out when they were last looked at, by index.
    missing: BTreeMap<usize, Box<VaultError>>,
    /// All failures are over, and that was not taken yet.
    recovered: bool,
}

/// Content on its way to a subscriber.
#[derive(Debug)]
struct Awaited {
    /// Reads that began before don't count.
    since: Option<Instant>,
    /// By index of the object.
    content: Vec<Option<Found>>,
}

impl Awaited {
    fn new(since: Option<Instant>, objects: usize) -> Self {
        let content = vec![None; objects];
        Self { since, content }
    }

    fn is_complete(&self) -> bool {
        self.content.iter().all(Option::is_some)
    }
}

impl Subscription {
    fn is_ready(&self) -> bool {
        self.awaited.as_ref().is_some_and(Awaited::is_complete)
    }

    /// The places of an object among those of this subscriber, who may have named it twice.
    fn places(&self, key: &ReadKey) -> Vec<usize> {
        let same = |(_, other): &(usize, &Arc<ReadKey>)| other.as_ref() == key;
        let places = self.reads.iter().enumerate().filter(same);
        places.map(|(place, _)| place).collect()
    }

    fn forget_failure(&mut self, places: &[usize]) -> bool {
        let failures = self.failures.len();
        self.failures.retain(|place, _| !places.contains(place));
        self.failures.len() < failures
    }

    /// Whether it is given the others' content in spite of this.
    fn leaves_out(&self, error: &VaultError) -> bool {
        self.if_missing == IfMissing::LeaveOut && error.kind.is_missing()
    }

    /// Takes in whether an object is missing. Whether that is news.
    fn note_missing(&mut self, places: &[usize], found: &Found) -> bool {
        let mut is_news = false;
        for place in places {
            is_news |= match found {
                Ok(_) => self.missing.remove(place).is_some(),
                Err(error) => self.missing.insert(*place, error.clone()).as_ref() != Some(error),
            };
        }
        is_news
    }

    /// Asks for the objects whose content is missing.
    fn ask_missing<S>(&self, priority: Priority) -> Vec<Effect<S>> {
        let Some(awaited) = &self.awaited else {
            return Vec::new();
        };
        let missing: BTreeSet<&Arc<ReadKey>> = self
            .reads
            .iter()
            .zip(&awaited.content)
            .filter(|(_, content)| content.is_none())
            .map(|(key, _)| key)
            .collect();
        let ask = |key: &Arc<ReadKey>| Effect::Ask {
            key: Arc::clone(key),
            priority,
            fresh: awaited.since.is_some(),
        };
        missing.into_iter().map(ask).collect()
    }
}

impl<S> Default for Subscriptions<S> {
    fn default() -> Self {
        Self {
            subscribers: HashMap::new(),
            objects: HashMap::new(),
            ready: 0,
        }
    }
}

impl<S: Clone + Eq + Hash> Subscriptions<S> {
    /// Takes in what a subscriber wants. If that is something else than before, it awaits content.
    pub fn want(
        &mut self,
        subscriber: &S,
        reads: &[ReadKey],
        interval: Duration,
        if_missing: IfMissing,
    ) -> Vec<Effect<S>> {
        let known = self.subscribers.get_mut(subscriber);
        match known.filter(|known| {
            known.if_missing == if_missing && known.reads.iter().map(AsRef::as_ref).eq(reads)
        }) {
            Some(known) if known.interval == interval => Vec::new(),
            Some(known) => {
                known.interval = interval;
                let reads = known.reads.clone();
                reads.iter().filter_map(|key| self.reckon(key)).collect()
            }
            None => {
                let before = self.remove(subscriber);
                let reads: Vec<_> = reads.iter().map(|key| self.join(subscriber, key)).collect();
                let subscription = Subscription {
                    reads: reads.clone(),
                    interval,
                    if_missing,
                    awaited: None,
                    failures: BTreeMap::new(),
                    missing: BTreeMap::new(),
                    recovered: false,
                };
                self.subscribers
                    .insert(subscriber.clone(), Box::new(subscription));
                let touched = before.iter().chain(&reads);
                let mut effects: Vec<_> = touched.filter_map(|key| self.reckon(key)).collect();
                effects.extend(self.ask(subscriber, Priority::New, None));
                effects
            }
        }
    }

    /// Forgets a subscriber.
    pub fn forget(&mut self, subscriber: &S) -> Vec<Effect<S>> {
        let before = self.remove(subscriber);
        before.iter().filter_map(|key| self.reckon(key)).collect()
    }

    /// Has a subscriber given the content of all its objects: what comes anyway, or by reads that begin after `since`.
    pub fn ask(
        &mut self,
        subscriber: &S,
        priority: Priority,
        since: Option<Instant>,
    ) -> Vec<Effect<S>> {
        let Some(subscription) = self.subscribers.get_mut(subscriber) else {
            return Vec::new();
        };
        if subscription.awaited.is_some() && since.is_none() {
            return Vec::new();
        }
        self.ready -= usize::from(subscription.is_ready());
        subscription.awaited = Some(Awaited::new(since, subscription.reads.len()));
        let mut effects = vec![Effect::Awaits(subscriber.clone())];
        effects.extend(subscription.ask_missing(priority));
        effects
    }

    /// An object was read, by a read that began at that time. Content that changed is for all, other for those who await it.
    pub fn read(
        &mut self,
        key: &ReadKey,
        secret: &Arc<VaultSecret>,
        began: Instant,
        changed: bool,
    ) -> Vec<Effect<S>> {
        let found = Ok(Arc::clone(secret));
        let mut effects = Vec::new();
        for subscriber in self.subscribers_of(key) {
            effects.extend(self.arrive(subscriber, key, &found, Some(began), changed));
        }
        effects
    }

    /// What became of an object comes to a subscriber: by a read that began at that time, if that is known, and whether it is other
    /// content than before.
    fn arrive(
        &mut self,
        subscriber: S,
        key: &ReadKey,
        found: &Found,
        began: Option<Instant>,
        changed: bool,
    ) -> Vec<Effect<S>> {
        let mut effects = Vec::new();
        let Some(subscription) = self.subscribers.get_mut(&subscriber) else {
            return effects;
        };
        let places = subscription.places(key);
        let was_ready = subscription.is_ready();
        let is_relieved = subscription.forget_failure(&places);
        let came_or_went = subscription.note_missing(&places, found);
        let objects = subscription.reads.len();
        let is_new = (changed || came_or_went) && subscription.awaited.is_none();
        if is_new {
            subscription.awaited = Some(Awaited::new(None, objects));
            effects.push(Effect::Awaits(subscriber.clone()));
        }
        match &mut subscription.awaited {
            // Nothing is held for who can't have all of it.
            Some(_) if !subscription.failures.is_empty() => {}
            Some(awaited)
                if awaited
                    .since
                    .zip(began)
                    .is_none_or(|(since, began)| since <= began) =>
            {
                for place in places {
                    awaited.content[place] = Some(found.clone());
                }
            }
            Some(_) => {}
            None => subscription.recovered |= is_relieved && subscription.failures.is_empty(),
        }
        if subscription.is_ready() && !was_ready {
            self.ready += 1;
            effects.push(Effect::Ready(subscriber));
        } else if is_relieved && (subscription.recovered || !subscription.failures.is_empty()) {
            effects.push(Effect::Ready(subscriber));
        } else if is_new || is_relieved {
            effects.extend(subscription.ask_missing(Priority::Periodic));
        }
        effects
    }

    /// An object can't be read. Those who await it are told, and all if it is lasting.
    pub fn failed(&mut self, key: &ReadKey, error: &VaultError, lasting: bool) -> Vec<Effect<S>> {
        let mut effects = Vec::new();
        for subscriber in self.subscribers_of(key) {
            let Some(subscription) = self.subscribers.get_mut(&subscriber) else {
                continue;
            };
            if subscription.leaves_out(error) {
                let found = Err(Box::new(error.clone()));
                effects.extend(self.arrive(subscriber, key, &found, None, false));
                continue;
            }
            let is_told = |place: &usize| {
                lasting
                    || subscription.awaited.is_some()
                    || subscription.failures.contains_key(place)
            };
            let places = subscription.places(key);
            let told: Vec<usize> = places.into_iter().filter(is_told).collect();
            let mut is_news = false;
            self.ready -= usize::from(!told.is_empty() && subscription.is_ready());
            for place in told {
                let before = subscription.failures.insert(place, error.clone());
                is_news |= before.as_ref() != Some(error);
                subscription.recovered = false;
                if let Some(awaited) = &mut subscription.awaited {
                    awaited.content.fill(None);
                }
            }
            if is_news {
                effects.push(Effect::Ready(subscriber));
            }
        }
        effects
    }

    /// An object failed, and is known to be as it was last given.
    pub fn well(&mut self, key: &ReadKey) -> Vec<Effect<S>> {
        let mut effects = Vec::new();
        for subscriber in self.subscribers_of(key) {
            let Some(subscription) = self.subscribers.get_mut(&subscriber) else {
                continue;
            };
            let places = subscription.places(key);
            if !subscription.forget_failure(&places) {
                continue;
            }
            if places
                .iter()
                .any(|place| subscription.missing.contains_key(place))
                && subscription.awaited.is_none()
            {
                // It failed after it was missing, and is there again: what it was before it was missing.
                let objects = subscription.reads.len();
                subscription.awaited = Some(Awaited::new(None, objects));
                effects.push(Effect::Awaits(subscriber.clone()));
            }
            if subscription.failures.is_empty() && subscription.awaited.is_some() {
                effects.extend(subscription.ask_missing(Priority::New));
            } else {
                subscription.recovered = subscription.failures.is_empty();
                effects.push(Effect::Ready(subscriber));
            }
        }
        effects
    }

    /// Gives a subscriber what there is for it. A failure is there until it is over; all else is given once.
    pub fn take(&mut self, subscriber: &S) -> Option<Delivery> {
        let subscription = self.subscribers.get_mut(subscriber)?;
        if let Some((place, error)) = subscription.failures.first_key_value() {
            let (place, error) = (*place, error.clone());
            return Some(Delivery::Failed { place, error });
        }
        let recovered = std::mem::take(&mut subscription.recovered);
        if let Some(awaited) = subscription
            .awaited
            .take_if(|awaited| awaited.is_complete())
        {
            self.ready -= 1;
            return Some(Delivery::Content(
                awaited.content.into_iter().flatten().collect(),
            ));
        }
        recovered.then_some(Delivery::Unchanged)
    }

    /// Whether anybody wants an object.
    pub fn wants(&self, key: &ReadKey) -> bool {
        self.objects.contains_key(key)
    }

    /// How many subscribers have content to take.
    pub fn ready(&self) -> usize {
        self.ready
    }

    fn subscribers_of(&self, key: &ReadKey) -> Vec<S> {
        self.objects
            .get(key)
            .map(|object| object.subscribers.clone())
            .unwrap_or_default()
    }

    fn join(&mut self, subscriber: &S, key: &ReadKey) -> Arc<ReadKey> {
        let key = match self.objects.get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::new(key.clone()),
        };
        let object = self.objects.entry(Arc::clone(&key)).or_insert(Object {
            subscribers: Vec::new(),
            interval: Duration::MAX,
        });
        if !object.subscribers.contains(subscriber) {
            object.subscribers.push(subscriber.clone());
        }
        key
    }

    /// Takes a subscriber out, and gives the objects that it had wanted.
    fn remove(&mut self, subscriber: &S) -> Vec<Arc<ReadKey>> {
        let Some(subscription) = self.subscribers.remove(subscriber) else {
            return Vec::new();
        };
        self.ready -= usize::from(subscription.is_ready());
        for key in &subscription.reads {
            if let Some(object) = self.objects.get_mut(key) {
                object.subscribers.retain(|other| other != subscriber);
            }
        }
        subscription.reads
    }

    /// How often an object is to be looked at now, if that has changed: as often as the most impatient subscriber wants.
    fn reckon(&mut self, key: &Arc<ReadKey>) -> Option<Effect<S>> {
        let object = self.objects.get_mut(key)?;
        let intervals = object
            .subscribers
            .iter()
            .filter_map(|subscriber| self.subscribers.get(subscriber))
            .map(|subscription| subscription.interval);
        match intervals.min() {
            None => {
                self.objects.remove(key);
                Some(Effect::Unwant(Arc::clone(key)))
            }
            Some(interval) if interval == object.interval => None,
            Some(interval) => {
                object.interval = interval;
                Some(Effect::Want(Arc::clone(key), interval))
            }
        }
    }
}

#[cfg(test)]
mod tests;
