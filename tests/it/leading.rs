//! Leader election: of two daemons one acts, and what a leader does too late is refused.
//!
//! All daemons here look after the whole cluster, so each test ends the shared one and starts it again.

use std::time::{Duration, Instant};

use keytide::devvault::{Fault, Operation};
use kube::ResourceExt;

use crate::fixture::{Fixture, QUICK, SOON, revision};
use crate::testbed::daemon::Daemon;
use crate::testbed::eventually;

/// How long a lease runs in these tests: as short as a busy machine allows.
const LEASE: Duration = Duration::from_secs(6);
const ELECTION: [&str; 6] = [
    "--leader-elect-lease-duration=6s",
    "--leader-elect-renew-deadline=4s",
    "--leader-elect-retry-period=500ms",
    "--min-refresh-interval=10s",
    "--log-format=json",
    "--log-filter=keytide=debug,kube_client=debug,info",
];
/// A daemon that takes no part in an election, as if it still led.
const ALONE: &str = "--leader-elect=false";
/// How late an answer comes that a daemon is stopped before. It is given meanwhile, and lies in the daemon's socket then.
const LATE: Duration = Duration::from_secs(3);

/// Starts a daemon and waits until its caches are filled.
async fn start(fixture: &Fixture, name: &str, more: &[&str]) -> Daemon {
    let log = fixture
        .testbed
        .log_file(&format!("{}-{name}.log", fixture.namespace));
    let arguments = [&QUICK[..], &ELECTION, more].concat();
    let daemon = fixture
        .system()
        .daemon(&log, &arguments, &[("HOSTNAME", name)])
        .await;
    daemon.expect("a daemon")
}

/// Starts the shared daemon again; those of the test must have ended.
async fn restore(fixture: &Fixture, shared: &mut Daemon) {
    let log = fixture
        .testbed
        .log_file(&format!("{}-after.log", fixture.namespace));
    *shared = fixture
        .system()
        .daemon(&log, &QUICK, &[])
        .await
        .expect("a daemon");
}

async fn metric(daemon: &Daemon, name: &str) -> Option<u64> {
    let (_, metrics) = daemon.get("/metrics").await.ok()?;
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.reduce(|sum, value| sum + value)
}

/// Waits until the daemon leads, and says how long that took.
async fn leads(daemon: &Daemon) -> Duration {
    let start = Instant::now();
    eventually(SOON, "it leads", async || {
        match metric(daemon, "keytide_leader").await {
            Some(1) => Ok(start.elapsed()),
            other => Err(format!("keytide_leader is {other:?}")),
        }
    })
    .await
}

/// Two daemons: the leader and the one that waits.
async fn pair(fixture: &Fixture) -> (Daemon, Daemon) {
    let leader = start(fixture, "first", &[]).await;
    leads(&leader).await;
    (leader, start(fixture, "second", &[]).await)
}

/// A settled mirror `m` of `s` in `t`, and a Deployment `d` that uses it.
async fn settle(fixture: &Fixture) {
    fixture.set("s", "first");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture
        .apply(&fixture.deployment("d", Some("true"), "t", "k"))
        .await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "1");
}

/// The version of a target: another one after any write.
async fn version(fixture: &Fixture, target: &str) -> String {
    let target = fixture
        .secrets()
        .get_metadata(target)
        .await
        .expect("the target");
    target.resource_version().expect("a resourceVersion")
}

#[tokio::test]
async fn a_leader_that_is_told_to_stop_hands_over_at_once_and_a_rotation_under_way_happens_once() {
    let fixture = Fixture::new("handover").await;
    let mut shared = fixture.daemon_alone().await;
    assert_eq!(shared.terminate().await.expect("ended"), 0);
    fixture.azure().reset_requests();
    let (mut first, mut second) = pair(&fixture).await;
    settle(&fixture).await;
    fixture.set("s", "second");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "k", b"second").await;

    // All that was asked and written was the leader's doing.
    let asked = fixture
        .azure()
        .requests()
        .count(&fixture.host(), Operation::Get);
    assert!(asked >= 2, "{asked}");
    assert_eq!(metric(&first, &reads_of(&fixture)).await, Some(asked));
    assert_eq!(metric(&second, "keytide_leader").await, Some(0));
    for silent in [
        "keytide_vault_requests",
        "keytide_reconciles_total",
        "keytide_target_writes_total",
    ] {
        assert_eq!(metric(&second, silent).await, None, "{silent}");
    }
    let sent = |method| format!("\"http.method\":\"{method}\"");
    let log = second.log();
    assert!(log.contains(&sent("GET")), "nothing to look at: {log}");
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        assert!(
            !log.contains(&sent(method)),
            "a standby sent {method}: {log}"
        );
    }
    assert!(log.contains("another daemon leads"), "{log}");

    // The rotation waits for changes to settle; before it can begin, its leader goes.
    assert_eq!(
        revision(&fixture.deployments().get("d").await.expect("d")),
        "1"
    );
    let start = Instant::now();
    assert_eq!(first.terminate().await.expect("ended"), 0);
    leads(&second).await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "2");

    assert_eq!(second.terminate().await.expect("ended"), 0);
    restore(&fixture, &mut shared).await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "2");
}

