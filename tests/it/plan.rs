//! `keytide plan`: what it tells, that the daemon then does it, and that it does nothing itself.

use std::path::Path;
use std::process::Stdio;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ServiceAccount;
use keytide::rotation::WorkloadKind::{CronJob, Deployment};
use kube::ResourceExt;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::fixture::{Fixture, KEYTIDE, QUICK, SOON, revision};
use crate::testbed::eventually;
use crate::workloads::workload;

/// Values that nothing may print.
const CANARY: &str = "canary-5b0e77d1-hums";

/// How it ended, and what it said.
struct Planned {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Planned {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }

    /// Key, change, and versions before and after, of all targets.
    #[track_caller]
    fn keys(&self) -> Vec<(String, String, Option<String>, Option<String>)> {
        let plan = self.json();
        let targets = plan["targets"].as_array().expect("targets");
        let keys = targets
            .iter()
            .flat_map(|target| target["keys"].as_array().expect("keys"));
        let text = |value: &Value| value.as_str().map(str::to_owned);
        keys.map(|key| {
            let words = (text(&key["key"]), text(&key["change"]));
            let (before, after) = (&key["before"]["version"], &key["after"]["version"]);
            let (name, change) = (words.0.expect("a name"), words.1.expect("a change"));
            (name, change, text(before), text(after))
        })
        .collect()
    }

    /// Name and restart of all workloads.
    #[track_caller]
    fn restarts(&self) -> Vec<(String, String)> {
        let plan = self.json();
        let workloads = plan["workloads"].as_array().expect("workloads");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let row = |row: &Value| (text(&row["name"]), text(&row["restart"]));
        workloads.iter().map(row).collect()
    }

    /// Reasons of all errors.
    #[track_caller]
    fn reasons(&self) -> Vec<String> {
        let plan = self.json();
        let errors = plan["errors"].as_array().expect("errors");
        let reason = |error: &Value| error["reason"].as_str().unwrap_or_default().to_owned();
        errors.iter().map(reason).collect()
    }
}

/// Plans the test's namespace as an administrator, with these manifests on standard input.
async fn plan(fixture: &Fixture, arguments: &[&str], manifests: &[&Value]) -> Planned {
    plan_as(fixture, fixture.testbed.kubeconfig(), arguments, manifests).await
}

