//! The controller of mirrors: keeps each target as its vault objects are.
//!
//! ```text
//! KeyVaultMirror + KeyVaultGrants ──grant──▶ reads ──vault──▶ content ──render──▶ data ──plan──▶ write ──apply──▶ Secret
//! ```
//!
//! A mirror says which objects it wants, and is woken when there is content for it: no mirror asks its vault by itself, and one
//! whose objects stay as they are does nothing. Watches KeyVaultMirrors (what is wanted), KeyVaultGrants (what is allowed) and the metadata of Secrets with the label
//! `keytide.dev/mirrored` (what is there). `grant`, `account`, `schedule`, `memory`, `plan`, `status` and `sweep` decide and are pure;
//! `controller`, `apply`, `report` and `cleanup` look and carry out. It must never leave half a mirror in a target, take over a
//! Secret that isn't Keytide's, or pass content to anything but `apply` and the digest.

mod account;
mod activity;
mod apply;
mod cleanup;
mod controller;
mod grant;
mod memory;
mod ownership;
mod plan;
mod record;
mod report;
mod schedule;
mod status;
mod sweep;
mod target;

pub use self::account::USE_LABEL;
pub use self::activity::{Activity, State};
pub use self::controller::{Mirrors, Triggers, mirrors_of, run};
pub use self::memory::{Memories, MirrorId};
pub use self::plan::MIRRORED_LABEL;
#[cfg(test)]
pub use self::record::Content as KeyContent;
pub use self::record::{KeyRecord, Record, records};
pub use self::target::Target;
