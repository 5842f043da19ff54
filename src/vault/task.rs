//! Carries out what an [`Engine`] decides: the one place that talks to a vault. It must never log or keep a value.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use futures::future::{BoxFuture, OptionFuture};
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::budget::Permit;
use super::client::VaultClient;
use super::engine::{Ended, Engine};
use super::governor::{Priority, Started};
use super::survey::{Answer, News, ObjectId, Page, Request};
use super::vaults::{Account, Shared, Subscriber};
use super::{Collection, VaultError, VaultErrorKind, VaultSecret};

/// Subscribers whose content may lie ready before nothing more is read: what bounds the values in memory.
const MOST_READY: usize = 256;

/// What a task is told.
#[derive(Debug)]
pub enum Command {
    Want(ObjectId, std::time::Duration),
    Unwant(ObjectId),
    Ask {
        id: ObjectId,
        priority: Priority,
        fresh: bool,
    },
    Hint {
        id: ObjectId,
        version: Option<String>,
    },
    /// The secrets are to be listed this often, for who wants to know which there are.
    Watch(std::time::Duration),
    Unwatch,
    /// They are to be listed now.
    Relist,
}

/// The task of one vault and identity.
pub struct Task<S> {
    pub account: Arc<Account>,
    pub shared: Arc<Shared<S>>,
    pub engine: Engine,
    pub commands: mpsc::UnboundedReceiver<Command>,
    /// How many subscribers have content to take.
    pub ready: watch::Receiver<usize>,
    pub client: Option<Arc<VaultClient>>,
    /// The collections of which the last list was forbidden, so that it is said once.
    pub list_forbidden: BTreeSet<Collection>,
    /// Concurrency and pause as the metrics show them.
    pub shown: Option<(usize, bool)>,
}

/// A request that ended.
struct Done {
    number: u64,
    began: Instant,
    answer: Answered,
}

enum Answered {
    Get(ObjectId, Result<(VaultSecret, Answer), VaultError>),
    Page(Collection, Result<Page, VaultError>),
}

/// Why requests that could go don't.
#[derive(PartialEq)]
enum Blocked {
    No,
    /// Others must take their content first.
    Full,
    /// All vaults together have enough under way.
    NoPermit,
}

impl<S: Subscriber> Task<S> {
    /// Runs until nobody wants anything of the vault any more.
    pub async fn run(mut self) {
        let budget = self.shared.budget.clone();
        let mut under_way = FuturesUnordered::new();
        let mut permit: Option<Permit> = None;
        // In line for a permit, and it must not lose its place.
        let mut permitted: Option<BoxFuture<'static, Option<Permit>>> = None;
        loop {
            let now = Instant::now();
            self.engine.advance(now);
            let mut blocked = Blocked::No;
            while self.engine.is_ready(now) {
                if *self.ready.borrow_and_update() >= MOST_READY {
                    blocked = Blocked::Full;
                    break;
                }
                if !under_way.is_empty() && permit.is_none() && permitted.is_none() {
                    permit = budget.try_take();
                }
                if !under_way.is_empty() && permit.is_none() {
                    blocked = Blocked::NoPermit;
                    break;
                }
                let Some(started) = self.engine.start(now) else {
                    break;
                };
                under_way.push(self.carry_out(started, permit.take()));
            }
            if blocked != Blocked::NoPermit {
                (permit, permitted) = (None, None);
            } else if permitted.is_none() {
                let budget = budget.clone();
                permitted = Some(Box::pin(async move { budget.take().await }));
            }
            self.show(now);
            if self.engine.is_empty() && self.shared.retire(&self.account, &self.commands) {
                return;
            }
            let wake = self.engine.wake(now);
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(done) = under_way.next() => self.finish(done),
                taken = OptionFuture::from(permitted.as_mut()), if permitted.is_some() => {
                    permitted = None;
                    permit = taken.flatten();
                }
                changed = self.ready.changed(), if blocked == Blocked::Full => if changed.is_err() {
                    return;
                },
                _ = OptionFuture::from(wake.map(tokio::time::sleep_until)), if wake.is_some() => {}
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Want(id, interval) => self.engine.want(id, interval, now),
            Command::Unwant(id) => self.engine.unwant(&id),
            Command::Ask {
                id,
                priority,
                fresh,
            } => {
                let news = self.engine.ask(&id, priority, fresh, now);
                self.tell(news, None);
            }
            Command::Hint { id, version } => {
                let news = self.engine.hint(&id, version.as_deref(), now);
                self.tell(news, None);
            }
            Command::Watch(interval) => {
                let news = self.engine.watch(interval, now);
                self.tell(news.into_iter().collect(), None);
            }
            Command::Unwatch => self.engine.unwatch(),
            Command::Relist => self.engine.relist(),
        }
    }

