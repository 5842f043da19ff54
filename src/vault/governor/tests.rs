use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    per_second: 50.0,
    burst: 20.0,
    concurrency: 8,
};
const MINUTE: Duration = Duration::from_secs(60);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A governor with its clock and what is under way, so that tests read as what happens.
struct World {
    governor: Governor<u32>,
    now: Instant,
    under_way: VecDeque<u64>,
    started: Vec<(Instant, u32)>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            governor: Governor::new(LIMITS, now),
            now,
            under_way: VecDeque::new(),
            started: Vec::new(),
        }
    }

    fn submit(&mut self, priority: Priority, requests: impl IntoIterator<Item = u32>) {
        for request in requests {
            self.governor.submit(priority, request);
        }
    }

    fn start(&mut self) -> Option<u32> {
        let started = self.governor.start(self.now, |_| true)?;
        self.under_way.push_back(started.number);
        self.started.push((self.now, started.request));
        Some(started.request)
    }

    fn start_all(&mut self) -> Vec<u32> {
        std::iter::from_fn(|| self.start()).collect()
    }

    fn finish(&mut self, outcome: Outcome) {
        let number = self.under_way.pop_front().expect("one is under way");
        self.governor.finish(self.now, number, outcome, 0.5, MINUTE);
    }

    fn finish_all(&mut self, outcome: Outcome) {
        while !self.under_way.is_empty() {
            self.finish(outcome);
        }
    }

    /// Answers everything until nothing waits, and says how long that took.
    fn run_dry(&mut self) -> Duration {
        let begin = self.now;
        loop {
            self.start_all();
            if self.under_way.is_empty() {
                let Some(wake) = self.governor.wake(self.now) else {
                    return self.now - begin;
                };
                assert!(wake > self.now, "a request could go and did not");
                self.now = wake;
            }
            self.finish_all(Outcome::Answered);
        }
    }
}

const fn throttled(retry_after: Option<u64>) -> Outcome {
    Outcome::Throttled {
        retry_after: match retry_after {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => None,
        },
    }
}

#[test]
fn what_may_be_under_way_grows_with_answers_and_halves_with_an_overload() {
    let mut world = World::new();
    world.submit(Priority::Periodic, 0..400);
    assert_eq!(world.start_all().len(), 4);
    for _ in 0..20 {
        world.finish_all(Outcome::Answered);
        world.now += seconds(1);
        world.start_all();
    }
    assert_eq!(world.governor.bound(), LIMITS.concurrency);
    world.finish_all(Outcome::Failed);
    assert_eq!(world.governor.bound(), 1, "dead: all of them failed");

    let mut world = World::new();
    world.submit(Priority::Periodic, 0..8);
    world.start_all();
    world.finish_all(throttled(Some(1)));
    world.now += seconds(2);
    assert_eq!(
        world.start_all().len(),
        2,
        "four refusals of one moment halve once"
    );
}

#[test]
fn a_throttled_vault_gets_nothing_until_it_said() {
    let mut world = World::new();
    world.submit(Priority::New, 0..8);
    world.start_all();
    world.finish(throttled(Some(7)));
    world.finish_all(Outcome::Answered);
    world.now += seconds(7);
    assert_eq!(world.start(), None, "never before Retry-After");
    world.now += seconds(2);
    assert!(world.start().is_some());
}

#[test]
fn a_vault_that_keeps_throttling_is_asked_less_and_less() {
    let mut world = World::new();
    world.submit(Priority::New, 0..8);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        world.start().expect("after the pause");
        world.finish(throttled(None));
        let until = world.governor.paused(world.now).expect("a pause");
        pauses.push((until - world.now).as_secs());
        world.now = until;
    }
    assert_eq!(pauses, [1, 2, 4, 9, 18, 36, 67, 67]);
}

#[test]
fn an_absurd_retry_after_is_cut() {
    let mut world = World::new();
    world.submit(Priority::New, 0..1);
    world.start();
    world.finish(throttled(Some(u64::MAX)));
    let until = world.governor.paused(world.now).expect("a pause");
    assert!(until - world.now <= LONGEST_RETRY_AFTER.mul_f64(1.25));
}

#[test]
fn a_dead_vault_is_tried_with_one_request_and_opens_with_its_answer() {
    let mut world = World::new();
    world.submit(Priority::Periodic, 0..20);
    world.start_all();
    world.finish_all(Outcome::Failed);
    let until = world.governor.paused(world.now).expect("a pause");
    assert_eq!(world.governor.drain().count(), 16);
    world.submit(Priority::Periodic, 0..20);
    world.now = until;
    assert!(world.governor.wants_probe(world.now));
    assert_eq!(world.start_all().len(), 1);
    assert!(!world.governor.wants_probe(world.now));
    world.finish(Outcome::Failed);
    let again = world.governor.paused(world.now).expect("a longer pause");
    assert!(again - world.now > seconds(5));
    world.now = again;
    assert_eq!(world.start_all().len(), 1);
    world.finish(Outcome::Answered);
    assert!(!world.start_all().is_empty());
}

