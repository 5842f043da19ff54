//! Looks after each mirror: finds out what it may read and when, reads, and has the target written.

use std::collections::{BTreeMap, BTreeSet};
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

use super::account::{self, UnusableAccount};
use super::activity::Activity;
use super::apply::Targets;
use super::grant::{self, Applicant, Refusal};
use super::memory::{Memories, Memory, MirrorId, Seen};
use super::plan::{Desired, Existing, Plan, Rival, plan};
use super::record::{Content, Record};
use super::schedule::{backoff, interval};
use super::status::{Failure, Outcome};
use super::target::Target;
use crate::api::{KeyVaultGrant, KeyVaultMirror};
use crate::clock::ServerClock;
use crate::daemon::Stop;
use crate::digest::{DigestKey, Place};
use crate::render::{self, Contents, Rendered, Source, sources};
use crate::telemetry::{Events, Metrics};
use crate::vault::{self, Delivery, DnsSuffixes, Notice, ReadKey, Vaults};
use crate::watch::{self, Index};

/// Annotation that makes a mirror ask its vault at once, with any new value.
const SYNC_NOW: &str = "keytide.dev/sync-now";
/// Pause after someone else wrote at the same moment.
const RACE_PAUSE: Duration = Duration::from_millis(500);
/// So many races in a row are nothing that anybody need hear of.
const QUIET_RACES: u32 = 5;
/// Pause after a status could not be written.
const UNTOLD_PAUSE: Duration = Duration::from_secs(2);
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
    pub mirrors_by_target: Index<KeyVaultMirror>,
    pub grants: Store<KeyVaultGrant>,
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// ServiceAccounts that mirrors may read as; none where that is off.
    pub accounts: Option<Store<PartialObjectMeta<ServiceAccount>>>,
    pub targets: Store<Target>,
    pub activity: Activity,
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
    let touched = futures::stream::select(refused.chain(triggers.mirrors), triggers.targets);
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

/// What a mirror wants of its vault.
struct Wants {
    sources: Vec<Source>,
    /// One for each source.
    reads: Vec<ReadKey>,
    interval: Duration,
}

/// What an attempt came to where nothing failed.
enum Attempt {
    /// All is as it was when it last was in sync.
    Unchanged,
    /// Content is on its way.
    Waiting,
    Mirrored {
        rendered: Rendered,
        /// Whether content was written, and when it last was.
        changed: bool,
        last_change: Option<Timestamp>,
    },
}

impl Mirrors {
    /// Wants the objects of all mirrors at once, so that mirrors of one object share its first read too. They are looked after
    /// when there is content; those that may not have any are given, to be told so.
    fn want_all(&self) -> Vec<ObjectRef<KeyVaultMirror>> {
        let mut refused = Vec::new();
        for mirror in self.mirrors.state() {
            if mirror.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let id = MirrorId::of(&mirror);
            let Ok(Wants {
                reads, interval, ..
            }) = self.wants(&mirror)
            else {
                refused.push(id.reference());
                continue;
            };
            let target = &mirror.spec.target.name;
            let watched = self.watched(id.namespace(), target);
            // Kept also so that it is forgotten should it go before it is looked at.
            let memory = Memory {
                looked: Some(watched.map(|existing| existing.resource_version)),
                sync_now: Some(mirror.annotations().get(SYNC_NOW).cloned()),
                ..Memory::default()
            };
            self.memories.keep(id.clone(), memory);
            self.activity.begin(id.namespace(), id.name(), target);
            self.vaults.want(&id, &reads, interval);
        }
        refused
    }

