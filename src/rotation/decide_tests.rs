use proptest::prelude::*;

use super::super::reference::{Source, Via};
use super::*;

const TIMING: Timing = Timing {
    settle: SignedDuration::from_secs(10),
    min_interval: SignedDuration::from_secs(60),
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn token() -> SourceKey {
    SourceKey {
        source: Source::secret("adopat"),
        key: "token".into(),
    }
}

fn content(digest: &str, changed: i64, first: bool) -> BTreeMap<SourceKey, Content> {
    let record = KeyRecord {
        digest: digest.into(),
        object: "o".into(),
        version: "1".into(),
        updated: None,
        expires: None,
        changed: at(changed),
        first,
        unsettled_since: None,
    };
    BTreeMap::from([(
        token(),
        Content {
            digest_key: "k".into(),
            record,
        },
    )])
}

fn baseline(digest: &str) -> Option<Baseline> {
    Some(Baseline {
        digest_key: "k".into(),
        keys: BTreeMap::from([(token(), digest.into())]),
        rotated: None,
    })
}

fn workload(baseline: Option<Baseline>) -> Workload {
    let reference = Reference {
        container: Some("agent".into()),
        source: Source::secret("adopat"),
        key: Some("token".into()),
        optional: false,
        via: Via::Environment,
    };
    Workload {
        references: BTreeSet::from([reference]),
        baseline,
        paused: false,
        rollout: Rollout::Finished,
    }
}

fn running(since: i64) -> Vec<Started> {
    vec![Started {
        container: "agent".into(),
        at: at(since),
    }]
}

fn decision(
    workload: &Workload,
    contents: &BTreeMap<SourceKey, Content>,
    started: &[Started],
    now: i64,
) -> Decision {
    decide(workload, contents, started, &[], TIMING, at(now))
}

#[test]
fn equal_content_is_left_alone() {
    assert_eq!(
        decision(
            &workload(baseline("a")),
            &content("a", 100, false),
            &running(0),
            1000
        ),
        Decision::Nothing
    );
}

#[test]
fn changed_content_rolls_what_started_before() {
    let decided = decision(
        &workload(baseline("a")),
        &content("b", 100, false),
        &running(50),
        200,
    );
    let Decision::Rotate {
        baseline, changed, ..
    } = decided
    else {
        panic!("{decided:?}")
    };
    assert_eq!(changed, [token()]);
    assert_eq!(baseline.rotated, Some(at(200)));
}

#[test]
fn what_started_after_the_change_is_recorded() {
    for started in [running(106), Vec::new()] {
        let decided = decision(
            &workload(baseline("a")),
            &content("b", 100, false),
            &started,
            200,
        );
        assert_eq!(decided, Decision::Record(baseline("b").expect("one")));
    }
}

#[test]
fn a_start_within_the_margin_may_have_the_old_content() {
    let decided = decision(
        &workload(baseline("a")),
        &content("b", 100, false),
        &running(105),
        200,
    );
    assert!(matches!(decided, Decision::Rotate { .. }));
}

#[test]
fn content_that_appears_restarts_nothing() {
    let decided = decision(&workload(None), &content("a", 100, true), &running(50), 200);
    assert_eq!(decided, Decision::Record(baseline("a").expect("one")));
}

#[test]
fn content_that_appears_for_an_optional_reference_restarts_who_lacks_it() {
    let mut workload = workload(None);
    workload.references = workload
        .references
        .into_iter()
        .map(|reference| Reference {
            optional: true,
            ..reference
        })
        .collect();
    assert!(matches!(
        decision(&workload, &content("a", 100, true), &running(50), 200),
        Decision::Rotate { .. }
    ));
    assert!(matches!(
        decision(&workload, &content("a", 100, true), &running(150), 200),
        Decision::Record(_)
    ));
}

#[test]
fn a_secret_that_was_deleted_and_made_anew_with_other_content_is_a_change() {
    let decided = decision(
        &workload(baseline("a")),
        &content("b", 100, true),
        &running(50),
        200,
    );
    assert!(matches!(decided, Decision::Rotate { .. }));
}

#[test]
fn what_starts_within_the_margin_is_waited_for() {
    let workload = workload(baseline("a"));
    let contents = content("b", 100, false);
    let expected = Decision::Wait {
        until: at(106),
        reason: Wait::Settling,
    };
    assert_eq!(decision(&workload, &contents, &[], 101), expected);
    assert!(matches!(
        decision(&workload, &contents, &running(103), 110),
        Decision::Rotate { .. }
    ));
}

#[test]
fn content_that_appears_is_recorded_at_once() {
    let decided = decision(&workload(None), &content("a", 100, true), &[], 100);
    assert_eq!(decided, Decision::Record(baseline("a").expect("one")));
}

#[test]
fn a_secret_that_is_gone_stays_in_the_baseline() {
    let workload = workload(baseline("a"));
    let decided = decision(&workload, &BTreeMap::new(), &running(50), 200);
    assert_eq!(decided, Decision::Nothing);
}

#[test]
fn a_key_that_is_no_longer_used_leaves_the_baseline() {
    let mut workload = workload(baseline("a"));
    workload.references.clear();
    let decided = decision(&workload, &BTreeMap::new(), &running(50), 200);
    assert!(matches!(decided, Decision::Record(baseline) if baseline.keys.is_empty()));
}

#[test]
fn a_rollout_without_a_deadline_is_not_waited_for_for_ever() {
    let mut workload = workload(baseline("a"));
    workload.rollout = Rollout::UnderWayForEver;
    let contents = content("b", 100, false);
    let decided = decision(&workload, &contents, &running(50), 200);
    let expected = Decision::Wait {
        until: at(700),
        reason: Wait::Rolling,
    };
    assert_eq!(decided, expected);
    let decided = decision(&workload, &contents, &running(50), 701);
    assert!(matches!(decided, Decision::Rotate { .. }));
}

#[test]
fn changes_settle_first() {
    let decided = decision(
        &workload(baseline("a")),
        &content("b", 100, false),
        &running(50),
        105,
    );
    assert_eq!(
        decided,
        Decision::Wait {
            until: at(110),
            reason: Wait::Settling
        }
    );
}

#[test]
fn settling_is_never_shorter_than_propagation() {
    let timing = Timing {
        settle: SignedDuration::ZERO,
        ..TIMING
    };
    let workload = workload(baseline("a"));
    let decided = decide(
        &workload,
        &content("b", 100, false),
        &running(50),
        &[],
        timing,
        at(104),
    );
    assert_eq!(
        decided,
        Decision::Wait {
            until: at(106),
            reason: Wait::Settling
        }
    );
}

#[test]
fn paused_and_rolling_workloads_wait() {
    let paused = Workload {
        paused: true,
        ..workload(baseline("a"))
    };
    let rolling = Workload {
        rollout: Rollout::UnderWay,
        ..workload(baseline("a"))
    };
    for (workload, expected) in [(paused, Wait::Paused), (rolling, Wait::Rolling)] {
        let decided = decision(&workload, &content("b", 100, false), &running(50), 200);
        assert!(matches!(decided, Decision::Wait { reason, .. } if reason == expected));
    }
}

#[test]
fn a_rollout_that_failed_delays_nothing() {
    let mut workload = workload(baseline("a"));
    workload.rollout = Rollout::Failed;
    let decided = decision(&workload, &content("b", 100, false), &running(50), 200);
    assert!(matches!(decided, Decision::Rotate { .. }));
}

#[test]
fn two_rotations_are_min_interval_apart() {
    let mut before = baseline("a").expect("one");
    before.rotated = Some(at(150));
    let workload = workload(Some(before));
    let decided = decision(&workload, &content("b", 160, false), &running(155), 200);
    assert_eq!(
        decided,
        Decision::Wait {
            until: at(210),
            reason: Wait::MinInterval
        }
    );
}

#[test]
fn another_mirror_of_the_workload_is_waited_for_but_not_for_long() {
    let mirror = |in_flight, failing_since: Option<i64>| MirrorState {
        name: "m".into(),
        in_flight,
        failing_since: failing_since.map(at),
    };
    let decided = |mirror| {
        decide(
            &workload(baseline("a")),
            &content("b", 100, false),
            &running(50),
            &[mirror],
            TIMING,
            at(200),
        )
    };
    assert!(matches!(
        decided(mirror(true, None)),
        Decision::Wait {
            reason: Wait::MirrorBusy,
            ..
        }
    ));
    assert!(matches!(
        decided(mirror(false, Some(150))),
        Decision::Wait {
            reason: Wait::MirrorBusy,
            ..
        }
    ));
    let Decision::Rotate { failing, .. } = decided(mirror(false, Some(130))) else {
        panic!("rotates")
    };
    assert_eq!(failing, ["m"]);
}

#[test]
fn another_digest_key_restarts_nothing() {
    let mut contents = content("x", 100, false);
    contents.get_mut(&token()).expect("token").digest_key = "other".into();
    let decided = decision(&workload(baseline("a")), &contents, &running(150), 200);
    assert!(
        matches!(decided, Decision::Record(Baseline { digest_key, .. }) if digest_key == "other")
    );
}

#[test]
fn another_digest_key_restarts_nothing_that_started_right_after_its_first_content() {
    let mut contents = content("x", 100, true);
    contents.get_mut(&token()).expect("token").digest_key = "other".into();
    let decided = decision(&workload(baseline("a")), &contents, &running(102), 200);
    assert!(matches!(decided, Decision::Record(_)), "{decided:?}");
}

#[test]
fn only_containers_that_use_the_key_count() {
    let sidecar = vec![Started {
        container: "sidecar".into(),
        at: at(0),
    }];
    let decided = decision(
        &workload(baseline("a")),
        &content("b", 100, false),
        &sidecar,
        200,
    );
    assert!(matches!(decided, Decision::Record(_)));
}

proptest! {
    #[test]
    fn never_twice_for_the_same_content(changed in 0i64..500, started in 0i64..500, now in 0i64..2000) {
        let contents = content("b", changed, false);
        if let Decision::Rotate { baseline, .. } =
            decision(&workload(baseline("a")), &contents, &running(started), now)
        {
            let after = workload(Some(baseline));
            prop_assert_eq!(decision(&after, &contents, &running(started), now + 10_000), Decision::Nothing);
        }
    }

    #[test]
    fn never_without_a_change(changed in 0i64..500, started in 0i64..500, now in 0i64..2000, first: bool) {
        let contents = content("a", changed, first);
        prop_assert_eq!(decision(&workload(baseline("a")), &contents, &running(started), now), Decision::Nothing);
    }

    #[test]
    fn never_before_the_content_has_spread(changed in 0i64..500, started in 0i64..500, now in 0i64..2000) {
        let decided = decision(&workload(baseline("a")), &content("b", changed, false), &running(started), now);
        if matches!(decided, Decision::Rotate { .. }) {
            prop_assert!(now >= changed + 6);
        }
    }

    #[test]
    fn always_in_the_end(changed in 0i64..500, before in 0i64..500) {
        let decided = decision(&workload(baseline("a")), &content("b", changed, false), &running(changed - before), 5000);
        let rotates = matches!(decided, Decision::Rotate { .. });
        prop_assert!(rotates);
    }
}
