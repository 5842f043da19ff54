//! The dev vault, in a process of its own, and what the benchmark tells and asks it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Sub;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use keytide::devvault::IMDS_HOST;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::layout::Layout;
use super::testbed::Result;
use super::testbed::process::{Lifetime, Process};
use super::testbed::wait::within;

const DEADLINE: Duration = Duration::from_secs(60);

/// A running dev vault. Dropping it ends it.
pub struct Vault {
    _process: Process,
    address: SocketAddr,
    ca: PathBuf,
    http: reqwest::Client,
}

/// Requests to all vaults that were let in, and to IMDS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Requests {
    pub get: u64,
    pub list: u64,
    pub token: u64,
}

impl Requests {
    pub fn total(&self) -> u64 {
        self.get + self.list + self.token
    }
}

impl Sub for Requests {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            get: self.get - before.get,
            list: self.list - before.list,
            token: self.token - before.token,
        }
    }
}

/// A change that the vault has taken.
#[derive(Clone, Debug)]
pub struct Change {
    pub version: String,
    /// Not later than the vault took it.
    pub at: Instant,
    /// In seconds since 1970, as the vault shows it.
    pub updated: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    operations: BTreeMap<String, BTreeMap<String, u64>>,
    secret_gets: BTreeMap<String, BTreeMap<String, u64>>,
}

#[derive(Deserialize)]
struct Ready {
    address: SocketAddr,
}

#[derive(Deserialize)]
struct Written {
    version: String,
    updated: i64,
}

impl Vault {
    /// Starts `program` with the layout's vaults, and its files in `folder`.
    pub async fn start(program: &Path, layout: &Layout, folder: &Path) -> Result<Self> {
        let [seed, ca, log] =
            ["seed.json", "ca.pem", "log"].map(|name| folder.join(format!("dev-vault-{name}")));
        std::fs::write(&seed, layout.seed().to_string())?;
        let mut command = Command::new(program);
        command
            .args(["dev-vault", "--seed"])
            .arg(&seed)
            .arg("--ca-out")
            .arg(&ca)
            .env("RUST_LOG", "warn");
        let mut process = Process::start("the dev vault", command, &log, Lifetime::Tied)?;
        let ready = within(DEADLINE, "the dev vault listens", async || {
            if let Some(status) = process.ended() {
                return Ok(Err(process.obituary(status)));
            }
            let log = process.log();
            let mut lines = log.lines();
            let ready = lines.find_map(|line| serde_json::from_str::<Ready>(line).ok());
            ready.map(Ok).ok_or_else(|| "no address yet".to_owned())
        });
        let address = ready.await??.address;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self {
            _process: process,
            address,
            ca,
            http,
        })
    }

    /// For `HTTPS_PROXY` and `HTTP_PROXY`.
    pub fn proxy(&self) -> String {
        format!("http://{}", self.address)
    }

    /// File with the certificate that clients are to trust.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// Gives a secret a new version.
    pub async fn set(&self, vault: &str, secret: &str, value: &str) -> Result<Change> {
        let at = Instant::now();
        let path = format!("vaults/{vault}/secrets/{secret}");
        let answer = self
            .control(Method::PUT, &path, Some(json!({"value": value})))
            .await?;
        let Written { version, updated } = serde_json::from_slice(&answer)?;
        Ok(Change {
            version,
            at,
            updated,
        })
    }

    /// Has every answer of a vault wait for so long.
    pub async fn delay(&self, vault: &str, latency: Duration) -> Result<()> {
        let milliseconds = u64::try_from(latency.as_millis())?;
        let faults = match milliseconds {
            0 => json!([]),
            _ => json!([{"delayMs": milliseconds}]),
        };
        self.set_faults(vault, faults).await
    }

    /// Has a vault refuse every request with 429, after so long.
    pub async fn throttle(&self, vault: &str, latency: Duration) -> Result<()> {
        let milliseconds = u64::try_from(latency.as_millis())?;
        let faults = json!([{"status": 429, "retryAfter": 1, "delayMs": milliseconds}]);
        self.set_faults(vault, faults).await
    }

    /// Has tunnels to a host lead to an address.
    pub async fn forward(&self, host: &str, address: SocketAddr) -> Result<()> {
        let body = json!({"address": address.to_string()});
        let path = format!("forwards/{host}");
        self.control(Method::PUT, &path, Some(body)).await?;
        Ok(())
    }

    async fn set_faults(&self, vault: &str, faults: Value) -> Result<()> {
        let path = format!("vaults/{vault}/faults");
        self.control(Method::PUT, &path, Some(faults)).await?;
        Ok(())
    }

    /// What was asked since the start.
    pub async fn requests(&self) -> Result<Requests> {
        let counts = self.counts().await?;
        let mut requests = Requests::default();
        for (host, operations) in counts.operations {
            let of = |kind: &str| operations.get(kind).copied().unwrap_or_default();
            if host == IMDS_HOST {
                requests.token += of("token");
            } else {
                requests.get += of("get");
                requests.list += of("list");
            }
        }
        Ok(requests)
    }

    /// How often a secret of any vault was read.
    pub async fn gets_of(&self, secret: &str) -> Result<u64> {
        let counts = self.counts().await?;
        let of = |secrets: &BTreeMap<String, u64>| secrets.get(secret).copied();
        Ok(counts.secret_gets.values().filter_map(of).sum())
    }

    async fn counts(&self) -> Result<Counts> {
        let answer = self.control(Method::GET, "requests", None).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    async fn control(&self, method: Method, path: &str, body: Option<Value>) -> Result<Vec<u8>> {
        let url = format!("http://{}/control/{path}", self.address);
        let mut request = self.http.request(method, url);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        if !status.is_success() {
            let said = String::from_utf8_lossy(&body);
            return Err(format!("the dev vault answers {path} with {status}: {said}").into());
        }
        Ok(body.into())
    }
}
