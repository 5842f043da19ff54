//! The custom resources of `keytide.dev/v1alpha1`, one file per kind. Their field docs are what `kubectl explain`
//! prints, and their validation rules what `kubectl apply` says. Never logic: what a resource means is decided
//! in [`crate::mirror`] and [`crate::rotation`].

pub mod azure_key_vault_secret;
pub mod condition;
mod grant;
mod matching;
mod mirror;
mod rotation_policy;
mod template;

use std::fmt;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

pub use grant::{GrantIdentity, GrantedObjects, KeyVaultGrant, KeyVaultGrantSpec, MirrorsOwn};
pub use matching::Match;
pub use mirror::{
    BasicAuth, CertificateKind, CertificateLayout, CertificateObject, DataEntry, DataSource,
    DeletionPolicy, DockerConfig, Expand, ExpandFormat, KeyFormat, KeyVaultMirror,
    KeyVaultMirrorSpec, KeyVaultMirrorStatus, Keystore, KeystoreFormat, MirrorIdentity,
    MirroredObject, MissingObject, MissingPolicy, Registry, SecretObject, SecretType, Target,
    TargetKind, TargetStatus, Transform, VaultObject,
};
pub use rotation_policy::{
    Canary, Day, OnFailure, RotationPolicy, RotationPolicySpec, RotationPolicyStatus,
    RotationWindow, SecretUse,
};
pub use template::{MergePolicy, Template};

/// The API group of all of Keytide's resources, annotations and labels.
pub const GROUP: &str = "keytide.dev";

/// A Key Vault, by its name or by its URL: exactly one of them.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.name) != has(self.url)").message("give either name or url of the vault, not both and not neither")
)]
pub struct VaultRef {
    /// Name of the Key Vault, such as `contoso-runners`. The DNS suffix of the cloud is the daemon's configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[a-zA-Z][a-zA-Z0-9-]{1,22}[a-zA-Z0-9]$"))]
    pub name: Option<String>,
    /// URL of the Key Vault, such as `https://contoso-runners.vault.azure.net`. Its host must be under one of the DNS
    /// suffixes that the daemon is configured with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^https://[a-zA-Z0-9.-]+/?$"))]
    pub url: Option<String>,
}

/// What an object of a Key Vault is.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    Hash,
    schemars::JsonSchema,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum ObjectKind {
    /// A secret: a value of at most 25 KB.
    #[default]
    Secret,
    /// A certificate, with its chain and its private key where that can be exported.
    Certificate,
    /// The public part of a key. The private part never leaves the vault.
    Key,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret => "secret",
            Self::Certificate => "certificate",
            Self::Key => "key",
        })
    }
}
