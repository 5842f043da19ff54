//! What changed in a vault, and what must be read to know it. Pure: answers and the clock go in, requests and news come out.
//!
//! A LIST shows the attributes of 25 objects for the price of one GET. So where that costs less, a cycle lists the vault and reads only
//! what moved; where it costs more, or LIST is forbidden, it reads every object. What LIST can't show, a slow sweep of
//! GETs finds. Only the vault's own times are compared, with each other: no clock of this machine is.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use self::cost::Costs;
use self::object::{Look, Object};
use self::roster::Watch;
use super::fingerprint::{Fingerprint, Revision};
use super::governor::Priority;
use super::{Collection, VaultError, VaultErrorKind};

mod collections;
mod cost;
mod object;
mod roster;

pub use self::collections::Surveys;
pub use self::cost::Mode;
pub use self::roster::{Listed, Roster};

/// Attempts at a page before the cycle goes on without the list.
const PAGE_ATTEMPTS: u32 = 3;
/// First pause before a page is asked for again; it doubles.
const FIRST_PAGE_PAUSE: Duration = Duration::from_secs(1);
/// Range that the ticks of different vaults are spread over.
const SPREAD: Duration = Duration::from_secs(3600);

/// An object of one vault.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectId {
    pub collection: Collection,
    /// In lower case: Key Vault's names don't distinguish case.
    pub name: String,
    /// A pinned version; none is the latest.
    pub version: Option<String>,
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.collection.object(), self.name)
    }
}

/// Where a list goes on: the vault's `nextLink`.
pub type Link = String;

/// What a survey wants to ask the vault.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// The first page of a collection's list, or the one that a link leads to.
    Page(Collection, Option<Link>),
    Get(ObjectId),
}

/// One page of the list.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Names, in lower case, and what the vault says of them.
    pub items: Vec<(String, Fingerprint)>,
    /// The same objects for who looks for some by name or tag; of secrets alone.
    pub listed: Vec<Listed>,
    pub next: Option<Link>,
}

/// What a GET told, apart from the value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Answer {
    pub revision: Revision,
    /// The answer's `Date` in seconds since 1970: the vault's clock.
    pub date: Option<i64>,
}

/// What became of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum News {
    /// The answer's value is for those who wait for it, and if it is another one than before, for all.
    Read { id: ObjectId, changed: bool },
    /// The object can't be read. Those who wait must know at once, and all if it is lasting.
    Failed {
        id: ObjectId,
        lasting: bool,
        error: VaultError,
    },
    /// The object failed, and is now known to be as it was last read.
    Well { id: ObjectId },
    /// The whole vault was listed.
    Listed { pages: usize, took: Duration },
    /// Which objects there are now, for who watches that; or why it can't be known.
    Roster(Result<Roster, VaultError>),
}

/// How a survey works.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub mode: Mode,
    /// Every object is read at least once in this time, however still the list says it is.
    pub full_sweep: Duration,
    /// Requests per second that the vault is sent at most, to reckon how long reading all would take.
    pub per_second: f64,
}

/// The survey of one collection of a vault as one identity sees it.
#[derive(Debug)]
pub struct Survey {
    collection: Collection,
    settings: Settings,
    started: Instant,
    /// Offset of the ticks, so that vaults are not all asked at once.
    offset: Duration,
    ticked: Instant,
    /// In boxes, since half of a map's room may be free.
    objects: BTreeMap<ObjectId, Box<Object>>,
    /// How many objects are looked at how often. Pinned ones are not.
    intervals: BTreeMap<Duration, usize>,
    /// The intervals whose objects are due.
    due: BTreeSet<Duration>,
    /// Somebody wants to know which objects there are.
    watch: Option<Watch>,
    listing: Option<Listing>,
    /// Number of the last listing.
    listings: u32,
    costs: Costs,
    retries: BTreeSet<(Instant, ObjectId)>,
    /// When the sweep last came to an object, and to which.
    swept_at: Instant,
    swept: Option<ObjectId>,
    wanted: Vec<(Priority, Request)>,
}

