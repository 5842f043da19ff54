//! The engine and the subscriptions against a vault that misbehaves, in virtual time: random but seeded writes, faults and mirrors.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::sync::Arc;

use super::*;
use crate::vault::fingerprint::{Attributes, Fingerprint, Revision};
use crate::vault::subscriptions::{Delivery, Effect, IfMissing, Subscriptions};
use crate::vault::survey::Mode;
use crate::vault::{Identity, ReadKey, VaultHost, VaultSecret};

const OBJECTS: usize = 60;
const MIRRORS: usize = 80;
const INTERVALS: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];
const LIMITS: Limits = Limits {
    per_second: 20.0,
    burst: 10.0,
    concurrency: 6,
};
/// A time in which nobody does anything, after which every mirror must have what the vault has: two intervals.
const CALM: Duration = Duration::from_secs(120);
const STORM: Duration = Duration::from_secs(90);
const STORMS: usize = 5;
const LIST_PAGE: usize = 25;

/// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.next() as f64 / u64::MAX as f64)
    }
}

/// An object as it was from some time on; none is deleted.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Content {
    version: usize,
    updated: i64,
    enabled: bool,
    tag: usize,
}

/// What the vault does wrong at present.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    unreachable: bool,
    fails_one_in: Option<usize>,
    throttles_one_in: Option<usize>,
    list_forbidden: bool,
    links_expire: bool,
    /// LIST shows what was so long ago.
    list_lag: Duration,
    /// A GET may show what was up to so long ago: at most the two seconds for which an object counts as unsettled.
    replica_lag: Duration,
}

struct Vault {
    history: Vec<Vec<(Instant, Option<Content>)>>,
    versions: usize,
    faults: Faults,
    start: Instant,
    /// What the vault's clock shows at `start`.
    clock: i64,
}

impl Vault {
    fn clock(&self, now: Instant) -> i64 {
        self.clock + i64::try_from((now - self.start).as_secs()).expect("in range")
    }

    fn at(&self, object: usize, time: Instant) -> Option<Content> {
        let history = &self.history[object];
        let last = history.iter().rev().find(|(since, _)| *since <= time);
        last.unwrap_or(&history[0]).1
    }

    fn now(&self, object: usize) -> Option<Content> {
        self.history[object].last().expect("never empty").1
    }

    fn write(&mut self, object: usize, random: &mut Random, now: Instant) {
        let before = self.now(object);
        let updated = self.clock(now);
        self.versions += 1;
        let anew = Content {
            version: self.versions,
            updated,
            enabled: true,
            tag: 0,
        };
        let after = match (random.below(10), before) {
            (0, Some(_)) => None,
            (1, Some(before)) => Some(Content {
                enabled: !before.enabled,
                updated,
                ..before
            }),
            (2, Some(before)) => Some(Content {
                tag: before.tag + 1,
                updated,
                ..before
            }),
            // A restore: what comes back is a version of long ago, with its times.
            (3, Some(_)) => Some(Content {
                updated: self.clock - 1000 - i64::try_from(self.versions).expect("in range"),
                ..anew
            }),
            _ => Some(anew),
        };
        self.history[object].push((now, after));
    }

    fn get(
        &self,
        object: usize,
        time: Instant,
        date: i64,
    ) -> Result<(Content, Answer), VaultErrorKind> {
        let content = self.at(object, time).ok_or(VaultErrorKind::NotFound)?;
        if !content.enabled {
            return Err(VaultErrorKind::Disabled);
        }
        let revision = Revision {
            fingerprint: fingerprint(&content),
            version: Revision::hash(&content.version.to_string()),
        };
        let date = Some(date);
        Ok((content, Answer { revision, date }))
    }

    fn page(&self, after: Option<&str>, time: Instant) -> Page {
        let mut rest = (0..OBJECTS)
            .map(|object| (name(object), self.at(object, time)))
            .filter(|(name, _)| after.is_none_or(|after| name.as_str() > after))
            .filter_map(|(name, content)| Some((name, fingerprint(&content?))));
        let items: Vec<_> = rest.by_ref().take(LIST_PAGE).collect();
        let next = rest.next().and_then(|_| Some(items.last()?.0.clone()));
        Page {
            items,
            next,
            ..Page::default()
        }
    }
}

fn name(object: usize) -> String {
    format!("s{object:03}")
}

