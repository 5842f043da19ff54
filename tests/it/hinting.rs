//! Hints: changes are seen within seconds of an event, and with any events or none the outcome is the same.
//!
//! The daemon goes the way that it goes in Azure: a token from IMDS, the queue's real name, and Azurite behind it.

use azure_storage_queue::QueueClient;
use azure_storage_queue::models::{
    QueueClientGetPropertiesResultHeaders, QueueClientReceiveMessagesOptions,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keytide::devvault::{Fault, Operation};
use serde_json::{Value, json};
use tokio::sync::RwLockWriteGuard;

use crate::fixture::{Fixture, QUICK, SOON};
use crate::testbed::azurite::{self, Azurite, HOST, encoded, event};
use crate::testbed::daemon::Daemon;
use crate::testbed::eventually;

/// Puts a message into the queue, where nobody sees it for so many seconds.
async fn send(queue: &QueueClient, text: &str, hidden: i32) {
    azurite::send(queue, text, hidden).await.expect("sent");
}

/// A version that no object has.
const NO_VERSION: &str = "00000000000000000000000000000000";

/// What a message holds that is no event.
const MARKER: &str = "not for the log";

/// Why a message may change nothing.
const REASONS: [&str; 5] = [
    "malformed",
    "poison",
    "other_event",
    "unknown_vault",
    "unwanted",
];

/// A queue at Azurite, and a daemon in place of the shared one that follows it.
struct Hinting<'a> {
    fixture: &'a Fixture,
    shared: RwLockWriteGuard<'a, Daemon>,
    daemon: Daemon,
    url: String,
    queue: QueueClient,
    azurite: Azurite,
}

impl<'a> Hinting<'a> {
    /// `before` has the queue to itself before the daemon does.
    async fn start(fixture: &'a Fixture, before: impl AsyncFnOnce(&QueueClient)) -> Self {
        let mut shared = fixture.daemon_alone().await;
        assert_eq!(shared.terminate().await.expect("ended"), 0);
        let testbed = fixture.testbed;
        let azurite = Azurite::start(&testbed.log_file("azurite").with_extension(""))
            .await
            .expect("Azurite");
        fixture.azure().forward(HOST, azurite.address);
        let url = format!("https://{HOST}/{}", testbed.unique("hints"));
        let queue = azurite.queue(&fixture.azure().proxy(), &url);
        let queue = queue.expect("a client");
        queue.create(None).await.expect("a queue");
        before(&queue).await;
        Self {
            daemon: daemon(fixture, &azurite, &url, "keytide-hints").await,
            fixture,
            shared,
            url,
            queue,
            azurite,
        }
    }

    async fn send(&self, event: &Value) {
        send(&self.queue, &encoded(event), 0).await;
    }

