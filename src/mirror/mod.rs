//! The controller of mirrors: keeps each target as its vault objects are.
//!
//! ```text
//! KeyVaultMirror + KeyVaultGrants ──grant, matching──▶ reads ──vault──▶ content ──render──▶ data ──plan──▶ write ──apply──▶ target
//! ```
//!
//! A mirror says which objects it wants, and is woken when there is content for it: no mirror asks its vault by itself, and one
//! whose objects stay as they are does nothing. Watches KeyVaultMirrors (what is wanted), KeyVaultGrants (what is allowed) and the
//! metadata of Secrets and ConfigMaps with the label `keytide.dev/mirrored` (what is there). `grant`, `matching`, `account`,
//! `schedule`, `memory`, `plan`, `conflict`, `consent`, `adoption`, `size`, `limits`, `way_back`, `preview`, `status` and `sweep` decide
//! and are pure; `controller`, `wants`, `content`, `write`, `apply`, `report` and `cleanup` look and carry out; `lookahead` tells what
//! they would do. What the rotation asks comes by `reverts`. It must never leave half a mirror in a target, take over without consent
//! what isn't Keytide's, or pass content to anything but `apply` and the digest.

mod account;
mod activity;
mod adoption;
mod apply;
mod cleanup;
mod conflict;
mod consent;
mod content;
mod controller;
mod grant;
pub(crate) mod in_place;
mod in_place_report;
mod in_place_status;
mod limits;
mod lookahead;
mod matching;
mod memory;
mod ownership;
mod plan;
mod preview;
mod record;
mod report;
mod reverts;
mod schedule;
mod size;
mod status;
mod sweep;
mod target;
mod target_name;
mod targets;
mod wants;
mod way_back;
mod write;

#[cfg(test)]
mod samples;

pub use self::account::USE_LABEL;
pub use self::activity::{Activity, State};
pub use self::consent::{Consent, Origin};
pub use self::controller::{Mirrors, Triggers, mirrors_of, run};
pub use self::grant::matches;
pub use self::lookahead::Terms;
pub use self::memory::{Memories, MirrorId};
pub use self::plan::MIRRORED_LABEL;
pub use self::preview::{KeyChange, KeyPreview, KeyVersion, Preview, TargetChange};
#[cfg(test)]
pub use self::record::Content as KeyContent;
pub use self::record::{KeyRecord, Record, records};
pub use self::reverts::{Reverts, Wish, Wishes};
pub use self::status::Failure;
pub use self::target::Target;
pub use self::target_name::TargetName;
pub use self::targets::TargetStores;
