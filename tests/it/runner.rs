//! The runner's entrypoint on this machine, with the agent stub, against the double of Azure DevOps: no container, no root.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::time::Duration;

use rustix::process::Signal;

use crate::testbed::azure_devops::{AGENT, AzureDevOps, Command, Organization};
use crate::testbed::eventually;
use crate::testbed::process::{Identity, Lifetime, Process};

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(90);

const ENTRYPOINT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/runner/entrypoint.sh");

pub const ORGANIZATION: &str = "contoso";
pub const POOL: &str = "linux";
pub const TOKEN: &str = "canary-of-the-first-token";

/// A double with one pool and one token, by which agents can be registered.
pub async fn azure_devops() -> AzureDevOps {
    let double = AzureDevOps::start().await.expect("a double");
    set_up(&double, ORGANIZATION);
    double
}

pub fn set_up(double: &AzureDevOps, organization: &str) {
    add_pool(double, organization, POOL, 7);
    set_token(double, organization, TOKEN, "manage");
}

pub fn add_pool(double: &AzureDevOps, organization: &str, name: &str, id: u64) {
    let name = name.to_owned();
    double
        .run(organization, Command::AddPool { name, id: Some(id) })
        .expect("a pool");
}

pub fn set_token(double: &AzureDevOps, organization: &str, token: &str, access: &str) {
    let access = serde_json::from_str(&format!("{access:?}")).expect("an access");
    let token = token.to_owned();
    double
        .run(organization, Command::SetToken { token, access })
        .expect("a token");
}

/// What an entrypoint is started with.
pub struct Setup {
    folder: tempfile::TempDir,
    environment: BTreeMap<String, String>,
}

impl Setup {
    /// With the token in a file, as the chart mounts it.
    pub fn new(double: &AzureDevOps) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        copy(Path::new(AGENT), &folder.path().join("agent"));
        let path = std::env::var("PATH").expect("a PATH");
        let setup = Self {
            folder,
            environment: BTreeMap::new(),
        };
        let home = setup.path("agent").display().to_string();
        let temporary = setup.path("tmp");
        fs::create_dir(&temporary).expect("a folder");
        setup
            .set("PATH", &path)
            .set("HOME", &home)
            .set("TMPDIR", &temporary.display().to_string())
            .set("AGENT_ALLOW_RUNASROOT", "1")
            .set("AZP_AGENT_HOME", &home)
            .set("AZP_AGENT_NAME", "runner-1")
            .set("AZP_POOL", POOL)
            .set("AZP_URL", &format!("{}/{ORGANIZATION}", double.url()))
            .set("AZP_DRAIN_INTERVAL_SECONDS", "1")
            .set("AZP_RETRY_SECONDS", "60")
            .token_file(TOKEN)
    }

    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.into(), value.into());
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Writes a file, and names it in a variable.
    pub fn file(self, variable: &str, content: &str) -> Self {
        let path = self.path(variable);
        fs::write(&path, content).expect("written");
        let path = path.display().to_string();
        self.set(variable, &path)
    }

    pub fn token_file(self, token: &str) -> Self {
        self.file("AZP_TOKEN_FILE", token)
    }

    /// Puts a program before all others.
    pub fn program(self, name: &str, script: &str) -> Self {
        let folder = self.path("bin");
        fs::create_dir_all(&folder).expect("a folder");
        let program = folder.join(name);
        fs::write(&program, script).expect("written");
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("executable");
        let path = format!("{}:{}", folder.display(), self.environment["PATH"]);
        self.set("PATH", &path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn start(self) -> Runner {
        let mut program = Program::new(ENTRYPOINT);
        program
            .env_clear()
            .envs(&self.environment)
            .current_dir(self.folder.path());
        let log = self.path("log");
        let process =
            Process::start("the entrypoint", program, &log, Lifetime::Tied).expect("an entrypoint");
        Runner {
            process,
            setup: self,
        }
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the agent stub") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

pub struct Runner {
    process: Process,
    setup: Setup,
}

impl Runner {
    /// SIGTERM, to the entrypoint alone: that is what a container runtime does.
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM).expect("signalled");
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// A file of its folder.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.setup.path(name)).expect("readable")
    }

    /// SIGKILL for the agent, and not for its entrypoint.
    pub fn kill_agent(&self) {
        for pid in self.processes() {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if let ("Agent.Listener", Some(identity)) = (name.trim(), Identity::of(pid)) {
                identity.kill().expect("killed");
            }
        }
    }

    /// Replaces the mounted token, as kubelet does: at once.
    pub fn rotate(&self, token: &str) {
        let next = self.setup.path("next-token");
        fs::write(&next, token).expect("written");
        fs::rename(next, self.setup.path("AZP_TOKEN_FILE")).expect("renamed");
    }

    pub async fn logged(&self, text: &str) {
        eventually(DEADLINE, text, async || {
            let log = self.log();
            log.contains(text).then_some(()).ok_or(log)
        })
        .await;
    }

    /// The exit code.
    pub async fn ended(&mut self) -> i32 {
        let mut status = None;
        eventually(DEADLINE, "the entrypoint ends", async || {
            status = self.process.ended();
            status.ok_or_else(|| self.process.log())
        })
        .await
        .code()
        .unwrap_or_else(|| panic!("no exit code: {}", self.log()))
    }

    pub fn is_running(&mut self) -> bool {
        self.process.ended().is_none()
    }

    /// Everything that the entrypoint started and that still runs, as process numbers: they all work in its folder.
    fn processes(&self) -> Vec<u32> {
        let numbers = fs::read_dir("/proc").expect("/proc");
        numbers
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                fs::read_link(format!("/proc/{pid}/cwd"))
                    .is_ok_and(|folder| folder.starts_with(self.setup.folder.path()))
            })
            .collect()
    }

    /// Waits until nothing runs any more that the entrypoint started: what it kills goes a moment later than it.
    pub async fn gone(&self) {
        eventually(DEADLINE, "nothing is left", async || {
            let left = self.exposed();
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        })
        .await;
    }

    /// The command lines and environments that others of the same user can read.
    pub fn exposed(&self) -> Vec<(String, String)> {
        let read = |path: String| {
            let bytes = fs::read(path).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', "\n")
        };
        self.processes()
            .into_iter()
            .map(|pid| {
                (
                    read(format!("/proc/{pid}/cmdline")),
                    read(format!("/proc/{pid}/environ")),
                )
            })
            .collect()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.process.kill();
        // The agent is in a session of its own, and so outlives the entrypoint.
        for pid in self.processes() {
            if let Some(identity) = Identity::of(pid) {
                let _ = identity.kill();
            }
        }
    }
}

