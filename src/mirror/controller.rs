//! Looks after each mirror: finds out what it may read and when, reads, and has the target written.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::core::PartialObjectMeta;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::Instrument;

use super::activity::Activity;
use super::apply::Targets;
use super::content::{Data, lost_prior};
use super::matching;
use super::memory::{Memories, Memory, MirrorId, Seen};
use super::revert::Reverted;
use super::revert_requests::RevertRequests;
use super::schedule::{backoff, interval};
use super::status::{Failure, Outcome};
use super::target::Target;
use super::target_name::TargetName;
use super::targets::TargetStores;
use super::wants::{Wants, if_missing};
use crate::api::{KeyVaultGrant, KeyVaultMirror};
use crate::clock::ServerClock;
use crate::daemon::Stop;
use crate::digest::DigestKey;
use crate::telemetry::{Events, Metrics};
use crate::vault::{Delivery, DnsSuffixes, Notice, Vaults};
use crate::watch::{self, Index};

/// Annotation that makes a mirror ask its vault at once, with any new value.
pub(super) const SYNC_NOW: &str = "keytide.dev/sync-now";
/// Pause after someone else wrote at the same moment.
const RACE_PAUSE: Duration = Duration::from_millis(500);
/// So many races in a row are nothing that anybody need hear of.
const QUIET_RACES: u32 = 5;
/// Longest time until a mirror looks at its validity again: timers can't be set for years.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);
/// Mirrors that are looked after at the same moment.
const CONCURRENCY: u16 = 64;

/// What the controller works with.
pub struct Mirrors {
    pub client: Client,
    pub vaults: Vaults<MirrorId>,
    pub clock: ServerClock,
    pub digest_key: DigestKey,
    pub suffixes: DnsSuffixes,
    /// No mirror asks its vault more often.
    pub min_refresh_interval: Duration,
    pub mirrors: Store<KeyVaultMirror>,
    /// Whether AzureKeyVaultSecrets are among them.
    pub akv2k8s: bool,
    pub mirrors_by_target: Index<KeyVaultMirror>,
    pub grants: Store<KeyVaultGrant>,
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// ServiceAccounts that mirrors may read as; none where that is off.
    pub accounts: Option<Store<PartialObjectMeta<ServiceAccount>>>,
    pub targets: TargetStores,
    pub activity: Activity,
    /// What failed rollouts ask to have taken back.
    pub reverts: RevertRequests,
    pub events: Events,
    pub metrics: Arc<Metrics>,
    pub memories: Memories,
    /// Says that a mirror came, went or has another target, so that leftovers may be there.
    pub mirrors_touched: Arc<Notify>,
}

/// Things that make mirrors look again.
pub struct Triggers {
    /// Mirrors that came or changed.
    pub mirrors: mpsc::UnboundedReceiver<ObjectRef<KeyVaultMirror>>,
    /// Targets that were touched.
    pub targets: mpsc::UnboundedReceiver<ObjectRef<KeyVaultMirror>>,
    /// Grants that were touched.
    pub grants: mpsc::UnboundedReceiver<()>,
    /// Mirrors that there is content for, or no content.
    pub vaults: mpsc::UnboundedReceiver<Notice<MirrorId>>,
    /// Targets with content that failed rollouts ask to have taken back.
    pub reverts: mpsc::UnboundedReceiver<(String, TargetName)>,
}

/// Runs the controller until `stop`, and then until what is under way is done. Before, no vault is asked for anything.
pub async fn run(mirrors: Arc<Mirrors>, triggers: Triggers, stop: Stop) {
    let store = mirrors.mirrors.clone();
    let refused = futures::stream::iter(mirrors.want_all());
    let activity = mirrors.activity.clone();
    let vaults = triggers.vaults.filter_map(move |notice| {
        std::future::ready(match notice {
            Notice::Ready(mirror) => Some(mirror.reference()),
            Notice::Awaits(mirror) => {
                activity.awaits(mirror.namespace(), mirror.name());
                None
            }
        })
    });
    let by_target = mirrors.mirrors_by_target.clone();
    let reverts = triggers.reverts.flat_map(move |(namespace, target)| {
        futures::stream::iter(by_target.get(&namespace, &target.to_string()))
    });
    let touched = futures::stream::select(refused.chain(triggers.mirrors), triggers.targets);
    let touched = futures::stream::select(touched, reverts);
    let sweeping = Arc::clone(&mirrors).sweep_until(stop.clone());
    let controller = Controller::for_stream(futures::stream::pending(), store)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(futures::stream::select(touched, vaults))
        .reconcile_all_on(triggers.grants)
        .graceful_shutdown_on(stop)
        .run(Mirrors::reconcile, |_, error, _| match *error {}, mirrors)
        .for_each(|_| std::future::ready(()));
    futures::join!(controller, sweeping);
}

/// The mirrors that have a part in a target.
pub fn mirrors_of(target: &Target) -> Vec<ObjectRef<KeyVaultMirror>> {
    target
        .records()
        .values()
        .map(|record| watch::reference(&target.namespace, &record.mirror))
        .collect()
}

