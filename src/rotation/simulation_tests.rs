//! Seeded schedules of kills and faults against a model of the API server: whatever happens, every Pod has the content in the end,
//! no workload is rolled twice for one change, and never are more rollouts under way than are allowed.
//!
//! The model has what rotation rests on: resourceVersions and their conflicts, watches that lag, writes whose answer is lost, Pods that
//! are replaced one by one and read content from a cache that may be some seconds old. Workloads are scaled, rolled by their owners,
//! deleted and made anew. What decides is the real thing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;

use super::baseline::{BASELINE, Baseline};
use super::decide as deciding;
use super::decide::{
    Container, Content, Decision, Pods, Surroundings, contents_in_use, decide, suspects,
};
use super::flight::Flights;
use super::gate::Others;
use super::policy::Policy;
use super::reference::{Reference, Source, Via};
use super::rollout::Rollout;
use super::samples::{at, token};
use super::workload::{Workload, WorkloadId, WorkloadKind};
use crate::mirror::{KeyContent, KeyRecord};
use crate::watch::Change;

const WORKLOADS: usize = 6;
const AT_ONCE: usize = 2;
/// Seconds of chaos, and then of peace until all must be well.
const CHAOS: i64 = 150;
const PEACE: i64 = 900;
/// Most seconds that a kubelet serves older content, and that a watch lags.
const KUBELET_LAG: u64 = 4;
const WATCH_LAG: u64 = 3;
/// Seconds without a leader after one was killed.
const INTERREGNUM: i64 = 3;

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

fn id(number: usize) -> WorkloadId {
    WorkloadId {
        namespace: "n".into(),
        kind: WorkloadKind::Deployment,
        name: number.to_string(),
    }
}

#[derive(Clone)]
struct Pod {
    started: i64,
    template: u64,
    digest: String,
}

/// A workload as the API server has it.
#[derive(Clone)]
struct Stored {
    version: u64,
    baseline: Option<Baseline>,
    template: u64,
    pods: Vec<Pod>,
    /// Content that it was last rolled for, by when that came.
    rolled_for: Option<Timestamp>,
    is_rolling_for_us: bool,
}

impl Stored {
    fn is_rolled_out(&self) -> bool {
        self.pods.iter().all(|pod| pod.template == self.template)
    }

    fn seen(&self, number: usize) -> Workload {
        let mut workload = Workload::from(Deployment::default());
        let metadata = &mut workload.metadata;
        metadata.namespace = Some("n".into());
        metadata.name = Some(number.to_string());
        metadata.resource_version = Some(self.version.to_string());
        if let Some(baseline) = &self.baseline {
            let json = serde_json::to_string(baseline).expect("JSON");
            metadata.annotations = Some(BTreeMap::from([(BASELINE.to_owned(), json)]));
        }
        if !self.is_rolled_out() {
            workload.rollout = Rollout::UnderWay;
        }
        workload
    }
}

/// The cluster.
struct Server {
    now: i64,
    record: KeyRecord,
    /// Digests and since when they are served.
    contents: Vec<(i64, String)>,
    workloads: Vec<Stored>,
    is_down: bool,
}

/// How a write went.
enum Answer {
    Taken,
    Conflict,
    /// Nobody knows.
    Lost,
}

impl Server {
    fn new() -> Self {
        let digest = "0".to_owned();
        let pod = Pod {
            started: 1000,
            template: 0,
            digest: digest.clone(),
        };
        let workload = Stored {
            version: 1,
            baseline: None,
            template: 0,
            pods: vec![pod; 3],
            rolled_for: None,
            is_rolling_for_us: false,
        };
        Self {
            now: 1000,
            record: key_content(&digest).record(None, true, at(900)),
            contents: vec![(900, digest)],
            workloads: vec![workload; WORKLOADS],
            is_down: false,
        }
    }

    fn change(&mut self, digest: String) {
        self.record = key_content(&digest).record(Some(&self.record), true, at(self.now));
        self.contents.push((self.now, digest));
    }

