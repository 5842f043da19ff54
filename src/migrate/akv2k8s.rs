//! `AzureKeyVaultSecret` of akv2k8s, in all its versions. What its fields mean is in
//! <https://akv2k8s.io/reference/azure-key-vault-secret/> and, where that is silent, in the controller's
//! `secret_handler.go`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::finding::{Findings, Gap};
use super::resource::Resource;
use super::wish::{self, Pinned, Wish};
use super::{Outcome, names};
use crate::api::{DataEntry, DataSource, ExpandFormat, ObjectKind, Transform};

pub(super) const KIND: &str = "AzureKeyVaultSecret";

/// Whether this is the group of akv2k8s: `spv.no`, or one of those that it had before its version 1.1.
pub(super) fn is_group(group: &str) -> bool {
    group == "spv.no" || group.ends_with(".spv.no")
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

#[derive(Deserialize)]
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
    #[serde(rename = "chainOrder")]
    _chain_order: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OutputConfigMap {
    name: String,
    #[serde(rename = "dataKey")]
    _data_key: Option<IgnoredAny>,
}

pub(super) fn convert(resource: &Resource) -> Outcome {
    let mut findings = Findings::about(resource);
    let Some(spec) = findings.take(resource.spec::<Spec>()) else {
        return Outcome::nothing(findings);
    };
    let output = spec.output.unwrap_or(Output {
        secret: None,
        config_map: None,
        transform: None,
    });
    let Some(secret) = output.secret else {
        match output.config_map {
            Some(config_map) => findings.not_converted(Gap::ConfigMap(config_map.name)),
            None => findings.not_converted(
                "it has no output: akv2k8s' env injector reads it, and Keytide has none. It is left to akv2k8s",
            ),
        }
        return Outcome::nothing(findings);
    };
    if let Some(config_map) = output.config_map {
        findings.differs(Gap::ConfigMap(config_map.name));
    }
    let target = wish::target(
        &mut findings,
        &secret.name,
        &secret.type_,
        &resource.labels,
        &resource.annotations,
    );
    let transforms = output.transform.unwrap_or_default();
    let content = content(&mut findings, &spec.vault.object, &secret, &transforms);
    let vault = findings.take(names::vault_named(&spec.vault.name));
    let (Some(vault), Some((data, data_from))) = (vault, content) else {
        return Outcome::nothing(findings);
    };
    if spec.vault.azure_identity.is_some() {
        findings.differs(Gap::PodIdentity);
    }
    Outcome::of(
        findings,
        vec![Wish {
            subject: resource.to_string(),
            namespace: resource.namespace.clone(),
            name: resource.name.clone(),
            reader: None,
            spec: wish::spec(vault, data, data_from, target),
        }],
    )
}

type Content = (Vec<DataEntry>, Vec<DataSource>);

/// What the controller writes of an object.
fn content(
    findings: &mut Findings,
    object: &Object,
    secret: &OutputSecret,
    transforms: &[String],
) -> Option<Content> {
    let pinned = Pinned {
        name: &object.name,
        version: object.version.as_deref().unwrap_or_default(),
    };
    match object.type_ {
        ObjectType::Secret => {
            let key = key_of_secret(findings, secret, &object.name)?;
            let mut entry = wish::entry(findings, key, ObjectKind::Secret, pinned);
            // The controller transforms secrets only.
            let transforms = transforms.iter();
            entry.transforms = transforms
                .filter_map(|name| transform(findings, name))
                .collect();
            Some((vec![entry], Vec::new()))
        }
        ObjectType::Certificate => match secret.type_.as_str() {
            "kubernetes.io/tls" => Some((Vec::new(), vec![wish::certificate(findings, pinned)])),
            "Opaque" => refuse(findings, Gap::RawCertificate(object.name.clone())),
            _ => {
                let key = data_key(findings, secret)?;
                let entry = wish::entry(findings, key, ObjectKind::Certificate, pinned);
                Some((vec![entry], Vec::new()))
            }
        },
        ObjectType::Key => refuse(findings, Gap::Modulus(object.name.clone())),
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

fn transform(findings: &mut Findings, name: &str) -> Option<Transform> {
    match name.to_lowercase().as_str() {
        "trim" => Some(Transform::Trim),
        "base64encode" => Some(Transform::Base64Encode),
        "base64decode" => Some(Transform::Base64Decode),
        _ => refuse(findings, Gap::Transform(name.to_owned())),
    }
}

fn data_key<'a>(findings: &mut Findings, secret: &'a OutputSecret) -> Option<&'a str> {
    if secret.data_key.is_empty() {
        findings.not_converted("output.secret.dataKey is missing; akv2k8s writes nothing either");
        return None;
    }
    Some(&secret.data_key)
}

/// The key that the controller gives a secret's value. Types with a key of their own take no other.
fn key_of_secret<'a>(
    findings: &mut Findings,
    secret: &'a OutputSecret,
    object: &str,
) -> Option<&'a str> {
    match secret.type_.as_str() {
        "kubernetes.io/dockerconfigjson" => Some(".dockerconfigjson"),
        "kubernetes.io/dockercfg" => Some(".dockercfg"),
        "kubernetes.io/ssh-auth" => Some("ssh-privatekey"),
        "kubernetes.io/basic-auth" => refuse(findings, Gap::BasicAuth),
        "kubernetes.io/tls" => refuse(findings, Gap::CertificateSecret(object.to_owned())),
        _ => data_key(findings, secret),
    }
}
