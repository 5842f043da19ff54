//! Carries out what [`super::election`] decides.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
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
}

/// One of those that want to lead.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    timing: Timing,
    election: Election,
    fence: Fence,
    metrics: Arc<Metrics>,
}

impl Candidate {
    /// A candidate for the Lease called `name`. `client` must not be behind `fence`, which is opened and closed here.
    pub fn new(
        client: Client,
        namespace: &str,
        name: String,
        identity: String,
        timing: Timing,
        fence: Fence,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name,
            timing,
            election: Election::new(identity, timing, Instant::now()),
            fence,
            metrics,
        }
    }

    /// Waits until this candidate leads.
    pub async fn lead(&mut self) {
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

    /// Renews for as long as that works, and says why it no longer does.
    pub async fn hold(&mut self) -> Lost {
        let lost = self.renew().await;
        self.close();
        lost
    }

    /// Lets another lead at once.
    pub async fn release(self) {
        self.close();
        let Some(lease) = self.election.release() else {
            return;
        };
        let params = PostParams::default();
        let released = timeout(
            RELEASE_TIMEOUT,
            self.api.replace(&self.name, &params, &lease),
        );
        match released.await {
            Ok(Ok(_)) => tracing::info!(lease = self.name, "the Lease is released"),
            Ok(Err(error)) => {
                tracing::warn!(lease = self.name, %error, "the Lease can't be released")
            }
            Err(_) => tracing::warn!(lease = self.name, "the Lease can't be released in time"),
        }
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

    fn close(&self) {
        self.fence.set(None);
        self.metrics.leads(false);
    }

    fn pause(&self) -> Duration {
        let mut random = [0];
        // Without randomness candidates knock in step, which is no harm.
        let _ = getrandom::fill(&mut random);
        self.timing.pause(random[0])
    }
}
