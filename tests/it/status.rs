//! `keytide status`: what it tells of mirrors and workloads.

use keytide::rotation::WorkloadKind::{CronJob, Deployment};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::fixture::{Fixture, KEYTIDE, SOON};
use crate::testbed::eventually;
use crate::workloads::workload;

/// What it prints of the test's namespace.
async fn status(fixture: &Fixture, more: &[&str]) -> String {
    let output = Command::new(KEYTIDE)
        .args(["status", "--namespace", &fixture.namespace])
        .args(more)
        .env("KUBECONFIG", fixture.testbed.kubeconfig())
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