    /// What a kubelet gives to a new container.
    fn served(&self, lag: i64) -> String {
        let mut contents = self.contents.iter().rev();
        let content = contents.find(|(since, _)| *since <= self.now - lag);
        content.map(|(_, digest)| digest.clone()).expect("content")
    }

    /// The Deployment controller, the autoscaler and the workload's owner.
    fn go_on(&mut self, random: &mut Random, is_chaos: bool) {
        for number in 0..self.workloads.len() {
            let digest = self.served(random.below(KUBELET_LAG + 1) as i64);
            let now = self.now;
            let workload = &mut self.workloads[number];
            let template = workload.template;
            let new = Pod {
                started: now,
                template,
                digest,
            };
            let mut touched = false;
            if random.one_in(3)
                && let Some(old) = workload
                    .pods
                    .iter_mut()
                    .find(|pod| pod.template != template)
            {
                *old = new;
                touched = true;
            } else if is_chaos && random.one_in(40) {
                workload.pods.push(new);
                touched = true;
            } else if is_chaos && workload.pods.len() > 1 && random.one_in(40) {
                workload.pods.remove(0);
                touched = true;
            } else if is_chaos && random.one_in(150) {
                workload.template += 1;
                touched = true;
            } else if is_chaos && random.one_in(150) {
                // Deleted, be it during a rollout, and made anew under the name.
                workload.baseline = None;
                workload.rolled_for = None;
                workload.pods = vec![new; 3];
                touched = true;
            }
            if workload.is_rolled_out() {
                workload.is_rolling_for_us = false;
            }
            workload.version += u64::from(touched);
        }
    }

    fn patch(
        &mut self,
        number: usize,
        version: u64,
        baseline: Baseline,
        rolled_for: Option<Timestamp>,
    ) -> bool {
        let workload = &mut self.workloads[number];
        if workload.version != version {
            return false;
        }
        workload.version += 1;
        workload.baseline = Some(baseline);
        if let Some(content) = rolled_for {
            assert!(
                workload.rolled_for < Some(content),
                "workload {number} is rolled twice for one change"
            );
            workload.rolled_for = Some(content);
            workload.template += 1;
            workload.is_rolling_for_us = true;
        }
        true
    }

    fn pods(&self, number: usize) -> Pods {
        let containers = self.workloads[number].pods.iter().map(|pod| Container {
            name: "main".into(),
            started: Some(at(pod.started)),
            mounted: Some(at(pod.started)),
        });
        Pods {
            containers: containers.collect(),
            troubles: Vec::new(),
        }
    }

    fn lacks_content(&self) -> bool {
        let mut pods = self.workloads.iter().flat_map(|it| &it.pods);
        pods.any(|pod| pod.digest != self.record.digest)
    }
}

fn key_content(digest: &str) -> KeyContent {
    KeyContent {
        digest: digest.into(),
        object: "o".into(),
        version: digest.into(),
        updated: None,
        expires: None,
        failed: None,
    }
}

/// A daemon: what it knows, and when it looks at what.
struct Daemon {
    flights: Flights,
    workloads: Vec<(u64, Workload)>,
    record: KeyRecord,
    /// What the watch will show, and when.
    coming: VecDeque<(i64, usize, Stored)>,
    record_coming: VecDeque<(i64, KeyRecord)>,
    shown: Vec<u64>,
    due: Vec<Option<i64>>,
    /// Copies that a look began with which takes a while: the watch goes on meanwhile.
    begun: Vec<Option<(u64, Workload)>>,
}

impl Daemon {
    /// One that has listed everything.
    fn start(server: &Server) -> Self {
        let flights = Flights::new(50);
        let workloads = server.workloads.iter().enumerate().map(|(number, stored)| {
            let workload = stored.seen(number);
            flights.follow(WorkloadKind::Deployment, &Change::Applied(&workload));
            (stored.version, workload)
        });
        Self {
            workloads: workloads.collect(),
            flights,
            record: server.record.clone(),
            coming: VecDeque::new(),
            record_coming: VecDeque::new(),
            shown: server.workloads.iter().map(|it| it.version).collect(),
            due: vec![Some(server.now); WORKLOADS],
            begun: vec![None; WORKLOADS],
        }
    }