/// What an attempt came to where nothing failed.
pub(super) enum Attempt {
    /// All is as it was when it last was in sync.
    Unchanged,
    /// Content is on its way.
    Waiting,
    Mirrored {
        data: Data,
        reverted: Reverted,
        /// Whether content was written, and when it last was.
        changed: bool,
        last_change: Option<Timestamp>,
        /// Whether the target was somebody else's once.
        adopted: bool,
    },
}

impl Mirrors {
    async fn reconcile(
        mirror: Arc<KeyVaultMirror>,
        this: Arc<Self>,
    ) -> Result<Action, std::convert::Infallible> {
        if mirror.metadata.deletion_timestamp.is_some() || this.is_namespace_leaving(&mirror) {
            let id = MirrorId::of(&mirror);
            this.vaults.forget(&id);
            // Somebody's finalizer may keep it for long.
            this.activity.forget(id.namespace(), id.name());
            return Ok(Action::await_change());
        }
        // Not `name`: under that, a line of JSON has the name of the span.
        let span = tracing::info_span!(
            "mirror",
            namespace = mirror.namespace(),
            mirror = mirror.name_any()
        );
        // Each on a task of its own, because the controller polls all of them whenever one moves.
        let mut task = JoinSet::new();
        task.spawn(async move { this.reconcile_one(&mirror).await }.instrument(span));
        match task.join_next().await {
            Some(Ok(action)) => Ok(action),
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The daemon ends.
            Some(Err(_)) | None => Ok(Action::await_change()),
        }
    }

    async fn reconcile_one(&self, mirror: &KeyVaultMirror) -> Action {
        let id = MirrorId::of(mirror);
        let mut memory = self.memories.of(&id);
        self.notice_akv2k8s(mirror, &mut memory).await;
        let attempt = self.attempt(mirror, &id, &mut memory).await;
        let now = self.clock.now();
        let outcome = match &attempt {
            Ok(Attempt::Waiting) => {
                self.memories.keep(id, memory);
                return Action::await_change();
            }
            Ok(Attempt::Unchanged) => Outcome::Unchanged,
            Ok(Attempt::Mirrored {
                data,
                reverted,
                changed,
                last_change,
                adopted,
            }) => Outcome::Mirrored {
                rendered: &data.rendered,
                missing: &data.missing,
                reverted,
                changed: *changed,
                last_change: *last_change,
                adopted: *adopted,
            },
            Err(failure) => Outcome::Failed(failure),
        };
        let failure = attempt.as_ref().err();
        memory.failures = failure.map_or(0, |_| memory.failures.saturating_add(1));
        let quiet = matches!(failure, Some(Failure::Raced(_))) && memory.failures <= QUIET_RACES;
        let told = quiet || self.report(mirror, &mut memory, &outcome, now).await;
        if !matches!(outcome, Outcome::Unchanged) {
            let failed = failure.is_some();
            self.activity.ended(id.namespace(), id.name(), failed, now);
            self.metrics.reconciled("mirror", !failed);
        }
        // While only the vault fails, the target still is as it was.
        if failure.is_some_and(|failure| !matches!(failure, Failure::Vault(_))) {
            (memory.seen, memory.looked) = (None, None);
        }
        let mut action = self.next(mirror, &memory, failure, now);
        memory.untold = if told {
            0
        } else {
            memory.untold.saturating_add(1)
        };
        if !told {
            // So that the next attempt tells it, though there is nothing else to do.
            memory.seen = None;
            action = Action::requeue(backoff(memory.untold, LONGEST_WAIT));
        }
        self.memories.keep(id, memory);
        action
    }

