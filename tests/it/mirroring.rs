//! Mirrors: from a vault to a Secret, and what becomes of the Secret.

use std::time::Duration;

use keytide::devvault::Operation;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::fixture::{Fixture, SOON};
use crate::testbed::eventually;

#[tokio::test]
async fn a_secret_of_the_vault_becomes_a_secret_of_the_namespace() {
    let fixture = Fixture::new("mirror").await;
    let _daemon = fixture.daemon().await;
    let written = fixture.set("ado-pat", "first");
    let mut mirror = fixture.mirror("pat", "adopat", &[("token", "ado-pat")]);
    mirror["spec"]["target"]["labels"] = json!({"team": "a"});
    fixture.apply(&mirror).await;
    let secret = fixture.secret_has("adopat", "token", b"first").await;
    assert_eq!(secret.type_.as_deref(), Some("Opaque"));
    assert_eq!(secret.labels()["team"], "a");
    fixture.reason("pat", "Mirrored").await;
    let status = fixture
        .mirrors()
        .get("pat")
        .await
        .expect("mirror")
        .status
        .expect("status");
    assert_eq!(status.objects[0].version, written.version);

    fixture.set("ado-pat", "second");
    fixture.sync_now("pat").await;
    fixture.secret_has("adopat", "token", b"second").await;
}

#[tokio::test]
async fn a_change_in_the_vault_is_seen_without_being_told() {
    let fixture = Fixture::new("poll").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "first");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture.secret_has("t", "k", b"first").await;
    fixture.set("s", "second");
    fixture.secret_has("t", "k", b"second").await;
}

