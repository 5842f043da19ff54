//! The testbed itself: that what the tests of Keytide take for granted is so.

use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::testbed::cluster::Cluster;
use crate::testbed::nodes::Nodes;
use crate::testbed::process::Identity;
use crate::testbed::{eventually, kubeconfig, shared};

const SOON: Duration = Duration::from_secs(60);

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 5
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: web, image: fake}]
";

#[tokio::test]
async fn a_deployment_rolls_when_its_template_changes() {
    let testbed = shared().await;
    let namespace = testbed.namespace("rolls").await;
    let client = testbed.client().await;
    testbed.apply(&namespace, DEPLOYMENT).await.ok();
    let status = [
        "rollout",
        "status",
        "deployment/web",
        "--timeout=60s",
        "--namespace",
        &namespace,
    ];
    testbed.kubectl(&status).await.ok();

    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let template = json!({"metadata": {"annotations": {"keytide.dev/content-digest": "2"}}});
    let patch = Patch::Merge(json!({"spec": {"template": template}}));
    deployments
        .patch("web", &PatchParams::default(), &patch)
        .await
        .expect("patched");
    let said = testbed.kubectl(&status).await.ok();
    assert!(said.contains("successfully rolled out"), "{said}");

    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), &namespace);
    let sets = sets.list(&ListParams::default()).await.expect("listed");
    let mut available: Vec<_> = sets
        .into_iter()
        .filter_map(|set| Some((set.metadata.annotations?, set.status?)))
        .map(|(annotations, status)| {
            let revision = annotations["deployment.kubernetes.io/revision"].clone();
            (revision, status.available_replicas.unwrap_or(0))
        })
        .collect();
    available.sort();
    assert_eq!(available, [("1".into(), 0), ("2".into(), 5)]);

    let pods: Api<Pod> = Api::namespaced(client, &namespace);
    let pods = pods.list(&ListParams::default()).await.expect("listed");
    let started = pods
        .iter()
        .filter(|pod| pod.metadata.annotations.is_some())
        .filter_map(|pod| {
            pod.status
                .as_ref()?
                .container_statuses
                .as_ref()?
                .first()?
                .state
                .as_ref()
        })
        .filter(|state| {
            state
                .running
                .as_ref()
                .is_some_and(|running| running.started_at.is_some())
        });
    assert_eq!(started.count(), 5);
}

#[tokio::test]
async fn a_secret_goes_with_its_owner() {
    let testbed = shared().await;
    let namespace = testbed.namespace("garbage").await;
    let client = testbed.client().await;
    let owners: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    let owner: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "owner"}})).expect("valid");
    let owner = owners
        .create(&PostParams::default(), &owner)
        .await
        .expect("created");
    let reference = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid,
    });
    let owned = json!({"metadata": {"name": "owned", "ownerReferences": [reference]}});
    let owned: Secret = serde_json::from_value(owned).expect("valid");
    secrets
        .create(&PostParams::default(), &owned)
        .await
        .expect("created");

    owners
        .delete("owner", &DeleteParams::default())
        .await
        .expect("deleted");

    eventually(SOON, "the Secret is gone", async || {
        match secrets.get_opt("owned").await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err("it is there".into()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_service_account_may_do_only_what_it_was_granted() {
    let testbed = shared().await;
    let namespace = testbed.namespace("rbac").await;
    testbed
        .kubectl(&[
            "create",
            "serviceaccount",
            "reader",
            "--namespace",
            &namespace,
        ])
        .await
        .ok();
    let path = testbed
        .service_account_kubeconfig(&namespace, "reader")
        .await;
    let client = kubeconfig::client(&path).await.expect("a client");
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);

    let refused =
        |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 403);
    let error = secrets
        .list(&ListParams::default())
        .await
        .expect_err("not granted");
    assert!(refused(&error), "{error}");

    let reader = format!("--serviceaccount={namespace}:reader");
    let role = [
        "create",
        "role",
        "read",
        "--verb=list",
        "--resource=configmaps",
        "--namespace",
        &namespace,
    ];
    testbed.kubectl(&role).await.ok();
    let binding = [
        "create",
        "rolebinding",
        "read",
        "--role=read",
        &reader,
        "--namespace",
        &namespace,
    ];
    testbed.kubectl(&binding).await.ok();
    eventually(SOON, "the grant is known", async || {
        maps.list(&ListParams::default())
            .await
            .map_err(|error| error.to_string())
    })
    .await;
    let error = secrets
        .list(&ListParams::default())
        .await
        .expect_err("still not granted");
    assert!(refused(&error), "{error}");
}

#[tokio::test]
async fn helm_4_and_helm_3_reach_the_cluster() {
    let testbed = shared().await;
    let namespace = testbed.namespace("helm").await;
    for output in [
        testbed
            .helm(&["list", "--namespace", &namespace, "--output", "json"])
            .await,
        testbed
            .helm3(&["list", "--namespace", &namespace, "--output", "json"])
            .await,
    ] {
        assert_eq!(output.ok().trim(), "[]");
    }
}

#[tokio::test]
async fn a_cluster_that_is_dropped_leaves_no_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let begin = Instant::now();
    let cluster = Cluster::start(folder.path(), &Nodes::Fake)
        .await
        .expect("a cluster");
    println!("up after {:.1} s", begin.elapsed().as_secs_f32());
    let processes: Vec<Identity> = cluster
        .processes()
        .iter()
        .map(|process| process.identity().expect("it runs"))
        .collect();
    assert_eq!(processes.len(), 5);

    drop(cluster);

    let left: Vec<_> = processes
        .iter()
        .filter(|process| process.is_running())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
