use std::collections::BTreeMap;

use super::*;
use crate::vault::fingerprint::Attributes;
use crate::vault::{DnsSuffixes, VaultHost};

mod hints;
mod roster;

const MINUTE: Duration = Duration::from_secs(60);
const TEN: Duration = Duration::from_secs(10);

pub fn host() -> VaultHost {
    let suffixes: DnsSuffixes = "vault.azure.net".parse().expect("a suffix");
    let vault = crate::api::VaultRef {
        name: Some("contoso".into()),
        url: None,
    };
    suffixes.host(&vault).expect("a host")
}

fn id(name: &str) -> ObjectId {
    ObjectId {
        collection: Collection::Secrets,
        name: name.to_owned(),
        version: None,
    }
}

/// What a vault holds of an object.
#[derive(Clone, Copy)]
struct Content {
    version: u32,
    updated: i64,
    enabled: bool,
}

/// A survey with its clock and a vault that answers at once.
struct World {
    survey: Survey,
    now: Instant,
    /// Seconds since 1970 by the vault's clock, which is not ours.
    clock: i64,
    vault: BTreeMap<String, Content>,
    lists: Result<usize, VaultErrorKind>,
    /// Number of the last request.
    number: u64,
    /// What was asked since it was last looked at.
    asked: Vec<String>,
    news: Vec<String>,
}

impl World {
    fn new(mode: Mode) -> Self {
        let settings = Settings {
            mode,
            full_sweep: Duration::from_secs(86_400),
            per_second: 100.0,
        };
        let now = Instant::now();
        Self {
            survey: Survey::new(Collection::Secrets, settings, 0.0, now),
            now,
            clock: 1_000_000,
            vault: BTreeMap::new(),
            lists: Ok(25),
            number: 0,
            asked: Vec::new(),
            news: Vec::new(),
        }
    }

    /// A vault with so many objects, all of which are wanted every minute and have been read.
    fn with(objects: usize) -> Self {
        let mut world = Self::new(Mode::Auto);
        for number in 0..objects {
            world.put(&format!("s{number:04}"), 1);
        }
        world.clock += 100;
        for number in 0..objects {
            world.want(&format!("s{number:04}"), MINUTE);
        }
        world.run();
        world.forget();
        world
    }

    fn put(&mut self, name: &str, version: u32) {
        let content = Content {
            version,
            updated: self.clock,
            enabled: true,
        };
        self.vault.insert(name.to_owned(), content);
    }

    fn want(&mut self, name: &str, interval: Duration) {
        self.survey.want(id(name), interval, self.now);
        self.survey.ask(&id(name), Priority::New, false);
    }

    fn forget(&mut self) {
        self.asked.clear();
        self.news.clear();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.clock += i64::try_from(time.as_secs()).expect("in range");
    }

    /// One minute later: what was asked, with GETs counted.
    fn cycle(&mut self) -> (usize, usize) {
        self.forget();
        self.pass(MINUTE);
        self.run();
        self.requests()
    }

    /// Pages and GETs.
    fn requests(&self) -> (usize, usize) {
        let pages = self.asked.iter().filter(|asked| *asked == "page").count();
        (pages, self.asked.len() - pages)
    }

    /// Answers all that is to be asked now.
    fn run(&mut self) {
        self.survey.advance(self.now);
        loop {
            let requests = self.survey.take_requests();
            if requests.is_empty() {
                return;
            }
            for (_, request) in requests {
                self.number += 1;
                if self.survey.start(self.number, &request, self.now) {
                    self.answer(request);
                }
            }
        }
    }

    fn answer(&mut self, request: Request) {
        let now = self.now;
        match request {
            Request::Get(id) => {
                self.asked.push(id.name.clone());
                let news = match self.get(&id.name) {
                    Ok(answer) => self.survey.read_done(self.number, &id, answer, now),
                    Err(kind) => {
                        let error = error(kind);
                        self.survey.read_failed(self.number, &id, &error, now, None)
                    }
                };
                self.take(news);
            }
            Request::Page(_, link) => {
                self.asked.push("page".to_owned());
                match self.lists {
                    Ok(_) => {
                        let page = self.page(link.as_deref());
                        let news = self.survey.page_done(page, now);
                        self.take(news);
                    }
                    Err(kind) => {
                        let news = self.survey.page_failed(&error(kind), now);
                        self.take(news);
                    }
                }
            }
        }
    }

