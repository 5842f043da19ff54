use super::*;
use crate::vault::{Collection, Identity, VaultErrorKind, VaultHost};

const MINUTE: Duration = Duration::from_secs(60);

fn host() -> VaultHost {
    crate::vault::survey::tests::host()
}

fn key(name: &str) -> ReadKey {
    ReadKey {
        collection: Collection::Secrets,
        vault: host(),
        identity: Identity::default(),
        name: name.to_owned(),
        version: None,
    }
}

fn secret(value: &str) -> Arc<VaultSecret> {
    Arc::new(VaultSecret {
        value: value.as_bytes().to_vec().into(),
        version: value.to_owned(),
        updated: None,
        not_before: None,
        expires: None,
    })
}

fn error(kind: VaultErrorKind) -> VaultError {
    VaultError::new(kind, &host(), "secret x", "")
}

/// Subscriptions whose effects are written down as words.
#[derive(Default)]
struct World {
    subscriptions: Subscriptions<&'static str>,
    effects: Vec<String>,
}

impl World {
    fn note(&mut self, effects: Vec<Effect<&'static str>>) {
        self.effects
            .extend(effects.into_iter().map(|effect| match effect {
                Effect::Want(key, interval) => format!("want {} {}", key.name, interval.as_secs()),
                Effect::Unwant(key) => format!("unwant {}", key.name),
                Effect::Ask { key, fresh, .. } if fresh => format!("ask {} anew", key.name),
                Effect::Ask { key, .. } => format!("ask {}", key.name),
                Effect::Awaits(who) => format!("{who} awaits"),
                Effect::Ready(who) => format!("{who} ready"),
            }));
    }

    fn want(&mut self, who: &'static str, names: &[&str]) -> Vec<String> {
        self.want_if_missing(who, names, IfMissing::Fail)
    }

    fn want_if_missing(
        &mut self,
        who: &'static str,
        names: &[&str],
        if_missing: IfMissing,
    ) -> Vec<String> {
        let reads: Vec<ReadKey> = names.iter().map(|name| key(name)).collect();
        let effects = self.subscriptions.want(&who, &reads, MINUTE, if_missing);
        self.note(effects);
        std::mem::take(&mut self.effects)
    }

    fn read(&mut self, name: &str, value: &str, changed: bool) -> Vec<String> {
        self.read_since(name, value, changed, Instant::now())
    }

    fn read_since(
        &mut self,
        name: &str,
        value: &str,
        changed: bool,
        began: Instant,
    ) -> Vec<String> {
        let effects = self
            .subscriptions
            .read(&key(name), &secret(value), began, changed);
        self.note(effects);
        std::mem::take(&mut self.effects)
    }

    fn fail(&mut self, name: &str, kind: VaultErrorKind, lasting: bool) -> Vec<String> {
        let effects = self.subscriptions.failed(&key(name), &error(kind), lasting);
        self.note(effects);
        std::mem::take(&mut self.effects)
    }

    fn well(&mut self, name: &str) -> Vec<String> {
        let effects = self.subscriptions.well(&key(name));
        self.note(effects);
        std::mem::take(&mut self.effects)
    }

    fn take(&mut self, who: &'static str) -> String {
        match self.subscriptions.take(&who) {
            None => "nothing".to_owned(),
            Some(Delivery::Unchanged) => "unchanged".to_owned(),
            Some(Delivery::Failed { place, error }) => {
                format!("{} at {place}", error.kind.as_str())
            }
            Some(Delivery::Content(content)) => {
                let version = |found: &Found| match found {
                    Ok(secret) => secret.version.clone(),
                    Err(error) => error.kind.as_str().to_owned(),
                };
                let versions: Vec<_> = content.iter().map(version).collect();
                versions.join(" ")
            }
        }
    }
}

#[test]
fn one_read_is_for_all_who_want_the_object() {
    let mut world = World::default();
    let first = world.want("a", &["x"]);
    assert_eq!(first, ["want x 60", "a awaits", "ask x"]);
    assert_eq!(world.want("b", &["x"]), ["b awaits", "ask x"]);
    assert_eq!(world.read("x", "1", true), ["a ready", "b ready"]);
    assert_eq!((world.take("a"), world.take("b")), ("1".into(), "1".into()));
}

#[test]
fn a_failure_says_which_object_it_is_about() {
    let mut world = World::default();
    world.want("a", &["x", "y", "z"]);
    world.fail("y", VaultErrorKind::NotFound, true);
    let delivery = world.subscriptions.take(&"a");
    assert!(matches!(delivery, Some(Delivery::Failed { place: 1, .. })));
}