async fn plan_as(
    fixture: &Fixture,
    kubeconfig: &Path,
    arguments: &[&str],
    manifests: &[&Value],
) -> Planned {
    let (environment, ca) = fixture.system().environment();
    let mut command = Command::new(KEYTIDE);
    command
        .args(["plan", "--namespace", &fixture.namespace, "--ca-bundle"])
        .arg(ca)
        .args(QUICK)
        .args(arguments)
        .env_clear()
        .envs(environment)
        .env("KUBECONFIG", kubeconfig)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("keytide runs");
    let documents: Vec<String> = manifests.iter().map(|it| it.to_string()).collect();
    let mut stdin = child.stdin.take().expect("standard input");
    // Who reads no files closes it, which is said by what it does.
    let _ = stdin.write_all(documents.join("\n---\n").as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    let planned = Planned {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    for said in [&planned.stdout, &planned.stderr] {
        assert!(!said.contains(CANARY), "{said}");
    }
    planned
}

const JSON: [&str; 2] = ["--output", "json"];
const FILES: [&str; 4] = ["--output", "json", "--filename", "-"];

/// A mirror that looks at its vault by itself only hours later.
fn still(mut mirror: Value) -> Value {
    mirror["spec"]["refreshInterval"] = json!("12h");
    mirror
}

fn set(fixture: &Fixture, secret: &str, value: &str) -> String {
    fixture.set(secret, &format!("{CANARY} {value}")).version
}

fn unchanged(key: &str, version: &str) -> (String, String, Option<String>, Option<String>) {
    told(key, "unchanged", Some(version), Some(version))
}

fn told(
    key: &str,
    change: &str,
    before: Option<&str>,
    after: Option<&str>,
) -> (String, String, Option<String>, Option<String>) {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    (
        key.to_owned(),
        change.to_owned(),
        owned(before),
        owned(after),
    )
}

fn restart(name: &str, restart: &str) -> (String, String) {
    (name.to_owned(), restart.to_owned())
}

#[tokio::test]
async fn what_is_planned_is_what_the_daemon_then_does() {
    let fixture = Fixture::new("plan").await;
    let _daemon = fixture.daemon().await;
    let first = set(&fixture, "s", "first");
    let other = set(&fixture, "other", "other");
    let mirror = still(fixture.mirror("m", "t", &[("k", "s"), ("o", "other")]));
    fixture.apply(&mirror).await;
    // Closed for the next hours, whenever this runs.
    let later = Timestamp::now() + SignedDuration::from_hours(3);
    let window = json!({
        "from": later.strftime("%H:00").to_string(),
        "to": (later + SignedDuration::from_hours(1)).strftime("%H:00").to_string(),
        "timeZone": "UTC",
    });
    let policy = json!({
        "apiVersion": "keytide.dev/v1alpha1",
        "kind": "RotationPolicy",
        "metadata": {"name": "nightly"},
        "spec": {"windows": [window]},
    });
    let mut nightly = workload(Deployment, "nightly", Some("true"), json!({"replicas": 1}));
    nightly["metadata"]["annotations"]["keytide.dev/rotation-policy"] = json!("nightly");
    let mut held = workload(Deployment, "held", Some("true"), json!({"replicas": 1}));
    held["metadata"]["annotations"]["keytide.dev/rotation-policy"] = json!("unknown");
    let elsewhere = fixture.deployment("elsewhere", Some("true"), "t", "o");
    for manifest in [
        &policy,
        &workload(Deployment, "web", Some("true"), json!({"replicas": 2})),
        &workload(CronJob, "job", Some("true"), json!({})),
        &workload(Deployment, "bystander", None, json!({"replicas": 1})),
        &nightly,
        &held,
        &elsewhere,
    ] {
        fixture.apply(manifest).await;
    }
    for name in ["web", "nightly", "held"] {
        fixture.settled(name, "t", "k").await;
    }
    fixture.settled("elsewhere", "t", "o").await;
    fixture.recorded(CronJob, "job").await;

    let nothing = plan(&fixture, &JSON, &[]).await;
    assert_eq!(
        nothing.code,
        Some(0),
        "{}{}",
        nothing.stdout,
        nothing.stderr
    );
    assert_eq!(nothing.json()["differences"], false);
    assert_eq!(
        nothing.keys(),
        [unchanged("k", &first), unchanged("o", &other)]
    );
    let all = ["elsewhere", "held", "nightly", "web", "job"];
    assert_eq!(nothing.restarts(), all.map(|name| restart(name, "no")));

    let second = set(&fixture, "s", "second");
    let before = fixture.secrets().get("t").await.expect("the target");
    let differs = plan(&fixture, &JSON, &[]).await;
    assert_eq!(
        differs.code,
        Some(1),
        "{}{}",
        differs.stdout,
        differs.stderr
    );
    let changed = told("k", "changed", Some(&first), Some(&second));
    assert_eq!(differs.keys(), [changed, unchanged("o", &other)]);
    let expected = [
        restart("elsewhere", "no"),
        restart("held", "held"),
        restart("nightly", "later"),
        restart("web", "yes"),
        restart("job", "no"),
    ];
    assert_eq!(differs.restarts(), expected);
    let rows = differs.json();
    let opens: Timestamp = serde_json::from_value(rows["workloads"][2]["until"].clone())
        .expect("when the window opens");
    let hours = opens.duration_since(Timestamp::now()).as_hours();
    assert!((1..=3).contains(&hours), "{opens}");
    assert_eq!(rows["workloads"][3].get("until"), None);

    let text = plan(&fixture, &[], &[]).await;
    assert_eq!(text.code, Some(1));
    let line = |word: &str| {
        let mut lines = text.stdout.lines();
        let line = lines.find(|line| line.contains(word));
        line.unwrap_or_else(|| panic!("no {word} in {}", text.stdout))
    };
    for word in ["Secret/t", "changed", &first, &second, &fixture.host()] {
        assert!(line(" k ").contains(word), "{}", text.stdout);
    }
    for word in ["Deployment", "yes", "k of Secret t"] {
        assert!(line(" web ").contains(word), "{}", text.stdout);
    }
    assert!(line(" nightly ").contains("no window of its policy is open"));
    assert!(line(" job ").contains("next run"));

    // Nothing of it was done.
    let after = fixture.secrets().get("t").await.expect("the target");
    assert_eq!(after.resource_version(), before.resource_version());
    let web = fixture.deployments().get("web").await.expect("web");
    assert_eq!(revision(&web), "1");

    // Until it is, and what waits for its window and for somebody stays to be told.
    fixture.sync_now("m").await;
    let value = format!("{CANARY} second");
    fixture.secret_has("t", "k", value.as_bytes()).await;
    let web = fixture.settled("web", "t", "k").await;
    assert_eq!(revision(&web), "2");
    for name in ["nightly", "held"] {
        let delete = kube::api::DeleteParams::default();
        fixture
            .deployments()
            .delete(name, &delete)
            .await
            .expect("deleted");
    }
    fixture.recorded(CronJob, "job").await;
    let done = plan(&fixture, &JSON, &[]).await;
    assert_eq!(done.code, Some(0), "{}{}", done.stdout, done.stderr);
    assert_eq!(
        done.keys(),
        [unchanged("k", &second), unchanged("o", &other)]
    );
}

#[tokio::test]
async fn files_are_planned_as_if_they_were_applied() {
    let fixture = Fixture::new("planfile").await;
    let _daemon = fixture.daemon().await;
    let version = set(&fixture, "s", "value");
    let written = still(fixture.mirror("m", "t", &[("k", "s"), ("l", "s")]));
    fixture.apply(&written).await;
    fixture.reason("m", "Mirrored").await;

    // As it is, with a mirror that is not there yet, and something that is none.
    let new = still(fixture.mirror("new", "u", &[("k", "s")]));
    let other = workload(Deployment, "d", None, json!({"replicas": 1}));
    let created = plan(&fixture, &FILES, &[&written, &other, &new]).await;
    assert_eq!(
        created.code,
        Some(1),
        "{}{}",
        created.stdout,
        created.stderr
    );
    let expected = [
        unchanged("k", &version),
        unchanged("l", &version),
        told("k", "created", None, Some(&version)),
    ];
    assert_eq!(created.keys(), expected);
    assert_eq!(created.json()["targets"][1]["change"], "created");
    assert!(
        fixture
            .mirrors()
            .get_opt("new")
            .await
            .expect("asked")
            .is_none()
    );
    assert!(
        fixture
            .secrets()
            .get_opt("u")
            .await
            .expect("asked")
            .is_none()
    );

    // A key less, though the cluster's mirror has it.
    let fewer = still(fixture.mirror("m", "t", &[("k", "s")]));
    let removed = plan(&fixture, &FILES, &[&fewer]).await;
    assert_eq!(removed.code, Some(1));
    let expected = [
        unchanged("k", &version),
        told("l", "removed", Some(&version), None),
    ];
    assert_eq!(removed.keys(), expected);

    // Another target: the one before goes.
    let moved = still(fixture.mirror("m", "elsewhere", &[("k", "s"), ("l", "s")]));
    let moved = plan(&fixture, &FILES, &[&moved]).await;
    assert_eq!(moved.code, Some(1));
    let rows = moved.json();
    let change = |index: usize| {
        let row = &rows["targets"][index];
        (row["name"].clone(), row["change"].clone())
    };
    assert_eq!(change(0), (json!("elsewhere"), json!("created")));
    assert_eq!(change(1), (json!("t"), json!("deleted")));

    // As it is in the cluster, which also carries what the API server put in.
    let kept = fixture.mirrors().get("m").await.expect("the mirror");
    let same = plan(&fixture, &FILES, &[&json!(kept)]).await;
    assert_eq!(same.code, Some(0), "{}{}", same.stdout, same.stderr);
    let after = fixture.mirrors().get("m").await.expect("the mirror");
    assert_eq!(after.resource_version(), kept.resource_version());
}

#[tokio::test]
async fn what_can_not_be_planned_is_told_mirror_by_mirror_and_exits_above_one() {
    let fixture = Fixture::without_grant("planbad").await;
    let _daemon = fixture.daemon().await;
    fixture.grant("good*").await;
    set(&fixture, "good", "value");
    fixture.set("good-json", &format!("{{\"{CANARY}"));
    let foreign = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "theirs"}});
    fixture.apply(&foreign).await;
    let good = fixture.mirror("a-good", "t", &[("k", "good")]);
    let ungranted = fixture.mirror("b-ungranted", "b", &[("k", "secret")]);
    let missing = fixture.mirror("c-missing", "c", &[("k", "good-missing")]);
    let theirs = fixture.mirror("d-theirs", "theirs", &[("k", "good")]);
    let mut content = fixture.mirror("e-content", "e", &[("k", "good-json")]);
    content["spec"]["data"][0]["object"]["property"] = json!("a");
    let mut typo = fixture.mirror("typo", "f", &[("k", "good")]);
    typo["spec"]["deletionpolicy"] = json!("Retain");
    let mut invalid = fixture.mirror("invalid", "g", &[("k", "good")]);
    invalid["spec"]["refreshInterval"] = json!("1s");
    let mut nowhere = fixture.mirror("nowhere", "h", &[("k", "good")]);
    nowhere["metadata"]["namespace"] = json!("there-is-no-such-namespace");
    let manifests = [
        &good, &ungranted, &missing, &theirs, &content, &typo, &invalid, &nowhere,
    ];
    let bad = plan(&fixture, &FILES, &manifests).await;
    assert_eq!(bad.code, Some(2), "{}{}", bad.stdout, bad.stderr);
    let expected = [
        "BadRequest",
        "Invalid",
        "NotFound",
        "NotGranted",
        "ObjectNotFound",
        "TargetConflict",
        "InvalidContent",
    ];
    assert_eq!(bad.reasons(), expected, "{}", bad.stdout);
    let errors = bad.json()["errors"].clone();
    for (index, word) in [
        (0, "deletionpolicy"),
        (1, "refreshInterval must be at least 10s"),
        (2, "there-is-no-such-namespace"),
        (3, &*fixture.host()),
    ] {
        let message = errors[index]["message"].as_str().unwrap_or_default();
        assert!(message.contains(word), "{message}");
    }
    // The others are told all the same.
    assert_eq!(bad.json()["targets"][0]["mirror"], "a-good");
    let text = plan(&fixture, &["--filename", "-"], &[&ungranted]).await;
    assert_eq!(text.code, Some(2));
    let said = format!(
        "keytide: KeyVaultMirror {}/b-ungranted: NotGranted: ",
        fixture.namespace
    );
    assert!(text.stderr.contains(&said), "{}", text.stderr);

    // With a grant that isn't there yet it would be.
    let grant = fixture.grant_of(&fixture.testbed.unique("plan"), "secret");
    set(&fixture, "secret", "value");
    let granted = plan(&fixture, &FILES, &[&ungranted, &grant]).await;
    assert_eq!(
        granted.code,
        Some(1),
        "{}{}",
        granted.stdout,
        granted.stderr
    );

    for arguments in [
        &["--filename", "/nonexistent.yaml"][..],
        &["--filename", "-", "--all-namespaces"],
        &["--output", "yaml"],
    ] {
        let wrong = plan(&fixture, arguments, &[]).await;
        assert_eq!(wrong.code, Some(2), "{arguments:?}");
        assert!(!wrong.stderr.is_empty());
    }
    let nothing = plan(&fixture, &FILES, &[&foreign]).await;
    assert_eq!(nothing.code, Some(2));
    assert!(
        nothing.stderr.contains("no KeyVaultMirror"),
        "{}",
        nothing.stderr
    );
}

