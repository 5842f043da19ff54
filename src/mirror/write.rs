//! Brings a target to the content of a mirror's objects: looks at what is there, has it planned, and written.

use jiff::Timestamp;
use kube::ResourceExt;

use super::adoption::{Found, must_look};
use super::apply::Targets;
use super::consent::Origin;
use super::content::Next;
use super::controller::{Attempt, Mirrors};
use super::limits;
use super::memory::{Memory, Seen};
use super::plan::{Desired, Existing, Plan, Rival, plan};
use super::record::Record;
use super::size;
use super::status::{Failure, Unfit};
use super::target::Target;
use super::target_name::TargetName;
use crate::api::KeyVaultMirror;
use crate::digest::Place;
use crate::render::{self, Rendered};

impl Mirrors {
    /// Brings the target to what it is to have.
    pub(super) async fn write(
        &self,
        mirror: &KeyVaultMirror,
        next: Next,
        targets: &Targets,
        mut existing: Option<Existing>,
        memory: &mut Memory,
    ) -> Result<Attempt, Failure> {
        let target = TargetName::of(&mirror.spec.target);
        self.look_inside(mirror, &next.desired, targets, &mut existing)
            .await?;
        let planned = self.planned(mirror, &next, existing.as_ref())?;
        let Next {
            data,
            objects,
            desired,
            reverted,
        } = next;
        let rendered = &data.rendered;
        let (resource_version, changed, record) = match planned {
            Plan::Conflict(conflict) => return Err(conflict.into()),
            Plan::InSync(existing) => {
                let record = existing.records.get(&desired.uid);
                (existing.resource_version.clone(), false, record.cloned())
            }
            Plan::Write(write) => {
                let resource_version = targets.write(mirror, &write, rendered).await?;
                self.metrics
                    .target_written(&mirror.namespace().unwrap_or_default());
                if has_moved(mirror) {
                    // What it had before is left over now.
                    self.mirrors_touched.notify_one();
                }
                tracing::info!(target = %target.name, keys = rendered.len(), content = write.changes_content, adopted = write.record.adopted, "{} written", target.kind);
                (resource_version, write.changes_content, Some(write.record))
            }
        };
        memory.looked = Some(Some(resource_version.clone()));
        memory.seen = Some(Seen {
            generation: mirror.metadata.generation,
            objects,
            target: resource_version,
            valid_until: valid_until(rendered, self.clock.now()),
        });
        Ok(Attempt::Mirrored {
            data,
            reverted,
            changed,
            last_change: record.as_ref().and_then(Record::last_change),
            // What akv2k8s made of a resource is that resource's, and goes with it.
            adopted: desired.origin == Origin::KeyVaultMirror
                && record.is_some_and(|record| record.adopted),
        })
    }

    /// Looks into a target that may be taken over: what is in it decides.
    pub(super) async fn look_inside(
        &self,
        mirror: &KeyVaultMirror,
        desired: &Desired,
        targets: &Targets,
        existing: &mut Option<Existing>,
    ) -> Result<(), Failure> {
        if let Some(existing) = existing.as_mut().filter(|it| must_look(it, desired)) {
            existing.found = Some(self.found(mirror, desired, existing, targets).await?);
        }
        Ok(())
    }

