use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::{DeletionPolicy, SecretType};
use crate::mirror::record::KeyRecord;
use crate::render::{is_known, keys};
use crate::vault::DnsSuffixes;

fn spec(matching: Value) -> KeyVaultMirrorSpec {
    serde_json::from_value(json!({
        "vault": {"name": "contoso"},
        "data": [{"key": "named", "object": {"name": "one"}}],
        "dataFrom": matching.as_array().map(|all| {
            all.iter().map(|wished| json!({"match": wished})).collect::<Vec<_>>()
        }),
        "target": {"name": "t"},
    }))
    .expect("a spec")
}

fn host() -> VaultHost {
    let suffixes: DnsSuffixes = "vault.azure.net".parse().expect("a suffix");
    suffixes.host(&spec(json!([])).vault).expect("a host")
}

fn secret(name: &str, tags: &[(&str, &str)]) -> Listed {
    let tags = tags
        .iter()
        .map(|(tag, value)| (tag.to_string(), value.to_string()));
    Listed {
        name: name.to_owned(),
        enabled: true,
        tags: tags.collect(),
    }
}

/// The record of a target whose keys were filled by these secrets for the wishes of `spec`.
fn record(spec: &KeyVaultMirrorSpec, keys: &[(&str, &str)]) -> Record {
    let key = |(key, name): &(&str, &str)| {
        let record = KeyRecord {
            digest: "d".into(),
            object: format!("{}/secrets/{name}", host()),
            version: "1".into(),
            updated: None,
            expires: None,
            changed: Timestamp::UNIX_EPOCH,
            first: true,
            unsettled_since: None,
            previous: None,
            failed: None,
        };
        (key.to_string(), record)
    };
    Record {
        mirror: "m".into(),
        digest_key: "k".into(),
        type_: SecretType::Opaque,
        deletion_policy: DeletionPolicy::Delete,
        shared: false,
        written: None,
        matched: mark(spec),
        immutable: false,
        adopted: false,
        keys: keys.iter().map(key).collect(),
    }
}

/// Keys and the secrets that fill them, of those that are matched.
fn resolved(
    spec: &KeyVaultMirrorSpec,
    secrets: &[Listed],
    record: Option<&Record>,
    keeps_missing: bool,
) -> Result<Vec<(String, String)>, MatchError> {
    let secrets: Vec<&Listed> = secrets.iter().collect();
    let found = Found {
        vault: &host(),
        secrets: &secrets,
        record,
        keeps_missing,
    };
    let resolved = resolve(spec, &found)?;
    assert!(is_known(&resolved) && !is_in(&resolved));
    assert_eq!(keys(&resolved).len(), resolved.data.len());
    let entries = resolved.data.into_iter().skip(1);
    Ok(entries
        .map(|entry| (entry.key, entry.object.name))
        .collect())
}

fn matched(wished: Value, secrets: &[Listed]) -> Result<Vec<(String, String)>, MatchError> {
    resolved(&spec(json!([wished])), secrets, None, true)
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, name)| (key.to_string(), name.to_string()))
        .collect()
}

#[test]
fn whole_names_are_matched_whatever_their_case() {
    let secrets = ["team-a-x", "Team-A-Y", "my-team-a-z", "other"].map(|name| secret(name, &[]));
    let both = pairs(&[("Team-A-Y", "Team-A-Y"), ("team-a-x", "team-a-x")]);
    for pattern in [
        "team-a-.*",
        "^team-a-(.*)$",
        "TEAM-A-[xy]",
        "nothing|team-a-.",
        "team-a-x|team-a-y",
    ] {
        assert_eq!(
            matched(json!({"namePattern": pattern}), &secrets),
            Ok(both.clone()),
            "{pattern}"
        );
    }
    for pattern in ["team-a", "a-x", "none.*"] {
        assert_eq!(
            matched(json!({"namePattern": pattern}), &secrets),
            Ok(vec![]),
            "{pattern}"
        );
    }
}

