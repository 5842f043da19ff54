//! Where the node runs: in namespaces of its own for mounts, network and processes. Whatever way the run ends, the kernel
//! then takes along every process, mount, interface and packet filter rule that there was in it. What namespaces don't
//! cover (cgroups, the scratch folder) is removed afterwards, and the whole machine is looked at before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::Play;
use crate::image;
use crate::testbed::Result;
use crate::testbed::process::{Identity, Lifetime, spawn};
use crate::testbed::real_node::{NODE_ADDRESS, SERVICE_ADDRESS};
use crate::testbed::scratch::Scratch;
use crate::testbed::wait::within;

/// Arguments of unshare(1), before the program to run.
pub const UNSHARE: &[&str] = &[
    "--mount",
    "--net",
    "--pid",
    "--fork",
    "--kill-child=KILL",
    "--mount-proc",
    "--propagation",
    "private",
    "--",
];

const CGROUPS: &str = "/sys/fs/cgroup";
const CGROUP_PREFIX: &str = "keytide-e2e-";

/// What the program inside must know.
#[derive(Args, Clone, Debug)]
pub struct Place {
    /// Folder for all that it writes
    #[arg(long)]
    pub folder: PathBuf,
    /// Cgroup that the containers are to be under
    #[arg(long)]
    pub cgroup: String,
    /// Archive of the daemon's image
    #[arg(long)]
    pub daemon_image: PathBuf,
    /// Archive of the workloads' image
    #[arg(long)]
    pub workload_image: PathBuf,
    /// Archive of the runners' image
    #[arg(long)]
    pub runner_image: Option<PathBuf>,
}

/// Builds the images, runs this program's `inside` in a sandbox, and sees to it that nothing is left.
pub async fn run(program: Option<&Path>, play: Play, more: &[String]) -> Result<ExitCode> {
    let before = Traces::seen();
    let scratch = Scratch::create(&std::env::temp_dir().join("keytide-e2e"))?;
    let folder = &scratch.folder;
    let daemon_image = image::build_daemon(program, folder)?;
    let workload_image = image::build_workload(folder)?;
    let cgroup = Cgroup::create()?;
    let mut command = Command::new("unshare");
    command
        .args(UNSHARE)
        // The first process collects orphans, which bash does and this program doesn't.
        .args(["/bin/bash", "-c", "\"$@\" & wait $!", "init"])
        .arg(std::env::current_exe()?)
        .args(["inside", "--cgroup", &cgroup.name, "--folder"])
        .arg(folder)
        .arg("--daemon-image")
        .arg(daemon_image)
        .arg("--workload-image")
        .arg(workload_image)
        .args(
            play.to_possible_value()
                .map(|play| format!("--play={}", play.get_name())),
        )
        .args(more);
    if play == Play::Keda {
        command
            .arg("--runner-image")
            .arg(image::build_runner(folder)?);
    }
    let code = until_done_or_interrupted(command).await;
    cgroup.remove().await?;
    // What is kept is logs; the images' layers are large.
    for large in [
        "containerd",
        "etcd",
        "daemon-image",
        "workload-image",
        "runner-image",
    ] {
        let large = folder.join(large);
        if large.exists() {
            fs::remove_dir_all(large)?;
        }
    }
    let left = Traces::seen().beyond(&before);
    if left.is_empty() {
        println!(
            "e2e: nothing is left behind: no process, mount, interface, packet filter rule or cgroup"
        );
        return code;
    }
    Err(format!("left behind: {}", left.join("; ")).into())
}

/// Runs the sandbox; Ctrl-C and SIGTERM end it, and then this program in order.
async fn until_done_or_interrupted(command: Command) -> Result<ExitCode> {
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let mut child = spawn(command, Lifetime::Tied)?;
    let identity = Identity::of(child.id());
    let ended = tokio::task::spawn_blocking(move || child.wait());
    let interrupted = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::pin!(ended);
    tokio::select! {
        status = &mut ended => {
            let code = status??.code().and_then(|code| u8::try_from(code).ok());
            Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
        }
        () = interrupted => {
            if let Some(identity) = identity {
                identity.kill()?;
            }
            ended.await??;
            Err("interrupted".into())
        }
    }
}

/// Makes the sandbox a machine, from the inside: addresses, and empty folders in place of the machine's own.
pub fn settle_in() -> Result<()> {
    let addresses = [SERVICE_ADDRESS, NODE_ADDRESS].map(|address| format!("{address}/32"));
    let mut commands = vec![vec!["ip", "link", "set", "lo", "up"]];
    for address in &addresses {
        commands.push(vec!["ip", "address", "add", address, "dev", "lo"]);
    }
    for folder in ["/run", "/var/log", "/var/lib"] {
        commands.push(vec!["mount", "-t", "tmpfs", "e2e", folder]);
    }
    for command in commands {
        let status = Command::new(command[0]).args(&command[1..]).status()?;
        if !status.success() {
            return Err(format!("{}: {status}", command.join(" ")).into());
        }
    }
    Ok(())
}

/// A cgroup in every hierarchy, for all containers.
struct Cgroup {
    name: String,
}

