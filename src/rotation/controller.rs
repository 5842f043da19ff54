//! Carries out what [`super::decide`] decides: looks after each workload that opted in.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tracing::Instrument;

use super::baseline::{BASELINE, Baseline, CONTENT_DIGEST, SecretKey};
use super::decide::{
    Content, Decision, MirrorState, Rollout, Started, Timing, Wait, Workload, contents_in_use,
    decide, suspects,
};
use super::opt_in::{OptIn, ROTATE, Typo};
use super::reference::{Reference, references};
use crate::clock::ServerClock;
use crate::daemon::Stop;
use crate::digest::{DigestKey, Place};
use crate::mirror::{Activity, Record, Target};
use crate::telemetry::{Events, Kind, Metrics};
use crate::watch;

/// Workloads looked after at once; what they wait for is the API server alone.
const CONCURRENCY: u16 = 16;

/// Pause after someone else wrote at the same moment.
const RACE_PAUSE: Duration = Duration::from_millis(500);
/// Pause after the API server could not be asked.
const ERROR_PAUSE: Duration = Duration::from_secs(2);
/// How long after a workload came its mirrors may still be on their way.
const INSTALLATION: SignedDuration = SignedDuration::from_mins(1);

/// What the controller works with.
pub struct Rotations {
    pub client: Client,
    pub clock: ServerClock,
    pub digest_key: DigestKey,
    pub timing: Timing,
    pub workloads: Store<Deployment>,
    pub targets: Store<Target>,
    pub activity: Activity,
    pub events: Events,
    pub metrics: Arc<Metrics>,
    pub warned: Warned,
    pub rollouts: Rollouts,
}

/// The rollouts under way that a rotation began, by UID of the workload; losing one costs an observation.
pub type Rollouts = Mutex<HashMap<String, Rotated>>;

/// A rotation whose rollout is under way.
#[derive(Debug)]
pub struct Rotated {
    rotated: Timestamp,
    /// When the vault object was updated that caused it.
    updated: Timestamp,
}

/// Things that make workloads be looked at again.
pub struct Triggers {
    pub workloads: mpsc::UnboundedReceiver<ObjectRef<Deployment>>,
    pub targets: mpsc::UnboundedReceiver<ObjectRef<Deployment>>,
}

/// Which warning each workload was given last, so that it is not repeated; losing it costs an event.
#[derive(Default)]
pub struct Warned(Mutex<HashMap<String, String>>);

impl Warned {
    /// Whether this warning is news for the workload with this UID.
    fn is_news(&self, uid: String, warning: &str) -> bool {
        lock(&self.0).insert(uid, warning.to_owned()).as_deref() != Some(warning)
    }
}

/// Runs the controller until `stop`, and then until what is under way is done.
pub async fn run(rotations: Arc<Rotations>, triggers: Triggers, stop: Stop) {
    let store = rotations.workloads.clone();
    Controller::for_stream(futures::stream::pending(), store)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(futures::stream::select(
            triggers.workloads,
            triggers.targets,
        ))
        .graceful_shutdown_on(stop)
        .run(
            Rotations::reconcile,
            |_, error, _| {
                // Whatever wrote in between is seen by the watch; the pause is for when it was seen already.
                if matches!(error, kube::Error::Api(status) if status.code == 409) {
                    return Action::requeue(RACE_PAUSE);
                }
                tracing::warn!(%error, "a workload can't be looked after; that is tried again");
                Action::requeue(ERROR_PAUSE)
            },
            rotations,
        )
        .for_each(|_| std::future::ready(()))
        .await;
}

/// The Secrets that a workload uses and has opted in to being rolled for.
pub fn secrets_of(workload: &Deployment) -> HashSet<String> {
    let opt_in = opt_in(workload);
    template_references(workload)
        .into_iter()
        .map(|reference| reference.secret)
        .filter(|secret| opt_in.includes(secret))
        .collect()
}

impl Rotations {
    async fn reconcile(workload: Arc<Deployment>, this: Arc<Self>) -> Result<Action, kube::Error> {
        // Not `name`: under that, a line of JSON has the name of the span.
        let span = tracing::info_span!(
            "rotation",
            namespace = workload.namespace(),
            deployment = workload.name_any()
        );
        let action = this.look_after(&workload).instrument(span).await;
        this.metrics.reconciled("rotation", action.is_ok());
        action
    }

