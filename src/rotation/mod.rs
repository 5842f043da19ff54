//! The controller of workloads: rolls those that opted in when the content that they use has changed.
//!
//! ```text
//! workload ──opt_in, reference──▶ keys in use ─┐
//! target's record (digests, times) ────────────┤
//! containers (start times) ────────────────────┼──decide──▶ nothing, record, wait, hold, or rotate ──▶ Pod template
//! RotationPolicy ──────────────────────────────┤
//! rotations under way or failed ──flight───────┘
//! ```
//!
//! `workload`, `opt_in`, `reference`, `cached`, `baseline`, `trial`, `rollout`, `policy`, `window`, `gate`, `flight` and `decide` are
//! pure; `controller` looks and carries out, by `pods`, `sources`, `unmirrored`, `apply` and `telling`; `outlook` tells what it would do;
//! `policies` says on each policy whether it can be followed. Watches workloads of every kind ([`WorkloadKind`]), RotationPolicies and
//! the metadata of targets; lists the Pods of a workload only when its content is not what its baseline says, or when others, or
//! mirrors, wait for how its rollout goes. It must never read the data of what a mirror fills, roll what did not opt in, or roll twice
//! for one content.

mod apply;
mod baseline;
mod cached;
mod controller;
mod decide;
mod flight;
mod gate;
mod judge;
mod memory;
mod opt_in;
mod outlook;
mod pods;
mod policies;
mod policy;
mod reference;
mod rollout;
mod sources;
mod standing;
mod telling;
mod trial;
mod unmirrored;
mod window;
mod workload;
mod workloads;

pub use self::cached::{Class, Version, class, version};
pub use self::controller::{Rotations, Triggers, run};
pub use self::flight::Flights;
pub use self::judge::Judge;
pub use self::memory::Memories;
pub use self::opt_in::{RELOADER_AUTO, RELOADER_CONFIG_MAPS, RELOADER_SECRETS, ROTATE};
pub use self::outlook::{Outlook, Restart};
pub use self::policies::Policies;
pub use self::policy::{Policy, ROTATION_POLICY};
pub use self::reference::{Source, SourceKey, SourceKind};
pub use self::sources::Sources;
pub use self::standing::{Standing, State};
pub use self::unmirrored::Unmirrored;
pub use self::workload::{Workload, WorkloadKind};
pub use self::workloads::Workloads;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod simulation_tests;
