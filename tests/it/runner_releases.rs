//! Releases of the chart of runner pools: what they need, what they leave to each other, and what becomes of a PAT.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use kube::Client;
use kube::api::Api;
use serde_json::{Value, json};

use crate::alone::alone;
use crate::chart::is_refused;
use crate::fixture::{Fixture, SOON, revision};
use crate::runners::{RUNNERS, testbed};
use crate::testbed::system::CHART;
use crate::testbed::{Testbed, eventually};

/// Values of one pool, `agents`, whose PAT is in the fixture's vault.
fn pool_of(fixture: &Fixture) -> Value {
    json!({
        "organizationUrl": "https://dev.azure.com/contoso",
        "poolID": 12,
        "auth": {"pat": {"vault": fixture.vault, "object": "ado-pat", "refreshInterval": "10s"}},
        "minReadySeconds": 0,
        "rotateAfter": "6s",
    })
}

async fn install(testbed: &Testbed, release: &str, namespace: &str, values: &Value) -> String {
    let install = [
        "upgrade",
        "--install",
        release,
        RUNNERS,
        "--namespace",
        namespace,
    ];
    let install = [&install[..], &["--values", "-"]].concat();
    testbed.helm_with(&values.to_string(), &install).await.ok()
}

#[tokio::test]
async fn a_pool_gets_its_pat_from_the_vault_and_rolls_when_that_is_rotated() {
    let testbed = testbed().await;
    let fixture = Fixture::new("pool").await;
    let _daemon = fixture.daemon().await;
    fixture.set("ado-pat", "first");
    let values = json!({"pools": {"agents": pool_of(&fixture)}});
    install(testbed, "ado", &fixture.namespace, &values).await;
    fixture.secret_has("adopat", "token", b"first").await;
    let installed = fixture.settled("ado-agents", "adopat", "token").await;
    assert_eq!(revision(&installed), "1", "the installation rolled it");

    fixture.set("ado-pat", "second");
    fixture.sync_now("adopat").await;
    fixture.secret_has("adopat", "token", b"second").await;
    let rotated = fixture.settled("ado-agents", "adopat", "token").await;
    assert_eq!(revision(&rotated), "2");

    // An upgrade that changes nothing rolls nothing, and takes the rotation's marks from nobody.
    install(testbed, "ado", &fixture.namespace, &values).await;
    let upgraded = fixture.settled("ado-agents", "adopat", "token").await;
    assert_eq!(upgraded.metadata.generation, rotated.metadata.generation);

    // Agents that finish their job still need it.
    let uninstall = ["uninstall", "ado", "--namespace", &fixture.namespace];
    testbed.helm(&uninstall).await.ok();
    fixture.secret_has("adopat", "token", b"second").await;
}

/// Everything of a release that is namespaced and lasts, by kind and name, with its resourceVersion.
async fn versions(testbed: &Testbed, namespace: &str, release: &str) -> BTreeMap<String, String> {
    let kinds = "deployments,serviceaccounts,poddisruptionbudgets,networkpolicies,scaledobjects,triggerauthentications,keyvaultmirrors,rotationpolicies,jobs,pods";
    let label = format!("app.kubernetes.io/instance={release}");
    let list = ["get", kinds, "--namespace", namespace, "--selector", &label];
    let list = [&list[..], &["--output", "json"]].concat();
    let listed: Value = serde_json::from_str(&testbed.kubectl(&list).await.ok()).expect("JSON");
    let items = listed["items"].as_array().expect("a list");
    items
        .iter()
        .map(|item| {
            let metadata = &item["metadata"];
            let text = |value: &Value| value.as_str().expect("a string").to_owned();
            (
                format!("{} {}", text(&item["kind"]), text(&metadata["name"])),
                text(&metadata["resourceVersion"]),
            )
        })
        .collect()
}

