//! Keys that are made by templates, and secrets that are found by name and tag.

use std::collections::BTreeMap;

use keytide::devvault::{Changes, Fault, NewSecret, Operation};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::fixture::{Fixture, SOON};
use crate::testbed::eventually;

/// A mirror with this template.
fn templated(fixture: &Fixture, name: &str, data: &[(&str, &str)], template: Value) -> Value {
    let mut mirror = fixture.mirror(name, name, data);
    mirror["spec"]["template"] = template;
    mirror
}

/// A mirror of what is found.
fn matching(fixture: &Fixture, name: &str, wished: Value) -> Value {
    let mut mirror = fixture.mirror(name, name, &[]);
    mirror["spec"]["dataFrom"] = json!([{"match": wished}]);
    mirror
}

fn tagged(value: &str, tag: &str) -> NewSecret {
    let mut secret = NewSecret::from(value);
    secret.tags = Some(BTreeMap::from([("app".to_owned(), tag.to_owned())]));
    secret
}

#[tokio::test]
async fn a_template_makes_a_connection_string_and_follows_its_parts() {
    let fixture = Fixture::new("template").await;
    let _daemon = fixture.daemon().await;
    fixture.set("user", "app");
    fixture.set("password", "p@ss");
    let data = [("user", "user"), ("pass.word", "password")];
    let url = "postgres://{{ data.user }}:{{ data[\"pass.word\"]|urlencode }}@db/app\n";
    let template = json!({"mergePolicy": "Replace", "data": {"url": url}});
    fixture
        .apply(&templated(&fixture, "replaced", &data, template))
        .await;
    let template = json!({"data": {"url": url}});
    fixture
        .apply(&templated(&fixture, "merged", &data, template))
        .await;
    let expected = b"postgres://app:p%40ss@db/app\n";
    fixture.secret_has("replaced", "url", expected).await;
    fixture.secret_has("merged", "url", expected).await;
    fixture.secret_has_keys("replaced", &["url"]).await;
    fixture
        .secret_has_keys("merged", &["pass.word", "url", "user"])
        .await;

    fixture.set("password", "other");
    let expected = b"postgres://app:other@db/app\n";
    fixture.secret_has("replaced", "url", expected).await;
    let mirror = fixture.mirrors().get("replaced").await.expect("the mirror");
    let objects = mirror.status.expect("a status").objects;
    assert_eq!(objects[0].name, "password, user");
}

#[tokio::test]
async fn a_template_that_is_wrong_is_said_with_its_line_and_the_secret_keeps_what_it_had() {
    let fixture = Fixture::new("wrong-template").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "hunter2");
    let made = |text: &str| {
        let template = json!({"data": {"made": text}});
        templated(&fixture, "t", &[("k", "s")], template)
    };
    // Nothing need be read to know this.
    fixture.apply(&made("a\n{% if data.k %}")).await;
    let message = fixture.reason("t", "InvalidTemplate").await;
    assert!(
        message.contains("key made") && message.contains("(line 2)"),
        "{message}"
    );
    assert_eq!(fixture.azure().requests().gets_of(&fixture.host(), "s"), 0);
    fixture.apply(&made("{{ data.k }}")).await;
    fixture.secret_has("t", "made", b"hunter2").await;

    for (text, words) in [
        ("\n{{ data.none }}", "data.none is not known"),
        ("\n{{ data.k|b64decode }}", "no base64"),
        ("\n{% set a = data.k %}", "`{% set %}`"),
    ] {
        fixture.apply(&made(text)).await;
        let told = eventually(SOON, words, async || {
            let message = fixture.reason("t", "InvalidTemplate").await;
            match message.contains(words) {
                true => Ok(message),
                false => Err(message),
            }
        })
        .await;
        assert!(
            told.contains("line 2") && !told.contains("hunter2"),
            "{told}"
        );
    }
    fixture.secret_has("t", "made", b"hunter2").await;
}

