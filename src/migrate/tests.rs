use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).expect("YAML")
}

/// Compares a conversion with a file of manifests, whose last document lists how the findings begin.
#[track_caller]
fn converts(input: &str, expected: &str) {
    let conversion = Conversion::of(documents(input), "web");
    let mut expected = documents(expected);
    let findings: Vec<String> =
        serde_json::from_value(expected.pop().expect("findings")).expect("sentences");
    let grants = conversion.grants.iter().map(serde_json::to_value);
    let mirrors = conversion.mirrors.iter().map(serde_json::to_value);
    let manifests: Vec<Value> = grants
        .chain(mirrors)
        .collect::<Result<_, _>>()
        .expect("JSON");
    assert_eq!(
        manifests,
        expected,
        "the manifests are\n{}",
        serde_json::to_string_pretty(&manifests).expect("JSON")
    );
    let found: Vec<String> = conversion
        .findings
        .iter()
        .map(|found| format!("{:?} {}: {}", found.weight, found.subject, found.text))
        .collect();
    let alike = found.len() == findings.len()
        && found
            .iter()
            .zip(&findings)
            .all(|(found, start)| found.starts_with(start));
    assert!(alike, "the findings are\n{}", found.join("\n"));
}

#[test]
fn resources_of_akv2k8s_become_mirrors_of_the_same_secrets() {
    converts(
        include_str!("testdata/akv2k8s.yaml"),
        include_str!("testdata/akv2k8s.expected.yaml"),
    );
}

#[test]
fn external_secrets_of_azurekv_become_mirrors_of_the_same_secrets() {
    converts(
        include_str!("testdata/external-secrets.yaml"),
        include_str!("testdata/external-secrets.expected.yaml"),
    );
}

#[test]
fn secrets_that_the_csi_driver_syncs_become_mirrors() {
    converts(
        include_str!("testdata/csi.yaml"),
        include_str!("testdata/csi.expected.yaml"),
    );
}

#[test]
fn workloads_are_told_what_takes_the_place_of_reloader_and_of_the_env_injector() {
    converts(
        include_str!("testdata/workloads.yaml"),
        include_str!("testdata/workloads.expected.yaml"),
    );
}

#[test]
fn a_value_of_the_environment_is_never_told() {
    let input = documents(include_str!("testdata/akv2k8s.yaml"));
    let findings = Conversion::of(input, "web").findings;
    assert!(
        findings
            .iter()
            .all(|finding| !finding.text.contains("s3cret")),
        "{findings:?}"
    );
}

/// Words that the tools' definitions have, so that what is generated gets past the first field.
fn word() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "",
        "secret",
        "key",
        "cert",
        "certificate",
        "azure",
        "Merge",
        "0",
        "-1h",
        "9999999999999h",
        "https://",
        "WorkloadIdentity",
        "kubernetes.io/tls",
        "tls.crt",
        "a@azurekeyvault",
        "db",
        "array: [a]",
        "array: ['objectName: a\nobjectType: secret']",
        "true",
        "{{ .x }}",
        "/",
        "..",
    ]);
    prop_oneof![known.prop_map(str::to_owned), ".{0,300}"]
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(word(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// JSON pointers of everything below a value.
fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let key = key.replace('~', "~0").replace('/', "~1");
                pointers(value, &format!("{at}/{key}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(item, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// All the examples, with one thing in them replaced by something else.
fn disturbed() -> impl Strategy<Value = Value> {
    let examples = [
        include_str!("testdata/akv2k8s.yaml"),
        include_str!("testdata/external-secrets.yaml"),
        include_str!("testdata/csi.yaml"),
        include_str!("testdata/workloads.yaml"),
    ];
    let all: Vec<Value> = examples.into_iter().flat_map(documents).collect();
    let all = json!(all);
    let mut places = Vec::new();
    pointers(&all, "", &mut places);
    (prop::sample::select(places), anything()).prop_map(move |(place, value)| {
        let mut all = all.clone();
        if let Some(there) = all.pointer_mut(&place) {
            *there = value;
        }
        all
    })
}

proptest! {
    #[test]
    fn no_manifest_makes_it_panic_and_every_mirror_is_granted(input in disturbed()) {
        let documents = match input {
            Value::Array(documents) => documents,
            other => vec![other],
        };
        let conversion = Conversion::of(documents, "web");
        for mirror in &conversion.mirrors {
            let sources = crate::render::sources(&mirror.spec);
            let found = mirror.spec.data_from.iter().any(|from| from.matching.is_some());
            prop_assert!(found || !sources.is_empty());
            prop_assert!(names::is_dns(&mirror.spec.target.name));
            for entry in &mirror.spec.data {
                prop_assert!(names::is_key(&entry.key));
            }
            for source in sources {
                let granted = conversion.grants.iter().any(|grant| {
                    let namespaces = grant.spec.namespaces.as_deref().unwrap_or_default();
                    grant.spec.vault == mirror.spec.vault
                        && namespaces == mirror.metadata.namespace.as_slice()
                        && grant.spec.objects.iter().any(|object| {
                            object.kind == source.kind
                                && object.name.eq_ignore_ascii_case(&source.name)
                        })
                });
                prop_assert!(granted, "{source:?} is not granted");
            }
        }
    }

    #[test]
    fn a_duration_is_written_as_the_api_takes_it(seconds in 10_i64..i64::MAX) {
        let text = external_secrets::in_hours(jiff::SignedDuration::from_secs(seconds));
        let valid = text.split_inclusive(['h', 'm', 's']).all(|part| {
            let digits = &part[..part.len() - 1];
            (1..=6).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_digit())
        });
        prop_assert!(valid && text.ends_with(['h', 'm', 's']), "{text}");
    }
}