    /// What is to be done with the target.
    pub(super) fn planned<'a>(
        &self,
        mirror: &KeyVaultMirror,
        next: &Next,
        existing: Option<&'a Existing>,
    ) -> Result<Plan<'a>, Failure> {
        let Next { data, desired, .. } = next;
        let others = |key: &str| {
            existing.is_some_and(|existing| existing.is_of_others(&desired.mirror, key))
        };
        let type_ = mirror.spec.target.type_;
        render::check(type_, &data.rendered, others).map_err(|problem| {
            let missing = data.missing.clone();
            Unfit { problem, missing }
        })?;
        let planned = plan(
            &TargetName::of(&mirror.spec.target),
            type_,
            desired,
            existing,
            &self.rivals(mirror),
            self.clock.now(),
        );
        if let Plan::Write(write) = &planned {
            // Of what was found by name or tag, it is the number that can be changed.
            if write.record.matched.is_some() {
                limits::check(&data.rendered, &write.record)?;
            }
            size::check(mirror, &write.record, &data.rendered, existing)?;
        }
        Ok(planned)
    }

    /// What is in a target that may be taken over, as it was when it was looked at.
    async fn found(
        &self,
        mirror: &KeyVaultMirror,
        desired: &Desired,
        existing: &Existing,
        targets: &Targets,
    ) -> Result<Found, Failure> {
        let namespace = mirror.namespace().unwrap_or_default();
        let target = TargetName::of(&mirror.spec.target);
        let held = targets.content(&target.name).await?.filter(|held| {
            held.uid == existing.uid && held.resource_version == existing.resource_version
        });
        let held = held.ok_or_else(|| Failure::Raced(target.clone()))?;
        let digest = |key: &str, content: &[u8]| {
            let place = Place {
                namespace: &namespace,
                kind: target.kind.as_str(),
                target: &target.name,
                key,
            };
            self.digest_key.content(place, content)
        };
        Ok(Found::new(held.type_, &held.data, desired, digest))
    }

    /// The target as it is: from the watch if that is as new as the last write, else from the API server. At first the watch
    /// is believed even where it has none, since a first write is refused if there is one.
    pub(super) async fn existing(
        &self,
        targets: &Targets,
        namespace: &str,
        target: &TargetName,
        memory: &Memory,
    ) -> Result<Option<Existing>, Failure> {
        let watched = self.watched(namespace, target);
        match (&memory.seen, watched) {
            (None, watched) if memory.failures == 0 => Ok(watched),
            (Some(seen), Some(existing)) if existing.resource_version == seen.target => {
                Ok(Some(existing))
            }
            _ => Ok(targets
                .metadata(&target.name)
                .await?
                .map(|metadata| Target::of(metadata).existing())),
        }
    }

    pub(super) fn watched(&self, namespace: &str, target: &TargetName) -> Option<Existing> {
        self.targets
            .get(namespace, target.kind, &target.name)
            .map(|target| target.existing())
    }

    fn rivals(&self, mirror: &KeyVaultMirror) -> Vec<Rival> {
        let precedence = |mirror: &KeyVaultMirror| {
            (mirror.creation_timestamp().map(|time| time.0), mirror.uid())
        };
        let namespace = mirror.namespace().unwrap_or_default();
        let target = TargetName::of(&mirror.spec.target);
        self.mirrors_by_target
            .get(&namespace, &target.to_string())
            .iter()
            .filter_map(|other| self.mirrors.get(other))
            .filter(|other| {
                other.uid() != mirror.uid()
                    && TargetName::of(&other.spec.target) == target
                    && other.metadata.deletion_timestamp.is_none()
            })
            .map(|other| Rival {
                name: other.name_any(),
                uid: other.uid().unwrap_or_default(),
                type_: other.spec.target.type_,
                deletion_policy: other.spec.deletion_policy,
                keys: render::keys(&other.spec)
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
                fills_others: !render::is_known(&other.spec),
                labels: other.spec.target.labels.clone(),
                annotations: other.spec.target.annotations.clone(),
                precedes: precedence(&other) < precedence(mirror),
            })
            .collect()
    }
}

/// Whether the target that a mirror wants is not the one that it says it has.
fn has_moved(mirror: &KeyVaultMirror) -> bool {
    let told = mirror.status.as_ref();
    let told = told.and_then(|status| status.target.as_ref());
    let target = &mirror.spec.target;
    told.is_some_and(|told| told.name != target.name || told.kind != target.kind.to_string())
}

/// When the first of the objects becomes valid or expires.
fn valid_until(rendered: &Rendered, now: Timestamp) -> Option<Timestamp> {
    rendered
        .values()
        .flat_map(|from| [from.secret.not_before, from.secret.expires])
        .flatten()
        .filter(|time| *time > now)
        .min()
}
