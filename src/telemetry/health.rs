//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

use super::Metrics;

/// <https://prometheus.io/docs/specs/om/open_metrics_spec/#overall-structure>
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
    /// The daemon waits for something that `sentence` names, with the command to run where there is one. Gives whether that is
    /// news.
    pub fn waiting(&self, sentence: &str) -> bool {
        let before = self.lock().replace(sentence.to_owned());
        before.as_deref() != Some(sentence)
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
    axum::serve(listener, app(health, metrics)).await
}

fn app(health: Health, metrics: Arc<Metrics>) -> Router {
    let metrics = async move || ([(CONTENT_TYPE, OPENMETRICS)], metrics.encode());
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(health)
        .route("/metrics", get(metrics))
}

async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    match &*health.lock() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(sentence) => (StatusCode::SERVICE_UNAVAILABLE, format!("{sentence}\n")),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn metrics_say_which_format_they_are_in() {
        let app = app(Health::default(), Arc::new(Metrics::default()));
        let request = Request::get("/metrics").body(Body::empty()).expect("valid");
        let answer = app.oneshot(request).await.expect("an answer");
        assert_eq!(answer.headers()[CONTENT_TYPE], OPENMETRICS);
    }

    #[test]
    fn what_is_waited_for_is_news_once() {
        let health = Health::default();
        for (sentence, news) in [("a", true), ("a", false), ("b", true), ("a", true)] {
            assert_eq!(health.waiting(sentence), news, "{sentence}");
        }
    }
}