    fn get(&self, name: &str) -> Result<Answer, VaultErrorKind> {
        let content = self.vault.get(name).ok_or(VaultErrorKind::NotFound)?;
        if !content.enabled {
            return Err(VaultErrorKind::Disabled);
        }
        let version = content.version.to_string();
        Ok(Answer {
            revision: Revision::new(&version, attributes(content)),
            date: Some(self.clock),
        })
    }

    fn page(&self, after: Option<&str>) -> Page {
        let size = self.lists.unwrap_or(25);
        let mut rest = self
            .vault
            .iter()
            .filter(|(name, _)| after.is_none_or(|after| name.as_str() > after));
        let item =
            |(name, content): (&String, &Content)| (name.clone(), attributes(content).into());
        let items: Vec<_> = rest.by_ref().take(size).map(item).collect();
        let next = rest.next().and_then(|_| Some(items.last()?.0.clone()));
        let listed = items.iter().map(|(name, _)| listed(name)).collect();
        Page {
            items,
            listed,
            next,
        }
    }

    fn take(&mut self, news: impl IntoIterator<Item = News>) {
        let told = |news| match news {
            News::Read { id, changed: true } => Some(format!("{} changed", id.name)),
            News::Read { .. } | News::Listed { .. } => None,
            News::Failed { id, lasting, error } => {
                let lasting = if lasting { " for long" } else { "" };
                Some(format!("{} {}{lasting}", id.name, error.kind.as_str()))
            }
            News::Well { id } => Some(format!("{} well", id.name)),
            News::Roster(Ok(roster)) => Some(format!("{} objects", roster.len())),
            News::Roster(Err(error)) => Some(format!("list {}", error.kind.as_str())),
        };
        self.news.extend(news.into_iter().filter_map(told));
    }
}

fn attributes(content: &Content) -> Attributes<'static> {
    Attributes {
        updated: Some(content.updated),
        enabled: Some(content.enabled),
        ..Attributes::default()
    }
}

fn listed(name: &str) -> Listed {
    Listed {
        name: name.to_owned(),
        enabled: true,
        tags: std::collections::HashMap::new(),
    }
}

fn error(kind: VaultErrorKind) -> VaultError {
    VaultError::new(kind, &host(), "secret x", "")
}

#[test]
fn a_vault_that_stands_still_costs_its_pages() {
    let mut world = World::with(60);
    for _ in 0..10 {
        assert_eq!(world.cycle(), (3, 0));
        assert!(world.news.is_empty());
    }
}

#[test]
fn what_moved_is_read_and_nothing_else() {
    let mut world = World::with(60);
    world.pass(TEN);
    world.put("s0007", 2);
    world.pass(TEN);
    world.cycle();
    assert_eq!(world.requests(), (3, 1));
    assert_eq!(world.news, ["s0007 changed"]);
    assert_eq!(world.cycle(), (3, 0));
}

#[test]
fn a_single_object_is_read_and_never_listed() {
    let mut world = World::with(1);
    assert_eq!(world.cycle(), (0, 1));
    assert!(world.news.is_empty(), "and that it is the same is no news");
}

#[test]
fn a_change_of_attributes_alone_is_seen() {
    let mut world = World::with(30);
    world.pass(TEN);
    world.put("s0003", 1);
    world.pass(TEN);
    world.cycle();
    assert_eq!(world.news, ["s0003 changed"]);
}

#[test]
fn what_changed_just_before_it_was_read_is_read_once_more() {
    let mut world = World::with(60);
    world.pass(MINUTE - Duration::from_secs(1));
    world.put("s0001", 2);
    world.pass(Duration::from_secs(1));
    world.run();
    assert_eq!(world.news, ["s0001 changed"]);
    // In the same second, after it was read: the list shows no difference.
    world.vault.get_mut("s0001").expect("it is there").version = 3;
    assert_eq!(world.cycle(), (3, 1));
    assert!(world.news.is_empty(), "not yet believed");
    world.pass(TEN);
    world.run();
    assert_eq!(world.news, ["s0001 changed"]);
    world.cycle();
    assert_eq!(world.cycle(), (3, 0));
}

