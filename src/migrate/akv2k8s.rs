//! `AzureKeyVaultSecret` of akv2k8s, in all its versions. What its fields mean is in
//! <https://akv2k8s.io/reference/azure-key-vault-secret/> and, where that is silent, in the controller's
//! `secret_handler.go`.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::finding::{Findings, Gap};
use super::resource::Resource;
use super::wish::{self, Wish};
use super::{Outcome, names};

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
    #[serde(rename = "contentType")]
    _content_type: Option<IgnoredAny>,
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
    let object = spec.vault.object;
    let transforms = output.transform.unwrap_or_default();
    // The controller transforms secrets only.
    if object.type_ == ObjectType::Secret && !transforms.is_empty() {
        findings.not_converted(Gap::Transforms(transforms));
    }
    let key = match object.type_ {
        ObjectType::Secret => key_of_secret(&mut findings, &secret, &object.name),
        ObjectType::Certificate => refuse(&mut findings, Gap::Certificate(object.name.clone())),
        ObjectType::Key => refuse(&mut findings, Gap::Key(object.name.clone())),
        ObjectType::MultiKeyValueSecret => {
            refuse(&mut findings, Gap::SeveralKeys(object.name.clone()))
        }
    };
    let target = wish::target(
        &mut findings,
        &secret.name,
        &secret.type_,
        &resource.labels,
        &resource.annotations,
    );
    let vault = findings.take(names::vault_named(&spec.vault.name));
    let version = object.version.unwrap_or_default();
    let entry = key.and_then(|key| wish::entry(&mut findings, key, &object.name, &version));
    let (Some(vault), Some(entry)) = (vault, entry) else {
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
            spec: wish::spec(vault, vec![entry], target),
        }],
    )
}

fn refuse<T>(findings: &mut Findings, gap: Gap) -> Option<T> {
    findings.not_converted(gap);
    None
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
        _ if secret.data_key.is_empty() => {
            findings
                .not_converted("output.secret.dataKey is missing; akv2k8s writes nothing either");
            None
        }
        _ => Some(&secret.data_key),
    }
}
