//! Which keys of which Secrets a Pod template uses, and by which containers. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};

/// One use of a Secret by one container.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Reference {
    pub container: String,
    pub secret: String,
    /// The key; none is all of them.
    pub key: Option<String>,
    /// The container starts without it too.
    pub optional: bool,
}

/// All uses, of containers and init containers. A volume that no container mounts is not used.
pub fn references(pod: &PodSpec) -> BTreeSet<Reference> {
    let volumes: BTreeMap<&str, Vec<Use>> = pod
        .volumes
        .iter()
        .flatten()
        .map(|volume| (volume.name.as_str(), uses_of_volume(volume)))
        .collect();
    pod.init_containers
        .iter()
        .flatten()
        .chain(&pod.containers)
        .flat_map(|container| {
            let mounts = container.volume_mounts.iter().flatten();
            let mounted = mounts.flat_map(|mount| {
                volumes
                    .get(mount.name.as_str())
                    .into_iter()
                    .flatten()
                    .cloned()
            });
            uses_of_environment(container)
                .into_iter()
                .chain(mounted)
                .map(|(secret, key, optional)| Reference {
                    container: container.name.clone(),
                    secret,
                    key,
                    optional,
                })
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Secret, key (none is all), whether optional.
type Use = (String, Option<String>, bool);

fn uses_of_environment(container: &Container) -> Vec<Use> {
    let single = container.env.iter().flatten().filter_map(|variable| {
        let reference = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
        Some((
            reference.name.clone(),
            Some(reference.key.clone()),
            reference.optional.unwrap_or(false),
        ))
    });
    let whole = container.env_from.iter().flatten().filter_map(|source| {
        let reference = source.secret_ref.as_ref()?;
        Some((
            reference.name.clone(),
            None,
            reference.optional.unwrap_or(false),
        ))
    });
    single.chain(whole).collect()
}

fn uses_of_volume(volume: &Volume) -> Vec<Use> {
    let own = volume.secret.iter().flat_map(|source| {
        let secret = source.secret_name.clone().unwrap_or_default();
        let items = source
            .items
            .iter()
            .flatten()
            .map(|item| item.key.clone())
            .collect();
        uses_of_items(&secret, items, source.optional)
    });
    let projected = volume
        .projected
        .iter()
        .flat_map(|projected| projected.sources.iter().flatten());
    let projected = projected
        .filter_map(|source| source.secret.as_ref())
        .flat_map(|source| {
            let items = source
                .items
                .iter()
                .flatten()
                .map(|item| item.key.clone())
                .collect();
            uses_of_items(&source.name, items, source.optional)
        });
    own.chain(projected).collect()
}

fn uses_of_items(secret: &str, items: Vec<String>, optional: Option<bool>) -> Vec<Use> {
    let optional = optional.unwrap_or(false);
    if items.is_empty() {
        return vec![(secret.to_owned(), None, optional)];
    }
    items
        .into_iter()
        .map(|key| (secret.to_owned(), Some(key), optional))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(pod: serde_json::Value) -> Vec<(String, String, Option<String>, bool)> {
        let pod: PodSpec = serde_json::from_value(pod).expect("a Pod");
        references(&pod)
            .into_iter()
            .map(|r| (r.container, r.secret, r.key, r.optional))
            .collect()
    }

    fn one(
        container: &str,
        secret: &str,
        key: Option<&str>,
        optional: bool,
    ) -> (String, String, Option<String>, bool) {
        (
            container.into(),
            secret.into(),
            key.map(Into::into),
            optional,
        )
    }

    #[test]
    fn environment_of_containers_and_init_containers() {
        let pod = json!({
            "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "whole", "optional": true}}]}],
            "containers": [{"name": "c", "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "B", "value": "plain"},
            ]}],
        });
        assert_eq!(
            found(pod),
            [
                one("c", "s", Some("k"), false),
                one("i", "whole", None, true)
            ]
        );
    }

    #[test]
    fn volumes_count_where_they_are_mounted() {
        let pod = json!({
            "volumes": [
                {"name": "all", "secret": {"secretName": "s1"}},
                {"name": "some", "secret": {"secretName": "s2", "items": [{"key": "k", "path": "p"}]}},
                {"name": "mixed", "projected": {"sources": [
                    {"secret": {"name": "s3", "items": [{"key": "k", "path": "p"}], "optional": true}},
                    {"serviceAccountToken": {"path": "t"}},
                ]}},
                {"name": "unused", "secret": {"secretName": "s4"}},
            ],
            "containers": [
                {"name": "a", "volumeMounts": [{"name": "all", "mountPath": "/1"}, {"name": "mixed", "mountPath": "/2"}]},
                {"name": "b", "volumeMounts": [{"name": "some", "mountPath": "/1"}]},
            ],
        });
        assert_eq!(
            found(pod),
            [
                one("a", "s1", None, false),
                one("a", "s3", Some("k"), true),
                one("b", "s2", Some("k"), false)
            ]
        );
    }
}
