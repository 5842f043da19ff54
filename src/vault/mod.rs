//! Key Vault: what changed, when it may be asked, and who is given what.
//!
//! ```text
//! mirrors ──want──▶ subscriptions ──▶ ┌ engine: survey ─▶ governor ┐ ──requests──▶ task ──client──▶ Key Vault
//! mirrors ◀─content─ subscriptions ◀── └──────────── news ──────────┘ ◀─answers─── task ◀──────────
//! ```
//!
//! There is one engine, and one task that carries out what it decides, per vault and identity. [`survey`] finds out what changed for a fraction
//! of the requests that reading everything would take, [`governor`] says when the vault may be asked, and
//! [`subscriptions`] hands each answer to all that want it, [`rosters`] which objects there are; these four are pure. [`hints`] say where to look before the survey
//! would. [`Vaults`] is what the mirrors see.
//!
//! This module must never log, print or keep a value; its errors name objects and never contents.

mod budget;
mod client;
mod engine;
mod error;
mod fingerprint;
mod governor;
mod hints;
mod identity;
mod name;
mod rosters;
mod secret;
mod subscriptions;
mod survey;
mod task;
mod token;
mod vaults;

pub use client::{Transport, TransportError};
pub use error::{VaultError, VaultErrorKind};
pub use governor::Limits;
pub use hints::Source as HintSource;
pub use identity::{
    CredentialKind, EXCHANGE_AUDIENCE, Identity, ServiceAccount, ServiceAccountTokens,
};
pub use name::{Collection, DnsSuffixes, InvalidVault, VaultHost, is_vault_name};
pub use secret::{SecretValue, VaultSecret};
pub use subscriptions::{Delivery, Found, IfMissing};
pub use survey::{Listed, Mode as SurveyMode, Roster, Settings as SurveySettings};
pub use vaults::{Account, Config, Notice, Subscriber, Vaults};

/// What is read, and as whom. Reads are shared among equal keys, so never across identities.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReadKey {
    pub vault: VaultHost,
    pub identity: Identity,
    pub collection: Collection,
    /// Name of the object, in lower case.
    pub name: String,
    /// Its version; none is the latest.
    pub version: Option<String>,
}
