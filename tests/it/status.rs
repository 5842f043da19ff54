//! `keytide status`: what it tells of mirrors and workloads.

use std::process::Stdio;
use std::time::Duration;

use keytide::rotation::WorkloadKind::{CronJob, Deployment};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

use crate::fixture::{Fixture, KEYTIDE, SOON};
use crate::testbed::eventually;
use crate::workloads::workload;

/// What it prints of the test's namespace.
pub async fn status(fixture: &Fixture, more: &[&str]) -> String {
    let output = command(fixture, &["--namespace", &fixture.namespace])
        .args(more)
        .output()
        .await
        .expect("keytide runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn status_tells_how_mirrors_and_workloads_stand() {
    let fixture = Fixture::new("status").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture
        .apply(&fixture.mirror("wrong", "none", &[("k", "missing")]))
        .await;
    let mut held = workload(Deployment, "held", Some("true"), json!({"replicas": 1}));
    held["metadata"]["annotations"]["keytide.dev/rotation-policy"] = json!("unknown");
    let all = [
        workload(Deployment, "current", Some("true"), json!({"replicas": 1})),
        workload(CronJob, "later", Some("true"), json!({})),
        workload(Deployment, "bystander", None, json!({"replicas": 1})),
        held,
    ];
    for manifest in &all {
        fixture.apply(manifest).await;
    }
    fixture.settled("current", "t", "k").await;
    fixture.settled("held", "t", "k").await;
    fixture.set("s", "w");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "k", b"w").await;
    // The one that can be rolled is, meanwhile.
    fixture.settled("current", "t", "k").await;
    eventually(SOON, "everything stands as it will", async || {
        let rows: Vec<Value> =
            serde_json::from_str(&status(&fixture, &["--output", "json"]).await).expect("JSON");
        let found: Vec<String> = rows
            .iter()
            .map(|row| {
                let text = |field: &str| row[field].as_str().unwrap_or("-").to_owned();
                format!("{} {} {}", text("kind"), text("name"), text("state"))
            })
            .collect();
        let expected = [
            "CronJob later current",
            "Deployment current current",
            "Deployment held held",
            "KeyVaultMirror m current",
            "KeyVaultMirror wrong held",
        ];
        if found == expected {
            Ok(())
        } else {
            Err(format!("{rows:?}"))
        }
    })
    .await;
    let table = status(&fixture, &[]).await;
    let line = table.lines().find(|line| line.contains(" held "));
    let line = line.unwrap_or_default();
    assert!(
        line.contains("there is no RotationPolicy unknown"),
        "{table}"
    );
    assert!(!table.contains("bystander"), "{table}");
}

/// `keytide status`, with what it takes to find the cluster.
fn command(fixture: &Fixture, arguments: &[&str]) -> Command {
    let mut command = Command::new(KEYTIDE);
    command
        .arg("status")
        .args(arguments)
        .env("KUBECONFIG", fixture.testbed.kubeconfig())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Reads on until a line begins with these words.
async fn says(lines: &mut Lines<BufReader<ChildStdout>>, words: &[&str]) {
    let reading = async {
        while let Some(line) = lines.next_line().await.expect("text") {
            let found: Vec<&str> = line.split_whitespace().collect();
            if found.starts_with(words) {
                return;
            }
        }
        panic!("it ended before it said {words:?}");
    };
    timeout(SOON, reading)
        .await
        .unwrap_or_else(|_| panic!("it does not say {words:?}"));
}

#[tokio::test]
async fn status_goes_on_watching_and_prints_again_only_what_is_news() {
    let fixture = Fixture::new("watching").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    let one = json!({"replicas": 1});
    fixture
        .apply(&workload(Deployment, "d", Some("true"), one.clone()))
        .await;
    fixture.settled("d", "t", "k").await;
    fixture.reason("m", "Mirrored").await;
    let arguments = ["--namespace", &fixture.namespace, "--watch"];
    let mut watching = command(&fixture, &arguments).spawn().expect("it runs");
    let output = watching.stdout.take().expect("piped");
    let mut lines = BufReader::new(output).lines();
    says(&mut lines, &["KIND", "NAME", "STATE"]).await;
    says(&mut lines, &["Deployment", "d", "current"]).await;
    says(&mut lines, &["KeyVaultMirror", "m", "current"]).await;
    // Several looks, and nothing to tell.
    let more = timeout(Duration::from_secs(5), lines.next_line()).await;
    assert!(more.is_err(), "{more:?}");

    let mut held = workload(Deployment, "held", Some("true"), one);
    held["metadata"]["annotations"]["keytide.dev/rotation-policy"] = json!("unknown");
    fixture.apply(&held).await;
    says(&mut lines, &["Deployment", "held", "current"]).await;
    fixture.settled("held", "t", "k").await;
    fixture.set("s", "w");
    fixture.sync_now("m").await;
    says(&mut lines, &["Deployment", "d", "waiting"]).await;
    says(&mut lines, &["Deployment", "held", "held"]).await;
    assert!(watching.try_wait().expect("asked").is_none(), "it ended");
}

#[tokio::test]
async fn status_of_all_namespaces_names_them() {
    let [one, other] = [Fixture::new("one").await, Fixture::new("another").await];
    let _daemon = one.daemon().await;
    for fixture in [&one, &other] {
        fixture.set("s", "v");
        fixture
            .apply(&fixture.mirror("m", "t", &[("k", "s")]))
            .await;
        fixture.reason("m", "Mirrored").await;
    }
    for flag in ["-A", "--all-namespaces"] {
        let output = command(&one, &[flag]).output().await.expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let table = String::from_utf8(output.stdout).expect("text");
        assert!(table.starts_with("NAMESPACE "), "{table}");
        for fixture in [&one, &other] {
            let row = [&*fixture.namespace, "KeyVaultMirror", "m", "current"];
            let mut rows = table.lines().map(|line| line.split_whitespace());
            let found = rows.any(|cells| cells.take(4).eq(row));
            assert!(found, "{row:?} is not in: {table}");
        }
    }
    let arguments = ["-A", "--namespace", &one.namespace];
    let output = command(&one, &arguments).output().await.expect("it runs");
    assert_eq!(output.status.code(), Some(2), "one of them, and not both");
}
