//! When writes of targets come to be seen: a watch of the Secrets' metadata, as any other client of the cluster has it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Secret;
use keytide::mirror::records;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinHandle;

use super::testbed::Result;
use super::testbed::wait::within;

/// What has been seen since the watch began. Dropping it ends the watch.
pub struct Sightings {
    seen: Arc<Mutex<Seen>>,
    watch: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// The version that each Secret holds, by namespace and name.
    secrets: HashMap<(String, String), String>,
    versions: HashMap<String, Sighting>,
}

/// When Secrets were seen with one version of a vault object.
#[derive(Clone, Copy, Debug)]
pub struct Sighting {
    pub first: Instant,
    pub last: Instant,
    /// How many Secrets.
    pub secrets: usize,
}

impl Seen {
    fn take_in(&mut self, secret: &PartialObjectMeta<Secret>, now: Instant) {
        let records = records(secret.annotations());
        let mut keys = records.values().flat_map(|record| record.keys.values());
        let Some(version) = keys.next().map(|key| key.version.clone()) else {
            return;
        };
        let id = (secret.namespace().unwrap_or_default(), secret.name_any());
        if self.secrets.get(&id) == Some(&version) {
            return;
        }
        self.secrets.insert(id, version.clone());
        let sighting = self.versions.entry(version).or_insert(Sighting {
            first: now,
            last: now,
            secrets: 0,
        });
        sighting.last = now;
        sighting.secrets += 1;
    }
}

impl Sightings {
    /// Begins to watch the Secrets with this label.
    pub fn begin(client: Client, label: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let taken = Arc::clone(&seen);
        let secrets = Api::<PartialObjectMeta<Secret>>::all(client);
        let config = watcher::Config::default().labels(&format!("{label}=true"));
        let watch = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(secrets, config).default_backoff());
            loop {
                match events.try_next().await {
                    Ok(Some(Event::Apply(secret) | Event::InitApply(secret))) => {
                        lock(&taken).take_in(&secret, Instant::now());
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => return,
                    Err(error) => eprintln!("bench: Secrets can't be watched: {error}"),
                }
            }
        });
        Self { seen, watch }
    }

    /// How many Secrets have been seen.
    pub fn secrets(&self) -> usize {
        lock(&self.seen).secrets.len()
    }

    /// Who has been seen with this version, if anybody.
    pub fn of(&self, version: &str) -> Option<Sighting> {
        lock(&self.seen).versions.get(version).copied()
    }

    /// Waits until so many Secrets have this version.
    pub async fn wait_for(
        &self,
        version: &str,
        secrets: usize,
        deadline: Duration,
    ) -> Result<Sighting> {
        let what = format!("{secrets} Secrets have version {version}");
        let sighting = within(deadline, &what, async || {
            let sighting = self.of(version);
            let enough = sighting.filter(|sighting| sighting.secrets >= secrets);
            enough.ok_or_else(|| format!("{} have", sighting.map_or(0, |seen| seen.secrets)))
        });
        Ok(sighting.await?)
    }

    /// Waits until so many Secrets have been seen, and says when the last came.
    pub async fn wait_for_secrets(&self, secrets: usize, deadline: Duration) -> Result<Instant> {
        let what = format!("{secrets} Secrets are written");
        within(deadline, &what, async || match self.secrets() {
            count if count >= secrets => Ok(()),
            count => Err(format!("{count} are")),
        })
        .await?;
        let last = lock(&self.seen)
            .versions
            .values()
            .map(|seen| seen.last)
            .max();
        Ok(last.ok_or("no Secrets were wanted")?)
    }
}

impl Drop for Sightings {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