#[test]
fn a_dead_vault_is_left_alone_no_longer_than_the_patience() {
    let mut world = World::new();
    for _ in 0..10 {
        world.submit(Priority::Periodic, 0..4);
        world.start_all();
        let numbers = std::mem::take(&mut world.under_way);
        for number in numbers {
            world
                .governor
                .finish(world.now, number, Outcome::Failed, 0.0, seconds(10));
        }
        let until = world.governor.paused(world.now).expect("a pause");
        assert!(until - world.now <= seconds(10));
        world.now = until;
    }
}

#[test]
fn an_answer_from_before_the_pause_ends_no_pause() {
    let mut world = World::new();
    world.submit(Priority::Periodic, 0..8);
    world.start_all();
    world.finish(throttled(Some(5)));
    world.finish_all(Outcome::Answered);
    assert!(world.governor.paused(world.now).is_some());
}

#[test]
fn a_request_that_nobody_wants_any_more_costs_nothing() {
    let mut world = World::new();
    world.submit(Priority::Periodic, 0..100);
    let started = world.governor.start(world.now, |request| *request == 99);
    assert_eq!(started.map(|started| started.request), Some(99));
    assert_eq!(world.governor.tokens, LIMITS.burst - 1.0);
}

#[test]
fn the_more_urgent_goes_first_and_the_other_is_not_forgotten() {
    let mut world = World::new();
    world.submit(Priority::Periodic, 0..2);
    world.submit(Priority::Hinted, 10..12);
    world.submit(Priority::New, 100..1000);
    let mut order = Vec::new();
    while order.len() < 32 {
        order.extend(world.start_all());
        world.finish_all(Outcome::Answered);
        world.now += seconds(1);
    }
    let place = |request| order.iter().position(|started| *started == request);
    assert_eq!(&order[..7], [100, 101, 102, 103, 104, 105, 106]);
    assert_eq!(
        [0, 1, 10, 11].map(place),
        [Some(7), Some(15), Some(23), Some(31)],
        "one in eight is for the longest in line"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Submit(Priority),
    Pass(u64),
    Start,
    Finish(Outcome),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let priority = prop_oneof![
        Just(Priority::Periodic),
        Just(Priority::Hinted),
        Just(Priority::New)
    ];
    let outcome = prop_oneof![
        6 => Just(Outcome::Answered),
        2 => Just(Outcome::Failed),
        1 => proptest::option::of(0u64..20).prop_map(throttled),
    ];
    let step = prop_oneof![
        4 => priority.prop_map(Step::Submit),
        2 => (0u64..3000).prop_map(Step::Pass),
        4 => Just(Step::Start),
        4 => outcome.prop_map(Step::Finish),
    ];
    proptest::collection::vec(step, 0..400)
}

proptest! {
    #[test]
    fn its_limits_hold_and_after_the_faults_everything_goes(steps in steps()) {
        let mut world = World::new();
        let mut submitted = 0;
        for step in steps {
            match step {
                Step::Submit(priority) => {
                    world.governor.submit(priority, submitted);
                    submitted += 1;
                }
                Step::Pass(milliseconds) => world.now += Duration::from_millis(milliseconds),
                Step::Start => {
                    let paused = world.governor.paused(world.now).is_some();
                    let started = world.start().is_some();
                    prop_assert!(!(paused && started), "nothing goes to a vault that is left alone");
                }
                Step::Finish(outcome) if !world.under_way.is_empty() => world.finish(outcome),
                Step::Finish(_) => {}
            }
            prop_assert!(world.under_way.len() <= LIMITS.concurrency);
        }
        let bounded = LONGEST_PAUSE.mul_f64(1.25) + Duration::from_secs(submitted.into());
        prop_assert!(world.run_dry() <= bounded);
        let mut all: Vec<u32> = world.started.iter().map(|(_, request)| *request).collect();
        all.sort_unstable();
        prop_assert!(all.into_iter().eq(0..submitted), "each goes once");
        for (index, (begin, _)) in world.started.iter().enumerate() {
            for (count, (end, _)) in world.started[index..].iter().enumerate() {
                let allowed = LIMITS.burst + (*end - *begin).as_secs_f64() * LIMITS.per_second;
                prop_assert!((count + 1) as f64 <= allowed + 1e-6);
            }
        }
    }
}
