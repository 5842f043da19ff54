//! How the daemon tells what it does: logs, metrics, events, health. It must never be handed a secret value.

mod events;
mod health;
mod metrics;

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

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

/// The filter, which lets nothing through that may quote a Secret.
fn checked(filter: &str) -> Result<EnvFilter, BadFilter> {
    let bad = |error: &dyn std::error::Error| BadFilter {
        filter: filter.to_owned(),
        reason: error.to_string(),
    };
    let checked = EnvFilter::try_new(filter).map_err(|error| bad(&error))?;
    // It logs an answer that it can't read as a whole.
    let quiet = "kube_client::client=error".parse();
    Ok(checked.add_directive(quiet.map_err(|error| bad(&error))?))
}

/// Starts logging to standard error.
pub fn start_logging(format: LogFormat, filter: &str) -> Result<(), BadFilter> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(checked(filter)?)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Fails only where logging was started before, by a test of this process: then that one serves.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_quote_a_secret_is_let_through_by_no_filter() {
        for filter in [
            "info",
            "trace",
            "kube_client=trace,kube_client::client=trace",
        ] {
            let filter = checked(filter).expect("a filter").to_string();
            let levels: Vec<&str> = filter.split(',').collect();
            assert!(levels.contains(&"kube_client::client=error"), "{filter}");
            assert!(!levels.contains(&"kube_client::client=trace"), "{filter}");
        }
        assert!(checked("keytide=loud").is_err());
    }
}
