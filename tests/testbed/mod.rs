//! The testbed: a real control plane, with fake nodes and the daemon beside it, or with a real node and all in Pods.
//!
//! ```text
//! tools ──▶ cluster (etcd, kube-apiserver, controller manager, scheduler, nodes) ──kubeconfig──▶ kubectl, helm, tests
//!             └── every process through process, which sees to it that none outlives us
//! ```
//!
//! Tests wait for conditions with a deadline ([`eventually`]), never for a time. It never touches a process that it
//! didn't start, nor the user's own kubeconfig, Helm or kubectl settings.

#![allow(
    dead_code,
    unused_imports,
    reason = "each program that includes the testbed uses another part of it"
)]

pub mod audit;
pub mod azure_devops;
pub mod azurite;
pub mod certificates;
pub mod cluster;
pub mod daemon;
pub mod keda;
pub mod kubeconfig;
pub mod nodes;
pub mod ports;
pub mod process;
pub mod real_node;
pub mod rollouts;
pub mod scratch;
pub mod shared;
pub mod standing;
pub mod system;
pub mod tools;
pub mod wait;

pub use shared::{Testbed, shared};
pub use wait::eventually;

/// Errors of the testbed are read by people and never told apart by programs.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
pub type Result<T, E = Error> = std::result::Result<T, E>;