/// A list that is being read.
#[derive(Debug)]
struct Listing {
    /// The objects that it is read for.
    intervals: BTreeSet<Duration>,
    /// What it has shown so far, where somebody wants to know which objects there are.
    roster: Option<Vec<Listed>>,
    /// What reading them one by one would cost.
    gets: usize,
    started: Instant,
    pages: usize,
    /// When the page under way was asked for, and what those before took. Waiting in line is not the vault's doing.
    asked: Instant,
    took: Duration,
    /// Where it goes on.
    link: Option<Link>,
    attempts: u32,
    restarted: bool,
    /// Whether it had to wait or to begin anew.
    disturbed: bool,
    retry_at: Option<Instant>,
}

impl Survey {
    /// A survey of nothing. `phase`, from 0 to 1, differs from vault to vault.
    pub fn new(collection: Collection, settings: Settings, phase: f64, now: Instant) -> Self {
        Self {
            collection,
            settings,
            started: now,
            offset: SPREAD.mul_f64(phase),
            ticked: now,
            objects: BTreeMap::new(),
            intervals: BTreeMap::new(),
            due: BTreeSet::new(),
            watch: None,
            listing: None,
            listings: 0,
            costs: Costs::new(settings.mode, settings.per_second),
            retries: BTreeSet::new(),
            swept_at: now,
            swept: None,
            wanted: Vec::new(),
        }
    }

