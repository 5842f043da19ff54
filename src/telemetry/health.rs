//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use super::Metrics;

/// Whether the daemon is ready, and if not, what it waits for. Clones share it.
#[derive(Clone, Debug)]
pub struct Health {
    /// One sentence; none when ready.
    waiting_for: Arc<Mutex<Option<String>>>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            waiting_for: Arc::new(Mutex::new(Some("starting".to_owned()))),
        }
    }
}

impl Health {
    /// The daemon waits for something that `sentence` names, with the command to run where there is one.
    pub fn waiting(&self, sentence: String) {
        *self.lock() = Some(sentence);
    }

    /// The daemon is ready.
    pub fn ready(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.waiting_for
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until the future is dropped.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    metrics: Arc<Metrics>,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(health)
        .route("/metrics", get(async move || metrics.encode()));
    axum::serve(listener, app).await
}

async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    match &*health.lock() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(sentence) => (StatusCode::SERVICE_UNAVAILABLE, format!("{sentence}\n")),
    }
}
