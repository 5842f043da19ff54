//! What the controller would do for mirrors. It reads vaults as the controller does and decides by the same functions, and must
//! never write, nor let content out.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use kube::ResourceExt;

use super::{Preview, known_by_version, swept};
use crate::api::KeyVaultMirror;
use crate::mirror::akv2k8s;
use crate::mirror::apply::Targets;
use crate::mirror::cleanup::live;
use crate::mirror::content::lost_prior;
use crate::mirror::controller::Mirrors;
use crate::mirror::memory::MirrorId;
use crate::mirror::plan::Existing;
use crate::mirror::revert::PriorVersions;
use crate::mirror::status::Failure;
use crate::mirror::sweep::LiveMirrors;
use crate::mirror::target::Target;
use crate::mirror::target_name::TargetName;
use crate::mirror::wants::{Wants, if_missing};
use crate::vault::{self, Delivery, Identity, Notice, ReadKey, VaultError};

/// Nothing is looked at twice.
const ONCE: Duration = Duration::from_secs(86_400);

/// On what terms it is looked ahead.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Digests are made with the daemon's key. Otherwise content is known by its version.
    pub knows_digest_key: bool,
    /// Vaults are read as the identity of the environment, whichever the grants name.
    pub own_identity: bool,
}

/// A mirror whose objects are on their way.
struct Awaited<'a> {
    mirror: &'a Arc<KeyVaultMirror>,
    wants: Wants<'a>,
    existing: Option<Existing>,
    /// Versions before the vault's that can't be read.
    lost: BTreeMap<ReadKey, VaultError>,
}

/// Mirrors that are looked into.
#[derive(Default)]
struct Looking<'a> {
    /// Those of which it isn't known yet which objects they want.
    listing: HashMap<MirrorId, &'a Arc<KeyVaultMirror>>,
    awaited: HashMap<MirrorId, Awaited<'a>>,
    done: Vec<(Arc<KeyVaultMirror>, Result<Preview, Failure>)>,
}

impl Mirrors {
    /// What would become of the targets of these mirrors. `notices` are those of the vaults.
    pub async fn preview(
        &self,
        mirrors: Vec<Arc<KeyVaultMirror>>,
        mut notices: mpsc::UnboundedReceiver<Notice<MirrorId>>,
        terms: Terms,
    ) -> Vec<(Arc<KeyVaultMirror>, Result<Preview, Failure>)> {
        let mut looking = Looking::default();
        for mirror in &mirrors {
            self.begin(mirror, terms, &mut looking).await;
        }
        while !(looking.listing.is_empty() && looking.awaited.is_empty())
            && let Some(notice) = notices.next().await
        {
            let Notice::Ready(id) = notice else { continue };
            if let Some(mirror) = looking.listing.remove(&id) {
                self.begin(mirror, terms, &mut looking).await;
                continue;
            }
            let delivery = match self.vaults.take(&id) {
                None | Some(Delivery::Unchanged) => continue,
                Some(delivery) => delivery,
            };
            let Some(mut awaited) = looking.awaited.remove(&id) else {
                continue;
            };
            if let Some((place, error)) = lost_prior(&delivery, awaited.wants.sources.len()) {
                let read = self.reads(&mut awaited).0.swap_remove(place);
                awaited.lost.insert(read, error);
                self.look(&mut awaited);
                looking.awaited.insert(id, awaited);
                continue;
            }
            let preview = match delivery {
                Delivery::Content(found) => self.preview_one(&mut awaited, &found, terms).await,
                Delivery::Failed { place, error } => {
                    Err(Failure::of(&error, awaited.wants.sources.get(place)))
                }
                Delivery::Unchanged => continue,
            };
            self.vaults.forget(&id);
            looking.done.push((Arc::clone(awaited.mirror), preview));
        }
        looking.done
    }

