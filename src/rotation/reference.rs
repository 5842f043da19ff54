//! Which keys of which Secrets and ConfigMaps a Pod template uses, how, and by which containers. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, KeyToPath, PodSpec, Volume, VolumeMount, VolumeProjection,
};
use serde::{Deserialize, Serialize};

use crate::api::TargetKind;
use crate::mirror::TargetName;

/// The Secrets Store CSI driver, and where its volumes name their class
/// (<https://secrets-store-csi-driver.sigs.k8s.io/getting-started/usage>).
const CSI_DRIVER: &str = "secrets-store.csi.k8s.io";
const CLASS_ATTRIBUTE: &str = "secretProviderClass";

/// A Secret or ConfigMap of the workload's namespace. Written `name` or `configmap/name`, in lower case.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Source {
    pub kind: SourceKind,
    pub name: String,
}

/// What a source is.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum SourceKind {
    Secret,
    ConfigMap,
    /// What the Secrets Store CSI driver mounts; it may keep Secrets of it too.
    SecretProviderClass,
}

/// A key of a source, written `name/key` or `configmap/name/key` (no part can hold a slash).
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(into = "String", try_from = "String")]
pub struct SourceKey {
    pub source: Source,
    pub key: String,
}

/// One use of a source.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Reference {
    /// The container; none is every one of the Pod.
    pub container: Option<String>,
    pub source: Source,
    /// The key; none is all of them.
    pub key: Option<String>,
    /// The container starts without it too.
    pub optional: bool,
    pub via: Via,
}

/// How content gets from a source to a container.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Via {
    /// Variables, which stay as they were when the container started.
    Environment,
    /// Files that the kubelet renews, so that an application may read them again.
    Volume,
    /// Files of a mount by `subPath`, which the kubelet doesn't renew.
    SubPath,
    /// The kubelet pulls the image with it.
    ImagePull,
    /// The workload names it, and its Pod template doesn't say how it is used.
    Named,
}

impl Source {
    pub fn secret(name: impl Into<String>) -> Self {
        Self {
            kind: SourceKind::Secret,
            name: name.into(),
        }
    }

    pub fn config_map(name: impl Into<String>) -> Self {
        Self {
            kind: SourceKind::ConfigMap,
            name: name.into(),
        }
    }

    pub fn class(name: impl Into<String>) -> Self {
        Self {
            kind: SourceKind::SecretProviderClass,
            name: name.into(),
        }
    }

    /// The target of a mirror, of this kind.
    pub fn of_target(kind: TargetKind, name: &str) -> Self {
        match kind {
            TargetKind::Secret => Self::secret(name),
            TargetKind::ConfigMap => Self::config_map(name),
        }
    }

    /// Whether it is what a mirror writes.
    pub fn is(&self, target: &TargetName) -> bool {
        self.kind.of_target() == Some(target.kind) && self.name == target.name
    }
}

impl SourceKind {
    /// The kind of targets, where mirrors write such.
    pub fn of_target(self) -> Option<TargetKind> {
        match self {
            Self::Secret => Some(TargetKind::Secret),
            Self::ConfigMap => Some(TargetKind::ConfigMap),
            Self::SecretProviderClass => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            SourceKind::Secret => f.write_str(&self.name),
            SourceKind::ConfigMap => write!(f, "configmap/{}", self.name),
            SourceKind::SecretProviderClass => write!(f, "secretproviderclass/{}", self.name),
        }
    }
}

impl FromStr for Source {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            None => Ok(Self::secret(text)),
            Some(("secret", name)) => Ok(Self::secret(name)),
            Some(("configmap", name)) => Ok(Self::config_map(name)),
            Some(("secretproviderclass", name)) => Ok(Self::class(name)),
            Some(_) => Err("write name, secret/name or configmap/name"),
        }
    }
}

impl From<SourceKey> for String {
    fn from(key: SourceKey) -> Self {
        format!("{}/{}", key.source, key.key)
    }
}

impl TryFrom<String> for SourceKey {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let (source, key) = text
            .rsplit_once('/')
            .ok_or("a key is written name/key or configmap/name/key")?;
        Ok(Self {
            source: source.parse()?,
            key: key.to_owned(),
        })
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::SecretProviderClass => "SecretProviderClass",
        })
    }
}

impl Reference {
    /// To all of a source, by whichever container and way.
    pub fn to_whole(source: Source) -> Self {
        Self {
            container: None,
            source,
            key: None,
            optional: false,
            via: Via::Named,
        }
    }

    /// The same use of keys of another source.
    pub fn redirected(&self, key: SourceKey) -> Self {
        Self {
            source: key.source,
            key: Some(key.key),
            ..self.clone()
        }
    }

    /// Whether it is by this container.
    pub fn is_of(&self, container: &str) -> bool {
        self.container.as_ref().is_none_or(|of| of == container)
    }
}