    fn carry_out(
        &mut self,
        started: Started<Request>,
        permit: Option<Permit>,
    ) -> impl Future<Output = Done> + Send + use<S> {
        let client = self.client();
        async move {
            let began = Instant::now();
            let answer = match (started.request, client) {
                (Request::Get(id), Ok(client)) => {
                    let answer = client.get(&id).await;
                    Answered::Get(id, answer)
                }
                (Request::Get(id), Err(error)) => {
                    let error = error.about(&id.to_string());
                    Answered::Get(id, Err(error))
                }
                (Request::Page(collection, link), Ok(client)) => {
                    let page = client.list(collection, link.as_ref()).await;
                    Answered::Page(collection, page)
                }
                (Request::Page(collection, _), Err(error)) => {
                    Answered::Page(collection, Err(error))
                }
            };
            drop(permit);
            Done {
                number: started.number,
                began,
                answer,
            }
        }
    }

    /// The client, kept open; made anew only if that failed.
    fn client(&mut self) -> Result<Arc<VaultClient>, VaultError> {
        if let Some(client) = &self.client {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(self.shared.client(&self.account)?);
        self.client = Some(Arc::clone(&client));
        Ok(client)
    }

    fn finish(&mut self, done: Done) {
        let now = Instant::now();
        let (ended, read) = match done.answer {
            Answered::Get(id, answer) => {
                self.count("get", answer.as_ref().err());
                match answer {
                    Ok((secret, answer)) => {
                        let read = (Arc::new(secret), done.began);
                        (Ended::Read(id, Ok(answer)), Some(read))
                    }
                    Err(error) => (Ended::Read(id, Err(error)), None),
                }
            }
            Answered::Page(collection, page) => {
                self.count("list", page.as_ref().err());
                self.note_forbidden_list(collection, page.as_ref().err());
                (Ended::Listed(collection, page), None)
            }
        };
        let was_paused = self.engine.paused(now).is_some();
        let news = self.engine.finish(done.number, ended, random(), now);
        if let Some(until) = self.engine.paused(now).filter(|_| !was_paused) {
            let seconds = (until - now).as_secs();
            tracing::warn!(vault = %self.account.vault, seconds, "the vault is left alone for a while: it throttles or does not answer");
        }
        self.tell(news, read);
    }

    fn count(&self, operation: &'static str, error: Option<&VaultError>) {
        let outcome = error.map_or("ok", |error| error.kind.as_str());
        let metrics = &self.shared.config.metrics;
        metrics.vault_request(&self.account.vault, operation, outcome);
        if error.is_some_and(|error| error.kind == VaultErrorKind::Unauthorized)
            && let Some(client) = &self.client
        {
            client.credential().rejected();
        }
    }

    fn note_forbidden_list(&mut self, collection: Collection, error: Option<&VaultError>) {
        let forbidden = error.is_some_and(|error| error.kind == VaultErrorKind::Forbidden);
        if !forbidden {
            self.list_forbidden.remove(&collection);
        } else if self.list_forbidden.insert(collection) {
            tracing::warn!(vault = %self.account.vault, identity = %self.account.identity, "the identity may not list {collection}, so each is read; give it the right 'list' for fewer requests");
        }
    }

    fn tell(&self, news: Vec<News>, read: Option<(Arc<VaultSecret>, Instant)>) {
        for news in news {
            match (news, &read) {
                (News::Read { id, changed }, Some((secret, began))) => {
                    let key = self.account.key(id);
                    self.shared
                        .change(|subscriptions| subscriptions.read(&key, secret, *began, changed));
                }
                (News::Read { .. }, None) => {}
                (News::Failed { id, lasting, error }, _) => {
                    let key = self.account.key(id);
                    self.shared
                        .change(|subscriptions| subscriptions.failed(&key, &error, lasting));
                }
                (News::Well { id }, _) => {
                    let key = self.account.key(id);
                    self.shared.change(|subscriptions| subscriptions.well(&key));
                }
                (News::Roster(result), _) => self
                    .shared
                    .change_rosters(|rosters| rosters.listed(&self.account, result)),
                (News::Listed { pages, took }, _) => {
                    tracing::debug!(vault = %self.account.vault, pages, ?took, "listed");
                    self.shared.config.metrics.vault_listed(took);
                }
            }
        }
    }

    fn show(&mut self, now: Instant) {
        let state = (self.engine.concurrency(), self.engine.paused(now).is_some());
        if self.shown.replace(state) != Some(state) {
            let metrics = &self.shared.config.metrics;
            metrics.vault_state(&self.account, state.0, state.1);
        }
    }
}

/// A random number from 0 to 1.
pub fn random() -> f64 {
    // Without randomness nothing is spread, and nothing else is wrong.
    f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}
