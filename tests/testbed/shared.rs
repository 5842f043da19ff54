//! What a test holds in its hands: one cluster for all tests of a program, and kubectl and Helm that talk to it.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use rustix::process::Signal;
use tokio::sync::OnceCell;

use super::audit::Audit;
use super::cluster::{API_SERVER, Cluster};
use super::nodes::Nodes;
use super::process::{Lifetime, spawn, without_proxy};
use super::scratch::Scratch;
use super::tools::tool;
use super::{Result, eventually, kubeconfig};

/// The cluster that all tests of this program share, started at the first call. It is never dropped: its processes end
/// with this program.
pub async fn shared() -> &'static Testbed {
    static TESTBED: OnceCell<Result<Testbed, String>> = OnceCell::const_new();
    let testbed = TESTBED
        .get_or_init(async || {
            Testbed::start(&scratch_parent())
                .await
                .map_err(|error| error.to_string())
        })
        .await;
    // Kept and said again, instead of being tried again by every test.
    testbed
        .as_ref()
        .unwrap_or_else(|error| panic!("no testbed: {error}"))
}

/// Where the folders of all runs lie.
pub fn scratch_parent() -> PathBuf {
    match option_env!("CARGO_TARGET_TMPDIR") {
        Some(folder) => Path::new(folder).join("testbed"),
        None => env::temp_dir().join("keytide-testbed"),
    }
}

/// Nothing in it belongs to a tokio runtime: each test has its own.
#[derive(Debug)]
pub struct Testbed {
    cluster: Cluster,
    folder: PathBuf,
    _scratch: Option<Scratch>,
    /// Tells this run's names from those of others in a cluster that isn't ours.
    run: String,
    count: AtomicU32,
}

/// What a command said and whether it was content.
#[derive(Debug)]
#[must_use]
pub struct Output {
    pub command: String,
    pub success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// What it printed; panics with what it complained about if it failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(
            self.success,
            "{}: {}{}",
            self.command, self.stderr, self.stdout
        );
        self.stdout
    }

    /// What it printed, or what it complained about.
    pub fn result(self) -> Result<String> {
        if self.success {
            Ok(self.stdout)
        } else {
            Err(format!("{}: {}{}", self.command, self.stderr, self.stdout).into())
        }
    }
}

impl Testbed {
    /// A cluster with its files in a new folder under `parent`, or the one that `KEYTIDE_TEST_KUBECONFIG` names.
    pub async fn start(parent: &Path) -> Result<Self> {
        let Some(kubeconfig) = env::var_os("KEYTIDE_TEST_KUBECONFIG") else {
            return Self::start_own(parent).await;
        };
        let scratch = Scratch::create(parent)?;
        let cluster = Cluster::existing(&scratch.folder, Path::new(&kubeconfig));
        Self::of(cluster, scratch.folder.clone(), Some(scratch))
    }

    /// A cluster of the caller's own, whatever the environment says.
    pub async fn start_own(parent: &Path) -> Result<Self> {
        let scratch = Scratch::create(parent)?;
        let cluster = Cluster::start(&scratch.folder, &Nodes::Fake).await?;
        Self::of(cluster, scratch.folder.clone(), Some(scratch))
    }

    /// A cluster with its files in `folder`, which the caller keeps others away from.
    pub async fn start_in(folder: &Path, nodes: &Nodes) -> Result<Self> {
        let cluster = Cluster::start(folder, nodes).await?;
        Self::of(cluster, folder.to_owned(), None)
    }