    /// What is done before the first decision: lists what the watch may not have shown.
    fn lead(&mut self, server: &Server) {
        for (number, stored) in server.workloads.iter().enumerate() {
            if stored.version != self.workloads[number].0 {
                let listed = stored.seen(number);
                self.flights
                    .listed(id(number), &listed.metadata, at(server.now));
            }
        }
        self.due = vec![Some(server.now); WORKLOADS];
    }

    fn watch(&mut self, server: &Server, random: &mut Random) {
        let mut lag = || server.now + random.below(WATCH_LAG + 1) as i64;
        for (number, stored) in server.workloads.iter().enumerate() {
            if stored.version != self.shown[number] {
                self.shown[number] = stored.version;
                self.coming.push_back((lag(), number, stored.clone()));
            }
        }
        let latest = self.record_coming.back().map_or(&self.record, |(_, it)| it);
        if *latest != server.record {
            self.record_coming.push_back((lag(), server.record.clone()));
        }
        // In order: what comes first is shown first.
        while self
            .coming
            .front()
            .is_some_and(|(time, ..)| *time <= server.now)
        {
            let Some((_, number, stored)) = self.coming.pop_front() else {
                break;
            };
            let workload = stored.seen(number);
            let woken = self
                .flights
                .follow(WorkloadKind::Deployment, &Change::Applied(&workload));
            self.workloads[number] = (stored.version, workload);
            self.due[number] = Some(server.now);
            for id in woken {
                let number: usize = id.name.parse().expect("a number");
                self.due[number] = Some(server.now);
            }
        }
        while self
            .record_coming
            .front()
            .is_some_and(|(time, _)| *time <= server.now)
        {
            if let Some((_, record)) = self.record_coming.pop_front() {
                self.record = record;
                self.due = vec![Some(server.now); WORKLOADS];
            }
        }
    }

    /// Looks after one workload. Gives whether the daemon is killed by that.
    fn look_after(
        &mut self,
        number: usize,
        server: &mut Server,
        policy: &Policy,
        random: &mut Random,
        is_chaos: bool,
    ) -> bool {
        let now = at(server.now);
        let begun = self.begun[number].take();
        if begun.is_none() && is_chaos && random.one_in(4) {
            self.begun[number] = Some(self.workloads[number].clone());
            self.due[number] = Some(server.now + 1);
            return false;
        }
        let (version, workload) = begun.unwrap_or_else(|| self.workloads[number].clone());
        let reference = Reference {
            container: Some("main".into()),
            source: Source::secret("adopat"),
            key: Some("token".into()),
            optional: false,
            via: Via::Environment,
        };
        let subject = deciding::Subject {
            references: BTreeSet::from([reference]),
            baseline: workload.annotation(BASELINE).and_then(Baseline::parse),
            paused: false,
            rollout: workload.rollout,
            template: workload.template,
        };
        let content = Content {
            digest_key: "k".into(),
            record: self.record.clone(),
        };
        let contents = BTreeMap::from([(token(), content)]);
        let contents = contents_in_use(&subject.references, &contents);
        let suspects = suspects(&subject, &contents);
        let mut pods = None;
        let decision = loop {
            let decision =
                self.flights
                    .consider(&id(number), &None, &suspects, now, |others: Others| {
                        let around = Surroundings {
                            contents: &contents,
                            pods: pods.as_ref(),
                            mirrors: &[],
                            policy,
                            obstacle: None,
                            others: &others,
                        };
                        decide(&subject, &around, now)
                    });
            if decision != Decision::Look {
                break decision;
            }
            if server.is_down {
                self.due[number] = Some(server.now + 2);
                return false;
            }
            pods = Some(server.pods(number));
        };
        let (baseline, rolled_for) = match decision {
            Decision::Wait(wait) => {
                let until = wait.until.as_second().max(server.now + 1);
                self.due[number] = Some(until);
                return false;
            }
            Decision::Record(baseline) => (baseline, None),
            Decision::Rotate(rotation) => (rotation.baseline, Some(self.record.changed)),
            Decision::Nothing | Decision::Look | Decision::Hold(_) => {
                self.due[number] = None;
                return false;
            }
        };
        let is_rotation = rolled_for.is_some();
        let (is_killed, is_sent, is_answered) = if is_chaos && random.one_in(8) {
            let (is_killed, is_sent) = (random.one_in(2), random.one_in(2));
            (is_killed, is_sent, false)
        } else {
            (false, true, true)
        };
        let answer = if server.is_down || !is_sent {
            Answer::Lost
        } else {
            match server.patch(number, version, baseline, rolled_for) {
                false if is_answered => Answer::Conflict,
                true if is_answered => Answer::Taken,
                _ => Answer::Lost,
            }
        };
        self.due[number] = match answer {
            Answer::Taken => None,
            Answer::Conflict => {
                if is_rotation {
                    self.flights.refused(&id(number), now);
                }
                Some(server.now + 1)
            }
            Answer::Lost => Some(server.now + 2),
        };
        is_killed
    }
}

