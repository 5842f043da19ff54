//! What the steps play on: a cluster with a real node, and a dev vault that its Pods reach.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, Secret};
use keytide::devvault::{DevVault, Options, Seed, Written};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::image;
use crate::sandbox::Place;
use crate::testbed::Result;
use crate::testbed::nodes::Nodes;
use crate::testbed::real_node::{NODE_ADDRESS, RealNode};
use crate::testbed::shared::Testbed;
use crate::testbed::system::{CHART, RELEASE, start_vault};
use crate::testbed::wait::within;

/// Longest that a step waits for anything, on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(180);

const VAULT: &str = "e2e";
/// File with what the chart is told.
const VALUES: &str = "values.json";
const CLIENT_ID: &str = "11111111-1111-1111-1111-111111111111";
const TENANT_ID: &str = "22222222-2222-2222-2222-222222222222";
/// The container of every workload.
const CONTAINER: &str = "main";

/// Only the daemon's own ServiceAccount may read the vault, by a token that this cluster issued.
const SEED: &str = r#"
identities:
  - clientId: 11111111-1111-1111-1111-111111111111
    tenantId: 22222222-2222-2222-2222-222222222222
    federated:
      - {issuer: "https://kubernetes.default.svc", subject: "system:serviceaccount:keytide:keytide"}
vaults:
  e2e: {access: [11111111-1111-1111-1111-111111111111]}
"#;

pub struct Scene {
    pub testbed: Testbed,
    pub client: Client,
    vault: Arc<DevVault>,
    folder: PathBuf,
    /// What the chart is told.
    values: Value,
    /// How many rotations in a row are shown.
    pub rotations: u32,
}

impl Scene {
    pub async fn start(place: &Place, rotations: u32) -> Result<Self> {
        let begin = Instant::now();
        let node = RealNode {
            cgroup: format!("/{}", place.cgroup),
            images: vec![
                (place.workload_image.clone(), image::WORKLOAD.to_owned()),
                (place.daemon_image.clone(), image::DAEMON.to_owned()),
            ],
        };
        let testbed = Testbed::start_in(&place.folder, &Nodes::Real(node)).await?;
        let vault = start_vault(Options {
            listen: SocketAddr::from((NODE_ADDRESS, 0)),
            beyond_loopback: true,
            seed: Seed::parse(SEED)?,
        })?;
        println!(
            "e2e: a cluster with a real node is up after {:.1} s",
            begin.elapsed().as_secs_f64()
        );
        let values = json!({
            "image": {"repository": "keytide", "tag": "e2e", "pullPolicy": "Never"},
            "identity": {"clientId": CLIENT_ID, "tenantId": TENANT_ID, "projectedToken": true},
            "proxy": {"httpsProxy": vault.proxy(), "httpProxy": vault.proxy()},
            "caBundle": {"configMap": "dev-vault-ca"},
            "vaults": {VAULT: {"namespaces": ["*"], "objects": [{"kind": "secret", "name": "*"}]}},
            "rotation": {"settle": "5s", "minInterval": "0s"},
            "terminationGracePeriodSeconds": 5,
            "log": {"filter": "keytide=debug,info"},
        });
        std::fs::write(place.folder.join(VALUES), values.to_string())?;
        let scene = Self {
            client: testbed.client().await,
            testbed,
            vault,
            folder: place.folder.clone(),
            values,
            rotations,
        };
        scene.kubectl(&["create", "namespace", RELEASE]).await?;
        let bundle = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "dev-vault-ca"},
            "data": {"ca.crt": scene.vault.ca_pem()},
        });
        scene.apply(RELEASE, &bundle).await?;
        Ok(scene)
    }

    /// For files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the chart is told.
    pub fn values(&self) -> &Value {
        &self.values
    }

    /// Puts a secret into the vault.
    pub fn set(&self, secret: &str, value: &str) -> Result<Written> {
        Ok(self.vault.set_secret(VAULT, secret, value)?)
    }

    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.testbed.kubectl(arguments).await.result()
    }

    pub async fn helm(&self, arguments: &[&str]) -> Result<String> {
        self.testbed.helm(arguments).await.result()
    }

    /// Installs or upgrades the daemon as a user does, and waits until it is ready.
    pub async fn install(&self, more: &[&str]) -> Result<()> {
        let values = self.folder.join(VALUES).display().to_string();
        let mut arguments = vec![
            "upgrade",
            "--install",
            RELEASE,
            CHART,
            "--namespace",
            RELEASE,
        ];
        arguments.extend(["--values", &values]);
        arguments.extend(more);
        self.helm(&arguments).await.map(drop)
    }

    pub async fn namespace(&self, prefix: &str) -> String {
        self.testbed.namespace(prefix).await
    }

    pub async fn apply(&self, namespace: &str, manifest: &Value) -> Result<String> {
        let manifest = manifest.to_string();
        self.testbed.apply(namespace, &manifest).await.result()
    }

    fn deployments(&self, namespace: &str) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub async fn pods(&self, namespace: &str, selector: &str) -> Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let all = pods.list(&ListParams::default().labels(selector)).await?;
        Ok(all.items)
    }

    /// The daemon's Pods that are not on their way out.
    pub async fn daemons(&self) -> Result<Vec<Pod>> {
        let selector =
            format!("app.kubernetes.io/name=keytide,app.kubernetes.io/instance={RELEASE}");
        let mut pods = self.pods(RELEASE, &selector).await?;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    /// What a Pod's container has printed.
    pub async fn printed(&self, namespace: &str, pod: &str) -> Result<String> {
        self.kubectl(&[
            "logs",
            "--namespace",
            namespace,
            pod,
            "--container",
            CONTAINER,
        ])
        .await
    }

    /// Makes a mirror ask its vault at once.
    pub async fn sync_now(&self, namespace: &str, mirror: &str) -> Result<()> {
        let annotation = format!("keytide.dev/sync-now={}", self.testbed.unique("sync"));
        let target = format!("keyvaultmirror/{mirror}");
        self.kubectl(&[
            "annotate",
            "--overwrite",
            "--namespace",
            namespace,
            &target,
            &annotation,
        ])
        .await
        .map(drop)
    }

    /// Waits until a Deployment is rolled out and its baseline is of the Secret's content, which is `value`.
    pub async fn settled(
        &self,
        namespace: &str,
        deployment: &str,
        value: &str,
    ) -> Result<Deployment> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let what = format!("{deployment} has {value} as its baseline");
        let settled = within(DEADLINE, &what, async || {
            let error = |error: kube::Error| error.to_string();
            let secret = secrets.get("t").await.map_err(error)?;
            let content = secret.data.as_ref().and_then(|data| data.get("token"));
            if content.is_none_or(|content| content.0 != value.as_bytes()) {
                return Err("the Secret has other content".to_owned());
            }
            let records = keytide::mirror::records(secret.annotations());
            let record = records.values().find_map(|record| record.keys.get("token"));
            let digest = &record.ok_or("no record of the key")?.digest;
            let found = self
                .deployments(namespace)
                .get(deployment)
                .await
                .map_err(error)?;
            let baseline = found
                .annotations()
                .get("keytide.dev/baseline")
                .ok_or("no baseline")?;
            if !baseline.contains(digest.as_str()) {
                return Err(format!("the baseline is {baseline}"));
            }
            if is_rolled_out(&found) {
                Ok(found)
            } else {
                Err(format!("its status is {:?}", found.status))
            }
        });
        Ok(settled.await?)
    }

    /// Prints what a person would look at who is to find out why a step failed.
    pub async fn tell_what_is_there(&self) {
        for arguments in [
            &["get", "pods", "--all-namespaces"][..],
            &[
                "get",
                "events",
                "--all-namespaces",
                "--sort-by=.lastTimestamp",
            ],
            &[
                "logs",
                "--namespace",
                RELEASE,
                "--selector=app.kubernetes.io/name=keytide",
                "--tail=40",
            ],
        ] {
            println!("$ kubectl {}", arguments.join(" "));
            match self.kubectl(arguments).await {
                Ok(text) => println!("{text}"),
                Err(error) => println!("{error}"),
            }
        }
    }
}