impl Cgroup {
    fn create() -> Result<Self> {
        let name = format!("{CGROUP_PREFIX}{}", std::process::id());
        for hierarchy in hierarchies() {
            remove_leftovers(&hierarchy)?;
            let cgroup = hierarchy.join(&name);
            fs::create_dir(&cgroup)?;
            // In version 1, a new cpuset is empty and takes no process; in version 2, it inherits.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let inherited = hierarchy.join(file);
                if inherited.exists() {
                    fs::write(cgroup.join(file), fs::read(inherited)?)?;
                }
            }
        }
        let all = Path::new(CGROUPS).join("cgroup.subtree_control");
        if all.exists() {
            for controller in ["cpuset", "cpu", "io", "memory", "pids", "hugetlb"] {
                // One that the kernel lacks is one that the kubelet does without.
                let _ = fs::write(&all, format!("+{controller}"));
            }
        }
        Ok(Self { name })
    }

    /// Processes that were just killed may still be on their way out.
    async fn remove(self) -> Result<()> {
        let removed = within(
            Duration::from_secs(30),
            "the cgroups are gone",
            async || {
                for hierarchy in hierarchies() {
                    let cgroup = hierarchy.join(&self.name);
                    if cgroup.exists() {
                        remove_cgroups(&cgroup).map_err(|error| error.to_string())?;
                    }
                }
                Ok(())
            },
        );
        Ok(removed.await?)
    }
}

/// Removes the cgroups of runs that were killed: nobody could remove those then, though nothing is in them.
fn remove_leftovers(hierarchy: &Path) -> Result<()> {
    for name in names_in(hierarchy) {
        let run = name.strip_prefix(CGROUP_PREFIX);
        let killed = run
            .and_then(|pid| pid.parse().ok())
            .is_some_and(|pid| Identity::of(pid).is_none());
        if killed {
            remove_cgroups(&hierarchy.join(&name))?;
        }
    }
    Ok(())
}

/// Removes the innermost first: a cgroup with others in it can't be removed, nor can its files.
fn remove_cgroups(cgroup: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_cgroups(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

/// The hierarchies: one in cgroup version 2, one for each controller in version 1.
fn hierarchies() -> Vec<PathBuf> {
    let root = PathBuf::from(CGROUPS);
    if root.join("cgroup.controllers").exists() {
        return vec![root];
    }
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries
        // Some controllers have a second name, which is a link.
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .filter(|path| path.join("cgroup.procs").exists())
        .collect()
}

/// What a node could leave on a machine.
struct Traces(BTreeSet<String>);

impl Traces {
    fn seen() -> Self {
        let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let read = |path| lines(fs::read_to_string(path).unwrap_or_default());
        let mounts = read("/proc/self/mounts")
            .into_iter()
            .map(|line| format!("mount {line}"));
        let interfaces = names_in(Path::new("/sys/class/net"))
            .into_iter()
            .map(|name| format!("interface {name}"));
        let rules = Command::new("iptables-save").output();
        let rules = rules.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let rules = lines(rules.unwrap_or_default())
            .into_iter()
            .filter(|line| line.starts_with('-'))
            .map(|line| format!("packet filter rule {line}"));
        let cgroups = hierarchies().into_iter().flat_map(|hierarchy| {
            let names = names_in(&hierarchy);
            let ours = names
                .into_iter()
                .filter(|name| name.starts_with(CGROUP_PREFIX));
            ours.map(move |name| format!("cgroup {}/{name}", hierarchy.display()))
                .collect::<Vec<_>>()
        });
        let folders = [
            "/run/containerd",
            "/var/lib/cni",
            "/var/log/pods",
            "/run/netns",
        ];
        let folders = folders.into_iter().flat_map(|folder| {
            let names = names_in(Path::new(folder));
            names
                .into_iter()
                .map(move |name| format!("file {folder}/{name}"))
        });
        Self(
            mounts
                .chain(interfaces)
                .chain(rules)
                .chain(cgroups)
                .chain(folders)
                .chain(processes())
                .collect(),
        )
    }

    /// What is here that was not there.
    fn beyond(self, before: &Self) -> Vec<String> {
        self.0.difference(&before.0).cloned().collect()
    }
}

/// What runs in a sandbox: it sees other processes than we do. Of other sandboxes, programs that a node doesn't have are
/// nobody's business here.
fn processes() -> impl Iterator<Item = String> {
    const OURS: [&str; 9] = [
        "bash",
        "containerd",
        "e2e",
        "etcd",
        "keda",
        "keytide",
        "kube",
        "runc",
        "sh",
    ];
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace("self");
    names_in(Path::new("/proc"))
        .into_iter()
        .filter_map(move |pid| {
            let identity = Identity::of(pid.parse().ok()?)?;
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            let sandboxed = namespace(&pid).is_some_and(|theirs| Some(theirs) != own);
            let ours = OURS.iter().any(|ours| name.starts_with(ours));
            (sandboxed && ours).then(|| format!("process {} {identity:?}", name.trim()))
        })
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
