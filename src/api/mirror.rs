use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{ObjectKind, VaultRef};

/// Mirrors objects of an Azure Key Vault into a Secret of its namespace.
#[derive(Clone, CustomResource, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("size(self.?data.orValue([])) + size(self.?dataFrom.orValue([])) > 0").message("give at least one entry of data or dataFrom")
)]
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
    /// Keys of the target and the vault objects that fill them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".to_string()]))]
    pub data: Vec<DataEntry>,
    /// Vault objects that fill several keys each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    #[x_kube(
        validation = Rule::new("self.filter(source, has(source.certificate)).size() <= 1").message("only one certificate can fill tls.crt; give each certificate a mirror and a target of its own")
    )]
    pub data_from: Vec<DataSource>,
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
    /// The vault object that the key gets: of a secret the value, byte for byte; of a certificate or a key the public part.
    pub object: VaultObject,
    /// What is done with the value, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub transforms: Vec<Transform>,
}

/// What is done with a value.
#[derive(Clone, Copy, Debug, Deserialize, Eq, schemars::JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Transform {
    /// Takes away white space and line ends at both ends.
    Trim,
    /// Encodes in base64 with padding.
    Base64Encode,
    /// Decodes base64, with or without padding, on one line or several.
    Base64Decode,
    /// Makes letters small.
    Lower,
    /// Makes letters capital.
    Upper,
    /// Escapes what JSON wants escaped in a string; the quotes around it are not added.
    JsonEscape,
    /// Makes one PEM file of a PFX, or of PEM in any order: the private key, the certificate, its chain.
    PemBundle,
}

impl fmt::Display for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trim => "trim",
            Self::Base64Encode => "base64Encode",
            Self::Base64Decode => "base64Decode",
            Self::Lower => "lower",
            Self::Upper => "upper",
            Self::JsonEscape => "jsonEscape",
            Self::PemBundle => "pemBundle",
        })
    }
}

/// An object of the vault.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.format) || self.?kind.orValue('secret') == 'key'").message("format is for keys; set kind to key, or leave format out"),
    validation = Rule::new("!has(self.property) || self.?kind.orValue('secret') == 'secret'").message("property is for secrets; leave it out")
)]
pub struct VaultObject {
    /// Kind of the object. Of a `certificate`, this is the certificate alone, in PEM; `dataFrom[].certificate` also gives its chain
    /// and its private key.
    #[serde(default)]
    pub kind: ObjectKind,
    /// Name of the object in the vault.
    #[schemars(regex(pattern = r"^[0-9a-zA-Z-]{1,127}$"))]
    pub name: String,
    /// Version of the object, 32 hexadecimal digits. Left out: always the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"))]
    pub version: Option<String>,
    /// Of a secret whose value is JSON or YAML: the part that this path leads to, such as `db.password` or `users.0.name`; `\\.` is
    /// a dot in a name. Text is taken without quotes, anything else as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub property: Option<String>,
    /// How a key is written: `PEM` (SubjectPublicKeyInfo, what is meant if left out) or `JWK` (JSON Web Key).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<KeyFormat>,
}

/// How the public part of a key is written.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, schemars::JsonSchema, PartialEq, Serialize,
)]
pub enum KeyFormat {
    /// SubjectPublicKeyInfo in PEM: `-----BEGIN PUBLIC KEY-----`.
    #[default]
    #[serde(rename = "PEM")]
    Pem,
    /// A JSON Web Key (RFC 7517).
    #[serde(rename = "JWK")]
    Jwk,
}

/// A vault object that fills several keys of the target: one of the following.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.certificate) != has(self.expand)").message("say what the keys are from: certificate or expand, one of them")
)]
pub struct DataSource {
    /// A certificate: `tls.crt` (the certificate, then its chain), `tls.key` (where the key can be exported), `ca.crt` (where the
    /// chain goes up to its root).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateObject>,
    /// A secret whose value has many values: each of them fills a key of its own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expand: Option<Expand>,
}

/// A secret with many values.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Expand {
    /// The secret.
    pub object: SecretObject,
    /// What its value is.
    pub format: ExpandFormat,
}

/// Formats of secrets with many values.
#[derive(Clone, Copy, Debug, Deserialize, Eq, schemars::JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExpandFormat {
    /// An object of JSON. Text is taken without quotes, anything else as JSON; what is `null` fills no key.
    Json,
    /// A map of YAML, taken as JSON is.
    Yaml,
    /// Lines such as `NAME=value`.
    Dotenv,
}

/// A certificate of the vault.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateObject {
    /// Name of the certificate in the vault.
    #[schemars(regex(pattern = r"^[0-9a-zA-Z-]{1,127}$"))]
    pub name: String,
    /// Version of the certificate, 32 hexadecimal digits. Left out: always the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"))]
    pub version: Option<String>,
    /// A keystore with the certificate, its chain and its private key, beside the keys in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keystore: Option<Keystore>,
}

/// A keystore, for programs that read no PEM.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.key) || !(self.key in ['tls.crt', 'tls.key', 'ca.crt'])").message("tls.crt, tls.key and ca.crt are what the certificate fills in PEM; give the keystore another key")
)]
pub struct Keystore {
    /// Format of the keystore.
    pub format: KeystoreFormat,
    /// Key in the target's data. Left out: `keystore.p12` or `keystore.jks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[-_a-zA-Z0-9][-._a-zA-Z0-9]*$")
    )]
    pub key: Option<String>,
    /// Name of the entry in the keystore.
    #[serde(default = "default_alias")]
    #[schemars(length(max = 100), regex(pattern = r"^[-._a-z0-9]+$"))]
    pub alias: String,
    /// The secret of the same vault whose value is the keystore's password: at least six characters, none of them a line end.
    pub password: SecretObject,
}

fn default_alias() -> String {
    "certificate".to_owned()
}

impl Keystore {
    /// Key in the target's data.
    pub fn target_key(&self) -> &str {
        match (&self.key, self.format) {
            (Some(key), _) => key,
            (None, KeystoreFormat::Pkcs12) => "keystore.p12",
            (None, KeystoreFormat::Jks) => "keystore.jks",
        }
    }
}

/// Formats of keystores.
#[derive(Clone, Copy, Debug, Deserialize, Eq, schemars::JsonSchema, PartialEq, Serialize)]
pub enum KeystoreFormat {
    /// PKCS#12 with AES-256 and HMAC-SHA-256: Java 8u301 and later, OpenSSL, .NET.
    #[serde(rename = "PKCS12")]
    Pkcs12,
    /// Java's own older format.
    #[serde(rename = "JKS")]
    Jks,
}

/// A secret of the vault.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretObject {
    /// Name of the secret in the vault.
    #[schemars(regex(pattern = r"^[0-9a-zA-Z-]{1,127}$"))]
    pub name: String,
    /// Version of the secret, 32 hexadecimal digits. Left out: always the latest.
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
    /// Kind of the object.
    #[serde(default)]
    pub kind: ObjectKind,
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
