use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{Match, ObjectKind, Template, VaultRef};

/// Mirrors objects of an Azure Key Vault into a Secret or a ConfigMap of its namespace.
#[derive(Clone, CustomResource, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("size(self.?data.orValue([])) + size(self.?dataFrom.orValue([])) > 0").message("give at least one entry of data or dataFrom"),
    // With dataFrom, only the content of the vault tells which keys there are; a template adds some. Optionals would do, but the API server
    // knows no bound of what is behind them, and refuses rules that could cost too much.
    validation = Rule::new("!has(self.target.type) || self.target.type != 'kubernetes.io/tls' || (has(self.dataFrom) && size(self.dataFrom) > 0) || has(self.template) || (has(self.data) && self.data.exists(e, e.key == 'tls.crt') && self.data.exists(e, e.key == 'tls.key'))").message("a Secret of type kubernetes.io/tls needs the keys tls.crt and tls.key; name both in data, or a certificate in dataFrom"),
    validation = Rule::new("!has(self.target.type) || self.target.type != 'kubernetes.io/dockerconfigjson' || (has(self.dataFrom) && size(self.dataFrom) > 0) || has(self.template) || (has(self.data) && self.data.exists(e, e.key == '.dockerconfigjson'))").message("a Secret of type kubernetes.io/dockerconfigjson needs the key .dockerconfigjson; name it in data, or a dockerConfig in dataFrom"),
    validation = Rule::new("!has(self.target.type) || self.target.type != 'kubernetes.io/dockercfg' || (has(self.dataFrom) && size(self.dataFrom) > 0) || has(self.template) || (has(self.data) && self.data.exists(e, e.key == '.dockercfg'))").message("a Secret of type kubernetes.io/dockercfg needs the key .dockercfg; name it in data, or a dockerConfig in dataFrom"),
    validation = Rule::new("!has(self.target.type) || self.target.type != 'kubernetes.io/basic-auth' || (has(self.dataFrom) && size(self.dataFrom) > 0) || has(self.template) || (has(self.data) && self.data.exists(e, e.key == 'username' || e.key == 'password'))").message("a Secret of type kubernetes.io/basic-auth needs the key username or the key password; name them in data, or a basicAuth in dataFrom"),
    validation = Rule::new("!has(self.target.type) || self.target.type != 'kubernetes.io/ssh-auth' || (has(self.dataFrom) && size(self.dataFrom) > 0) || has(self.template) || (has(self.data) && self.data.exists(e, e.key == 'ssh-privatekey'))").message("a Secret of type kubernetes.io/ssh-auth needs the key ssh-privatekey; name it in data"),
    // Each source says for itself how it is pinned; one that is not among them is not.
    validation = Rule::new("!has(self.target.immutable) || !self.target.immutable || ((!has(self.data) || self.data.all(e, has(e.object.version))) && (!has(self.dataFrom) || self.dataFrom.all(s, has(s.certificate) ? has(s.certificate.version) && (!has(s.certificate.keystore) || has(s.certificate.keystore.password.version)) : has(s.expand) ? has(s.expand.object.version) : has(s.basicAuth) ? has(s.basicAuth.object.version) : has(s.dockerConfig) ? s.dockerConfig.registries.all(r, has(r.password.version) && (!has(r.usernameFrom) || has(r.usernameFrom.version))) : false)))").message("an immutable Secret can't follow its objects; give each object a version, or leave out target.immutable"),
    validation = Rule::new("!has(self.target.immutable) || !self.target.immutable || !has(self.dataFrom) || self.dataFrom.all(s, !has(s.certificate) || !has(s.certificate.keystore) || s.certificate.keystore.format != 'PKCS12')").message("a PKCS12 keystore is encrypted anew whenever it is written, which an immutable Secret forbids; write format: JKS, or leave out target.immutable")
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
        validation = Rule::new("self.filter(source, has(source.certificate)).size() <= 1").message("only one certificate can fill tls.crt; give each certificate a mirror and a target of its own"),
        validation = Rule::new("self.filter(source, has(source.basicAuth)).size() <= 1").message("only one basicAuth can fill username and password; give each a mirror and a target of its own"),
        validation = Rule::new("self.filter(source, has(source.dockerConfig)).size() <= 1").message("only one dockerConfig can fill the key; name all registries in one")
    )]
    pub data_from: Vec<DataSource>,
    /// Keys of the target that are made of the keys above, such as connection strings and configuration files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
    /// The Secret or ConfigMap to write.
    pub target: Target,
    /// What happens to the target when this mirror is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// What happens to a key when its vault object is deleted or disabled. Left out: `Keep`.
    #[serde(default, skip_serializing_if = "MissingPolicy::is_default")]
    #[schemars(extend("default" = "Keep"))]
    pub missing_policy: MissingPolicy,
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
    validation = Rule::new("!has(self.format) || self.?kind.orValue('secret') == (self.format == 'Raw' ? 'certificate' : 'key')").message("format is for keys (PEM, JWK, Modulus) and certificates (Raw); set kind accordingly, or leave format out"),
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
    /// How a key is written: `PEM` (SubjectPublicKeyInfo, what is meant if left out), `JWK` (JSON Web Key) or `Modulus` (of RSA,
    /// in base64url). Of a certificate, `Raw` is all that the vault has, its private key included: a PFX in binary, or PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<KeyFormat>,
}

