use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::super::decide::{Cause, Rotation};
use super::super::samples::{at, content, token};
use super::*;

fn id(namespace: &str, name: &str) -> WorkloadId {
    WorkloadId {
        namespace: namespace.into(),
        kind: WorkloadKind::Deployment,
        name: name.into(),
    }
}

fn baseline(digest: &str, rotated: i64) -> Baseline {
    Baseline {
        digest_key: "k".into(),
        keys: BTreeMap::from([(token(), digest.into())]),
        rotated: Some(at(rotated)),
        ..Baseline::default()
    }
}

/// A Deployment in namespace `n` whose rollout is at this point.
fn deployment(name: &str, baseline: &Baseline, reason: &str, more: &[(&str, &str)]) -> Workload {
    let mut annotations = json!({BASELINE: json!(baseline).to_string()});
    for (key, value) in more {
        annotations[*key] = json!(value);
    }
    let deployment: Deployment = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "n", "annotations": annotations},
        "spec": {"replicas": 2, "selector": {}, "template": {}, "progressDeadlineSeconds": 600},
        "status": {
            "replicas": 3, "updatedReplicas": 1,
            "conditions": [{"type": "Progressing", "status": "True", "reason": reason}],
        },
    }))
    .expect("a Deployment");
    deployment.into()
}

const ROLLING: &str = "ReplicaSetUpdated";
const FAILED: &str = "ProgressDeadlineExceeded";

fn finished(name: &str, baseline: &Baseline) -> Workload {
    let mut workload = deployment(name, baseline, ROLLING, &[]);
    workload.rollout = Rollout::Finished;
    workload
}

fn show(flights: &Flights, workload: &Workload) -> Vec<WorkloadId> {
    flights.follow(WorkloadKind::Deployment, &Change::Applied(workload))
}

/// What the others do, as `who` sees it who is to be given `b`.
fn others(flights: &Flights, who: &WorkloadId, now: i64) -> Others {
    let mut seen = Others::default();
    consider(flights, who, now, |others| {
        seen = others;
        Decision::Nothing
    });
    seen
}

fn consider(
    flights: &Flights,
    who: &WorkloadId,
    now: i64,
    decide: impl FnOnce(Others) -> Decision,
) -> Decision {
    let (key, content) = (token(), content("b", 0));
    let contents = BTreeMap::from([(&key, &content)]);
    flights.consider(who, &None, &contents, at(now), decide)
}

fn rotation(now: i64) -> Decision {
    Decision::Rotate(Rotation {
        baseline: baseline("b", now),
        changed: vec![token()],
        failing: Vec::new(),
        cause: Cause::Content,
    })
}

#[test]
fn a_rotation_takes_a_place_from_its_decision_to_the_end_of_its_rollout() {
    let flights = Flights::new(50);
    let (web, other) = (id("n", "web"), id("n", "other"));
    consider(&flights, &web, 100, |_| rotation(100));
    assert_eq!(others(&flights, &other, 101).in_flight, 1);
    // The watch lags behind.
    show(&flights, &finished("web", &baseline("a", 50)));
    assert_eq!(others(&flights, &other, 101).in_flight, 1);
    show(
        &flights,
        &deployment("web", &baseline("b", 100), ROLLING, &[]),
    );
    assert_eq!(others(&flights, &other, 500).in_flight, 1);
    assert_eq!(
        others(&flights, &web, 500).in_flight,
        0,
        "nobody is in his own way"
    );
    show(&flights, &finished("web", &baseline("b", 100)));
    assert_eq!(others(&flights, &other, 500).in_flight, 0);
}

#[test]
fn one_is_not_decided_on_twice_before_the_watch_shows_the_first() {
    let flights = Flights::new(50);
    let web = id("n", "web");
    consider(&flights, &web, 100, |_| rotation(100));
    let again = consider(&flights, &web, 101, |_| rotation(101));
    assert!(matches!(again, Decision::Wait(_)));
    // A write of which nobody knows how it ended is given up at some time.
    assert!(matches!(
        consider(&flights, &web, 130, |_| rotation(130)),
        Decision::Rotate(_)
    ));
}