fn reads_of(fixture: &Fixture) -> String {
    format!(
        "keytide_vault_requests_total{{vault=\"{}\",operation=\"get\"",
        fixture.host()
    )
}

#[tokio::test]
async fn a_leader_that_is_lost_is_replaced_when_its_lease_has_run_out() {
    let fixture = Fixture::new("crash").await;
    let mut shared = fixture.daemon_alone().await;
    assert_eq!(shared.terminate().await.expect("ended"), 0);
    let (mut first, mut second) = pair(&fixture).await;
    settle(&fixture).await;

    first.kill();
    let took = leads(&second).await;
    let slack = Duration::from_secs(4);
    assert!(took < LEASE + slack, "{took:?}");
    fixture.set("s", "second");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "k", b"second").await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "2");

    assert_eq!(second.terminate().await.expect("ended"), 0);
    restore(&fixture, &mut shared).await;
}

/// Stops a daemon when it has asked for `second` and `new` and not yet seen the answers, and then changes both. What it asked
/// for is to go to the existing target `t` and to the target `u`, which isn't there.
async fn stop_between_read_and_write(fixture: &Fixture, daemon: &Daemon) {
    fixture.set("s", "second");
    fixture.set("new", "second");
    let late = |secret| {
        Fault::delay(LATE)
            .on(Operation::Get)
            .for_secret(secret)
            .times(1)
    };
    fixture
        .azure()
        .set_faults(&fixture.vault, vec![late("s"), late("new")])
        .expect("faults");
    fixture.azure().reset_requests();
    fixture.sync_now("m").await;
    fixture
        .apply(&fixture.mirror("n", "u", &[("k", "new")]))
        .await;
    eventually(SOON, "both are asked for", async || {
        let gets = gets(fixture);
        if gets == (1, 1) {
            Ok(())
        } else {
            Err(format!("{gets:?}"))
        }
    })
    .await;
    daemon.pause().expect("paused");
    fixture.set("s", "third");
    fixture.set("new", "third");
}

/// How often the vault was asked for `s` and for `new`.
fn gets(fixture: &Fixture) -> (u64, u64) {
    let requests = fixture.azure().requests();
    let of = |secret| requests.gets_of(&fixture.host(), secret);
    (of("s"), of("new"))
}

/// Waits until both targets have the latest content, and gives their versions.
async fn both_written(fixture: &Fixture) -> [String; 2] {
    for target in ["t", "u"] {
        fixture.secret_has(target, "k", b"third").await;
    }
    [version(fixture, "t").await, version(fixture, "u").await]
}

#[tokio::test]
async fn a_leader_that_was_stopped_past_its_lease_ends_and_nothing_goes_back() {
    let fixture = Fixture::new("stopped").await;
    let mut shared = fixture.daemon_alone().await;
    assert_eq!(shared.terminate().await.expect("ended"), 0);
    let (mut first, mut second) = pair(&fixture).await;
    settle(&fixture).await;

    stop_between_read_and_write(&fixture, &first).await;
    leads(&second).await;
    let written = both_written(&fixture).await;
    first.resume().expect("resumed");
    let code = first.ended().await.expect("ended");
    assert_eq!(code, 1, "{}", first.log());
    assert!(
        first.log().contains("this daemon led and does no longer"),
        "{}",
        first.log()
    );

    let rolled = fixture.settled("d", "t", "k").await;
    assert_eq!(revision(&rolled), "2");
    assert_eq!(
        [version(&fixture, "t").await, version(&fixture, "u").await],
        written
    );

    assert_eq!(second.terminate().await.expect("ended"), 0);
    restore(&fixture, &mut shared).await;
}

/// What the API server refuses even to a daemon that takes itself for the leader.
#[tokio::test]
async fn a_write_that_was_decided_on_before_another_daemons_is_refused() {
    let fixture = Fixture::new("stale").await;
    let mut shared = fixture.daemon_alone().await;
    assert_eq!(shared.terminate().await.expect("ended"), 0);
    let mut stale = start(&fixture, "stale", &[ALONE]).await;
    settle(&fixture).await;

    stop_between_read_and_write(&fixture, &stale).await;
    let mut other = start(&fixture, "other", &[ALONE]).await;
    let written = both_written(&fixture).await;
    assert_eq!(other.terminate().await.expect("ended"), 0);
    let before = gets(&fixture);
    stale.resume().expect("resumed");
    // A write that is refused is followed by another read.
    eventually(SOON, "it has tried and looks anew", async || {
        let now = gets(&fixture);
        if now.0 > before.0 && now.1 > before.1 {
            Ok(())
        } else {
            Err(format!("{now:?}, before {before:?}"))
        }
    })
    .await;
    for mirror in ["m", "n"] {
        fixture.sync_now(mirror).await;
        fixture.reason(mirror, "Mirrored").await;
    }
    assert_eq!(
        [version(&fixture, "t").await, version(&fixture, "u").await],
        written
    );
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "2");

    assert_eq!(stale.terminate().await.expect("ended"), 0);
    restore(&fixture, &mut shared).await;
}
