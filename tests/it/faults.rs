//! What goes wrong, in the vault and in the cluster: the target keeps what it has, the mirror says what to do, says it once, and
//! heals by itself.

use std::time::{Duration, Instant};

use keytide::devvault::{Changes, Fault};
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::fixture::{Fixture, SOON};
use crate::testbed::eventually;

/// How a read can fail, and how that ends.
struct Trouble {
    begin: fn(&Fixture),
    end: fn(&Fixture),
    reason: &'static str,
    /// What the message says.
    words: &'static [&'static str],
    /// Whether only a person can end it.
    stalled: bool,
}

fn faults(fixture: &Fixture, fault: Fault) {
    let set = fixture.azure().set_faults(&fixture.vault, vec![fault]);
    set.expect("a fault");
}

fn no_faults(fixture: &Fixture) {
    fixture
        .azure()
        .clear_faults(&fixture.vault)
        .expect("a vault");
}

fn enabled(fixture: &Fixture, enabled: bool) {
    let changes = Changes {
        enabled: Some(enabled),
        ..Changes::default()
    };
    let updated = fixture.azure().update_secret(&fixture.vault, "s", changes);
    updated.expect("updated");
}

/// Everything that the daemon did with the vault, whether it succeeded or not.
fn attempts(fixture: &Fixture) -> u64 {
    let (requests, host) = (fixture.azure().requests(), fixture.host());
    let answers = requests.statuses.get(&host);
    let answers: u64 = answers.into_iter().flat_map(|by| by.values()).sum();
    let of = |counts: &std::collections::BTreeMap<String, u64>| counts.get(&host).copied();
    answers + of(&requests.dropped).unwrap_or(0) + of(&requests.connects).unwrap_or(0)
}

async fn is_kept_told_once_and_healed(name: &str, trouble: Trouble) {
    let fixture = Fixture::new(name).await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "first");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    let before = fixture.secret_has("t", "k", b"first").await;
    fixture.reason("m", "Mirrored").await;

    fixture.set("s", "second");
    (trouble.begin)(&fixture);
    fixture.sync_now("m").await;
    let message = fixture.reason("m", trouble.reason).await;
    for word in trouble.words {
        assert!(message.contains(word), "{word} is not in: {message}");
    }
    let mirror = fixture.mirrors().get("m").await.expect("the mirror");
    let conditions = fixture.conditions("m").await;
    let stalled = conditions.iter().any(|(type_, ..)| type_ == "Stalled");
    assert_eq!(stalled, trouble.stalled, "{conditions:?}");
    fixture.event("m", trouble.reason).await;

    let seen = attempts(&fixture);
    eventually(SOON, "two more attempts", async || {
        let more = attempts(&fixture) - seen;
        if more >= 2 {
            Ok(())
        } else {
            Err(format!("{more}"))
        }
    })
    .await;
    let after = fixture.mirrors().get("m").await.expect("the mirror");
    assert_eq!(
        after.resource_version(),
        mirror.resource_version(),
        "the same failure was written again: {:?}",
        after.status
    );
    let events = fixture.events("m", trouble.reason).await;
    assert_eq!(events.len(), 1, "{events:?}");
    let kept = fixture.secret_has("t", "k", b"first").await;
    assert_eq!(kept.resource_version(), before.resource_version());

    (trouble.end)(&fixture);
    fixture.secret_has("t", "k", b"second").await;
    fixture.reason("m", "Mirrored").await;
    let conditions = fixture.conditions("m").await;
    assert_eq!(conditions.len(), 1, "{conditions:?}");
}

macro_rules! troubles {
    ($($name:ident: $begin:expr, $end:expr, $reason:literal, $stalled:literal, $words:expr;)*) => {$(
        #[tokio::test]
        async fn $name() {
            let trouble = Trouble {
                begin: $begin,
                end: $end,
                reason: $reason,
                stalled: $stalled,
                words: &$words,
            };
            let name = stringify!($name).replace('_', "-");
            is_kept_told_once_and_healed(&name[..name.len().min(30)], trouble).await;
        }
    )*};
}

fn forbidden(code: &str) -> Fault {
    Fault {
        innererror_code: Some(code.to_owned()),
        ..Fault::status(403)
    }
}

