use proptest::prelude::*;
use serde_json::json;

use super::super::record::Content;
use super::*;
use crate::api::{DeletionPolicy, KeyVaultMirrorSpec, ObjectKind, SecretType, VaultRef};
use crate::render::{self, sources};
use crate::vault::{Collection, DnsSuffixes, Identity, VaultErrorKind};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn host() -> VaultHost {
    let suffixes: DnsSuffixes = "vault.azure.net".parse().expect("a suffix");
    let vault = VaultRef {
        name: Some("contoso".into()),
        url: None,
    };
    suffixes.host(&vault).expect("a host")
}

/// A version in the vault. Its value is its digest too.
#[derive(Clone, Debug)]
struct Version {
    value: String,
    enabled: bool,
    expires: Option<i64>,
}

/// A vault with one secret, a mirror of it, and a workload that may ask for the content before.
#[derive(Clone, Debug)]
struct World {
    now: i64,
    versions: Vec<Version>,
    spec: KeyVaultMirrorSpec,
    record: Record,
    request: Option<RevertRequest>,
    /// Reads that have failed for good, as the daemon remembers them.
    lost: BTreeMap<ReadKey, VaultError>,
}

impl World {
    /// The Secret has had these contents, one after the other.
    fn new(values: &[&str]) -> Self {
        let spec = json!({
            "vault": {"name": "contoso"},
            "data": [{"key": "token", "object": {"name": "pat"}}],
            "target": {"name": "t"},
        });
        let record = Record {
            mirror: "m".into(),
            digest_key: "k".into(),
            type_: SecretType::default(),
            deletion_policy: DeletionPolicy::Delete,
            shared: false,
            written: None,
            immutable: false,
            adopted: false,
            matched: None,
            keys: BTreeMap::new(),
        };
        let mut world = Self {
            now: 1000,
            versions: Vec::new(),
            spec: serde_json::from_value(spec).expect("a spec"),
            record,
            request: None,
            lost: BTreeMap::new(),
        };
        for value in values {
            world.set(value);
            world.look().expect("content");
        }
        world
    }

    fn set(&mut self, value: &str) {
        self.versions.push(Version {
            value: value.to_owned(),
            enabled: true,
            expires: None,
        });
    }

    fn current(&self) -> String {
        (self.versions.len() - 1).to_string()
    }

    fn key(&self) -> &KeyRecord {
        &self.record.keys["token"]
    }

    /// The rollout of what the Secret has now fails, where the Pods had that before.
    fn fail(&mut self, before: Option<&str>) {
        self.request = Some(RevertRequest {
            digest_key: "k".into(),
            failed: self.key().digest.clone(),
            before: before.map(str::to_owned),
            because: "it failed".into(),
        });
    }

    fn read(&self, read: &ReadKey) -> Result<Arc<VaultSecret>, VaultError> {
        let version = read.version.clone().unwrap_or_else(|| self.current());
        let found = &self.versions[version.parse::<usize>().expect("a number")];
        if !found.enabled {
            let kind = VaultErrorKind::Disabled;
            return Err(VaultError::new(kind, &host(), "secret pat", ""));
        }
        Ok(Arc::new(VaultSecret {
            value: found.value.clone().into_bytes().into(),
            version,
            updated: None,
            not_before: None,
            expires: found.expires.map(at),
        }))
    }

    /// The mirror looks, as the controller does. The error is that the target stays as it is.
    fn look(&mut self) -> Result<Reverted, VaultError> {
        let sources = sources(&self.spec);
        let reads: Vec<ReadKey> = sources
            .iter()
            .map(|source| ReadKey {
                vault: host(),
                identity: Identity::default(),
                collection: Collection::Secrets,
                name: source.name.clone(),
                version: source.version.clone(),
            })
            .collect();
        let requests: Vec<_> = self
            .request
            .iter()
            .map(|request| ("token".to_owned(), request.clone()))
            .collect();
        let record = (!self.record.keys.is_empty()).then_some(&self.record);
        let mut found: Vec<Found> = Vec::new();
        for read in &reads {
            found.push(Ok(self.read(read)?));
        }
        let prior = loop {
            let mut prior = PriorVersions::of(&host(), &sources, record, &requests);
            prior.lose(&reads, &mut self.lost);
            let earlier = prior.reads(&reads);
            let failed = earlier
                .iter()
                .find_map(|it| Some((it, self.read(it).err()?)));
            match failed {
                None => {
                    let content = |it| Ok(self.read(it).expect("content"));
                    found.extend(earlier.iter().map(content));
                    break prior;
                }
                Some((read, error)) => {
                    let known = self.lost.insert(read.clone(), error);
                    assert!(
                        known.is_none(),
                        "what is known to be lost is not read again"
                    );
                }
            }
        };
        let mut reverted = prior.open(sources.len(), &found, at(self.now))?;
        let keys = loop {
            let keys = self.rendered(&sources, &found, &reverted);
            match reverted.check(&keys) {
                Ok(()) => break keys,
                Err(refusal) => reverted.refuse(refusal),
            }
        };
        let next = |(key, content): (&String, &Content)| {
            let before = self.record.keys.get(key);
            (key.clone(), content.record(before, true, at(self.now)))
        };
        self.record.keys = keys.iter().map(next).collect();
        Ok(reverted)
    }

