//! What the daemon asks of a vault: as little as finds every change, whatever the vault does.

use std::time::Duration;

use futures::future::join_all;
use keytide::devvault::{Changes, Fault, NewSecret, Operation};

use tokio::sync::RwLockReadGuard;

use crate::fixture::{Fixture, QUICK, SOON};
use crate::testbed::daemon::Daemon;
use crate::testbed::eventually;

/// The mirrors' interval here.
const INTERVAL: Duration = Duration::from_secs(10);

/// What was asked of a vault: pages of its list, and reads.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Asked {
    pages: u64,
    gets: u64,
}

fn asked(fixture: &Fixture) -> Asked {
    let requests = fixture.azure().requests();
    Asked {
        pages: requests.count(&fixture.host(), Operation::List),
        gets: requests.count(&fixture.host(), Operation::Get),
    }
}

fn name(number: usize) -> String {
    format!("s{number:02}")
}

/// A secret that was written long before it is read, as most are.
fn old(value: &str) -> NewSecret {
    let mut secret = NewSecret::from(value);
    secret.updated = Some(1_600_000_000);
    secret
}

/// A vault with so many secrets and a mirror of each, all in sync; and the daemon, so that no other test ends it.
async fn mirrored(prefix: &str, secrets: usize) -> (Fixture, RwLockReadGuard<'static, Daemon>) {
    let fixture = Fixture::new(prefix).await;
    let daemon = fixture.daemon().await;
    for number in 0..secrets {
        fixture
            .azure()
            .set_secret(&fixture.vault, &name(number), old("first"))
            .expect("set");
    }
    join_all((0..secrets).map(async |number| {
        let name = name(number);
        fixture
            .apply(&fixture.mirror(&name, &name, &[("k", &name)]))
            .await;
        fixture.secret_has(&name, "k", b"first").await;
    }))
    .await;
    (fixture, daemon)
}

/// Waits until so many more pages were listed, and gives what was asked since.
async fn after_pages(fixture: &Fixture, before: Asked, pages: u64) -> Asked {
    eventually(SOON, "the vault is listed", async || {
        let now = asked(fixture);
        let since = Asked {
            pages: now.pages - before.pages,
            gets: now.gets - before.gets,
        };
        if since.pages >= pages {
            Ok(since)
        } else {
            Err(format!("{since:?}"))
        }
    })
    .await
}

/// Waits for the end of a listing.
async fn a_cycle(fixture: &Fixture, pages: u64) {
    let before = asked(fixture);
    let odd = (3 - before.pages % 3) % 3;
    after_pages(fixture, before, pages + odd).await;
}

#[tokio::test]
async fn a_vault_of_sixty_objects_costs_three_requests_an_interval_and_a_change_one_more() {
    let (fixture, _daemon) = mirrored("sixty", 60).await;
    a_cycle(&fixture, 3).await;
    let before = asked(&fixture);
    let since = after_pages(&fixture, before, 9).await;
    assert!(since.pages <= 9 && since.gets == 0, "{since:?}");

    // It was written before the survey comes by, but not just before.
    let before = asked(&fixture);
    fixture
        .azure()
        .set_secret(&fixture.vault, "s07", {
            let mut secret = NewSecret::from("second");
            secret.updated = Some(1_600_000_100);
            secret
        })
        .expect("set");
    fixture.secret_has("s07", "k", b"second").await;
    let since = after_pages(&fixture, before, 9).await;
    assert_eq!(since.gets, 1, "{since:?}");
}

#[tokio::test]
async fn one_change_of_an_object_that_many_mirror_is_one_read() {
    let (fixture, _daemon) = mirrored("many", 2).await;
    let mirrors: Vec<String> = (0..30).map(|number| format!("m{number:02}")).collect();
    join_all(mirrors.iter().map(async |mirror| {
        fixture
            .apply(&fixture.mirror(mirror, mirror, &[("k", "s00")]))
            .await;
        fixture.secret_has(mirror, "k", b"first").await;
    }))
    .await;
    let gets = || fixture.azure().requests().gets_of(&fixture.host(), "s00");
    let before = gets();
    let mut second = NewSecret::from("second");
    second.updated = Some(1_600_000_100);
    fixture
        .azure()
        .set_secret(&fixture.vault, "s00", second)
        .expect("set");
    join_all(
        mirrors
            .iter()
            .map(|mirror| fixture.secret_has(mirror, "k", b"second")),
    )
    .await;
    assert_eq!(gets() - before, 1);
}