    /// Looks after an object from now on, this often. Somebody must [`Survey::ask`] for it too.
    pub fn want(&mut self, id: ObjectId, interval: Duration, now: Instant) {
        let is_pinned = id.version.is_some();
        if self.intervals.is_empty() {
            self.swept_at = now;
        }
        let listings = self.listings;
        let before = match self.objects.entry(id) {
            std::collections::btree_map::Entry::Occupied(entry) => {
                Some(std::mem::replace(&mut entry.into_mut().interval, interval))
            }
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Box::new(Object::new(interval, listings)));
                None
            }
        };
        if !is_pinned {
            before.into_iter().for_each(|before| self.uncount(before));
            *self.intervals.entry(interval).or_default() += 1;
        }
    }

    /// Looks after an object no more.
    pub fn unwant(&mut self, id: &ObjectId) {
        let Some(object) = self.objects.remove(id) else {
            return;
        };
        if let Some(at) = object.retry_at {
            self.retries.remove(&(at, id.clone()));
        }
        if id.version.is_none() {
            self.uncount(object.interval);
        }
    }

    /// Reads an object now, whatever is known of it. A read that is under way counts, unless what is wanted must be `fresh`.
    pub fn ask(&mut self, id: &ObjectId, priority: Priority, fresh: bool) {
        let Some(object) = self.objects.get_mut(id) else {
            return;
        };
        object.need = object.need.max(Some(priority));
        if fresh {
            object.read_again(priority);
        }
        self.read(id, priority);
    }

    /// Takes in that somebody says that an object changed, and to which version where that is known. Whether somebody must
    /// [`Survey::ask`] for it: not if that version was read already.
    pub fn hint(&mut self, id: &ObjectId, version: Option<&str>) -> bool {
        self.objects
            .get_mut(id)
            .is_some_and(|object| object.hint(version.map(Revision::hash)))
    }

    /// Looks at everything soon, because the vault may have come back.
    pub fn look_now(&mut self) {
        self.due.extend(self.intervals.keys());
        self.relist();
    }

    /// Moves the time on: decides what is to be asked now.
    pub fn advance(&mut self, now: Instant) {
        let ticked = std::mem::replace(&mut self.ticked, now);
        for interval in self.intervals.keys() {
            if self.tick(*interval, now) > self.tick(*interval, ticked) {
                self.due.insert(*interval);
            }
        }
        self.tick_watch(ticked, now);
        self.retry(now);
        if self.listing.is_none() {
            self.begin_cycle(now);
        }
        self.sweep(now);
    }

    /// When [`Survey::advance`] has something to do again.
    pub fn wake(&self) -> Option<Instant> {
        let watched = self.watch.as_ref().map(Watch::interval);
        let ticks = self
            .intervals
            .keys()
            .copied()
            .chain(watched)
            .map(|interval| self.tick_after(interval, self.ticked));
        let retry = self.retries.first().map(|(at, _)| *at);
        let page = self.listing.as_ref().and_then(|listing| listing.retry_at);
        ticks.chain(retry).chain(page).chain(self.sweep_at()).min()
    }

    /// Takes what is to be asked.
    pub fn take_requests(&mut self) -> Vec<(Priority, Request)> {
        std::mem::take(&mut self.wanted)
    }

    /// Whether a request is still to be sent; if so, it counts as sent now, under this number.
    pub fn start(&mut self, number: u64, request: &Request, now: Instant) -> bool {
        match request {
            Request::Get(id) => {
                let object = self.objects.get_mut(id);
                object.is_some_and(|object| object.start(number))
            }
            Request::Page(_, link) => {
                let expected =
                    |listing: &&mut Listing| listing.link == *link && listing.retry_at.is_none();
                let listing = self.listing.as_mut().filter(expected);
                listing.map(|listing| listing.asked = now).is_some()
            }
        }
    }

    /// A GET was answered.
    pub fn read_done(
        &mut self,
        number: u64,
        id: &ObjectId,
        answer: Answer,
        now: Instant,
    ) -> Option<News> {
        let object = self.objects.get_mut(id)?;
        let (changed, again) = object.answered(number, answer, now)?;
        self.after(id, again);
        let id = id.clone();
        changed.map(|changed| News::Read { id, changed })
    }

    /// A GET failed; if the vault is left alone since, until then.
    pub fn read_failed(
        &mut self,
        number: u64,
        id: &ObjectId,
        error: &VaultError,
        now: Instant,
        not_before: Option<Instant>,
    ) -> Option<News> {
        let is_pinned = id.version.is_some();
        let object = self.objects.get_mut(id)?;
        let (lasting, again) = object.failed(number, error.kind, is_pinned, now, not_before)?;
        self.after(id, again);
        Some(failed(id.clone(), lasting, error))
    }

    /// A GET was not sent because the vault is left alone until `not_before`.
    pub fn read_delayed(
        &mut self,
        id: &ObjectId,
        error: &VaultError,
        now: Instant,
        not_before: Instant,
    ) -> Option<News> {
        let object = self.objects.get_mut(id)?;
        let lasting = object.delayed(error.kind, now, not_before)?;
        self.after(id, None);
        Some(failed(id.clone(), lasting, error))
    }

    /// A page of the list came.
    pub fn page_done(&mut self, page: Page, now: Instant) -> Vec<News> {
        let Some(mut listing) = self.listing.take() else {
            return Vec::new();
        };
        listing.pages += 1;
        listing.attempts = 0;
        listing.took += now.saturating_duration_since(listing.asked);
        let mut news = Vec::new();
        for (name, fingerprint) in page.items {
            let id = ObjectId {
                collection: self.collection,
                name,
                version: None,
            };
            news.extend(self.look(&id, Some(fingerprint), now));
        }
        if let Some(roster) = &mut listing.roster {
            roster.extend(page.listed);
        }
        match page.next {
            None => {
                let pages = listing.pages;
                let took = (!listing.disturbed).then_some(listing.took);
                self.costs.listed(pages, took, now);
                let took = now.saturating_duration_since(listing.started);
                news.push(News::Listed { pages, took });
                let unlisted: Vec<ObjectId> = self.unlisted().map(|(id, _)| id.clone()).collect();
                news.extend(unlisted.iter().filter_map(|id| self.look(id, None, now)));
                news.extend(listing.roster.and_then(|listed| self.listed(listed)));
            }
            Some(_) if listing.pages >= listing.gets && listing.roster.is_none() => {
                self.costs.too_long(listing.pages, now);
                self.read_unlisted(&listing.intervals);
            }
            Some(link) => {
                listing.link = Some(link);
                self.ask_page(listing);
            }
        }
        news
    }

    /// A page of the list could not be had.
    pub fn page_failed(&mut self, error: &VaultError, now: Instant) -> Option<News> {
        let mut listing = self.listing.take()?;
        let kind = error.kind;
        listing.attempts += 1;
        listing.disturbed = true;
        if kind == VaultErrorKind::Forbidden {
            self.costs.forbidden();
        } else if kind.concerns_vault() && listing.attempts < PAGE_ATTEMPTS {
            let pause = FIRST_PAGE_PAUSE * 2u32.pow(listing.attempts - 1);
            listing.retry_at = Some(now + pause);
            self.listing = Some(listing);
            return None;
        } else if listing.link.is_some() && !listing.restarted {
            // The link has expired, or the vault lost the thread.
            listing.restarted = true;
            (listing.link, listing.pages) = (None, 0);
            listing.roster.iter_mut().for_each(Vec::clear);
            self.ask_page(listing);
            return None;
        }
        self.read_unlisted(&listing.intervals);
        listing.roster.and_then(|_| self.unlistable(error))
    }

    /// The list must wait because the vault is left alone until `not_before`. If that lasts, it is a failure of the objects that are due.
    pub fn page_delayed(&mut self, error: &VaultError, not_before: Instant) -> Vec<News> {
        let Some(listing) = &mut self.listing else {
            return Vec::new();
        };
        listing.disturbed = true;
        listing.retry_at = Some(not_before);
        let due = listing.started;
        let intervals = listing.intervals.clone();
        let is_roster = listing.roster.is_some();
        let mut missed = self.unlisted_of(&intervals);
        missed.retain(|id| {
            let object = self.objects.get_mut(id);
            object.is_some_and(|object| object.missed(error.kind, due, not_before))
        });
        let missed = missed.into_iter().map(|id| failed(id, true, error));
        let lasts = is_roster && self.is_overdue(due, not_before);
        let unlistable = lasts.then(|| self.unlistable(error)).flatten();
        missed.chain(unlistable).collect()
    }

    /// Whether there is nothing to look after.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.watch.is_none()
    }

    /// The shortest interval that somebody wants.
    pub fn shortest_interval(&self) -> Option<Duration> {
        let watched = self.watch.as_ref().map(Watch::interval);
        self.intervals.keys().copied().chain(watched).min()
    }

    fn begin_cycle(&mut self, now: Instant) {
        let intervals = std::mem::take(&mut self.due);
        let gets = intervals
            .iter()
            .filter_map(|interval| self.intervals.get(interval))
            .sum();
        // Who wants to know which objects there are can't be told by reading those that are known.
        let roster = self.watch.as_mut().and_then(Watch::begin);
        let pays = match (&roster, intervals.first()) {
            (Some(_), _) => true,
            (None, Some(shortest)) => self.costs.choose_listing(gets, *shortest, now),
            (None, None) => return,
        };
        self.listings += 1;
        if pays {
            self.ask_page(Listing {
                intervals,
                roster,
                gets,
                started: now,
                pages: 0,
                asked: now,
                took: Duration::ZERO,
                link: None,
                attempts: 0,
                restarted: false,
                disturbed: false,
                retry_at: None,
            });
        } else {
            // Nothing is listed, so that is all that are due.
            self.read_unlisted(&intervals);
        }
    }

    fn ask_page(&mut self, listing: Listing) {
        let page = Request::Page(self.collection, listing.link.clone());
        self.wanted.push((Priority::Periodic, page));
        self.listing = Some(listing);
    }

    /// Compares an object with what the list says of it, which may be that it is not there.
    fn look(&mut self, id: &ObjectId, listed: Option<Fingerprint>, now: Instant) -> Option<News> {
        let object = self.objects.get_mut(id)?;
        match object.look(listed, self.listings, now) {
            Look::Same => None,
            Look::Well => Some(News::Well { id: id.clone() }),
            Look::Moved => {
                self.read(id, Priority::Periodic);
                None
            }
        }
    }

    /// Objects that the list has not shown (yet).
    fn unlisted(&self) -> impl Iterator<Item = (&ObjectId, &Object)> {
        self.objects
            .iter()
            .filter(|(id, object)| id.version.is_none() && object.listing != self.listings)
            .map(|(id, object)| (id, &**object))
    }

    /// Those of them with one of these intervals.
    fn unlisted_of(&self, intervals: &BTreeSet<Duration>) -> Vec<ObjectId> {
        self.unlisted()
            .filter(|(_, object)| intervals.contains(&object.interval))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Reads what the list would have told.
    fn read_unlisted(&mut self, intervals: &BTreeSet<Duration>) {
        for id in self.unlisted_of(intervals) {
            let object = self.objects.get(&id);
            if object.is_some_and(|object| object.retry_at.is_none()) {
                self.read(&id, Priority::Periodic);
            }
        }
    }

    fn read(&mut self, id: &ObjectId, priority: Priority) {
        let Some(object) = self.objects.get_mut(id) else {
            return;
        };
        if let Some(at) = object.retry_at.take() {
            self.retries.remove(&(at, id.clone()));
        }
        if object.queue(priority) {
            self.wanted.push((priority, Request::Get(id.clone())));
        }
    }

    /// What is to be done for an object whose read has ended.
    fn after(&mut self, id: &ObjectId, again: Option<Priority>) {
        let retry_at = self.objects.get(id).and_then(|object| object.retry_at);
        match again {
            Some(priority) => self.read(id, priority),
            None => self
                .retries
                .extend(retry_at.into_iter().map(|at| (at, id.clone()))),
        }
    }

    fn retry(&mut self, now: Instant) {
        while let Some((at, id)) = self.retries.first()
            && *at <= now
        {
            let id = id.clone();
            let need = self.objects.get(&id).and_then(|object| object.need);
            self.retries.remove(&(*at, id.clone()));
            self.read(&id, need.unwrap_or(Priority::Periodic));
        }
        if let Some(mut listing) = self
            .listing
            .take_if(|listing| listing.retry_at.is_some_and(|at| at <= now))
        {
            listing.retry_at = None;
            self.ask_page(listing);
        }
    }

    /// Reads the objects one after the other, so that all were read after `full_sweep`.
    fn sweep(&mut self, now: Instant) {
        while let Some(at) = self.sweep_at().filter(|at| *at <= now)
            && let Some(id) = self.next_to_sweep()
        {
            self.swept_at = at;
            self.read(&id, Priority::Periodic);
            self.swept = Some(id);
        }
    }

    fn sweep_at(&self) -> Option<Instant> {
        let count = u32::try_from(self.intervals.values().sum::<usize>()).ok()?;
        Some(self.swept_at + self.settings.full_sweep.checked_div(count)?)
    }

    fn next_to_sweep(&self) -> Option<ObjectId> {
        use std::ops::Bound::{Excluded, Unbounded};
        let unpinned = |id: &&ObjectId| id.version.is_none();
        let after = self.swept.as_ref().map_or(Unbounded, Excluded);
        let mut rest = self
            .objects
            .range((after, Unbounded))
            .map(|(id, _)| id)
            .filter(unpinned);
        let next = rest.next();
        next.or_else(|| self.objects.keys().find(unpinned)).cloned()
    }

    fn uncount(&mut self, interval: Duration) {
        if let Some(count) = self.intervals.get_mut(&interval) {
            *count -= 1;
            if *count == 0 {
                self.intervals.remove(&interval);
            }
        }
    }

    /// Number of the tick at or before `at`. Ticks of all intervals have one origin, so that those of a minute fall on those of ten
    /// seconds.
    fn tick(&self, interval: Duration, at: Instant) -> i128 {
        self.since_origin(at).div_euclid(nanos(interval).max(1))
    }

    fn tick_after(&self, interval: Duration, at: Instant) -> Instant {
        let interval = nanos(interval).max(1);
        let passed = self.since_origin(at).rem_euclid(interval);
        let left = u64::try_from(interval - passed).unwrap_or(u64::MAX);
        at + Duration::from_nanos(left)
    }

    fn since_origin(&self, at: Instant) -> i128 {
        nanos(at.saturating_duration_since(self.started)) - nanos(self.offset)
    }
}

fn failed(id: ObjectId, lasting: bool, error: &VaultError) -> News {
    let error = error.about(&id.to_string());
    News::Failed { id, lasting, error }
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
pub(super) mod tests;
