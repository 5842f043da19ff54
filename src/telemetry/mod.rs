//! How the daemon tells what it does: logs, metrics, events, health. It must never be handed a secret value.

mod events;
mod health;
mod metrics;

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub use events::{Events, Kind};
pub use health::{Health, serve};
pub use metrics::Metrics;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// A log filter that can't be parsed.
#[derive(Debug, thiserror::Error)]
#[error(
    "the log filter `{filter}` is not one ({reason}); write for example `info` or `keytide=debug,info`"
)]
pub struct BadFilter {
    filter: String,
    reason: String,
}

/// Whether something that is to be logged may quote a Secret: the Kubernetes client logs an answer that it can't read as a whole.
fn may_quote(target: &str, level: Level) -> bool {
    target == "kube_client::client" && level != Level::ERROR
}

/// Starts logging to standard error.
pub fn start_logging(format: LogFormat, filter: &str) -> Result<(), BadFilter> {
    let filter = EnvFilter::try_new(filter).map_err(|error| BadFilter {
        filter: filter.to_owned(),
        reason: error.to_string(),
    })?;
    let discreet = || filter_fn(|of| !may_quote(of.target(), *of.level()));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Fails only where logging was started before, by a test of this process: then that one serves.
    let _ = match format {
        LogFormat::Text => builder.finish().with(discreet()).try_init(),
        LogFormat::Json => builder.json().finish().with(discreet()).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kubernetes_client_says_of_answers_is_not_logged_and_of_requests_it_is() {
        assert!(may_quote("kube_client::client", Level::WARN));
        assert!(may_quote("kube_client::client", Level::TRACE));
        assert!(!may_quote("kube_client::client", Level::ERROR));
        assert!(!may_quote("kube_client::client::builder", Level::DEBUG));
        assert!(!may_quote("keytide::mirror", Level::INFO));
    }
}
