//! Workloads: those that Reloader restarts, and those whose environment akv2k8s' env injector fills.
//! <https://docs.stakater.com/reloader/> and <https://akv2k8s.io/how-it-works/#the-env-injector> say by what.

use std::collections::BTreeSet;

use serde_json::Value;

use super::finding::{Finding, Findings};
use super::names;
use super::resource::Resource;
use crate::rotation::{RELOADER_AUTO, RELOADER_SECRETS};

/// Kinds that have a Pod template, and Pods.
pub(super) const KINDS: [&str; 8] = [
    "CronJob",
    "DaemonSet",
    "Deployment",
    "Job",
    "Pod",
    "ReplicaSet",
    "Rollout",
    "StatefulSet",
];

/// What the env injector looks for in values of the environment.
const MARKER: &str = "@azurekeyvault";

/// Secrets that the converted mirrors fill: namespace and name.
pub(super) type Mirrored<'a> = BTreeSet<(&'a str, &'a str)>;

pub(super) fn examine(resource: &Resource, mirrored: &Mirrored) -> Vec<Finding> {
    // What a controller of one of these kinds made is as that is.
    if resource
        .controller
        .as_deref()
        .is_some_and(|kind| kind != "Rollout" && KINDS.contains(&kind))
    {
        return Vec::new();
    }
    let mut findings = Findings::about(resource);
    injected(resource, &mut findings);
    reloaded(resource, mirrored, &mut findings);
    findings.into_vec()
}

fn injected(resource: &Resource, findings: &mut Findings) {
    let spec = match resource.kind.as_str() {
        "Pod" => "/spec",
        "CronJob" => "/spec/jobTemplate/spec/template/spec",
        _ => "/spec/template/spec",
    };
    for containers in ["initContainers", "containers"] {
        let containers = resource.pointer(&format!("{spec}/{containers}"));
        for container in containers.and_then(Value::as_array).into_iter().flatten() {
            let name = text(container, "name");
            let variables = container.get("env").and_then(Value::as_array);
            for variable in variables.into_iter().flatten() {
                let Some((secret, _)) = text(variable, "value").split_once(MARKER) else {
                    continue;
                };
                // Never the value itself: it may hold anything.
                let secret = if names::is_dns(secret) { secret } else { "?" };
                findings.not_converted(format_args!(
                    "variable {:?} of container {name:?} is filled by akv2k8s' env injector from AzureKeyVaultSecret {secret}; \
                     mirror that object into a Secret, and refer to it by secretKeyRef",
                    text(variable, "name")
                ));
            }
        }
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// Reloader's annotations of a workload.
#[derive(Default)]
struct Reloader<'a> {
    /// Every Secret that is used.
    auto: bool,
    /// Every ConfigMap, too.
    config_maps: bool,
    secrets: Vec<&'a str>,
    /// Annotations that `keytide.dev/rotate` takes the place of.
    replaced: Vec<&'a str>,
}

fn reloaded(resource: &Resource, mirrored: &Mirrored, findings: &mut Findings) {
    let mut reloader = Reloader::default();
    for (key, value) in &resource.annotations {
        match key.as_str() {
            RELOADER_AUTO => {
                reloader.auto |= value == "true";
                reloader.config_maps = value == "true";
            }
            "secret.reloader.stakater.com/auto" => reloader.auto |= value == "true",
            RELOADER_SECRETS => {
                let names = value
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty());
                reloader.secrets.extend(names);
            }
            key if key.contains("reloader.stakater.com/") => {
                if value != "false" {
                    findings.differs(format_args!(
                        "its annotation {key:?} has no counterpart: rotation is for Secrets that mirrors fill"
                    ));
                }
                continue;
            }
            _ => continue,
        }
        reloader.replaced.push(key);
    }
    let rotate = if reloader.auto {
        "true".to_owned()
    } else if reloader.secrets.is_empty() {
        return;
    } else if reloader.secrets.iter().all(|name| names::is_dns(name)) {
        reloader.secrets.join(",")
    } else {
        findings.not_converted(format_args!("{RELOADER_SECRETS} is not a list of names"));
        return;
    };
    if resource.kind != "Deployment" {
        findings.not_converted("Reloader restarts it; Keytide rolls Deployments only");
        return;
    }
    if reloader.config_maps
        && resource
            .pointer("/spec/template")
            .is_some_and(uses_config_map)
    {
        findings.differs(
            "Reloader restarts it for ConfigMaps too; rotation is for Secrets that mirrors fill",
        );
    }
    let foreign = |name: &&&str| !mirrored.contains(&(resource.namespace.as_str(), **name));
    for name in reloader.secrets.iter().filter(foreign) {
        findings.differs(format_args!(
            "Reloader restarts it for Secret {name:?}, which no mirror here fills"
        ));
    }
    let removed: String = reloader
        .replaced
        .iter()
        .map(|key| format!(" {key}-"))
        .collect();
    findings.by_hand(format_args!(
        "kubectl annotate deployment --namespace {} {} keytide.dev/rotate={rotate}{removed}",
        resource.namespace, resource.name
    ));
}

/// Whether a Pod template refers to a ConfigMap in any of the ways that it can.
fn uses_config_map(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| {
            matches!(
                key.as_str(),
                "configMap" | "configMapRef" | "configMapKeyRef"
            ) || uses_config_map(value)
        }),
        Value::Array(items) => items.iter().any(uses_config_map),
        _ => false,
    }
}
