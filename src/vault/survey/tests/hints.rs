//! What hints make a survey do.

use super::*;

const SOON: Duration = Duration::from_secs(3);

impl World {
    fn hint(&mut self, name: &str, version: Option<&str>) {
        if self.survey.hint(&id(name), version) {
            self.survey.ask(&id(name), Priority::Hinted, true);
        }
        self.run();
    }

    /// What was read since it was last asked.
    fn reads(&mut self) -> Vec<String> {
        std::mem::take(&mut self.asked)
    }
}

#[test]
fn a_hint_makes_its_object_be_read_and_no_other() {
    let mut world = World::with(60);
    world.pass(TEN);
    world.put("s0007", 2);
    world.hint("s0007", Some("2"));
    assert_eq!(world.reads(), ["s0007"]);
    assert_eq!(world.news, ["s0007 changed"]);
    world.pass(SOON);
    world.run();
    assert!(world.reads().is_empty(), "and not again");
}

#[test]
fn a_hint_that_comes_twice_or_late_costs_nothing() {
    let mut world = World::with(60);
    world.pass(TEN);
    world.put("s0007", 2);
    world.pass(TEN);
    world.hint("s0007", Some("2"));
    world.forget();
    for _ in 0..10 {
        world.pass(TEN);
        world.hint("s0007", Some("2"));
    }
    assert!(!world.asked.contains(&"s0007".to_owned()));
}

#[test]
fn hints_in_the_wrong_order_take_nothing_back() {
    let mut world = World::with(60);
    world.pass(TEN);
    world.put("s0007", 3);
    world.hint("s0007", Some("3"));
    world.hint("s0007", Some("2"));
    world.pass(SOON);
    world.run();
    assert_eq!(world.news, ["s0007 changed"]);
}

#[test]
fn a_hint_that_comes_before_its_version_is_followed_once_more() {
    let mut world = World::with(60);
    world.pass(TEN);
    world.hint("s0007", Some("2"));
    assert_eq!(world.reads(), ["s0007"]);
    world.pass(Duration::from_secs(1));
    world.put("s0007", 2);
    world.pass(SOON);
    world.run();
    assert_eq!(world.reads(), ["s0007"]);
    assert_eq!(world.news, ["s0007 changed"]);
}

#[test]
fn a_version_that_never_comes_is_looked_for_twice() {
    let mut world = World::with(60);
    world.hint("s0007", Some("9"));
    assert_eq!(world.reads(), ["s0007"]);
    for reads in [1, 0, 0] {
        world.pass(SOON);
        world.run();
        assert_eq!(world.reads().len(), reads);
    }
}

#[test]
fn an_object_that_is_not_there_yet_is_looked_for_once_more() {
    let mut world = World::with(60);
    world.want("new", MINUTE);
    world.run();
    world.forget();
    world.hint("new", Some("1"));
    assert_eq!(world.reads(), ["new"]);
    world.put("new", 1);
    world.pass(SOON);
    world.run();
    assert_eq!(world.reads(), ["new"]);
    assert_eq!(world.news.last().map(String::as_str), Some("new changed"));
}

#[test]
fn a_hint_that_names_no_version_is_followed_once() {
    let mut world = World::with(60);
    world.hint("s0007", None);
    assert_eq!(world.reads(), ["s0007"]);
    world.pass(SOON);
    world.run();
    assert!(world.reads().is_empty());
    assert!(world.news.is_empty(), "that it is the same is no news");
}

#[test]
fn a_read_that_began_before_the_hint_does_not_count() {
    let mut world = World::with(60);
    world.survey.ask(&id("s0007"), Priority::Periodic, false);
    let before = world.survey.take_requests().remove(0).1;
    assert!(world.survey.start(0, &before, world.now));
    let old = world.get("s0007").expect("it is there");
    world.put("s0007", 2);
    world.hint("s0007", Some("2"));
    assert!(world.reads().is_empty(), "it is under way");
    let news = world.survey.read_done(0, &id("s0007"), old, world.now);
    world.take(news);
    world.run();
    assert_eq!(world.reads(), ["s0007"]);
    assert_eq!(world.news, ["s0007 changed"]);
}

#[test]
fn a_hint_at_what_nobody_wants_is_nothing() {
    let mut world = World::with(60);
    world.put("other", 1);
    world.hint("other", Some("1"));
    assert!(world.reads().is_empty());
}