#[tokio::test]
async fn who_owns_a_namespace_can_plan_it_without_the_digest_key() {
    let fixture = Fixture::new("planowner").await;
    let _daemon = fixture.daemon().await;
    let first = set(&fixture, "s", "first");
    fixture
        .apply(&still(fixture.mirror("m", "t", &[("k", "s")])))
        .await;
    fixture
        .apply(&fixture.deployment("d", Some("true"), "t", "k"))
        .await;
    fixture.settled("d", "t", "k").await;
    let owner = ServiceAccount {
        metadata: kube::core::ObjectMeta {
            name: Some("owner".to_owned()),
            ..Default::default()
        },
        ..Default::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(fixture.client.clone(), &fixture.namespace);
    let created = accounts.create(&PostParams::default(), &owner).await;
    created.expect("created");
    let (testbed, namespace) = (fixture.testbed, &*fixture.namespace);
    let kubeconfig = testbed.service_account_kubeconfig(namespace, "owner").await;

    let forbidden = plan_as(&fixture, &kubeconfig, &JSON, &[]).await;
    assert_eq!(forbidden.code, Some(2));
    assert!(
        forbidden.stderr.contains("is forbidden"),
        "{}",
        forbidden.stderr
    );

    // The rights that the book names.
    let read = json!(["get", "list"]);
    let rules = json!([
        {"apiGroups": ["keytide.dev"], "resources": ["keyvaultmirrors", "rotationpolicies"], "verbs": read},
        {"apiGroups": [""], "resources": ["secrets", "pods"], "verbs": read},
        {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "daemonsets"], "verbs": read},
        {"apiGroups": ["batch"], "resources": ["cronjobs"], "verbs": read},
        {"apiGroups": ["argoproj.io"], "resources": ["rollouts"], "verbs": read},
    ]);
    let grants =
        json!([{"apiGroups": ["keytide.dev"], "resources": ["keyvaultgrants"], "verbs": ["list"]}]);
    let subject = json!([{"kind": "ServiceAccount", "name": "owner", "namespace": namespace}]);
    for (prefix, name, rules) in [("", "owner", rules), ("Cluster", namespace, grants)] {
        let (role, binding) = (format!("{prefix}Role"), format!("{prefix}RoleBinding"));
        let group = "rbac.authorization.k8s.io";
        let api = format!("{group}/v1");
        let manifests = [
            json!({"apiVersion": api, "kind": role, "metadata": {"name": name}, "rules": rules}),
            json!({
                "apiVersion": api, "kind": binding, "metadata": {"name": name}, "subjects": subject,
                "roleRef": {"apiGroup": group, "kind": role, "name": name},
            }),
        ];
        for manifest in &manifests {
            fixture.apply(manifest).await;
        }
    }
    // The API server takes a moment to know them.
    let nothing = eventually(SOON, "the owner may plan", async || {
        let planned = plan_as(&fixture, &kubeconfig, &JSON, &[]).await;
        match planned.code {
            Some(0) => Ok(planned),
            _ => Err(format!("{}{}", planned.stdout, planned.stderr)),
        }
    })
    .await;
    assert_eq!(nothing.keys(), [unchanged("k", &first)]);
    assert_eq!(
        nothing.json()["targets"][0]["keys"][0]["after"].get("digest"),
        None
    );
    assert!(
        nothing.stderr.contains("keytide-digest-key"),
        "{}",
        nothing.stderr
    );
    let second = set(&fixture, "s", "second");
    let differs = plan_as(&fixture, &kubeconfig, &JSON, &[]).await;
    assert_eq!(
        differs.code,
        Some(1),
        "{}{}",
        differs.stdout,
        differs.stderr
    );
    let changed = told("k", "changed", Some(&first), Some(&second));
    assert_eq!(differs.keys(), [changed]);
    assert_eq!(differs.restarts(), [restart("d", "yes")]);
}
