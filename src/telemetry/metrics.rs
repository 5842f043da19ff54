//! Metrics, in the OpenMetrics text format. Labels are names of vaults, namespaces and reasons: never content, and never
//! something of which there can be a value per object and version.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::vault::{Account, VaultHost};

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RequestLabels {
    vault: String,
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct HintRequestLabels {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct DroppedLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct AccountLabels {
    vault: String,
    /// Client ID; empty for the daemon's own identity.
    identity: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct NamespaceLabels {
    namespace: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ReconcileLabels {
    controller: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RotationLabels {
    namespace: String,
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct KindLabels {
    kind: &'static str,
}

impl From<&Account> for AccountLabels {
    fn from(account: &Account) -> Self {
        Self {
            vault: account.vault.to_string(),
            identity: account.identity.label(),
        }
    }
}

/// How mirrors are doing, by namespace and name: one map for three metrics, because there is an entry for every mirror.
type MirrorStates = Arc<Mutex<BTreeMap<(String, String), MirrorState>>>;

#[derive(Clone, Copy, Debug)]
struct MirrorState {
    ready: bool,
    outside_validity: bool,
    reverted: bool,
}

/// A gauge that is 1 for each mirror of which something holds, else 0.
#[derive(Debug)]
struct MirrorGauge {
    name: &'static str,
    help: &'static str,
    holds: fn(&MirrorState) -> bool,
    states: MirrorStates,
}

impl Collector for MirrorGauge {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let kind = MetricType::Gauge;
        let mut metric = encoder.encode_descriptor(self.name, self.help, None, kind)?;
        for ((namespace, mirror), state) in &*lock(&self.states) {
            let labels = [
                ("namespace", namespace.as_str()),
                ("mirror", mirror.as_str()),
            ];
            let gauge = ConstGauge::new(i64::from((self.holds)(state)));
            gauge.encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// All metrics of the daemon.
pub struct Metrics {
    registry: Mutex<Registry>,
    leader: Gauge,
    vault_requests: Family<RequestLabels, Counter>,
    vault_concurrency: Family<AccountLabels, Gauge>,
    vault_paused: Family<AccountLabels, Gauge>,
    vault_listing: Histogram,
    hint_requests: Family<HintRequestLabels, Counter>,
    hints_received: Counter,
    hints_dropped: Family<DroppedLabels, Counter>,
    hint_age: Histogram,
    reconciles: Family<ReconcileLabels, Counter>,
    writes: Family<NamespaceLabels, Counter>,
    mirrors: MirrorStates,
    without_output: Gauge,
    overwritten_by_akv2k8s: Counter,
    rotations: Family<RotationLabels, Counter>,
    rotations_waiting: Family<ReasonLabels, Gauge>,
    rotations_held: Family<ReasonLabels, Gauge>,
    rotations_in_flight: Gauge,
    rotations_failed: Gauge,
    staleness: Family<KindLabels, Gauge<f64, AtomicU64>>,
    until_template: Histogram,
    until_rolled_out: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = [
            1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 90.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
            14400.0,
        ];
        let metrics = Self {
            registry: Mutex::new(Registry::with_prefix("keytide")),
            leader: Gauge::default(),
            vault_requests: Family::default(),
            vault_concurrency: Family::default(),
            vault_paused: Family::default(),
            vault_listing: Histogram::new([0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0]),
            hint_requests: Family::default(),
            hints_received: Counter::default(),
            hints_dropped: Family::default(),
            hint_age: Histogram::new([
                0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 14400.0, 86400.0,
            ]),
            reconciles: Family::default(),
            writes: Family::default(),
            mirrors: MirrorStates::default(),
            without_output: Gauge::default(),
            overwritten_by_akv2k8s: Counter::default(),
            rotations: Family::default(),
            rotations_waiting: Family::default(),
            rotations_held: Family::default(),
            rotations_in_flight: Gauge::default(),
            rotations_failed: Gauge::default(),
            staleness: Family::default(),
            until_template: Histogram::new(seconds),
            until_rolled_out: Histogram::new(seconds),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let mut registry = lock(&self.registry);
        registry.register("leader", "Whether this daemon leads", self.leader.clone());
        registry.register(
            "vault_requests",
            "Requests to vaults, by operation and outcome",
            self.vault_requests.clone(),
        );
        registry.register(
            "vault_concurrency",
            "Requests that may be under way to a vault",
            self.vault_concurrency.clone(),
        );
        registry.register(
            "vault_paused",
            "Whether a vault is left alone for a while, because it throttles or does not answer",
            self.vault_paused.clone(),
        );
        registry.register_with_unit(
            "vault_listing",
            "Time that listing a whole vault took",
            Unit::Seconds,
            self.vault_listing.clone(),
        );
        registry.register(
            "hint_requests",
            "Requests to the queue of hints, by operation and outcome",
            self.hint_requests.clone(),
        );
        registry.register(
            "hints_received",
            "Messages received from the queue of hints",
            self.hints_received.clone(),
        );
        registry.register(
            "hints_dropped",
            "Those of them that changed nothing, by reason",
            self.hints_dropped.clone(),
        );
        registry.register_with_unit(
            "hint_age",
            "Time from an event at the vault to its hint",
            Unit::Seconds,
            self.hint_age.clone(),
        );
        registry.register(
            "reconciles",
            "Reconciles, by controller and outcome",
            self.reconciles.clone(),
        );
        registry.register("target_writes", "Writes of targets", self.writes.clone());
        registry.register_collector(Box::new(MirrorGauge {
            name: "mirror_ready",
            help: "Whether the target has what the vault has.",
            holds: |state| state.ready,
            states: Arc::clone(&self.mirrors),
        }));
        registry.register_collector(Box::new(MirrorGauge {
            name: "mirror_outside_validity",
            help: "Whether an expired or not yet valid object is mirrored.",
            holds: |state| state.outside_validity,
            states: Arc::clone(&self.mirrors),
        }));
        registry.register_collector(Box::new(MirrorGauge {
            name: "mirror_reverted",
            help: "Whether a version before the vault's is mirrored, because the rollout of that one failed.",
            holds: |state| state.reverted,
            states: Arc::clone(&self.mirrors),
        }));
        registry.register(
            "akv2k8s_without_output",
            "AzureKeyVaultSecrets without output, which are left to the env injector of akv2k8s",
            self.without_output.clone(),
        );
        registry.register(
            "akv2k8s_overwrites",
            "Times that the controller of akv2k8s was seen to write what Keytide had taken over",
            self.overwritten_by_akv2k8s.clone(),
        );
        registry.register("rotations", "Workloads rolled", self.rotations.clone());
        registry.register(
            "rotations_waiting",
            "Workloads that are to be rolled and wait, by what they wait for",
            self.rotations_waiting.clone(),
        );
        registry.register(
            "rotations_held",
            "Workloads that are to be rolled and are held, by why",
            self.rotations_held.clone(),
        );
        registry.register(
            "rotations_in_flight",
            "Rotations whose rollouts are under way",
            self.rotations_in_flight.clone(),
        );
        registry.register(
            "rotations_failed",
            "Workloads whose latest rotation has failed and was not mended",
            self.rotations_failed.clone(),
        );
        registry.register_with_unit(
            "rotation_staleness",
            "For how long the workload that has waited the longest lacks content, by kind",
            Unit::Seconds,
            self.staleness.clone(),
        );
        registry.register_with_unit(
            "rotation_until_template",
            "Time from the vault's update to the new Pod template",
            Unit::Seconds,
            self.until_template.clone(),
        );
        registry.register_with_unit(
            "rotation_until_rolled_out",
            "Time from the vault's update to the finished rollout",
            Unit::Seconds,
            self.until_rolled_out.clone(),
        );
    }

    /// This daemon leads, or doesn't.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// A request to a vault ended.
    pub fn vault_request(&self, vault: &VaultHost, operation: &'static str, outcome: &'static str) {
        let labels = RequestLabels {
            vault: vault.to_string(),
            operation,
            outcome,
        };
        self.vault_requests.get_or_create(&labels).inc();
    }

    /// How a vault is doing.
    pub fn vault_state(&self, account: &Account, concurrency: usize, paused: bool) {
        let labels = AccountLabels::from(account);
        let concurrency = i64::try_from(concurrency).unwrap_or(i64::MAX);
        self.vault_concurrency
            .get_or_create(&labels)
            .set(concurrency);
        self.vault_paused.get_or_create(&labels).set(paused.into());
    }

    /// Nothing is wanted of a vault any more.
    pub fn vault_gone(&self, account: &Account) {
        let labels = AccountLabels::from(account);
        self.vault_concurrency.remove(&labels);
        self.vault_paused.remove(&labels);
    }

    /// A whole vault was listed.
    pub fn vault_listed(&self, took: Duration) {
        self.vault_listing.observe(took.as_secs_f64());
    }

    /// A request to the queue of hints ended; `failure` is the class of its failure.
    pub fn hint_request(&self, operation: &'static str, failure: Option<&'static str>) {
        let labels = HintRequestLabels {
            operation,
            outcome: failure.unwrap_or("ok"),
        };
        self.hint_requests.get_or_create(&labels).inc();
    }

    /// A message came from the queue of hints.
    pub fn hint_received(&self) {
        self.hints_received.inc();
    }

    /// It changed nothing.
    pub fn hint_dropped(&self, reason: &'static str) {
        let labels = DroppedLabels { reason };
        self.hints_dropped.get_or_create(&labels).inc();
    }

    /// What it hints at happened so long ago.
    pub fn hint_age(&self, age: Duration) {
        self.hint_age.observe(age.as_secs_f64());
    }

    /// A reconcile ended.
    pub fn reconciled(&self, controller: &'static str, ok: bool) {
        let outcome = if ok { "ok" } else { "error" };
        self.reconciles
            .get_or_create(&ReconcileLabels {
                controller,
                outcome,
            })
            .inc();
    }

    /// A target was written.
    pub fn target_written(&self, namespace: &str) {
        self.writes
            .get_or_create(&NamespaceLabels {
                namespace: namespace.to_owned(),
            })
            .inc();
    }

    /// How a mirror is doing.
    pub fn mirror_state(
        &self,
        namespace: &str,
        mirror: &str,
        ready: bool,
        outside_validity: bool,
        reverted: bool,
    ) {
        let state = MirrorState {
            ready,
            outside_validity,
            reverted,
        };
        let name = (namespace.to_owned(), mirror.to_owned());
        lock(&self.mirrors).insert(name, state);
    }

    /// A mirror is gone, and so are its metrics.
    pub fn mirror_gone(&self, namespace: &str, mirror: &str) {
        let name = (namespace.to_owned(), mirror.to_owned());
        lock(&self.mirrors).remove(&name);
    }

    /// So many AzureKeyVaultSecrets have no output, and are left alone.
    pub fn without_output(&self, count: usize) {
        self.without_output
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// The controller of akv2k8s was at a resource that Keytide had taken over.
    pub fn overwritten_by_akv2k8s(&self) {
        self.overwritten_by_akv2k8s.inc();
    }

    /// A workload was rolled, so many seconds after the vault's update (where that is known).
    pub fn rotated(&self, namespace: &str, reason: &'static str, since_update: Option<f64>) {
        self.rotations
            .get_or_create(&RotationLabels {
                namespace: namespace.to_owned(),
                reason,
            })
            .inc();
        if let Some(seconds) = since_update {
            self.until_template.observe(seconds);
        }
    }

    /// How many workloads wait and are held, by reason; how many rotations are under way and have failed; and for how many seconds
    /// workloads have waited the longest, by kind.
    pub fn rotation_states(
        &self,
        waiting: &[(&'static str, usize)],
        held: &[(&'static str, usize)],
        in_flight: usize,
        failed: usize,
        staleness: &[(&'static str, f64)],
    ) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for (family, counts) in [
            (&self.rotations_waiting, waiting),
            (&self.rotations_held, held),
        ] {
            for (reason, count) in counts {
                family
                    .get_or_create(&ReasonLabels { reason })
                    .set(number(*count));
            }
        }
        self.rotations_in_flight.set(number(in_flight));
        self.rotations_failed.set(number(failed));
        for (kind, seconds) in staleness {
            self.staleness
                .get_or_create(&KindLabels { kind })
                .set(*seconds);
        }
    }

    /// The rollout of a rotation has finished, so many seconds after the vault's update.
    pub fn rolled_out(&self, since_update: f64) {
        self.until_rolled_out.observe(since_update);
    }

    /// All metrics as text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &lock(&self.registry));
        text
    }
}

/// A panic elsewhere leaves these whole, so their poison means nothing.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_that_is_gone_has_no_metrics() {
        let metrics = Metrics::default();
        metrics.mirror_state("n", "m", true, false, false);
        assert!(
            metrics
                .encode()
                .contains(r#"keytide_mirror_ready{namespace="n",mirror="m"} 1"#)
        );
        metrics.mirror_gone("n", "m");
        assert!(!metrics.encode().contains(r#"mirror="m""#));
    }
}