#[test]
fn content_is_given_once_and_not_kept() {
    let mut world = World::default();
    world.want("a", &["x"]);
    let content = secret("1");
    let effects = world
        .subscriptions
        .read(&key("x"), &content, Instant::now(), true);
    assert_eq!(effects.len(), 1);
    assert_eq!(world.subscriptions.ready(), 1);
    assert_eq!(world.take("a"), "1");
    assert_eq!(world.take("a"), "nothing");
    assert_eq!(world.subscriptions.ready(), 0);
    assert_eq!(Arc::strong_count(&content), 1, "nobody holds it any more");
    assert_eq!(world.want("late", &["x"]), ["late awaits", "ask x"]);
}

#[test]
fn a_change_is_for_all_and_what_stayed_is_only_for_those_who_wait() {
    let mut world = World::default();
    for who in ["a", "b"] {
        world.want(who, &["x"]);
    }
    world.read("x", "1", true);
    for who in ["a", "b"] {
        world.take(who);
    }
    let effects = world.subscriptions.ask(&"b", Priority::New, None);
    world.note(effects);
    assert_eq!(std::mem::take(&mut world.effects), ["b awaits", "ask x"]);
    assert_eq!(world.read("x", "1", false), ["b ready"]);
    assert_eq!(
        (world.take("a"), world.take("b")),
        ("nothing".into(), "1".into())
    );
    assert_eq!(
        world.read("x", "2", true),
        ["a awaits", "a ready", "b awaits", "b ready"]
    );
}

#[test]
fn a_subscriber_is_given_all_its_objects_at_once() {
    let mut world = World::default();
    world.want("a", &["x", "y", "x"]);
    assert!(world.read("x", "1", true).is_empty());
    assert_eq!(world.take("a"), "nothing");
    assert_eq!(world.read("y", "2", true), ["a ready"]);
    assert_eq!(world.take("a"), "1 2 1");
    assert_eq!(world.read("y", "3", true), ["a awaits", "ask x"]);
    assert_eq!(world.read("x", "1", false), ["a ready"]);
    assert_eq!(world.take("a"), "1 3 1");
}

#[test]
fn who_asks_anew_is_not_given_what_was_read_before() {
    let mut world = World::default();
    world.want("a", &["x"]);
    let before = Instant::now();
    let now = before + Duration::from_secs(1);
    let effects = world.subscriptions.ask(&"a", Priority::Hinted, Some(now));
    world.note(effects);
    assert_eq!(
        std::mem::take(&mut world.effects),
        ["a awaits", "ask x anew"]
    );
    assert!(world.read_since("x", "1", true, before).is_empty());
    assert_eq!(world.read_since("x", "2", true, now), ["a ready"]);
    assert_eq!(world.take("a"), "2");
}

#[test]
fn the_first_failure_is_all_that_a_subscriber_is_told() {
    let mut world = World::default();
    world.want("a", &["x", "y"]);
    world.read("x", "1", true);
    assert_eq!(world.fail("y", VaultErrorKind::NotFound, true), ["a ready"]);
    assert_eq!(world.take("a"), "not_found at 1");
    assert_eq!(world.take("a"), "not_found at 1", "until it is over");
    assert!(world.fail("y", VaultErrorKind::NotFound, true).is_empty());
    assert_eq!(world.fail("x", VaultErrorKind::Disabled, true), ["a ready"]);
    assert_eq!(world.take("a"), "disabled at 0");
    assert_eq!(world.read("x", "1", false), ["a ready"]);
    assert_eq!(world.take("a"), "not_found at 1");
    assert_eq!(world.read("y", "2", true), ["ask x"]);
    assert_eq!(world.read("x", "1", false), ["a ready"]);
    assert_eq!(world.take("a"), "1 2");
}

#[test]
fn a_failure_that_may_pass_is_told_only_to_those_who_wait() {
    let mut world = World::default();
    for who in ["a", "b"] {
        world.want(who, &["x"]);
    }
    world.read("x", "1", true);
    for who in ["a", "b"] {
        world.take(who);
    }
    let effects = world.subscriptions.ask(&"b", Priority::New, None);
    world.note(effects);
    world.effects.clear();
    assert_eq!(
        world.fail("x", VaultErrorKind::Unreachable, false),
        ["b ready"]
    );
    assert_eq!(
        world.fail("x", VaultErrorKind::Unreachable, true),
        ["a ready"]
    );
    assert_eq!(world.read("x", "1", false), ["a ready", "b ready"]);
    assert_eq!(
        (world.take("a"), world.take("b")),
        ("unchanged".into(), "1".into())
    );
}

#[test]
fn who_failed_and_is_well_again_needs_no_content() {
    let mut world = World::default();
    world.want("a", &["x"]);
    world.read("x", "1", true);
    world.take("a");
    world.fail("x", VaultErrorKind::Unreachable, true);
    assert_eq!(world.well("x"), ["a ready"]);
    assert_eq!(world.take("a"), "unchanged");
    assert_eq!(world.take("a"), "nothing");
    assert!(world.well("x").is_empty());
}

