//! All vaults, for those who want objects of them.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use futures::channel::mpsc::UnboundedSender;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::budget::Budget;
use super::client::VaultClient;
use super::engine::Engine;
use super::governor::{Limits, Priority};
use super::hints::{self, Dropped, Hint, Queue};
use super::rosters::{self, Rosters};
use super::subscriptions::{Delivery, Effect, IfMissing, Subscriptions};
use super::survey::{ObjectId, Roster, Settings};
use super::task::{Command, Task, random};
use super::token::RenewingCredential;
use super::{
    Collection, CredentialKind, Identity, ReadKey, ServiceAccountTokens, Transport, VaultError,
    VaultHost,
};
use crate::telemetry::Metrics;

/// Whoever can want objects: a mirror.
pub trait Subscriber: Clone + Eq + Hash + Send + Sync + fmt::Debug + 'static {}

impl<S: Clone + Eq + Hash + Send + Sync + fmt::Debug + 'static> Subscriber for S {}

/// How vaults are asked.
pub struct Config {
    pub transport: Transport,
    pub credential: CredentialKind,
    pub accounts: Arc<dyn ServiceAccountTokens>,
    pub settings: Settings,
    pub limits: Limits,
    pub metrics: Arc<Metrics>,
}

/// What a subscriber is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Notice<S> {
    /// Content is on its way.
    Awaits(S),
    /// There is something to take.
    Ready(S),
}

/// A vault as one identity sees it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Account {
    pub vault: VaultHost,
    pub identity: Identity,
}

impl Account {
    pub(super) fn key(&self, id: ObjectId) -> ReadKey {
        ReadKey {
            vault: self.vault.clone(),
            identity: self.identity.clone(),
            collection: id.collection,
            name: id.name,
            version: id.version,
        }
    }
}

/// All vaults. They are asked only for what subscribers want, and no more once this is dropped.
pub struct Vaults<S: Subscriber> {
    shared: Arc<Shared<S>>,
}

/// What the tasks of all vaults have in common.
pub struct Shared<S> {
    pub(super) config: Config,
    pub(super) budget: Budget,
    /// Locked before `tasks`, where both are.
    subscriptions: Mutex<Subscriptions<S>>,
    /// Locked before `tasks` too, and never together with `subscriptions`.
    rosters: Mutex<Rosters<S>>,
    tasks: Mutex<HashMap<Arc<Account>, mpsc::UnboundedSender<Command>>>,
    /// One per identity, not per vault: the token for one vault serves all of its cloud.
    credentials: Mutex<HashMap<Identity, Weak<RenewingCredential>>>,
    ready: watch::Sender<usize>,
    notices: UnboundedSender<Notice<S>>,
}