/// All uses, of containers, init containers, ephemeral containers and the kubelet. A volume that no container mounts is not used.
pub fn references(pod: &PodSpec) -> BTreeSet<Reference> {
    let volumes: BTreeMap<&str, Vec<Use>> = pod
        .volumes
        .iter()
        .flatten()
        .map(|volume| (volume.name.as_str(), uses_of_volume(volume)))
        .collect();
    let init = pod.init_containers.iter().flatten();
    let containers = init
        .chain(&pod.containers)
        .map(|it| (&it.name, &it.env, &it.env_from, &it.volume_mounts));
    let ephemeral = pod.ephemeral_containers.iter().flatten();
    let ephemeral = ephemeral.map(|it| (&it.name, &it.env, &it.env_from, &it.volume_mounts));
    let pulls = pod.image_pull_secrets.iter().flatten().map(|it| Reference {
        via: Via::ImagePull,
        ..Reference::to_whole(Source::secret(&it.name))
    });
    containers
        .chain(ephemeral)
        .flat_map(|(name, variables, from, mounts)| {
            let variables = variables.iter().flatten().filter_map(use_of_variable);
            let from = from.iter().flatten().filter_map(use_of_variables_from);
            let by_environment = variables.chain(from).map(|it| (it, Via::Environment));
            let by_mount = mounts.iter().flatten().flat_map(|mount| {
                let uses = volumes.get(mount.name.as_str()).into_iter().flatten();
                uses.cloned().map(|it| (it, via(mount)))
            });
            by_environment
                .chain(by_mount)
                .map(|(it, via)| it.by(name, via))
                .collect::<Vec<_>>()
        })
        .chain(pulls)
        .collect()
}

/// A use, whoever it is by.
#[derive(Clone)]
struct Use {
    source: Source,
    key: Option<String>,
    optional: bool,
}

impl Use {
    fn new(source: Source, key: Option<&String>, optional: Option<bool>) -> Self {
        Self {
            source,
            key: key.cloned(),
            optional: optional.unwrap_or(false),
        }
    }

    fn by(self, container: &str, via: Via) -> Reference {
        Reference {
            container: Some(container.to_owned()),
            source: self.source,
            key: self.key,
            optional: self.optional,
            via,
        }
    }
}

fn via(mount: &VolumeMount) -> Via {
    if mount.sub_path.is_some() || mount.sub_path_expr.is_some() {
        Via::SubPath
    } else {
        Via::Volume
    }
}

fn use_of_variable(variable: &EnvVar) -> Option<Use> {
    let from = variable.value_from.as_ref()?;
    let secret = from.secret_key_ref.as_ref();
    let config_map = from.config_map_key_ref.as_ref();
    secret
        .map(|it| Use::new(Source::secret(&it.name), Some(&it.key), it.optional))
        .or_else(|| {
            config_map.map(|it| Use::new(Source::config_map(&it.name), Some(&it.key), it.optional))
        })
}

/// A prefix changes the names of the variables, and not which keys there are.
fn use_of_variables_from(from: &EnvFromSource) -> Option<Use> {
    let secret = from.secret_ref.as_ref();
    let config_map = from.config_map_ref.as_ref();
    secret
        .map(|it| Use::new(Source::secret(&it.name), None, it.optional))
        .or_else(|| config_map.map(|it| Use::new(Source::config_map(&it.name), None, it.optional)))
}

fn uses_of_volume(volume: &Volume) -> Vec<Use> {
    let secret = volume.secret.iter().flat_map(|it| {
        let source = Source::secret(it.secret_name.clone().unwrap_or_default());
        uses_of_items(source, it.items.as_ref(), it.optional)
    });
    let config_map = volume
        .config_map
        .iter()
        .flat_map(|it| uses_of_items(Source::config_map(&it.name), it.items.as_ref(), it.optional));
    let class = volume.csi.iter().filter_map(|it| {
        let attributes = it.volume_attributes.as_ref()?;
        let name = attributes.get(CLASS_ATTRIBUTE)?;
        let source = Source::class(name);
        (it.driver == CSI_DRIVER).then(|| Use::new(source, None, None))
    });
    let projected = volume.projected.iter();
    let projected = projected
        .flat_map(|projected| projected.sources.iter().flatten())
        .flat_map(uses_of_projection);
    secret
        .chain(config_map)
        .chain(projected)
        .chain(class)
        .collect()
}

fn uses_of_projection(projection: &VolumeProjection) -> Vec<Use> {
    let secret = projection
        .secret
        .iter()
        .flat_map(|it| uses_of_items(Source::secret(&it.name), it.items.as_ref(), it.optional));
    let config_map = projection
        .config_map
        .iter()
        .flat_map(|it| uses_of_items(Source::config_map(&it.name), it.items.as_ref(), it.optional));
    secret.chain(config_map).collect()
}

