//! A cold start, and what follows with the same daemon: nothing changes, some changes, a restart.

use std::time::Duration;

use keytide::mirror::MIRRORED_LABEL;
use tokio::time::{Instant, sleep, sleep_until};

use super::Bench;
use super::api_server::Asked;
use super::bare;
use super::finding::{Costs, Finding, Latency};
use super::hinted::hinted;
use super::layout::{Layout, fresh_content};
use super::meter::Reading;
use super::recorder::Recorder;
use super::scenario::{Phase, Setting, Survey};
use super::sightings::Sightings;
use super::system::System;
use super::testbed::Result;
use super::testbed::daemon::Daemon;
use super::testbed::wait::within;
use super::vault::Change;

/// How often all objects are read however still they are: the daemon's default.
const FULL_SWEEP: Duration = Duration::from_secs(24 * 3600);

/// How long a daemon has to come to rest: an object that has changed is read again once.
const INTERVALS_TO_REST: u32 = 5;

/// Beyond what the number of mirrors takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the scenario.
pub async fn run(
    bench: &Bench,
    setting: Setting,
    with_bare: bool,
    phases: &[Phase],
    recorder: &mut Recorder,
) -> Result<()> {
    let layout = Layout::spread(setting.objects, setting.vaults, setting.namespaces);
    let system = bench.system(layout, setting).await?;
    let before = if with_bare {
        Some(bare::rate(&system, "before").await?)
    } else {
        None
    };
    let sightings = Sightings::begin(system.client.clone(), MIRRORED_LABEL);
    let (mut daemon, costs) = cold_start(&system, &sightings).await?;
    let bare = match before {
        Some(before) => Some([before, bare::rate(&system, "after").await?]),
        None => None,
    };
    let mirrors_per_second = setting.objects as f64 / costs.seconds;
    recorder.found(Finding::ColdStart {
        setting,
        costs,
        mirrors_per_second,
        bare,
    })?;
    for phase in phases {
        let finding = match *phase {
            Phase::Steady { intervals } => steady(&system, &daemon, intervals).await?,
            Phase::Changing { share, intervals } => {
                changing(&system, &daemon, &sightings, share, intervals).await?
            }
            Phase::Hinted { share } => {
                // Or the next one would wait for the Lease, and be measured while it does.
                daemon.terminate().await?;
                let latency;
                (daemon, latency) = hinted(&system, &sightings, share).await?;
                Finding::Hinted { setting, latency }
            }
            Phase::Restart => {
                daemon.kill();
                let finding;
                (daemon, finding) = restart(&system).await?;
                finding
            }
        };
        recorder.found(finding)?;
    }
    Ok(())
}

async fn steady(system: &System, daemon: &Daemon, intervals: u32) -> Result<Finding> {
    let setting = system.setting;
    settle(system).await?;
    between_surveys(system).await?;
    let before = Reading::of(system, daemon).await?;
    sleep_until(before.at() + setting.interval * intervals).await;
    let costs = Reading::of(system, daemon).await?.since(&before)?;
    Ok(Finding::Steady { setting, costs })
}

async fn changing(
    system: &System,
    daemon: &Daemon,
    sightings: &Sightings,
    share: f64,
    intervals: u32,
) -> Result<Finding> {
    let objects: Vec<_> = system.layout.objects().collect();
    settle(system).await?;
    between_surveys(system).await?;
    let before = Reading::of(system, daemon).await?;
    let changes = change(system, before.at(), &objects, share, intervals).await?;
    let costs = Reading::of(system, daemon).await?.since(&before)?;
    Ok(Finding::Changing {
        setting: system.setting,
        costs,
        share,
        latency: latency(system, sightings, &changes).await?,
    })
}

async fn restart(system: &System) -> Result<(Daemon, Finding)> {
    let setting = system.setting;
    let before = Reading::before(system).await?;
    let mut daemon = system.daemon()?;
    daemon.wait_ready().await?;
    sleep(setting.interval).await;
    let costs = Reading::of(system, &daemon).await?.since(&before)?;
    Ok((daemon, Finding::Restart { setting, costs }))
}