#[test]
fn the_most_impatient_decides_how_often() {
    let mut world = World::default();
    world.want("a", &["x"]);
    let reads = [key("x")];
    let soon = Duration::from_secs(10);
    let fail = IfMissing::Fail;
    let effects = world.subscriptions.want(&"b", &reads, soon, fail);
    world.note(effects);
    assert_eq!(
        std::mem::take(&mut world.effects),
        ["want x 10", "b awaits", "ask x"]
    );
    let effects = world.subscriptions.want(&"b", &reads, MINUTE, fail);
    world.note(effects);
    assert_eq!(std::mem::take(&mut world.effects), ["want x 60"]);
}

#[test]
fn who_wants_something_else_is_given_that() {
    let mut world = World::default();
    world.want("a", &["x"]);
    world.read("x", "1", true);
    assert!(world.want("a", &["x"]).is_empty());
    assert_eq!(
        world.want("a", &["y"]),
        ["unwant x", "want y 60", "a awaits", "ask y"]
    );
    assert_eq!(world.subscriptions.ready(), 0);
    let effects = world.subscriptions.forget(&"a");
    world.note(effects);
    assert_eq!(world.effects, ["unwant y"]);
    assert_eq!(world.take("a"), "nothing");
}

/// A world in which `a` was given `x` and `y`, and leaves out what is missing.
fn lenient() -> World {
    let mut world = World::default();
    world.want_if_missing("a", &["x", "y"], IfMissing::LeaveOut);
    world.read("x", "1", true);
    world.read("y", "2", true);
    assert_eq!(world.take("a"), "1 2");
    world
}

#[test]
fn who_leaves_out_what_is_missing_is_given_the_others_once() {
    let mut world = lenient();
    let missing = VaultErrorKind::NotFound;
    assert_eq!(world.fail("x", missing, true), ["a awaits", "ask y"]);
    assert_eq!(world.read("y", "2", false), ["a ready"]);
    assert_eq!(world.subscriptions.ready(), 1);
    assert_eq!(world.take("a"), "not_found 2");
    assert_eq!(world.subscriptions.ready(), 0);
    assert!(world.fail("x", missing, true).is_empty(), "it is known");
    assert_eq!(world.take("a"), "nothing");

    // The other one changes: both are looked at.
    assert_eq!(world.read("y", "3", true), ["a awaits", "ask x"]);
    assert_eq!(world.fail("x", missing, true), ["a ready"]);
    assert_eq!(world.take("a"), "not_found 3");
}

#[test]
fn what_was_missing_is_given_when_it_comes_back_even_unchanged() {
    let mut world = lenient();
    world.fail("x", VaultErrorKind::Disabled, true);
    world.read("y", "2", false);
    assert_eq!(world.take("a"), "disabled 2");
    assert_eq!(world.read("x", "1", false), ["a awaits", "ask y"]);
    assert_eq!(world.read("y", "2", false), ["a ready"]);
    assert_eq!(world.take("a"), "1 2");
}

#[test]
fn what_is_missing_from_the_start_holds_nobody_up() {
    let mut world = World::default();
    world.want_if_missing("a", &["x", "y"], IfMissing::LeaveOut);
    assert!(world.fail("x", VaultErrorKind::NotFound, true).is_empty());
    assert_eq!(world.fail("y", VaultErrorKind::Disabled, true), ["a ready"]);
    assert_eq!(world.take("a"), "not_found disabled");
}

#[test]
fn another_failure_is_one_also_for_who_leaves_out_what_is_missing() {
    let mut world = lenient();
    assert_eq!(
        world.fail("x", VaultErrorKind::Forbidden, true),
        ["a ready"]
    );
    assert_eq!(world.take("a"), "forbidden at 0");
    // What it fails by now is none.
    assert_eq!(
        world.fail("x", VaultErrorKind::NotFound, true),
        ["a awaits", "ask y"]
    );
    assert_eq!(world.read("y", "2", false), ["a ready"]);
    assert_eq!(world.take("a"), "not_found 2");
    // It fails, and is then said to be as it was read: not missing any more.
    world.fail("x", VaultErrorKind::Unreachable, true);
    assert_eq!(world.take("a"), "unreachable at 0");
    assert_eq!(world.well("x"), ["a awaits", "ask x", "ask y"]);
    world.read("x", "1", false);
    assert_eq!(world.read("y", "2", false), ["a ready"]);
    assert_eq!(world.take("a"), "1 2");
}

#[test]
fn who_leaves_out_what_is_missing_only_now_is_given_all_anew() {
    let mut world = World::default();
    world.want("a", &["x"]);
    world.fail("x", VaultErrorKind::NotFound, true);
    assert_eq!(world.take("a"), "not_found at 0");
    let wanted = world.want_if_missing("a", &["x"], IfMissing::LeaveOut);
    assert_eq!(wanted, ["a awaits", "ask x"]);
    assert_eq!(world.fail("x", VaultErrorKind::NotFound, true), ["a ready"]);
    assert_eq!(world.take("a"), "not_found");
    assert_eq!(world.take("a"), "nothing", "it was no failure");
}