#[tokio::test]
async fn secrets_are_found_by_name_and_tag_and_new_ones_without_another_page() {
    let fixture = Fixture::new("found").await;
    let _daemon = fixture.daemon().await;
    let azure = fixture.azure();
    let set = |name: &str, tag: &str| {
        let secret = tagged(&format!("of {name}"), tag);
        azure.set_secret(&fixture.vault, name, secret).expect("set");
    };
    set("team-a-x", "web");
    set("Team-A-Y", "api");
    set("team-b-z", "web");
    let renamed = json!({"namePattern": "team-a-(?<what>.*)", "rename": "${what}.conf"});
    fixture.apply(&matching(&fixture, "named", renamed)).await;
    fixture
        .apply(&matching(
            &fixture,
            "tagged",
            json!({"tags": {"app": "web"}}),
        ))
        .await;
    fixture.secret_has("named", "x.conf", b"of team-a-x").await;
    fixture
        .secret_has_keys("named", &["Y.conf", "x.conf"])
        .await;
    fixture
        .secret_has_keys("tagged", &["team-a-x", "team-b-z"])
        .await;
    fixture.reason("named", "Mirrored").await;

    // One list a cycle serves both mirrors, and shows what is new.
    let lists = || {
        fixture
            .azure()
            .requests()
            .count(&fixture.host(), Operation::List)
    };
    let before = lists();
    set("team-a-new", "web");
    fixture
        .secret_has("named", "new.conf", b"of team-a-new")
        .await;
    fixture
        .secret_has("tagged", "team-a-new", b"of team-a-new")
        .await;
    fixture.cycles(2).await;
    let cycles = lists() - before;
    assert!(cycles <= 5, "{cycles} pages in a few cycles");

    // And what is found can be put into a file.
    let mut file = matching(&fixture, "file", json!({"tags": {"app": "web"}}));
    let text = "{% for name, value in data|items %}{{ name }}={{ value|tojson }}\n{% endfor %}";
    file["spec"]["template"] = json!({"mergePolicy": "Replace", "data": {"all.env": text}});
    fixture.apply(&file).await;
    let expected =
        "team-a-new=\"of team-a-new\"\nteam-a-x=\"of team-a-x\"\nteam-b-z=\"of team-b-z\"\n";
    fixture
        .secret_has("file", "all.env", expected.as_bytes())
        .await;
}

#[tokio::test]
async fn what_vanishes_from_the_vault_is_kept_and_what_the_spec_no_longer_means_goes() {
    let fixture = Fixture::new("vanished").await;
    let _daemon = fixture.daemon().await;
    for name in ["a-1", "a-2", "b-1"] {
        fixture.set(name, name);
    }
    let all = |pattern: &str| matching(&fixture, "m", json!({"namePattern": pattern}));
    fixture.apply(&all("[ab]-.*")).await;
    fixture.secret_has_keys("m", &["a-1", "a-2", "b-1"]).await;

    let azure = fixture.azure();
    azure.delete_secret(&fixture.vault, "a-2").expect("deleted");
    let message = fixture.reason("m", "ObjectNotFound").await;
    assert!(message.contains("secret a-2"), "{message}");
    fixture.secret_has_keys("m", &["a-1", "a-2", "b-1"]).await;
    // Also where the watch does not show the Secret any more.
    let label = json!({"metadata": {"labels": {"keytide.dev/mirrored": null}}});
    fixture
        .secrets()
        .patch("m", &PatchParams::default(), &Patch::Merge(&label))
        .await
        .expect("patched");
    fixture.cycles(2).await;
    fixture.secret_has_keys("m", &["a-1", "a-2", "b-1"]).await;
    azure
        .recover_secret(&fixture.vault, "a-2")
        .expect("recovered");
    fixture.reason("m", "Mirrored").await;
    let off = Changes {
        enabled: Some(false),
        ..Changes::default()
    };
    azure
        .update_secret(&fixture.vault, "a-1", off)
        .expect("disabled");
    fixture.reason("m", "ObjectDisabled").await;
    fixture.secret_has_keys("m", &["a-1", "a-2", "b-1"]).await;

    fixture.apply(&all("b-.*|a-2")).await;
    fixture.secret_has_keys("m", &["a-2", "b-1"]).await;
    fixture.reason("m", "Mirrored").await;
}

#[tokio::test]
async fn a_mirror_sees_what_is_granted_and_no_other_name() {
    let fixture = Fixture::without_grant("seen").await;
    let _daemon = fixture.daemon().await;
    fixture.set("team-a-x", "x");
    fixture.set("confidential", "c");
    fixture
        .apply(&matching(&fixture, "m", json!({"namePattern": ".*"})))
        .await;
    fixture.reason("m", "NotGranted").await;
    let lists = fixture
        .azure()
        .requests()
        .count(&fixture.host(), Operation::List);
    assert_eq!(lists, 0, "without a grant nothing is asked");
    fixture.grant("team-a-*").await;
    fixture.secret_has_keys("m", &["team-a-x"]).await;
    let told = fixture
        .testbed
        .kubectl(&[
            "get",
            "keyvaultmirror,events",
            "-n",
            &fixture.namespace,
            "-o",
            "json",
        ])
        .await
        .ok();
    assert!(!told.contains("confidential"), "{told}");
    assert_eq!(
        fixture
            .azure()
            .requests()
            .gets_of(&fixture.host(), "confidential"),
        0
    );
}

