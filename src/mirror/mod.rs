//! The controller of mirrors: keeps each target as its vault objects are.
//!
//! ```text
//! KeyVaultMirror + KeyVaultGrants ──grant, matching──▶ reads ──vault──▶ content ──render──▶ data ──plan──▶ write ──apply──▶ target
//! ```
//!
//! A mirror says which objects it wants, and is woken when there is content for it: no mirror asks its vault by itself, and one
//! whose objects stay as they are does nothing. Watches KeyVaultMirrors (what is wanted), KeyVaultGrants (what is allowed) and the
//! metadata of Secrets and ConfigMaps with the label `keytide.dev/mirrored` (what is there). It must never leave half a mirror in a
//! target, take over without consent what isn't Keytide's, or pass content to anything but `apply` and the digest.
//!
//! | | decides (pure) | looks and carries out |
//! |---|---|---|
//! | what a mirror may have | `grant`, `account`, `matching`, `schedule`, `limits` | `wants` |
//! | what the target is to have | `revert` (the version before, where a rollout failed) | `content`, `revert_requests` |
//! | what to write | `plan`, `conflict`, `consent`, `adoption`, `ownership`, `record`, `size` | `controller`, `write`, `apply` |
//! | what to tell | `status`, `preview` (what would be written) | `report`, `preview::run` |
//! | what to remove | `sweep` | `cleanup` |
//!
//! `akv2k8s` makes mirrors of AzureKeyVaultSecrets. `memory` and `activity` are what is remembered of mirrors, and `target`,
//! `target_name` and `targets` what is known of Secrets and ConfigMaps.

mod account;
mod activity;
mod adoption;
pub(crate) mod akv2k8s;
mod apply;
mod cleanup;
mod conflict;
mod consent;
mod content;
mod controller;
mod grant;
mod limits;
mod matching;
mod memory;
mod ownership;
mod plan;
mod preview;
mod record;
mod report;
mod revert;
mod revert_requests;
mod schedule;
mod size;
mod status;
mod sweep;
mod target;
mod target_name;
mod targets;
mod wants;
mod write;

#[cfg(test)]
mod samples;

pub use self::account::USE_LABEL;
pub use self::activity::{Activity, State};
pub use self::controller::{Mirrors, Triggers, mirrors_of, run};
pub use self::grant::glob_matches;
pub use self::memory::{Memories, MirrorId};
pub use self::plan::MIRRORED_LABEL;
pub use self::preview::{KeyChange, KeyPreview, KeyVersion, Preview, TargetChange, Terms};
#[cfg(test)]
pub use self::record::Content as KeyContent;
pub use self::record::{KeyRecord, Record, records};
pub use self::revert_requests::{AskedReverts, RevertRequest, RevertRequests};
pub use self::schedule::backoff;
pub use self::status::Failure;
pub use self::target::Target;
pub use self::target_name::TargetName;
pub use self::targets::TargetStores;
