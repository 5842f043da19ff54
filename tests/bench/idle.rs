//! A daemon without mirrors: what it takes to be there.

use std::time::Duration;

use tokio::time::sleep;

use super::Bench;
use super::finding::Finding;
use super::layout::Layout;
use super::meter::Reading;
use super::recorder::Recorder;
use super::scenario::{Setting, Survey};
use super::testbed::Result;

/// Long enough for all that follows a start.
const TIME: Duration = Duration::from_secs(15);

/// Runs the scenario.
pub async fn run(bench: &Bench, recorder: &mut Recorder) -> Result<()> {
    let setting = Setting {
        objects: 0,
        vaults: 0,
        namespaces: 0,
        latency: Duration::ZERO,
        interval: TIME,
        survey: Survey::Auto,
    };
    let system = bench.system(Layout::default(), setting).await?;
    let before = Reading::before(&system).await?;
    let mut daemon = system.daemon()?;
    daemon.wait_ready().await?;
    sleep(TIME).await;
    let costs = Reading::of(&system, &daemon).await?.since(&before)?;
    recorder.found(Finding::Idle {
        resident: costs.resident,
        peak: costs.peak,
    })
}