fn fingerprint(content: &Content) -> Fingerprint {
    let tags = [("tag".to_owned(), content.tag.to_string())].into();
    Fingerprint::from(Attributes {
        updated: Some(content.updated),
        enabled: Some(content.enabled),
        tags: Some(&tags),
        ..Attributes::default()
    })
}

/// A mirror: what its Secret has of each object, and whether it says that it failed.
struct Mirror {
    objects: Vec<usize>,
    if_missing: IfMissing,
    /// The last version that it had of each object, and whether it was told then that there is none any more.
    versions: Vec<usize>,
    missing: Vec<bool>,
    failing: Option<VaultErrorKind>,
}

enum Arrival {
    Answer {
        number: u64,
        began: Instant,
        ended: Ended,
        content: Option<Content>,
    },
    Reconcile(usize),
    Write(usize),
    /// A hint at a version of an object, if it names one.
    Hint(usize, Option<usize>),
}

struct World {
    seed: u64,
    random: Random,
    intervals: &'static [Duration],
    now: Instant,
    host: VaultHost,
    vault: Vault,
    engine: Engine,
    subscriptions: Subscriptions<usize>,
    mirrors: Vec<Mirror>,
    arrivals: BinaryHeap<(Reverse<Instant>, Reverse<usize>)>,
    arriving: BTreeMap<usize, Arrival>,
    count: usize,
    under_way: usize,
    starts: Vec<Instant>,
    pages: usize,
}

impl World {
    fn new(seed: u64, mode: Mode) -> Self {
        let mut random = Random(seed);
        let start = Instant::now();
        // Clocks of vault and daemon may differ by years.
        let clock = 1_000_000_000 + i64::try_from(random.below(1_000_000_000)).expect("in range");
        let content = |object| Content {
            version: object,
            updated: clock - 100,
            enabled: true,
            tag: 0,
        };
        let history = (0..OBJECTS)
            .map(|object| vec![(start, Some(content(object)))])
            .collect();
        let settings = Settings {
            mode,
            full_sweep: Duration::from_secs(86_400),
            per_second: LIMITS.per_second,
        };
        let phase = random.next() as f64 / u64::MAX as f64;
        let mirrors = (0..MIRRORS)
            .map(|mirror| {
                let objects: BTreeSet<_> = (0..1 + random.below(3))
                    .map(|_| random.below(OBJECTS))
                    .collect();
                Mirror {
                    if_missing: [IfMissing::Fail, IfMissing::LeaveOut][mirror % 2],
                    versions: vec![usize::MAX; objects.len()],
                    missing: vec![false; objects.len()],
                    objects: objects.into_iter().collect(),
                    failing: None,
                }
            })
            .collect();
        Self {
            seed,
            random,
            intervals: &INTERVALS,
            now: start,
            host: crate::vault::survey::tests::host(),
            vault: Vault {
                history,
                versions: OBJECTS,
                faults: Faults::default(),
                start,
                clock,
            },
            engine: Engine::new(settings, LIMITS, phase, start),
            subscriptions: Subscriptions::default(),
            mirrors,
            arrivals: BinaryHeap::new(),
            arriving: BTreeMap::new(),
            count: 0,
            under_way: 0,
            starts: Vec::new(),
            pages: 0,
        }
    }

    fn key(&self, id: ObjectId) -> ReadKey {
        ReadKey {
            collection: Collection::Secrets,
            vault: self.host.clone(),
            identity: Identity::default(),
            name: id.name,
            version: id.version,
        }
    }

    fn arrives(&mut self, after: Duration, arrival: Arrival) {
        self.count += 1;
        self.arriving.insert(self.count, arrival);
        self.arrivals
            .push((Reverse(self.now + after), Reverse(self.count)));
    }

    fn want(&mut self, mirror: usize) {
        let ids = self.mirrors[mirror].objects.iter().map(|object| ObjectId {
            collection: Collection::Secrets,
            name: name(*object),
            version: None,
        });
        let reads: Vec<ReadKey> = ids
            .collect::<Vec<_>>()
            .into_iter()
            .map(|id| self.key(id))
            .collect();
        let interval = self.intervals[mirror % self.intervals.len()];
        let if_missing = self.mirrors[mirror].if_missing;
        let effects = self
            .subscriptions
            .want(&mirror, &reads, interval, if_missing);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect<usize>>) {
        for effect in effects {
            let id = |key: Arc<ReadKey>| ObjectId {
                collection: Collection::Secrets,
                name: key.name.clone(),
                version: None,
            };
            match effect {
                Effect::Want(key, interval) => self.engine.want(id(key), interval, self.now),
                Effect::Unwant(key) => self.engine.unwant(&id(key)),
                Effect::Ask {
                    key,
                    priority,
                    fresh,
                } => {
                    let news = self.engine.ask(&id(key), priority, fresh, self.now);
                    self.tell(news, None);
                }
                Effect::Awaits(_) => {}
                Effect::Ready(mirror) => {
                    let after = self.random.up_to(Duration::from_secs(2));
                    self.arrives(after, Arrival::Reconcile(mirror));
                }
            }
        }
    }

