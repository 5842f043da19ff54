//! Which vault objects a mirror is made of, and which keys it fills.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::login::{BASIC_AUTH, docker_config_key};
use super::{Problem, Unrenderable};
use crate::api::{
    CertificateKind, CertificateObject, DataSource, KeyFormat, KeyVaultMirrorSpec, MergePolicy,
    ObjectKind, SecretObject, VaultObject,
};
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
                ObjectKind::Certificate if object.format == Some(KeyFormat::Raw) => {
                    Collection::Secrets
                }
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
            kind: match object.kind {
                CertificateKind::Certificate => ObjectKind::Certificate,
                CertificateKind::Secret => ObjectKind::Secret,
            },
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
    sources.extend(spec.data_from.iter().flat_map(sources_of));
    sources.sort();
    sources.dedup();
    sources
}

/// The objects that an entry of `dataFrom` needs.
pub(super) fn sources_of(from: &DataSource) -> Vec<Source> {
    let mut sources = Vec::new();
    if let Some(certificate) = &from.certificate {
        sources.push(Source::of_certificate(certificate));
        let keystore = certificate.keystore.iter();
        sources.extend(keystore.map(|keystore| Source::of_secret(&keystore.password)));
    }
    if let Some(expanded) = &from.expand {
        sources.push(Source::of_secret(&expanded.object));
    }
    if let Some(basic_auth) = &from.basic_auth {
        sources.push(Source::of_secret(&basic_auth.object));
    }
    if let Some(docker_config) = &from.docker_config {
        let registries = docker_config.registries.iter();
        let secrets = registries
            .flat_map(|registry| registry.username_from.iter().chain([&registry.password]));
        sources.extend(secrets.map(Source::of_secret));
    }
    sources
}

/// Whether each of a mirror's objects has a version, so that its content stays for good.
pub fn is_pinned(spec: &KeyVaultMirrorSpec) -> bool {
    let is_pinned = |source: &Source| source.version.is_some();
    let mut data_from = spec.data_from.iter();
    data_from.all(|from| from.matching.is_none()) && sources(spec).iter().all(is_pinned)
}

/// The keys that a mirror fills, as far as its spec alone tells.
pub fn keys(spec: &KeyVaultMirrorSpec) -> Vec<&str> {
    let Some(template) = &spec.template else {
        return inputs(spec);
    };
    let mut keys = match template.merge_policy {
        MergePolicy::Merge => inputs(spec),
        MergePolicy::Replace => Vec::new(),
    };
    keys.retain(|key| !template.data.contains_key(*key));
    keys.extend(template.data.keys().map(String::as_str));
    keys
}

/// The keys that `data` and `dataFrom` give, as far as the spec alone tells; a key that is named twice is there twice.
pub fn inputs(spec: &KeyVaultMirrorSpec) -> Vec<&str> {
    let mut keys: Vec<&str> = spec.data.iter().map(|entry| entry.key.as_str()).collect();
    for certificate in spec
        .data_from
        .iter()
        .filter_map(|from| from.certificate.as_ref())
    {
        keys.extend(["tls.crt", "tls.key"]);
        keys.extend(certificate.layout.is_none().then_some("ca.crt"));
        keys.extend(
            certificate
                .keystore
                .iter()
                .map(|keystore| keystore.target_key()),
        );
    }
    for from in &spec.data_from {
        keys.extend(from.basic_auth.iter().flat_map(|_| BASIC_AUTH));
        let docker_config = from.docker_config.iter();
        keys.extend(docker_config.map(|_| docker_config_key(spec.target.type_)));
    }
    keys
}

/// Whether [`keys`] are all: what is expanded fills keys that only its content tells, and what is matched those that the vault has
/// names for.
pub fn is_known(spec: &KeyVaultMirrorSpec) -> bool {
    let template = spec.template.as_ref();
    template.is_some_and(|template| template.merge_policy == MergePolicy::Replace)
        || spec
            .data_from
            .iter()
            .all(|from| from.expand.is_none() && from.matching.is_none())
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