fn uses_of_items(
    source: Source,
    items: Option<&Vec<KeyToPath>>,
    optional: Option<bool>,
) -> Vec<Use> {
    match items {
        Some(items) if !items.is_empty() => items
            .iter()
            .map(|item| Use::new(source.clone(), Some(&item.key), optional))
            .collect(),
        _ => vec![Use::new(source, None, optional)],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Each as `container: source[/key][?] via`.
    fn found(pod: serde_json::Value) -> Vec<String> {
        let pod: PodSpec = serde_json::from_value(pod).expect("a Pod");
        references(&pod)
            .into_iter()
            .map(|it| {
                let key = it.key.map(|key| format!("/{key}")).unwrap_or_default();
                let optional = if it.optional { "?" } else { "" };
                let container = it.container.unwrap_or_else(|| "*".to_owned());
                format!("{container}: {}{key}{optional} {:?}", it.source, it.via)
            })
            .collect()
    }

    #[test]
    fn variables_of_containers_init_containers_and_ephemeral_containers() {
        let pod = json!({
            "initContainers": [{"name": "i", "envFrom": [
                {"prefix": "DB_", "secretRef": {"name": "whole", "optional": true}},
                {"prefix": "APP_", "configMapRef": {"name": "settings"}},
            ]}],
            "containers": [{"name": "c", "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "B", "value": "plain"},
                {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "s", "key": "k", "optional": true}}},
                {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            ]}],
            "ephemeralContainers": [{"name": "e", "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ]}],
        });
        let expected = [
            "c: s/k Environment",
            "c: configmap/s/k? Environment",
            "e: s/k Environment",
            "i: whole? Environment",
            "i: configmap/settings Environment",
        ];
        assert_eq!(found(pod), expected);
    }

    #[test]
    fn volumes_count_where_they_are_mounted() {
        let items = json!([{"key": "k", "path": "p"}]);
        let pod = json!({
            "volumes": [
                {"name": "all", "secret": {"secretName": "s1"}},
                {"name": "some", "secret": {"secretName": "s2", "items": items}},
                {"name": "mixed", "projected": {"sources": [
                    {"secret": {"name": "s3", "items": items, "optional": true}},
                    {"configMap": {"name": "m3", "items": items}},
                    {"serviceAccountToken": {"path": "t"}},
                ]}},
                {"name": "settings", "configMap": {"name": "m1", "optional": true}},
                {"name": "unused", "secret": {"secretName": "s4"}},
            ],
            "containers": [
                {"name": "a", "volumeMounts": [{"name": "all", "mountPath": "/1"}, {"name": "mixed", "mountPath": "/2"}]},
                {"name": "b", "volumeMounts": [
                    {"name": "some", "mountPath": "/1", "subPath": "p"},
                    {"name": "settings", "mountPath": "/2", "subPathExpr": "$(POD)"},
                ]},
            ],
        });
        let expected = [
            "a: s1 Volume",
            "a: s3/k? Volume",
            "a: configmap/m3/k Volume",
            "b: s2/k SubPath",
            "b: configmap/m1? SubPath",
        ];
        assert_eq!(found(pod), expected);
    }

    #[test]
    fn classes_of_the_csi_driver_count_where_they_are_mounted_and_pull_secrets_for_all_containers()
    {
        let csi = |driver: &str| json!({"driver": driver, "readOnly": true, "volumeAttributes": {"secretProviderClass": "c"}});
        let pod = json!({
            "imagePullSecrets": [{"name": "registry"}],
            "volumes": [
                {"name": "ours", "csi": csi("secrets-store.csi.k8s.io")},
                {"name": "other", "csi": csi("csi.example.com")},
            ],
            "containers": [{"name": "a", "volumeMounts": [
                {"name": "ours", "mountPath": "/1"}, {"name": "other", "mountPath": "/2"},
            ]}],
        });
        let expected = ["*: registry ImagePull", "a: secretproviderclass/c Volume"];
        assert_eq!(found(pod), expected);
    }

    #[test]
    fn a_target_is_the_source_of_its_kind_and_name() {
        for kind in [TargetKind::Secret, TargetKind::ConfigMap] {
            let target = TargetName::new(kind, "t");
            assert!(Source::of_target(kind, "t").is(&target));
            assert!(!Source::of_target(kind, "u").is(&target));
            assert!(!Source::class("t").is(&target));
        }
        let secret = TargetName::new(TargetKind::Secret, "t");
        assert!(!Source::config_map("t").is(&secret));
    }

    #[test]
    fn a_source_is_read_as_it_was_written() {
        for source in [
            Source::secret("a.b"),
            Source::config_map("a.b"),
            Source::class("a.b"),
        ] {
            assert_eq!(source.to_string().parse(), Ok(source));
        }
        assert_eq!("secret/a".parse(), Ok(Source::secret("a")));
        assert!("deployment/a".parse::<Source>().is_err());
    }
}
