//! Carries out what [`super::election`] decides, on a thread of its own: a daemon that is busy must not be taken for one that
//! is dead.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::election::Election;
use super::{Fence, Timing};
use crate::telemetry::Metrics;

/// Longest that letting go may take; whoever comes next waits until the lease has run out at worst.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a leader no longer leads.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error("{0} leads now")]
    Taken(String),
    #[error("the Lease could not be renewed in time")]
    NotRenewed,
    #[error("it was given up")]
    Released,
    #[error("no client of the API server can be made: {0}")]
    NoClient(kube::Error),
    #[error("the candidate's thread has ended")]
    Ended,
}

/// By which Lease the daemons agree, and who this one is.
#[derive(Clone, Debug)]
pub struct Candidacy {
    pub namespace: String,
    pub lease: String,
    /// Tells this daemon from every other, earlier ones of the same name included.
    pub identity: String,
    pub timing: Timing,
}

/// The candidate, as the rest of the daemon sees it.
pub struct Candidate {
    won: oneshot::Receiver<()>,
    lost: oneshot::Receiver<Lost>,
    release: oneshot::Sender<()>,
}

impl Candidate {
    /// Starts to run for the lead. `fence` is opened while it is held; `client` is made on the candidate's thread, so that its
    /// connections live there too, and must not be behind the fence.
    pub fn start(
        candidacy: Candidacy,
        client: impl FnOnce() -> kube::Result<Client> + Send + 'static,
        fence: Fence,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let ((win, won), (lose, lost)) = (oneshot::channel(), oneshot::channel());
        let (release, released) = oneshot::channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new()
            .name("leader".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let _ = lose.send(match client() {
                        Ok(client) => {
                            let runner = Runner::new(candidacy, client, fence, metrics);
                            runner.run(win, released).await
                        }
                        Err(error) => Lost::NoClient(error),
                    });
                });
            })?;
        Ok(Self { won, lost, release })
    }

    /// Waits until this daemon leads.
    pub async fn won(&mut self) -> Result<(), Lost> {
        match (&mut self.won).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.lost().await),
        }
    }

    /// Waits until this daemon leads no more, and says why.
    pub async fn lost(&mut self) -> Lost {
        (&mut self.lost).await.unwrap_or(Lost::Ended)
    }

    /// Lets another daemon lead at once; what this one does must have ended.
    pub async fn release(self) {
        // A candidate that is gone holds nothing.
        let _ = self.release.send(());
        let _ = self.lost.await;
    }
}

/// What runs on the candidate's thread.
struct Runner {
    api: Api<Lease>,
    name: String,
    timing: Timing,
    election: Election,
    fence: Fence,
    metrics: Arc<Metrics>,
}

impl Runner {
    fn new(candidacy: Candidacy, client: Client, fence: Fence, metrics: Arc<Metrics>) -> Self {
        Self {
            api: Api::namespaced(client, &candidacy.namespace),
            name: candidacy.lease,
            timing: candidacy.timing,
            election: Election::new(candidacy.identity, candidacy.timing, Instant::now()),
            fence,
            metrics,
        }
    }

    /// Waits to lead, tells that by `win`, and holds the lead until it is lost or given up.
    async fn run(mut self, win: oneshot::Sender<()>, released: oneshot::Receiver<()>) -> Lost {
        let lost = tokio::select! {
            lost = self.lead_and_hold(win) => lost,
            _ = released => Lost::Released,
        };
        self.fence.set(None);
        self.metrics.leads(false);
        if matches!(lost, Lost::Released) {
            self.release().await;
        }
        lost
    }

    async fn lead_and_hold(&mut self, win: oneshot::Sender<()>) -> Lost {
        self.lead().await;
        // Whoever doesn't listen any more has given up the lead, too.
        let _ = win.send(());
        self.renew().await
    }

    async fn lead(&mut self) {
        let mut said = None;
        loop {
            self.attempt(self.timing.patience()).await;
            if self.update().is_some_and(|until| Instant::now() < until) {
                tracing::info!(lease = self.name, "this daemon leads");
                return;
            }
            let holder = self.election.holder().cloned();
            if holder != said
                && let Some(holder) = &holder
            {
                tracing::info!(lease = self.name, %holder, "another daemon leads; waiting");
            }
            said = holder;
            sleep(self.pause()).await;
        }
    }

    async fn release(&mut self) {
        match timeout(RELEASE_TIMEOUT, self.let_go()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(lease = self.name, %error, "the Lease can't be released");
            }
            Err(_) => tracing::warn!(lease = self.name, "the Lease can't be released in time"),
        }
    }

    /// Writes that nobody holds the Lease, if this candidate does.
    async fn let_go(&mut self) -> Result<(), kube::Error> {
        while let Some(lease) = self.election.release() {
            let params = PostParams::default();
            match self.api.replace(&self.name, &params, &lease).await {
                // A renewal was under way, and has come first.
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let lease = self.api.get_opt(&self.name).await?;
                    self.election.read(lease, Instant::now());
                }
                released => {
                    released?;
                    tracing::info!(lease = self.name, "the Lease is released");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn renew(&mut self) -> Lost {
        while let Some(until) = self.update() {
            sleep_until(until.min(Instant::now() + self.pause())).await;
            // Looked at before anything is sent: a leader that was stopped must not renew what it has lost.
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Lost::NotRenewed;
            }
            self.attempt(left.min(self.timing.patience())).await;
        }
        Lost::Taken(self.election.holder().cloned().unwrap_or_default())
    }

    /// Looks at the Lease, and claims it if it is free or ours. What fails is tried again by the next attempt.
    async fn attempt(&mut self, patience: Duration) {
        let problem = match timeout(patience, self.look_and_claim()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        tracing::warn!(lease = self.name, error = %problem, "the Lease can't be read or written; that is tried again");
    }

    async fn look_and_claim(&mut self) -> Result<(), kube::Error> {
        // A leader needs no look: a claim on an outdated Lease is refused.
        if self.election.leads_until().is_some() && self.claim().await? {
            return Ok(());
        }
        let lease = self.api.get_opt(&self.name).await?;
        self.election.read(lease, Instant::now());
        // A claim that is refused now came second; the next look shows who was first.
        self.claim().await.map(drop)
    }

    /// Claims the Lease if it is free or ours; false where what was known of it is outdated.
    async fn claim(&mut self) -> Result<bool, kube::Error> {
        let sent = Instant::now();
        let Some(mut lease) = self.election.claim(sent, Timestamp::now()) else {
            return Ok(true);
        };
        let params = PostParams::default();
        let written = if lease.metadata.resource_version.is_some() {
            self.api.replace(&self.name, &params, &lease).await
        } else {
            lease.metadata.name = Some(self.name.clone());
            self.api.create(&params, &lease).await
        };
        match written {
            Ok(lease) => {
                self.election.claimed(lease, sent);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Tells fence and metric until when this candidate leads.
    fn update(&self) -> Option<Instant> {
        let until = self.election.leads_until();
        self.fence.set(until);
        self.metrics.leads(until.is_some());
        until
    }

    fn pause(&self) -> Duration {
        let mut random = [0];
        // Without randomness candidates knock in step, which is no harm.
        let _ = getrandom::fill(&mut random);
        self.timing.pause(random[0])
    }
}
