//! Storms: all that a vault can do wrong, by seeded schedules, while its content changes. No Secret ever goes back, or gets what
//! the vault never had; the vault is never asked more often than allowed; and once it is calm, every mirror has what is there.
//!
//! What the engine decides in any order of events is shown in virtual time (`src/vault/engine/tests.rs`); here it is the real
//! daemon, its HTTP, its tokens and the API server.

use std::time::{Duration, Instant};

use futures::future::join_all;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Secret;
use keytide::api::KeyVaultMirror;
use keytide::devvault::{Changes, DevVault, Fault, Operation, Written};
use kube::ResourceExt;
use kube::api::ListParams;
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::json;

use crate::fixture::{Contents, Fixture, QUICK, SOON};
use crate::testbed::eventually;

const SEEDS: [u8; 3] = [1, 2, 3];
/// Two pages of a list.
const OBJECTS: usize = 30;
/// The mirrors' interval, which is the fixture's.
const INTERVAL: Duration = Duration::from_secs(10);
const STORM: Duration = Duration::from_secs(12);
/// How long the API server and a busy machine may take on top of what the vault's side is allowed.
const SLACK: Duration = Duration::from_secs(5);
/// So few that it matters here: `--vault-requests-per-second`, and as many at once.
const PER_SECOND: u32 = 10;
/// How much later than it is let go a request is counted.
const LATE: Duration = Duration::from_millis(500);

struct Version {
    written: Written,
    value: String,
    enabled: bool,
}

/// An object of the vault.
struct Object {
    name: String,
    /// Those that are there; the last is the current one.
    versions: Vec<Version>,
    is_deleted: bool,
    /// All values that it ever had, in order.
    history: Vec<String>,
}

impl Object {
    fn current(&self) -> &Version {
        self.versions.last().expect("it has a version")
    }

    /// What a mirror of it is to have, or the reason that it is to give.
    fn expected(&self) -> Result<&str, &'static str> {
        match self.current() {
            _ if self.is_deleted => Err("ObjectNotFound"),
            version if !version.enabled => Err("ObjectDisabled"),
            version => Ok(&version.value),
        }
    }

    /// Whether it had these values in this order, with or without others between them.
    fn had(&self, values: &[String]) -> bool {
        let mut history = self.history.iter().peekable();
        values.iter().all(|value| {
            while history.next_if(|had| *had != value).is_some() {}
            history.peek().is_some()
        })
    }
}

/// A vault of its own, what is done to it, and its mirrors: each has an object and the next one.
struct Storm {
    fixture: Fixture,
    random: TestRng,
    seed: u8,
    objects: Vec<Object>,
    /// When the dev vault had counted how many requests.
    counts: Vec<(Instant, u64)>,
}

impl Storm {
    async fn new(seed: u8) -> Self {
        let fixture = Fixture::new(&format!("storm{seed}")).await;
        let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
        let ahead = SignedDuration::from_mins(random.random_range(-90..=90));
        let azure = fixture.azure();
        azure
            .set_clock_ahead(&fixture.vault, ahead)
            .expect("a vault");
        let mut storm = Self {
            fixture,
            random,
            seed,
            objects: Vec::new(),
            counts: Vec::new(),
        };
        for number in 0..OBJECTS {
            storm.objects.push(Object {
                name: format!("s{number:02}"),
                versions: Vec::new(),
                is_deleted: false,
                history: Vec::new(),
            });
            storm.write(number);
        }
        storm
    }

    fn azure(&self) -> &DevVault {
        self.fixture.azure()
    }

