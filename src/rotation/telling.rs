//! What is said on workloads: events, each once, and the metrics that go with them.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kube::{Resource, ResourceExt};

use super::decide::{Cause, Content, Hold, Reason, Rotation, Wait, later};
use super::memory::{Begun, Memory};
use super::reference::SourceKey;
use super::rollout::Rollout;
use super::workload::Workload;
use crate::telemetry::{Events, Kind, Metrics};

/// Action of all events.
const ACTION: &str = "Rotate";

/// A rollout under way is that of its latest rotation for so long; after that it is more likely somebody else's.
const ADOPTED: SignedDuration = SignedDuration::from_hours(1);

/// Who tells.
#[derive(Clone, Copy)]
pub struct Telling<'a> {
    pub events: &'a Events,
    pub metrics: &'a Metrics,
    pub workload: &'a Workload,
}

impl Telling<'_> {
    /// Names in the annotation that nothing goes by.
    pub async fn nothing_to_rotate(&self, note: String) {
        tracing::warn!("{note}");
        self.publish(Kind::Warning, "NothingToRotate", note).await;
    }

    /// What a rotation waits for, once; what is over in a moment is not told.
    pub async fn tell_waiting(&self, wait: &Wait, memory: &mut Memory) {
        let Wait { until, reason } = wait;
        tracing::debug!(reason = reason.name(), %until, "rotation waits");
        let (event, note) = match reason {
            Reason::Settling | Reason::MirrorBusy | Reason::Examination { .. } => return,
            Reason::Window | Reason::MinInterval => (
                "RotationScheduled",
                format!("will be rolled at {until:.0} or sooner: {reason}"),
            ),
            Reason::Paused | Reason::Rolling | Reason::Canary { .. } | Reason::MaxConcurrent => (
                "RotationWaiting",
                format!("is to be rolled, and waits: {reason}"),
            ),
        };
        if memory.told.insert(reason.name()) {
            self.publish(Kind::Normal, event, note).await;
        }
    }

    /// What holds a rotation, once.
    pub async fn tell_held(&self, hold: &Hold, memory: &mut Memory) {
        if memory.told.insert(hold.name()) {
            let note = format!("is to be rolled, and held: {hold}");
            tracing::warn!("{note}");
            self.publish(Kind::Warning, "RotationHeld", note).await;
        }
    }

    /// Its rollout has failed, and what it brought is asked to be taken back: once. `mirrors` are those that are asked.
    pub async fn tell_failed(
        &self,
        rotated: Option<Timestamp>,
        why: &str,
        mirrors: &[String],
        memory: &mut Memory,
    ) {
        if memory.failed == rotated {
            return;
        }
        memory.failed = rotated;
        let asked = if mirrors.is_empty() {
            "no mirror fills what it was rolled for, so that nothing is taken back".to_owned()
        } else {
            format!(
                "to go back to the version before, and to say by the condition Reverted what came of that, is asked: mirror {}",
                mirrors.join(", ")
            )
        };
        let note = format!("its rollout to new content has failed ({why}); {asked}");
        tracing::warn!("{note}");
        self.publish(Kind::Warning, "RotationFailed", note).await;
    }

    /// The API server refuses to have it rolled, or can't: once until it goes.
    pub async fn tell_refused(&self, error: &kube::Error, memory: &mut Memory) {
        if memory.told.insert("refused") {
            let note = format!("can't be rolled: {error}; that is tried again");
            self.publish(Kind::Warning, "RotationRefused", note).await;
        }
    }

    /// It has been given a new template.
    pub async fn tell_started(
        &self,
        rotation: &Rotation,
        contents: &BTreeMap<SourceKey, Content>,
        now: Timestamp,
        memory: &mut Memory,
    ) {
        let records = || {
            let changed = rotation.changed.iter();
            changed.filter_map(|key| Some((key, &contents.get(key)?.record)))
        };
        let updated = records().filter_map(|(_, record)| record.updated).min();
        let since_update = updated.map(|updated| now.duration_since(updated).as_secs_f64());
        let namespace = self.workload.namespace().unwrap_or_default();
        self.metrics
            .rotated(&namespace, rotation.cause.name(), since_update);
        memory.begun = Some(Begun {
            rotated: now,
            updated,
        });
        let causes: Vec<String> = records()
            .map(|(key, record)| {
                let again = record.failed.as_ref();
                let again = again.map(|failed| format!(" again, in place of {failed}"));
                format!(
                    "key {} of {} {} is version {} of {}{}",
                    key.key,
                    key.source.kind,
                    key.source.name,
                    record.version,
                    record.object,
                    again.unwrap_or_default()
                )
            })
            .collect();
        let mut note = format!("rolled because {}", causes.join("; "));
        note.push_str(match rotation.cause {
            Cause::Content => "",
            Cause::Deadline => {
                "; outside the windows of its policy, because the deadline has passed"
            }
            Cause::Expiry => {
                "; outside the windows of its policy, because the version before is about to expire"
            }
        });
        if !rotation.failing.is_empty() {
            note.push_str(&format!(
                "; not waited for, because failing: mirror {}",
                rotation.failing.join(", ")
            ));
        }
        tracing::info!(seconds_since_update = since_update, "{note}");
        self.publish(Kind::Normal, "RotationStarted", note).await;
    }

    /// Notes how far the rollout of its latest rotation is, and tells when it has finished.
    pub async fn follow_rollout(
        &self,
        rotated: Option<Timestamp>,
        now: Timestamp,
        memory: &mut Memory,
    ) {
        let Some(rotated) = rotated else { return };
        match self.workload.rollout {
            // Begun by a daemon before this one.
            Rollout::UnderWay | Rollout::UnderWayForEver
                if memory.begun.is_none()
                    && memory.finished != Some(rotated)
                    && now < later(rotated, ADOPTED) =>
            {
                let updated = None;
                memory.begun = Some(Begun { rotated, updated });
            }
            Rollout::Finished => {
                let begun = memory.begun.filter(|begun| begun.rotated == rotated);
                memory.begun = memory.begun.filter(|begun| begun.rotated > rotated);
                let Some(begun) = begun else {
                    memory.finished = memory.finished.max(Some(rotated));
                    return;
                };
                memory.finished = Some(rotated);
                if let Some(updated) = begun.updated {
                    self.metrics
                        .rolled_out(now.duration_since(updated).as_secs_f64());
                }
                let seconds = now.duration_since(rotated).as_secs();
                let note = format!("its rollout has finished, {seconds} s after it began");
                self.publish(Kind::Normal, "RotationFinished", note).await;
            }
            _ => {}
        }
    }

    async fn publish(&self, kind: Kind, reason: &str, note: String) {
        let about = self.workload.object_ref(&self.workload.kind);
        self.events.publish(about, kind, reason, ACTION, note).await;
    }
}