impl<S: Subscriber> Vaults<S> {
    /// Subscribers are told by `notices`.
    pub fn new(config: Config, notices: UnboundedSender<Notice<S>>) -> Self {
        let shared = Shared {
            config,
            budget: Budget::default(),
            subscriptions: Mutex::default(),
            rosters: Mutex::default(),
            tasks: Mutex::default(),
            credentials: Mutex::default(),
            ready: watch::Sender::new(0),
            notices,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Takes in which objects a subscriber wants, and how often they are looked at. It is given the content when it first wants them, and
    /// whenever it changes.
    pub fn want(
        &self,
        subscriber: &S,
        reads: &[ReadKey],
        interval: Duration,
        if_missing: IfMissing,
    ) {
        self.shared
            .change(|subscriptions| subscriptions.want(subscriber, reads, interval, if_missing));
    }

    /// Has a subscriber given the content though it may not have changed.
    pub fn ask(&self, subscriber: &S) {
        self.shared
            .change(|subscriptions| subscriptions.ask(subscriber, Priority::New, None));
    }

    /// The same, from reads that begin after this.
    pub fn ask_anew(&self, subscriber: &S) {
        let now = Some(Instant::now());
        self.shared
            .change(|subscriptions| subscriptions.ask(subscriber, Priority::Hinted, now));
    }

    /// Takes in of which vaults a subscriber wants to know what secrets there are, and gives what is known of each, none where that is
    /// nothing yet. It is told when there is something else to know.
    pub fn rosters(
        &self,
        subscriber: &S,
        accounts: &[Account],
        interval: Duration,
    ) -> Vec<Option<Result<Roster, VaultError>>> {
        let mut known = Vec::new();
        self.shared.change_rosters(|rosters| {
            let effects = rosters.want(subscriber, accounts, interval);
            known = accounts.iter().map(|account| rosters.of(account)).collect();
            effects
        });
        known
    }

    /// Lists those vaults now.
    pub fn list_anew(&self, subscriber: &S) {
        for account in lock(&self.shared.rosters).watched(subscriber) {
            self.shared.send(account, Command::Relist);
        }
    }

    /// Has an object read because somebody says that it changed, if it is wanted at all.
    pub(super) fn hint(&self, hint: Hint) -> Result<(), Dropped> {
        let subscriptions = lock(&self.shared.subscriptions);
        let tasks = lock(&self.shared.tasks);
        let mut tasks = tasks
            .iter()
            .filter(|(account, _)| account.vault.as_str() == hint.vault)
            .peekable();
        if tasks.peek().is_none() {
            return Err(Dropped::UnknownVault);
        }
        // A certificate is in all three, under one name and version.
        let collections: &[Collection] = match hint.collection {
            Collection::Secrets => &[Collection::Secrets],
            Collection::Keys => &[Collection::Keys],
            Collection::Certificates => &[
                Collection::Certificates,
                Collection::Secrets,
                Collection::Keys,
            ],
        };
        let ids = collections.iter().map(|collection| ObjectId {
            collection: *collection,
            name: hint.name.clone(),
            version: None,
        });
        let ids: Vec<ObjectId> = ids.collect();
        let mut dropped = Err(Dropped::Unwanted);
        for (account, task) in tasks {
            let wanted = |id: &&ObjectId| subscriptions.wants(&account.key((*id).clone()));
            for id in ids.iter().filter(wanted) {
                let (id, version) = (id.clone(), hint.version.clone());
                // A task that is gone has panicked, which is reported elsewhere.
                let _ = task.send(Command::Hint { id, version });
                dropped = Ok(());
            }
        }
        dropped
    }

    /// Follows a queue of hints, for ever. An error means that it can't be followed at all.
    pub async fn follow(&self, source: hints::Source) -> azure_core::Result<Infallible> {
        let config = &self.shared.config;
        let credential = self.shared.credential(&source.identity);
        let queue = Queue::new(source.queue, &config.transport, credential)?;
        Ok(hints::follow(queue, source.pause, self, &config.metrics).await)
    }

    /// Takes what there is for a subscriber.
    pub fn take(&self, subscriber: &S) -> Option<Delivery> {
        let mut delivery = None;
        self.shared.change(|subscriptions| {
            delivery = subscriptions.take(subscriber);
            Vec::new()
        });
        delivery
    }

    /// Takes in that a subscriber wants no objects for now, of whatever vaults it may watch.
    pub fn unwant(&self, subscriber: &S) {
        self.shared
            .change(|subscriptions| subscriptions.forget(subscriber));
    }

    /// Forgets a subscriber.
    pub fn forget(&self, subscriber: &S) {
        self.unwant(subscriber);
        self.shared
            .change_rosters(|rosters| rosters.want(subscriber, &[], Duration::MAX));
    }
}

impl<S: Subscriber> Drop for Vaults<S> {
    fn drop(&mut self) {
        lock(&self.shared.tasks).clear();
    }
}

impl<S: Subscriber> Shared<S> {
    /// Changes the subscriptions, and carries out what follows before anybody else changes them.
    pub(super) fn change(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Subscriptions<S>) -> Vec<Effect<S>>,
    ) {
        let mut subscriptions = lock(&self.subscriptions);
        for effect in change(&mut subscriptions) {
            match effect {
                Effect::Want(key, interval) => {
                    self.command(&key, Command::Want(id(&key), interval));
                }
                Effect::Unwant(key) => self.command(&key, Command::Unwant(id(&key))),
                Effect::Ask {
                    key,
                    priority,
                    fresh,
                } => {
                    let id = id(&key);
                    let ask = Command::Ask {
                        id,
                        priority,
                        fresh,
                    };
                    self.command(&key, ask);
                }
                Effect::Awaits(subscriber) => self.notify(Notice::Awaits(subscriber)),
                Effect::Ready(subscriber) => self.notify(Notice::Ready(subscriber)),
            }
        }
        let ready = subscriptions.ready();
        self.ready
            .send_if_modified(|before| std::mem::replace(before, ready) != ready);
    }

    /// The same of the watched lists.
    pub(super) fn change_rosters(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Rosters<S>) -> Vec<rosters::Effect<S>>,
    ) {
        let mut rosters = lock(&self.rosters);
        for effect in change(&mut rosters) {
            match effect {
                rosters::Effect::Watch(account, interval) => {
                    self.send(account, Command::Watch(interval));
                }
                rosters::Effect::Unwatch(account) => self.send(account, Command::Unwatch),
                rosters::Effect::Ready(subscriber) => self.notify(Notice::Ready(subscriber)),
            }
        }
    }

