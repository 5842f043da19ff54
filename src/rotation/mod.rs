//! The controller of workloads: rolls those that opted in when the content that they use has changed.
//!
//! ```text
//! Deployment ──opt_in, reference──▶ keys in use ─┐
//! Secret's record (digests, times) ──────────────┼──decide──▶ nothing, record, wait, or rotate ──▶ Pod template
//! containers (start times) ──────────────────────┘
//! ```
//!
//! `opt_in`, `reference`, `baseline`, `rollout`, `trim` and `decide` are pure; `controller` looks and carries out. Watches
//! Deployments and the metadata of mirrored Secrets; lists the Pods of a workload only when its content is not what
//! its baseline says. It must never read a Secret's data, roll what did not opt in, or roll twice for one content.

mod baseline;
mod controller;
mod decide;
mod opt_in;
mod reference;
mod rollout;
mod trim;

pub use self::controller::{Rollouts, Rotations, Triggers, Warned, run, secrets_of};
pub use self::decide::{MARGIN, Timing};
pub use self::trim::trim;