    async fn look_after(&self, deployment: &Deployment) -> Result<Action, kube::Error> {
        let opt_in = opt_in(deployment);
        if opt_in == OptIn::No || deployment.metadata.deletion_timestamp.is_some() {
            return Ok(Action::await_change());
        }
        let namespace = deployment.namespace().unwrap_or_default();
        let all = template_references(deployment);
        let contents = self.contents(&namespace, &all);
        let idle = self
            .warn_of_typos(deployment, &opt_in, &all, &contents)
            .await
            .map_or_else(Action::await_change, Action::requeue);
        let workload = Workload {
            references: all
                .into_iter()
                .filter(|reference| opt_in.includes(&reference.secret))
                .collect(),
            baseline: deployment
                .annotations()
                .get(BASELINE)
                .and_then(|annotation| Baseline::parse(annotation)),
            paused: deployment
                .spec
                .as_ref()
                .and_then(|spec| spec.paused)
                .unwrap_or(false),
            rollout: super::rollout::rollout(deployment),
        };
        let contents = contents_in_use(&workload.references, &contents);
        let started = if suspects(&workload, &contents).is_empty() {
            Vec::new()
        } else {
            self.started(deployment, &namespace).await?
        };
        let mirrors = self.mirrors(&namespace, &workload.references);
        let now = self.clock.now();
        self.observe_rollout(deployment, &workload, now);
        match decide(&workload, &contents, &started, &mirrors, self.timing, now) {
            Decision::Nothing => Ok(idle),
            Decision::Record(baseline) => {
                self.patch(deployment, json!({"metadata": annotations(&baseline)}))
                    .await?;
                tracing::info!("baseline recorded");
                Ok(idle)
            }
            Decision::Wait { until, reason } => {
                tracing::debug!(?reason, %until, "rotation waits");
                let pause = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                Ok(if reason == Wait::Paused {
                    // It wakes us itself when it goes on.
                    idle
                } else {
                    Action::requeue(pause)
                })
            }
            Decision::Rotate {
                baseline,
                changed,
                failing,
            } => {
                self.rotate(deployment, &baseline, &changed, &failing, &contents, now)
                    .await?;
                Ok(Action::await_change())
            }
        }
    }

    async fn rotate(
        &self,
        deployment: &Deployment,
        baseline: &Baseline,
        changed: &[SecretKey],
        failing: &[String],
        contents: &BTreeMap<SecretKey, Content>,
        now: Timestamp,
    ) -> Result<(), kube::Error> {
        let namespace = deployment.namespace().unwrap_or_default();
        let name = deployment.name_any();
        let place = Place {
            namespace: &namespace,
            kind: "Deployment",
            target: &name,
            key: CONTENT_DIGEST,
        };
        // With the time of the rotation: after a rollback the template may still have the digest of this very content.
        let digest = self
            .digest_key
            .content(place, json!(baseline).to_string().as_bytes());
        let template = json!({"metadata": {"annotations": {CONTENT_DIGEST: digest}}});
        self.patch(
            deployment,
            json!({"metadata": annotations(baseline), "spec": {"template": template}}),
        )
        .await?;

        let records = || {
            changed
                .iter()
                .filter_map(|key| Some((key, &contents.get(key)?.record)))
        };
        let updated = records().filter_map(|(_, record)| record.updated).min();
        let since_update = updated.map(|updated| now.duration_since(updated).as_secs_f64());
        self.metrics.rotated(&namespace, since_update);
        if let (Some(uid), Some(updated)) = (deployment.uid(), updated) {
            let rotated = Rotated {
                rotated: now,
                updated,
            };
            lock(&self.rollouts).insert(uid, rotated);
        }
        let causes: Vec<String> = records()
            .map(|(key, record)| {
                format!(
                    "key {} of Secret {} is version {} of {}",
                    key.key, key.secret, record.version, record.object
                )
            })
            .collect();
        let mut note = format!("rolled because {}", causes.join("; "));
        if !failing.is_empty() {
            note.push_str(&format!(
                "; not waited for, because failing: mirror {}",
                failing.join(", ")
            ));
        }
        tracing::info!(seconds_since_update = since_update, "{note}");
        self.events
            .publish(
                deployment.object_ref(&()),
                Kind::Normal,
                "Rotated",
                "Rotate",
                note,
            )
            .await;
        Ok(())
    }

