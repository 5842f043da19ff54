//! `SecretProviderClass` of the Secrets Store CSI driver, for its Azure provider: the Secrets that the driver syncs. The fields
//! are those of <https://secrets-store-csi-driver.sigs.k8s.io/concepts#secretproviderclass> and
//! <https://azure.github.io/secrets-store-csi-driver-provider-azure/docs/getting-started/usage/>.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::finding::{Findings, Gap};
use super::resource::Resource;
use super::wish::{self, Pinned, Wish};
use super::{Outcome, names};
use crate::api::{CertificateKind, DataEntry, GrantIdentity, ObjectKind, Transform, VaultRef};

pub(super) const GROUP: &str = "secrets-store.csi.x-k8s.io";
pub(super) const KIND: &str = "SecretProviderClass";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    provider: Option<String>,
    parameters: Option<BTreeMap<String, String>>,
    secret_objects: Option<Vec<SecretObject>>,
}

/// A Secret that is synced.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SecretObject {
    #[serde(default)]
    secret_name: String,
    #[serde(rename = "type", default)]
    type_: String,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    data: Option<Vec<SecretData>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SecretData {
    #[serde(default)]
    object_name: String,
    #[serde(default)]
    key: String,
}

#[derive(Deserialize)]
struct Objects {
    array: Vec<String>,
}

/// An object of the vault, as the provider mounts it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Object {
    object_name: String,
    #[serde(default)]
    object_alias: String,
    object_type: String,
    #[serde(default)]
    object_version: String,
    object_version_history: Option<u32>,
    #[serde(default)]
    object_format: String,
    #[serde(default)]
    object_encoding: String,
    /// Of the mounted file.
    #[serde(rename = "filePermission")]
    _file_permission: Option<IgnoredAny>,
}

impl Object {
    /// Name of the file that is mounted, by which a Secret takes it.
    fn file(&self) -> &str {
        if self.object_alias.is_empty() {
            &self.object_name
        } else {
            &self.object_alias
        }
    }

    fn pinned(&self) -> Pinned<'_> {
        Pinned {
            name: &self.object_name,
            version: &self.object_version,
        }
    }
}

pub(super) fn convert(resource: &Resource) -> Outcome {
    let mut findings = Findings::about(resource);
    let Some(spec) = findings.take(resource.spec::<Spec>()) else {
        return Outcome::nothing(findings);
    };
    if spec.provider.as_deref() != Some("azure") {
        return Outcome::default();
    }
    let secrets = spec.secret_objects.unwrap_or_default();
    if secrets.is_empty() {
        findings.by_hand(
            "it has no secretObjects: it mounts files and writes no Secret. Pods that mount it go on with the CSI driver",
        );
        return Outcome::nothing(findings);
    }
    let parameters = Parameters(spec.parameters.unwrap_or_default());
    let vault = findings.take(parameters.vault());
    let objects = findings.take(parameters.objects());
    let reader = parameters.reader(&mut findings);
    let (Some(vault), Some(objects)) = (vault, objects) else {
        return Outcome::nothing(findings);
    };
    let mut outcome = Outcome::of(findings, Vec::new());
    for secret in &secrets {
        outcome.add(synced(resource, secret, &objects, &vault, reader.as_ref()));
    }
    outcome
}

fn synced(
    resource: &Resource,
    secret: &SecretObject,
    objects: &[Object],
    vault: &VaultRef,
    reader: Option<&GrantIdentity>,
) -> Outcome {
    let subject = format!("{resource}, Secret {:?}", secret.secret_name);
    let mut findings = Findings::about(&subject);
    let target = wish::target(
        &mut findings,
        &secret.secret_name,
        &secret.type_,
        secret.labels.as_ref().unwrap_or(&BTreeMap::new()),
        secret.annotations.as_ref().unwrap_or(&BTreeMap::new()),
    );
    let data = secret.data.as_deref().unwrap_or_default();
    if data.is_empty() {
        findings.not_converted("it has no data");
    }
    // Of a Secret of this type, the driver takes certificate and key out of the files.
    let pair = (secret.type_ == "kubernetes.io/tls")
        .then(|| secret_takes(secret, "tls.crt"))
        .flatten()
        .filter(|file| secret_takes(secret, "tls.key") == Some(file));
    let mut entries = Vec::new();
    let mut sources = Vec::new();
    for data in data {
        let file = data.object_name.as_str();
        let Some(object) = objects.iter().find(|object| object.file() == file) else {
            findings.not_converted(format_args!("no object is mounted as {file:?}"));
            continue;
        };
        match data.key.as_str() {
            "tls.crt" if pair == Some(file) => {
                let kind = CertificateKind::Certificate;
                sources.push(wish::certificate(
                    &mut findings,
                    object.pinned(),
                    kind,
                    None,
                ));
            }
            "tls.key" if pair == Some(file) => {}
            key => entries.extend(entry(&mut findings, key, object)),
        }
    }
    let wish = Wish {
        subject,
        namespace: resource.namespace.clone(),
        name: secret.secret_name.clone(),
        reader: reader.cloned(),
        spec: wish::spec(vault.clone(), entries, sources, target),
    };
    Outcome::of(findings, vec![wish])
}

