use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::reference::Source;
use super::super::samples::{at, content, token};
use super::*;
use crate::api::OnFailure;

/// The surroundings of a workload that nothing delays, to be changed.
struct Scene {
    workload: Subject,
    contents: BTreeMap<SourceKey, Content>,
    pods: Option<Pods>,
    mirrors: Vec<MirrorState>,
    policy: Policy,
    obstacle: Option<Hold>,
    others: Others,
}

impl Scene {
    /// A workload with the baseline `a`, whose content changed to `digest`, with a container of this age.
    fn new(digest: &str, changed: i64, started: i64) -> Self {
        let reference = Reference {
            container: Some("agent".into()),
            source: Source::secret("adopat"),
            key: Some("token".into()),
            optional: false,
            via: Via::Environment,
        };
        Self {
            workload: Subject {
                references: BTreeSet::from([reference]),
                baseline: Some(baseline("a")),
                ..Subject::default()
            },
            contents: BTreeMap::from([(token(), content(digest, changed))]),
            pods: Some(running("agent", started)),
            mirrors: Vec::new(),
            policy: Policy::default(),
            obstacle: None,
            others: Others {
                limit_everywhere: 50,
                ..Others::default()
            },
        }
    }

    fn record(&mut self) -> &mut KeyRecord {
        &mut self.contents.get_mut(&token()).expect("token").record
    }

    fn before(&mut self) -> &mut Baseline {
        self.workload.baseline.as_mut().expect("a baseline")
    }

    fn reference(&mut self, change: impl Fn(&mut Reference)) {
        let mut references: Vec<Reference> = self.workload.references.iter().cloned().collect();
        references.iter_mut().for_each(change);
        self.workload.references = references.into_iter().collect();
    }

    fn policy(&mut self, spec: Value) {
        let spec = serde_json::from_value(spec).expect("a spec");
        self.policy = Policy::default().with(&spec).expect("a policy");
    }

    fn decide(&self, now: i64) -> Decision {
        let around = Surroundings {
            contents: &self.contents,
            pods: self.pods.as_ref(),
            mirrors: &self.mirrors,
            policy: &self.policy,
            obstacle: self.obstacle.as_ref(),
            others: &self.others,
        };
        decide(&self.workload, &around, at(now))
    }

