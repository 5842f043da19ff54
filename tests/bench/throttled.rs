//! Two vaults, of which one throttles: how long changes of the other take then.

use std::time::Duration;

use keytide::mirror::MIRRORED_LABEL;
use tokio::time::Instant;

use super::Bench;
use super::finding::Finding;
use super::layout::{Layout, vault_name};
use super::mirrors::{change, cold_start, latency, settle};
use super::recorder::Recorder;
use super::scenario::{Setting, Survey};
use super::sightings::Sightings;
use super::testbed::Result;

/// Runs the scenario, with so many objects in each of the two vaults.
pub async fn run(
    bench: &Bench,
    objects: usize,
    share: f64,
    intervals: u32,
    recorder: &mut Recorder,
) -> Result<()> {
    let setting = Setting {
        objects: 2 * objects,
        vaults: 2,
        namespaces: objects / 10,
        latency: Duration::from_millis(50),
        interval: Duration::from_secs(10),
        survey: Survey::Auto,
    };
    let layout = Layout::spread(setting.objects, setting.vaults, setting.namespaces);
    let system = bench.system(layout, setting).await?;
    let sightings = Sightings::begin(system.client.clone(), MIRRORED_LABEL);
    let (_daemon, _) = cold_start(&system, &sightings).await?;
    let (troubled, calm) = (vault_name(0), vault_name(1));
    let objects_of = |name: &str| -> Vec<(&str, &str)> {
        let objects = system.layout.objects();
        objects.filter(|(vault, _)| *vault == name).collect()
    };
    let (troubled_objects, calm_objects) = (objects_of(&troubled), objects_of(&calm));
    // Both vaults always change, so that the one that throttles is wanted for more than its list.
    let both = async || {
        let now = Instant::now();
        tokio::try_join!(
            change(&system, now, &troubled_objects, share, intervals),
            change(&system, now, &calm_objects, share, intervals),
        )
    };

    settle(&system).await?;
    let (_, changes) = both().await?;
    let undisturbed = latency(&system, &sightings, &changes).await?;

    settle(&system).await?;
    system.vault.throttle(&troubled, setting.latency).await?;
    let (held_back, changes) = both().await?;
    let beside = latency(&system, &sightings, &changes).await?;
    system.vault.delay(&troubled, setting.latency).await?;
    let answers_again = Instant::now();
    latency(&system, &sightings, &held_back).await?;
    recorder.found(Finding::Throttled {
        setting,
        undisturbed,
        beside,
        recovery: answers_again.elapsed().as_secs_f64(),
    })
}