/// Runs a schedule. Gives how often workloads were rolled.
fn run(seed: u64) -> u64 {
    let mut random = Random(seed);
    let policy = Policy {
        min_interval: SignedDuration::from_secs(5),
        max_concurrent: AT_ONCE,
        ..Policy::default()
    };
    let mut server = Server::new();
    let mut daemons = [Daemon::start(&server), Daemon::start(&server)];
    // Who leads, and from when on.
    let (mut leader, mut leads_from) = (0, server.now);
    let mut both_until = 0;
    let mut has_two_leaders = false;
    let start = server.now;
    let mut changes = 0_u64;
    while server.now < start + CHAOS + PEACE {
        server.now += 1;
        let is_chaos = server.now < start + CHAOS;
        server.is_down = is_chaos
            && (if server.is_down {
                !random.one_in(20)
            } else {
                random.one_in(60)
            });
        if is_chaos && random.one_in(25) {
            changes += 1;
            // Sometimes what was there before, so that content flaps.
            let digest = if random.one_in(3) {
                "0".to_owned()
            } else {
                changes.to_string()
            };
            if digest != server.record.digest {
                server.change(digest);
            }
        }
        server.go_on(&mut random, is_chaos);
        for daemon in &mut daemons {
            daemon.watch(&server, &mut random);
        }
        if is_chaos && random.one_in(60) {
            // Two for a moment: the old one has not noticed yet.
            both_until = server.now + random.below(6) as i64;
            has_two_leaders = true;
            leader = 1 - leader;
            leads_from = server.now;
            daemons[leader].lead(&server);
        }
        for number in 0..daemons.len() {
            let leads = number == leader && server.now >= leads_from;
            if !(leads || server.now < both_until) {
                continue;
            }
            for workload in 0..WORKLOADS {
                let is_due = daemons[number].due[workload].is_some_and(|due| due <= server.now);
                if !is_due {
                    continue;
                }
                let is_killed = daemons[number].look_after(
                    workload,
                    &mut server,
                    &policy,
                    &mut random,
                    is_chaos,
                );
                let under_way = server.workloads.iter().filter(|it| it.is_rolling_for_us);
                let is_too_many = under_way.count() > AT_ONCE;
                // What two leaders began between them is soon known to the one that is left.
                let is_known = server.now > both_until + WATCH_LAG as i64;
                has_two_leaders &= is_too_many || !is_known;
                assert!(
                    has_two_leaders || !is_too_many,
                    "more are under way than are allowed, at {} s of seed {seed}",
                    server.now - start
                );
                if is_killed {
                    daemons[number] = Daemon::start(&server);
                    leader = 1 - number;
                    leads_from = server.now + INTERREGNUM;
                    daemons[leader].lead(&server);
                    break;
                }
            }
        }
        if !is_chaos && !server.lacks_content() {
            break;
        }
    }
    assert!(
        !server.lacks_content(),
        "seed {seed}: a Pod is left with old content"
    );

    server.workloads.iter().map(|it| it.template).sum()
}

#[test]
fn no_kill_and_no_fault_loses_a_rotation_or_makes_it_twice() {
    let rolled: u64 = (0..1000).map(run).sum();
    assert!(rolled > 1000, "too little happens: {rolled}");
}