    /// Measures how long a change took until its rollout was finished.
    fn observe_rollout(&self, deployment: &Deployment, workload: &Workload, now: Timestamp) {
        let Some(uid) = deployment.uid() else { return };
        let rotated = workload
            .baseline
            .as_ref()
            .and_then(|baseline| baseline.rotated);
        let mut rollouts = lock(&self.rollouts);
        let finished = rollouts
            .get(&uid)
            .is_some_and(|begun| Some(begun.rotated) == rotated)
            && workload.rollout == Rollout::Finished;
        if finished && let Some(begun) = rollouts.remove(&uid) {
            self.metrics
                .rolled_out(now.duration_since(begun.updated).as_secs_f64());
        }
    }

    async fn patch(
        &self,
        deployment: &Deployment,
        patch: serde_json::Value,
    ) -> Result<(), kube::Error> {
        let patch = decided_on(deployment, patch);
        let api: Api<Deployment> = Api::namespaced(
            self.client.clone(),
            &deployment.namespace().unwrap_or_default(),
        );
        let params = PatchParams {
            field_manager: Some("keytide".to_owned()),
            ..Default::default()
        };
        api.patch_metadata(&deployment.name_any(), &params, &Patch::Merge(&patch))
            .await
            .map(drop)
    }

    /// The content of all mirrored keys of the Secrets that are referred to.
    fn contents(
        &self,
        namespace: &str,
        references: &BTreeSet<Reference>,
    ) -> BTreeMap<SecretKey, Content> {
        let secrets: BTreeSet<&str> = references
            .iter()
            .map(|reference| reference.secret.as_str())
            .collect();
        let mut contents = BTreeMap::new();
        for secret in secrets {
            let Some(target) = self.targets.get(&watch::reference(namespace, secret)) else {
                continue;
            };
            for (key, content) in latest(target.records().into_values()) {
                let secret = secret.to_owned();
                contents.insert(SecretKey { secret, key }, content);
            }
        }
        contents
    }

