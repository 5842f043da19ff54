//! A double of Azure DevOps: agent pools, agents, job requests, and the token endpoint of Entra.
//!
//! ```text
//! KEDA's scaler, the runner's entrypoint, the agent stub ──/ORGANIZATION/_apis/…──▶ ┌───────────────┐
//! a runner's workload identity ──/TENANT/oauth2/v2.0/token────────────────────────▶ │ organizations │
//! test ──/_control/ORGANIZATION or AzureDevOps's methods──────────────────────────▶ └───────────────┘
//! ```
//!
//! An organization is what stands before `/_apis` in a URL's path, so `contoso` and `tfs/DefaultCollection` are two. Each is
//! made by the first command for it. [`organization`] decides everything from values, time among them; [`server`] carries.
//!
//! Simpler than the original: agents sign in with a credential of their own that is no key, and messages aren't encrypted.

mod api;
mod command;
mod job;
mod organization;
mod server;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::Value as Json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Result;

pub use command::{Command, Outage};
pub use organization::{Access, Call, Organization};

/// The agent stub: a folder with the real agent's programs, as its package unpacks.
pub const AGENT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/testbed/azure_devops/agent"
);

/// A running double. It stops, and cuts its connections, when dropped.
pub struct AzureDevOps {
    address: SocketAddr,
    shared: Arc<Shared>,
    ca: Option<String>,
    _running: watch::Sender<()>,
}

#[derive(Default)]
struct Shared {
    organizations: Mutex<BTreeMap<String, Organization>>,
    /// Marked at every change, so that an agent that waits for a job looks again.
    changed: watch::Sender<()>,
}

impl Shared {
    /// Never hold this across an await.
    fn organizations(&self) -> MutexGuard<'_, BTreeMap<String, Organization>> {
        self.organizations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, organization: &str, command: Command) -> Result<Json, String> {
        let mut organizations = self.organizations();
        let organization = organizations.entry(organization.to_owned()).or_default();
        let answer = organization.run(command, Timestamp::now());
        self.changed.send_replace(());
        answer
    }
}

impl AzureDevOps {
    /// Plain HTTP on a free loopback port.
    pub async fn start() -> Result<Self> {
        Self::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false).await
    }

    /// `tls`: HTTPS, with a certificate of an authority of its own.
    pub async fn listen(address: SocketAddr, tls: bool) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| format!("can't listen on {address}: {error}"))?;
        let address = listener.local_addr()?;
        let (ca, acceptor) = if tls {
            let (ca, acceptor) = server::acceptor(address.ip())?;
            (Some(ca), Some(acceptor))
        } else {
            (None, None)
        };
        let shared = Arc::new(Shared::default());
        let (running, shutdown) = watch::channel(());
        tokio::spawn(server::serve(listener, acceptor, shared.clone(), shutdown));
        Ok(Self {
            address,
            shared,
            ca,
            _running: running,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Without a slash at its end: an organization's URL is this, a slash and its name.
    pub fn url(&self) -> String {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        let host = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        format!("{scheme}://{host}:{}", self.address.port())
    }

    /// The certificate that clients are to trust, if it speaks HTTPS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// Does what a user of the organization, or a test, wants done.
    pub fn run(&self, organization: &str, command: Command) -> Result<Json, String> {
        self.shared.run(organization, command)
    }

    /// Shows `look` an organization as it is now.
    pub fn look<T>(&self, organization: &str, look: impl FnOnce(&Organization) -> T) -> T {
        let mut organizations = self.shared.organizations();
        look(organizations.entry(organization.to_owned()).or_default())
    }
}

/// Serves until Ctrl-C, for `testbed azure-devops`; with a file for its certificate, HTTPS.
pub async fn stand(address: SocketAddr, ca_file: Option<PathBuf>) -> Result<()> {
    let double = AzureDevOps::listen(address, ca_file.is_some()).await?;
    if let (Some(file), Some(ca)) = (ca_file, double.ca_pem()) {
        std::fs::write(file, ca)?;
    }
    println!("{}", double.url());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
