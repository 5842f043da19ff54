//! The controller of workloads: rolls those that opted in when the content that they use has changed.
//!
//! ```text
//! workload ──opt_in, reference──▶ keys in use ─┐
//! Secret's record (digests, times) ────────────┼──decide──▶ nothing, record, wait, or rotate ──▶ Pod template
//! containers (start times) ────────────────────┘
//! ```
//!
//! `workload`, `opt_in`, `reference`, `content`, `baseline`, `rollout` and `decide` are pure; `controller` looks and carries out, by
//! `pods` and `apply`. Watches workloads of every kind ([`WorkloadKind`]) and the metadata of mirrored Secrets; lists the Pods of a
//! workload only when its content is not what its baseline says. It must never read a Secret's data, roll what did not opt in, or roll twice for one content.

mod apply;
mod baseline;
mod cached;
mod controller;
mod decide;
mod opt_in;
mod pods;
mod reference;
mod rollout;
mod sources;
mod unmirrored;
mod workload;
mod workloads;

pub use self::cached::{Class, Version, class, version};
pub use self::controller::{Rollouts, Rotations, Triggers, Warned, run};
pub use self::decide::{MARGIN, Timing};
pub use self::opt_in::ROTATE;
pub use self::reference::{Source, SourceKind};
pub use self::sources::Sources;
pub use self::unmirrored::Unmirrored;
pub use self::workload::{Workload, WorkloadKind};
pub use self::workloads::Workloads;