#[tokio::test]
async fn where_listing_is_forbidden_each_object_is_read_and_listing_is_tried_again() {
    let (fixture, _daemon) = mirrored("forbidden", 5).await;
    let mut forbidden = Fault::status(403).on(Operation::List);
    forbidden.innererror_code = Some("ForbiddenByRbac".to_owned());
    fixture
        .azure()
        .set_faults(&fixture.vault, vec![forbidden])
        .expect("a fault");
    let before = asked(&fixture);
    after_pages(&fixture, before, 1).await;
    fixture.set("s03", "second");
    fixture.secret_has("s03", "k", b"second").await;
    fixture.reason("s03", "Mirrored").await;

    fixture
        .azure()
        .clear_faults(&fixture.vault)
        .expect("cleared");
    // Every sixth cycle tries the list; the next one after that it is used as before.
    let before = asked(&fixture);
    eventually(SOON, "the vault is listed again", async || {
        let now = asked(&fixture);
        if now.pages >= before.pages + 2 {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    })
    .await;
    fixture.set("s03", "third");
    fixture.secret_has("s03", "k", b"third").await;
}

#[tokio::test]
async fn a_restore_that_sets_updated_back_is_seen() {
    let fixture = Fixture::new("restore").await;
    let _daemon = fixture.daemon().await;
    let first = fixture.set("s", "first");
    fixture.set("other", "x");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s"), ("o", "other")]))
        .await;
    fixture.secret_has("t", "k", b"first").await;
    // In another second: what a restore sets back to the very same times, a list can't show.
    eventually(SOON, "a version of a later second", async || {
        let second = fixture.set("s", "second");
        if second.updated > first.updated {
            Ok(())
        } else {
            Err("the same second".to_owned())
        }
    })
    .await;
    fixture.secret_has("t", "k", b"second").await;
    fixture
        .azure()
        .restore_secret(&fixture.vault, "s", &first)
        .expect("restored");
    fixture.secret_has("t", "k", b"first").await;
}

#[tokio::test]
async fn a_vault_whose_clock_is_wrong_is_surveyed_all_the_same() {
    let fixture = Fixture::new("clock").await;
    let _daemon = fixture.daemon().await;
    fixture
        .azure()
        .set_clock_ahead(&fixture.vault, jiff::SignedDuration::from_hours(-2))
        .expect("set");
    fixture.set("a", "first");
    fixture.set("b", "first");
    fixture
        .apply(&fixture.mirror("m", "t", &[("a", "a"), ("b", "b")]))
        .await;
    fixture.secret_has("t", "b", b"first").await;
    fixture.set("b", "second");
    fixture.secret_has("t", "b", b"second").await;
}

#[tokio::test]
async fn a_deleted_and_a_disabled_object_keep_their_data_and_come_back() {
    let (fixture, _daemon) = mirrored("gone", 3).await;
    let enabled = |enabled| Changes {
        enabled: Some(enabled),
        ..Changes::default()
    };
    let azure = fixture.azure();
    azure.delete_secret(&fixture.vault, "s00").expect("deleted");
    azure
        .update_secret(&fixture.vault, "s01", enabled(false))
        .expect("disabled");
    fixture.reason("s00", "ObjectNotFound").await;
    fixture.reason("s01", "ObjectDisabled").await;
    for secret in ["s00", "s01"] {
        fixture.secret_has(secret, "k", b"first").await;
    }
    azure
        .recover_secret(&fixture.vault, "s00")
        .expect("recovered");
    azure
        .update_secret(&fixture.vault, "s01", enabled(true))
        .expect("enabled");
    for mirror in ["s00", "s01"] {
        fixture.reason(mirror, "Mirrored").await;
    }
}

#[tokio::test]
async fn a_list_whose_links_expire_or_that_lags_hides_no_change() {
    let (fixture, _daemon) = mirrored("pages", 30).await;
    for (fault, value) in [
        (
            Fault::status(400).on(Operation::List).on_next_pages(),
            "second",
        ),
        (
            Fault::lag(Duration::from_secs(15)).on(Operation::List),
            "third",
        ),
    ] {
        fixture
            .azure()
            .set_faults(&fixture.vault, vec![fault])
            .expect("a fault");
        fixture.set("s29", value);
        fixture.secret_has("s29", "k", value.as_bytes()).await;
    }
}

#[tokio::test]
async fn a_throttled_vault_does_not_hold_back_another_and_says_so() {
    let (throttled, _daemon) = mirrored("throttled", 20).await;
    let other = Fixture::new("undisturbed").await;
    other.set("s", "first");
    other.apply(&other.mirror("m", "t", &[("k", "s")])).await;
    other.secret_has("t", "k", b"first").await;
    let mut fault = Fault::status(429);
    fault.retry_after = Some(3);
    throttled
        .azure()
        .set_faults(&throttled.vault, vec![fault])
        .expect("a fault");
    throttled.set("s05", "second");
    throttled.sync_now("s05").await;
    throttled.reason("s05", "VaultThrottled").await;

    other.set("s", "second");
    eventually(
        INTERVAL * 2,
        "the other vault's change is mirrored in time",
        async || {
            let secret = other.secrets().get("t").await.map_err(|e| e.to_string())?;
            let content = secret.data.and_then(|mut data| data.remove("k"));
            if content
                .as_ref()
                .is_some_and(|content| content.0 == b"second")
            {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        },
    )
    .await;
    let before = asked(&throttled);
    other.reason("m", "Mirrored").await;
    throttled
        .azure()
        .clear_faults(&throttled.vault)
        .expect("cleared");
    throttled.secret_has("s05", "k", b"second").await;
    throttled.reason("s05", "Mirrored").await;
    assert!(asked(&throttled).pages + asked(&throttled).gets > before.pages + before.gets);
}

#[tokio::test]
async fn a_vault_that_is_down_is_said_and_heals_without_reading_everything() {
    let (fixture, _daemon) = mirrored("down", 30).await;
    fixture
        .azure()
        .set_faults(&fixture.vault, vec![Fault::status(500)])
        .expect("a fault");
    fixture.reason("s11", "VaultError").await;
    fixture.reason("s29", "VaultError").await;
    let before = asked(&fixture);
    fixture
        .azure()
        .clear_faults(&fixture.vault)
        .expect("cleared");
    for number in 0..30 {
        fixture.reason(&name(number), "Mirrored").await;
    }
    let now = asked(&fixture);
    let gets = now.gets - before.gets;
    assert!(
        gets <= 10,
        "{gets} reads, of which some were of the time before"
    );
}

#[tokio::test]
async fn a_token_that_the_vault_rejects_is_replaced() {
    let (fixture, shared) = mirrored("rejected", 2).await;
    drop(shared);
    // The tokens of all tests go.
    let _daemon = fixture.daemon_alone().await;
    fixture.azure().expire_tokens();
    fixture.set("s01", "second");
    fixture.secret_has("s01", "k", b"second").await;
    fixture.reason("s01", "Mirrored").await;
}

#[tokio::test]
async fn in_naive_mode_every_object_is_read_at_every_interval() {
    let fixture = Fixture::new("naive").await;
    let mut shared = fixture.daemon_alone().await;
    assert_eq!(shared.terminate().await.expect("ended"), 0);
    let log = fixture.testbed.log_file("keytide-naive.log");
    let arguments = [&QUICK[..], &["--survey", "never"]].concat();
    let mut daemon = fixture
        .system()
        .daemon(&log, &arguments, &[])
        .await
        .expect("a daemon");
    for number in 0..4 {
        fixture.set(&name(number), "first");
        let name = name(number);
        fixture
            .apply(&fixture.mirror(&name, &name, &[("k", &name)]))
            .await;
        fixture.secret_has(&name, "k", b"first").await;
    }
    let before = asked(&fixture);
    eventually(SOON, "two cycles", async || {
        let gets = asked(&fixture).gets - before.gets;
        if gets >= 8 {
            Ok(())
        } else {
            Err(format!("{gets}"))
        }
    })
    .await;
    assert_eq!(asked(&fixture).pages, 0);
    let metrics = daemon.get("/metrics").await.expect("metrics").1;
    let host = fixture.host();
    let counter =
        format!(r#"keytide_vault_requests_total{{vault="{host}",operation="get",outcome="ok"}}"#);
    assert!(metrics.contains(&counter), "{metrics}");

    assert_eq!(daemon.terminate().await.expect("ended"), 0);
    let log = fixture.testbed.log_file("keytide-after-naive.log");
    *shared = fixture
        .system()
        .daemon(&log, &QUICK, &[])
        .await
        .expect("a daemon");
}