#[tokio::test]
async fn what_matches_nothing_yet_is_an_empty_secret_that_fills() {
    let fixture = Fixture::new("nothing").await;
    let _daemon = fixture.daemon().await;
    fixture.set("other", "o");
    fixture
        .apply(&matching(&fixture, "m", json!({"namePattern": "a-.*"})))
        .await;
    let message = fixture.reason("m", "Mirrored").await;
    assert!(message.contains("no secret of the vault"), "{message}");
    fixture.secret_has_keys("m", &[]).await;
    fixture.set("a-1", "first");
    fixture.secret_has("m", "a-1", b"first").await;
    fixture.message("m", "Mirrored", "1 key").await;
}

#[tokio::test]
async fn secrets_that_would_share_a_key_are_both_named() {
    let fixture = Fixture::new("twice").await;
    let _daemon = fixture.daemon().await;
    fixture.set("a-x", "1");
    fixture.set("b-x", "2");
    let wished = json!({"namePattern": "[ab]-(.*)", "rename": "$1"});
    fixture.apply(&matching(&fixture, "m", wished)).await;
    let message = fixture.reason("m", "InvalidSpec").await;
    assert!(
        message.contains("secrets a-x and b-x") && message.contains("key x"),
        "{message}"
    );
    // It ends in the vault too.
    fixture
        .azure()
        .delete_secret(&fixture.vault, "b-x")
        .expect("deleted");
    fixture.secret_has("m", "x", b"1").await;
}

#[tokio::test]
async fn more_than_a_secret_can_have_is_refused_with_the_count_before_it_is_read() {
    let fixture = Fixture::new("many").await;
    let _daemon = fixture.daemon().await;
    for number in 0..1500 {
        fixture.set(&format!("s{number}"), "v");
    }
    fixture
        .apply(&matching(&fixture, "m", json!({"namePattern": ".*"})))
        .await;
    let message = fixture.reason("m", "TooManyKeys").await;
    assert!(message.contains("1500 keys"), "{message}");
    let gets = fixture
        .azure()
        .requests()
        .count(&fixture.host(), Operation::Get);
    assert_eq!(gets, 0);
    fixture
        .apply(&matching(&fixture, "m", json!({"namePattern": "s10."})))
        .await;
    fixture.secret_has("m", "s107", b"v").await;
}

#[tokio::test]
async fn where_listing_is_forbidden_it_is_said_and_heals() {
    let fixture = Fixture::new("unlisted").await;
    let _daemon = fixture.daemon().await;
    fixture.set("a", "1");
    let mut forbidden = Fault::status(403).on(Operation::List);
    forbidden.innererror_code = Some("ForbiddenByRbac".to_owned());
    let azure = fixture.azure();
    azure
        .set_faults(&fixture.vault, vec![forbidden])
        .expect("a fault");
    let mut mirror = matching(&fixture, "m", json!({"namePattern": ".*"}));
    mirror["spec"]["refreshInterval"] = json!("2h");
    fixture.apply(&mirror).await;
    let message = fixture.reason("m", "VaultForbidden").await;
    assert!(
        message.contains("'list'") && message.contains("match"),
        "{message}"
    );
    azure.clear_faults(&fixture.vault).expect("cleared");
    fixture.sync_now("m").await;
    fixture.secret_has("m", "a", b"1").await;
    fixture.reason("m", "Mirrored").await;
}

#[tokio::test]
async fn the_examples_of_the_book_are_taken() {
    let fixture = Fixture::new("book").await;
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/src/values.md");
    let page = std::fs::read_to_string(page).expect("the page");
    let blocks = page.split("```yaml\n").skip(1);
    let blocks = blocks.filter_map(|rest| Some(rest.split_once("```")?.0));
    let examples: Vec<&str> = blocks
        .filter(|block| block.starts_with("apiVersion: "))
        .collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        fixture
            .testbed
            .apply(&fixture.namespace, example)
            .await
            .ok();
    }
    // They say NotGranted, and none InvalidTemplate or InvalidSpec.
    let _daemon = fixture.daemon().await;
    for mirror in ["team-a", "app", "environment"] {
        fixture.reason(mirror, "NotGranted").await;
    }
}

#[tokio::test]
async fn a_certificate_that_is_missing_is_told_as_a_certificate() {
    let fixture = Fixture::without_grant("no-certificate").await;
    let _daemon = fixture.daemon().await;
    let mut grant = fixture.grant_of(&fixture.namespace, "*");
    grant["spec"]["objects"] = json!([{"kind": "certificate", "name": "*"}]);
    fixture.apply(&grant).await;
    let mut mirror = fixture.mirror("m", "m", &[]);
    mirror["spec"]["dataFrom"] = json!([{"certificate": {"name": "Web"}}]);
    fixture.apply(&mirror).await;
    let message = fixture.reason("m", "ObjectNotFound").await;
    assert!(message.contains("has no certificate Web"), "{message}");
}
