//! KEDA beside the control plane: its operator, and the metrics adapter by which the Horizontal Pod Autoscaler asks it, as
//! processes of this machine.
//!
//! ```text
//! autoscaler ──▶ API server ──APIService──▶ adapter ──gRPC──▶ operator ──▶ Azure DevOps
//! ```

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::certificates::{server, write_private};
use super::process::{Lifetime, Process, without_proxy};
use super::shared::Testbed;
use super::tools::keda_tool;
use super::wait::within;
use super::{Result, ports};

const NAMESPACE: &str = "keda";
const ADAPTER: &str = "keda-metrics-apiserver";
const DEADLINE: Duration = Duration::from_secs(120);

/// KEDA that scales. Dropping it ends its processes and leaves its definitions.
#[derive(Debug)]
pub struct Keda {
    operator: Process,
    adapter: Process,
}

impl Keda {
    /// Installs KEDA's definitions, starts it, and waits until the API server passes its metrics on. `address` is one of
    /// this machine that isn't loopback, since an EndpointSlice can't name that.
    pub async fn start(testbed: &Testbed, address: Ipv4Addr) -> Result<Self> {
        let folder = testbed.folder("keda");
        let ca = write_certificates(&folder)?;
        let (operator_port, adapter_port) = (ports::free()?, ports::free()?);
        let definitions = keda_tool("keda-crds")?.display().to_string();
        let apply = ["apply", "--server-side", "--filename", &definitions];
        testbed.kubectl(&apply).await.result()?;
        let manifests = manifests(address, adapter_port, &ca).to_string();
        testbed.apply(NAMESPACE, &manifests).await.result()?;

        let start = |name: &str, arguments: Vec<String>| -> Result<Process> {
            let mut command = Command::new(keda_tool(name)?);
            without_proxy(&mut command)
                .args(arguments)
                .env("KUBECONFIG", testbed.kubeconfig())
                .env("KEDA_CLUSTER_OBJECT_NAMESPACE", NAMESPACE)
                .env("POD_NAMESPACE", NAMESPACE)
                // All namespaces.
                .env("WATCH_NAMESPACE", "");
            Process::start(name, command, &testbed.log_file(name), Lifetime::Tied)
        };
        let operator = operator_arguments(&folder, operator_port);
        let adapter = adapter_arguments(&folder, testbed.kubeconfig(), operator_port, adapter_port);
        let mut keda = Self {
            operator: start("keda-operator", operator)?,
            adapter: start("keda-adapter", adapter?)?,
        };
        keda.wait_ready(testbed).await?;
        Ok(keda)
    }

    async fn wait_ready(&mut self, testbed: &Testbed) -> Result<()> {
        let ready = within(DEADLINE, "KEDA serves metrics", async || {
            for process in [&mut self.operator, &mut self.adapter] {
                if let Some(status) = process.ended() {
                    return Err(process.obituary(status));
                }
            }
            let path = "/apis/external.metrics.k8s.io/v1beta1";
            let answer = testbed.kubectl(&["get", "--raw", path]).await;
            answer.result().map(drop).map_err(|error| error.to_string())
        });
        Ok(ready.await?)
    }

    /// What the operator has written.
    pub fn operator_log(&self) -> String {
        self.operator.log()
    }
}

/// Writes what both processes want to find in a folder, and returns their authority's certificate.
fn write_certificates(folder: &Path) -> Result<String> {
    let service = format!("{ADAPTER}.{NAMESPACE}.svc");
    let (ca, certificate, key) = server(&["localhost", &service])?;
    for (name, content) in [
        ("ca.crt", &ca),
        ("tls.crt", &certificate),
        ("tls.key", &key),
    ] {
        write_private(&folder.join(name), content)?;
    }
    Ok(ca)
}

/// By which the API server finds the adapter.
fn manifests(address: Ipv4Addr, port: u16, ca: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": NAMESPACE},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": ADAPTER},
                // No selector: no Pod of this cluster is behind it.
                "spec": {"ports": [{"name": "https", "port": 443, "targetPort": port}]},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": ADAPTER, "labels": {"kubernetes.io/service-name": ADAPTER}},
                "addressType": "IPv4",
                "ports": [{"name": "https", "port": port}],
                "endpoints": [{"addresses": [address]}],
            },
            {
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
                "spec": {
                    "group": "external.metrics.k8s.io",
                    "version": "v1beta1",
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                    "service": {"name": ADAPTER, "namespace": NAMESPACE},
                    "caBundle": BASE64_STANDARD.encode(ca),
                },
            },
        ],
    })
}

fn operator_arguments(certificates: &Path, port: u16) -> Vec<String> {
    vec![
        "--enable-cert-rotation=false".into(),
        format!("--cert-dir={}", certificates.display()),
        format!("--metrics-service-bind-address=127.0.0.1:{port}"),
        "--enable-prometheus-metrics=false".into(),
        "--health-probe-bind-address=0".into(),
    ]
}

fn adapter_arguments(
    certificates: &Path,
    kubeconfig: &Path,
    operator_port: u16,
    port: u16,
) -> Result<Vec<String>> {
    let file = |name| certificates.join(name).display().to_string();
    let kubeconfig = kubeconfig.display();
    Ok(vec![
        format!("--secure-port={port}"),
        format!("--port={}", ports::free()?),
        format!("--cert-dir={}", certificates.display()),
        format!("--tls-cert-file={}", file("tls.crt")),
        format!("--tls-private-key-file={}", file("tls.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--lister-kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--metrics-service-address=localhost:{operator_port}"),
    ])
}
