//! Processes that don't outlive us, and processes that are meant to.
//!
//! A *tied* process is killed by the kernel (`PR_SET_PDEATHSIG`) when the thread that forked it ends. All of them are
//! therefore forked by one thread that does nothing else and lives as long as the program: however the program goes,
//! be it a return from `main`, a panic, Ctrl-C or SIGKILL, they go with it. Destructors alone wouldn't do: Rust drops
//! no statics, and SIGKILL runs nothing.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{LazyLock, Mutex};
use std::thread;

use rustix::process::{
    Pid, PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal, setsid,
};
use serde::{Deserialize, Serialize};

use super::Result;

/// Whether a process goes when the program that started it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    Tied,
    /// In a session of its own, so that neither a closed terminal nor its Ctrl-C ends it.
    Detached,
}

/// A process that was started here. Dropping it kills it, unless it is detached.
#[derive(Debug)]
pub struct Process {
    pub name: String,
    lifetime: Lifetime,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `log`.
    pub fn start(name: &str, mut command: Command, log: &Path, lifetime: Lifetime) -> Result<Self> {
        let output = File::create(log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = spawn(command, lifetime).map_err(|error| format!("{name}: {error}"))?;
        Ok(Self {
            name: name.into(),
            lifetime,
            child,
            log: log.into(),
        })
    }

    /// Who this process is, for whoever must stop it later.
    pub fn identity(&self) -> Result<Identity> {
        let identity = Identity::of(self.child.id());
        Ok(identity.ok_or_else(|| format!("{}: gone already", self.name))?)
    }

    /// The exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        // Not reaped yet, since that takes `&mut self`: so the number can't belong to another process.
        let pid = Pid::from_child(&self.child);
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        // An error means that it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// All that it has written.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// How it ended, and the end of its log: what someone needs who didn't expect that.
    pub fn obituary(&self, status: ExitStatus) -> String {
        const LINES: usize = 25;
        let end = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, signal) => format!("signal {}", signal.unwrap_or_default()),
        };
        let log = self.log();
        let mut tail: Vec<&str> = log.lines().rev().take(LINES).collect();
        tail.reverse();
        format!(
            "{} ended with {end}; {} ends:\n{}",
            self.name,
            self.log.display(),
            tail.join("\n")
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Tied {
            self.kill();
        }
    }
}

/// A process as the kernel tells it from every other since the machine's start: its number alone is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: u32,
    /// In clock ticks since the machine's start.
    start_time: u64,
}

impl Identity {
    /// `None` if there is no such process, or only the entry that its parent hasn't collected yet.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name, in parentheses, and can itself hold spaces and parentheses.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        // proc_pid_stat(5): the state is field 3, the start time field 22.
        let start_time = fields.nth(22 - 4)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, start_time })
    }

    pub fn is_running(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// SIGKILL, if it is still this process. The descriptor is opened before the look at the start time, so that a
    /// number that is used again in between is never hit.
    pub fn kill(&self) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let Ok(descriptor) = pidfd_open(pid.ok_or("no process number")?, PidfdFlags::empty())
        else {
            return Ok(());
        };
        if self.is_running() {
            pidfd_send_signal(&descriptor, Signal::KILL)?;
        }
        Ok(())
    }
}

/// Which start of the machine this is: start times of processes count from it.
pub fn boot_id() -> Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

/// Takes away what would lead requests to loopback through a proxy.
pub fn without_proxy(command: &mut Command) -> &mut Command {
    for name in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    command
}

struct Order {
    command: Command,
    lifetime: Lifetime,
    answer: Sender<io::Result<Child>>,
}

/// Has the one long-lived thread fork, for the reason that the module gives.
pub fn spawn(command: Command, lifetime: Lifetime) -> io::Result<Child> {
    static PARENT: LazyLock<Mutex<Sender<Order>>> = LazyLock::new(|| {
        let (orders, inbox) = channel::<Order>();
        thread::spawn(move || {
            for order in inbox {
                let child = fork(order.command, order.lifetime);
                // Whoever asked is waiting below.
                let _ = order.answer.send(child);
            }
        });
        Mutex::new(orders)
    });
    let (answer, child) = channel();
    let order = Order {
        command,
        lifetime,
        answer,
    };
    PARENT
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .send(order)
        .map_err(io::Error::other)?;
    child.recv().map_err(io::Error::other)?
}

fn fork(mut command: Command, lifetime: Lifetime) -> io::Result<Child> {
    let us = Pid::from_raw(std::process::id().cast_signed());
    let before_exec = move || {
        match lifetime {
            Lifetime::Detached => {
                setsid()?;
            }
            Lifetime::Tied => {
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // The parent may have died before the line above.
                if getppid() != us {
                    return Err(io::Error::from(io::ErrorKind::Interrupted));
                }
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made: nothing allocates and no lock is taken.
    unsafe { command.pre_exec(before_exec) }.spawn()
}
