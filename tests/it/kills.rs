//! Kills: the daemon is lost at random steps while Secrets change. Afterwards every workload was rolled exactly once for each change of
//! its Secret, and none was left out.
//!
//! What is decided in any order of events is shown by a thousand schedules in a model (`src/rotation/simulation_tests.rs`); here it
//! is the real daemon and the API server.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams};
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::fixture::{Fixture, QUICK, SOON, revision};
use crate::policies::{policy, under};
use crate::testbed::audit::Audit;
use crate::testbed::daemon::Daemon;
use crate::testbed::eventually;
use crate::testbed::system::RELEASE;

/// Object of the vault, mirror and Secret.
const SECRETS: [[&str; 3]; 2] = [["s", "m", "t"], ["r", "n", "u"]];
/// Deployment and its Secret.
const WORKLOADS: [(&str, &str); 3] = [("a", "t"), ("b", "u"), ("c", "t")];
/// Changes in a schedule, after the installation.
const CHANGES: usize = 2;
/// Kills during each of them.
const KILLS: usize = 2;
/// A kill comes after fewer writes of the daemon's than this. A change of both Secrets takes fifteen.
const STEPS: usize = 9;
/// The Secret of the digest key, in the daemon's namespace.
const DIGEST_KEY: &str = "keytide-digest-key";
/// How often it is looked how far the daemon is: its writes come milliseconds after one another.
const STEP_PAUSE: Duration = Duration::from_millis(5);

/// Schedules; the bar is for 20.
fn schedules() -> u8 {
    let told = std::env::var("KEYTIDE_TEST_KILLS").ok();
    told.and_then(|number| number.parse().ok()).unwrap_or(2)
}

/// A namespace, what is done in it, and what should have come of it.
struct Schedule {
    fixture: Fixture,
    random: TestRng,
    seed: u8,
    /// By object.
    contents: BTreeMap<&'static str, String>,
    /// How often each Deployment is to have been rolled.
    rotations: BTreeMap<&'static str, usize>,
}

impl Schedule {
    async fn new(seed: u8) -> Self {
        Self {
            fixture: Fixture::new(&format!("kills{seed}")).await,
            random: TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]),
            seed,
            contents: BTreeMap::new(),
            rotations: WORKLOADS.map(|(workload, _)| (workload, 0)).into(),
        }
    }

    fn write(&mut self, object: &'static str, change: usize) {
        let content = format!("{object}-{change}");
        self.fixture.set(object, &content);
        self.contents.insert(object, content);
    }

    /// Everything at once, as a release has it.
    async fn install(&mut self) {
        for [object, ..] in SECRETS {
            self.write(object, 0);
        }
        let fixture = &self.fixture;
        let mut items = vec![policy("p", &json!({"maxConcurrent": 2}))];
        items.extend(
            SECRETS.map(|[object, name, target]| fixture.mirror(name, target, &[("k", object)])),
        );
        items.extend(WORKLOADS.map(|(workload, target)| {
            let mut deployment = under(fixture, workload, "p");
            let variable = "/spec/template/spec/containers/0/env/0/valueFrom/secretKeyRef/name";
            if let Some(name) = deployment.pointer_mut(variable) {
                *name = json!(target);
            }
            deployment
        }));
        let list: Value = json!({"apiVersion": "v1", "kind": "List", "items": items});
        fixture.apply(&list).await;
    }

    /// One of the Secrets changes, or both do.
    async fn change(&mut self, change: usize) {
        let which = self.random.random_range(0..3);
        for (number, [object, mirror, target]) in SECRETS.into_iter().enumerate() {
            if which == 1 - number {
                continue;
            }
            self.write(object, change);
            self.fixture.sync_now(mirror).await;
            let users = WORKLOADS.iter().filter(|(_, used)| *used == target);
            for &(workload, _) in users {
                *self.rotations.entry(workload).or_default() += 1;
            }
        }
    }

    /// Has the daemon killed on its way to where everything is as it should be, and waits until it is there.
    async fn survive(&mut self, audit: &Audit, daemon: &mut Daemon) {
        for _ in 0..KILLS {
            let step = self.writes(audit) + self.random.random_range(0..STEPS);
            let reached = async {
                while self.writes(audit) < step {
                    sleep(STEP_PAUSE).await;
                }
            };
            tokio::select! {
                () = reached => {}
                () = self.is_over() => {}
            }
            // Sometimes there are two for a moment.
            if self.random.random_bool(0.25) {
                let next = start(&self.fixture).await;
                daemon.kill();
                *daemon = next;
            } else {
                daemon.kill();
                *daemon = start(&self.fixture).await;
            }
        }
        self.is_over().await;
    }

    /// What daemons have written in this namespace.
    fn writes(&self, audit: &Audit) -> usize {
        let requests = audit.requests().into_iter();
        let ours = requests.filter(|it| it.about.namespace == self.fixture.namespace);
        ours.filter(|it| it.has_written()).count()
    }

    /// Waits until all Secrets have their content and all Deployments are rolled out with it.
    async fn is_over(&self) {
        for [object, _, target] in SECRETS {
            let content = self.contents[object].as_bytes();
            self.fixture.secret_has(target, "k", content).await;
        }
        for (workload, target) in WORKLOADS {
            self.fixture.settled(workload, target, "k").await;
        }
    }

    /// Each was rolled as often as its Secret changed: so many templates it had, each with a stamp of its own.
    async fn assert_once(&self) {
        let replica_sets: Api<ReplicaSet> =
            Api::namespaced(self.fixture.client.clone(), &self.fixture.namespace);
        let replica_sets = replica_sets.list(&Default::default()).await;
        let replica_sets = replica_sets.expect("ReplicaSets").items;
        for (workload, _) in WORKLOADS {
            let rotations = self.rotations[workload];
            let found = self.fixture.deployments().get(workload).await;
            let found = found.expect("the Deployment");
            let templates = (rotations + 1).to_string();
            let told = format!("seed {}: {workload}", self.seed);
            assert_eq!(revision(&found), templates, "{told}");
            let stamps = replica_sets.iter().filter_map(|it| {
                let template = it.spec.as_ref()?.template.as_ref()?.metadata.as_ref()?;
                let is_its = template.labels.as_ref()?.get("app")? == workload;
                let stamp = template
                    .annotations
                    .as_ref()?
                    .get("keytide.dev/content-digest")?;
                is_its.then_some(stamp)
            });
            assert_eq!(
                stamps.collect::<BTreeSet<_>>().len(),
                rotations,
                "{told}: stamps"
            );
        }
    }
}