    fn rendered(
        &self,
        sources: &[Source],
        found: &[Found],
        reverted: &Reverted,
    ) -> BTreeMap<String, Content> {
        let found = reverted
            .found(sources.len(), found)
            .into_iter()
            .map(|it| it.expect("content"));
        let contents = sources.iter().cloned().zip(found).collect();
        let rendered = render::render(&self.spec, &contents).expect("data");
        let content = |(key, from): (String, render::RenderedKey)| {
            let object = record::object(&host(), from.kind, &from.object);
            let version = from.secret.version.clone();
            let content = Content {
                digest: String::from_utf8_lossy(from.identity()).into_owned(),
                failed: reverted.failed(&object, &version).map(str::to_owned),
                object,
                version,
                updated: None,
                expires: from.secret.expires,
            };
            (key, content)
        };
        rendered.into_iter().map(content).collect()
    }

    #[track_caller]
    fn has(&self, value: &str, failed: Option<&str>) {
        let key = self.key();
        assert_eq!((&*key.digest, key.failed.as_deref()), (value, failed));
    }

    #[track_caller]
    fn refuses(&mut self) -> CannotRevert {
        let reverted = self.look().expect("content");
        assert_eq!(reverted.steps().count(), 0);
        *reverted.refusal.expect("a refusal")
    }
}

#[test]
fn content_whose_rollout_failed_is_the_one_before_until_the_vault_has_another_version() {
    let mut world = World::new(&["a", "b"]);
    world.fail(Some("a"));
    let reverted = world.look().expect("content");
    assert_eq!(reverted.because.as_deref(), Some("it failed"));
    world.has("a", Some("1"));
    world.request = None;
    world.look().expect("content");
    world.has("a", Some("1"));
    world.set("c");
    world.look().expect("content");
    world.has("c", None);
    assert_eq!(world.key().previous.as_deref(), Some("0"));
}

#[test]
fn what_was_gone_back_to_is_not_gone_back_from() {
    let mut world = World::new(&["z", "a", "b"]);
    world.fail(Some("a"));
    world.look().expect("content");
    world.fail(Some("z"));
    let reverted = world.look().expect("content");
    assert!(matches!(
        reverted.refusal.as_deref(),
        Some(CannotRevert::Twice { .. })
    ));
    world.has("a", Some("2"));
}

#[test]
fn a_failure_of_other_content_than_the_target_has_asks_for_nothing() {
    let mut world = World::new(&["a", "b"]);
    world.fail(Some("a"));
    world.set("c");
    world.look().expect("content");
    world.has("c", None);
    let reverted = world.look().expect("content");
    assert!(reverted.refusal.is_none() && reverted.because.is_none());
    let request = world.request.as_mut().expect("a request");
    (request.failed, request.digest_key) = ("c".into(), "another".into());
    world.look().expect("content");
    world.has("c", None);
}

#[test]
fn newer_content_is_given_its_chance_before_the_older() {
    let mut world = World::new(&["a", "b"]);
    world.fail(Some("a"));
    // It comes with the very read that was to be of the version before.
    world.set("c");
    let reverted = world.look().expect("content");
    assert!(reverted.refusal.is_none() && !reverted.is_asked());
    world.has("c", None);
}