    async fn reconcile(
        mirror: Arc<KeyVaultMirror>,
        this: Arc<Self>,
    ) -> Result<Action, std::convert::Infallible> {
        if mirror.metadata.deletion_timestamp.is_some() {
            this.vaults.forget(&MirrorId::of(&mirror));
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
        let attempt = self.attempt(mirror, &id, &mut memory).await;
        let now = self.clock.now();
        let outcome = match &attempt {
            Ok(Attempt::Waiting) => {
                self.memories.keep(id, memory);
                return Action::await_change();
            }
            Ok(Attempt::Unchanged) => Outcome::Unchanged,
            Ok(Attempt::Mirrored {
                rendered,
                changed,
                last_change,
            }) => Outcome::Mirrored {
                rendered,
                changed: *changed,
                last_change: *last_change,
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
        if !told {
            // So that the next attempt tells it, though there is nothing else to do.
            memory.seen = None;
            action = Action::requeue(UNTOLD_PAUSE);
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
        let Wants {
            sources,
            reads,
            interval,
        } = self.wants(mirror).inspect_err(|_| self.vaults.forget(id))?;
        let target = &mirror.spec.target.name;
        let targets = Targets::new(self.client.clone(), id.namespace());
        let existing = self
            .existing(&targets, id.namespace(), target, memory)
            .await
            // As long as content is not taken, the vaults hold it, and at some point hold back.
            .inspect_err(|_| drop(self.vaults.take(id)))?;
        let there = existing
            .as_ref()
            .map(|existing| existing.resource_version.clone());
        let as_looked = memory.looked.get_or_insert_with(|| there.clone()) == &there;
        self.vaults.want(id, &reads, interval);
        let sync_now = mirror.annotations().get(SYNC_NOW).cloned();
        let before = memory.sync_now.replace(sync_now.clone());
        if before.is_some_and(|before| before != sync_now) {
            self.vaults.ask_anew(id);
        }
        let now = self.clock.now();
        let in_sync = as_looked
            && memory.seen.as_ref().is_some_and(|seen| {
                seen.generation == mirror.metadata.generation
                    && Some(&seen.target) == there.as_ref()
                    && seen.valid_until.is_none_or(|until| now < until)
            });
        match self.vaults.take(id) {
            Some(Delivery::Content(content)) if as_looked => {
                self.activity.begin(id.namespace(), id.name(), target);
                let contents = sources.into_iter().zip(content).collect();
                let rendered = rendered(mirror, contents).await?;
                self.write(mirror, &reads, rendered, &targets, existing, memory)
                    .await
            }
            Some(Delivery::Failed(error)) => Err(error.into()),
            Some(Delivery::Unchanged) | None if in_sync => Ok(Attempt::Unchanged),
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

    /// Brings the target to the content of all of the mirror's objects.
    async fn write(
        &self,
        mirror: &KeyVaultMirror,
        reads: &[ReadKey],
        rendered: Rendered,
        targets: &Targets,
        existing: Option<Existing>,
        memory: &mut Memory,
    ) -> Result<Attempt, Failure> {
        let target = &mirror.spec.target.name;
        let desired = self.desired(mirror, reads, &rendered);
        let rivals = self.rivals(mirror);
        let planned = plan(
            target,
            mirror.spec.target.type_,
            &desired,
            existing.as_ref(),
            &rivals,
            self.clock.now(),
        );
        let (resource_version, changed, last_change) = match planned {
            Plan::Conflict(conflict) => return Err(conflict.into()),
            Plan::InSync(existing) => {
                let record = existing.records.get(&desired.uid);
                let last_change = record.and_then(Record::last_change);
                (existing.resource_version.clone(), false, last_change)
            }
            Plan::Write(write) => {
                let resource_version = targets.write(mirror, &write, &rendered).await?;
                self.metrics
                    .target_written(&mirror.namespace().unwrap_or_default());
                tracing::info!(%target, keys = rendered.len(), content = write.changes_content, "Secret written");
                let last_change = write.record.last_change();
                (resource_version, write.changes_content, last_change)
            }
        };
        memory.looked = Some(Some(resource_version.clone()));
        memory.seen = Some(Seen {
            generation: mirror.metadata.generation,
            target: resource_version,
            valid_until: valid_until(&rendered, self.clock.now()),
        });
        Ok(Attempt::Mirrored {
            rendered,
            changed,
            last_change,
        })
    }

    /// What a mirror may read, and how often that is looked at.
    fn wants(&self, mirror: &KeyVaultMirror) -> Result<Wants, Failure> {
        let mut keys = BTreeSet::new();
        if let Some(twice) = render::keys(&mirror.spec)
            .into_iter()
            .find(|key| !keys.insert(*key))
        {
            return Err(Failure::InvalidSpec(format!(
                "key {twice} is given twice by spec.data and spec.dataFrom; leave one of them"
            )));
        }
        let sources = sources(&mirror.spec);
        let grants = self.grants.state();
        let namespace = mirror.namespace().unwrap_or_default();
        let metadata = self.namespaces.get(&ObjectRef::new(&namespace));
        let none = BTreeMap::new();
        let applicant = Applicant {
            namespace: &namespace,
            labels: metadata
                .as_ref()
                .map_or(&none, |metadata| metadata.labels()),
            account: self.account(mirror)?,
        };
        let reads = grant::reads(
            &applicant,
            &mirror.spec,
            &sources,
            grants.iter().map(|g| &g.spec),
            &self.suffixes,
        )?;
        if reads.is_empty() {
            return Err(Failure::InvalidSpec(
                "spec.data and spec.dataFrom are empty; name at least one object".to_owned(),
            ));
        }
        interval(&mirror.spec.refresh_interval, self.min_refresh_interval)
            .map(|interval| Wants {
                sources,
                reads,
                interval,
            })
            .map_err(Failure::InvalidSpec)
    }

    /// The ServiceAccount that the mirror names, if it names one.
    fn account(&self, mirror: &KeyVaultMirror) -> Result<Option<vault::ServiceAccount>, Refusal> {
        let Some(identity) = &mirror.spec.identity else {
            return Ok(None);
        };
        let name = &identity.service_account_name;
        let Some(accounts) = &self.accounts else {
            return Err(UnusableAccount::Off(name.clone()).into());
        };
        let namespace = mirror.namespace().unwrap_or_default();
        let metadata = accounts.get(&watch::reference(&namespace, name));
        Ok(Some(account::usable(name, metadata.as_deref())?))
    }

    /// The target as it is: from the watch if that is as new as the last write, else from the API server. At first the watch
    /// is believed even where it has none, since a first write is refused if there is one.
    async fn existing(
        &self,
        targets: &Targets,
        namespace: &str,
        name: &str,
        memory: &Memory,
    ) -> Result<Option<Existing>, Failure> {
        let watched = self.watched(namespace, name);
        match (&memory.seen, watched) {
            (None, watched) if memory.failures == 0 => Ok(watched),
            (Some(seen), Some(existing)) if existing.resource_version == seen.target => {
                Ok(Some(existing))
            }
            _ => Ok(targets
                .metadata(name)
                .await?
                .map(|secret| Target::of(secret).existing())),
        }
    }

    fn watched(&self, namespace: &str, name: &str) -> Option<Existing> {
        self.targets
            .get(&watch::reference(namespace, name))
            .map(|target| target.existing())
    }

    fn desired(&self, mirror: &KeyVaultMirror, reads: &[ReadKey], rendered: &Rendered) -> Desired {
        let namespace = mirror.namespace().unwrap_or_default();
        let target = &mirror.spec.target;
        let vault = reads
            .first()
            .map(|read| read.vault.to_string())
            .unwrap_or_default();
        let keys = rendered.iter().map(|(key, from)| {
            let place = Place {
                namespace: &namespace,
                kind: "Secret",
                target: &target.name,
                key,
            };
            let content = Content {
                digest: self.digest_key.content(place, from.identity()),
                object: format!("{vault}/{}s/{}", from.kind, from.object),
                version: from.secret.version.clone(),
                updated: from.secret.updated,
            };
            (key.clone(), content)
        });
        Desired {
            mirror: mirror.name_any(),
            uid: mirror.uid().unwrap_or_default(),
            digest_key: self.digest_key.id().to_owned(),
            deletion_policy: mirror.spec.deletion_policy,
            labels: target.labels.clone(),
            annotations: target.annotations.clone(),
            keys: keys.collect(),
        }
    }

    fn rivals(&self, mirror: &KeyVaultMirror) -> Vec<Rival> {
        let precedence = |mirror: &KeyVaultMirror| {
            (mirror.creation_timestamp().map(|time| time.0), mirror.uid())
        };
        let namespace = mirror.namespace().unwrap_or_default();
        self.mirrors_by_target
            .get(&namespace, &mirror.spec.target.name)
            .iter()
            .filter_map(|other| self.mirrors.get(other))
            .filter(|other| {
                other.uid() != mirror.uid()
                    && other.spec.target.name == mirror.spec.target.name
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
            // Each of these is told when something changes: by the vault, the grants, or the mirror itself.
            Some(
                Failure::Vault(_)
                | Failure::Refused(_)
                | Failure::InvalidSpec(_)
                | Failure::Content(_),
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
                valid_until.map_or_else(Action::await_change, |until| {
                    let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
                    Action::requeue(wait.min(LONGEST_WAIT))
                })
            }
        }
    }
}

/// Renders a mirror's data. Where keys are derived from passwords, that takes long enough to be in the way of others.
async fn rendered(mirror: &KeyVaultMirror, contents: Contents) -> Result<Rendered, Failure> {
    if mirror.spec.data_from.is_empty() {
        return Ok(render::render(&mirror.spec, &contents)?);
    }
    let spec = mirror.spec.clone();
    let rendering = tokio::task::spawn_blocking(move || render::render(&spec, &contents));
    match rendering.await {
        Ok(rendered) => Ok(rendered?),
        Err(died) => std::panic::resume_unwind(died.into_panic()),
    }
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
