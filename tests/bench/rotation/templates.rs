//! When workloads come to have a new Pod template: a watch of those whose Secret changes, as any other client of the cluster has it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use k8s_openapi::api::apps::v1::Deployment;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::task::JoinHandle;

use super::crowd::CONSUMER;
use crate::layout::Mirror;
use crate::testbed::Result;
use crate::testbed::rollouts::is_rolled_out;
use crate::testbed::wait::within;

/// Annotation of a Pod template that a rotation writes.
const STAMP: &str = "keytide.dev/content-digest";

/// What has been seen since the watch began. Dropping it ends the watch.
pub struct Templates {
    seen: Arc<Mutex<Seen>>,
    watch: JoinHandle<()>,
}

/// By namespace and name.
type Seen = HashMap<(String, String), Consumer>;

#[derive(Default)]
struct Consumer {
    stamp: Option<String>,
    /// When it was seen with a stamp that it had not had before.
    stamped: Vec<Instant>,
    is_rolled_out: bool,
}

impl Consumer {
    fn take_in(&mut self, deployment: &Deployment, now: Instant) {
        let stamp = stamp(deployment);
        if stamp.is_some() && stamp != self.stamp {
            self.stamped.push(now);
        }
        self.stamp = stamp;
        self.is_rolled_out = is_rolled_out(deployment);
    }
}

fn stamp(deployment: &Deployment) -> Option<String> {
    let template = deployment.spec.as_ref()?.template.metadata.as_ref()?;
    template.annotations.as_ref()?.get(STAMP).cloned()
}

impl Templates {
    pub fn begin(client: Client) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let taken = Arc::clone(&seen);
        let deployments = Api::<Deployment>::all(client);
        let config = watcher::Config::default().labels(&format!("{CONSUMER}=true"));
        let watch = tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(deployments, config).default_backoff());
            loop {
                match events.try_next().await {
                    Ok(Some(Event::Apply(deployment) | Event::InitApply(deployment))) => {
                        let id = (
                            deployment.namespace().unwrap_or_default(),
                            deployment.name_any(),
                        );
                        let mut seen = lock(&taken);
                        let consumer = seen.entry(id).or_default();
                        consumer.take_in(&deployment, Instant::now());
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => return,
                    Err(error) => eprintln!("bench: Deployments can't be watched: {error}"),
                }
            }
        });
        Self { seen, watch }
    }

    /// How many templates have been stamped.
    pub fn stamped(&self) -> usize {
        lock(&self.seen).values().map(|it| it.stamped.len()).sum()
    }

    /// Waits until the consumer of a mirror's Secret has a new template, and says when that was seen.
    pub async fn wait_for_stamp(&self, mirror: &Mirror, deadline: Duration) -> Result<Instant> {
        let what = format!("Deployment {} has a new template", mirror.name);
        self.wait_for(mirror, &what, deadline, |consumer| {
            consumer.stamped.first().copied()
        })
        .await
    }

    /// Waits until its Pods are those of that template.
    pub async fn wait_for_rollout(&self, mirror: &Mirror, deadline: Duration) -> Result<()> {
        let what = format!("Deployment {} is rolled out", mirror.name);
        self.wait_for(mirror, &what, deadline, |consumer| {
            consumer.is_rolled_out.then_some(())
        })
        .await
    }

    async fn wait_for<T>(
        &self,
        mirror: &Mirror,
        what: &str,
        deadline: Duration,
        find: impl Fn(&Consumer) -> Option<T>,
    ) -> Result<T> {
        let id = (mirror.namespace.clone(), mirror.name.clone());
        let found = within(deadline, what, async || {
            let seen = lock(&self.seen);
            let found = seen.get(&id).and_then(&find);
            found.ok_or_else(|| "not yet".to_owned())
        });
        Ok(found.await?)
    }
}

impl Drop for Templates {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_new_stamp_counts_once() {
        let with = |stamp: &str| -> Deployment {
            let annotations = json!({"other": "a", STAMP: stamp});
            let template = json!({"metadata": {"annotations": annotations}});
            let spec = json!({"selector": {}, "template": template});
            serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": spec}))
                .expect("a Deployment")
        };
        let mut consumer = Consumer::default();
        consumer.take_in(&Deployment::default(), Instant::now());
        assert!(consumer.stamped.is_empty());
        for stamp in ["a", "a", "b", "b"] {
            consumer.take_in(&with(stamp), Instant::now());
        }
        assert_eq!(consumer.stamped.len(), 2);
    }
}