    async fn begin<'a>(
        &self,
        mirror: &'a Arc<KeyVaultMirror>,
        terms: Terms,
        looking: &mut Looking<'a>,
    ) {
        let id = MirrorId::of(mirror);
        let preview = match self.awaited(mirror, &id, terms).await {
            Ok(None) => {
                looking.listing.insert(id, mirror);
                return;
            }
            Ok(Some(mut awaited)) if !awaited.wants.reads.is_empty() => {
                self.look(&mut awaited);
                looking.awaited.insert(id, awaited);
                return;
            }
            Ok(Some(mut awaited)) => self.preview_one(&mut awaited, &[], terms).await,
            Err(failure) => Err(failure),
        };
        self.vaults.forget(&id);
        looking.done.push((Arc::clone(mirror), preview));
    }

    async fn awaited<'a>(
        &self,
        mirror: &'a Arc<KeyVaultMirror>,
        id: &MirrorId,
        terms: Terms,
    ) -> Result<Option<Awaited<'a>>, Failure> {
        let namespace = mirror.namespace().unwrap_or_default();
        let target = TargetName::of(&mirror.spec.target);
        let watched = self.watched(&namespace, &target);
        let Some(mut wants) = self.wants(mirror, id, watched.as_ref())? else {
            return Ok(None);
        };
        if terms.own_identity {
            let reads = wants.reads.iter_mut();
            reads.for_each(|read| read.identity = Identity::Daemon);
        }
        let existing = match watched {
            Some(existing) => Some(existing),
            None => {
                let targets = Targets::new(self.client.clone(), &namespace, target.kind);
                let metadata = targets.metadata(&target.name).await?;
                metadata.map(|metadata| Target::of(metadata).existing())
            }
        };
        Ok(Some(Awaited {
            mirror,
            wants,
            existing,
            lost: BTreeMap::new(),
        }))
    }

    /// All that is to be read, and what of it are versions before the vault's.
    fn reads(&self, awaited: &mut Awaited<'_>) -> (Vec<ReadKey>, PriorVersions) {
        let Wants { sources, reads, .. } = &awaited.wants;
        let (mut all, existing) = (reads.clone(), awaited.existing.as_ref());
        let lost = &mut awaited.lost;
        let prior = self.add_prior_versions(awaited.mirror, sources, &mut all, existing, lost);
        (all, prior)
    }

    fn look(&self, awaited: &mut Awaited<'_>) {
        let (reads, _) = self.reads(awaited);
        let id = MirrorId::of(awaited.mirror);
        self.vaults
            .want(&id, &reads, ONCE, if_missing(awaited.mirror));
    }

    async fn preview_one(
        &self,
        awaited: &mut Awaited<'_>,
        found: &[vault::Found],
        terms: Terms,
    ) -> Result<Preview, Failure> {
        let (_, prior) = self.reads(awaited);
        let (mirror, Wants { spec, sources, .. }) = (awaited.mirror, &awaited.wants);
        let reverted = prior.open(sources.len(), found, self.clock.now())?;
        let mut next = self
            .next_content(mirror, spec, sources, found, reverted)
            .await?;
        if !terms.knows_digest_key {
            known_by_version(&mut next.desired, awaited.existing.as_ref());
        }
        let namespace = mirror.namespace().unwrap_or_default();
        let target = TargetName::of(&mirror.spec.target);
        let targets = Targets::new(self.client.clone(), &namespace, target.kind);
        self.look_inside(mirror, &next.desired, &targets, &mut awaited.existing)
            .await?;
        let existing = awaited.existing.as_ref();
        let planned = self.planned(mirror, &next, existing)?;
        let mut preview = Preview::of(namespace, &target, &next.desired, existing, planned)?;
        if !terms.knows_digest_key {
            preview.leave_out_digests();
        }
        Ok(preview)
    }

    /// What would be removed that mirrors left behind, by namespace and name those that `meant` is true of.
    pub fn preview_leftovers(&self, meant: impl Fn(&str, &str) -> bool) -> Vec<Preview> {
        let mirrors = self.mirrors.state();
        let live = live(&mirrors);
        let none = LiveMirrors::new();
        let swept = self.targets.all().flat_map(|(kind, target)| {
            let live = live.get(&*target.namespace).unwrap_or(&none);
            let name = TargetName::new(kind, &target.name);
            swept(&target.namespace, &name, target.existing(), live)
        });
        // Whether those of akv2k8s are still there, only the daemon looks.
        swept
            .filter(|preview| akv2k8s::resource_name(&preview.mirror).is_none())
            .filter(|preview| meant(&preview.namespace, &preview.mirror))
            .collect()
    }
}
