use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{ObjectKind, VaultRef};

/// Allows mirrors of some namespaces to read some objects of one Key Vault. Without a grant nothing is read.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "keytide.dev",
    version = "v1alpha1",
    kind = "KeyVaultGrant",
    plural = "keyvaultgrants",
    singular = "keyvaultgrant",
    shortname = "kvg",
    category = "keytide",
    printcolumn = r#"{"name":"Vault","type":"string","jsonPath":".spec.vault['name','url']"}"#,
    printcolumn = r#"{"name":"Namespaces","type":"string","jsonPath":".spec.namespaces"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[x_kube(
    validation = Rule::new("has(self.namespaces) || has(self.namespaceSelector)").message("say which namespaces may read, by namespaces or by namespaceSelector; namespaces: [\"*\"] is every one")
)]
pub struct KeyVaultGrantSpec {
    /// The vault that may be read.
    pub vault: VaultRef,
    /// The Azure identity that reads. Left out: the daemon's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<GrantIdentity>,
    /// Namespaces whose mirrors may read: names, in which `*` stands for any number of characters. `["*"]` is every
    /// namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 1000),
        inner(regex(pattern = r"^[a-z0-9*]([a-z0-9*-]*[a-z0-9*])?$"))
    )]
    pub namespaces: Option<Vec<String>>,
    /// More namespaces whose mirrors may read, by their labels. Whoever may label namespaces decides by that who reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(
        validation = Rule::new("size(self.?matchLabels.orValue({})) + size(self.?matchExpressions.orValue([])) > 0").message("an empty selector would be every namespace; write namespaces: [\"*\"] if that is meant")
    )]
    pub namespace_selector: Option<LabelSelector>,
    /// Objects that may be read.
    #[schemars(length(min = 1, max = 1000))]
    pub objects: Vec<GrantedObjects>,
    /// Which of these objects may be mirrored into ConfigMaps, which more people can read than Secrets: their names, in which `*`
    /// stands for any number of characters. What is public goes there without: certificates and keys of which only the public part
    /// is mirrored. A certificate with its private key does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 1000),
        inner(regex(pattern = r"^[0-9a-zA-Z*-]{1,127}$"))
    )]
    pub allow_config_map: Option<Vec<String>>,
}

/// As whom a vault is read: as one identity that the grant names, or as the one that each mirror names.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.clientId) != has(self.mirrorsOwn)").message("give either clientId or mirrorsOwn, not both and not neither"),
    validation = Rule::new("!has(self.tenantId) || has(self.clientId)").message("tenantId goes with clientId")
)]
pub struct GrantIdentity {
    /// Client (application) ID of an identity that the daemon can act as: a user-assigned managed identity of its node, or an
    /// application with a federated credential for the daemon's ServiceAccount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub client_id: Option<String>,
    /// Microsoft Entra tenant of that identity. Left out: the daemon's own tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// Mirrors read as the ServiceAccount of their own namespace that they name in `spec.identity`, so that the vault decides
    /// what that namespace may read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirrors_own: Option<MirrorsOwn>,
}

/// Which ServiceAccounts mirrors may name.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MirrorsOwn {
    /// Names of ServiceAccounts, in which `*` stands for any number of characters.
    #[serde(default = "every")]
    #[schemars(
        length(min = 1, max = 100),
        inner(regex(pattern = r"^[a-z0-9*]([a-z0-9.*-]*[a-z0-9*])?$"))
    )]
    pub service_accounts: Vec<String>,
}

fn every() -> Vec<String> {
    vec!["*".to_owned()]
}

/// Objects of a vault, by kind and name pattern.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantedObjects {
    /// Kind of the objects.
    pub kind: ObjectKind,
    /// Name of the object; `*` stands for any number of characters, so that `team-a-*` is every name with that start.
    #[schemars(regex(pattern = r"^[0-9a-zA-Z*-]{1,127}$"))]
    pub name: String,
}
