//! Keytide mirrors Azure Key Vault objects into Kubernetes Secrets and ConfigMaps, and rolls the workloads that use them when
//! their content changes.
//!
//! ```text
//! Key Vault ──survey──▶ what changed ──fetch──▶ render ──▶ Secret ──digest──▶ decide ──▶ pod template ──▶ rollout
//!   vault/                vault/       vault/   render/    mirror/  digest     rotation/   rotation/
//! ```
//!
//! One direction, no way back: what goes the other way is never content, only word that a rollout has failed. What decides is pure and takes its clock as a value; what acts is thin.
//!
//! | module | what it is for |
//! |---|---|
//! | [`api`] | the custom resources and their conditions |
//! | [`vault`] | Key Vault: what changed in it, when it may be asked, and who is given what |
//! | [`render`] | vault objects to the data of a Secret |
//! | [`digest`] | keyed digests of content |
//! | [`mirror`] | the controller of mirrors: keeps each target as its vault objects are |
//! | [`rotation`] | the controller of workloads: rolls those whose content changed |
//! | [`clock`] | the API server's clock, by which times of different machines are compared |
//! | [`telemetry`] | logs, metrics, events, health |
//! | [`leader`] | which of several daemons acts, agreed on by a Lease |
//! | [`daemon`] | fills the caches, waits to lead, runs the controllers |
//! | `watch` | watches that fill a store and tell what was touched, and indexes over stores |
//! | [`migrate`] | other tools' resources to mirrors and grants |
//! | [`cli`] | the subcommands |
//! | `devvault` | a Key Vault, Entra and IMDS double for tests and demos (feature `dev-vault`) |

pub mod api;
pub mod cli;
pub mod clock;
pub mod daemon;
#[cfg(feature = "dev-vault")]
pub mod devvault;
pub mod digest;
pub mod leader;
pub mod migrate;
pub mod mirror;
pub mod render;
pub mod rotation;
pub mod telemetry;
pub mod vault;
mod watch;
