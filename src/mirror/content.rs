//! What a target is to have: the content of the mirror's objects or, where a rollout of it has failed, that of before.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;

use super::akv2k8s;
use super::controller::Mirrors;
use super::grant::Refusal;
use super::matching;
use super::plan::{Desired, Existing};
use super::record::{self, Content};
use super::revert::{CannotRevert, PriorVersions, Reverted};
use super::status::Failure;
use super::target_name::TargetName;
use crate::api::{KeyVaultMirror, KeyVaultMirrorSpec, MissingObject};
use crate::digest::Place;
use crate::render::{self, RenderError, Rendered, Source};
use crate::vault::{Delivery, Found, ReadKey, VaultError};

/// What a mirror's objects come to.
pub(super) struct Data {
    pub rendered: Rendered,
    /// Objects that the vault does not have, and whose keys are left out.
    pub missing: Vec<MissingObject>,
}

/// What a target is to have.
pub(super) struct Next {
    pub data: Data,
    /// How many objects it is made of.
    pub objects: usize,
    pub desired: Desired,
    pub reverted: Reverted,
}

impl Mirrors {
    /// Adds to the reads of a mirror's sources those of versions before the vault's that are to be gone back to, but for those that
    /// are known to be lost.
    pub(super) fn add_prior_versions(
        &self,
        mirror: &KeyVaultMirror,
        sources: &[Source],
        reads: &mut Vec<ReadKey>,
        existing: Option<&Existing>,
        lost: &mut BTreeMap<ReadKey, VaultError>,
    ) -> PriorVersions {
        reads.truncate(sources.len());
        let Some(read) = reads.first() else {
            return PriorVersions::default();
        };
        let uid = mirror.metadata.uid.as_deref().unwrap_or_default();
        let name = mirror.metadata.name.as_deref().unwrap_or_default();
        let record = existing.and_then(|existing| existing.record_of(uid, name));
        let namespace = mirror.metadata.namespace.as_deref().unwrap_or_default();
        let target = TargetName::of(&mirror.spec.target);
        let requests = self.reverts.of(namespace, &target);
        let mut prior = PriorVersions::of(&read.vault, sources, record, &requests);
        prior.lose(reads, lost);
        let more = prior.reads(reads);
        reads.extend(more);
        prior
    }

    /// What the target is to have, given what was found of the sources of the spec, which has an entry of `data` for each secret that
    /// the mirror looks for by name or tag: with what is to be gone back to or, where that can't be,
    /// without.
    pub(super) async fn next_content(
        &self,
        mirror: &KeyVaultMirror,
        spec: &KeyVaultMirrorSpec,
        sources: &[Source],
        found: &[Found],
        mut reverted: Reverted,
    ) -> Result<Next, Failure> {
        loop {
            let found = reverted.found(sources.len(), found);
            let missing = missing(sources, &found);
            let refusal = match data(spec, sources, found).await {
                Ok(rendered) => {
                    let data = Data { rendered, missing };
                    let desired = self.desired(mirror, &data.rendered, &reverted)?;
                    match reverted.check(&desired.keys) {
                        Ok(()) => {
                            return Ok(Next {
                                data,
                                objects: sources.len(),
                                desired,
                                reverted,
                            });
                        }
                        Err(refusal) => refusal,
                    }
                }
                Err(problem) if reverted.is_asked() => CannotRevert::Unusable(problem),
                Err(problem) => return Err(Failure::of_render(problem, missing)),
            };
            reverted.refuse(refusal);
        }
    }

    fn desired(
        &self,
        mirror: &KeyVaultMirror,
        rendered: &Rendered,
        reverted: &Reverted,
    ) -> Result<Desired, Refusal> {
        let namespace = mirror.namespace().unwrap_or_default();
        let target = &mirror.spec.target;
        let vault = self.suffixes.host(&mirror.spec.vault)?;
        let keys = rendered.iter().map(|(key, from)| {
            let place = Place {
                namespace: &namespace,
                kind: target.kind.as_str(),
                target: &target.name,
                key,
            };
            let object = record::object(&vault, from.kind, &from.object);
            let version = from.secret.version.clone();
            let content = Content {
                digest: self.digest_key.content(place, from.identity()),
                failed: reverted.failed(&object, &version).map(str::to_owned),
                object,
                version,
                updated: from.secret.updated,
                expires: from.secret.expires,
            };
            (key.clone(), content)
        });
        Ok(Desired {
            mirror: mirror.name_any(),
            uid: mirror.uid().unwrap_or_default(),
            owner: akv2k8s::owner(mirror)
                .map(|owner| owner.uid)
                .unwrap_or_default(),
            origin: akv2k8s::origin(mirror),
            digest_key: self.digest_key.id().to_owned(),
            immutable: target.immutable,
            deletion_policy: mirror.spec.deletion_policy,
            labels: target.labels.clone(),
            annotations: target.annotations.clone(),
            matched: matching::mark(&mirror.spec),
            keys: keys.collect(),
        })
    }
}

/// A version before the vault's that can't be read, and its place among the reads: it is that one alone, and waiting does not bring
/// it back.
pub(super) fn lost_prior(delivery: &Delivery, sources: usize) -> Option<(usize, VaultError)> {
    match delivery {
        Delivery::Failed { place, error } => {
            let is_lost = !error.kind.is_transient() && !error.kind.concerns_vault();
            (*place >= sources && is_lost).then(|| (*place, error.clone()))
        }
        Delivery::Content(found) => {
            let mut earlier = found.iter().enumerate().skip(sources);
            earlier
                .find_map(|(place, found)| Some((place, VaultError::clone(found.as_ref().err()?))))
        }
        Delivery::Unchanged => None,
    }
}

/// The objects that the vault does not have.
fn missing(sources: &[Source], found: &[Found]) -> Vec<MissingObject> {
    let missing = sources
        .iter()
        .zip(found)
        .filter(|(_, found)| found.is_err());
    let missing: BTreeSet<_> = missing
        .map(|(source, _)| (source.kind, source.name.clone()))
        .collect();
    let missing = missing.into_iter();
    missing
        .map(|(kind, name)| MissingObject { kind, name })
        .collect()
}

/// Renders a mirror's data of what was found of its sources. Where keys are derived from passwords, and by templates, that takes long
/// enough to be in the way of others.
async fn data(
    spec: &KeyVaultMirrorSpec,
    sources: &[Source],
    found: Vec<Found>,
) -> Result<Rendered, RenderError> {
    let (mut contents, mut missing) = (Vec::new(), BTreeSet::new());
    for (source, found) in sources.iter().cloned().zip(found) {
        match found {
            Ok(secret) => contents.push((source, secret)),
            Err(_) => {
                missing.insert(source);
            }
        }
    }
    let contents = contents.into_iter().collect();
    if spec.data_from.is_empty() && spec.template.is_none() && missing.is_empty() {
        return render::render(spec, &contents);
    }
    let spec = render::without(spec, &missing);
    let rendering = tokio::task::spawn_blocking(move || render::render(&spec, &contents));
    match rendering.await {
        Ok(rendered) => rendered,
        Err(died) => std::panic::resume_unwind(died.into_panic()),
    }
}