/// How the public part of a key is written, or a certificate.
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
    /// The modulus of an RSA key as a JSON Web Key has it, in base64url: what akv2k8s gives of a key.
    Modulus,
    /// Of a certificate: what the vault has, as it is.
    Raw,
}

/// A vault object that fills several keys of the target: one of the following.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.certificate), has(self.expand), has(self.match), has(self.basicAuth), has(self.dockerConfig)].filter(given, given).size() == 1").message("say what the keys are from: certificate, expand, match, basicAuth or dockerConfig, one of them")
)]
pub struct DataSource {
    /// A certificate: `tls.crt` (the certificate, then its chain), `tls.key` (where the key can be exported), `ca.crt` (where the
    /// chain goes up to its root).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateObject>,
    /// A secret whose value has many values: each of them fills a key of its own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expand: Option<Expand>,
    /// All secrets of the vault that a grant allows and that have such a name or such tags: each fills a key. New ones are found
    /// when the vault is next looked at.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub matching: Option<Match>,
    /// A secret `user:password`: it fills `username` and `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// Users and passwords of image registries: `.dockerconfigjson`, or in a Secret of type `kubernetes.io/dockercfg` `.dockercfg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_config: Option<DockerConfig>,
}

/// A secret with a user and a password. Where they are two secrets, `data` takes them as they are.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// The secret. `username` is what stands before its first colon, `password` what follows.
    pub object: SecretObject,
    /// What is done with its value before, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub transforms: Vec<Transform>,
}

/// Users and passwords of image registries, as `kubectl create secret docker-registry` writes them.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DockerConfig {
    /// The registries, each once.
    #[schemars(length(min = 1, max = 20))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["server".to_string()]))]
    pub registries: Vec<Registry>,
}

/// User and password of an image registry.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.username) != has(self.usernameFrom)").message("give either username or usernameFrom, not both and not neither")
)]
pub struct Registry {
    /// The registry as image names begin, such as `contoso.azurecr.io`; of Docker Hub `https://index.docker.io/v1/`.
    #[schemars(length(max = 253), regex(pattern = r"^[!-~]+$"))]
    pub server: String,
    /// Name of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = r"^[^:\x00-\x1f\x7f]+$"))]
    pub username: Option<String>,
    /// The secret of the vault whose value is the name of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_from: Option<SecretObject>,
    /// The secret of the vault whose value is the password.
    pub password: SecretObject,
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
    /// Where the certificate is: a `certificate` of the vault, or a `secret` whose value is a PFX in base64 or PEM.
    #[serde(default, skip_serializing_if = "CertificateKind::is_certificate")]
    pub kind: CertificateKind,
    /// Name of the object in the vault.
    #[schemars(regex(pattern = r"^[0-9a-zA-Z-]{1,127}$"))]
    pub name: String,
    /// Version of the certificate, 32 hexadecimal digits. Left out: always the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"))]
    pub version: Option<String>,
    /// How the keys in PEM are written. Left out: the certificate first and its chain in order, the private key in the encoding
    /// that it has, and `ca.crt` where the chain has its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<CertificateLayout>,
    /// A keystore with the certificate, its chain and its private key, beside the keys in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keystore: Option<Keystore>,
}