#[test]
fn a_rotation_that_was_refused_takes_no_place() {
    let flights = Flights::new(50);
    let web = id("n", "web");
    consider(&flights, &web, 100, |_| rotation(100));
    flights.refused(&web, at(100));
    assert_eq!(others(&flights, &id("n", "other"), 101).in_flight, 0);
}

#[test]
fn a_rotation_that_is_refused_leaves_the_rollout_that_the_watch_has_shown() {
    let flights = Flights::new(50);
    let (web, other) = (id("n", "web"), id("n", "other"));
    consider(&flights, &web, 100, |_| rotation(100));
    let rolling = deployment("web", &baseline("b", 100), ROLLING, &[]);
    show(&flights, &rolling);
    // It is decided on again, by a copy from before the first.
    consider(&flights, &web, 101, |_| rotation(101));
    assert_eq!(others(&flights, &other, 101).in_flight, 1);
    flights.refused(&web, at(101));
    assert_eq!(others(&flights, &other, 102).in_flight, 1);
    show(&flights, &finished("web", &baseline("b", 100)));
    assert_eq!(others(&flights, &other, 103).in_flight, 0);
}

#[test]
fn a_daemon_that_starts_knows_what_is_under_way() {
    let flights = Flights::new(50);
    let workload = deployment("web", &baseline("b", 100), ROLLING, &[]);
    flights.follow(
        WorkloadKind::Deployment,
        &Change::Listed(&[Arc::new(workload.clone())]),
    );
    let other = id("n", "other");
    assert_eq!(others(&flights, &other, 110).in_flight, 1);
    // And also what only a list has shown yet.
    let listed = finished("late", &baseline("b", 105));
    flights.listed(id("n", "late"), &listed.metadata, at(110));
    assert_eq!(others(&flights, &other, 110).in_flight, 2);
    // What is gone while nobody watched is over.
    flights.follow(WorkloadKind::Deployment, &Change::Listed(&[]));
    assert_eq!(others(&flights, &other, 110).in_flight, 0);
}

#[test]
fn the_default_policy_counts_everywhere_and_one_of_a_namespace_there() {
    let flights = Flights::new(50);
    let named = [(ROTATION_POLICY, "calm")];
    show(
        &flights,
        &deployment("a", &baseline("b", 100), ROLLING, &named),
    );
    show(
        &flights,
        &deployment("b", &baseline("b", 100), ROLLING, &[]),
    );
    let seen = others(&flights, &id("elsewhere", "c"), 110);
    assert_eq!((seen.in_flight, seen.in_flight_everywhere), (1, 2));
    let policy = Some("calm".to_owned());
    for (namespace, expected) in [("n", 1), ("elsewhere", 0)] {
        let who = id(namespace, "c");
        let nothing = BTreeMap::new();
        flights.consider(&who, &policy, &nothing, at(110), |others| {
            assert_eq!(others.in_flight, expected, "{namespace}");
            Decision::Nothing
        });
    }
}

#[test]
fn what_nothing_ends_takes_no_place_for_ever() {
    let flights = Flights::new(50);
    let mut workload = deployment("web", &baseline("b", 100), ROLLING, &[]);
    workload.rollout = Rollout::UnderWayForEver;
    show(&flights, &workload);
    let other = id("n", "other");
    assert_eq!(others(&flights, &other, 699).in_flight, 1);
    assert_eq!(others(&flights, &other, 700).in_flight, 0);
}

#[test]
fn a_failure_concerns_who_is_to_be_given_the_same_content() {
    let flights = Flights::new(50);
    show(
        &flights,
        &deployment("web", &baseline("b", 100), FAILED, &[]),
    );
    show(
        &flights,
        &deployment("older", &baseline("a", 90), FAILED, &[]),
    );
    let seen = others(&flights, &id("n", "other"), 800);
    assert_eq!(seen.failed.len(), 1);
    assert_eq!(seen.failed[0].workload, "Deployment web");
    assert_eq!(seen.in_flight, 0);
    assert!(
        others(&flights, &id("elsewhere", "other"), 800)
            .failed
            .is_empty()
    );
    assert_eq!(flights.count(at(800)), (0, 2));
}

