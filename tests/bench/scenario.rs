//! What is measured, and under which conditions.

use std::time::Duration;

use serde::{Serialize, Serializer};

/// The conditions of a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Setting {
    /// Objects, each with a mirror of its own.
    pub objects: usize,
    pub vaults: usize,
    pub namespaces: usize,
    /// Time that a vault takes to answer.
    #[serde(serialize_with = "seconds")]
    pub latency: Duration,
    /// `refreshInterval` of all mirrors.
    #[serde(serialize_with = "seconds")]
    pub interval: Duration,
    pub survey: Survey,
}

/// The daemon's `--survey`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Survey {
    Auto,
    Never,
}

/// What is done with a system, one after the other, while it is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    /// Nothing changes, for so many intervals.
    Steady { intervals: u32 },
    /// This share of the objects changes in each of so many intervals, evenly spread over the time.
    Changing { share: f64, intervals: u32 },
    /// The same in one interval, with another daemon that is told of each change by a hint.
    Hinted { share: f64 },
    /// The daemon is killed and started again.
    Restart,
}

/// A system and what is done with it.
#[derive(Clone, Debug, PartialEq)]
pub enum Scenario {
    /// The dev vault alone.
    Capacity { objects: usize },
    /// A daemon with nothing to do.
    Idle,
    /// A cold start, beside the bare loop if `bare`, and what follows.
    Mirrors {
        setting: Setting,
        bare: bool,
        phases: Vec<Phase>,
    },
    /// So many mirrors in so many namespaces want one object, which changes so often.
    SharedObject {
        mirrors: usize,
        namespaces: usize,
        changes: usize,
    },
    /// Two vaults of which one throttles; the other's share changes in each of so many intervals.
    Throttled {
        objects: usize,
        share: f64,
        intervals: u32,
    },
    /// Many workloads, of which `consumers` use Secrets that change.
    Rotation {
        workloads: usize,
        consumers: usize,
        namespaces: usize,
    },
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Extent {
    /// A few minutes, for development: at most 1,000 objects.
    Quick,
    /// All that there is a bar for.
    Standard,
    /// And what there is none for.
    Full,
    /// Rotation alone, by bars of its own.
    Rotation,
}

/// Of as many changes as that, and a few that are counted one by one, 99 % are not all.
const CONSUMERS: usize = 103;
const LATENCY: Duration = Duration::from_millis(50);
const SHORT: Duration = Duration::from_secs(10);
const DEFAULT: Duration = Duration::from_secs(60);

impl Extent {
    /// `workloads` are those of rotation.
    pub fn scenarios(self, workloads: usize) -> Vec<Scenario> {
        if self == Self::Rotation {
            return vec![Scenario::Rotation {
                workloads,
                consumers: CONSUMERS.min(workloads / 2),
                namespaces: 10,
            }];
        }
        let mut scenarios = vec![Scenario::Capacity { objects: 1_000 }, Scenario::Idle];
        scenarios.extend(self.sizes());
        let (mirrors, namespaces, changes) = match self {
            Self::Quick => (100, 10, 2),
            _ => (1_000, 100, 5),
        };
        scenarios.push(Scenario::SharedObject {
            mirrors,
            namespaces,
            changes,
        });
        scenarios.push(Scenario::Throttled {
            objects: if self == Self::Quick { 100 } else { 1_000 },
            share: 0.1,
            intervals: if self == Self::Quick { 2 } else { 6 },
        });
        scenarios
    }

    fn sizes(self) -> Vec<Scenario> {
        let (few, many) = match self {
            Self::Quick => (2, 2),
            _ => (6, 3),
        };
        let mut sizes = vec![
            mirrors(small(100), false, self.phases(few)),
            mirrors(small(1_000), true, self.phases_with_hints(few)),
            mirrors(
                Setting {
                    survey: Survey::Never,
                    ..small(1_000)
                },
                false,
                vec![Phase::Steady { intervals: few }],
            ),
        ];
        if self != Self::Quick {
            let one_vault = Setting {
                objects: 10_000,
                vaults: 1,
                namespaces: 500,
                latency: LATENCY,
                interval: DEFAULT,
                survey: Survey::Auto,
            };
            let many_vaults = Setting {
                vaults: 50,
                ..one_vault
            };
            let without_latency = Setting {
                latency: Duration::ZERO,
                ..many_vaults
            };
            let steady = vec![Phase::Steady { intervals: 2 }];
            sizes.extend([
                mirrors(one_vault, false, self.phases_with_hints(many)),
                mirrors(many_vaults, true, vec![]),
                mirrors(without_latency, true, steady),
            ]);
        }
        sizes
    }

    fn phases_with_hints(self, intervals: u32) -> Vec<Phase> {
        let mut phases = self.phases(intervals);
        phases.push(Phase::Hinted { share: 0.01 });
        phases
    }

    fn phases(self, intervals: u32) -> Vec<Phase> {
        let changing = |share, intervals| Phase::Changing { share, intervals };
        let mut phases = vec![
            Phase::Steady {
                intervals: intervals.min(6),
            },
            changing(0.01, intervals),
        ];
        if self == Self::Full {
            phases.extend([changing(1.0, 1), Phase::Restart]);
        }
        phases
    }
}

/// Fewer than 10,000 objects, in one vault.
fn small(objects: usize) -> Setting {
    Setting {
        objects,
        vaults: 1,
        namespaces: objects / 10,
        latency: LATENCY,
        interval: SHORT,
        survey: Survey::Auto,
    }
}

fn mirrors(setting: Setting, bare: bool, phases: Vec<Phase>) -> Scenario {
    Scenario::Mirrors {
        setting,
        bare,
        phases,
    }
}

fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