troubles! {
    status_500: |f| faults(f, Fault::status(500)), no_faults, "VaultError", false,
        ["answered 500", "asked again"];
    status_503_without_retry_after: |f| faults(f, Fault::status(503)), no_faults, "VaultError", false,
        ["answered 503"];
    a_cut_connection: |f| faults(f, Fault::drop()), no_faults, "VaultUnreachable", false,
        ["can't be reached (the connection was cut)", "network policies"];
    a_token_for_another_audience: |f| faults(f, Fault { wrong_audience: true, ..Fault::default() }), no_faults,
        "BadCredentials", false, ["does not accept the identity's token", "one tenant and cloud"];
    no_permission: |f| faults(f, forbidden("ForbiddenByRbac")), no_faults, "VaultForbidden", true,
        ["forbids reading secret s", "Key Vault Secrets User"];
    a_firewall: |f| faults(f, forbidden("ForbiddenByFirewall")), no_faults, "VaultFirewall", true,
        ["firewall", "private endpoint"];
    an_object_that_is_gone: |f| f.azure().delete_secret(&f.vault, "s").expect("deleted"),
        |f| f.azure().recover_secret(&f.vault, "s").expect("recovered"), "ObjectNotFound", true,
        ["has no secret s", "create the object"];
    a_disabled_object: |f| enabled(f, false), |f| enabled(f, true), "ObjectDisabled", true,
        ["secret s", "is disabled", "enable it"];
}

#[tokio::test]
async fn a_throttled_vault_is_left_alone_by_all_and_gone_on_with() {
    let fixture = Fixture::new("throttled").await;
    let _daemon = fixture.daemon().await;
    for secret in ["one", "two"] {
        fixture.set(secret, "first");
        fixture
            .apply(&fixture.mirror(secret, secret, &[("k", secret)]))
            .await;
        fixture.secret_has(secret, "k", b"first").await;
        fixture.set(secret, "second");
    }
    let gets = |secret| fixture.azure().requests().gets_of(&fixture.host(), secret);
    let fault = Fault {
        retry_after: Some(6),
        ..Fault::status(429).times(1)
    };
    faults(&fixture, fault);
    fixture.sync_now("one").await;
    let message = fixture.reason("one", "VaultThrottled").await;
    let throttled = Instant::now();
    assert!(message.contains("go on by themselves"), "{message}");
    let before = gets("one") + gets("two");
    fixture.sync_now("two").await;
    fixture.reason("two", "VaultThrottled").await;
    eventually(SOON, "the vault is asked again", async || {
        if gets("one") + gets("two") > before {
            Ok(())
        } else {
            Err("not yet".into())
        }
    })
    .await;
    let paused = throttled.elapsed();
    assert!(
        paused > Duration::from_secs(4),
        "asked again after {paused:?}"
    );
    for secret in ["one", "two"] {
        fixture.secret_has(secret, "k", b"second").await;
        fixture.reason(secret, "Mirrored").await;
    }
}

#[tokio::test]
async fn what_waits_for_its_turn_is_not_sent_to_a_vault_that_throttles() {
    let fixture = Fixture::new("queued").await;
    let _daemon = fixture.daemon().await;
    let fault = Fault {
        retry_after: Some(3),
        ..Fault::status(429)
    };
    faults(&fixture, fault);
    let names: Vec<String> = (0..60).map(|number| format!("s{number}")).collect();
    let data: Vec<(&str, &str)> = names.iter().map(|name| (&**name, &**name)).collect();
    fixture.apply(&fixture.mirror("m", "t", &data)).await;
    let throttled = || {
        let requests = fixture.azure().requests();
        let statuses = requests.statuses.get(&fixture.host());
        statuses.and_then(|by| by.get(&429).copied()).unwrap_or(0)
    };
    // Not more than eight are under way at once, so this is the second round, or the first had no end.
    eventually(SOON, "a second round", async || {
        if throttled() > 8 {
            Ok(())
        } else {
            Err(format!("{}", throttled()))
        }
    })
    .await;
    assert!(throttled() <= 16, "{}", throttled());
}

#[tokio::test]
async fn mirrors_of_one_object_that_fail_share_their_attempts() {
    let fixture = Fixture::new("failing").await;
    let _daemon = fixture.daemon().await;
    faults(&fixture, Fault::status(500));
    let names: Vec<String> = (0..10).map(|number| format!("m{number}")).collect();
    for name in &names {
        fixture
            .apply(&fixture.mirror(name, name, &[("k", "s")]))
            .await;
    }
    for name in &names {
        fixture.reason(name, "VaultError").await;
    }
    let gets = || fixture.azure().requests().gets_of(&fixture.host(), "s");
    let (before, begin) = (gets(), Instant::now());
    eventually(SOON, "some seconds of failing", async || {
        let passed = begin.elapsed();
        if passed > Duration::from_secs(25) {
            Ok(())
        } else {
            Err(format!("{passed:?}"))
        }
    })
    .await;
    // Ten mirrors, whose backoff is between 2 s and the interval of 10 s: alone they would make thirty and more.
    let more = gets() - before;
    assert!((1..=20).contains(&more), "{more} reads in 25 s");
}

