//! Many mirrors of one object: how often it is read for all of them when it changes.

use std::time::Duration;

use keytide::mirror::MIRRORED_LABEL;
use tokio::time::sleep;

use super::Bench;
use super::finding::{Finding, SharedChange};
use super::layout::{Layout, fresh_content, vault_name};
use super::mirrors::{cold_start, settle};
use super::recorder::Recorder;
use super::scenario::{Setting, Survey};
use super::sightings::Sightings;
use super::system::System;
use super::testbed::Result;
use super::vault::Change;

const OBJECT: &str = "shared";

/// Other objects of the same vault, each with a mirror: a vault of one object would be read and not listed.
const OTHERS: usize = 49;

/// How often the vault is asked whether the object has been read.
const POLL: Duration = Duration::from_millis(20);

/// Runs the scenario.
pub async fn run(
    bench: &Bench,
    mirrors: usize,
    namespaces: usize,
    changes: usize,
    recorder: &mut Recorder,
) -> Result<()> {
    let setting = Setting {
        objects: 1 + OTHERS,
        vaults: 1,
        namespaces,
        latency: Duration::from_millis(50),
        interval: Duration::from_secs(10),
        survey: Survey::Auto,
    };
    let layout = Layout::shared(OBJECT, mirrors, OTHERS, namespaces);
    let system = bench.system(layout, setting).await?;
    let sightings = Sightings::begin(system.client.clone(), MIRRORED_LABEL);
    let (_daemon, _) = cold_start(&system, &sightings).await?;
    let mut seen = Vec::with_capacity(changes);
    for number in 0..changes {
        settle(&system).await?;
        // At another moment of the interval each time.
        sleep(setting.interval.mul_f64(number as f64 / changes as f64)).await;
        seen.push(change(&system, &sightings, mirrors).await?);
    }
    recorder.found(Finding::SharedObject {
        mirrors,
        namespaces,
        changes: seen,
    })
}

async fn change(system: &System, sightings: &Sightings, mirrors: usize) -> Result<SharedChange> {
    let before = system.vault.gets_of(OBJECT).await?;
    let value = fresh_content(OBJECT);
    let change = system.vault.set(&vault_name(0), OBJECT, &value).await?;
    let deadline = system.setting.interval * 3 + Duration::from_secs(60);
    let (read, last) = tokio::try_join!(
        first_read(system, &change, before, deadline),
        sightings.wait_for(&change.version, mirrors, deadline),
    )?;
    settle(system).await?;
    Ok(SharedChange {
        gets: system.vault.gets_of(OBJECT).await? - before,
        read_after: read,
        last: (last.last - change.at).as_secs_f64(),
    })
}

/// How many whole seconds after `updated` the object was first read.
async fn first_read(
    system: &System,
    change: &Change,
    before: u64,
    deadline: Duration,
) -> Result<i64> {
    let read = async {
        while system.vault.gets_of(OBJECT).await? == before {
            sleep(POLL).await;
        }
        // The vault answers after its latency, and counts before.
        Ok(jiff::Timestamp::now().as_second() - change.updated)
    };
    tokio::time::timeout(deadline, read)
        .await
        .map_err(|_| "the object that has changed is not read")?
}
