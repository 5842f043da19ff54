//! The control plane: etcd, the API server, the controllers, the scheduler, and what plays or runs the nodes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use kube::Client;
use rustix::process::Signal;
use tokio::time::sleep;

use super::certificates::{Certificates, FRONT_PROXY};
use super::nodes::{self, FAKE_IMAGE, Nodes};
use super::process::{Lifetime, Process, without_proxy};
use super::tools::tool;
use super::wait::within;
use super::{Result, kubeconfig, ports, real_node};

/// Name of its program and process.
pub const API_SERVER: &str = "kube-apiserver";

/// Ten times what it takes on two idle cores.
const DEADLINE: Duration = Duration::from_secs(120);

/// How often a start is tried when another program was quicker to take one of the ports.
const ATTEMPTS: usize = 3;

/// Without these the clients' own throttling is what the tests and benchmarks would measure.
const CLIENT_LIMITS: [&str; 2] = ["--kube-api-qps=500", "--kube-api-burst=1000"];

/// A control plane that is up, or one that was there before. Dropping it ends what was started for it, unless that
/// was started [`Lifetime::Detached`].
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    kubeconfig: PathBuf,
    processes: Vec<Process>,
}

impl Cluster {
    /// Starts one that lives no longer than this program, with all that it writes in `folder`; logs are in
    /// `folder/logs`.
    pub async fn start(folder: &Path, nodes: &Nodes) -> Result<Self> {
        Self::start_as(folder, nodes, Lifetime::Tied, &mut |_| Ok(())).await
    }

    /// Calls `started` with each process as soon as there is one, so that whoever must end it later knows of it even if
    /// this program is cut short.
    pub async fn start_as(
        folder: &Path,
        nodes: &Nodes,
        lifetime: Lifetime,
        started: &mut dyn FnMut(&Process) -> Result<()>,
    ) -> Result<Self> {
        let mut attempt = 1;
        loop {
            let mut cluster = Self {
                folder: folder.into(),
                kubeconfig: folder.join("kubeconfig"),
                processes: Vec::new(),
            };
            let Err(error) = cluster.boot(nodes, lifetime, started).await else {
                return Ok(cluster);
            };
            cluster.stop();
            if attempt == ATTEMPTS || !error.to_string().contains("address already in use") {
                return Err(error);
            }
            attempt += 1;
        }
    }

    /// One that someone else runs: nothing is started or stopped.
    pub fn existing(folder: &Path, kubeconfig: &Path) -> Self {
        Self {
            folder: folder.into(),
            kubeconfig: kubeconfig.into(),
            processes: Vec::new(),
        }
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// What ServiceAccounts of namespace `keytide` asked for; none for a cluster that someone else runs.
    pub fn audit_log(&self) -> Option<PathBuf> {
        (!self.processes.is_empty()).then(|| audit_log(&self.folder))
    }

    pub fn processes(&self) -> &[Process] {
        &self.processes
    }

    /// Has a process of that name stand still (SIGSTOP), or go on (SIGCONT).
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        let mut processes = self.processes.iter();
        let process = processes.find(|process| process.name == name);
        let process = process.ok_or_else(|| format!("no {name} was started here"))?;
        process.signal(signal)
    }

    /// Ends what was started for it, and waits until that is gone. Nothing of it is worth an orderly end.
    pub fn stop(&mut self) {
        for process in self.processes.iter_mut().rev() {
            process.kill();
        }
    }

    async fn boot(
        &mut self,
        nodes: &Nodes,
        lifetime: Lifetime,
        started: &mut dyn FnMut(&Process) -> Result<()>,
    ) -> Result<()> {
        let data = self.folder.join("etcd");
        if data.exists() {
            fs::remove_dir_all(&data)?;
        }
        fs::create_dir_all(self.folder.join("logs"))?;
        let certificates = Certificates::create(&self.folder.join("certificates"))?;
        let (etcd, port) = match nodes {
            Nodes::Fake => (ports::free()?, ports::free()?),
            Nodes::Real(_) => (ports::free()?, real_node::API_SERVER_PORT),
        };
        kubeconfig::write_admin(&self.kubeconfig, port, &certificates)?;
        let client = kubeconfig::client(&self.kubeconfig).await?;

        let mut run = |name: &str, arguments: Vec<String>| -> Result<Process> {
            let mut command = Command::new(tool(name)?);
            without_proxy(command.args(arguments).current_dir(&self.folder));
            let log = self.folder.join("logs").join(format!("{name}.log"));
            let process = Process::start(name, command, &log, lifetime)?;
            started(&process)?;
            Ok(process)
        };

        self.processes
            .push(run("etcd", etcd_arguments(&data, etcd, ports::free()?))?);
        self.processes.push(run(
            API_SERVER,
            api_server_arguments(&certificates, nodes, etcd, port)
                .into_iter()
                .chain(audit_arguments(&self.folder)?)
                .collect(),
        )?);
        unless_one_ends(&mut self.processes, answers(&client)).await?;

        let controllers = controller_arguments(&self.kubeconfig, &certificates);
        self.processes
            .push(run("kube-controller-manager", controllers)?);
        self.processes.push(run(
            "kube-scheduler",
            scheduler_arguments(&self.kubeconfig),
        )?);
        let image = match nodes {
            Nodes::Fake => {
                let kwok = kwok_arguments(&self.kubeconfig, &tool("kwok-stages.yaml")?);
                self.processes.push(run("kwok", kwok)?);
                nodes::create(&client).await?;
                FAKE_IMAGE
            }
            Nodes::Real(node) => {
                let runtime = node.start_runtime(&self.folder).await?;
                self.processes.push(runtime);
                let kubelet = node.start_kubelet(&self.folder, &self.kubeconfig, &certificates)?;
                self.processes.push(kubelet);
                node.idle_image()?
            }
        };
        let ready = nodes::ready(&client, DEADLINE, image);
        unless_one_ends(&mut self.processes, ready).await
    }
}

