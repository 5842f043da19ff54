//! `keytide run`: the flags of the daemon, and the signals that end it.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use futures::FutureExt;
use jiff::SignedDuration;
use tokio::signal::unix::{SignalKind, signal};

use super::Result;
use super::akv2k8s::Akv2k8sFlag;
use super::rotation::RotationFlags;
use super::vaults::VaultFlags;
use crate::daemon::{self, Election, Settings, Stop};
use crate::leader;
use crate::telemetry::{LogFormat, start_logging};
use crate::vault::{HintSource, Identity, SurveyMode, SurveySettings};

#[derive(Debug, Args)]
pub struct Run {
    /// Address of /healthz, /readyz and /metrics
    #[arg(long, env = "KEYTIDE_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Namespace of the daemon: that of the digest key's Secret and of the Lease
    #[arg(long, env = "KEYTIDE_NAMESPACE", default_value = "keytide")]
    namespace: String,
    /// Secret that holds the key of the digests; made if it is not there
    #[arg(
        long,
        env = "KEYTIDE_DIGEST_KEY_SECRET",
        default_value = "keytide-digest-key"
    )]
    digest_key_secret: String,
    #[command(flatten)]
    vaults: VaultFlags,
    #[command(flatten)]
    akv2k8s: Akv2k8sFlag,
    /// Let mirrors write ConfigMaps too
    #[arg(long, env = "KEYTIDE_CONFIG_MAPS", default_value_t = false, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    config_maps: bool,
    /// No mirror asks its vault more often than this
    #[arg(long, env = "KEYTIDE_MIN_REFRESH_INTERVAL", default_value = "10s", value_parser = duration)]
    min_refresh_interval: SignedDuration,
    /// Whether vaults are listed to find out what changed
    #[arg(long, env = "KEYTIDE_SURVEY", value_enum, default_value_t)]
    survey: SurveyMode,
    /// Every object is read at least this often, however still its vault says it is; at least 1m
    #[arg(long, env = "KEYTIDE_FULL_SWEEP", default_value = "24h", value_parser = full_sweep)]
    full_sweep: SignedDuration,
    #[command(flatten)]
    hints: Hints,
    #[command(flatten)]
    rotation: RotationFlags,
    /// Which Secrets and ConfigMaps workloads are rolled for: those that mirrors fill, or all
    #[arg(long, env = "KEYTIDE_ROTATION_WATCH", value_enum, default_value_t)]
    rotation_watch: RotationWatch,
    #[command(flatten)]
    leader_election: LeaderElection,
    /// How log lines look
    #[arg(long, env = "KEYTIDE_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// Which log lines there are, such as `info` or `keytide=debug,info`
    #[arg(long, env = "KEYTIDE_LOG_FILTER", default_value = "info")]
    log_filter: String,
}

#[derive(Debug, Args)]
struct Hints {
    /// Queue of Azure Storage from which Key Vault's events are taken, to see changes sooner, such as
    /// https://contoso.queue.core.windows.net/keytide
    // Not parsed by clap, which would print it, with a SAS if it has one.
    #[arg(long, env = "KEYTIDE_HINTS_QUEUE")]
    hints_queue: Option<String>,
    /// Client ID of the identity that reads that queue; the default is the daemon's own
    #[arg(long, env = "KEYTIDE_HINTS_CLIENT_ID", requires = "hints_queue")]
    hints_client_id: Option<String>,
    /// Longest pause between two looks into that queue
    #[arg(long, env = "KEYTIDE_HINTS_PAUSE", default_value = "1s", value_parser = duration)]
    hints_pause: SignedDuration,
}

/// Which Secrets and ConfigMaps workloads are rolled for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
enum RotationWatch {
    #[default]
    Mirrored,
    All,
}

