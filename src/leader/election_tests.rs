use proptest::prelude::*;

use super::*;

const LEASE: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

fn timing() -> Timing {
    Timing::new(LEASE, RENEW, RETRY).expect("times that go together")
}

/// The API server as far as a Lease is concerned: a write on another resourceVersion than the current one is refused.
#[derive(Default)]
struct Server {
    lease: Option<Lease>,
    version: u64,
}

impl Server {
    fn write(&mut self, lease: Lease) -> Option<Lease> {
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        if self.lease.as_ref().and_then(version) != version(&lease) {
            return None;
        }
        self.version += 1;
        let mut written = lease;
        written.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(written.clone());
        Some(written)
    }
}

/// Reads, and claims if it may; whether it leads then.
fn attempt(candidate: &mut Election, server: &mut Server, now: Instant) -> bool {
    candidate.read(server.lease.clone(), now);
    if let Some(claim) = candidate.claim(now, Timestamp::UNIX_EPOCH)
        && let Some(written) = server.write(claim)
    {
        candidate.claimed(written, now);
    }
    leads(candidate, now)
}

fn leads(candidate: &Election, now: Instant) -> bool {
    candidate.leads_until().is_some_and(|until| now < until)
}

fn two(now: Instant) -> (Election, Election) {
    let candidate = |name: &str| Election::new(name.to_owned(), timing(), now);
    (candidate("a"), candidate("b"))
}

fn server_spec(server: &Server) -> LeaseSpec {
    spec(server.lease.as_ref()).cloned().expect("a spec")
}

#[test]
fn the_first_leads_and_the_second_waits() {
    let (now, mut server) = (Instant::now(), Server::default());
    let (mut a, mut b) = two(now);
    assert!(attempt(&mut a, &mut server, now));
    assert!(!attempt(&mut b, &mut server, now));
    assert_eq!(b.holder().map(String::as_str), Some("a"));
}

#[test]
fn a_renewal_is_no_transition() {
    let (now, mut server) = (Instant::now(), Server::default());
    let (mut a, _) = two(now);
    attempt(&mut a, &mut server, now);
    let first = server_spec(&server);
    attempt(&mut a, &mut server, now + RETRY);
    let renewed = server_spec(&server);
    assert_eq!(renewed.lease_transitions, first.lease_transitions);
    assert_eq!(renewed.acquire_time, first.acquire_time);
    assert_eq!(a.leads_until(), Some(now + RETRY + RENEW));
}

#[test]
fn a_released_lease_is_taken_at_once() {
    let (now, mut server) = (Instant::now(), Server::default());
    let (mut a, mut b) = two(now);
    attempt(&mut a, &mut server, now);
    attempt(&mut b, &mut server, now);
    let released = a.release().expect("something to let go");
    assert!(server.write(released).is_some());
    assert!(attempt(&mut b, &mut server, now));
    assert_eq!(server_spec(&server).lease_transitions, Some(2));
}

#[test]
fn whoever_does_not_hold_it_releases_nothing() {
    let (now, mut server) = (Instant::now(), Server::default());
    let (mut a, mut b) = two(now);
    attempt(&mut a, &mut server, now);
    attempt(&mut b, &mut server, now);
    assert!(b.release().is_none());
}

#[test]
fn a_silent_holder_is_replaced_when_its_time_has_run_out_since_it_was_last_seen_to_change() {
    let (now, mut server) = (Instant::now(), Server::default());
    let (mut a, mut b) = two(now);
    attempt(&mut a, &mut server, now);
    // The time runs from when it was seen, not from when it was written: nobody else's clock is read.
    let seen = now + LEASE * 3;
    let almost = seen + LEASE - Duration::from_millis(1);
    assert!(!attempt(&mut b, &mut server, seen));
    assert!(!attempt(&mut b, &mut server, almost));
    assert!(attempt(&mut b, &mut server, seen + LEASE));
    // The other learns of it by its next look.
    assert!(!attempt(&mut a, &mut server, seen + LEASE));
    assert_eq!(a.leads_until(), None);
}

#[test]
fn the_time_that_the_holder_has_said_counts() {
    let (now, mut server) = (Instant::now(), Server::default());
    let slow = Timing::new(LEASE * 2, RENEW, RETRY).expect("times");
    let mut a = Election::new("a".into(), slow, now);
    let (_, mut b) = two(now);
    attempt(&mut a, &mut server, now);
    attempt(&mut b, &mut server, now);
    assert!(!attempt(&mut b, &mut server, now + LEASE));
    assert!(attempt(&mut b, &mut server, now + LEASE * 2));
}

#[test]
fn a_lease_that_is_deleted_is_made_anew() {
    let (now, mut server) = (Instant::now(), Server::default());
    let (mut a, _) = two(now);
    attempt(&mut a, &mut server, now);
    server.lease = None;
    assert!(attempt(&mut a, &mut server, now + RETRY));
    assert!(server.lease.is_some());
}

#[test]
fn times_that_do_not_go_together_are_refused() {
    let (ms, s) = (Duration::from_millis, Duration::from_secs);
    assert_eq!(
        Timing::new(ms(1500), s(1), ms(100)),
        Err(BadTiming::LeaseDuration)
    );
    assert_eq!(Timing::new(s(0), s(0), s(0)), Err(BadTiming::LeaseDuration));
    assert_eq!(
        Timing::new(s(10), s(10), s(2)),
        Err(BadTiming::RenewDeadline)
    );
    assert_eq!(Timing::new(s(15), s(10), s(6)), Err(BadTiming::RetryPeriod));
    assert_eq!(Timing::new(s(15), s(10), s(0)), Err(BadTiming::RetryPeriod));
}

/// What happens to one attempt.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    /// It never reaches the API server.
    Lost,
    /// It is carried out, and nobody hears of it.
    AnswerLost,
    /// Somebody else's attempt comes between the look and the claim.
    Interrupted,
}

fn steps() -> impl Strategy<Value = Vec<(u64, usize, Fate)>> {
    let fate = prop_oneof![
        4 => Just(Fate::Answered),
        1 => Just(Fate::Lost),
        1 => Just(Fate::AnswerLost),
        1 => Just(Fate::Interrupted),
    ];
    prop::collection::vec((0u64..6_000, 0usize..3, fate), 1..200)
}

proptest! {
    #[test]
    fn two_never_lead_at_once(steps in steps()) {
        let (mut now, mut server) = (Instant::now(), Server::default());
        let mut candidates: Vec<Election> = (0..3).map(|i| Election::new(i.to_string(), timing(), now)).collect();
        for (milliseconds, who, fate) in steps {
            now += Duration::from_millis(milliseconds);
            if !matches!(fate, Fate::Lost) {
                candidates[who].read(server.lease.clone(), now);
                let claim = candidates[who].claim(now, Timestamp::UNIX_EPOCH);
                if matches!(fate, Fate::Interrupted) {
                    attempt(&mut candidates[(who + 1) % 3], &mut server, now);
                }
                let written = claim.and_then(|claim| server.write(claim));
                if let Some(written) = written && !matches!(fate, Fate::AnswerLost) {
                    candidates[who].claimed(written, now);
                }
            }
            let leaders = candidates.iter().filter(|candidate| leads(candidate, now)).count();
            prop_assert!(leaders <= 1, "{leaders} lead");
        }
    }

    #[test]
    fn pauses_are_about_the_retry_period(random: u8) {
        let pause = timing().pause(random);
        prop_assert!(pause >= RETRY.mul_f64(0.8) && pause <= RETRY.mul_f64(1.2));
    }
}
