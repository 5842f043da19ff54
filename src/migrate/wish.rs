//! A mirror to be, of whatever tool's resource.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::Findings;
use super::names;
use crate::api::{
    BasicAuth, CertificateKind, CertificateLayout, CertificateObject, DataEntry, DataSource,
    DeletionPolicy, Expand, ExpandFormat, GrantIdentity, KeyVaultMirrorSpec, MissingPolicy,
    ObjectKind, SecretObject, SecretType, Target, TargetKind, Transform, VaultObject, VaultRef,
};
use crate::render;

/// Most entries of a mirror's data and dataFrom, and most labels of its target.
const MOST_KEYS: usize = 500;
const MOST_SOURCES: usize = 50;
const MOST_LABELS: usize = 64;

pub(super) struct Wish {
    /// The resource that it is from.
    pub subject: String,
    pub namespace: String,
    pub name: String,
    /// The identity that the grant has to name; none for the daemon's own.
    pub reader: Option<GrantIdentity>,
    pub spec: KeyVaultMirrorSpec,
}

/// A spec with what all tools leave to their defaults.
pub(super) fn spec(
    vault: VaultRef,
    data: Vec<DataEntry>,
    data_from: Vec<DataSource>,
    target: Target,
) -> KeyVaultMirrorSpec {
    KeyVaultMirrorSpec {
        vault,
        identity: None,
        data,
        data_from,
        template: None,
        target,
        deletion_policy: DeletionPolicy::Delete,
        missing_policy: MissingPolicy::Keep,
        refresh_interval: "1m".to_owned(),
    }
}

/// An object of the vault by its name, and by its version where one is pinned.
#[derive(Clone, Copy)]
pub(super) struct Pinned<'a> {
    pub name: &'a str,
    /// Empty for the latest, as all three tools have it.
    pub version: &'a str,
}

impl Pinned<'_> {
    /// Name and version as the API takes them.
    fn checked(self, findings: &mut Findings) -> (String, Option<String>) {
        let Self { name, version } = self;
        if !names::is_object(name) {
            findings.not_converted(format_args!("{name:?} is not a name of a vault object"));
        }
        if !version.is_empty() && !names::is_version(version) {
            findings.not_converted(format_args!(
                "{version:?} is not a version of a vault object"
            ));
        }
        let pinned = (!version.is_empty()).then(|| version.to_owned());
        (name.to_owned(), pinned)
    }
}

/// A key that an object of the vault fills.
pub(super) fn entry(
    findings: &mut Findings,
    key: &str,
    kind: ObjectKind,
    object: Pinned,
) -> DataEntry {
    if !names::is_key(key) {
        findings.not_converted(format_args!("{key:?} is not a key that a Secret can have"));
    }
    let (name, version) = object.checked(findings);
    DataEntry {
        key: key.to_owned(),
        object: VaultObject {
            kind,
            name,
            version,
            property: None,
            format: None,
        },
        transforms: Vec::new(),
    }
}

/// `tls.crt`, `tls.key` and, where akv2k8s' layout is not asked for, `ca.crt`.
pub(super) fn certificate(
    findings: &mut Findings,
    object: Pinned,
    kind: CertificateKind,
    layout: Option<CertificateLayout>,
) -> DataSource {
    let (name, version) = object.checked(findings);
    DataSource {
        certificate: Some(CertificateObject {
            kind,
            name,
            version,
            layout,
            keystore: None,
        }),
        expand: None,
        matching: None,
        basic_auth: None,
        docker_config: None,
    }
}

/// A key for each value that a secret has.
pub(super) fn expand(findings: &mut Findings, object: Pinned, format: ExpandFormat) -> DataSource {
    let (name, version) = object.checked(findings);
    DataSource {
        certificate: None,
        expand: Some(Expand {
            object: SecretObject { name, version },
            format,
        }),
        matching: None,
        basic_auth: None,
        docker_config: None,
    }
}

/// `username` and `password` of a secret that has both.
pub(super) fn basic_auth(
    findings: &mut Findings,
    object: Pinned,
    transforms: Vec<Transform>,
) -> DataSource {
    let (name, version) = object.checked(findings);
    DataSource {
        certificate: None,
        expand: None,
        matching: None,
        basic_auth: Some(BasicAuth {
            object: SecretObject { name, version },
            transforms,
        }),
        docker_config: None,
    }
}

/// The Secret to write.
pub(super) fn target(
    findings: &mut Findings,
    name: &str,
    type_: &str,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Target {
    if !names::is_dns(name) {
        findings.not_converted(format_args!("{name:?} is not a name of a Secret"));
    }
    Target {
        kind: TargetKind::Secret,
        name: name.to_owned(),
        type_: secret_type(type_).unwrap_or_else(|| {
            findings.not_converted(format_args!("mirrors write no Secrets of type {type_:?}"));
            SecretType::default()
        }),
        labels: carried(labels),
        annotations: carried(annotations),
        immutable: false,
    }
}

/// The ConfigMap to write.
pub(super) fn config_map(
    findings: &mut Findings,
    name: &str,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Target {
    Target {
        kind: TargetKind::ConfigMap,
        ..target(findings, name, "", labels, annotations)
    }
}

fn secret_type(name: &str) -> Option<SecretType> {
    let all = [
        SecretType::Opaque,
        SecretType::Tls,
        SecretType::DockerConfigJson,
        SecretType::DockerCfg,
        SecretType::BasicAuth,
        SecretType::SshAuth,
    ];
    if name.is_empty() {
        return Some(SecretType::default());
    }
    all.into_iter().find(|known| known.to_string() == name)
}

/// Labels or annotations, without those that are about the resource itself: by which kubectl, Helm, Argo CD and Flux know what
/// they applied, and those that the tools and Keytide keep for themselves.
fn carried(map: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let own = |key: &str| {
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let belongs_to = |owner: &str| {
            domain == owner
                || domain
                    .strip_suffix(owner)
                    .is_some_and(|rest| rest.ends_with('.'))
        };
        key.contains("keytide.dev/")
            || key == "kubectl.kubernetes.io/last-applied-configuration"
            || key == "app.kubernetes.io/managed-by"
            || [
                "helm.sh",
                "argoproj.io",
                "fluxcd.io",
                "external-secrets.io",
                "spv.no",
            ]
            .into_iter()
            .any(belongs_to)
    };
    map.iter()
        .filter(|(key, _)| !own(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// What the definition of mirrors would refuse of this one as a whole.
pub(super) fn check(wish: &Wish, findings: &mut Findings) {
    let target = &wish.spec.target;
    let mut keys = BTreeSet::new();
    for key in render::inputs(&wish.spec) {
        if !keys.insert(key) {
            findings.not_converted(format_args!("key {key:?} is filled twice"));
        }
    }
    // With dataFrom, only the content of the vault tells which keys there are.
    if wish.spec.data_from.is_empty() && !findings.forbid() {
        let has_keys = render::check_keys(target.type_, |key| keys.contains(key));
        findings.take(has_keys);
    }
    if wish.spec.data.len() > MOST_KEYS || wish.spec.data_from.len() > MOST_SOURCES {
        findings.not_converted(format_args!(
            "a mirror has at most {MOST_KEYS} entries of data and {MOST_SOURCES} of dataFrom: make several of it, with one Secret"
        ));
    }
    if target.labels.len().max(target.annotations.len()) > MOST_LABELS {
        findings.not_converted(format_args!(
            "a mirror has at most {MOST_LABELS} labels, and as many annotations"
        ));
    }
}