#[test]
fn a_failure_that_is_accepted_or_was_there_before_holds_nobody() {
    let other = id("n", "other");
    for (accepted, held) in [("1970-01-01T00:01:39Z", 1), ("1970-01-01T00:01:40Z", 0)] {
        let flights = Flights::new(50);
        let more = [(ACCEPT_FAILURE, accepted)];
        show(
            &flights,
            &deployment("web", &baseline("b", 100), FAILED, &more),
        );
        assert_eq!(
            others(&flights, &other, 800).failed.len(),
            held,
            "{accepted}"
        );
    }
    let flights = Flights::new(50);
    let before = Baseline {
        failing: true,
        ..baseline("b", 100)
    };
    show(&flights, &deployment("web", &before, FAILED, &[]));
    assert!(others(&flights, &other, 800).failed.is_empty());
}

#[test]
fn a_rollout_that_takes_long_is_looked_at_by_one_and_told_to_all() {
    let flights = Flights::new(50);
    let (web, other) = (id("n", "web"), id("n", "other"));
    show(
        &flights,
        &deployment("web", &baseline("b", 100), ROLLING, &[]),
    );
    assert!(others(&flights, &other, 129).unexamined.is_empty());
    assert_eq!(others(&flights, &other, 130).unexamined.len(), 1);
    assert_eq!(flights.examine(&web, at(130)), Some(at(100)));
    assert_eq!(flights.examine(&web, at(131)), None, "somebody is at it");
    assert_eq!(others(&flights, &other, 131).unexamined.len(), 1);
    let unreachable = flights.examined(&web, at(100), Err("unreachable"), at(131));
    assert!(unreachable.is_err());
    assert_eq!(
        flights.examine(&web, at(132)),
        Some(at(100)),
        "nobody could look"
    );
    let found = Ok::<_, ()>(Some("CrashLoopBackOff".to_owned()));
    assert_eq!(flights.examined(&web, at(100), found, at(132)), Ok(()));
    // The watch shows that it goes on, which is no news.
    show(
        &flights,
        &deployment("web", &baseline("b", 100), ROLLING, &[]),
    );
    let seen = others(&flights, &other, 133);
    assert_eq!((seen.failed.len(), seen.unexamined.len()), (1, 0));
    assert_eq!(
        others(&flights, &other, 147).unexamined.len(),
        1,
        "looks grow old"
    );
    show(&flights, &finished("web", &baseline("b", 100)));
    assert_eq!(
        others(&flights, &other, 147),
        others(&Flights::new(50), &other, 147)
    );
}

#[test]
fn who_waits_the_longest_is_woken_when_a_place_is_free() {
    let flights = Flights::new(50);
    show(
        &flights,
        &deployment("web", &baseline("b", 100), ROLLING, &[]),
    );
    for name in ["b", "a", "gone"] {
        let wait = Wait {
            until: at(200),
            reason: Reason::MaxConcurrent,
        };
        consider(&flights, &id("n", name), 110, |_| Decision::Wait(wait));
    }
    assert!(
        show(
            &flights,
            &deployment("web", &baseline("b", 100), ROLLING, &[])
        )
        .is_empty()
    );
    let gone = finished("gone", &baseline("a", 1));
    flights.follow(WorkloadKind::Deployment, &Change::Deleted(&gone));
    let woken = show(&flights, &finished("web", &baseline("b", 100)));
    assert_eq!(woken, [id("n", "a"), id("n", "b")]);
}