    fn tell(&mut self, news: Vec<News>, read: Option<(Content, Instant)>) {
        for news in news {
            let effects = match news {
                News::Read { id, changed } => {
                    let (content, began) = read.expect("news of a read come with it");
                    let secret = Arc::new(VaultSecret {
                        value: Vec::new().into(),
                        version: content.version.to_string(),
                        updated: None,
                        not_before: None,
                        expires: None,
                    });
                    let key = self.key(id);
                    self.subscriptions.read(&key, &secret, began, changed)
                }
                News::Failed { id, lasting, error } => {
                    let key = self.key(id);
                    self.subscriptions.failed(&key, &error, lasting)
                }
                News::Well { id } => {
                    let key = self.key(id);
                    self.subscriptions.well(&key)
                }
                News::Listed { .. } | News::Roster(_) => Vec::new(),
            };
            self.carry_out(effects);
        }
    }

    /// The mirror takes what there is for it, and its Secret must never go back.
    fn reconcile(&mut self, mirror: usize) {
        match self.subscriptions.take(&mirror) {
            None => {}
            Some(Delivery::Unchanged) => self.mirrors[mirror].failing = None,
            Some(Delivery::Failed { error, .. }) => self.mirrors[mirror].failing = Some(error.kind),
            Some(Delivery::Content(content)) => {
                for (index, found) in content.iter().enumerate() {
                    self.mirrors[mirror].missing[index] = found.is_err();
                    let Ok(secret) = found else {
                        assert_eq!(self.mirrors[mirror].if_missing, IfMissing::LeaveOut);
                        continue;
                    };
                    let version: usize = secret.version.parse().expect("a number");
                    let object = self.mirrors[mirror].objects[index];
                    let before = self.mirrors[mirror].versions[index];
                    let (was, is) = (self.place(object, before), self.place(object, version));
                    assert!(
                        is >= was,
                        "seed {}: mirror {mirror} went back from version {before} of object {object} to {version}",
                        self.seed
                    );
                    self.mirrors[mirror].versions[index] = version;
                }
                self.mirrors[mirror].failing = None;
            }
        }
    }

    /// When the vault had this version of an object: its place in the object's history.
    fn place(&self, object: usize, version: usize) -> Option<usize> {
        let has = |(_, content): &(Instant, Option<Content>)| {
            content.is_some_and(|content| content.version == version)
        };
        self.vault.history[object].iter().position(has)
    }

    fn send(&mut self, started: Started<Request>) {
        let faults = self.vault.faults;
        self.starts.push(self.now);
        self.under_way += 1;
        assert!(self.under_way <= LIMITS.concurrency, "seed {}", self.seed);
        let latency = Duration::from_millis(5) + self.random.up_to(Duration::from_millis(200));
        let refusal = if faults.unreachable {
            Some(VaultErrorKind::Unreachable)
        } else if faults.fails_one_in.is_some_and(|n| self.random.one_in(n)) {
            Some(VaultErrorKind::Server { status: 500 })
        } else if faults
            .throttles_one_in
            .is_some_and(|n| self.random.one_in(n))
        {
            let seconds = Duration::from_secs(self.random.next() % 10);
            let retry_after = self.random.one_in(2).then_some(seconds);
            Some(VaultErrorKind::Throttled { retry_after })
        } else {
            None
        };
        let latency = match refusal {
            Some(VaultErrorKind::Unreachable) => self.random.up_to(Duration::from_secs(20)),
            _ => latency,
        };
        let failed = |kind| VaultError::new(kind, &self.host, "x", "");
        let date = self.vault.clock(self.now);
        let (ended, content) = match started.request {
            Request::Get(id) => {
                let object: usize = id.name[1..].parse().expect("a number");
                let lag = self.random.up_to(faults.replica_lag);
                let seen = self.now.checked_sub(lag).expect("after the start");
                let answer = match refusal {
                    Some(kind) => Err(kind),
                    None => self.vault.get(object, seen, date),
                };
                let content = answer.as_ref().ok().map(|(content, _)| *content);
                let answer = answer.map(|(_, answer)| answer).map_err(failed);
                (Ended::Read(id, answer), content)
            }
            Request::Page(_, link) => {
                self.pages += 1;
                let seen = self
                    .now
                    .checked_sub(faults.list_lag)
                    .expect("after the start");
                let page = match refusal {
                    Some(kind) => Err(kind),
                    None if faults.list_forbidden => Err(VaultErrorKind::Forbidden),
                    None if faults.links_expire && link.is_some() => {
                        Err(VaultErrorKind::Server { status: 400 })
                    }
                    None => Ok(self.vault.page(link.as_deref(), seen)),
                };
                (
                    Ended::Listed(Collection::Secrets, page.map_err(failed)),
                    None,
                )
            }
        };
        let (number, began) = (started.number, self.now);
        let answer = Arrival::Answer {
            number,
            began,
            ended,
            content,
        };
        self.arrives(latency, answer);
    }

