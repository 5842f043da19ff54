//! The cluster's nodes. Fake ones exist in the API only: kwok says that they are healthy and that the containers of their
//! Pods run.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, Error};
use serde_json::json;

use super::Result;
use super::real_node::RealNode;
use super::wait::within;

/// What runs the cluster's Pods.
#[derive(Clone, Debug)]
pub enum Nodes {
    /// Nobody: kwok says that they run.
    Fake,
    /// A kubelet.
    Real(RealNode),
}

/// Image of Pods on fake nodes, which nobody pulls.
pub const FAKE_IMAGE: &str = "fake";

/// The nodes that kwok plays the kubelet of.
pub const MANAGED: &str = "kwok.x-k8s.io/node=fake";

/// Makes the fake ones.
pub async fn create(client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    for name in ["fake-1", "fake-2"] {
        nodes.create(&PostParams::default(), &node(name)?).await?;
    }
    Ok(())
}

/// Waits until all nodes are ready and one Pod runs: which it does only if controllers, scheduler and nodes all work.
pub async fn ready(client: &Client, deadline: Duration, image: &str) -> Result<(), String> {
    let nodes: Api<Node> = Api::all(client.clone());
    within(deadline, "the nodes are ready", async || {
        let listed = nodes
            .list(&Default::default())
            .await
            .map_err(|error| error.to_string())?;
        if listed.items.is_empty() {
            return Err("there is none".to_owned());
        }
        match listed.iter().find(|node| !is_ready(node)) {
            Some(node) => Err(format!("{:?} isn't", node.metadata.name)),
            None => Ok(()),
        }
    })
    .await?;

    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let pod = pod(image).map_err(|error| error.to_string())?;
    let name = "testbed-ready";
    within(deadline, "a Pod runs", async || {
        // Refused until the controller manager has made the namespace's ServiceAccount.
        match pods.create(&PostParams::default(), &pod).await {
            Ok(_) => {}
            Err(Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => return Err(error.to_string()),
        }
        let seen = pods.get(name).await.map_err(|error| error.to_string())?;
        match seen.status.and_then(|status| status.phase).as_deref() {
            Some("Running") => Ok(()),
            phase => Err(format!("its phase is {phase:?}")),
        }
    })
    .await?;
    let deleted = pods
        .delete(name, &DeleteParams::default().grace_period(0))
        .await;
    deleted.map(|_| ()).map_err(|error| error.to_string())
}

fn node(name: &str) -> Result<Node> {
    // More Pods than a real node has by default: so many are never what a test waits for.
    let resources = json!({ "cpu": "32", "memory": "256Gi", "pods": "1000" });
    Ok(serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "annotations": { "kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0" },
            "labels": {
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
            },
        },
        "status": { "allocatable": resources, "capacity": resources },
    }))?)
}

fn pod(image: &str) -> Result<Pod> {
    Ok(serde_json::from_value(json!({
        "metadata": { "name": "testbed-ready" },
        "spec": { "containers": [{ "name": "idle", "image": image, "imagePullPolicy": "Never" }] },
    }))?)
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    conditions
        .filter(|condition| condition.type_ == "Ready")
        .any(|condition| condition.status == "True")
}