    fn objects_of(&self, mirror: usize) -> [(&'static str, &Object); 2] {
        let of = |number: usize| &self.objects[number % OBJECTS];
        [("a", of(mirror)), ("b", of(mirror + 1))]
    }

    async fn apply_mirrors(&self) {
        let mirrors: Vec<_> = (0..OBJECTS)
            .map(|mirror| {
                let data = self
                    .objects_of(mirror)
                    .map(|(key, object)| (key, &*object.name));
                let name = format!("m{mirror:02}");
                self.fixture.mirror(&name, &name, &data)
            })
            .collect();
        let list = json!({"apiVersion": "v1", "kind": "List", "items": mirrors});
        self.fixture.apply(&list).await;
    }

    /// Gives an object a new value.
    fn write(&mut self, number: usize) {
        let object = &self.objects[number];
        let value = format!("{}-{}", object.name, object.history.len());
        let written = self.fixture.set(&object.name, &value);
        let object = &mut self.objects[number];
        object.history.push(value.clone());
        object.versions.push(Version {
            written,
            value,
            enabled: true,
        });
    }

    /// Leaves an object as it was before, unless `updated` is the same: that a list can't show.
    fn restore(&mut self, number: usize) {
        let object = &self.objects[number];
        let (current, older) = object.versions.split_last().expect("it has a version");
        let differs = |version: &&Version| version.written.updated != current.written.updated;
        let older: Vec<&Version> = older.iter().filter(differs).collect();
        if older.is_empty() {
            return;
        }
        let version = older[self.random.random_range(0..older.len())];
        let (id, value) = (&version.written.version, version.value.clone());
        let restored = self.fixture.azure().restore_secret(
            &self.fixture.vault,
            &object.name,
            &version.written,
        );
        restored.expect("restored");
        let place = object
            .versions
            .iter()
            .position(|version| version.written.version == *id);
        let object = &mut self.objects[number];
        object.versions.truncate(place.expect("it is there") + 1);
        object.history.push(value);
    }

    /// Does something to an object that its owner might do.
    fn change(&mut self) {
        let number = self.random.random_range(0..OBJECTS);
        let (azure, vault) = (self.fixture.azure(), &self.fixture.vault);
        let object = &mut self.objects[number];
        match self.random.random_range(0..8) {
            _ if object.is_deleted => {
                azure
                    .recover_secret(vault, &object.name)
                    .expect("recovered");
                object.is_deleted = false;
            }
            0 => {
                azure.delete_secret(vault, &object.name).expect("deleted");
                object.is_deleted = true;
            }
            1 => {
                let version = object.versions.last_mut().expect("it has a version");
                let changes = Changes {
                    enabled: Some(!version.enabled),
                    ..Changes::default()
                };
                let written = azure.update_secret(vault, &object.name, changes);
                version.written = written.expect("updated");
                version.enabled = !version.enabled;
            }
            2 => self.restore(number),
            _ => self.write(number),
        }
    }

    /// Something that the vault does wrong.
    fn fault(&mut self) -> Fault {
        let random = &mut self.random;
        let code = |code: &str| Fault {
            innererror_code: Some(code.to_owned()),
            ..Fault::status(403)
        };
        let millis = |millis| Duration::from_millis(millis);
        let mut fault = match random.random_range(0..15) {
            0 => Fault::status(500),
            1 => Fault::status(503),
            2 => Fault::status(429),
            3 | 4 => Fault {
                retry_after: Some(random.random_range(1..4)),
                ..Fault::status([429, 503][random.random_range(0..2)])
            },
            5 => code("ForbiddenByFirewall"),
            6 => code("ForbiddenByRbac").on(Operation::List),
            7 => code("ForbiddenByRbac").on(Operation::Get),
            8 => Fault::status(404).on(Operation::Get),
            9 => Fault::status(400).on(Operation::List).on_next_pages(),
            10 => Fault::delay(millis(random.random_range(50..4000))),
            11 => Fault::drop(),
            12 => Fault {
                other_ca: true,
                ..Fault::default()
            },
            13 => Fault {
                wrong_audience: true,
                ..Fault::default()
            },
            // A replica of what is listed may lag by more than one of what is read: at most the time for which an object counts as
            // unsettled.
            _ if random.random_bool(0.5) => {
                Fault::lag(millis(random.random_range(0..15_000))).on(Operation::List)
            }
            _ => Fault::lag(millis(random.random_range(0..1500))).on(Operation::Get),
        };
        if fault.matching.operation == Some(Operation::Get) && random.random_bool(0.7) {
            fault = fault.for_secret(&self.objects[random.random_range(0..OBJECTS)].name);
        }
        if random.random_bool(0.5) {
            fault = fault.times(random.random_range(1..12));
        }
        fault
    }

    async fn disturb(&mut self) {
        match self.random.random_range(0..12) {
            0..4 => self.change(),
            4 => (0..8).for_each(|_| self.change()),
            5..9 => {
                let count = self.random.random_range(1..4);
                let faults = (0..count).map(|_| self.fault()).collect();
                let set = self.azure().set_faults(&self.fixture.vault, faults);
                set.expect("faults");
            }
            9 => self.clear(),
            10 => {
                let faults = vec![Fault::status(500).times(self.random.random_range(1..4))];
                self.azure().set_faults("imds", faults).expect("faults");
                self.azure().expire_tokens();
            }
            _ => {
                let mirror = self.random.random_range(0..OBJECTS);
                self.fixture.sync_now(&format!("m{mirror:02}")).await;
            }
        }
    }

    fn clear(&self) {
        let cleared = self.azure().clear_faults(&self.fixture.vault);
        cleared.expect("cleared");
    }

    fn count(&mut self) {
        let requests = self.azure().requests();
        let by_kind = requests.operations.get(&self.fixture.host());
        let sum = by_kind.map_or(0, |by_kind| by_kind.values().sum());
        self.counts.push((Instant::now(), sum));
    }

    /// Something every now and then, for as long as the storm lasts.
    async fn rage(&mut self) {
        let end = Instant::now() + STORM;
        let mut next = Instant::now();
        while Instant::now() < end {
            if next <= Instant::now() {
                self.disturb().await;
                next = Instant::now() + Duration::from_millis(self.random.random_range(20..800));
            }
            self.count();
            tokio::time::sleep(LATE / 10).await;
        }
    }

    /// Whether every mirror has what the vault has, or says why not.
    async fn is_calm(&mut self) -> Result<(), String> {
        self.count();
        let (all, error) = (ListParams::default(), |error: kube::Error| {
            error.to_string()
        });
        let secrets = self.fixture.secrets().list(&all).await.map_err(error)?;
        let mirrors = self.fixture.mirrors().list(&all).await.map_err(error)?;
        for number in 0..OBJECTS {
            let name = format!("m{number:02}");
            let mirror = mirrors.iter().find(|mirror| mirror.name_any() == name);
            let secret = secrets.iter().find(|secret| secret.name_any() == name);
            let objects = self.objects_of(number);
            let reason = mirror.and_then(reason).unwrap_or_default();
            let failing: Vec<_> = objects
                .iter()
                .filter_map(|(_, object)| object.expected().err())
                .collect();
            let well = if failing.is_empty() {
                let has = |(key, object): &(&str, &Object)| {
                    secret.and_then(|secret| content(secret, key)) == object.expected().ok()
                };
                reason == "Mirrored" && objects.iter().all(has)
            } else {
                failing.contains(&reason)
            };
            if !well {
                let expected = objects.map(|(_, object)| object.expected());
                let contents = ["a", "b"].map(|key| secret.and_then(|secret| content(secret, key)));
                return Err(format!(
                    "seed {}: {name} says {reason} and has {contents:?}, where the vault has {expected:?}",
                    self.seed
                ));
            }
        }
        Ok(())
    }

    fn assert_never_back(&self, contents: &Contents) {
        for mirror in 0..OBJECTS {
            for (key, object) in self.objects_of(mirror) {
                let seen = &contents[&(format!("m{mirror:02}"), key.to_owned())];
                assert!(
                    object.had(seen),
                    "seed {}: m{mirror:02} had {seen:?}, and the vault {:?}",
                    self.seed,
                    object.history
                );
            }
        }
    }

    fn assert_within_rate(&self) {
        let per_second = f64::from(PER_SECOND);
        for (index, (begin, before)) in self.counts.iter().enumerate() {
            for (end, count) in &self.counts[index..] {
                let time = (*end - *begin + LATE).as_secs_f64();
                let requests = (count - before) as f64;
                assert!(
                    requests <= per_second + time * per_second,
                    "seed {}: {requests} requests in {time} s",
                    self.seed
                );
            }
        }
    }
}

fn content<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    let content = secret.data.as_ref()?.get(key)?;
    std::str::from_utf8(&content.0).ok()
}

