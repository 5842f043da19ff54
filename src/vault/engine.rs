//! One vault as one identity sees it: the survey says what to ask, the governor when. Pure: [`super::task`] carries the
//! requests out, and [`super::subscriptions`] hands the answers to those who want them.

use std::time::Duration;

use tokio::time::Instant;

use super::governor::{Governor, Limits, Outcome, Priority, Started};
use super::survey::{Answer, News, ObjectId, Page, Request, Settings, Surveys};
use super::{Collection, VaultError, VaultErrorKind};

/// How long a dead vault is left alone where no interval is shorter.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a request ended.
#[derive(Debug)]
pub enum Ended {
    Read(ObjectId, Result<Answer, VaultError>),
    Listed(Collection, Result<Page, VaultError>),
}

/// The engine of one vault and identity.
#[derive(Debug)]
pub struct Engine {
    surveys: Surveys,
    governor: Governor<Request>,
    /// Why the vault is left alone, or was the last time.
    pause: Option<VaultError>,
    /// Whether everything was put in line at the end of the last pause.
    revived: bool,
}

impl Engine {
    /// `phase`, from 0 to 1, differs from vault to vault, so that not all are asked at once.
    pub fn new(settings: Settings, limits: Limits, phase: f64, now: Instant) -> Self {
        Self {
            surveys: Surveys::new(settings, phase, now),
            governor: Governor::new(limits, now),
            pause: None,
            revived: true,
        }
    }

    /// See [`super::survey::Survey::want`].
    pub fn want(&mut self, id: ObjectId, interval: Duration, now: Instant) {
        self.surveys.of(id.collection).want(id, interval, now);
    }

    /// See [`super::survey::Survey::unwant`].
    pub fn unwant(&mut self, id: &ObjectId) {
        self.surveys.of(id.collection).unwant(id);
    }

    /// See [`super::survey::Survey::ask`]. Who asks while the vault is left alone is told so at once, and gets the object later all the same.
    pub fn ask(
        &mut self,
        id: &ObjectId,
        priority: Priority,
        fresh: bool,
        now: Instant,
    ) -> Vec<News> {
        self.surveys.of(id.collection).ask(id, priority, fresh);
        let Some((until, error)) = self.governor.paused(now).zip(self.pause.clone()) else {
            return Vec::new();
        };
        let requests = self.surveys.take_requests();
        let requests = requests.into_iter().map(|(_, request)| request).collect();
        self.turn_away(requests, &error, until, now)
    }

    /// See [`super::survey::Survey::watch`]; of secrets. Who comes while the vault is left alone is told so at once.
    pub fn watch(&mut self, interval: Duration, now: Instant) -> Option<News> {
        self.surveys.of(Collection::Secrets).watch(interval);
        let error = self
            .pause
            .as_ref()
            .filter(|_| self.governor.paused(now).is_some());
        error.map(|error| News::Roster(Err(error.clone())))
    }

    /// See [`super::survey::Survey::unwatch`].
    pub fn unwatch(&mut self) {
        self.surveys.of(Collection::Secrets).unwatch();
    }

    /// See [`super::survey::Survey::relist`].
    pub fn relist(&mut self) {
        self.surveys.of(Collection::Secrets).relist();
    }

    /// Somebody says that an object changed, and to which version where that is known.
    pub fn hint(&mut self, id: &ObjectId, version: Option<&str>, now: Instant) -> Vec<News> {
        if self.surveys.of(id.collection).hint(id, version) {
            self.ask(id, Priority::Hinted, true, now)
        } else {
            Vec::new()
        }
    }

    /// Moves the time on. While the vault is left alone, it stands still for the survey.
    pub fn advance(&mut self, now: Instant) {
        if self.governor.paused(now).is_some() {
            return;
        }
        if self.governor.wants_probe(now) && !self.revived {
            self.revived = true;
            self.surveys.look_now();
        }
        self.surveys.advance(now);
        for (priority, request) in self.surveys.take_requests() {
            self.governor.submit(priority, request);
        }
    }

