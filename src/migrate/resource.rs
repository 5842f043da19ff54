//! A manifest of the input, as far as every tool's resources are alike.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::names;

/// The one kind of the input that lives in no namespace.
const CLUSTER_SCOPED: &str = "ClusterSecretStore";

pub(super) struct Resource {
    pub group: String,
    pub kind: String,
    /// Empty for what lives in no namespace.
    pub namespace: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// Kind of the controller that made it, if one did.
    pub controller: Option<String>,
    value: Value,
}

#[derive(Deserialize)]
#[serde(
    rename_all = "camelCase",
    expecting = "an object with kind and metadata"
)]
struct Head {
    #[serde(default)]
    api_version: String,
    kind: String,
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<Owner>>,
}

#[derive(Deserialize)]
struct Owner {
    kind: String,
    controller: Option<bool>,
}

impl Resource {
    /// Reads what is common to all manifests. The error is a sentence, without the manifest's name.
    pub fn read(value: Value, default_namespace: &str) -> Result<Self, String> {
        let head = Head::deserialize(&value).map_err(|error| format!("not a manifest: {error}"))?;
        let metadata = head.metadata;
        let namespace = match metadata.namespace {
            _ if head.kind == CLUSTER_SCOPED => String::new(),
            Some(namespace) => namespace,
            None => default_namespace.to_owned(),
        };
        if !names::is_dns(&metadata.name)
            || !(namespace.is_empty() || names::is_namespace(&namespace))
        {
            return Err(format!(
                "not a name that Kubernetes allows: {:?} in namespace {namespace:?}",
                metadata.name
            ));
        }
        let group = head.api_version.rsplit_once('/');
        Ok(Self {
            group: group.map_or_else(String::new, |(group, _)| group.to_owned()),
            kind: head.kind,
            namespace,
            name: metadata.name,
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            controller: metadata
                .owner_references
                .unwrap_or_default()
                .into_iter()
                .find(|owner| owner.controller == Some(true))
                .map(|owner| owner.kind),
            value,
        })
    }

    /// The spec as the tool's definition has it. Fields that the definition doesn't have are an error: what isn't known can't
    /// be carried over.
    pub fn spec<T: DeserializeOwned>(&self) -> Result<T, String> {
        let spec = self.value.get("spec").unwrap_or(&Value::Null);
        T::deserialize(spec).map_err(|error| format!("its spec is not understood: {error}"))
    }

    pub fn pointer(&self, pointer: &str) -> Option<&Value> {
        self.value.pointer(pointer)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// The documents themselves, where they are lists of manifests (as `kubectl get --output yaml` prints), and nothing for
/// documents that are empty.
pub(super) fn flatten(documents: Vec<Value>) -> Vec<Value> {
    let mut flat = Vec::new();
    for document in documents {
        match document {
            Value::Null => {}
            Value::Object(mut list) if list.get("items").is_some_and(Value::is_array) => {
                if let Some(Value::Array(items)) = list.remove("items") {
                    flat.extend(flatten(items));
                }
            }
            other => flat.push(other),
        }
    }
    flat
}
