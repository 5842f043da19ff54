//! Changes that Event Grid tells of: a queue at Azurite, and a daemon that follows it.

use tokio::time::Instant;

use super::finding::Latency;
use super::mirrors::{change_and_tell, latency, settle};
use super::sightings::Sightings;
use super::system::System;
use super::testbed::Result;
use super::testbed::azurite::{Azurite, HOST, encoded, event, send};
use super::testbed::daemon::Daemon;
use super::vault::Change;

/// Starts a daemon with hints where another one was, has this share of the objects change in an interval, and says how long
/// that took.
pub async fn hinted(
    system: &System,
    sightings: &Sightings,
    share: f64,
) -> Result<(Daemon, Latency)> {
    let azurite = Azurite::start(&system.folder("azurite")).await?;
    system.vault.forward(HOST, azurite.address).await?;
    let url = format!("https://{HOST}/hints");
    let queue = azurite.queue(&system.vault.proxy(), &url)?;
    queue.create(None).await?;
    let ca = azurite.ca.display().to_string();
    let arguments = ["--hints-queue", &url];
    let mut daemon = system.daemon_with(&arguments, &[("SSL_CERT_FILE", &ca)])?;
    daemon.wait_ready().await?;
    settle(system).await?;
    let tell = async |vault: &str, object: &str, change: &Change| {
        let event = event(&format!("{vault}.vault.azure.net"), object, &change.version);
        send(&queue, &encoded(&event), 0).await
    };
    let objects: Vec<_> = system.layout.objects().collect();
    let began = Instant::now();
    let changes = change_and_tell(system, began, &objects, share, 1, tell).await?;
    let latency = latency(system, sightings, &changes).await?;
    Ok((daemon, latency))
}