#[tokio::test]
async fn upgrading_one_organization_changes_nothing_in_the_other() {
    let testbed = testbed().await;
    let fixture = Fixture::new("two").await;
    let _daemon = fixture.daemon().await;
    fixture.set("ado-pat", "contoso");
    fixture.set("fabrikam-pat", "fabrikam");
    let contoso = json!({"pools": {"agents": pool_of(&fixture)}});
    let mut fabrikam = contoso.clone();
    let pool = &mut fabrikam["pools"]["agents"];
    pool["organizationUrl"] = json!("https://dev.azure.com/fabrikam");
    pool["secretName"] = json!("fabrikampat");
    pool["auth"]["pat"]["object"] = json!("fabrikam-pat");
    install(testbed, "contoso", &fixture.namespace, &contoso).await;
    install(testbed, "fabrikam", &fixture.namespace, &fabrikam).await;
    fixture.settled("contoso-agents", "adopat", "token").await;
    fixture
        .settled("fabrikam-agents", "fabrikampat", "token")
        .await;
    fixture.reason("adopat", "Mirrored").await;
    budget_is_met(testbed, &fixture.namespace, "contoso-agents").await;
    let before = versions(testbed, &fixture.namespace, "contoso").await;
    assert!(before.len() >= 8, "{before:?}");

    let other = versions(testbed, &fixture.namespace, "fabrikam").await;
    fabrikam["pools"]["agents"]["image"] = json!({"tag": "next"});
    fabrikam["pools"]["agents"]["scale"] = json!({"max": 30});
    install(testbed, "fabrikam", &fixture.namespace, &fabrikam).await;
    fixture
        .settled("fabrikam-agents", "fabrikampat", "token")
        .await;
    assert_ne!(
        versions(testbed, &fixture.namespace, "fabrikam").await,
        other
    );
    assert_eq!(
        versions(testbed, &fixture.namespace, "contoso").await,
        before
    );

    let uninstall = ["uninstall", "fabrikam", "--namespace", &fixture.namespace];
    testbed.helm(&uninstall).await.ok();
    assert_eq!(
        versions(testbed, &fixture.namespace, "contoso").await,
        before
    );
}

/// Waits until the disruption controller has nothing more to write.
async fn budget_is_met(testbed: &Testbed, namespace: &str, name: &str) {
    eventually(SOON, "the budget counts the agent", async || {
        let path = "jsonpath={.status.currentHealthy}/{.status.expectedPods}";
        let get = [
            "get",
            "poddisruptionbudget",
            name,
            "--namespace",
            namespace,
            "--output",
            path,
        ];
        match testbed.kubectl(&get).await.ok().as_str() {
            "1/1" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_pool_that_scales_is_refused_where_there_is_no_keda() {
    let alone = alone().await;
    let pool = json!({"organizationUrl": "https://dev.azure.com/contoso", "poolID": 1, "auth": {"existingSecret": "s"}});
    let mut values = json!({"pools": {"a": pool, "b": pool}});
    let sentences = [
        "pools.a and 1 more are scaled by KEDA, and this cluster has no KEDA (keda.sh/v1alpha1): install KEDA 2.21 or newer first, or set scale.enabled: false for a fixed number of agents",
    ];
    is_refused(alone.testbed, RUNNERS, &values.to_string(), &sentences).await;

    values["defaults"] = json!({"scale": {"enabled": false}, "replicas": 3});
    let namespace = alone.testbed.namespace("fixed").await;
    install(alone.testbed, "ado", &namespace, &values).await;
    let deployments: Api<Deployment> = Api::namespaced(alone.testbed.client().await, &namespace);
    let found = deployments.get("ado-a").await.expect("the Deployment");
    assert_eq!(found.spec.and_then(|spec| spec.replicas), Some(3));
}

#[tokio::test]
async fn the_notes_warn_of_a_keda_that_scales_busy_agents_down() {
    let testbed = testbed().await;
    let namespace = testbed.namespace("notes").await;
    let operator = |version: &str, image: &str| {
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "keda-operator", "labels": {"app.kubernetes.io/version": version}},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": {"app": "keda"}},
                "template": {
                    "metadata": {"labels": {"app": "keda"}},
                    "spec": {"containers": [{"name": "operator", "image": image}]},
                },
            },
        })
    };
    let pool = json!({
        "organizationUrl": "https://dev.azure.com/contoso/",
        "poolName": "Linux \"agents\"",
        "auth": {"pat": {"vault": "youradorunnerskv", "object": "ado-pat"}},
    });
    let values =
        json!({"pools": {"a": pool}, "keda": {"operatorNamespaces": ["nowhere", namespace]}});
    for (version, image, warned) in [
        ("2.20.1", "keda:2.20.1", Some("2.20.1")),
        ("2.21.0", "keda:2.21.0", None),
        (
            "latest",
            "registry.example.com:5000/keda:v2.20.0@sha256:00",
            Some("2.20.0"),
        ),
        ("main", "keda", None),
    ] {
        testbed
            .apply(&namespace, &operator(version, image).to_string())
            .await
            .ok();
        let notes = install(testbed, "ado", &namespace, &values).await;
        let warning = warned.map(|version| format!("WARNING: this cluster has KEDA {version}"));
        match warning {
            Some(warning) => assert!(notes.contains(&warning), "{notes}"),
            None => assert!(!notes.contains("WARNING"), "{notes}"),
        }
        let says = format!(
            "a: 5 to 20 agents of Deployment ado-a in namespace {namespace}, for agent pool Linux \"agents\" of https://dev.azure.com/contoso\n"
        );
        assert!(notes.contains(&says), "{notes}");
        let grant =
            format!("secret ado-pat of vault youradorunnerskv into namespace {namespace}\n");
        assert!(notes.contains(&grant), "{notes}");
    }
    let none = install(testbed, "none", &namespace, &json!({})).await;
    assert!(none.contains("No runner pool is defined yet"), "{none}");
}