fn secret_takes<'a>(secret: &'a SecretObject, key: &str) -> Option<&'a str> {
    let data = secret.data.as_deref().unwrap_or_default();
    let taken = data.iter().find(|data| data.key == key);
    taken.map(|data| data.object_name.as_str())
}

fn entry(findings: &mut Findings, key: &str, object: &Object) -> Option<DataEntry> {
    let name = &object.object_name;
    let kind = match object.object_type.to_lowercase().as_str() {
        "secret" => ObjectKind::Secret,
        "cert" => ObjectKind::Certificate,
        "key" => ObjectKind::Key,
        other => {
            findings.not_converted(format_args!("{other:?} is not a type of vault objects"));
            return None;
        }
    };
    let mut entry = wish::entry(findings, key, kind, object.pinned());
    match object.object_encoding.to_lowercase().as_str() {
        "" | "utf-8" => {}
        "base64" => entry.transforms.push(Transform::Base64Decode),
        other => {
            findings.not_converted(Gap::Encoding(format!(
                "objectEncoding {other:?} of {name:?}"
            )));
        }
    }
    if object.object_format.eq_ignore_ascii_case("pfx") {
        findings.not_converted(Gap::Encoding(format!("objectFormat \"pfx\" of {name:?}")));
    }
    if object
        .object_version_history
        .is_some_and(|versions| versions > 1)
    {
        findings.not_converted(format_args!(
            "several versions of {name:?}; give each version an object of its own"
        ));
    }
    Some(entry)
}

struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// A parameter, without regard to the case of its name: `tenantId` was `tenantID` once.
    fn get(&self, name: &str) -> &str {
        let found = self
            .0
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value.trim())
    }

    fn is_true(&self, name: &str) -> bool {
        self.get(name).eq_ignore_ascii_case("true")
    }

    fn vault(&self) -> Result<VaultRef, String> {
        let name = self.get("keyvaultName");
        let vault = names::vault_named(name)?;
        // https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates#vault-name-and-object-name
        let suffix = match self.get("cloudName").to_lowercase().as_str() {
            "" | "azurepubliccloud" | "azurecloud" => return Ok(vault),
            "azureusgovernmentcloud" | "azureusgovernment" => "vault.usgovcloudapi.net",
            "azurechinacloud" => "vault.azure.cn",
            other => {
                return Err(format!(
                    "the DNS suffix of vaults of cloud {other:?} is not known"
                ));
            }
        };
        names::vault_at(&format!("https://{name}.{suffix}"))
    }

    fn objects(&self) -> Result<Vec<Object>, String> {
        let options = || serde_saphyr::options! { with_snippet: false };
        let wrong = |error| format!("parameters.objects is not understood: {error}");
        let objects: Objects =
            serde_saphyr::from_str_with_options(self.get("objects"), options()).map_err(wrong)?;
        let object = |yaml: &String| serde_saphyr::from_str_with_options(yaml, options());
        objects
            .array
            .iter()
            .map(object)
            .collect::<Result<_, _>>()
            .map_err(wrong)
    }

    /// As whom the provider reads.
    fn reader(&self, findings: &mut Findings) -> Option<GrantIdentity> {
        let given = |name| Some(self.get(name)).filter(|value: &&str| !value.is_empty());
        let client = |client_id: &str, tenant_id: Option<&str>| GrantIdentity {
            client_id: Some(client_id.to_owned()),
            tenant_id: tenant_id.map(str::to_owned),
            mirrors_own: None,
        };
        if self.is_true("usePodIdentity") {
            findings.differs(Gap::PodIdentity);
            None
        } else if self.is_true("useVMManagedIdentity") {
            // Of the node; without an ID it is the node's own.
            given("userAssignedIdentityID").map(|client_id| client(client_id, None))
        } else if let Some(client_id) = given("clientID") {
            findings.by_hand(format_args!(
                "it reads by the Pods' ServiceAccounts as {client_id:?}: give that identity a federated credential for the \
                 daemon's ServiceAccount",
            ));
            Some(client(client_id, given("tenantId")))
        } else {
            findings.differs(Gap::ClientSecret);
            None
        }
    }
}