/// Starts a daemon where no mirror has a target yet, and waits until all are written and every status says so.
pub async fn cold_start(system: &System, sightings: &Sightings) -> Result<(Daemon, Costs)> {
    let mirrors = system.layout.mirrors.len();
    // Ten a second is a tenth of what would be slow.
    let deadline = PATIENCE + Duration::from_millis(100) * u32::try_from(mirrors)?;
    let before = Reading::before(system).await?;
    let mut daemon = system.daemon()?;
    daemon.wait_ready().await?;
    sightings.wait_for_secrets(mirrors, deadline).await?;
    within(deadline, "all statuses are written", async || {
        let asked = Asked::until_now(&system.client).await;
        let asked = asked.map_err(|error| error.to_string())?;
        match asked.since(before.asked()).statuses() {
            written if written >= mirrors as u64 => Ok(()),
            written => Err(format!("{written} are")),
        }
    })
    .await?;
    let after = Reading::of(system, &daemon).await?;
    Ok((daemon, after.since(&before)?))
}

/// Waits for an interval in which nothing is read but what the sweep reads; not for ever, since a daemon that never comes to
/// rest is to be measured too.
pub async fn settle(system: &System) -> Result<()> {
    let Setting {
        interval, survey, ..
    } = system.setting;
    if survey == Survey::Never {
        sleep(interval).await;
        return Ok(());
    }
    let objects = system.layout.objects().count();
    let swept = objects as f64 * interval.as_secs_f64() / FULL_SWEEP.as_secs_f64();
    for _ in 0..INTERVALS_TO_REST {
        let before = system.vault.requests().await?;
        sleep(interval).await;
        let read = (system.vault.requests().await? - before).get;
        if read as f64 <= swept.ceil() {
            return Ok(());
        }
    }
    eprintln!("bench: objects are still read, though nothing changes");
    Ok(())
}

/// Waits until the vaults have not been asked for a while after they were: a time of whole intervals from there has as many
/// whole surveys.
pub async fn between_surveys(system: &System) -> Result<()> {
    const QUIET: Duration = Duration::from_secs(1);
    const POLL: Duration = Duration::from_millis(200);
    let began = Instant::now();
    let (mut requests, mut asked_at) = (system.vault.requests().await?, None);
    while began.elapsed() < system.setting.interval * 2
        && asked_at.is_none_or(|at: Instant| at.elapsed() < QUIET)
    {
        sleep(POLL).await;
        let now = system.vault.requests().await?;
        if now != requests {
            (requests, asked_at) = (now, Some(Instant::now()));
        }
    }
    Ok(())
}

/// Changes a share of these objects (vault and name) in each of so many intervals, evenly spread over the time, which begins
/// at `began`.
pub async fn change(
    system: &System,
    began: Instant,
    objects: &[(&str, &str)],
    share: f64,
    intervals: u32,
) -> Result<Vec<Change>> {
    let untold = async |_: &str, _: &str, _: &Change| Ok(());
    change_and_tell(system, began, objects, share, intervals, untold).await
}

/// The same, and tells of each change, by vault and object.
pub async fn change_and_tell(
    system: &System,
    began: Instant,
    objects: &[(&str, &str)],
    share: f64,
    intervals: u32,
    tell: impl AsyncFn(&str, &str, &Change) -> Result<()>,
) -> Result<Vec<Change>> {
    /// Prime, and of no number of objects a divisor: each is met once before one is met again.
    const STRIDE: usize = 7_919;
    let count = (share * objects.len() as f64 * f64::from(intervals)).round() as usize;
    let time = system.setting.interval * intervals;
    let mut changes = Vec::with_capacity(count);
    for number in 0..count {
        sleep_until(began + time.mul_f64(number as f64 / count as f64)).await;
        let (vault, object) = objects[number * STRIDE % objects.len()];
        let value = fresh_content(object);
        let change = system.vault.set(vault, object, &value).await?;
        tell(vault, object, &change).await?;
        changes.push(change);
    }
    sleep_until(began + time).await;
    Ok(changes)
}

/// Waits until each change is in its Secret, and says how long that took.
pub async fn latency(
    system: &System,
    sightings: &Sightings,
    changes: &[Change],
) -> Result<Latency> {
    let deadline = system.setting.interval * 3 + PATIENCE;
    let mut samples = Vec::with_capacity(changes.len());
    for change in changes {
        let sighting = sightings.wait_for(&change.version, 1, deadline).await?;
        samples.push((sighting.first - change.at).as_secs_f64());
    }
    Ok(Latency::of(samples).ok_or("nothing was changed")?)
}