    async fn attempt(
        &self,
        mirror: &KeyVaultMirror,
        id: &MirrorId,
        memory: &mut Memory,
    ) -> Result<Attempt, Failure> {
        let sync_now = mirror.annotations().get(SYNC_NOW).cloned();
        let before = memory.sync_now.replace(sync_now.clone());
        let is_asked = before.is_some_and(|before| before != sync_now);
        if is_asked {
            memory.lost.clear();
            self.vaults.list_anew(id);
        }
        let target = TargetName::of(&mirror.spec.target);
        let targets = Targets::new(self.client.clone(), id.namespace(), target.kind);
        let existing = async |memory: &Memory| {
            self.existing(&targets, id.namespace(), &target, memory)
                .await
                // As long as content is not taken, the vaults hold it, and at some point hold back.
                .inspect_err(|_| drop(self.vaults.take(id)))
        };
        // What a mirror looks for by name or tag depends on what it has.
        let has = match matching::is_in(&mirror.spec) {
            true => Some(existing(memory).await?),
            false => None,
        };
        let wants = self
            .wants(mirror, id, has.as_ref().and_then(Option::as_ref))
            .inspect_err(|failure| match failure {
                Failure::Refused(_) => self.vaults.forget(id),
                // What the vault lists may end it.
                _ => self.vaults.unwant(id),
            })?;
        let Some(Wants {
            spec,
            sources,
            mut reads,
            interval,
        }) = wants
        else {
            self.vaults.unwant(id);
            self.activity.begin(id.namespace(), id.name(), target);
            return Ok(Attempt::Waiting);
        };
        let existing = match has {
            Some(existing) => existing,
            None => existing(memory).await?,
        };
        let there = existing
            .as_ref()
            .map(|existing| existing.resource_version.clone());
        let as_looked = memory.looked.get_or_insert_with(|| there.clone()) == &there;
        // No content is older than what is there where there is none.
        let as_looked = as_looked || reads.is_empty();
        let now = self.clock.now();
        if memory.tries_lost_again(interval, now) {
            memory.lost.clear();
        }
        let lost = &mut memory.lost;
        let prior = self.add_prior_versions(mirror, &sources, &mut reads, existing.as_ref(), lost);
        if reads.is_empty() {
            self.vaults.unwant(id);
        } else {
            self.vaults.want(id, &reads, interval, if_missing(mirror));
        }
        if is_asked {
            self.vaults.ask_anew(id);
        }
        let is_as_seen = |seen: &Seen| seen.holds(mirror, sources.len(), there.as_deref(), now);
        let in_sync = as_looked && memory.seen.as_ref().is_some_and(is_as_seen);
        let delivery = if reads.is_empty() {
            (!in_sync).then(|| Delivery::Content(Vec::new()))
        } else {
            self.vaults.take(id)
        };
        if let Some((place, error)) = delivery
            .as_ref()
            .and_then(|it| lost_prior(it, sources.len()))
        {
            self.activity.begin(id.namespace(), id.name(), target);
            memory.lose(reads[place].clone(), error, now);
            // What the vault has now is to be had without it.
            let lost = &mut memory.lost;
            self.add_prior_versions(mirror, &sources, &mut reads, existing.as_ref(), lost);
            self.vaults.want(id, &reads, interval, if_missing(mirror));
            return Ok(Attempt::Waiting);
        }
        match delivery {
            Some(Delivery::Content(found)) if as_looked => {
                self.activity.begin(id.namespace(), id.name(), target);
                let reverted = prior
                    .open(sources.len(), &found, now)
                    // The vaults don't hold this failure, so that it has to be found again.
                    .inspect_err(|_| memory.seen = None)?;
                let next = self
                    .next_content(mirror, &spec, &sources, &found, reverted)
                    .await?;
                self.write(mirror, next, &targets, existing, memory).await
            }
            Some(Delivery::Failed { place, error }) => Err(Failure::of(&error, sources.get(place))),
            Some(Delivery::Unchanged) | None if in_sync => {
                // Without either, content may still be on its way.
                if delivery.is_some() || reads.is_empty() {
                    self.activity.ended(id.namespace(), id.name(), false, now);
                }
                Ok(Attempt::Unchanged)
            }
            Some(Delivery::Content(_) | Delivery::Unchanged) | None => {
                self.activity.begin(id.namespace(), id.name(), target);
                if as_looked {
                    self.vaults.ask(id);
                } else {
                    memory.looked = Some(there);
                    self.vaults.ask_anew(id);
                }
                Ok(Attempt::Waiting)
            }
        }
    }

    /// Whether the mirror's namespace is being deleted, and takes no new target in place of one that went before.
    fn is_namespace_leaving(&self, mirror: &KeyVaultMirror) -> bool {
        let namespace = mirror.namespace().unwrap_or_default();
        let metadata = self.namespaces.get(&ObjectRef::new(&namespace));
        metadata.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some())
    }

    fn next(
        &self,
        mirror: &KeyVaultMirror,
        memory: &Memory,
        failure: Option<&Failure>,
        now: Timestamp,
    ) -> Action {
        let interval = interval(&mirror.spec.refresh_interval, self.min_refresh_interval);
        let interval = interval.unwrap_or(self.min_refresh_interval);
        match failure {
            Some(Failure::Vault(_)) if !memory.lost.is_empty() => Action::requeue(interval),
            // Each of these is told when something changes: by the vault, the grants, the target, or the mirror itself.
            Some(
                Failure::Vault(_)
                | Failure::Refused(_)
                | Failure::InvalidSpec(_)
                | Failure::Content(_)
                | Failure::Unfit(_)
                | Failure::TooLarge(_)
                | Failure::Template(_)
                | Failure::Match(_)
                | Failure::TooManyKeys(_)
                | Failure::Unlisted(_),
            ) => Action::await_change(),
            Some(Failure::Raced(_)) if memory.failures <= QUIET_RACES => {
                Action::requeue(RACE_PAUSE)
            }
            Some(Failure::ApiServer(_) | Failure::Raced(_)) => {
                Action::requeue(backoff(memory.failures, interval))
            }
            Some(Failure::Conflict(_) | Failure::Rejected { .. }) => Action::requeue(interval),
            None => {
                let valid_until = memory.seen.as_ref().and_then(|seen| seen.valid_until);
                let wait = valid_until.map(|until| {
                    let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                    wait.min(LONGEST_WAIT)
                });
                let lost = (!memory.lost.is_empty()).then_some(interval);
                let next = wait.into_iter().chain(lost).min();
                next.map_or_else(Action::await_change, Action::requeue)
            }
        }
    }
}
