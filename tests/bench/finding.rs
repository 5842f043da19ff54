//! What the benchmark finds out, as plain values: what the report prints and the bars are held against.

use std::collections::BTreeMap;

use serde::Serialize;

use super::api_server::Asked;
use super::scenario::Setting;
use super::vault::Requests;

/// One thing that was measured. Times are seconds, memory is bytes.
#[derive(Clone, Debug, Serialize)]
#[serde(
    tag = "what",
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum Finding {
    /// What the dev vault can do.
    Capacity {
        requests_per_second: f64,
    },
    /// A daemon without mirrors.
    Idle {
        resident: u64,
        peak: u64,
    },
    /// From the daemon's start to the last status.
    ColdStart {
        setting: Setting,
        costs: Costs,
        mirrors_per_second: f64,
        /// The bare loop's rate, before and after.
        bare: Option<[f64; 2]>,
    },
    Steady {
        setting: Setting,
        costs: Costs,
    },
    Changing {
        setting: Setting,
        costs: Costs,
        share: f64,
        latency: Latency,
    },
    /// With a hint of each change.
    Hinted {
        setting: Setting,
        latency: Latency,
    },
    /// From the daemon's start to the end of its first interval.
    Restart {
        setting: Setting,
        costs: Costs,
    },
    SharedObject {
        mirrors: usize,
        namespaces: usize,
        changes: Vec<SharedChange>,
    },
    /// Of one vault's objects, while the other answers and while it throttles.
    Throttled {
        setting: Setting,
        undisturbed: Latency,
        beside: Latency,
        /// Until all of the throttled vault's changes were written too, once it answered again.
        recovery: f64,
    },
    Rotation(Rotation),
}

/// Rotation among many workloads.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rotation {
    pub workloads: usize,
    /// Those of them whose Secrets were changed, once each.
    pub consumers: usize,
    pub namespaces: usize,
    /// The policy's.
    pub settle: f64,
    /// Requests to the API server by verb and resource, of each change that was made by itself.
    pub requests: Vec<BTreeMap<String, u64>>,
    /// From the Secret's being seen changed to the new Pod template's, of the other changes.
    pub latency: Latency,
    /// New Pod templates, of all changes.
    pub restarts: usize,
    pub resident: u64,
    pub peak: u64,
}

impl Rotation {
    /// Of both sorts.
    pub fn changes(&self) -> usize {
        self.requests.len() + self.latency.changes
    }
}

/// What a daemon used and asked for in some time.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Costs {
    pub seconds: f64,
    pub vault: Requests,
    pub api_server: Asked,
    pub cpu_seconds: f64,
    /// At the end.
    pub resident: u64,
    /// Since the daemon's start.
    pub peak: u64,
    /// Mean time that listing a vault took.
    pub survey: Option<f64>,
}

impl Costs {
    /// Requests to the vaults per interval of the setting.
    pub fn requests_per_interval(&self, setting: &Setting) -> f64 {
        self.vault.total() as f64 / self.intervals(setting)
    }

    /// Share of one core.
    pub fn cpu_share(&self) -> f64 {
        self.cpu_seconds / self.seconds
    }

    /// Requests to the vaults per object and interval.
    pub fn requests_per_object(&self, setting: &Setting) -> f64 {
        self.requests_per_interval(setting) / setting.objects as f64
    }

    /// CPU seconds per object and interval.
    pub fn cpu_per_object(&self, setting: &Setting) -> f64 {
        self.cpu_seconds / self.intervals(setting) / setting.objects as f64
    }

    fn intervals(&self, setting: &Setting) -> f64 {
        self.seconds / setting.interval.as_secs_f64()
    }
}

/// Time from a change to its being seen further on: from the vault's taking it to the Secret, unless something else is said.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    pub changes: usize,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Latency {
    /// None of no samples.
    pub fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_unstable_by(f64::total_cmp);
        let rank = |share: f64| {
            let rank = (share * samples.len() as f64).ceil() as usize;
            samples.get(rank.saturating_sub(1)).copied()
        };
        Some(Self {
            changes: samples.len(),
            p50: rank(0.5)?,
            p99: rank(0.99)?,
            max: rank(1.0)?,
        })
    }
}

/// A change of the object that all mirrors want.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SharedChange {
    pub gets: u64,
    /// Seconds from `updated` to the first read, both whole as the vault tells them.
    pub read_after: i64,
    /// Until the last Secret.
    pub last: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let latency = Latency::of((1..=200).rev().map(f64::from).collect());
        let expected = Latency {
            changes: 200,
            p50: 100.0,
            p99: 198.0,
            max: 200.0,
        };
        assert_eq!(latency, Some(expected));
        assert_eq!(Latency::of(vec![3.0]).map(|latency| latency.p50), Some(3.0));
        assert_eq!(Latency::of(Vec::new()), None);
    }
}