/// Waits until the organization is as `attempt` wants it.
pub async fn until<T>(
    double: &AzureDevOps,
    what: &str,
    mut attempt: impl FnMut(&Organization) -> Option<T>,
) -> T {
    eventually(DEADLINE, what, async || {
        double.look(ORGANIZATION, |organization| {
            attempt(organization).ok_or_else(|| format!("{organization:#?}"))
        })
    })
    .await
}

/// Waits until the agent of this name takes jobs.
pub async fn until_online(double: &AzureDevOps, pool: &str, agent: &str) {
    until(double, "the agent is online", |organization| {
        let agents = organization.agents(pool);
        agents.get(agent)?.session.as_ref().map(|_| ())
    })
    .await;
}

pub fn queue(double: &AzureDevOps, count: u32) {
    let command = Command::QueueJobs {
        pool: 7,
        count,
        seconds: None,
        demands: Vec::new(),
    };
    double.run(ORGANIZATION, command).expect("queued");
}

pub fn finish_jobs(double: &AzureDevOps) {
    double
        .run(ORGANIZATION, Command::FinishJobs { pool: 7 })
        .expect("finishing");
}

/// Waits until so many jobs run.
pub async fn until_running(double: &AzureDevOps, count: usize) {
    until(double, "jobs run", |organization| {
        let running = organization
            .jobs()
            .filter(|job| job.received.is_some() && job.is_unfinished());
        (running.count() == count).then_some(())
    })
    .await;
}

/// The results of all jobs, in the order in which they were queued; `queued` or `running` for those that have none.
pub fn results(double: &AzureDevOps) -> Vec<String> {
    double.look(ORGANIZATION, |organization| {
        organization
            .jobs()
            .map(|job| match (&job.result, job.agent.is_some()) {
                (Some(result), _) => result.clone(),
                (None, true) => "running".to_owned(),
                (None, false) => "queued".to_owned(),
            })
            .collect()
    })
}

pub fn agent_names(double: &AzureDevOps, pool: &str) -> Vec<String> {
    double.look(ORGANIZATION, |organization| {
        organization
            .agents(pool)
            .into_keys()
            .map(str::to_owned)
            .collect()
    })
}