#[test]
fn where_there_is_no_way_the_content_stays_and_says_why() {
    let mut first = World::new(&["a"]);
    first.fail(None);
    assert!(matches!(first.refuses(), CannotRevert::Unknown { .. }));
    first.has("a", None);

    let failing = || {
        let mut world = World::new(&["a", "b"]);
        world.fail(Some("a"));
        world
    };
    let mut expired = failing();
    expired.versions[0].expires = Some(expired.now);
    assert!(matches!(expired.refuses(), CannotRevert::Expired { .. }));

    let mut disabled = failing();
    disabled.versions[0].enabled = false;
    assert!(matches!(disabled.refuses(), CannotRevert::Unreadable(_)));

    let mut unused = failing();
    unused.fail(Some("z"));
    assert!(matches!(unused.refuses(), CannotRevert::NeverUsed { .. }));

    let mut pinned = failing();
    pinned.spec.data[0].object.version = Some("1".into());
    assert!(matches!(pinned.refuses(), CannotRevert::Pinned { .. }));

    for world in [expired, disabled, unused, pinned] {
        world.has("b", None);
    }
}

#[test]
fn whoever_asks_for_a_version_gets_it_also_if_it_has_failed() {
    let mut world = World::new(&["a", "b"]);
    world.fail(Some("a"));
    world.look().expect("content");
    world.request = None;
    world.spec.data[0].object.version = Some("1".into());
    world.look().expect("content");
    world.has("b", None);
}

#[test]
fn a_version_that_was_gone_back_to_and_can_not_be_read_any_more_stays_until_the_vault_has_another()
{
    let mut world = World::new(&["a", "b"]);
    world.fail(Some("a"));
    world.look().expect("content");
    world.versions[0].enabled = false;
    let error = world.look().expect_err("an error");
    assert_eq!(error.kind, VaultErrorKind::Disabled);
    world.has("a", Some("1"));
    world.set("c");
    world.look().expect("content");
    world.has("c", None);
    world.look().expect("content");
    assert!(world.lost.is_empty(), "what is of no interest is forgotten");
}

#[test]
fn of_contents_that_failed_together_all_are_gone_back_from_or_none() {
    let sources = [source("user", None), source("password", None)];
    let key = |object: &str, previous: Option<&str>| KeyRecord {
        previous: previous.map(str::to_owned),
        ..key_of(object)
    };
    let requests = ["user", "password"].map(|object| {
        let request = RevertRequest {
            digest_key: "k".into(),
            failed: format!("{object}-b"),
            before: Some(format!("{object}-a")),
            because: "it failed".into(),
        };
        (object.to_owned(), request)
    });
    for (previous, steps) in [(Some("0"), 2), (None, 0)] {
        let mut record = World::new(&[]).record;
        record.keys.insert("user".into(), key("user", Some("0")));
        record
            .keys
            .insert("password".into(), key("password", previous));
        let prior = PriorVersions::of(&host(), &sources, Some(&record), &requests);
        assert_eq!(prior.asked.len(), steps);
        assert_eq!(prior.refusal.is_some(), steps == 0);
    }
}

#[test]
fn what_can_not_be_read_any_more_holds_up_what_has_the_failed_version_alone() {
    let names = ["a", "b"];
    let sources = names.map(|name| source(name, None));
    let read = |source: &Source| ReadKey {
        vault: host(),
        identity: Identity::default(),
        collection: Collection::Secrets,
        name: source.name.clone(),
        version: None,
    };
    let reads = sources.each_ref().map(read);
    let secret = |version: &str| {
        Ok(Arc::new(VaultSecret {
            value: Vec::new().into(),
            version: version.to_owned(),
            updated: None,
            not_before: None,
            expires: None,
        }))
    };
    let mut record = World::new(&[]).record;
    for name in names {
        let key = KeyRecord {
            failed: Some("2".into()),
            ..key_of(name)
        };
        record.keys.insert(name.to_owned(), key);
    }
    let prior = || {
        let mut prior = PriorVersions::of(&host(), &sources, Some(&record), &[]);
        let gone = ReadKey {
            version: Some("1".into()),
            ..reads[0].clone()
        };
        let error = VaultError::new(VaultErrorKind::Disabled, &host(), "secret a", "");
        prior.lose(&reads, &mut BTreeMap::from([(gone, error)]));
        assert_eq!(prior.reads(&reads).len(), 1);
        prior
    };
    let open = |a: &str| prior().open(2, &[secret(a), secret("2"), secret("1")], at(9));
    assert!(open("2").is_err(), "the vault still has what failed");
    let reverted = open("3").expect("a newer version");
    let steps: Vec<_> = reverted.steps().map(|step| &*step.object).collect();
    assert_eq!(steps, [&*record.keys["b"].object]);
}