    /// Whether a request may go now.
    pub fn is_ready(&self, now: Instant) -> bool {
        self.governor.wake(now).is_some_and(|at| at <= now)
    }

    /// Lets a request go, if one waits that may go now.
    pub fn start(&mut self, now: Instant) -> Option<Started<Request>> {
        let surveys = &mut self.surveys;
        self.governor
            .start(now, |number, request| surveys.start(number, request, now))
    }

    /// When there is something to do, if nothing else happens. A request that `is_ready` is no matter of time.
    pub fn wake(&self, now: Instant) -> Option<Instant> {
        if let Some(until) = self.governor.paused(now) {
            return Some(until);
        }
        let governor = self.governor.wake(now).filter(|at| *at > now);
        self.surveys.wake().into_iter().chain(governor).min()
    }

    /// Whether nobody wants anything of this vault.
    pub fn is_empty(&self) -> bool {
        self.surveys.is_empty()
    }

    /// How many requests may be under way.
    pub fn concurrency(&self) -> usize {
        self.governor.bound()
    }

    /// Until when the vault is left alone, if it is.
    pub fn paused(&self, now: Instant) -> Option<Instant> {
        self.governor.paused(now)
    }

    /// Takes in how a request ended. `jitter`, from 0 to 1, spreads pauses.
    pub fn finish(&mut self, number: u64, ended: Ended, jitter: f64, now: Instant) -> Vec<News> {
        let failure = match &ended {
            Ended::Read(_, Err(error)) | Ended::Listed(_, Err(error)) => Some(error.clone()),
            Ended::Read(_, Ok(_)) | Ended::Listed(_, Ok(_)) => None,
        };
        let outcome = failure
            .as_ref()
            .map_or(Outcome::Answered, |error| outcome(error.kind));
        let shortest = self.surveys.shortest_interval().unwrap_or(PATIENCE);
        self.governor
            .finish(now, number, outcome, jitter, shortest.min(PATIENCE));
        let pause = self
            .governor
            .paused(now)
            .filter(|_| outcome != Outcome::Answered);
        let mut news: Vec<News> = match ended {
            Ended::Read(id, Ok(answer)) => self
                .surveys
                .of(id.collection)
                .read_done(number, &id, answer, now)
                .into_iter()
                .collect(),
            Ended::Read(id, Err(error)) => {
                let news = self
                    .surveys
                    .of(id.collection)
                    .read_failed(number, &id, &error, now, pause);
                news.into_iter().collect()
            }
            Ended::Listed(collection, Ok(page)) => self.surveys.of(collection).page_done(page, now),
            Ended::Listed(collection, Err(error)) => match pause {
                Some(until) => self.surveys.of(collection).page_delayed(&error, until),
                None => {
                    let news = self.surveys.of(collection).page_failed(&error, now);
                    news.into_iter().collect()
                }
            },
        };
        if let Some((until, error)) = pause.zip(failure) {
            let waiting = self.governor.drain().collect();
            news.extend(self.turn_away(waiting, &error, until, now));
            self.pause = Some(error);
            self.revived = false;
        }
        news
    }

    /// Nothing is sent to a vault that is left alone, and nobody waits for it in silence.
    fn turn_away(
        &mut self,
        requests: Vec<Request>,
        error: &VaultError,
        until: Instant,
        now: Instant,
    ) -> Vec<News> {
        let mut news = Vec::new();
        for request in requests {
            match request {
                Request::Get(id) => {
                    news.extend(
                        self.surveys
                            .of(id.collection)
                            .read_delayed(&id, error, now, until),
                    );
                }
                Request::Page(collection, _) => {
                    news.extend(self.surveys.of(collection).page_delayed(error, until));
                }
            }
        }
        news
    }
}

fn outcome(kind: VaultErrorKind) -> Outcome {
    match kind {
        VaultErrorKind::Throttled { retry_after } => Outcome::Throttled { retry_after },
        kind if kind.concerns_vault() => Outcome::Failed,
        _ => Outcome::Answered,
    }
}

#[cfg(test)]
mod tests;