    /// Changes an object, and gives hints at that: none, or some, at once or long after it, and in any order.
    fn write(&mut self, object: usize) {
        self.vault.write(object, &mut self.random, self.now);
        let version = self.vault.now(object).map(|content| content.version);
        for _ in 0..self.random.below(4) {
            let version = version.filter(|_| !self.random.one_in(4));
            let latest = [Duration::from_secs(1), STORM][self.random.below(2)];
            let after = self.random.up_to(latest);
            self.arrives(after, Arrival::Hint(object, version));
        }
    }

    fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Reconcile(mirror) => self.reconcile(mirror),
            Arrival::Write(object) => self.write(object),
            Arrival::Hint(object, version) => {
                let id = ObjectId {
                    collection: Collection::Secrets,
                    name: name(object),
                    version: None,
                };
                let version = version.map(|version| version.to_string());
                let news = self.engine.hint(&id, version.as_deref(), self.now);
                self.tell(news, None);
            }
            Arrival::Answer {
                number,
                began,
                ended,
                content,
            } => {
                self.under_way -= 1;
                let jitter = self.random.next() as f64 / u64::MAX as f64;
                let news = self.engine.finish(number, ended, jitter, self.now);
                self.tell(news, content.map(|content| (content, began)));
            }
        }
    }

    /// Lets time pass, with somebody doing something every now and then if it storms.
    fn run(&mut self, time: Duration, storm: bool) {
        let end = self.now + time;
        let mut disturbance = self.now;
        while self.now < end {
            self.engine.advance(self.now);
            while let Some(started) = self.engine.start(self.now) {
                self.send(started);
            }
            let wake = self.engine.wake(self.now);
            assert!(
                wake.is_none_or(|wake| wake > self.now),
                "seed {}: it would spin",
                self.seed
            );
            let arrival = self.arrivals.peek().map(|(Reverse(at), _)| *at);
            let next = wake
                .into_iter()
                .chain(arrival)
                .chain(storm.then_some(disturbance));
            self.now = next.min().map_or(end, |next| next.min(end));
            while let Some((Reverse(at), Reverse(number))) = self.arrivals.peek().copied()
                && at <= self.now
            {
                self.arrivals.pop();
                let arrival = self.arriving.remove(&number).expect("each arrives once");
                self.arrive(arrival);
            }
            if storm && disturbance <= self.now {
                self.disturb();
                let pause = [100, 1000, 4000][self.random.below(3)];
                disturbance = self.now + self.random.up_to(Duration::from_millis(pause));
            }
        }
    }

    fn disturb(&mut self) {
        let random = &mut self.random;
        match random.below(8) {
            0 | 1 => {
                let object = random.below(OBJECTS);
                self.write(object);
            }
            // Read just after it was written, and then written once more in the same second.
            2 => {
                let mirror = random.below(MIRRORS);
                let object = self.mirrors[mirror].objects[0];
                let after = random.up_to(Duration::from_millis(900));
                self.write(object);
                let effects = self
                    .subscriptions
                    .ask(&mirror, Priority::Hinted, Some(self.now));
                self.carry_out(effects);
                self.arrives(after, Arrival::Write(object));
            }
            3 => {
                self.vault.faults = Faults {
                    unreachable: random.one_in(8),
                    fails_one_in: random.one_in(3).then_some(1 + random.below(8)),
                    throttles_one_in: random.one_in(3).then_some(1 + random.below(20)),
                    list_forbidden: random.one_in(6),
                    links_expire: random.one_in(6),
                    list_lag: Duration::from_secs(random.next() % 30),
                    replica_lag: Duration::from_secs(random.next() % 3),
                };
            }
            4 => self.vault.faults = Faults::default(),
            5 => {
                let mirror = random.below(MIRRORS);
                let effects = self.subscriptions.ask(&mirror, Priority::New, None);
                self.carry_out(effects);
            }
            6 => {
                let mirror = random.below(MIRRORS);
                let now = Some(self.now);
                let effects = self.subscriptions.ask(&mirror, Priority::Hinted, now);
                self.carry_out(effects);
            }
            _ => {
                let mirror = random.below(MIRRORS);
                let effects = self.subscriptions.forget(&mirror);
                self.carry_out(effects);
                self.want(mirror);
            }
        }
    }

    fn assert_converged(&self) {
        for (number, mirror) in self.mirrors.iter().enumerate() {
            let contents: Vec<_> = mirror
                .objects
                .iter()
                .map(|object| self.vault.now(*object))
                .collect();
            let is_there =
                |content: &Option<Content>| content.is_some_and(|content| content.enabled);
            let readable =
                mirror.if_missing == IfMissing::LeaveOut || contents.iter().all(is_there);
            let context = format!(
                "seed {}: mirror {number} of {:?} has {:?} without {:?} and says {:?}; the vault has {contents:?}",
                self.seed, mirror.objects, mirror.versions, mirror.missing, mirror.failing
            );
            assert_eq!(mirror.failing.is_none(), readable, "{context}");
            if readable {
                let has = mirror.versions.iter().zip(&mirror.missing);
                let has = has.map(|(version, missing)| (!missing).then_some(*version));
                let wanted = contents.iter().map(|content| {
                    content
                        .filter(|content| content.enabled)
                        .map(|content| content.version)
                });
                assert!(wanted.eq(has), "{context}");
            }
        }
    }

    fn assert_within_rate(&self) {
        for (index, begin) in self.starts.iter().enumerate() {
            let last = self.starts.len().min(index + 400);
            for (count, end) in self.starts[index..last].iter().enumerate() {
                let allowed = LIMITS.burst + (*end - *begin).as_secs_f64() * LIMITS.per_second;
                assert!((count + 1) as f64 <= allowed + 1e-6, "seed {}", self.seed);
            }
        }
    }
}