/// A mirror of the vault's `secret` into key `token` of Secret `t`.
pub fn mirror(secret: &str) -> Value {
    json!({
        "apiVersion": "keytide.dev/v1alpha1",
        "kind": "KeyVaultMirror",
        "metadata": {"name": "m"},
        "spec": {
            "vault": {"name": VAULT},
            "refreshInterval": "10s",
            "data": [{"key": "token", "object": {"name": secret}}],
            "target": {"name": "t"},
        },
    })
}

/// A Deployment `d` that opted in; each container prints the token that it started with, and then runs `script`.
pub fn deployment(replicas: u32, script: &str) -> Value {
    let script = format!("echo \"started with $TOKEN\"; {script}");
    let variable =
        json!({"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "t", "key": "token"}}});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d", "annotations": {"keytide.dev/rotate": "true"}},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "d"}},
            "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {
                    "terminationGracePeriodSeconds": 2,
                    "containers": [{
                        "name": CONTAINER,
                        "image": image::WORKLOAD,
                        "imagePullPolicy": "Never",
                        "command": ["/bin/sh", "-c", script],
                        "env": [variable],
                    }],
                },
            },
        },
    })
}

/// Runs until it is told to end.
pub const RUN: &str = "trap 'exit 0' TERM; while :; do sleep 1 & wait $!; done";

/// How often the Pod template was changed, which ReplicaSets count.
pub fn revision(deployment: &Deployment) -> &str {
    deployment
        .annotations()
        .get("deployment.kubernetes.io/revision")
        .map_or("", String::as_str)
}

fn is_rolled_out(deployment: &Deployment) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    status.observed_generation == deployment.metadata.generation
        && status.updated_replicas == wanted
        && status.available_replicas == wanted
        && status.replicas == wanted
}

/// The status of a Pod's first container.
pub fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

pub fn restarts(pods: &[Pod]) -> i32 {
    pods.iter()
        .filter_map(container)
        .map(|container| container.restart_count)
        .sum()
}