#[tokio::test]
async fn content_costs_a_write_of_the_secret_and_one_of_the_status() {
    const MIRRORS: usize = 20;
    let fixture = Fixture::new("writes").await;
    let Some(audit) = fixture.testbed.audit() else {
        eprintln!("not checked: the audit log of this cluster is not ours to read");
        return;
    };
    let _daemon = fixture.daemon().await;
    let names: Vec<String> = (0..MIRRORS).map(|number| format!("m{number}")).collect();
    for name in &names {
        fixture.set(name, "first");
        let mirror = fixture.mirror(name, name, &[("k", name)]);
        fixture.apply(&mirror).await;
    }
    for name in &names {
        fixture.reason(name, "Mirrored").await;
    }
    // What follows from the first content is over when the status tells of the second.
    let second = names.iter().map(|name| fixture.set(name, "second"));
    let second: Vec<_> = second.collect();
    for (name, second) in names.iter().zip(&second) {
        eventually(SOON, "the status tells of the second", async || {
            let mirror = fixture.mirrors().get(name).await;
            let status = mirror.map_err(|error| error.to_string())?.status;
            match status.and_then(|status| status.objects.into_iter().next()) {
                Some(object) if object.version == second.version => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
    let requests = audit.requests();
    let count = |what: &str| {
        let ours = requests
            .iter()
            .filter(|it| it.about.namespace == fixture.namespace);
        ours.filter(|it| it.what() == what).count()
    };
    assert_eq!(count("patch secrets"), 2 * MIRRORS);
    assert_eq!(count("patch keyvaultmirrors/status"), 2 * MIRRORS);
    let events = count("create events");
    assert_eq!(events, MIRRORS, "of the second content alone");
}

#[tokio::test]
async fn a_pinned_version_stays() {
    let fixture = Fixture::new("pinned").await;
    let _daemon = fixture.daemon().await;
    let first = fixture.set("s", "first");
    fixture.set("s", "second");
    let mut mirror = fixture.mirror("m", "t", &[("pinned", "s"), ("latest", "s")]);
    mirror["spec"]["data"][0]["object"]["version"] = json!(first.version);
    fixture.apply(&mirror).await;
    fixture.secret_has("t", "latest", b"second").await;
    fixture.secret_has("t", "pinned", b"first").await;
}

#[tokio::test]
async fn content_is_kept_byte_for_byte() {
    let fixture = Fixture::new("bytes").await;
    let _daemon = fixture.daemon().await;
    let large = "x".repeat(25_000);
    let values = [
        ("crlf", "a\r\nb\r\n"),
        ("binary", "\u{0}\u{1}\u{7f}ÿ€"),
        ("large", large.as_str()),
        ("newline", "v\n"),
    ];
    for (name, value) in values {
        fixture.set(name, value);
    }
    fixture
        .apply(&fixture.mirror("m", "t", &values.map(|(name, _)| (name, name))))
        .await;
    for (name, value) in values {
        fixture.secret_has("t", name, value.as_bytes()).await;
    }
}

#[tokio::test]
async fn drift_is_repaired() {
    let fixture = Fixture::new("drift").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "right");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    let before = fixture.secret_has("t", "k", b"right").await;
    let wrong = json!({"stringData": {"k": "wrong"}});
    fixture
        .secrets()
        .patch("t", &PatchParams::default(), &Patch::Merge(&wrong))
        .await
        .expect("edited");
    let after = fixture.secret_has("t", "k", b"right").await;
    assert_eq!(before.uid(), after.uid());

    fixture
        .secrets()
        .delete("t", &DeleteParams::default())
        .await
        .expect("deleted");
    let anew = fixture.secret_has("t", "k", b"right").await;
    assert_ne!(before.uid(), anew.uid());
}

#[tokio::test]
async fn a_key_that_the_mirror_drops_goes_and_a_key_of_others_stays() {
    let fixture = Fixture::new("keys").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    fixture
        .apply(&fixture.mirror("m", "t", &[("one", "s"), ("two", "s")]))
        .await;
    fixture.secret_has("t", "two", b"v").await;
    let more = json!({"stringData": {"users": "own"}});
    fixture
        .secrets()
        .patch("t", &PatchParams::default(), &Patch::Merge(&more))
        .await
        .expect("edited");
    fixture
        .apply(&fixture.mirror("m", "t", &[("one", "s")]))
        .await;
    eventually(SOON, "key two is gone", async || {
        let data = fixture
            .secrets()
            .get("t")
            .await
            .map_err(|error| error.to_string())?
            .data
            .unwrap_or_default();
        let keys: Vec<_> = data.keys().map(String::as_str).collect();
        if keys == ["one", "users"] {
            Ok(())
        } else {
            Err(format!("{keys:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn delete_takes_the_target_along_and_retain_leaves_it() {
    let fixture = Fixture::new("deletion").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    fixture
        .apply(&fixture.mirror("goes", "goes", &[("k", "s")]))
        .await;
    let mut mirror = fixture.mirror("stays", "stays", &[("k", "s")]);
    mirror["spec"]["deletionPolicy"] = json!("Retain");
    fixture.apply(&mirror).await;
    for name in ["goes", "stays"] {
        fixture.secret_has(name, "k", b"v").await;
        fixture
            .mirrors()
            .delete(name, &DeleteParams::default())
            .await
            .expect("deleted");
    }
    eventually(
        SOON,
        "the garbage collector deletes the target",
        async || match fixture.secrets().get_opt("goes").await {
            Ok(None) => Ok(()),
            other => Err(format!(
                "{:?}",
                other.map(|secret| secret.map(|secret| secret.name_any()))
            )),
        },
    )
    .await;
    fixture.secret_has("stays", "k", b"v").await;
}

#[tokio::test]
async fn a_secret_of_someone_else_is_not_touched() {
    let fixture = Fixture::new("foreign").await;
    let _daemon = fixture.daemon().await;
    let theirs = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "t"}, "stringData": {"k": "theirs"}});
    fixture.apply(&theirs).await;
    let before = fixture.secrets().get("t").await.expect("their Secret");
    fixture.set("s", "ours");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    let message = fixture.reason("m", "TargetConflict").await;
    assert!(message.contains("was not made by Keytide"), "{message}");
    let after = fixture.secrets().get("t").await.expect("their Secret");
    assert_eq!(after.resource_version(), before.resource_version());
}

#[tokio::test]
async fn two_mirrors_fill_one_target_and_one_of_them_can_go() {
    let fixture = Fixture::new("shared").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    fixture
        .apply(&fixture.mirror("a", "t", &[("a", "s")]))
        .await;
    fixture.secret_has("t", "a", b"v").await;
    fixture
        .apply(&fixture.mirror("b", "t", &[("b", "s")]))
        .await;
    fixture.secret_has("t", "b", b"v").await;
    fixture
        .apply(&fixture.mirror("c", "t", &[("a", "s")]))
        .await;
    let message = fixture.reason("c", "TargetConflict").await;
    assert!(message.contains("mirror a"), "{message}");

    fixture
        .mirrors()
        .delete("c", &DeleteParams::default())
        .await
        .expect("deleted");
    fixture
        .mirrors()
        .delete("a", &DeleteParams::default())
        .await
        .expect("deleted");
    eventually(SOON, "the keys of the mirror that is gone go", async || {
        let data = fixture
            .secrets()
            .get("t")
            .await
            .map_err(|error| error.to_string())?
            .data
            .unwrap_or_default();
        if data.keys().eq(["b"]) {
            Ok(())
        } else {
            Err(format!("{:?}", data.keys()))
        }
    })
    .await;
}

#[tokio::test]
async fn a_mirror_that_gets_another_target_leaves_nothing_behind() {
    let fixture = Fixture::new("renamed").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    fixture
        .apply(&fixture.mirror("m", "before", &[("k", "s")]))
        .await;
    fixture.secret_has("before", "k", b"v").await;
    fixture
        .apply(&fixture.mirror("m", "after", &[("k", "s")]))
        .await;
    fixture.secret_has("after", "k", b"v").await;
    eventually(SOON, "the old target is gone", async || {
        match fixture.secrets().get_opt("before").await {
            Ok(None) => Ok(()),
            other => Err(format!(
                "{:?}",
                other.map(|secret| secret.map(|secret| secret.name_any()))
            )),
        }
    })
    .await;
}

#[tokio::test]
async fn a_mirror_that_is_made_anew_goes_on_with_what_it_left_behind() {
    let fixture = Fixture::new("anew").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    let mut mirror = fixture.mirror("m", "t", &[("one", "s"), ("two", "s")]);
    mirror["spec"]["deletionPolicy"] = json!("Retain");
    fixture.apply(&mirror).await;
    let before = fixture.secret_has("t", "two", b"v").await;
    fixture.reason("m", "Mirrored").await;
    fixture
        .mirrors()
        .delete("m", &DeleteParams::default())
        .await
        .expect("deleted");

    mirror["spec"]["data"] = json!([{"key": "one", "object": {"name": "s"}}]);
    fixture.apply(&mirror).await;
    fixture.reason("m", "Mirrored").await;
    eventually(SOON, "key two and the old record are gone", async || {
        let now = fixture
            .secrets()
            .get("t")
            .await
            .map_err(|error| error.to_string())?;
        let keys: Vec<_> = now.data.iter().flatten().map(|(key, _)| key).collect();
        let records = keytide::mirror::records(now.annotations());
        if keys == ["one"] && records.len() == 1 && now.uid() == before.uid() {
            Ok(())
        } else {
            Err(format!("{keys:?}, {records:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn mirrors_of_one_object_share_its_reads() {
    let fixture = Fixture::new("sharing").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    for number in 0..10 {
        let name = format!("m{number}");
        fixture
            .apply(&fixture.mirror(&name, &name, &[("k", "s")]))
            .await;
    }
    for number in 0..10 {
        fixture.secret_has(&format!("m{number}"), "k", b"v").await;
    }
    let gets = || fixture.azure().requests().gets_of(&fixture.host(), "s");
    let before = gets();
    // Two more cycles of 10 s: ten mirrors that each asked for themselves would make twenty requests.
    eventually(Duration::from_secs(60), "two more cycles", async || {
        let more = gets() - before;
        if more >= 2 {
            Ok(())
        } else {
            Err(format!("{more} reads"))
        }
    })
    .await;
    let more = gets() - before;
    assert!(more <= 3, "{more} reads in two cycles");
    assert_eq!(
        fixture
            .azure()
            .requests()
            .count(&fixture.host(), Operation::List),
        0
    );
}