#[test]
fn all_tags_must_be_there() {
    let secrets = [
        secret("a", &[("app", "web"), ("stage", "live")]),
        secret("b", &[("app", "web")]),
        secret("c", &[("app", "other"), ("stage", "live")]),
    ];
    let tags = json!({"tags": {"app": "web", "stage": "live"}});
    assert_eq!(matched(tags, &secrets), Ok(pairs(&[("a", "a")])));
    let both = json!({"namePattern": "[bc]", "tags": {"app": "web"}});
    assert_eq!(matched(both, &secrets), Ok(pairs(&[("b", "b")])));
}

#[test]
fn keys_are_named_by_groups() {
    let secrets = [secret("team-a-db-password", &[])];
    for (pattern, rename, key) in [
        ("team-a-(.*)", "$1", "db-password"),
        (
            "team-(?<team>.)-(?<what>.*)",
            "${what}.${team}",
            "db-password.a",
        ),
        ("team-(.)-db-(.*)", "DB_$2_$1", "DB_password_a"),
        ("team-(.)-.*", "$0", "team-a-db-password"),
        ("team-(.)-(x)?.*", "k$2", "k"),
    ] {
        let wished = json!({"namePattern": pattern, "rename": rename});
        assert_eq!(
            matched(wished, &secrets),
            Ok(pairs(&[(key, "team-a-db-password")])),
            "{pattern} {rename}"
        );
    }
}

#[test]
fn what_can_not_be_meant_is_said() {
    let secrets = [secret("a-x", &[]), secret("b-x", &[])];
    let said = |pattern: &str, rename: &str| {
        let error = matched(json!({"namePattern": pattern, "rename": rename}), &secrets);
        error.expect_err(pattern).to_string()
    };
    assert!(said("(", "$0").contains("unclosed group"));
    assert!(said("a)|(b", "$0").contains("no regular expression"));
    assert!(said("(\\w{1000}){1000}", "$0").contains("no regular expression"));
    for rename in ["$", "$x", "${x", "a$-"] {
        assert!(
            said(".-(x)", rename).contains("can't be meant so"),
            "{rename}"
        );
    }
    for rename in ["$2", "${none}", "${2}", "${99999999999999999999}"] {
        assert!(said(".-(x)", rename).contains("does not have"), "{rename}");
    }
    assert!(said("(.)-x", "$1/y").contains("secret a-x would fill key \"a/y\""));
    assert!(said("(.)-(y)?x", "$2").contains("would fill key \"\""));
    let twice = said(".-(x)", "$1");
    assert!(
        twice.contains("secrets a-x and b-x would both fill key x"),
        "{twice}"
    );
    let given = said("(a)-x", "named");
    assert!(
        given.contains("key named") && given.contains("secret a-x"),
        "{given}"
    );
}

#[test]
fn a_secret_that_two_wishes_mean_is_taken_once() {
    let secrets = [secret("a", &[("app", "web")])];
    let spec = spec(json!([{"namePattern": "a"}, {"tags": {"app": "web"}}]));
    assert_eq!(
        resolved(&spec, &secrets, None, true),
        Ok(pairs(&[("a", "a")]))
    );
}

#[test]
fn what_was_matched_once_is_kept_unless_what_is_missing_is_to_go() {
    let spec = spec(json!([{"namePattern": "a-(.*)", "rename": "$1", "tags": {"app": "web"}}]));
    let web: &[_] = &[("app", "web")];
    let mut disabled = secret("a-off", web);
    disabled.enabled = false;
    // One that is gone, one that lost its tags, one that is disabled, and one that is there.
    let secrets = [secret("a-here", web), secret("a-bare", &[]), disabled];
    let before = [
        ("gone", "a-gone"),
        ("bare", "a-bare"),
        ("off", "a-off"),
        ("here", "a-here"),
        ("named", "one"),
    ];
    let record = record(&spec, &before);
    let kept = pairs(&[
        ("bare", "a-bare"),
        ("gone", "a-gone"),
        ("here", "a-here"),
        ("off", "a-off"),
    ]);
    assert_eq!(resolved(&spec, &secrets, Some(&record), true), Ok(kept));
    let there = pairs(&[("here", "a-here")]);
    assert_eq!(
        resolved(&spec, &secrets, Some(&record), false),
        Ok(there.clone())
    );
    assert_eq!(resolved(&spec, &secrets, None, true), Ok(there));
}

