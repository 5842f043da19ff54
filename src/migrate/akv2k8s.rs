//! `AzureKeyVaultSecret` of akv2k8s, in all its versions. What its fields mean is in
//! <https://akv2k8s.io/reference/azure-key-vault-secret/> and, where that is silent, in the controller's
//! `secret_handler.go`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::finding::{Findings, Gap};
use super::resource::Resource;
use super::wish::{self, Pinned, Wish};
use super::{Outcome, names};
use crate::api::azure_key_vault_secret::GROUP;
use crate::api::{
    CertificateKind, CertificateLayout, DataEntry, DataSource, ExpandFormat, KeyFormat, ObjectKind,
    Transform,
};

/// Whether this is the group of akv2k8s: `spv.no`, or one of those that it had before its version 1.1.
pub(super) fn is_group(group: &str) -> bool {
    group == GROUP || group.ends_with(&format!(".{GROUP}"))
}

/// Whether a Secret or ConfigMap is to be written. A resource without is for the env injector.
pub(super) fn has_output(resource: &Resource) -> bool {
    let named = |output: &str| {
        let name = resource.pointer(&format!("/spec/output/{output}/name"));
        name.is_some_and(|name| name.as_str() != Some(""))
    };
    named("secret") || named("configMap")
}

/// v1, v1alpha1, v2alpha1 and v2beta1 together: a field means the same in all that have it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    vault: Vault,
    output: Option<Output>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Vault {
    name: String,
    object: Object,
    /// An object with a name, or (v2beta1) the name.
    azure_identity: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Object {
    name: String,
    #[serde(rename = "type")]
    type_: ObjectType,
    version: Option<String>,
    /// Of a secret with several values.
    content_type: Option<String>,
    /// Whether to poll. The field has this name by a mistake of akv2k8s; its controller polls in any case.
    #[serde(rename = "bool")]
    _poll: Option<IgnoredAny>,
}

#[derive(Clone, Copy, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum ObjectType {
    Secret,
    Certificate,
    Key,
    MultiKeyValueSecret,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Output {
    secret: Option<OutputSecret>,
    config_map: Option<OutputConfigMap>,
    /// `transforms` in v1alpha1.
    #[serde(alias = "transforms")]
    transform: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OutputSecret {
    name: String,
    #[serde(rename = "type", default)]
    type_: String,
    #[serde(default)]
    data_key: String,
    /// The order of a certificate's chain.
    chain_order: Option<ChainOrder>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ChainOrder {
    EnsureServerFirst,
    #[serde(rename = "")]
    AsStored,
}

impl OutputSecret {
    fn layout(&self) -> CertificateLayout {
        match self.chain_order {
            Some(ChainOrder::EnsureServerFirst) => CertificateLayout::Akv2k8sServerFirst,
            Some(ChainOrder::AsStored) | None => CertificateLayout::Akv2k8s,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OutputConfigMap {
    name: String,
    #[serde(default)]
    data_key: String,
}

/// A Secret or ConfigMap that the controller writes.
struct Written<'a> {
    /// The field of the output that says so.
    field: &'static str,
    /// Empty of a ConfigMap, and of a Secret without one.
    type_: &'a str,
    data_key: &'a str,
    /// How a certificate with its key is written.
    layout: CertificateLayout,
}

pub(super) fn convert(resource: &Resource) -> Outcome {
    let mut findings = Findings::about(resource);
    if !has_output(resource) {
        findings.not_converted(
            "it has no output: akv2k8s' env injector reads it, and Keytide has none. It is left to akv2k8s",
        );
        return Outcome::nothing(findings);
    }
    let Some(spec) = findings.take(resource.spec::<Spec>()) else {
        return Outcome::nothing(findings);
    };
    let output = spec.output.unwrap_or_default();
    let (labels, annotations) = (&resource.labels, &resource.annotations);
    let mut outputs = Vec::new();
    if let Some(secret) = &output.secret {
        let (name, type_) = (&secret.name, &secret.type_);
        let target = wish::target(&mut findings, name, type_, labels, annotations);
        let written = Written {
            field: "output.secret",
            type_,
            data_key: &secret.data_key,
            layout: secret.layout(),
        };
        outputs.push((written, target));
    }
    if let Some(config_map) = &output.config_map {
        let name = &config_map.name;
        let target = wish::config_map(&mut findings, name, labels, annotations);
        let written = Written {
            field: "output.configMap",
            type_: "",
            data_key: &config_map.data_key,
            layout: CertificateLayout::Akv2k8s,
        };
        outputs.push((written, target));
    }
    let transforms = output.transform.unwrap_or_default();
    let vault = findings.take(names::vault_named(&spec.vault.name));
    let mut wishes = Vec::new();
    for (written, target) in outputs {
        let content = content(&mut findings, &spec.vault.object, &written, &transforms);
        let (Some(vault), Some((data, data_from))) = (vault.clone(), content) else {
            continue;
        };
        wishes.push(Wish {
            subject: resource.to_string(),
            namespace: resource.namespace.clone(),
            name: resource.name.clone(),
            reader: None,
            spec: wish::spec(vault, data, data_from, target),
        });
    }
    if wishes.is_empty() {
        return Outcome::nothing(findings);
    }
    if spec.vault.azure_identity.is_some() {
        findings.differs(Gap::PodIdentity);
    }
    Outcome::of(findings, wishes)
}

/// The type of Secrets with a certificate and its key.
const TLS: &str = "kubernetes.io/tls";
const BASIC_AUTH: &str = "kubernetes.io/basic-auth";

type Content = (Vec<DataEntry>, Vec<DataSource>);

/// What the controller writes of an object.
fn content(
    findings: &mut Findings,
    object: &Object,
    written: &Written,
    transforms: &[String],
) -> Option<Content> {
    let pinned = Pinned {
        name: &object.name,
        version: object.version.as_deref().unwrap_or_default(),
    };
    match object.type_ {
        ObjectType::Secret if written.type_ == BASIC_AUTH => {
            let transforms = supported(findings, transforms);
            let source = wish::basic_auth(findings, pinned, transforms);
            Some((Vec::new(), vec![source]))
        }
        ObjectType::Secret if written.type_ == TLS => {
            if !transforms.is_empty() {
                findings.not_converted(
                    "output.transform is of a PFX that is taken apart; store the PFX in base64 as it is",
                );
                return None;
            }
            let kind = CertificateKind::Secret;
            let certificate = wish::certificate(findings, pinned, kind, Some(written.layout));
            Some((Vec::new(), vec![certificate]))
        }
        ObjectType::Secret => {
            let key = key_of_secret(findings, written)?;
            let mut entry = wish::entry(findings, key, ObjectKind::Secret, pinned);
            // The controller transforms secrets only.
            entry.transforms = supported(findings, transforms);
            Some((vec![entry], Vec::new()))
        }
        ObjectType::Certificate => match written.type_ {
            TLS => {
                let kind = CertificateKind::Certificate;
                let certificate = wish::certificate(findings, pinned, kind, Some(written.layout));
                Some((Vec::new(), vec![certificate]))
            }
            type_ => {
                let key = data_key(findings, written)?;
                let mut entry = wish::entry(findings, key, ObjectKind::Certificate, pinned);
                // With the type written out, the controller gives the private key too.
                entry.object.format = (type_ == "Opaque").then_some(KeyFormat::Raw);
                Some((vec![entry], Vec::new()))
            }
        },
        ObjectType::Key => {
            let key = data_key(findings, written)?;
            let mut entry = wish::entry(findings, key, ObjectKind::Key, pinned);
            entry.object.format = Some(KeyFormat::Modulus);
            Some((vec![entry], Vec::new()))
        }
        ObjectType::MultiKeyValueSecret => {
            let format = match object.content_type.as_deref().unwrap_or_default() {
                "application/x-json" => ExpandFormat::Json,
                "application/x-yaml" => ExpandFormat::Yaml,
                other => {
                    findings.not_converted(format_args!("its contentType {other:?} is not known"));
                    return None;
                }
            };
            Some((Vec::new(), vec![wish::expand(findings, pinned, format)]))
        }
    }
}

fn refuse<T>(findings: &mut Findings, gap: Gap) -> Option<T> {
    findings.not_converted(gap);
    None
}

fn supported(findings: &mut Findings, transforms: &[String]) -> Vec<Transform> {
    let transforms = transforms.iter();
    transforms
        .filter_map(|name| transform(findings, name))
        .collect()
}

fn transform(findings: &mut Findings, name: &str) -> Option<Transform> {
    match name.to_lowercase().as_str() {
        "trim" => Some(Transform::Trim),
        "base64encode" => Some(Transform::Base64Encode),
        "base64decode" => Some(Transform::Base64Decode),
        _ => refuse(findings, Gap::Transform(name.to_owned())),
    }
}

fn data_key<'a>(findings: &mut Findings, written: &Written<'a>) -> Option<&'a str> {
    if written.data_key.is_empty() {
        findings.not_converted(format_args!(
            "{}.dataKey is missing; akv2k8s writes nothing either",
            written.field
        ));
        return None;
    }
    Some(written.data_key)
}

/// The key that the controller gives a secret's value. Types with a key of their own take no other.
fn key_of_secret<'a>(findings: &mut Findings, written: &Written<'a>) -> Option<&'a str> {
    match written.type_ {
        "kubernetes.io/dockerconfigjson" => Some(".dockerconfigjson"),
        "kubernetes.io/dockercfg" => Some(".dockercfg"),
        "kubernetes.io/ssh-auth" => Some("ssh-privatekey"),
        _ => data_key(findings, written),
    }
}