    #[track_caller]
    fn rotates(&self, now: i64) -> Rotation {
        match self.decide(now) {
            Decision::Rotate(rotation) => rotation,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn waits(&self, now: i64, until: i64, reason: Reason) {
        assert_eq!(self.decide(now), wait(at(until), reason));
    }

    #[track_caller]
    fn records(&self, now: i64) -> Baseline {
        match self.decide(now) {
            Decision::Record(baseline) => baseline,
            other => panic!("{other:?}"),
        }
    }
}

fn baseline(digest: &str) -> Baseline {
    Baseline {
        digest_key: "k".into(),
        keys: BTreeMap::from([(token(), digest.into())]),
        ..Baseline::default()
    }
}

fn running(container: &str, since: i64) -> Pods {
    let container = Container {
        name: container.into(),
        started: Some(at(since)),
        mounted: Some(at(since)),
    };
    Pods {
        containers: vec![container],
        troubles: Vec::new(),
    }
}

#[test]
fn equal_content_is_left_alone() {
    assert_eq!(Scene::new("a", 100, 0).decide(1000), Decision::Nothing);
}

#[test]
fn changed_content_rolls_what_started_before() {
    let rotation = Scene::new("b", 100, 50).rotates(200);
    assert_eq!(rotation.changed, [token()]);
    assert_eq!(rotation.baseline.rotated, Some(at(200)));
    assert_eq!(rotation.cause, Cause::Content);
}

#[test]
fn a_key_that_is_added_to_a_secret_is_lacked_by_who_takes_the_whole_of_it() {
    let more = SourceKey {
        source: Source::secret("adopat"),
        key: "more".into(),
    };
    let scene = |came: i64, whole: bool| {
        let mut scene = Scene::new("a", 100, 150);
        let mut added = content("b", came);
        added.record.first = true;
        scene.contents.insert(more.clone(), added);
        scene.reference(|reference| {
            reference.key = (!whole).then(|| "more".into());
        });
        scene
    };
    let rotated = |scene: &Scene| matches!(scene.decide(1000), Decision::Rotate(_));
    assert!(rotated(&scene(200, true)));
    assert!(!rotated(&scene(200, false)), "it waits for what it needs");
    assert!(!rotated(&scene(140, true)), "it started with it");
    let mut at_once = scene(100, true);
    at_once.record().first = true;
    assert!(!rotated(&at_once), "the Secret came with both");
}

#[test]
fn pods_are_looked_at_once_content_has_settled_and_no_sooner() {
    let mut scene = Scene::new("b", 100, 50);
    scene.pods = None;
    scene.waits(105, 110, Reason::Settling);
    assert_eq!(scene.decide(110), Decision::Look);
}

#[test]
fn what_started_after_the_change_is_recorded() {
    for pods in [running("agent", 106), Pods::default()] {
        let mut scene = Scene::new("b", 100, 0);
        scene.pods = Some(pods);
        assert!(scene.records(200).says_the_same(&baseline("b")));
    }
}

#[test]
fn a_start_within_the_margin_may_have_the_old_content() {
    Scene::new("b", 100, 105).rotates(200);
}

#[test]
fn a_container_whose_start_is_not_reported_yet_is_waited_for_but_not_for_long() {
    let mut scene = Scene::new("b", 100, 0);
    let container = |mounted| Container {
        name: "agent".into(),
        started: None,
        mounted: Some(at(mounted)),
    };
    scene.pods.as_mut().expect("pods").containers = vec![container(103)];
    scene.waits(115, 116, Reason::Settling);
    scene.records(130);
    scene.pods.as_mut().expect("pods").containers = vec![container(107)];
    scene.records(115);
}

#[test]
fn files_are_as_old_as_their_mount_and_not_as_their_container() {
    let mut scene = Scene::new("b", 100, 0);
    // The image took long to pull.
    let container = Container {
        name: "agent".into(),
        started: Some(at(160)),
        mounted: Some(at(95)),
    };
    scene.pods.as_mut().expect("pods").containers = vec![container];
    scene.records(200);
    for via in [Via::Volume, Via::SubPath] {
        scene.reference(|reference| reference.via = via);
        scene.rotates(200);
    }
    // Nor has it started, and yet its files are there.
    scene.pods.as_mut().expect("pods").containers[0].started = None;
    scene.rotates(200);
}

#[test]
fn content_that_appears_restarts_nothing_and_is_recorded_at_once() {
    let mut scene = Scene::new("a", 100, 50);
    scene.workload.baseline = None;
    scene.record().first = true;
    assert!(scene.records(100).says_the_same(&baseline("a")));
}

#[test]
fn content_that_appears_for_an_optional_reference_restarts_who_lacks_it() {
    for (started, stale) in [(50, true), (150, false)] {
        let mut scene = Scene::new("a", 100, started);
        scene.workload.baseline = None;
        scene.record().first = true;
        scene.reference(|reference| reference.optional = true);
        assert_eq!(matches!(scene.decide(200), Decision::Rotate(_)), stale);
    }
}

#[test]
fn a_secret_that_was_deleted_and_made_anew_rolls_only_with_other_content() {
    for (digest, rolls) in [("b", true), ("a", false)] {
        let mut scene = Scene::new(digest, 100, 50);
        scene.record().first = true;
        assert_eq!(matches!(scene.decide(200), Decision::Rotate(_)), rolls);
    }
}

#[test]
fn content_that_went_away_and_came_back_rolls_only_what_started_meanwhile() {
    let flapped = |started| {
        let mut scene = Scene::new("a", 120, started);
        scene.before().as_of = Some(at(0));
        scene.record().unsettled_since = Some(at(110));
        scene
    };
    assert_eq!(flapped(100).records(200).as_of, Some(at(120)));
    flapped(115).rotates(200);
    flapped(126).records(200);
}

#[test]
fn a_secret_that_is_gone_stays_in_the_baseline() {
    let mut scene = Scene::new("a", 100, 50);
    scene.contents.clear();
    assert_eq!(scene.decide(200), Decision::Nothing);
}

#[test]
fn a_key_that_is_no_longer_used_leaves_the_baseline() {
    let mut scene = Scene::new("a", 100, 50);
    scene.contents.clear();
    scene.workload.references.clear();
    assert!(scene.records(200).keys.is_empty());
}

#[test]
fn a_rollout_without_a_deadline_is_not_waited_for_for_ever() {
    let mut scene = Scene::new("b", 100, 50);
    scene.workload.rollout = Rollout::UnderWayForEver;
    scene.waits(200, 700, Reason::Rolling);
    scene.rotates(701);
}

#[test]
fn settling_is_never_shorter_than_propagation() {
    let mut scene = Scene::new("b", 100, 50);
    scene.policy(json!({"settle": "0s"}));
    scene.waits(104, 106, Reason::Settling);
    scene.rotates(106);
}

#[test]
fn fifty_secrets_that_change_one_by_one_within_the_settle_time_restart_once() {
    const SECRETS: i64 = 50;
    /// Seconds, which is less than the settle time of ten.
    const APART: i64 = 9;
    let key = |number: i64| SourceKey {
        source: Source::secret(format!("s{number}")),
        key: "token".into(),
    };
    let mut scene = Scene::new("a", 0, 50);
    let one = scene.workload.references.pop_first().expect("a reference");
    scene.workload.references = (0..SECRETS)
        .map(|number| Reference {
            source: key(number).source,
            ..one.clone()
        })
        .collect();
    scene.contents = (0..SECRETS)
        .map(|number| (key(number), content("a", 0)))
        .collect();
    scene.before().keys = (0..SECRETS)
        .map(|number| (key(number), "a".into()))
        .collect();

    let mut rotations = Vec::new();
    for now in 100..1000 {
        let (number, rest) = ((now - 100) / APART, (now - 100) % APART);
        if rest == 0 && number < SECRETS {
            scene.contents.insert(key(number), content("b", now));
        }
        if let Decision::Rotate(rotation) = scene.decide(now) {
            rotations.push((now, rotation.changed.len()));
            scene.workload.baseline = Some(rotation.baseline);
            scene.pods = Some(running("agent", now + 1));
        }
    }
    let last_change = 100 + (SECRETS - 1) * APART;
    assert_eq!(rotations, [(last_change + 10, 50)]);
}

#[test]
fn paused_and_rolling_workloads_wait() {
    let mut scene = Scene::new("b", 100, 50);
    scene.workload.rollout = Rollout::UnderWay;
    scene.waits(200, 260, Reason::Rolling);
    scene.workload.paused = true;
    scene.waits(200, 260, Reason::Paused);
}

#[test]
fn a_rollout_that_failed_or_is_stuck_is_cured_by_newer_content() {
    let mut scene = Scene::new("b", 100, 50);
    scene.workload.rollout = Rollout::Failed;
    scene.rotates(200);
    scene.workload.rollout = Rollout::UnderWay;
    scene.before().rotated = Some(at(20));
    let trouble = Trouble {
        pod_created: at(20),
        what: "CrashLoopBackOff".into(),
    };
    scene.pods.as_mut().expect("pods").troubles = vec![trouble];
    let rotation = scene.rotates(200);
    assert!(!rotation.baseline.failing, "the rotation before broke it");
}

#[test]
fn a_workload_that_was_failing_anyway_is_known_for_it() {
    let mut scene = Scene::new("b", 100, 50);
    scene.workload.rollout = Rollout::Failed;
    assert!(scene.rotates(200).baseline.failing);
}

#[test]
fn two_rotations_are_min_interval_apart() {
    let mut scene = Scene::new("b", 160, 155);
    scene.before().rotated = Some(at(150));
    scene.waits(200, 210, Reason::MinInterval);
    scene.rotates(210);
}

#[test]
fn another_mirror_of_the_workload_is_waited_for_but_not_for_long() {
    let mut scene = Scene::new("b", 100, 50);
    let mirror = |in_flight, failing_since: Option<i64>| MirrorState {
        name: "m".into(),
        in_flight,
        failing_since: failing_since.map(at),
    };
    for busy in [mirror(true, None), mirror(false, Some(150))] {
        scene.mirrors = vec![busy];
        scene.waits(200, 201, Reason::MirrorBusy);
    }
    scene.mirrors = vec![mirror(false, Some(130))];
    assert_eq!(scene.rotates(200).failing, ["m"]);
}

#[test]
fn another_digest_key_restarts_nothing() {
    for (started, first) in [(150, false), (102, true)] {
        let mut scene = Scene::new("x", 100, started);
        scene.contents.get_mut(&token()).expect("token").digest_key = "other".into();
        scene.record().first = first;
        assert_eq!(scene.records(200).digest_key, "other");
    }
}

#[test]
fn only_containers_that_use_the_key_count() {
    let mut scene = Scene::new("b", 100, 0);
    scene.pods = Some(running("sidecar", 0));
    scene.records(200);
}

/// 1970-01-01 is a Thursday; a window of it is open from the 1,000th to the 2,000th minute.
const WINDOW: i64 = 1000 * 60;

fn windowed(more: Value) -> Scene {
    let mut scene = Scene::new("b", 100, 50);
    let mut spec = json!({"windows": [{"from": "16:40", "to": "20:00", "timeZone": "UTC"}]});
    let fields = more.as_object().cloned().unwrap_or_default();
    spec.as_object_mut().expect("an object").extend(fields);
    scene.policy(spec);
    scene
}

#[test]
fn outside_its_windows_a_rotation_waits() {
    let scene = windowed(json!({}));
    scene.waits(200, WINDOW, Reason::Window);
    assert_eq!(scene.rotates(WINDOW).cause, Cause::Content);
}

#[test]
fn a_deadline_opens_what_windows_keep_closed() {
    let scene = windowed(json!({"deadline": "1h"}));
    scene.waits(200, 3700, Reason::Window);
    assert_eq!(scene.rotates(3700).cause, Cause::Deadline);
}

#[test]
fn what_the_pods_have_is_replaced_before_it_expires() {
    let mut scene = windowed(json!({"beforeExpiry": "10m"}));
    scene.before().expires = BTreeMap::from([(token(), at(5000))]);
    scene.waits(200, 4400, Reason::Window);
    assert_eq!(scene.rotates(4400).cause, Cause::Expiry);
}

#[test]
fn no_more_are_rolled_at_once_than_policy_and_cluster_allow() {
    let mut scene = Scene::new("b", 100, 50);
    scene.others.in_flight = 10;
    scene.waits(200, 210, Reason::MaxConcurrent);
    scene.others.in_flight = 9;
    scene.others.in_flight_everywhere = 50;
    scene.waits(200, 210, Reason::MaxConcurrent);
    scene.others.in_flight_everywhere = 49;
    scene.rotates(200);
}

#[test]
fn one_that_fails_holds_the_others_unless_they_are_to_go_on() {
    let mut scene = Scene::new("b", 100, 50);
    let failed = Failed {
        workload: "Deployment web".into(),
        rotated: at(150),
        why: "CrashLoopBackOff".into(),
    };
    scene.others.failed = vec![failed.clone()];
    assert_eq!(
        scene.decide(200),
        Decision::Hold(Hold::Failed(failed.clone()))
    );
    let said = Hold::Failed(failed).to_string();
    assert!(
        said.contains("accept-failure=1970-01-01T00:02:30Z"),
        "{said}"
    );
    scene.policy.on_failure = OnFailure::Revert;
    assert!(matches!(scene.decide(200), Decision::Hold(_)));
    scene.policy.on_failure = OnFailure::Continue;
    scene.rotates(200);
}

#[test]
fn new_content_that_a_failure_has_taken_back_is_on_trial_until_its_rollout_has_ended() {
    let mut scene = Scene::new("b", 100, 50);
    scene.workload.template = Some(7);
    assert_eq!(scene.rotates(200).baseline.trial, None);
    scene.policy.on_failure = OnFailure::Revert;
    let begun = scene.rotates(200).baseline;
    let trial = begun.trial.as_ref().expect("a trial");
    assert_eq!(trial.before[&token()].as_deref(), Some("a"));
    scene.workload.baseline = Some(begun.clone());
    for rollout in [Rollout::UnderWay, Rollout::Failed] {
        scene.workload.rollout = rollout;
        assert_eq!(scene.decide(300), Decision::Nothing, "{rollout:?}");
    }
    scene.workload.rollout = Rollout::Finished;
    let trial = None;
    assert_eq!(scene.records(300), Baseline { trial, ..begun });
}

#[test]
fn the_failure_of_what_failed_before_says_nothing_of_new_content() {
    let mut scene = Scene::new("b", 100, 50);
    scene.policy.on_failure = OnFailure::Revert;
    scene.workload.template = Some(7);
    scene.workload.rollout = Rollout::Failed;
    scene.before().rotated = Some(at(10));
    assert_eq!(scene.rotates(200).baseline.trial, None);
    // Unless it failed with content that was on trial itself.
    scene.before().trial = Some(Trial {
        template: 7,
        before: BTreeMap::from([(token(), Some("z".to_owned()))]),
    });
    let begun = scene.rotates(200).baseline.trial.expect("a trial");
    assert_eq!(begun.before[&token()].as_deref(), Some("z"));
}

#[test]
fn canaries_go_first() {
    let mut scene = Scene::new("b", 100, 50);
    let canary = |soaks_until: Option<i64>| super::super::gate::Canary {
        workload: "Deployment canary".into(),
        soaks_until: soaks_until.map(at),
    };
    let reason = || Reason::Canary {
        workload: "Deployment canary".into(),
    };
    scene.others.canaries = vec![canary(Some(500)), canary(None)];
    scene.waits(200, 210, reason());
    scene.others.canaries = vec![canary(Some(500)), canary(Some(400))];
    scene.waits(200, 500, reason());
}

#[test]
fn a_policy_that_can_not_be_followed_holds_who_is_to_be_rolled_and_nobody_else() {
    let hold = Hold::NoPolicy { name: "p".into() };
    for (digest, expected) in [
        ("b", Decision::Hold(hold.clone())),
        ("a", Decision::Nothing),
    ] {
        let mut scene = Scene::new(digest, 100, 50);
        scene.obstacle = Some(hold.clone());
        assert_eq!(scene.decide(200), expected);
    }
}

proptest! {
    #[test]
    fn never_twice_for_the_same_content(changed in 0i64..500, started in 0i64..500, now in 0i64..2000) {
        let mut scene = Scene::new("b", changed, started);
        if let Decision::Rotate(rotation) = scene.decide(now) {
            scene.workload.baseline = Some(rotation.baseline);
            for later in [0, 1, 60, 10_000] {
                prop_assert_eq!(scene.decide(now + later), Decision::Nothing);
            }
        }
    }

    #[test]
    fn never_without_a_change(changed in 0i64..500, started in 0i64..500, now in 0i64..2000, first: bool) {
        let mut scene = Scene::new("a", changed, started);
        scene.record().first = first;
        prop_assert_eq!(scene.decide(now), Decision::Nothing);
    }

    #[test]
    fn never_before_the_content_has_spread(changed in 0i64..500, started in 0i64..500, now in 0i64..2000, settle in 0u32..20) {
        let mut scene = Scene::new("b", changed, started);
        scene.policy(json!({"settle": format!("{settle}s")}));
        if matches!(scene.decide(now), Decision::Rotate(_)) {
            prop_assert!(now >= changed + 6.max(i64::from(settle)));
        }
    }

    #[test]
    fn never_outside_a_window_before_the_deadline(changed in 0i64..500, now in 0i64..200_000, deadline in proptest::option::of(0u32..200)) {
        let mut scene = windowed(deadline.map_or(json!({}), |minutes| json!({"deadline": format!("{minutes}m")})));
        scene.record().changed = at(changed);
        let passed = deadline.is_some_and(|minutes| now >= changed + i64::from(minutes) * 60);
        let minute = now / 60 % 1440;
        let open = (1000..1200).contains(&minute);
        if let Decision::Rotate(rotation) = scene.decide(now) {
            prop_assert!(open || passed);
            prop_assert_eq!(rotation.cause == Cause::Content, open);
        }
    }

    #[test]
    fn never_more_than_are_allowed(in_flight in 0usize..20, everywhere in 0usize..80, max in 1usize..20, limit in 1usize..80) {
        let mut scene = Scene::new("b", 100, 50);
        scene.policy.max_concurrent = max;
        scene.others = Others { in_flight, in_flight_everywhere: everywhere, limit_everywhere: limit, ..Others::default() };
        let rotates = matches!(scene.decide(200), Decision::Rotate(_));
        prop_assert_eq!(rotates, in_flight < max && everywhere < limit);
    }

    /// Whoever comes back when he was told to is rolled in the end, if nobody holds him.
    #[test]
    fn always_in_the_end(changed in 0i64..500, before in 0i64..500, rotated in proptest::option::of(0i64..500)) {
        let mut scene = windowed(json!({}));
        scene.record().changed = at(changed);
        scene.pods = Some(running("agent", changed - before));
        scene.before().rotated = rotated.map(at);
        let mut now = changed;
        let mut rotates = false;
        for _ in 0..10 {
            match scene.decide(now) {
                Decision::Wait(wait) => {
                    prop_assert!(wait.until > at(now));
                    now = wait.until.as_second();
                }
                decision => {
                    rotates = matches!(decision, Decision::Rotate(_));
                    break;
                }
            }
        }
        prop_assert!(rotates);
    }
}