fn survive(seed: u64, mode: Mode) -> World {
    let mut world = World::new(seed, mode);
    for mirror in 0..MIRRORS {
        world.want(mirror);
    }
    world.run(CALM, false);
    world.assert_converged();
    for _ in 0..STORMS {
        world.run(STORM, true);
        world.vault.faults = Faults::default();
        world.run(CALM, false);
        world.assert_converged();
    }
    world.assert_within_rate();
    world
}

#[test]
fn after_any_faults_every_mirror_has_what_the_vault_has_and_none_ever_went_back() {
    for seed in 0..40 {
        let world = survive(seed, Mode::Auto);
        assert!(world.pages > 0, "seed {seed}: nothing was listed");
    }
}

#[test]
fn a_vault_that_was_dead_is_looked_at_when_it_answers_and_not_at_the_next_interval() {
    for seed in 0..20 {
        let mut world = World::new(seed, Mode::Auto);
        world.intervals = &INTERVALS[1..];
        for mirror in 0..MIRRORS {
            world.want(mirror);
        }
        world.run(CALM, false);
        world.vault.faults.fails_one_in = Some(1);
        let is_told = |world: &World| world.mirrors.iter().all(|m| m.failing.is_some());
        let told = (0..90).any(|_| {
            world.run(Duration::from_secs(1), false);
            is_told(&world)
        });
        assert!(told, "seed {seed}: some mirrors say that they are well");
        let starts = world.starts.len();
        world.vault.faults = Faults::default();
        world.run(Duration::from_secs(30), false);
        world.assert_converged();
        let requests = world.starts.len() - starts;
        assert!(requests < OBJECTS / 2, "seed {seed}: {requests} requests");
    }
}

#[test]
fn the_same_holds_without_lists() {
    for seed in 1000..1010 {
        let world = survive(seed, Mode::Never);
        assert_eq!(world.pages, 0);
    }
}
