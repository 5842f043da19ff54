//! Which vault objects a mirror is made of, and which keys it fills.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Problem, Unrenderable};
use crate::api::{CertificateObject, KeyVaultMirrorSpec, ObjectKind, SecretObject, VaultObject};
use crate::vault::{Collection, VaultSecret};

/// A vault object that a mirror needs.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Source {
    /// What it is, as grants have it.
    pub kind: ObjectKind,
    /// Where it is read: a certificate with its key is read as the secret that backs it.
    pub collection: Collection,
    /// As the mirror writes it; Key Vault's names don't distinguish case.
    pub name: String,
    pub version: Option<String>,
}

impl Source {
    pub(super) fn of(object: &VaultObject) -> Self {
        Self {
            kind: object.kind,
            collection: match object.kind {
                ObjectKind::Secret => Collection::Secrets,
                ObjectKind::Certificate => Collection::Certificates,
                ObjectKind::Key => Collection::Keys,
            },
            name: object.name.clone(),
            version: object.version.clone(),
        }
    }

    pub(super) fn of_secret(object: &SecretObject) -> Self {
        Self {
            kind: ObjectKind::Secret,
            collection: Collection::Secrets,
            name: object.name.clone(),
            version: object.version.clone(),
        }
    }

    pub(super) fn of_certificate(object: &CertificateObject) -> Self {
        Self {
            kind: ObjectKind::Certificate,
            ..Self::of_secret(&SecretObject {
                name: object.name.clone(),
                version: object.version.clone(),
            })
        }
    }

    /// Says of this object what is wrong with it.
    pub(super) fn failed<P: Into<Problem>>(&self) -> impl Fn(P) -> Unrenderable + use<P> {
        let (kind, object) = (self.kind, self.name.clone());
        move |problem| Unrenderable {
            kind,
            object: object.clone(),
            problem: problem.into(),
        }
    }
}

/// The objects that a mirror needs, each once.
pub fn sources(spec: &KeyVaultMirrorSpec) -> Vec<Source> {
    let mut sources: Vec<Source> = spec.data.iter().map(|e| Source::of(&e.object)).collect();
    for certificate in spec
        .data_from
        .iter()
        .filter_map(|from| from.certificate.as_ref())
    {
        sources.push(Source::of_certificate(certificate));
        let keystore = certificate.keystore.iter();
        sources.extend(keystore.map(|keystore| Source::of_secret(&keystore.password)));
    }
    let expanded = spec
        .data_from
        .iter()
        .filter_map(|from| from.expand.as_ref());
    sources.extend(expanded.map(|expanded| Source::of_secret(&expanded.object)));
    sources.sort();
    sources.dedup();
    sources
}

/// The keys that a mirror fills, as far as its spec alone tells; a key that is named twice is there twice.
pub fn keys(spec: &KeyVaultMirrorSpec) -> Vec<&str> {
    let mut keys: Vec<&str> = spec.data.iter().map(|entry| entry.key.as_str()).collect();
    for certificate in spec
        .data_from
        .iter()
        .filter_map(|from| from.certificate.as_ref())
    {
        keys.extend(["tls.crt", "tls.key", "ca.crt"]);
        keys.extend(
            certificate
                .keystore
                .iter()
                .map(|keystore| keystore.target_key()),
        );
    }
    keys
}

/// Whether [`keys`] are all: what is expanded fills keys that only its content tells.
pub fn is_known(spec: &KeyVaultMirrorSpec) -> bool {
    spec.data_from.iter().all(|from| from.expand.is_none())
}

/// The content of a mirror's sources.
#[derive(Clone, Debug, Default)]
pub struct Contents(BTreeMap<Source, Arc<VaultSecret>>);

impl Contents {
    pub(super) fn get(&self, source: &Source) -> Result<&Arc<VaultSecret>, Problem> {
        self.0.get(source).ok_or(Problem::Missing)
    }
}

impl FromIterator<(Source, Arc<VaultSecret>)> for Contents {
    fn from_iter<I: IntoIterator<Item = (Source, Arc<VaultSecret>)>>(contents: I) -> Self {
        Self(contents.into_iter().collect())
    }
}
