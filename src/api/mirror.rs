use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{ObjectKind, VaultRef};

/// Mirrors objects of an Azure Key Vault into a Secret of its namespace.
#[derive(Clone, CustomResource, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "keytide.dev",
    version = "v1alpha1",
    kind = "KeyVaultMirror",
    plural = "keyvaultmirrors",
    singular = "keyvaultmirror",
    shortname = "kvm",
    category = "keytide",
    namespaced,
    status = "KeyVaultMirrorStatus",
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Target","type":"string","jsonPath":".spec.target.name"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
pub struct KeyVaultMirrorSpec {
    /// The vault to read. A KeyVaultGrant must allow this namespace to read the objects below.
    pub vault: VaultRef,
    /// As whom the vault is read. Left out: as the grant says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<MirrorIdentity>,
    /// The keys of the target and the vault objects that fill them.
    #[schemars(length(min = 1, max = 500))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".to_string()]))]
    pub data: Vec<DataEntry>,
    /// The Secret to write.
    pub target: Target,
    /// What happens to the target when this mirror is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// How often the vault is asked, such as `30s`, `1m` or `1h30m`; at least `10s`. The daemon may be configured with a
    /// higher floor.
    #[serde(default = "default_refresh_interval")]
    #[schemars(regex(pattern = r"^([0-9]{1,6}(h|m|s)){1,3}$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('10s')").message("refreshInterval must be at least 10s"))]
    pub refresh_interval: String,
}

fn default_refresh_interval() -> String {
    "1m".to_owned()
}

/// The Azure identity of a ServiceAccount.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MirrorIdentity {
    /// A ServiceAccount of this namespace with the label `keytide.dev/use: "true"` and the annotation
    /// `azure.workload.identity/client-id`. Its identity needs a federated credential for it, and a KeyVaultGrant must
    /// allow mirrors an identity of their own (`identity.mirrorsOwn`).
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub service_account_name: String,
}

/// One key of the target.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DataEntry {
    /// Key in the target's data: letters, digits, `-`, `_` and `.`.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(
        validation = Rule::new("self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')").message("a key of a Secret consists of letters, digits, '-', '_' and '.', and is not '.' or starts with '..'")
    )]
    pub key: String,
    /// The vault object whose value the key gets, byte for byte.
    pub object: VaultObject,
}

/// An object of the vault.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VaultObject {
    /// Kind of the object.
    #[serde(default)]
    pub kind: ObjectKind,
    /// Name of the object in the vault.
    #[schemars(regex(pattern = r"^[0-9a-zA-Z-]{1,127}$"))]
    pub name: String,
    /// Version of the object, 32 hexadecimal digits. Left out: always the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"))]
    pub version: Option<String>,
}

/// The Secret that a mirror writes.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Name of the Secret in the mirror's namespace.
    #[schemars(
        length(max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Type of the Secret. It can't be changed once the Secret exists.
    #[serde(default, rename = "type")]
    pub type_: SecretType,
    /// Labels to put on the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = Rule::new("self.all(k, !k.contains('keytide.dev/'))").message("labels under keytide.dev are the daemon's own"))]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// Annotations to put on the Secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = Rule::new("self.all(k, !k.contains('keytide.dev/'))").message("annotations under keytide.dev are the daemon's own"))]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
}

/// Types of Secrets that a mirror may write. Types that make the API server or a controller act on their content (tokens of
/// ServiceAccounts, bootstrap tokens) are not among them.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, schemars::JsonSchema, PartialEq, Serialize,
)]
pub enum SecretType {
    #[default]
    Opaque,
    #[serde(rename = "kubernetes.io/tls")]
    Tls,
    #[serde(rename = "kubernetes.io/dockerconfigjson")]
    DockerConfigJson,
    #[serde(rename = "kubernetes.io/dockercfg")]
    DockerCfg,
    #[serde(rename = "kubernetes.io/basic-auth")]
    BasicAuth,
    #[serde(rename = "kubernetes.io/ssh-auth")]
    SshAuth,
}

impl fmt::Display for SecretType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opaque => "Opaque",
            Self::Tls => "kubernetes.io/tls",
            Self::DockerConfigJson => "kubernetes.io/dockerconfigjson",
            Self::DockerCfg => "kubernetes.io/dockercfg",
            Self::BasicAuth => "kubernetes.io/basic-auth",
            Self::SshAuth => "kubernetes.io/ssh-auth",
        })
    }
}

/// What happens to the target when its mirror is deleted.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, schemars::JsonSchema, PartialEq, Serialize,
)]
pub enum DeletionPolicy {
    /// The target goes too, by garbage collection: also when the daemon is not there.
    #[default]
    Delete,
    /// The target stays as it is. A mirror that is made anew under the same name goes on with it.
    Retain,
}

/// What the daemon last saw and did. Nothing in it is secret.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyVaultMirrorStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the target has what the vault has. `Stalled`: nothing will change until a person does something.
    /// `OutsideValidity`: an object is mirrored although it is expired or not valid yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
    /// The mirrored objects, by key of the target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".to_string()]))]
    pub objects: Vec<MirroredObject>,
    /// The Secret that was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetStatus>,
    /// When the content of the target last changed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change: Option<String>,
}

/// A vault object as it was last mirrored.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MirroredObject {
    /// Key of the target.
    pub key: String,
    /// Name of the object in the vault.
    pub name: String,
    /// Version that is mirrored.
    pub version: String,
    /// When that version was last updated, by the vault's clock (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated: Option<String>,
    /// When that version expires (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

/// The target as it was last written.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Kind of the target.
    pub kind: String,
    /// Name of the target.
    pub name: String,
}
