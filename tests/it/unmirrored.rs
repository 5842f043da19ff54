//! Secrets and ConfigMaps that no mirror fills, where they are to be rolled for, and the annotations of others that opt in.

use std::path::Path;

use k8s_openapi::api::apps::v1::Deployment;
use keytide::api::KeyVaultMirror;
use kube::ResourceExt;
use kube::api::Api;
use serde_json::{Value, json};

use crate::alone::alone;
use crate::fixture::{KEYTIDE, QUICK, SOON, revision};
use crate::testbed::eventually;
use crate::testbed::system::System;
use crate::workloads::{class, definition_of_classes, use_classes};

/// A Deployment that takes all of Secret `s` and ConfigMap `c` as variables.
fn deployment(name: &str, annotations: Value) -> Value {
    let from = json!([{"secretRef": {"name": "s"}}, {"configMapRef": {"name": "c"}}]);
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "none", "envFrom": from}]},
            },
        },
    })
}

#[tokio::test]
async fn with_watch_all_every_secret_and_config_map_counts_and_annotations_of_others_opt_in() {
    let alone = alone().await;
    let testbed = alone.testbed;
    let definition = definition_of_classes().to_string();
    testbed.apply("default", &definition).await.ok();
    let values = ["--set", "rotation.watch=all,rotation.compatibility=true"];
    let system = System::start(testbed, Path::new(KEYTIDE), "{}", &values)
        .await
        .expect("a system");
    let log = testbed.log_file("keytide-unmirrored.log");
    let flags = [
        &QUICK[..],
        &["--rotation-watch=all", "--rotation-compatibility"],
    ]
    .concat();
    let daemon = system.daemon(&log, &flags, &[]).await.expect("a daemon");
    let namespace = testbed.namespace("unmirrored").await;
    let apply = async |manifest: Value| {
        testbed.apply(&namespace, &manifest.to_string()).await.ok();
    };
    let secret = |value: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": value}});
    let config_map = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": value}});
    apply(secret("canary-of-a-secret-1")).await;
    apply(config_map("one")).await;
    for (name, annotations) in [
        ("own", json!({"keytide.dev/rotate": "true"})),
        ("reloader", json!({"reloader.stakater.com/auto": "true"})),
        (
            "secrets",
            json!({"secret.reloader.stakater.com/reload": "s"}),
        ),
        (
            "config-maps",
            json!({"configmap.reloader.stakater.com/reload": "c"}),
        ),
        (
            "wave",
            json!({"wave.pusher.com/update-on-config-change": "true"}),
        ),
        ("bystander", json!({})),
    ] {
        apply(deployment(name, annotations)).await;
    }
    // As the CSI driver has it, which keeps the Secret of what it mounts.
    apply(class("class", "s")).await;
    let mut csi = deployment("csi", json!({"keytide.dev/rotate": "true"}));
    use_classes(&mut csi, &["class"]);
    apply(csi).await;
    let deployments: Api<Deployment> = Api::namespaced(testbed.client().await, &namespace);
    // Baseline and number of templates.
    let state = async |name: &str| {
        let found = deployments.get(name).await.expect("a Deployment");
        let baseline = found.annotations().get("keytide.dev/baseline").cloned();
        (baseline.unwrap_or_default(), revision(&found))
    };
    let is_at = async |name: &str, templates: &str, keys: &[&str]| {
        eventually(SOON, &format!("{name} is at {templates}"), async || {
            let (baseline, found) = state(name).await;
            if found == templates && keys.iter().all(|key| baseline.contains(key)) {
                Ok(())
            } else {
                Err(format!("{found} with {baseline}"))
            }
        })
        .await;
    };
    let both = [r#""s/k""#, r#""configmap/c/k""#];
    for name in ["own", "reloader", "wave"] {
        is_at(name, "1", &both).await;
    }
    for name in ["secrets", "csi"] {
        is_at(name, "1", &both[..1]).await;
    }
    is_at("config-maps", "1", &both[1..]).await;

    apply(secret("canary-of-a-secret-2")).await;
    for name in ["own", "reloader", "secrets", "csi", "wave"] {
        is_at(name, "2", &[]).await;
    }
    // Written, and the same: no reason.
    let label = [
        "label",
        "secret/s",
        "written=again",
        "--namespace",
        &namespace,
    ];
    testbed.kubectl(&label).await.ok();
    apply(config_map("two")).await;
    is_at("config-maps", "2", &[]).await;
    for name in ["own", "reloader", "wave"] {
        is_at(name, "3", &[]).await;
    }
    for name in ["secrets", "csi"] {
        assert_eq!(state(name).await.1, "2", "{name}");
    }
    assert_eq!(state("bystander").await, (String::new(), "1".to_owned()));

    // A daemon that may read ConfigMaps may not write them for that.
    apply(json!({
        "apiVersion": "keytide.dev/v1alpha1",
        "kind": "KeyVaultMirror",
        "metadata": {"name": "m"},
        "spec": {
            "vault": {"name": "contoso"},
            "data": [{"key": "k", "object": {"kind": "key", "name": "k"}}],
            "target": {"kind": "ConfigMap", "name": "t"},
        },
    }))
    .await;
    let mirrors: Api<KeyVaultMirror> = Api::namespaced(testbed.client().await, &namespace);
    eventually(SOON, "the mirror is told so", async || {
        let found = mirrors.get("m").await.map_err(|error| error.to_string())?;
        let conditions = found.status.map(|status| status.conditions);
        let ready = conditions.unwrap_or_default().into_iter().next();
        match ready.ok_or("no condition")? {
            ready
                if ready.reason == "ConfigMapNotAllowed"
                    && ready.message.contains("targets.configMaps") =>
            {
                Ok(())
            }
            other => Err(format!("{}: {}", other.reason, other.message)),
        }
    })
    .await;

    drop(daemon);
    let log = std::fs::read_to_string(&log).expect("a log");
    assert!(
        !log.contains("canary-of-a-secret"),
        "nothing that was read is told"
    );
}
