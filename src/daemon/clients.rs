//! The clients of the API server.

use kube::Client;
use kube::client::ClientBuilder;
use tower::filter::FilterLayer;
use tower::limit::ConcurrencyLimitLayer;

use super::Result;
use crate::clock::ServerClock;
use crate::leader::Fence;

/// Requests of the controllers that are under way to the API server at once.
const API_CONCURRENCY: usize = 64;

/// The clients of the API server. Each has connections of its own, so that writes that wait don't hold up watches.
pub struct Clients {
    /// How the candidate makes its own.
    pub config: kube::Config,
    /// For watches.
    pub watching: Client,
    /// For the controllers: behind the fence, where there is one.
    pub acting: Client,
}

impl Clients {
    pub async fn new(clock: &ServerClock, fence: Option<&Fence>) -> Result<Self> {
        let config = kube::Config::infer().await.map_err(|error| {
            format!("no cluster is configured: {error}; run in a Pod with a ServiceAccount, or set KUBECONFIG")
        })?;
        let clock = clock.clone();
        // The answers set the clock.
        let observe = tower::util::MapResponseLayer::new(move |answer| {
            clock.observe(&answer);
            answer
        });
        let fence = fence.cloned();
        let check = FilterLayer::new(move |request| match &fence {
            Some(fence) => fence.check(request),
            None => Ok(request),
        });
        let watching = ClientBuilder::try_from(config.clone())?.with_layer(&observe);
        let acting = ClientBuilder::try_from(config.clone())?
            .with_layer(&observe)
            .with_layer(&check)
            .with_layer(&ConcurrencyLimitLayer::new(API_CONCURRENCY));
        Ok(Self {
            config,
            watching: watching.build(),
            acting: acting.build(),
        })
    }
}