/// A daemon that waits for no Lease: the one before is dead, or both act for a moment and the API server tells them apart.
async fn start(fixture: &Fixture) -> Daemon {
    let log = fixture
        .testbed
        .log_file(&format!("{}-keytide", fixture.namespace));
    let arguments = [&QUICK[..], &["--leader-elect=false"]].concat();
    let daemon = fixture.system().daemon(&log, &arguments, &[]).await;
    daemon.expect("a daemon")
}

/// Starts the shared daemon again; that of the test must have ended.
async fn restore(fixture: &Fixture, shared: &mut Daemon) {
    let log = fixture.testbed.log_file("keytide-after-kills.log");
    let daemon = fixture.system().daemon(&log, &QUICK, &[]).await;
    *shared = daemon.expect("a daemon");
}

#[tokio::test]
async fn whenever_the_daemon_is_killed_each_change_rolls_each_workload_once() {
    let fixture = Fixture::without_grant("kills").await;
    if fixture.testbed.audit().is_none() {
        eprintln!("not checked: the audit log of this cluster is not ours to read");
        return;
    }
    let mut shared = fixture.daemon_alone().await;
    assert_eq!(shared.terminate().await.expect("ended"), 0);
    let mut daemon = start(&fixture).await;
    let mut schedules_done = Vec::new();
    for seed in 1..=schedules() {
        let mut schedule = Schedule::new(seed).await;
        for change in 0..=CHANGES {
            let audit = fixture.testbed.audit().expect("an audit log");
            match change {
                0 => schedule.install().await,
                _ => schedule.change(change).await,
            }
            schedule.survive(&audit, &mut daemon).await;
            schedule.assert_once().await;
        }
        schedules_done.push(schedule);
    }
    daemon.kill();
    restore(&fixture, &mut shared).await;
    // Nor does anything follow.
    for schedule in &schedules_done {
        schedule.is_over().await;
        schedule.assert_once().await;
    }
}

#[tokio::test]
async fn a_digest_key_that_is_lost_restarts_nothing() {
    let fixture = Fixture::new("digestkey").await;
    let mut shared = fixture.daemon_alone().await;
    fixture.set("s", "first");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture
        .apply(&fixture.deployment("d", Some("true"), "t", "k"))
        .await;
    fixture.settled("d", "t", "k").await;
    let baseline = async || {
        let found = fixture.deployments().get("d").await.expect("d");
        let baseline = found.annotations().get("keytide.dev/baseline");
        let baseline: Value = serde_json::from_str(baseline.expect("a baseline")).expect("JSON");
        (baseline["digestKey"].clone(), revision(&found))
    };
    let (before, _) = baseline().await;

    assert_eq!(shared.terminate().await.expect("ended"), 0);
    let keys: Api<Secret> = Api::namespaced(fixture.client.clone(), RELEASE);
    let deleted = keys.delete(DIGEST_KEY, &DeleteParams::default()).await;
    deleted.expect("deleted");
    restore(&fixture, &mut shared).await;
    let after = eventually(SOON, "another key is used", async || {
        let (key, revision) = baseline().await;
        if key == before {
            Err(format!("it is still {key}"))
        } else {
            Ok(revision)
        }
    })
    .await;
    assert_eq!(after, "1");
    fixture.set("s", "second");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "k", b"second").await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "2");
}