#[test]
fn of_what_a_template_makes_of_several_objects_there_is_no_version_before() {
    let mut record = World::new(&["a", "b"]).record;
    let key = record.keys.get_mut("token").expect("a key");
    key.object = record::object(&host(), ObjectKind::Secret, "password, user");
    let request = RevertRequest {
        digest_key: "k".into(),
        failed: key.digest.clone(),
        before: None,
        because: "it failed".into(),
    };
    let requests = [("token".to_owned(), request)];
    let sources = [source("password", None), source("user", None)];
    let prior = PriorVersions::of(&host(), &sources, Some(&record), &requests);
    assert!(matches!(prior.refusal, Some(CannotRevert::Several { .. })));
}

/// The record of a key with version 1 of an object.
fn key_of(object: &str) -> KeyRecord {
    KeyRecord {
        digest: format!("{object}-b"),
        object: record::object(&host(), ObjectKind::Secret, object),
        version: "1".into(),
        updated: None,
        expires: None,
        changed: at(1),
        first: false,
        unsettled_since: None,
        previous: None,
        failed: None,
    }
}

fn source(name: &str, version: Option<&str>) -> Source {
    Source {
        kind: ObjectKind::Secret,
        collection: Collection::Secrets,
        name: name.to_owned(),
        version: version.map(str::to_owned),
    }
}

/// What may happen.
#[derive(Clone, Debug)]
enum Happening {
    Set(u8),
    Disable(usize),
    Enable(usize),
    Expire(usize),
    /// The rollout fails; the Pods had the content before, or another one.
    Fail {
        had_it: bool,
    },
    Mend,
    Restart,
    Look,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    prop_oneof![
        2 => (0..3u8).prop_map(Set),
        1 => (0..8usize).prop_map(Disable),
        1 => (0..8usize).prop_map(Enable),
        1 => (0..8usize).prop_map(Expire),
        4 => proptest::bool::weighted(0.9).prop_map(|had_it| Fail { had_it }),
        1 => Just(Mend),
        1 => Just(Restart),
        6 => Just(Look),
    ]
}

proptest! {
    #[test]
    fn no_version_is_gone_back_from_twice_nor_to_one_that_must_not_be_used(
        happenings in proptest::collection::vec(happening(), 1..60),
    ) {
        let mut world = World::new(&["a", "b"]);
        let mut gone_back_from = BTreeSet::new();
        for happening in happenings {
            world.now += 1;
            let last = world.versions.len() - 1;
            match happening {
                Happening::Set(value) => world.set(&value.to_string()),
                Happening::Disable(version) => world.versions[version.min(last)].enabled = false,
                Happening::Enable(version) => world.versions[version.min(last)].enabled = true,
                Happening::Expire(version) => {
                    world.versions[version.min(last)].expires = Some(world.now);
                }
                Happening::Fail { had_it } => {
                    let previous = world.key().previous.clone();
                    let previous = previous.and_then(|it| it.parse::<usize>().ok());
                    let had = previous.map(|it| world.versions[it].value.clone());
                    world.fail(had.as_deref().filter(|_| had_it));
                }
                Happening::Mend => world.request = None,
                Happening::Restart => world.lost.clear(),
                Happening::Look => {
                    let before = world.key().clone();
                    let mut restarted = world.clone();
                    // What is lost is known again after a read; nothing else is remembered.
                    restarted.lost.clear();
                    let looked = world.look();
                    let current = world.current();
                    let is_enabled = world.versions[last].enabled;
                    let is_news = looked.is_ok() && before.failed.as_ref() != Some(&current);
                    let key = world.key();
                    if !is_enabled || looked.is_err() {
                        prop_assert_eq!(key, &before);
                    } else if key.failed.is_some() {
                        prop_assert_eq!(key.failed.as_ref(), Some(&current));
                        if is_news {
                            let to = &world.versions[key.version.parse::<usize>().expect("a number")];
                            prop_assert!(to.enabled && to.expires.is_none_or(|it| it > world.now));
                            prop_assert!(gone_back_from.insert(current), "twice");
                            prop_assert!(world.request.is_some(), "nobody asked");
                        }
                    } else {
                        prop_assert_eq!(&key.version, &current);
                    }
                    let lost = world.lost.clone();
                    let again = restarted.look();
                    // One that remembers that a version was lost looks no more; else all is the same.
                    if lost == restarted.lost {
                        prop_assert_eq!(&restarted.record, &world.record);
                        prop_assert_eq!(again.is_ok(), looked.is_ok());
                    }
                }
            }
        }
    }
}