async fn answers(client: &Client) -> Result<(), String> {
    within(DEADLINE, "the API server is ready", async || {
        let request = http::Request::get("/readyz").body(Vec::new());
        let request = request.map_err(|error| error.to_string())?;
        client
            .request_text(request)
            .await
            .map(|_| ())
            .map_err(|error| error.to_string())
    })
    .await
}

/// Waits for the condition, but not for longer than all processes live.
async fn unless_one_ends<T>(
    processes: &mut [Process],
    condition: impl Future<Output = Result<T, String>>,
) -> Result<T> {
    let one_ends = async {
        loop {
            for process in &mut *processes {
                if let Some(status) = process.ended() {
                    return process.obituary(status);
                }
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        result = condition => Ok(result?),
        reason = one_ends => Err(reason.into()),
    }
}

fn etcd_arguments(data: &Path, client: u16, peer: u16) -> Vec<String> {
    let client = format!("http://127.0.0.1:{client}");
    let peer = format!("http://127.0.0.1:{peer}");
    vec![
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--log-level=warn".into(),
        // The data is of no use after a crash, and waiting for a shared disk is most of what a write costs.
        "--unsafe-no-fsync".into(),
    ]
}

fn api_server_arguments(
    certificates: &Certificates,
    nodes: &Nodes,
    etcd: u16,
    port: u16,
) -> Vec<String> {
    let for_nodes = match nodes {
        Nodes::Fake => vec!["--bind-address=127.0.0.1".to_owned()],
        // The key lets it ask the kubelet for logs.
        Nodes::Real(_) => vec![
            "--bind-address=0.0.0.0".to_owned(),
            format!(
                "--kubelet-client-certificate={}",
                certificates.admin_file().display()
            ),
            format!(
                "--kubelet-client-key={}",
                certificates.admin_key_file().display()
            ),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
        ],
    };
    let mut arguments = vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        "--advertise-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", certificates.server_file().display()),
        format!(
            "--tls-private-key-file={}",
            certificates.server_key_file().display()
        ),
        format!("--client-ca-file={}", certificates.ca_file().display()),
        "--authorization-mode=RBAC".into(),
        "--allow-privileged=true".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!(
            "--service-account-signing-key-file={}",
            certificates.token_key_file().display()
        ),
        format!(
            "--service-account-key-file={}",
            certificates.token_public_key_file().display()
        ),
        "--service-cluster-ip-range=10.0.0.0/16".into(),
        // An Endpoints object may not name loopback, so there is nothing to reconcile.
        "--endpoint-reconciler-type=none".into(),
    ];
    arguments.extend(for_nodes);
    arguments.extend(aggregation_arguments(certificates));
    arguments
}

/// Lets others serve parts of the API. Nobody translates the cluster IPs of their Services, so requests go to what the
/// EndpointSlices name.
fn aggregation_arguments(certificates: &Certificates) -> [String; 8] {
    [
        format!(
            "--proxy-client-cert-file={}",
            certificates.front_proxy_file().display()
        ),
        format!(
            "--proxy-client-key-file={}",
            certificates.front_proxy_key_file().display()
        ),
        format!(
            "--requestheader-client-ca-file={}",
            certificates.ca_file().display()
        ),
        // The same authority makes all client certificates.
        format!("--requestheader-allowed-names={FRONT_PROXY}"),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        "--enable-aggregator-routing=true".into(),
    ]
}

/// Who else asks for what is of no interest, and much.
const AUDIT_POLICY: &str = r#"{
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts:keytide"]}, {"level": "None"}]
}"#;

fn audit_log(folder: &Path) -> PathBuf {
    folder.join("logs").join("audit.log")
}

fn audit_arguments(folder: &Path) -> Result<[String; 2]> {
    let policy = folder.join("audit-policy.json");
    fs::write(&policy, AUDIT_POLICY)?;
    Ok([
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", audit_log(folder).display()),
    ])
}

fn controller_arguments(kubeconfig: &Path, certificates: &Certificates) -> Vec<String> {
    let mut arguments = client_arguments(kubeconfig);
    arguments.extend([
        format!(
            "--service-account-private-key-file={}",
            certificates.token_key_file().display()
        ),
        format!("--root-ca-file={}", certificates.ca_file().display()),
        format!(
            "--cluster-signing-cert-file={}",
            certificates.ca_file().display()
        ),
        format!(
            "--cluster-signing-key-file={}",
            certificates.ca_key_file().display()
        ),
        "--concurrent-deployment-syncs=20".into(),
        "--horizontal-pod-autoscaler-sync-period=1s".into(),
    ]);
    arguments
}

fn scheduler_arguments(kubeconfig: &Path) -> Vec<String> {
    client_arguments(kubeconfig)
}

/// Both run once, so nobody is to be elected, and are watched as processes, so nobody asks them over HTTPS.
fn client_arguments(kubeconfig: &Path) -> Vec<String> {
    let mut arguments = vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        "--leader-elect=false".into(),
        "--secure-port=0".into(),
    ];
    arguments.extend(CLIENT_LIMITS.map(Into::into));
    arguments
}

fn kwok_arguments(kubeconfig: &Path, stages: &Path) -> Vec<String> {
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--config={}", stages.display()),
        format!("--manage-nodes-with-annotation-selector={}", nodes::MANAGED),
        "--node-lease-duration-seconds=40".into(),
        "--cidr=10.64.0.0/12".into(),
    ]
}
