//! Keytide mirrors Azure Key Vault objects into Kubernetes Secrets, and rolls the workloads that use them when
//! their content changes.
//!
//! ```text
//! Key Vault ──survey──▶ what changed ──fetch──▶ render ──▶ Secret ──digest──▶ decide ──▶ pod template ──▶ rollout
//!   vault/                vault/       vault/   render/    mirror/  digest     rotation/   rotation/
//! ```

pub mod api;
pub mod cli;
pub mod clock;
#[cfg(feature = "dev-vault")]
pub mod devvault;
pub mod digest;
pub mod mirror;
pub mod render;
pub mod rotation;
pub mod telemetry;
pub mod vault;
mod watch;
