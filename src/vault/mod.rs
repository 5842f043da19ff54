//! Key Vault: names, identities, clients, errors and the reads that mirrors share.
//!
//! Everything that reads a value goes through [`Reader`]. That is the seam for the survey: what decides *whether* an object
//! must be read stands in front of it, and what reads does not change. This module must never log, print or keep a value;
//! its errors name objects and never contents.

mod client;
mod error;
mod identity;
mod name;
mod reader;
mod secret;

pub use client::{Transport, TransportError};
pub use error::{VaultError, VaultErrorKind};
pub use identity::{CredentialKind, Identity};
pub use name::{DnsSuffixes, InvalidVault, VaultHost};
pub use reader::{LINGER, ReadKey, Reader};
pub use secret::{SecretValue, VaultSecret};