    fn notify(&self, notice: Notice<S>) {
        // A receiver that is gone means that the daemon ends.
        let _ = self.notices.unbounded_send(notice);
    }

    fn command(self: &Arc<Self>, key: &ReadKey, command: Command) {
        let account = Account {
            vault: key.vault.clone(),
            identity: key.identity.clone(),
        };
        self.send(Arc::new(account), command);
    }

    /// Tells a vault's task, which begins with the first object or list that is wanted.
    fn send(self: &Arc<Self>, account: Arc<Account>, command: Command) {
        let mut tasks = lock(&self.tasks);
        let task = match (tasks.get(&account), &command) {
            (Some(task), _) => task.clone(),
            (None, Command::Want(..) | Command::Watch(_)) => {
                let task = self.begin(Arc::clone(&account));
                tasks.insert(account, task.clone());
                task
            }
            (None, _) => return,
        };
        // A task that is gone has panicked, which is reported elsewhere.
        let _ = task.send(command);
    }

    fn begin(self: &Arc<Self>, account: Arc<Account>) -> mpsc::UnboundedSender<Command> {
        let (sender, commands) = mpsc::unbounded_channel();
        let Config {
            settings, limits, ..
        } = self.config;
        let task = Task {
            account,
            shared: Arc::clone(self),
            engine: Engine::new(settings, limits, random(), Instant::now()),
            commands,
            ready: self.ready.subscribe(),
            client: None,
            list_forbidden: BTreeSet::new(),
            shown: None,
        };
        tokio::spawn(task.run());
        sender
    }

    /// Lets a task end, unless it has been told something in the meantime.
    pub(super) fn retire(
        &self,
        account: &Account,
        commands: &mpsc::UnboundedReceiver<Command>,
    ) -> bool {
        let mut tasks = lock(&self.tasks);
        let retires = commands.is_empty();
        if retires {
            tasks.remove(account);
            self.config.metrics.vault_gone(account);
        }
        retires
    }

    pub(super) fn client(&self, account: &Account) -> Result<VaultClient, VaultError> {
        let classify = |error| VaultError::classify(&error, &account.vault, "secrets");
        let credential = self.credential(&account.identity);
        VaultClient::new(&self.config.transport, credential, &account.vault).map_err(classify)
    }

    fn credential(&self, identity: &Identity) -> Arc<RenewingCredential> {
        let mut credentials = lock(&self.credentials);
        if let Some(credential) = credentials.get(identity).and_then(Weak::upgrade) {
            return credential;
        }
        let (kind, identity) = (self.config.credential, identity.clone());
        let accounts = Arc::clone(&self.config.accounts);
        let options = self.config.transport.options();
        let source = {
            let identity = identity.clone();
            move || kind.credential(&identity, &accounts, options.clone())
        };
        let credential = RenewingCredential::new(Box::new(source));
        credentials.insert(identity, Arc::downgrade(&credential));
        credential
    }
}

fn id(key: &ReadKey) -> ObjectId {
    ObjectId {
        collection: key.collection,
        name: key.name.clone(),
        version: key.version.clone(),
    }
}

/// A panic elsewhere leaves these maps whole, so their poison means nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
