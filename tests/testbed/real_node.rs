//! A node that runs containers: containerd and the kubelet, as processes of this machine. It writes to the places where a
//! node has its state (`/run/containerd`, `/var/log/pods`, network interfaces, cgroups), so it is only for a program that
//! has mounts, network and processes of its own, which take all of that along when they go.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::Result;
use super::certificates::Certificates;
use super::process::{Lifetime, Process, spawn};
use super::tools::node_tool;
use super::wait::within;

/// Where Pods reach the API server: the first address of the Service range.
pub const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// Where Pods reach what listens on the node.
pub const NODE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 1);
const POD_RANGE: &str = "10.2.0.0/16";
/// The port that the Service `kubernetes` has; with the API server on it, nothing has to translate addresses.
pub const API_SERVER_PORT: u16 = 443;

const NAME: &str = "node";
const DEADLINE: Duration = Duration::from_secs(60);
const CONTAINERD: &str = "/run/containerd/containerd.sock";
/// Where Debian has the reference plugins of the Container Network Interface.
const CNI_PLUGINS: &str = "/usr/lib/cni";

/// How the node is to be.
#[derive(Clone, Debug)]
pub struct RealNode {
    /// A cgroup that exists and that all containers are put under.
    pub cgroup: String,
    /// Archives in OCI layout, and the references that Pods use for them. The first one is the sandbox of all Pods.
    pub images: Vec<(PathBuf, String)>,
}

impl RealNode {
    /// Reference of the image that does nothing.
    pub fn idle_image(&self) -> Result<&str> {
        let (_, reference) = self.images.first().ok_or("a node needs a sandbox image")?;
        Ok(reference)
    }

    /// Starts containerd and gives it the images.
    pub async fn start_runtime(&self, folder: &Path) -> Result<Process> {
        let cni = folder.join("cni");
        fs::create_dir_all(&cni)?;
        fs::write(cni.join("10-ptp.conflist"), network().to_string())?;
        let config = folder.join("containerd.toml");
        fs::write(&config, runtime_config(folder, &cni, self.idle_image()?))?;
        let containerd = node_tool("containerd")?;
        // It looks for its shim on the path.
        let programs = containerd.parent().unwrap_or(Path::new("/"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(&containerd);
        command
            .arg("--config")
            .arg(&config)
            .env("PATH", format!("{}:{path}", programs.display()));
        let mut process = start("containerd", command, folder)?;
        within(DEADLINE, "containerd answers", async || {
            if let Some(status) = process.ended() {
                return Err(process.obituary(status));
            }
            ctr(&["version"]).map_err(|error| error.to_string())
        })
        .await?;
        for (archive, reference) in &self.images {
            let archive = archive.display().to_string();
            ctr(&["images", "import", "--index-name", reference, &archive])?;
        }
        Ok(process)
    }

    /// Starts the kubelet, which makes the machine a node of the cluster that `kubeconfig` names.
    pub fn start_kubelet(
        &self,
        folder: &Path,
        kubeconfig: &Path,
        certificates: &Certificates,
    ) -> Result<Process> {
        let resolver = folder.join("resolv.conf");
        fs::write(&resolver, "nameserver 127.0.0.1\n")?;
        let config = folder.join("kubelet.json");
        let settings = kubelet_config(&self.cgroup, &resolver, &certificates.ca_file());
        fs::write(&config, settings.to_string())?;
        let mut command = Command::new(node_tool("kubelet")?);
        command.args([
            format!("--config={}", config.display()),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--root-dir={}", folder.join("kubelet").display()),
            format!("--hostname-override={NAME}"),
            format!("--node-ip={NODE_ADDRESS}"),
        ]);
        start("kubelet", command, folder)
    }
}

fn start(name: &str, command: Command, folder: &Path) -> Result<Process> {
    let log = folder.join("logs").join(format!("{name}.log"));
    Process::start(name, command, &log, Lifetime::Tied)
}

/// Runs containerd's client among the images and containers of the kubelet.
fn ctr(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(node_tool("ctr")?);
    command
        .args(["--address", CONTAINERD, "--namespace", "k8s.io"])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let output = spawn(command, Lifetime::Tied)?.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("ctr {}: {}", arguments.join(" "), said.trim()).into())
}

/// A pair of interfaces for each Pod, and a route from one end to the other.
fn network() -> serde_json::Value {
    let addresses = json!({
        "type": "host-local",
        "ranges": [[{"subnet": POD_RANGE}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    });
    json!({
        "cniVersion": "1.0.0",
        "name": "testbed",
        "plugins": [{"type": "ptp", "ipMasq": false, "ipam": addresses}],
    })
}

fn runtime_config(folder: &Path, cni: &Path, sandbox: &str) -> String {
    format!(
        r#"version = 3
root = "{root}"
state = "/run/containerd"
[grpc]
  address = "{CONTAINERD}"
[plugins.'io.containerd.cri.v1.runtime']
  # Lowering a score takes CAP_SYS_RESOURCE, which root in a container may lack.
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["{CNI_PLUGINS}"]
    conf_dir = "{cni}"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = false
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{sandbox}"
"#,
        root = folder.join("containerd").display(),
        cni = cni.display(),
    )
}

fn kubelet_config(cgroup: &str, resolver: &Path, client_ca: &Path) -> serde_json::Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failSwapOn": false,
        "failCgroupV1": false,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": client_ca},
        },
        "authorization": {"mode": "Webhook"},
        "resolvConf": resolver,
        // The disk of a machine that runs tests may be nearly full, which is none of the tests' business.
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        // Within one and a half times this, a running container sees a Secret's new content in its volume.
        "syncFrequency": "10s",
        "kubeAPIQPS": 500,
        "kubeAPIBurst": 1000,
    })
}
