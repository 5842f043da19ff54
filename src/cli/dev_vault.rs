//! `keytide dev-vault`

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::Result;
use crate::devvault::{self, Options, Seed};

#[derive(Debug, Args)]
pub struct DevVault {
    /// Loopback address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// YAML file of identities and vaults to start with
    #[arg(long)]
    seed: Option<PathBuf>,

    /// Where to write the CA certificate that clients are to trust (PEM)
    #[arg(long)]
    ca_out: Option<PathBuf>,
}

impl DevVault {
    pub fn execute(self) -> Result {
        // Standard output is for the line that scripts wait for.
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_env_filter(
                EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
            )
            .init();
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?
            .block_on(self.serve())
    }

    async fn serve(self) -> Result {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let seed = match &self.seed {
            None => Seed::default(),
            Some(path) => {
                let yaml = std::fs::read_to_string(path)
                    .map_err(|error| format!("--seed: can't read {}: {error}", path.display()))?;
                Seed::parse(&yaml)
                    .map_err(|error| format!("--seed: {}: {error}", path.display()))?
            }
        };
        let vault = devvault::DevVault::start(Options {
            listen: self.listen,
            seed,
            ..Options::default()
        })
        .await?;
        if let Some(path) = &self.ca_out {
            std::fs::write(path, vault.ca_pem())
                .map_err(|error| format!("--ca-out: can't write {}: {error}", path.display()))?;
        }
        let ready = serde_json::json!({
            "address": vault.address().to_string(),
            "proxy": vault.proxy(),
            "ca": self.ca_out,
        });
        let mut stdout = std::io::stdout();
        writeln!(stdout, "{ready}")?;
        stdout.flush()?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("the dev vault stops");
        Ok(())
    }
}