#[test]
fn a_workload_that_is_deleted_during_its_rollout_takes_no_place_however_long_that_takes() {
    let flights = Flights::new(50);
    let other = id("n", "other");
    let mut web = deployment("web", &baseline("b", 100), ROLLING, &[]);
    show(&flights, &web);
    let wait = Wait {
        until: at(200),
        reason: Reason::MaxConcurrent,
    };
    consider(&flights, &other, 110, |_| Decision::Wait(wait));
    assert_eq!(others(&flights, &id("n", "third"), 110).in_flight, 1);

    // Deleted in the foreground, or kept by somebody's finalizer.
    web.metadata.deletion_timestamp = Some(Time(at(120)));
    assert_eq!(show(&flights, &web), std::slice::from_ref(&other));
    assert_eq!(others(&flights, &other, 121).in_flight, 0);
    flights.listed(WorkloadId::of(&web), &web.metadata, at(122));
    assert_eq!(others(&flights, &other, 123).in_flight, 0);
}

#[test]
fn how_a_rotation_goes_is_known_by_its_deadline_or_by_looking() {
    let flights = Flights::new(50);
    let (own, rolling) = (id("n", "web"), baseline("b", 100));
    assert_eq!(flights.course(&own, at(100)), None);
    show(&flights, &deployment("web", &rolling, ROLLING, &[]));
    let rolls = |look_at| {
        Some(Course::Rolls {
            look_at: at(look_at),
        })
    };
    let fails = |why: &str| Some(Course::Fails(why.to_owned()));
    assert_eq!(flights.course(&own, at(101)), rolls(130));
    assert_eq!(flights.course(&own, at(140)), rolls(141));
    let look = |found: Option<&str>, now| {
        assert_eq!(flights.examine(&own, at(now)), Some(at(100)));
        let found = Ok::<_, ()>(found.map(str::to_owned));
        assert_eq!(flights.examined(&own, at(100), found, at(now)), Ok(()));
    };
    look(None, 140);
    assert_eq!(flights.course(&own, at(141)), rolls(155));
    look(Some("CrashLoopBackOff"), 155);
    assert_eq!(flights.course(&own, at(156)), fails("CrashLoopBackOff"));

    let accepted = [(ACCEPT_FAILURE, "1970-01-01T00:02:00Z")];
    show(&flights, &deployment("web", &rolling, FAILED, &accepted));
    assert_eq!(flights.course(&own, at(160)), None);
    show(&flights, &deployment("late", &rolling, FAILED, &[]));
    let late = flights.course(&id("n", "late"), at(160));
    assert_eq!(late, fails("its progress deadline has passed"));
    show(&flights, &finished("late", &rolling));
    assert_eq!(flights.course(&id("n", "late"), at(170)), None);
}

#[test]
fn what_nothing_ends_is_looked_at_however_long_that_is() {
    let flights = Flights::new(50);
    let (web, other) = (id("n", "web"), id("n", "other"));
    let mut workload = deployment("web", &baseline("b", 100), ROLLING, &[]);
    workload.rollout = Rollout::UnderWayForEver;
    show(&flights, &workload);
    let seen = others(&flights, &other, 9999);
    assert_eq!((seen.in_flight, seen.unexamined.len()), (0, 1));
    assert!(matches!(
        flights.course(&web, at(9999)),
        Some(Course::Rolls { .. })
    ));
    assert_eq!(flights.examine(&web, at(9999)), Some(at(100)));
    let found = Ok::<_, ()>(Some("CrashLoopBackOff".to_owned()));
    assert_eq!(flights.examined(&web, at(100), found, at(9999)), Ok(()));
    assert_eq!(others(&flights, &other, 10_000).failed.len(), 1);
}

#[test]
fn who_waits_for_nobody_is_not_woken_in_the_place_of_who_does() {
    let flights = Flights::new(50);
    let rolling = deployment("web", &baseline("b", 100), ROLLING, &[]);
    show(&flights, &rolling);
    for (name, reason) in [("night", Reason::Window), ("next", Reason::MaxConcurrent)] {
        let until = at(200);
        let wait = Decision::Wait(Wait { until, reason });
        consider(&flights, &id("n", name), 110, |_| wait);
    }
    let woken = show(&flights, &finished("web", &baseline("b", 100)));
    assert_eq!(woken, [id("n", "next")]);
}