/// The flags that Kubernetes' components have, by the same names.
#[derive(Debug, Args)]
struct LeaderElection {
    /// Whether to act only while holding a Lease; without, this must be the only daemon of the cluster
    #[arg(long, env = "KEYTIDE_LEADER_ELECT", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    leader_elect: bool,
    /// Name of the Lease; daemons with the same one take turns
    #[arg(
        long,
        env = "KEYTIDE_LEADER_ELECT_RESOURCE_NAME",
        default_value = "keytide"
    )]
    leader_elect_resource_name: String,
    /// How long others wait for a sign of the leader's life before they take over
    #[arg(long, env = "KEYTIDE_LEADER_ELECT_LEASE_DURATION", default_value = "15s", value_parser = duration)]
    leader_elect_lease_duration: SignedDuration,
    /// How long a leader that can't renew goes on
    #[arg(long, env = "KEYTIDE_LEADER_ELECT_RENEW_DEADLINE", default_value = "10s", value_parser = duration)]
    leader_elect_renew_deadline: SignedDuration,
    /// Pause between two renewals, and between two looks of those who wait
    #[arg(long, env = "KEYTIDE_LEADER_ELECT_RETRY_PERIOD", default_value = "2s", value_parser = duration)]
    leader_elect_retry_period: SignedDuration,
}

fn duration(text: &str) -> std::result::Result<SignedDuration, String> {
    let wrong = || "write a duration such as 10s, 1m or 1h30m".to_owned();
    text.parse()
        .ok()
        .filter(|duration: &SignedDuration| !duration.is_negative())
        .ok_or_else(wrong)
}

fn full_sweep(text: &str) -> std::result::Result<SignedDuration, String> {
    duration(text).and_then(|duration| {
        if duration >= SignedDuration::from_mins(1) {
            Ok(duration)
        } else {
            Err("a full sweep takes at least 1m".to_owned())
        }
    })
}

impl Run {
    pub fn execute(self) -> Result {
        start_logging(self.log_format, &self.log_filter)?;
        let settings = self.settings()?;
        super::runtime()?.block_on(async { daemon::run(settings, stop()?).await })
    }

    fn settings(self) -> Result<Settings> {
        let hints = self.hints.source()?;
        Ok(Settings {
            listen: self.listen,
            namespace: self.namespace,
            digest_key_secret: self.digest_key_secret,
            vault_dns_suffixes: self.vaults.suffixes(),
            ca_bundle: self.vaults.ca_bundle(),
            credential: self.vaults.credential(),
            service_accounts: self.vaults.service_accounts(),
            akv2k8s: self.akv2k8s.in_place(),
            config_maps: self.config_maps,
            survey: SurveySettings {
                mode: self.survey,
                full_sweep: Duration::try_from(self.full_sweep)?,
                per_second: self.vaults.limits().per_second,
            },
            vault_limits: self.vaults.limits(),
            min_refresh_interval: Duration::try_from(self.min_refresh_interval)?,
            rotation_policy: self.rotation.policy(),
            max_rotations: self.rotation.max_rotations(),
            hints,
            rotation_watch_all: self.rotation_watch == RotationWatch::All,
            rotation_compatibility: self.rotation.compatibility(),
            election: self.leader_election.election()?,
        })
    }
}

impl Hints {
    fn source(self) -> Result<Option<HintSource>> {
        let Some(queue) = self.hints_queue else {
            return Ok(None);
        };
        let queue = queue
            .parse()
            .map_err(|error| format!("--hints-queue: {error}"))?;
        Ok(Some(HintSource {
            queue,
            identity: self
                .hints_client_id
                .map_or_else(Identity::default, |client_id| Identity::Application {
                    client_id,
                    tenant_id: None,
                }),
            pause: Duration::try_from(self.hints_pause)?,
        }))
    }
}

impl LeaderElection {
    fn election(self) -> Result<Option<Election>> {
        let timing = leader::Timing::new(
            Duration::try_from(self.leader_elect_lease_duration)?,
            Duration::try_from(self.leader_elect_renew_deadline)?,
            Duration::try_from(self.leader_elect_retry_period)?,
        )?;
        let lease = self.leader_elect_resource_name;
        Ok(self.leader_elect.then_some(Election { lease, timing }))
    }
}

/// Resolves at SIGTERM or SIGINT.
fn stop() -> Result<Stop> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "keytide ends");
    };
    Ok(stop.boxed().shared())
}