fn reason(mirror: &KeyVaultMirror) -> Option<&str> {
    let conditions = &mirror.status.as_ref()?.conditions;
    let ready = conditions
        .iter()
        .find(|condition| condition.type_ == "Ready");
    Some(&ready?.reason)
}

async fn are_calm(storms: &mut [Storm], deadline: Duration) {
    join_all(storms.iter_mut().map(async |storm| {
        eventually(deadline, "all is mirrored", async || storm.is_calm().await).await;
    }))
    .await;
}

#[tokio::test]
async fn after_any_faults_every_mirror_has_what_the_vault_has_and_none_ever_went_back() {
    let mut storms = join_all(SEEDS.map(Storm::new)).await;
    let fixture = Fixture::without_grant("storms").await;
    let mut shared = fixture.daemon_alone().await;
    assert_eq!(shared.terminate().await.expect("ended"), 0);
    let log = fixture.testbed.log_file("keytide-storms.log");
    let rate = PER_SECOND.to_string();
    let arguments = [&QUICK[..], &["--vault-requests-per-second", &rate]].concat();
    let daemon = fixture.system().daemon(&log, &arguments, &[]).await;
    let mut daemon = daemon.expect("a daemon");

    let contents: Vec<_> = storms.iter().map(|storm| storm.fixture.record()).collect();
    join_all(storms.iter().map(Storm::apply_mirrors)).await;
    are_calm(&mut storms, SOON).await;
    join_all(storms.iter_mut().map(Storm::rage)).await;
    for host in storms
        .iter()
        .map(|storm| &*storm.fixture.vault)
        .chain(["imds"])
    {
        fixture.azure().clear_faults(host).expect("cleared");
    }
    are_calm(&mut storms, INTERVAL * 2 + SLACK).await;

    for (storm, contents) in storms.iter().zip(contents) {
        storm.assert_never_back(&contents.lock().expect("not poisoned"));
        storm.assert_within_rate();
    }

    assert_eq!(daemon.terminate().await.expect("ended"), 0);
    let log = fixture.testbed.log_file("keytide-after-storms.log");
    *shared = fixture
        .system()
        .daemon(&log, &QUICK, &[])
        .await
        .expect("a daemon");
}