#[tokio::test]
async fn a_failure_is_not_tried_again_at_once_because_it_was_told() {
    let fixture = Fixture::new("patient").await;
    let _daemon = fixture.daemon().await;
    faults(&fixture, Fault::status(500));
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    let gets = || fixture.azure().requests().gets_of(&fixture.host(), "s");
    let reached = async |count| {
        eventually(SOON, "another read", async || {
            if gets() >= count {
                Ok(Instant::now())
            } else {
                Err(format!("{}", gets()))
            }
        })
        .await
    };
    let first = reached(1).await;
    let second = reached(2).await;
    let pause = second - first;
    assert!(pause > Duration::from_millis(1500), "{pause:?}");
}

#[tokio::test]
async fn a_vault_that_is_not_there_is_told_and_waited_for() {
    let fixture = Fixture::new("unknown").await;
    let _daemon = fixture.daemon().await;
    let vault = format!("x{}", &fixture.vault[3..]);
    let mut grant = fixture.grant_of(&format!("{}-unknown", fixture.namespace), "*");
    grant["spec"]["vault"]["name"] = json!(vault);
    fixture.apply(&grant).await;
    let mut mirror = fixture.mirror("m", "t", &[("k", "s")]);
    mirror["spec"]["vault"]["name"] = json!(vault);
    fixture.apply(&mirror).await;
    let message = fixture.reason("m", "VaultUnreachable").await;
    assert!(
        message.contains(&vault) && message.contains("check its name"),
        "{message}"
    );
    assert!(
        fixture
            .secrets()
            .get_opt("t")
            .await
            .expect("asked")
            .is_none()
    );

    fixture.azure().create_vault(&vault, None).expect("a vault");
    fixture.azure().set_secret(&vault, "s", "v").expect("set");
    fixture.secret_has("t", "k", b"v").await;
    fixture.reason("m", "Mirrored").await;
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_not_trusted() {
    let fixture = Fixture::new("other-ca").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    let fault = Fault {
        other_ca: true,
        ..Fault::default()
    };
    faults(&fixture, fault);
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    let message = fixture.reason("m", "VaultUnreachable").await;
    assert!(
        message.contains("its certificate is not trusted: UnknownIssuer")
            && message.contains("CA bundle"),
        "{message}"
    );
    let attempted = attempts(&fixture);
    eventually(SOON, "another attempt", async || {
        if attempts(&fixture) > attempted {
            Ok(())
        } else {
            Err("none".into())
        }
    })
    .await;
    assert_eq!(fixture.events("m", "VaultUnreachable").await.len(), 1);
    let requests = fixture.azure().requests();
    assert_eq!(
        requests.gets_of(&fixture.host(), "s"),
        0,
        "it was asked all the same"
    );

    no_faults(&fixture);
    fixture.secret_has("t", "k", b"v").await;
    fixture.reason("m", "Mirrored").await;
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_told() {
    let fixture = Fixture::new("dns").await;
    let _daemon = fixture.daemon().await;
    let url = format!("https://{}.vault.invalid", fixture.vault);
    let mut grant = fixture.grant_of(&format!("{}-dns", fixture.namespace), "*");
    grant["spec"]["vault"] = json!({"url": url});
    fixture.apply(&grant).await;
    let mut mirror = fixture.mirror("m", "t", &[("k", "s")]);
    mirror["spec"]["vault"] = json!({"url": url});
    fixture.apply(&mirror).await;
    let message = fixture.reason("m", "VaultUnreachable").await;
    assert!(
        message.contains("the name does not resolve") && message.contains("DNS"),
        "{message}"
    );
}

#[tokio::test]
async fn a_host_under_no_known_suffix_is_not_asked() {
    let fixture = Fixture::new("suffix").await;
    let _daemon = fixture.daemon().await;
    let mut mirror = fixture.mirror("m", "t", &[("k", "s")]);
    mirror["spec"]["vault"] = json!({"url": "https://contoso.example.com"});
    fixture.apply(&mirror).await;
    let message = fixture.reason("m", "InvalidSpec").await;
    assert!(
        message.contains("contoso.example.com") && message.contains("vaultDnsSuffixes"),
        "{message}"
    );
    let requests = fixture.azure().requests();
    assert!(
        !requests
            .refused_connects
            .contains_key("contoso.example.com")
    );
}

#[tokio::test]
async fn what_is_outside_its_validity_is_mirrored_and_said() {
    let fixture = Fixture::new("validity").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    let now = jiff::Timestamp::now().as_second();
    let validity = |nbf, exp| {
        let changes = Changes {
            nbf,
            exp,
            ..Changes::default()
        };
        fixture
            .azure()
            .update_secret(&fixture.vault, "s", changes)
            .expect("updated");
    };
    let says = async |reason: Option<&str>| {
        fixture.sync_now("m").await;
        eventually(
            SOON,
            &format!("OutsideValidity says {reason:?}"),
            async || {
                let conditions = fixture.conditions("m").await;
                let outside = conditions
                    .iter()
                    .find(|(type_, ..)| type_ == "OutsideValidity");
                let ready = conditions
                    .iter()
                    .any(|(type_, status, _)| type_ == "Ready" && status == "True");
                let said = outside.map(|(_, status, reason)| (status.as_str(), reason.as_str()));
                if ready && said == reason.map(|reason| ("True", reason)) {
                    Ok(())
                } else {
                    Err(format!("{conditions:?}"))
                }
            },
        )
        .await;
    };
    validity(None, Some(now - 60));
    says(Some("Expired")).await;
    fixture.secret_has("t", "k", b"v").await;
    validity(Some(now + 3600), Some(now + 7200));
    says(Some("NotYetValid")).await;
    validity(Some(now - 60), Some(now + 7200));
    says(None).await;
}

#[tokio::test]
async fn an_empty_value_is_a_value() {
    let fixture = Fixture::new("empty").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture.secret_has("t", "k", b"").await;
    fixture.reason("m", "Mirrored").await;
}

#[tokio::test]
async fn a_foreign_secret_is_left_untouched() {
    let fixture = Fixture::new("foreign").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    let foreign = json!({"metadata": {"name": "t"}, "data": {"k": "aGFuZHM="}});
    let foreign = serde_json::from_value(foreign).expect("a Secret");
    let foreign = fixture
        .secrets()
        .create(&PostParams::default(), &foreign)
        .await;
    let foreign = foreign.expect("created");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    let message = fixture.reason("m", "TargetConflict").await;
    assert!(
        message.contains("not made by Keytide") && message.contains("spec.target.name"),
        "{message}"
    );
    let told = fixture.mirrors().get("m").await.expect("the mirror");

    // Another mirror's two cycles are the clock here: this one has no requests to count.
    fixture.set("clock", "v");
    fixture
        .apply(&fixture.mirror("clock", "clock", &[("k", "clock")]))
        .await;
    fixture.cycles(2).await;
    let now = fixture.secrets().get("t").await.expect("the Secret");
    assert_eq!(now, foreign);
    let again = fixture.mirrors().get("m").await.expect("the mirror");
    assert_eq!(again.resource_version(), told.resource_version());
    assert_eq!(fixture.events("m", "TargetConflict").await.len(), 1);

    fixture
        .secrets()
        .delete("t", &DeleteParams::default())
        .await
        .expect("deleted");
    fixture.secret_has("t", "k", b"v").await;
    fixture.reason("m", "Mirrored").await;
}

#[tokio::test]
async fn a_label_of_a_shared_target_is_one_mirrors() {
    let fixture = Fixture::new("labels").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    fixture.set("clock", "v");
    let labelled = |name: &str, key: &str, value: &str| {
        let mut mirror = fixture.mirror(name, "t", &[(key, "s")]);
        mirror["spec"]["target"]["labels"] = json!({"team": value});
        mirror
    };
    fixture.apply(&labelled("a", "a", "one")).await;
    fixture.secret_has("t", "a", b"v").await;
    fixture.apply(&labelled("b", "b", "two")).await;
    let message = fixture.reason("b", "TargetConflict").await;
    assert!(
        message.contains("mirror a") && message.contains("label team"),
        "{message}"
    );
    let before = fixture.secret_has("t", "a", b"v").await;
    fixture
        .apply(&fixture.mirror("clock", "clock", &[("k", "clock")]))
        .await;
    fixture.cycles(1).await;
    let after = fixture.secret_has("t", "a", b"v").await;
    assert_eq!(after.resource_version(), before.resource_version());

    fixture.apply(&labelled("b", "b", "one")).await;
    fixture.secret_has("t", "b", b"v").await;
    fixture.reason("a", "Mirrored").await;
}
