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

/// Starts logging to standard error.
pub fn start_logging(format: LogFormat, filter: &str) -> Result<(), BadFilter> {
    let filter = EnvFilter::try_new(filter).map_err(|error| BadFilter {
        filter: filter.to_owned(),
        reason: error.to_string(),
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // Fails only where logging was started before, by a test of this process: then that one serves.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    Ok(())
}
