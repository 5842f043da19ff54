//! `AzureKeyVaultSecret` of akv2k8s as the mirror that it is: read in place, and looked after like every other. What its fields mean
//! is decided in [`crate::migrate`].
//!
//! Such a mirror is in no cluster, only in the daemon's store. Its owner is the resource, and its name is the resource's as kubectl
//! writes it, `azurekeyvaultsecret/NAME`, which no KeyVaultMirror can have. A resource with two outputs is two mirrors; the UID of
//! one into a ConfigMap is the resource's with an ending, so that the two are told apart. The generation is made of the spec: the
//! definition of akv2k8s counts changes of the status, and labels, which are carried over, are counted nowhere.

mod report;
pub mod status;

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, OwnerReference};
use kube::api::{ApiResource, DynamicObject};
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::consent::Origin;
use crate::api::azure_key_vault_secret::{GROUP, KIND, PLURAL, VERSIONS};
use crate::api::{KeyVaultMirror, KeyVaultMirrorSpec, KeyVaultMirrorStatus, TargetKind};
use crate::migrate;

/// Start of the names of these mirrors.
const PREFIX: &str = "azurekeyvaultsecret/";
/// End of the name of the second mirror of a resource.
const SECOND: &str = "/configmap";
/// End of the UID of a mirror into a ConfigMap.
const CONFIG_MAP: &str = ".configmap";
/// Annotation, on the mirror alone, that says why its resource is none.
const PROBLEM: &str = "azurekeyvaultsecret/problem";
/// Annotation, on the mirror alone, that its resource's status is as akv2k8s writes it.
const THEIRS: &str = "azurekeyvaultsecret/status-of-akv2k8s";

/// The kind in a version that a cluster serves.
fn kind(version: &str) -> ApiResource {
    ApiResource {
        group: GROUP.to_owned(),
        version: version.to_owned(),
        api_version: format!("{GROUP}/{version}"),
        kind: KIND.to_owned(),
        plural: PLURAL.to_owned(),
    }
}

/// The version to read, of those that a cluster serves.
fn version<'a>(served: impl Iterator<Item = &'a str> + Clone) -> Option<&'static str> {
    VERSIONS
        .into_iter()
        .find(|version| served.clone().any(|served| served == *version))
}

/// The kind in the version to read, if the cluster has it.
pub async fn served(client: &Client) -> Result<Option<ApiResource>, kube::Error> {
    let groups = client.list_api_groups().await?.groups;
    let group = groups.into_iter().find(|group| group.name == GROUP);
    let versions = group.map(|group| group.versions).unwrap_or_default();
    let Some(version) = version(versions.iter().map(|version| version.version.as_str())) else {
        return Ok(None);
    };
    let kind = kind(version);
    // The group may be there for other kinds.
    let resources = client.list_api_group_resources(&kind.api_version).await?;
    let is_served = resources
        .resources
        .iter()
        .any(|resource| resource.name == PLURAL);
    Ok(is_served.then_some(kind))
}

/// The mirrors that a resource is, one for each output; none if it has no output, and is for akv2k8s' env injector.
pub fn mirrors_of(resource: DynamicObject) -> Vec<KeyVaultMirror> {
    let owner = owner_reference(&resource);
    let DynamicObject {
        types,
        mut metadata,
        data,
    } = resource;
    metadata.managed_fields = None;
    let status = status_of(&data["status"]);
    let manifest = json!({
        "apiVersion": owner.api_version,
        "kind": types.map_or_else(|| KIND.to_owned(), |types| types.kind),
        "metadata": metadata,
        "spec": data["spec"],
    });
    let name = metadata.name.take().unwrap_or_default();
    let mut annotations = metadata.annotations.take().unwrap_or_default();
    annotations.retain(|annotation, _| annotation == super::controller::SYNC_NOW);
    if is_theirs(&data["status"]) {
        annotations.insert(THEIRS.to_owned(), String::new());
    }
    let specs = migrate::azure_key_vault_secret(manifest).unwrap_or_else(|problem| {
        annotations.insert(PROBLEM.to_owned(), problem);
        no_specs(&data["spec"])
    });
    let mirror_of = |(index, spec): (usize, KeyVaultMirrorSpec)| {
        let end = if index == 0 { "" } else { SECOND };
        let uid_end = match spec.target.kind {
            TargetKind::Secret => "",
            TargetKind::ConfigMap => CONFIG_MAP,
        };
        let mut mirror = KeyVaultMirror::new(&format!("{PREFIX}{name}{end}"), spec);
        mirror.metadata = ObjectMeta {
            name: mirror.metadata.name.take(),
            namespace: metadata.namespace.clone(),
            uid: Some(format!("{}{uid_end}", owner.uid)),
            resource_version: metadata.resource_version.clone(),
            generation: Some(generation(&mirror.spec)),
            creation_timestamp: metadata.creation_timestamp.clone(),
            deletion_timestamp: metadata.deletion_timestamp.clone(),
            annotations: Some(annotations.clone()),
            owner_references: Some(vec![owner.clone()]),
            ..ObjectMeta::default()
        };
        mirror.status = status.clone();
        mirror
    };
    specs.into_iter().enumerate().map(mirror_of).collect()
}

/// A mirror of this name and nothing else, for a resource that is none any more.
pub fn no_mirror(namespace: Option<String>, name: &str) -> KeyVaultMirror {
    let mut mirror = KeyVaultMirror::new(name, migrate::nothing(TargetKind::Secret, ""));
    mirror.metadata.namespace = namespace;
    mirror
}

