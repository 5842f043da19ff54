use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{ObjectKind, VaultRef};

/// Allows mirrors of some namespaces to read some objects of one Key Vault. Without a grant nothing is read.
#[derive(Clone, CustomResource, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
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
pub struct KeyVaultGrantSpec {
    /// The vault that may be read.
    pub vault: VaultRef,
    /// The Azure identity that reads. Left out: the daemon's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<GrantIdentity>,
    /// Namespaces whose mirrors may read: names, in which `*` stands for any number of characters. `["*"]` is every
    /// namespace.
    #[schemars(
        length(min = 1, max = 1000),
        inner(regex(pattern = r"^[a-z0-9*]([a-z0-9*-]*[a-z0-9*])?$"))
    )]
    pub namespaces: Vec<String>,
    /// Objects that may be read.
    #[schemars(length(min = 1, max = 1000))]
    pub objects: Vec<GrantedObjects>,
}

/// An Azure identity that the daemon can act as: a user-assigned managed identity of its node, or an application with a
/// federated credential for the daemon's ServiceAccount.
#[derive(
    Clone, Debug, Deserialize, Eq, Hash, KubeSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "camelCase")]
pub struct GrantIdentity {
    /// Client (application) ID of the identity.
    #[schemars(length(min = 1))]
    pub client_id: String,
    /// Microsoft Entra tenant of the identity. Left out: the daemon's own tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
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
