//! Rotation among many workloads: what one changed Secret costs the API server, and how long it takes until the workload that uses
//! it has a new Pod template.

pub mod bars;
mod crowd;
pub mod page;
mod templates;

use std::collections::BTreeMap;
use std::time::Duration;

use keytide::mirror::MIRRORED_LABEL;
use keytide::rotation::Policy;
use tokio::time::{Instant, sleep, sleep_until};

use self::crowd::{create, wait_for_baselines};
use self::templates::Templates;
use super::Bench;
use super::finding::{Finding, Latency, Rotation};
use super::layout::{Layout, Mirror, fresh_content};
use super::mirrors::{cold_start, settle};
use super::recorder::Recorder;
use super::scenario::{Setting, Survey};
use super::sightings::Sightings;
use super::system::System;
use super::testbed::Result;
use super::usage::Usage;
use super::vault::Change;

/// Changes of which each is made when the one before is over, to count what it takes.
const ALONE: usize = 3;
/// Then changes come one after another, so far apart that few workloads roll at once: what is measured is not how many may.
const APART: Duration = Duration::from_secs(2);
/// How long a change may take to the end of its rollout, beyond its interval and the settle time.
const PATIENCE: Duration = Duration::from_secs(60);
/// Requests by which a daemon stays the leader: they come by the clock.
const LEADING: &str = "leases";

/// Runs the scenario with so many workloads, of which `consumers` use a Secret of their own and have a Pod. The others share a Secret in
/// each namespace, which never changes, and have none.
pub async fn run(
    bench: &Bench,
    workloads: usize,
    consumers: usize,
    namespaces: usize,
    recorder: &mut Recorder,
) -> Result<()> {
    let setting = Setting {
        objects: consumers + namespaces,
        vaults: 1,
        namespaces,
        latency: Duration::from_millis(50),
        interval: Duration::from_secs(10),
        survey: Survey::Auto,
    };
    let layout = Layout::spread(setting.objects, setting.vaults, setting.namespaces);
    let system = bench.system(layout, setting).await?;
    create(&system, consumers, workloads).await?;
    recorder.say("the workloads are there");
    let sightings = Sightings::begin(system.client.clone(), MIRRORED_LABEL);
    let (daemon, _) = cold_start(&system, &sightings).await?;
    wait_for_baselines(&system, workloads).await?;
    recorder.say("all baselines are written");
    settle(&system).await?;

    let templates = Templates::begin(system.client.clone());
    let (alone, others) = system.layout.mirrors[..consumers].split_at(ALONE.min(consumers));
    let mut requests = Vec::with_capacity(alone.len());
    for mirror in alone {
        requests.push(requests_of_a_change(&system, &sightings, &templates, mirror).await?);
    }
    let latency = latency(&system, &sightings, &templates, others).await?;
    let usage = Usage::of(daemon.pid()?)?;
    recorder.found(Finding::Rotation(Rotation {
        workloads,
        consumers,
        namespaces,
        settle: Policy::default().settle.as_secs_f64(),
        requests,
        latency,
        restarts: templates.stamped(),
        resident: usage.resident,
        peak: usage.peak,
    }))
}

async fn change(system: &System, mirror: &Mirror) -> Result<Change> {
    let value = fresh_content(&mirror.object);
    system
        .vault
        .set(&mirror.vault, &mirror.object, &value)
        .await
}

fn deadline(system: &System) -> Duration {
    system.setting.interval * 3 + Policy::default().settle.unsigned_abs() + PATIENCE
}

/// What the API server is asked by the daemon from a change in the vault until nothing follows from it any more.
async fn requests_of_a_change(
    system: &System,
    sightings: &Sightings,
    templates: &Templates,
    mirror: &Mirror,
) -> Result<BTreeMap<String, u64>> {
    let audit = system.audit()?;
    let change = change(system, mirror).await?;
    let deadline = deadline(system);
    sightings.wait_for(&change.version, 1, deadline).await?;
    templates.wait_for_stamp(mirror, deadline).await?;
    templates.wait_for_rollout(mirror, deadline).await?;
    // The events, and what else there might be: that takes an interval and more.
    settle(system).await?;
    let mut requests = BTreeMap::<String, u64>::new();
    for request in audit.requests() {
        if request.about.resource != LEADING {
            *requests.entry(request.what()).or_default() += 1;
        }
    }
    Ok(requests)
}

/// How long it takes from each Secret to the new template.
async fn latency(
    system: &System,
    sightings: &Sightings,
    templates: &Templates,
    mirrors: &[Mirror],
) -> Result<Latency> {
    let mut changes = Vec::with_capacity(mirrors.len());
    let mut next = Instant::now();
    for mirror in mirrors {
        sleep_until(next).await;
        next += APART;
        changes.push((mirror, change(system, mirror).await?));
    }
    let deadline = deadline(system);
    let mut samples = Vec::with_capacity(changes.len());
    for (mirror, change) in &changes {
        let secret = sightings.wait_for(&change.version, 1, deadline).await?;
        let stamped = templates.wait_for_stamp(mirror, deadline).await?;
        samples.push((stamped - secret.first).as_secs_f64());
    }
    // A restart too many comes later.
    for mirror in mirrors {
        templates.wait_for_rollout(mirror, deadline).await?;
    }
    sleep(Policy::default().settle.unsigned_abs()).await;
    Ok(Latency::of(samples).ok_or("nothing was changed")?)
}