#[test]
fn a_restore_sets_updated_back_and_is_believed_when_it_stays() {
    let mut world = World::with(60);
    world.pass(TEN);
    let content = world.vault.get_mut("s0001").expect("it is there");
    (content.version, content.updated) = (9, 500_000);
    world.cycle();
    assert!(world.news.is_empty(), "it may be a replica that lags");
    world.pass(TEN);
    world.run();
    assert_eq!(world.news, ["s0001 changed"]);
    assert_eq!(world.cycle(), (3, 0));
}

#[test]
fn a_replica_that_lags_for_a_moment_takes_nothing_back() {
    let mut world = World::with(60);
    world.pass(TEN);
    let before = world.vault["s0001"];
    world.put("s0001", 2);
    world.pass(TEN);
    world.cycle();
    let after = world.vault.insert("s0001".into(), before).expect("there");
    world.cycle();
    world.vault.insert("s0001".into(), after);
    world.pass(TEN);
    world.run();
    assert_eq!(world.news, Vec::<String>::new());
}

#[test]
fn a_read_that_lags_behind_the_list_is_repeated() {
    let mut world = World::with(60);
    world.pass(TEN);
    world.survey.look_now();
    world.survey.advance(world.now);
    world.survey.take_requests();
    let moved = Fingerprint {
        updated: Some(world.clock),
        enabled: true,
        attributes: 7,
    };
    let page = Page {
        items: vec![("s0001".into(), moved)],
        next: Some("s0024".into()),
        ..Page::default()
    };
    world.survey.page_done(page, world.now);
    world.run();
    assert!(world.news.is_empty(), "the read still shows what was");
    world.put("s0001", 2);
    world.pass(TEN);
    world.cycle();
    assert_eq!(world.news, ["s0001 changed"]);
}

#[test]
fn where_list_and_read_never_agree_a_second_read_is_enough() {
    let mut world = World::with(2);
    let page = || Page {
        items: ["s0000", "s0001"]
            .map(|name| {
                let odd = Fingerprint {
                    updated: Some(1_000_000),
                    enabled: true,
                    attributes: 7,
                };
                (name.to_owned(), odd)
            })
            .into(),
        next: None,
        ..Page::default()
    };
    for gets in [2, 2, 0, 0] {
        world.pass(MINUTE);
        world.survey.advance(world.now);
        world.survey.take_requests();
        world.survey.page_done(page(), world.now);
        world.forget();
        world.run();
        assert_eq!(world.requests().1, gets);
    }
}

#[test]
fn a_deleted_object_fails_once_and_comes_back() {
    let mut world = World::with(60);
    let content = world.vault.remove("s0001").expect("it was there");
    assert_eq!(world.cycle(), (3, 1));
    assert_eq!(world.news, ["s0001 not_found for long"]);
    assert_eq!(world.cycle(), (3, 0));
    world.vault.insert("s0001".into(), content);
    assert_eq!(world.cycle(), (3, 1));
    assert!(world.news.is_empty(), "it is what it was");
}

#[test]
fn a_disabled_object_fails_once_until_it_is_touched() {
    let mut world = World::with(60);
    world.pass(TEN);
    world.put("s0001", 1);
    world.vault.get_mut("s0001").expect("there").enabled = false;
    assert_eq!(world.cycle(), (3, 1));
    assert_eq!(world.news, ["s0001 disabled for long"]);
    assert_eq!(world.cycle(), (3, 0));
    world.put("s0001", 1);
    assert_eq!(world.cycle(), (3, 1));
}

#[test]
fn a_read_that_lags_and_finds_an_object_disabled_is_repeated() {
    let mut world = World::with(3);
    world.pass(TEN);
    world.put("s0001", 1);
    let page = world.page(None);
    world.pass(MINUTE - TEN);
    world.survey.advance(world.now);
    world.survey.take_requests();
    world.survey.page_done(page, world.now);
    for (number, (_, request)) in (1..).zip(world.survey.take_requests()) {
        assert!(world.survey.start(number, &request, world.now));
        let disabled = error(VaultErrorKind::Disabled);
        let id = id("s0001");
        world
            .survey
            .read_failed(number, &id, &disabled, world.now, None);
    }
    assert_eq!(world.cycle(), (1, 1));
    assert_eq!(world.news, ["s0001 changed"]);
}

#[test]
fn an_object_that_is_wanted_before_it_exists_is_read_when_it_does() {
    let mut world = World::with(60);
    world.want("later", MINUTE);
    world.run();
    assert_eq!(world.news, ["later not_found for long"]);
    assert_eq!(world.cycle(), (3, 0));
    world.put("later", 1);
    assert_eq!(world.cycle(), (3, 1));
    assert_eq!(world.news, ["later changed"]);
}

