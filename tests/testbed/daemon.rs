//! The daemon, as a process beside the cluster.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::process::{Lifetime, Process};
use super::wait::within;
use super::{Result, ports};

const DEADLINE: Duration = Duration::from_secs(60);

/// A daemon that was started here; dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    address: SocketAddr,
}

impl Daemon {
    /// Starts `program` with `arguments` and `--listen` with a free port. Its environment is `environment` and nothing
    /// else, so that no setting of the machine's decides what a test sees; its output goes to `log`.
    pub fn start(
        program: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
        log: &Path,
    ) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()?));
        let mut command = Command::new(program);
        command
            .args(arguments)
            .args(["--listen", &address.to_string()])
            .env_clear()
            .envs(environment.iter().copied());
        let process = Process::start("the daemon", command, log, Lifetime::Tied)?;
        Ok(Self { process, address })
    }

    /// Where it serves `/readyz`, `/healthz` and `/metrics`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of its process.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process.identity()?.pid)
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until it says that it is ready; the error is its last answer, or how it ended.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let address = self.address;
        let process = &mut self.process;
        let ready = within(DEADLINE, "the daemon is ready", async || {
            // Told as a success of the waiting, so that nobody waits for the dead.
            if let Some(status) = process.ended() {
                return Ok(Err(process.obituary(status)));
            }
            match get(address, "/readyz").await {
                Ok((200, _)) => Ok(Ok(())),
                Ok((status, body)) => Err(format!("{status}: {body}")),
                Err(error) => Err(error.to_string()),
            }
        });
        Ok(ready.await??)
    }

    /// Its answer to a GET: the status and the body.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        get(self.address, path).await
    }

    /// SIGKILL: as when a node is lost.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// SIGSTOP: as when its machine is frozen.
    pub fn pause(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// SIGCONT, after [`Daemon::pause`].
    pub fn resume(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// SIGTERM, as the kubelet sends it; gives the exit code.
    pub async fn terminate(&mut self) -> Result<i32> {
        if self.process.ended().is_none() {
            self.process.signal(Signal::TERM)?;
        }
        self.ended().await
    }

    /// Waits until it ends, and gives the exit code.
    pub async fn ended(&mut self) -> Result<i32> {
        let process = &mut self.process;
        let status = within(DEADLINE, "the daemon ends", async || {
            process.ended().ok_or_else(|| "it still runs".to_owned())
        })
        .await?;
        Ok(status.code().ok_or_else(|| self.process.obituary(status))?)
    }
}

/// An answer's status and body. HTTP/1.0, so that the body ends where the connection ends.
pub async fn get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or("no end of the headers")?;
    let status = head.split_whitespace().nth(1).ok_or("no status")?.parse()?;
    Ok((status, body.to_owned()))
}
