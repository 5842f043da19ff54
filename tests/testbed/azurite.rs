//! Azurite, Microsoft's double of Azure Storage, as far as queues go: by HTTPS, and with the tokens of the dev vault's identities.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use azure_core::credentials::TokenCredential;
use azure_core::http::{ClientOptions, Transport};
use azure_identity::{ManagedIdentityCredential, ManagedIdentityCredentialOptions};
use azure_storage_queue::models::{QueueClientSendMessageOptions, QueueMessage};
use azure_storage_queue::{QueueClient, QueueClientOptions};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::certificates::{server, write_private};
use super::process::{Lifetime, Process};
use super::wait::within;
use super::{Result, ports};

/// The host of Azurite's own account. It takes the account's name from the host that it is asked under.
pub const HOST: &str = "devstoreaccount1.queue.core.windows.net";

const DEADLINE: Duration = Duration::from_secs(60);

/// A running Azurite; dropping it kills it.
#[derive(Debug)]
pub struct Azurite {
    pub address: SocketAddr,
    /// What clients are to trust.
    pub ca: PathBuf,
    _process: Process,
}

impl Azurite {
    /// Starts it on a free port, with its files in `folder`, and waits until it listens.
    pub async fn start(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (authority, certificate, key) = server(HOST)?;
        let [ca, certificate_file, key_file] =
            ["ca.pem", "server.pem", "server.key"].map(|name| folder.join(name));
        std::fs::write(&ca, authority)?;
        std::fs::write(&certificate_file, certificate)?;
        write_private(&key_file, &key)?;
        let program = installed().await?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()?));
        let mut command = Command::new("node");
        command
            .current_dir(folder)
            .arg(program)
            .args([
                "--queuePort",
                &address.port().to_string(),
                "--oauth",
                "basic",
            ])
            // The SDK asks for a later version of the API than this Azurite knows.
            .args([
                "--skipApiVersionCheck",
                "--inMemoryPersistence",
                "--disableTelemetry",
                "--silent",
            ])
            .arg("--cert")
            .arg(certificate_file)
            .arg("--key")
            .arg(key_file);
        let log = folder.join("azurite.log");
        let mut process = Process::start("azurite", command, &log, Lifetime::Tied)?;
        let listens = within(DEADLINE, "Azurite listens", async || {
            // Told as a success of the waiting, so that nobody waits for the dead.
            if let Some(status) = process.ended() {
                return Ok(Err(process.obituary(status)));
            }
            match tokio::net::TcpStream::connect(address).await {
                Ok(_) => Ok(Ok(())),
                Err(error) => Err(error.to_string()),
            }
        });
        listens.await??;
        Ok(Self {
            address,
            ca,
            _process: process,
        })
    }

    /// A queue as Event Grid has it: reached by its real name through `proxy`, with an identity of its own.
    pub fn queue(&self, proxy: &str, url: &str) -> Result<QueueClient> {
        let ca = std::fs::read(&self.ca)?;
        let http = reqwest::Client::builder()
            .proxy(reqwest::Proxy::all(proxy)?)
            .tls_certs_only([reqwest::Certificate::from_pem(&ca)?])
            .build()?;
        let client_options = ClientOptions {
            transport: Some(Transport::new(Arc::new(http))),
            ..Default::default()
        };
        let credential = ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
            client_options: client_options.clone(),
            ..Default::default()
        }));
        let credential: Arc<dyn TokenCredential> = credential?;
        let options = QueueClientOptions {
            client_options,
            ..Default::default()
        };
        Ok(QueueClient::new(
            url.parse()?,
            Some(credential),
            Some(options),
        )?)
    }
}

/// Puts a message into a queue, where nobody sees it for so many seconds.
pub async fn send(queue: &QueueClient, text: &str, hidden: i32) -> Result<()> {
    let message = QueueMessage {
        message_text: Some(text.to_owned()),
    };
    let options = QueueClientSendMessageOptions {
        visibility_timeout: Some(hidden),
        ..Default::default()
    };
    queue
        .send_message(message.try_into()?, Some(options))
        .await?;
    Ok(())
}

/// An event of a new version, in the Event Grid schema.
pub fn event(host: &str, secret: &str, version: &str) -> Value {
    json!({
        "id": "00eccf70-95a7-4e7c-8299-2eb17ee9ad64",
        "topic": "/subscriptions/s/resourceGroups/g/providers/Microsoft.KeyVault/vaults/v",
        "subject": secret,
        "eventType": "Microsoft.KeyVault.SecretNewVersionCreated",
        "eventTime": Timestamp::now().to_string(),
        "data": {
            "Id": format!("https://{host}/secrets/{secret}/{version}"),
            "ObjectType": "Secret",
            "ObjectName": secret,
            "Version": version,
        },
        "dataVersion": "1",
        "metadataVersion": "1",
    })
}

/// As Event Grid fills a queue.
pub fn encoded(event: &Value) -> String {
    STANDARD.encode(event.to_string())
}

/// Where its program lies; the first time, it is installed.
async fn installed() -> Result<PathBuf> {
    let install = || {
        Command::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/testbed/azurite.sh"
        ))
        .stderr(Stdio::inherit())
        .output()
    };
    let output = tokio::task::spawn_blocking(install).await??;
    if !output.status.success() {
        return Err(format!("tests/testbed/azurite.sh: {}", output.status).into());
    }
    let stdout = String::from_utf8(output.stdout)?;
    Ok(stdout.trim().into())
}