#[test]
fn where_the_list_is_longer_than_the_reads_it_is_given_up() {
    let mut world = World::new(Mode::Auto);
    for number in 0..1000 {
        world.put(&format!("s{number:04}"), 1);
    }
    for number in 500..510 {
        world.want(&format!("s{number:04}"), MINUTE);
    }
    world.run();
    assert_eq!(
        world.cycle(),
        (10, 10),
        "ten pages to learn that it is long"
    );
    assert_eq!(world.cycle(), (0, 10));
    for _ in 0..12 {
        assert_eq!(world.cycle(), (0, 10));
    }
    world
        .vault
        .retain(|name, _| name.as_str() >= "s0500" && name.as_str() < "s0550");
    let (mut pages, mut gets) = (0, 0);
    for _ in 0..5 {
        (pages, gets) = world.cycle();
    }
    assert_eq!((pages, gets), (2, 0), "the vault has shrunk");
}

#[test]
fn pages_that_wait_in_line_make_no_list_slow() {
    let mut world = World::with(60);
    world.pass(MINUTE);
    world.survey.advance(world.now);
    for after in [None, Some("s0024"), Some("s0049")] {
        world.survey.take_requests();
        world.pass(MINUTE / 2);
        let request = Request::Page(Collection::Secrets, after.map(str::to_owned));
        assert!(world.survey.start(1, &request, world.now));
        let page = world.page(after);
        world.survey.page_done(page, world.now);
    }
    assert_eq!(world.cycle(), (3, 0));
}

#[test]
fn a_forbidden_list_is_replaced_by_reads_and_tried_again() {
    let mut world = World::with(60);
    world.lists = Err(VaultErrorKind::Forbidden);
    assert_eq!(world.cycle(), (1, 60));
    for _ in 0..5 {
        assert_eq!(world.cycle(), (0, 60));
    }
    world.lists = Ok(25);
    assert_eq!(world.cycle(), (3, 0));
}

#[test]
fn a_list_that_breaks_off_begins_anew_and_is_then_replaced_by_reads() {
    let mut world = World::with(60);
    world.pass(MINUTE);
    world.survey.advance(world.now);
    let first = world.survey.take_requests();
    assert_eq!(
        first,
        [(Priority::Periodic, Request::Page(Collection::Secrets, None))]
    );
    let page = world.page(None);
    world.survey.page_done(page, world.now);
    let expired = VaultErrorKind::Server { status: 400 };
    world.survey.take_requests();
    world.survey.page_failed(&error(expired), world.now);
    let again = world.survey.take_requests();
    assert_eq!(
        again,
        [(Priority::Periodic, Request::Page(Collection::Secrets, None))]
    );
    world.survey.page_failed(&error(expired), world.now);
    let reads = world.survey.take_requests();
    assert_eq!(reads.len(), 35, "those that the first page had not shown");
}

#[test]
fn a_page_that_fails_for_a_moment_is_asked_for_again() {
    let mut world = World::with(60);
    world.lists = Err(VaultErrorKind::Unreachable);
    assert_eq!(world.cycle(), (1, 0));
    world.lists = Ok(25);
    world.forget();
    world.pass(Duration::from_secs(1));
    world.run();
    assert_eq!(world.requests(), (3, 0));
}

#[test]
fn objects_that_come_and_go_between_pages_are_no_news_of_others() {
    let mut world = World::with(60);
    world.pass(MINUTE);
    world.survey.advance(world.now);
    world.survey.take_requests();
    let page = world.page(None);
    world.survey.page_done(page, world.now);
    world.put("a-new-one", 1);
    world.vault.remove("s0059");
    world.want("s0000-b", MINUTE);
    world.put("s0000-b", 1);
    world.run();
    assert_eq!(world.news, ["s0000-b changed", "s0059 not_found for long"]);
    assert_eq!(
        world.cycle(),
        (3, 1),
        "the new one, which was read as it came"
    );
    assert_eq!(world.cycle(), (3, 0));
}