/// What a target's ownerReference to the resource is, as akv2k8s writes it.
fn owner_reference(resource: &DynamicObject) -> OwnerReference {
    let api_version = resource
        .types
        .as_ref()
        .map(|types| types.api_version.clone());
    OwnerReference {
        api_version: api_version.unwrap_or_else(|| format!("{GROUP}/{}", VERSIONS[0])),
        kind: KIND.to_owned(),
        name: resource.name_any(),
        uid: resource.uid().unwrap_or_default(),
        controller: Some(false),
        block_owner_deletion: Some(true),
    }
}

/// What of a resource's status there is a place for in a mirror's.
fn status_of(status: &Value) -> Option<KeyVaultMirrorStatus> {
    let conditions: Option<Vec<Condition>> =
        serde_json::from_value(status["conditions"].clone()).ok();
    let last_change = status["lastAzureUpdate"].as_str().map(str::to_owned);
    (conditions.is_some() || last_change.is_some()).then(|| KeyVaultMirrorStatus {
        conditions: conditions.unwrap_or_default(),
        last_change,
        ..KeyVaultMirrorStatus::default()
    })
}

/// Whether a status is as akv2k8s writes it, with an MD5 in hexadecimal digits.
fn is_theirs(status: &Value) -> bool {
    let hash = status["secretHash"].as_str().unwrap_or_default();
    hash.len() == 32 && hash.chars().all(|c| c.is_ascii_hexdigit())
}

/// The specs of a resource that is not understood: they want nothing, but what it had written before is still its own.
fn no_specs(spec: &Value) -> Vec<KeyVaultMirrorSpec> {
    let output = |kind, output: &str| {
        let name = spec["output"][output]["name"].as_str()?;
        Some(migrate::nothing(kind, name))
    };
    let secret = output(TargetKind::Secret, "secret");
    let config_map = output(TargetKind::ConfigMap, "configMap");
    let nowhere = || migrate::nothing(TargetKind::Secret, "");
    // One has to tell the problem.
    let first = (secret.is_none() && config_map.is_none()).then(nowhere);
    [first, secret, config_map].into_iter().flatten().collect()
}

fn generation(spec: &KeyVaultMirrorSpec) -> i64 {
    let mut hasher = DefaultHasher::new();
    // It serializes, since the API server takes it as JSON.
    serde_json::to_string(spec)
        .unwrap_or_default()
        .hash(&mut hasher);
    // Generations are positive.
    (hasher.finish() >> 1) as i64
}

/// What a mirror was made of.
pub fn origin(mirror: &KeyVaultMirror) -> Origin {
    match resource(mirror) {
        Some(_) => Origin::AzureKeyVaultSecret,
        None => Origin::KeyVaultMirror,
    }
}

/// The mirror with the status that was last told of it, of which its resource may have no place for all.
pub fn with_status<'a>(
    mirror: &'a KeyVaultMirror,
    told: Option<&KeyVaultMirrorStatus>,
) -> Cow<'a, KeyVaultMirror> {
    match told {
        Some(told) if is_in_place(mirror) => {
            let mut mirror = mirror.clone();
            mirror.status = Some(told.clone());
            Cow::Owned(mirror)
        }
        _ => Cow::Borrowed(mirror),
    }
}

/// The kind of a resource, in the version that it was read in.
pub fn kind_of(resource: &OwnerReference) -> ApiResource {
    let version = resource.api_version.rsplit('/').next();
    kind(version.unwrap_or_default())
}

/// Whether a mirror is read in place.
pub fn is_in_place(mirror: &KeyVaultMirror) -> bool {
    resource(mirror).is_some()
}

/// The resource that a mirror is read from.
pub fn resource(mirror: &KeyVaultMirror) -> Option<&OwnerReference> {
    resource_name(mirror.metadata.name.as_deref()?)?;
    mirror.metadata.owner_references.as_ref()?.first()
}

/// The name of the resource that a mirror of this name is read from.
pub fn resource_name(mirror: &str) -> Option<&str> {
    let name = mirror.strip_prefix(PREFIX)?;
    Some(name.strip_suffix(SECOND).unwrap_or(name))
}

/// Whether a resource has another mirror before this one, whose conditions are the resource's.
pub fn is_second(mirror: &KeyVaultMirror) -> bool {
    let name = mirror.metadata.name.as_deref();
    is_in_place(mirror) && name.is_some_and(|name| name.ends_with(SECOND))
}

/// Why a resource is no mirror.
pub fn problem(mirror: &KeyVaultMirror) -> Option<&str> {
    resource(mirror)?;
    mirror.annotations().get(PROBLEM).map(String::as_str)
}

/// Whether akv2k8s wrote its resource's status last.
pub fn has_status_of_akv2k8s(mirror: &KeyVaultMirror) -> bool {
    is_in_place(mirror) && mirror.annotations().contains_key(THEIRS)
}

/// What events about a mirror are about.
pub fn reference(mirror: &KeyVaultMirror) -> ObjectReference {
    match resource(mirror) {
        None => mirror.object_ref(&()),
        Some(resource) => ObjectReference {
            api_version: Some(resource.api_version.clone()),
            kind: Some(resource.kind.clone()),
            name: Some(resource.name.clone()),
            namespace: mirror.namespace(),
            uid: Some(resource.uid.clone()),
            ..ObjectReference::default()
        },
    }
}

/// The ownerReference that a mirror has on its target.
pub fn owner(mirror: &KeyVaultMirror) -> Option<OwnerReference> {
    match resource(mirror) {
        Some(resource) => Some(resource.clone()),
        // A controller reference would be for one mirror alone; the target may have several.
        None => mirror.owner_ref(&()).map(|owner| OwnerReference {
            controller: None,
            ..owner
        }),
    }
}

#[cfg(test)]
mod tests;