/// Kinds of vault objects that hold a certificate with its key.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, schemars::JsonSchema, PartialEq, Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum CertificateKind {
    /// A certificate.
    #[default]
    Certificate,
    /// A secret.
    Secret,
}

impl CertificateKind {
    fn is_certificate(&self) -> bool {
        *self == Self::Certificate
    }
}

/// Ways of akv2k8s to write a certificate, by which a Secret that it wrote stays as it is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, schemars::JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum CertificateLayout {
    /// The certificates in the order that the vault has, the private key of RSA in PKCS#1, and no `ca.crt`.
    Akv2k8s,
    /// The same, with the last certificate of a PFX moved to the front.
    Akv2k8sServerFirst,
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

/// The Secret or ConfigMap that a mirror writes.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.?kind.orValue('Secret') == 'Secret' || self.?type.orValue('Opaque') == 'Opaque'").message("type is for Secrets; leave it out, or set kind to Secret")
)]
pub struct Target {
    /// `Secret` (what is meant if left out), or `ConfigMap` for what is not secret: the public parts of certificates and keys. The
    /// value of a secret goes into a ConfigMap only if a KeyVaultGrant names the secret in `allowConfigMap`. Another kind is another
    /// target: what was written under the old one goes as `deletionPolicy` says.
    #[serde(default, skip_serializing_if = "TargetKind::is_secret")]
    pub kind: TargetKind,
    /// Name of the Secret or ConfigMap in the mirror's namespace.
    #[schemars(
        length(max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Type of the Secret; ConfigMaps have none. It can't be changed once the Secret exists.
    #[serde(default, rename = "type")]
    pub type_: SecretType,
    /// Labels to put on the target.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = Rule::new("self.all(k, !k.contains('keytide.dev/'))").message("labels under keytide.dev are the daemon's own"))]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// Annotations to put on the target.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[x_kube(validation = Rule::new("self.all(k, !k.contains('keytide.dev/'))").message("annotations under keytide.dev are the daemon's own"))]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
    /// Whether nobody can change the Secret's data, so that nodes need not watch it; for mirrors all of whose objects have a version.
    /// Other content then needs another `name`. Left out: `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub immutable: bool,
}

/// Kinds of targets.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    Deserialize,
    Eq,
    Hash,
    schemars::JsonSchema,
    Ord,
    PartialEq,
    PartialOrd,
    Serialize,
)]
pub enum TargetKind {
    #[default]
    Secret,
    ConfigMap,
}

impl TargetKind {
    /// As `kind` in a manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }

    /// What is meant if nothing is said.
    pub fn is_secret(&self) -> bool {
        *self == Self::Secret
    }
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
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

/// What happens to the target when its mirror is deleted. A target that was taken over from somebody else stays in any case.
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

/// What happens to a key when its vault object is deleted or disabled.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, Eq, schemars::JsonSchema, PartialEq, Serialize,
)]
pub enum MissingPolicy {
    /// The target keeps all that it has, and the mirror is not Ready.
    #[default]
    Keep,
    /// The keys that are made of the object go, and the mirror is Ready without them. So is one whose object never was there.
    Remove,
}

impl MissingPolicy {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What the daemon last saw and did. Nothing in it is secret.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyVaultMirrorStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`: the target has what the vault has. `Stalled`: nothing will change until a person does something.
    /// `OutsideValidity`: an object is mirrored although it is expired or not valid yet. `Reverted`: the rollout of a new version
    /// failed, and the version before is mirrored (`True`), or can't be (`False`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_string()]))]
    pub conditions: Vec<Condition>,
    /// The mirrored objects, by key of the target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".to_string()]))]
    pub objects: Vec<MirroredObject>,
    /// Under `missingPolicy: Remove`: the objects that were not there or disabled, and whose keys the target is without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_objects: Vec<MissingObject>,
    /// The Secret or ConfigMap that was written.
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

/// A vault object that was not there, or disabled, when its mirror was last written.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MissingObject {
    /// Kind of the object.
    #[serde(default)]
    pub kind: ObjectKind,
    /// Name of the object in the vault.
    pub name: String,
}

/// The target as it was last written.
#[derive(Clone, Debug, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// Kind of the target.
    pub kind: String,
    /// Name of the target.
    pub name: String,
    /// It was somebody else's and was taken over, so that it stays when the mirror goes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
}