    /// The containers of a workload's Pods that run, or ran to prepare one.
    async fn started(
        &self,
        deployment: &Deployment,
        namespace: &str,
    ) -> Result<Vec<Started>, kube::Error> {
        let Some(spec) = &deployment.spec else {
            return Ok(Vec::new());
        };
        let selector: kube::core::Selector = match spec.selector.clone().try_into() {
            Ok(selector) => selector,
            // The API server checks selectors, so this one selects nothing that it would.
            Err(_) => return Ok(Vec::new()),
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pods = api
            .list(&ListParams::default().labels_from(&selector))
            .await?;
        Ok(pods
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter_map(|pod| pod.status.as_ref())
            .flat_map(|status| {
                let ran = status.init_container_statuses.iter().flatten();
                let runs = status.container_statuses.iter().flatten();
                ran.chain(runs)
            })
            .filter_map(|container| {
                let state = container.state.as_ref()?;
                let running = state
                    .running
                    .as_ref()
                    .and_then(|running| running.started_at.as_ref());
                let done = state
                    .terminated
                    .as_ref()
                    .filter(|ended| ended.exit_code == 0)
                    .and_then(|ended| ended.started_at.as_ref());
                let at = running.or(done)?.0;
                Some(Started {
                    container: container.name.clone(),
                    at,
                })
            })
            .collect())
    }

    fn mirrors(&self, namespace: &str, references: &BTreeSet<Reference>) -> Vec<MirrorState> {
        self.activity
            .of(namespace, |target| {
                references
                    .iter()
                    .any(|reference| reference.secret == target)
            })
            .into_iter()
            .map(|(name, state)| MirrorState {
                name,
                in_flight: state.in_flight,
                failing_since: state.failing_since,
            })
            .collect()
    }

    /// Tells names in the annotation that nothing goes by. Gives how soon it may have more to tell.
    async fn warn_of_typos(
        &self,
        deployment: &Deployment,
        opt_in: &OptIn,
        references: &BTreeSet<Reference>,
        contents: &BTreeMap<SecretKey, Content>,
    ) -> Option<Duration> {
        let used = references.iter().map(|reference| reference.secret.as_str());
        let mirrored = contents.keys().map(|key| key.secret.as_str());
        let mut typos = opt_in.typos(&used.collect(), &mirrored.collect());
        // What is installed together comes one after the other.
        let grace = deployment
            .creation_timestamp()
            .map(|created| self.clock.now().duration_since(created.0))
            .and_then(|age| Duration::try_from(INSTALLATION.saturating_sub(age)).ok())
            .filter(|grace| !grace.is_zero() && !typos.is_empty());
        if grace.is_some() {
            typos.retain(|typo| !matches!(typo, Typo::NotMirrored { .. }));
        }
        let note: Vec<String> = typos.iter().map(Typo::to_string).collect();
        let note = note.join("; ");
        if self
            .warned
            .is_news(deployment.uid().unwrap_or_default(), &note)
            && !note.is_empty()
        {
            tracing::warn!("{note}");
            let about = deployment.object_ref(&());
            self.events
                .publish(about, Kind::Warning, "NothingToRotate", "Rotate", note)
                .await;
        }
        grace
    }
}

pub fn opt_in(deployment: &Deployment) -> OptIn {
    deployment
        .annotations()
        .get(ROTATE)
        .map(|value| OptIn::parse(value))
        .unwrap_or_default()
}

pub fn template_references(deployment: &Deployment) -> BTreeSet<Reference> {
    let pod = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    pod.map(references).unwrap_or_default()
}

/// The content of each key by the latest of the records that speak of it: a mirror that fails may still have one of a key that it
/// gave up, and that another one has filled since.
fn latest(records: impl Iterator<Item = Record>) -> BTreeMap<String, Content> {
    let mut contents: BTreeMap<String, Content> = BTreeMap::new();
    for Record {
        digest_key, keys, ..
    } in records
    {
        for (key, record) in keys {
            let before = contents.get(&key);
            if before.is_none_or(|before| before.record.changed < record.changed) {
                let digest_key = digest_key.clone();
                contents.insert(key, Content { digest_key, record });
            }
        }
    }
    contents
}

/// A patch of what was looked at, and of nothing else: the API server refuses it (409) on any other version.
fn decided_on(deployment: &Deployment, mut patch: serde_json::Value) -> serde_json::Value {
    let metadata = &deployment.metadata;
    patch["metadata"]["uid"] = json!(metadata.uid);
    patch["metadata"]["resourceVersion"] = json!(metadata.resource_version);
    patch
}

fn annotations(baseline: &Baseline) -> serde_json::Value {
    json!({"annotations": {BASELINE: json!(baseline).to_string()}})
}

/// A panic elsewhere leaves these maps whole, so their poison means nothing.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_records_of_one_key_the_later_counts() {
        let record = |digest: &str, changed: &str| -> Record {
            let key = json!({"digest": digest, "object": "o", "version": "1", "changed": changed});
            let record = json!({
                "mirror": "m", "digestKey": "k", "deletionPolicy": "Delete", "keys": {"token": key},
            });
            serde_json::from_value(record).expect("a record")
        };
        let earlier = record("a", "2026-01-01T00:00:00Z");
        let later = record("b", "2026-01-01T00:00:01Z");
        for records in [[earlier.clone(), later.clone()], [later, earlier]] {
            assert_eq!(latest(records.into_iter())["token"].record.digest, "b");
        }
    }

    #[test]
    fn a_patch_carries_what_it_was_decided_on() {
        let mut deployment = Deployment::default();
        deployment.metadata.uid = Some("u".to_owned());
        deployment.metadata.resource_version = Some("7".to_owned());
        let patch = json!({"metadata": annotations(&Baseline::default())});
        let patch = decided_on(&deployment, patch);
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["metadata"]["uid"], "u");
        assert!(patch["metadata"]["annotations"][BASELINE].is_string());
    }
}