    /// Waits until the daemon has emptied the queue.
    async fn is_emptied(&self) {
        eventually(SOON, "the queue is empty", async || {
            let properties = self.queue.get_properties(None).await;
            let properties = properties.map_err(|error| error.to_string())?;
            match properties.approximate_messages_count() {
                Ok(Some(0)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// A daemon that takes over when the one that leads ends.
    async fn second(&self) -> Daemon {
        let name = "keytide-hints-second";
        let second = daemon(self.fixture, &self.azurite, &self.url, name).await;
        eventually(SOON, "it waits", async || {
            let waits = second.log().contains("another daemon leads");
            waits.then_some(()).ok_or_else(|| "not yet".to_owned())
        })
        .await;
        second
    }

    async fn dropped(&self, reason: &str) -> f64 {
        let series = format!(r#"keytide_hints_dropped_total{{reason="{reason}"}}"#);
        metric(&self.daemon, &series).await
    }

    /// The shared daemon is back for other tests.
    async fn end(mut self) {
        assert_eq!(self.daemon.terminate().await.expect("ended"), 0);
        let testbed = self.fixture.testbed;
        let log = testbed.log_file("keytide-after-hints");
        let daemon = self.fixture.system().daemon(&log, &QUICK, &[]).await;
        *self.shared = daemon.expect("a daemon");
    }
}

/// A daemon that follows the queue, and says all that it can.
async fn daemon(fixture: &Fixture, azurite: &Azurite, url: &str, name: &str) -> Daemon {
    let log = fixture.testbed.log_file(name);
    let arguments = [&QUICK[..], &["--hints-queue", url]].concat();
    let ca = azurite.ca.display().to_string();
    let environment = [
        ("SSL_CERT_FILE", ca.as_str()),
        ("KEYTIDE_LOG_FILTER", "trace"),
    ];
    let daemon = fixture.system().daemon(&log, &arguments, &environment);
    daemon.await.expect("a daemon")
}

/// The sum of a daemon's metrics whose names and labels begin like that.
async fn metric(daemon: &Daemon, series: &str) -> f64 {
    let (_, text) = daemon.get("/metrics").await.expect("metrics");
    let lines = text.lines().filter(|line| line.starts_with(series));
    let values = lines.filter_map(|line| line.rsplit(' ').next());
    values
        .map(|value| value.parse::<f64>().expect("a number"))
        .sum()
}

/// The same in the CloudEvents schema.
fn cloud_event(host: &str, secret: &str, version: &str) -> Value {
    let event = event(host, secret, version);
    json!({
        "specversion": "1.0",
        "id": event["id"],
        "source": event["topic"],
        "subject": event["subject"],
        "type": event["eventType"],
        "time": event["eventTime"],
        "data": event["data"],
    })
}

/// An event about a version that is there already.
fn expiry(host: &str, secret: &str, what: &str) -> Value {
    let mut event = event(host, secret, NO_VERSION);
    event["eventType"] = json!(format!("Microsoft.KeyVault.Secret{what}"));
    event
}

/// Has a message received five times by somebody who never deletes it.
async fn receive_without_deleting(queue: &QueueClient, event: &Value) {
    send(queue, &encoded(event), 0).await;
    eventually(SOON, "the message was received five times", async || {
        let options = QueueClientReceiveMessagesOptions {
            visibility_timeout: Some(1),
            ..Default::default()
        };
        let received = queue.receive_messages(Some(options)).await;
        let received = received.and_then(|answer| answer.into_model());
        let messages = received.map_err(|error| error.to_string())?.items;
        let count = messages
            .unwrap_or_default()
            .first()
            .and_then(|message| message.dequeue_count);
        if count == Some(5) {
            Ok(())
        } else {
            Err(format!("{count:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_hint_brings_a_change_at_once_though_the_interval_is_an_hour() {
    let fixture = Fixture::new("hinted").await;
    let host = fixture.host();
    let mut hinting = Hinting::start(&fixture, async |_| {}).await;
    fixture.set("s", "first");
    let mut mirror = fixture.mirror("m", "t", &[("k", "s")]);
    mirror["spec"]["refreshInterval"] = json!("1h");
    fixture.apply(&mirror).await;
    fixture.secret_has("t", "k", b"first").await;

    type Message = fn(&str, &str) -> String;
    let messages: [(&str, Message); 5] = [
        ("by Event Grid", |host, version| {
            encoded(&event(host, "s", version))
        }),
        ("as a CloudEvent", |host, version| {
            encoded(&cloud_event(host, "s", version))
        }),
        ("plain", |host, version| {
            event(host, "s", version).to_string()
        }),
        ("expires soon", |host, _| {
            encoded(&expiry(host, "s", "NearExpiry"))
        }),
        ("expired", |host, _| encoded(&expiry(host, "s", "Expired"))),
    ];
    for (value, message) in messages {
        let version = fixture.set("s", value).version;
        send(&hinting.queue, &message(&host, &version), 0).await;
        fixture.secret_has("t", "k", value.as_bytes()).await;
    }

    // The event is here before the version can be read everywhere.
    let not_yet = Fault::status(404).on(Operation::Get).times(1);
    fixture
        .azure()
        .set_faults(&fixture.vault, vec![not_yet])
        .expect("a fault");
    let version = fixture.set("s", "not yet").version;
    hinting.send(&event(&host, "s", &version)).await;
    fixture.secret_has("t", "k", b"not yet").await;

    // Somebody deletes the queue, and makes it anew.
    hinting.is_emptied().await;
    hinting.queue.delete(None).await.expect("deleted");
    eventually(SOON, "the queue is missed", async || {
        let series = r#"keytide_hint_requests_total{operation="receive",outcome="not_found"}"#;
        match metric(&hinting.daemon, series).await {
            0.0 => Err("not yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
    hinting.queue.create(None).await.expect("a queue");
    let version = fixture.set("s", "anew").version;
    hinting.send(&event(&host, "s", &version)).await;
    fixture.secret_has("t", "k", b"anew").await;

    hinting.is_emptied().await;
    assert!(metric(&hinting.daemon, "keytide_hints_received_total").await >= 7.0);
    assert!(metric(&hinting.daemon, "keytide_hint_age_seconds_count").await >= 7.0);
    for reason in REASONS {
        assert_eq!(hinting.dropped(reason).await, 0.0, "{reason}");
    }

    // Only the leader takes messages, and the next one does when it leads.
    let second = hinting.second().await;
    let version = fixture.set("s", "by the first").version;
    hinting.send(&event(&host, "s", &version)).await;
    fixture.secret_has("t", "k", b"by the first").await;
    hinting.is_emptied().await;
    assert_eq!(metric(&second, "keytide_hint_requests_total").await, 0.0);

    assert_eq!(hinting.daemon.terminate().await.expect("ended"), 0);
    hinting.daemon = second;
    fixture.reason("m", "Mirrored").await;
    hinting.send(&event(&host, "nobodys", NO_VERSION)).await;
    hinting.is_emptied().await;
    let version = fixture.set("s", "by the second").version;
    hinting.send(&event(&host, "s", &version)).await;
    fixture.secret_has("t", "k", b"by the second").await;
    hinting.end().await;
}

#[tokio::test]
async fn with_any_hints_or_none_each_target_gets_what_its_vault_has_and_never_goes_back() {
    const ROUNDS: u32 = 2;
    let fixture = Fixture::new("hints").await;
    let host = fixture.host();
    let hinting = Hinting::start(&fixture, async |queue| {
        receive_without_deleting(queue, &event(&host, "lost", NO_VERSION)).await;
    })
    .await;
    let objects = ["lost", "doubled", "disordered", "late"];
    for object in objects {
        fixture.set(object, "0");
        fixture
            .apply(&fixture.mirror(object, object, &[("k", object)]))
            .await;
        fixture.secret_has(object, "k", b"0").await;
    }
    let seen = fixture.record();

    for round in 1..=ROUNDS {
        let (before, after) = ((2 * round - 1).to_string(), (2 * round).to_string());
        fixture.set("lost", &after);
        let doubled = event(&host, "doubled", &fixture.set("doubled", &after).version);
        let first = event(
            &host,
            "disordered",
            &fixture.set("disordered", &before).version,
        );
        let second = event(
            &host,
            "disordered",
            &fixture.set("disordered", &after).version,
        );
        let late = event(&host, "late", &fixture.set("late", &after).version);
        // In the midst of the next round, or after the last.
        send(&hinting.queue, &encoded(&late), 6).await;
        for event in [&doubled, &doubled, &second, &doubled, &first] {
            hinting.send(event).await;
        }
        for garbage in [MARKER.to_owned(), STANDARD.encode(MARKER)] {
            send(&hinting.queue, &garbage, 0).await;
        }
        let mut access = event(&host, "lost", NO_VERSION);
        access["eventType"] = json!("Microsoft.KeyVault.VaultAccessPolicyChanged");
        hinting.send(&access).await;
        hinting.send(&event(&host, "nobodys", NO_VERSION)).await;
        let elsewhere = "elsewhere.vault.azure.net";
        hinting.send(&event(elsewhere, "lost", NO_VERSION)).await;
        for object in objects {
            fixture.secret_has(object, "k", after.as_bytes()).await;
        }
    }

    hinting.is_emptied().await;
    for object in objects {
        let last = (2 * ROUNDS).to_string();
        fixture.secret_has(object, "k", last.as_bytes()).await;
        let seen = seen.lock().expect("not poisoned");
        let seen = &seen[&(object.to_owned(), "k".to_owned())];
        let numbers = seen.iter().map(|seen| seen.parse::<u32>());
        assert!(
            numbers.map(Result::unwrap).is_sorted(),
            "{object}: {seen:?}"
        );
    }
    for reason in REASONS {
        assert!(hinting.dropped(reason).await >= 1.0, "{reason}");
    }
    let connects = fixture.azure().requests().refused_connects;
    assert!(!connects.contains_key("elsewhere.vault.azure.net"));
    let log = hinting.daemon.log();
    assert!(log.contains("a message that is of no use"), "at this level");
    for secret in [MARKER.to_owned(), STANDARD.encode(MARKER)] {
        assert!(!log.contains(&secret), "the log holds {secret}");
    }
    hinting.end().await;
}