    fn of(cluster: Cluster, folder: PathBuf, scratch: Option<Scratch>) -> Result<Self> {
        for name in ["helm", "kubeconfigs", "logs"] {
            fs::create_dir_all(folder.join(name))?;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        Ok(Self {
            cluster,
            folder,
            _scratch: scratch,
            run: format!("{:x}", now.as_millis() & 0xff_ffff),
            count: AtomicU32::new(0),
        })
    }

    /// The administrator's.
    pub fn kubeconfig(&self) -> &Path {
        self.cluster.kubeconfig()
    }

    /// The API server stands still, as when its machine is frozen: it takes requests and answers none.
    pub fn freeze_api_server(&self) -> Result<()> {
        self.cluster.signal(API_SERVER, Signal::STOP)
    }

    /// It goes on, after [`Testbed::freeze_api_server`].
    pub fn thaw_api_server(&self) -> Result<()> {
        self.cluster.signal(API_SERVER, Signal::CONT)
    }

    /// A client as administrator, for the caller's runtime.
    pub async fn client(&self) -> Client {
        kubeconfig::client(self.kubeconfig())
            .await
            .expect("the kubeconfig gives a client")
    }

    /// `prefix` with an ending that no other caller gets.
    pub fn unique(&self, prefix: &str) -> String {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        format!("{prefix}-{}-{count}", self.run)
    }

    /// A file for the output of a process, of its own for each call.
    pub fn log_file(&self, name: &str) -> PathBuf {
        self.folder
            .join("logs")
            .join(format!("{}.log", self.unique(name)))
    }

    /// Creates a namespace of its own for the caller, in which Pods can be created at once.
    pub async fn namespace(&self, prefix: &str) -> String {
        let name = self.unique(prefix);
        let client = self.client().await;
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .expect("a new namespace");
        let accounts: Api<ServiceAccount> = Api::namespaced(client, &name);
        eventually(
            Duration::from_secs(30),
            "the namespace has its ServiceAccount",
            async || {
                accounts
                    .get("default")
                    .await
                    .map_err(|error| error.to_string())
            },
        )
        .await;
        name
    }

    /// A kubeconfig by which a process is this ServiceAccount and nothing more.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> PathBuf {
        let file = self.unique(&format!("{namespace}.{name}"));
        let path = self.folder.join("kubeconfigs").join(file);
        kubeconfig::write_service_account(&path, self.kubeconfig(), namespace, name)
            .await
            .unwrap_or_else(|error| panic!("a token of {namespace}/{name}: {error}"));
        path
    }

    pub async fn kubectl(&self, arguments: &[&str]) -> Output {
        self.run("kubectl", arguments, "").await
    }

    /// As an administrator; `manifests` are YAML or JSON.
    pub async fn apply(&self, namespace: &str, manifests: &str) -> Output {
        let arguments = ["apply", "--namespace", namespace, "--filename", "-"];
        self.kubectl_with(manifests, &arguments).await
    }

    /// kubectl with something on standard input.
    pub async fn kubectl_with(&self, input: &str, arguments: &[&str]) -> Output {
        self.run("kubectl", arguments, input).await
    }

    /// What was asked of the API server by ServiceAccounts of namespace `keytide`: a JSON object a line. None where the cluster
    /// isn't ours.
    pub fn audit_log(&self) -> Option<String> {
        let path = self.cluster.audit_log()?;
        fs::read_to_string(path).ok()
    }

    /// The same as requests, and from now on.
    pub fn audit(&self) -> Option<Audit> {
        self.cluster.audit_log().map(Audit::from_now)
    }

    /// A folder for files of the caller's, which lives as long as this.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(self.unique(name));
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    /// What someone types at a shell, with the testbed's kubectl and Helm first in the PATH.
    pub async fn bash(&self, script: &str) -> Output {
        self.run("bash", &["-euo", "pipefail"], script).await
    }

    /// Helm with values from standard input (`--values -`).
    pub async fn helm_with(&self, values: &str, arguments: &[&str]) -> Output {
        self.run("helm", arguments, values).await
    }

    pub async fn helm3_with(&self, values: &str, arguments: &[&str]) -> Output {
        self.run("helm3", arguments, values).await
    }

    pub async fn helm(&self, arguments: &[&str]) -> Output {
        self.run("helm", arguments, "").await
    }

    pub async fn helm3(&self, arguments: &[&str]) -> Output {
        self.run("helm3", arguments, "").await
    }

    /// Runs a tool against the cluster, away from the user's own settings and caches.
    async fn run(&self, name: &str, arguments: &[&str], input: &str) -> Output {
        let found = |name| tool(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        let program = match name {
            "bash" => PathBuf::from(name),
            _ => found(name),
        };
        let tools = [found("kubectl"), found("helm")];
        let tools = tools.iter().filter_map(|tool| tool.parent());
        let path = env::var_os("PATH").unwrap_or_default();
        let path = tools.map(Path::to_owned).chain(env::split_paths(&path));
        let helm = self.folder.join("helm");
        let mut command = Command::new(program);
        without_proxy(&mut command)
            .args(arguments)
            .env("PATH", env::join_paths(path).expect("no colon in them"))
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", self.folder.join("kubectl"))
            .env("KUBERC", "off")
            .env("HELM_CACHE_HOME", helm.join("cache"))
            .env("HELM_CONFIG_HOME", helm.join("config"))
            .env("HELM_DATA_HOME", helm.join("data"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let line = format!("{name} {}", arguments.join(" "));
        let input = input.to_owned();
        let ended = tokio::task::spawn_blocking(move || {
            let mut child = spawn(command, Lifetime::Tied)?;
            // A tool that doesn't want to hear it closes its end; what it says about that is in its output.
            let _ = child
                .stdin
                .take()
                .map(|mut stdin| stdin.write_all(input.as_bytes()));
            child.wait_with_output()
        });
        let output = ended
            .await
            .expect("no panic")
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        Output {
            command: line,
            success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