#[test]
fn what_was_matched_by_another_spec_goes() {
    let before = spec(json!([{"namePattern": "[ab]"}]));
    let record = record(&before, &[("a", "a"), ("b", "b")]);
    let after = spec(json!([{"namePattern": "a"}]));
    let secrets = [secret("a", &[]), secret("b", &[])];
    assert_eq!(
        resolved(&after, &secrets, Some(&record), true),
        Ok(pairs(&[("a", "a")]))
    );
    assert_ne!(mark(&before), mark(&after));
    assert_eq!(mark(&spec(json!([]))), None);
}

#[test]
fn a_secret_that_takes_the_name_of_one_that_is_missing_takes_its_key() {
    let spec = spec(json!([{"namePattern": "[ab]-(.*)", "rename": "$1"}]));
    let record = record(&spec, &[("x", "a-x")]);
    let secrets = [secret("b-x", &[])];
    assert_eq!(
        resolved(&spec, &secrets, Some(&record), true),
        Ok(pairs(&[("x", "b-x")]))
    );
}

#[test]
fn ten_thousand_secrets_are_too_many_and_counted() {
    let secrets: Vec<Listed> = (0..10_000).map(|n| secret(&format!("s{n}"), &[])).collect();
    let error = matched(json!({"namePattern": ".*"}), &secrets).expect_err("too many");
    assert!(
        error.to_string().contains("10000 keys are too many"),
        "{error}"
    );
    let some = matched(json!({"namePattern": "s1.."}), &secrets).expect("a hundred");
    assert_eq!(some.len(), 100);
    // Of what a template takes the place of, nothing is written down.
    let mut one = spec(json!([{"namePattern": ".*"}]));
    let template = json!({"mergePolicy": "Replace", "data": {"all": "{{ data|tojson }}"}});
    one.template = Some(serde_json::from_value(template).expect("a template"));
    let secrets: Vec<&Listed> = secrets.iter().collect();
    let found = Found {
        vault: &host(),
        secrets: &secrets,
        record: None,
        keeps_missing: true,
    };
    let all = resolve(&one, &found).expect("one key");
    assert_eq!(all.data.len(), 10_001);
}

proptest! {
    #[test]
    fn no_pattern_and_no_rename_panics_or_reaches_beyond_the_name(
        pattern in r"[a-c.*+?()|\[\]{}^$\\\-0-9]{0,30}",
        rename in r"[$a{}0-9]{0,12}",
        name in "[a-c-]{1,20}",
    ) {
        let secrets = [secret(&name, &[])];
        let _ = matched(json!({"namePattern": pattern, "rename": rename}), &secrets);
        if let Ok(matched) = matched(json!({"namePattern": pattern}), &secrets)
            && let Ok(plain) = Regex::new(&pattern)
        {
            let whole = plain.find_iter(&name).any(|found| found.as_str() == name);
            prop_assert!(matched.is_empty() || matched[0].1 == name);
            prop_assert!(!whole || !matched.is_empty(), "{pattern} is all of {name}");
        }
    }

    #[test]
    fn a_name_matches_itself_alone(name in "[a-zA-Z0-9-]{1,127}", other in "[a-zA-Z0-9-]{1,127}") {
        let secrets = [secret(&name, &[]), secret(&other, &[])];
        let found = matched(json!({"namePattern": regex::escape(&name)}), &secrets).expect("matched");
        prop_assert!(found.iter().all(|(_, found)| found.eq_ignore_ascii_case(&name)));
        prop_assert!(!found.is_empty());
    }
}