#[test]
fn a_pinned_version_is_read_once() {
    let mut world = World::new(Mode::Auto);
    world.put("s", 1);
    let pinned = ObjectId {
        collection: Collection::Secrets,
        version: Some("1".into()),
        ..id("s")
    };
    world.survey.want(pinned.clone(), MINUTE, world.now);
    world.survey.ask(&pinned, Priority::New, false);
    world.run();
    assert_eq!(world.requests(), (0, 1));
    world.forget();
    for _ in 0..2000 {
        world.pass(MINUTE);
        world.run();
    }
    assert_eq!(world.requests(), (0, 0));
}

#[test]
fn a_failure_that_passes_is_told_to_all_only_if_it_lasts() {
    let mut world = World::with(2);
    world.survey.ask(&id("s0000"), Priority::Hinted, true);
    let mut told = Vec::new();
    for _ in 0..16 {
        world.survey.advance(world.now);
        for (_, request) in world.survey.take_requests() {
            world.number += 1;
            let number = world.number;
            if let Request::Get(id) = &request
                && world.survey.start(number, &request, world.now)
            {
                let unreachable = error(VaultErrorKind::Unreachable);
                let news = world
                    .survey
                    .read_failed(number, id, &unreachable, world.now, None);
                if let Some(News::Failed { lasting, .. }) = news {
                    told.push(lasting);
                }
            }
        }
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(told, [false, false, false, true], "after 0, 2, 6, 14 s");
    world.forget();
    world.pass(TEN * 2);
    world.run();
    assert_eq!(world.asked, ["s0000"]);
}

#[test]
fn every_object_is_swept_once_a_day_evenly() {
    let mut world = World::with(100);
    let mut swept = BTreeMap::new();
    for _ in 0..24 * 60 {
        let (pages, gets) = world.cycle();
        assert_eq!(pages, 4);
        assert!(gets <= 1);
        for name in world.asked.iter().filter(|asked| *asked != "page") {
            *swept.entry(name.clone()).or_insert(0) += 1;
        }
    }
    assert_eq!(swept.len(), 100);
    assert!(swept.values().all(|count| *count == 1));
}

#[test]
fn objects_of_shorter_intervals_do_not_make_all_be_listed() {
    let mut world = World::with(60);
    world.want("s0000", TEN);
    world.run();
    world.forget();
    for _ in 0..5 {
        world.pass(TEN);
        world.run();
    }
    assert_eq!(world.requests(), (0, 5));
    world.pass(TEN);
    world.run();
    assert_eq!(world.requests(), (3, 5), "the minute is the tick of both");
}

#[test]
fn in_naive_mode_every_object_is_read_at_every_interval() {
    let mut world = World::new(Mode::Never);
    for number in 0..60 {
        world.put(&format!("s{number}"), 1);
        world.want(&format!("s{number}"), MINUTE);
    }
    world.run();
    assert_eq!(world.cycle(), (0, 60));
}

#[test]
fn ticks_of_different_vaults_are_spread_and_one_interval_apart() {
    let now = Instant::now();
    let settings = World::new(Mode::Auto).survey.settings;
    let ticks = [0.1, 0.1234].map(|phase| {
        let mut survey = Survey::new(Collection::Secrets, settings, phase, now);
        survey.want(id("s"), MINUTE, now);
        let first = survey.wake().expect("a tick");
        survey.advance(first);
        assert_eq!(survey.wake(), Some(first + MINUTE));
        first
    });
    assert_ne!(ticks[0], ticks[1]);
}

#[test]
fn an_answer_to_those_who_left_is_not_taken_for_the_answer_to_those_who_came() {
    let mut world = World::with(1);
    let get = Request::Get(id("s0000"));
    world.survey.ask(&id("s0000"), Priority::New, false);
    assert!(world.survey.start(101, &get, world.now));
    world.survey.unwant(&id("s0000"));
    world.want("s0000", MINUTE);
    assert!(world.survey.start(102, &get, world.now));
    let answer = world.get("s0000").expect("an answer");
    let mut done = |number| {
        world
            .survey
            .read_done(number, &id("s0000"), answer, world.now)
    };
    assert_eq!(done(101), None);
    assert!(done(102).is_some());
}

#[test]
fn what_nobody_wants_any_more_is_not_asked_for() {
    let mut world = World::with(2);
    world.survey.ask(&id("s0000"), Priority::Hinted, true);
    world.survey.unwant(&id("s0000"));
    world.survey.unwant(&id("s0001"));
    world.run();
    assert!(world.asked.is_empty());
    assert_eq!(world.survey.wake(), None);
}