#[tokio::test]
async fn the_notes_of_keytides_release_name_its_pools() {
    let fixture = Fixture::without_grant("notes").await;
    let testbed = testbed().await;
    let pool = json!({
        "organizationUrl": "https://dev.azure.com/contoso/",
        "poolID": 12,
        "auth": {"existingSecret": "s"},
    });
    let values = json!({"replicaCount": 0, "runners": {"enabled": true, "pools": {"a": pool}}});
    let preview = [
        "install",
        "kt",
        CHART,
        "--namespace",
        &fixture.namespace,
        "--values",
        "-",
        "--dry-run=server",
    ];
    // Helm prints no notes of charts in charts.
    let notes = testbed.helm_with(&values.to_string(), &preview).await.ok();
    assert!(
        notes.contains("a: 5 to 20 agents of Deployment kt-a"),
        "{notes}"
    );
}

#[tokio::test]
async fn a_hundred_pools_are_one_release() {
    let testbed = testbed().await;
    let namespace = testbed.namespace("hundred").await;
    let pools: serde_json::Map<String, Value> = (1..=100)
        .map(|id| {
            let mode = if id % 2 == 0 { "job" } else { "deployment" };
            (format!("pool-{id}"), json!({"poolID": id, "mode": mode, "scale": {"enabled": id % 2 == 0}, "replicas": 0}))
        })
        .collect();
    let defaults = json!({
        "organizationUrl": "https://dev.azure.com/contoso",
        "auth": {"existingSecret": "s"},
        "placeholder": {"enabled": false},
        "serviceAccount": {"create": false},
        "podDisruptionBudget": {"enabled": false},
        "networkPolicy": {"enabled": false},
    });
    install(
        testbed,
        "ado",
        &namespace,
        &json!({"pools": pools, "defaults": defaults}),
    )
    .await;
    assert_eq!(count(testbed.client().await, &namespace).await, 50);
    let jobs = [
        "get",
        "scaledjobs",
        "--namespace",
        &namespace,
        "--no-headers",
    ];
    assert_eq!(testbed.kubectl(&jobs).await.ok().lines().count(), 50);
}

async fn count(client: Client, namespace: &str) -> usize {
    let deployments: Api<Deployment> = Api::namespaced(client, namespace);
    deployments
        .list(&Default::default())
        .await
        .expect("a list")
        .items
        .len()
}
