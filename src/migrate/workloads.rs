//! Workloads: those that Reloader restarts, and those whose environment akv2k8s' env injector fills.
//! <https://docs.stakater.com/reloader/> and <https://akv2k8s.io/how-it-works/#the-env-injector> say by what.

use std::collections::BTreeSet;

use serde_json::Value;

use super::finding::{Finding, Findings};
use super::names;
use super::resource::Resource;
use crate::api::TargetKind;
use crate::rotation::{RELOADER_AUTO, RELOADER_CONFIG_MAPS, RELOADER_SECRETS};

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

/// Those of them that Keytide rolls.
const ROLLED: [&str; 4] = ["DaemonSet", "Deployment", "Rollout", "StatefulSet"];

/// What lets Keytide roll for what no mirror fills.
const WATCH_ALL: &str = "set the chart's value rotation.watch to all, so that Keytide does too";

/// What the env injector looks for in values of the environment.
const MARKER: &str = "@azurekeyvault";

/// What the converted mirrors fill: namespace, kind and name.
pub(super) type Mirrored<'a> = BTreeSet<(&'a str, TargetKind, &'a str)>;

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
    all_config_maps: bool,
    secrets: Vec<&'a str>,
    config_maps: Vec<&'a str>,
    /// Annotations that `keytide.dev/rotate` takes the place of.
    replaced: Vec<&'a str>,
}

fn reloaded(resource: &Resource, mirrored: &Mirrored, findings: &mut Findings) {
    let mut reloader = Reloader::default();
    for (key, value) in &resource.annotations {
        match key.as_str() {
            RELOADER_AUTO => {
                reloader.auto |= value == "true";
                reloader.all_config_maps = value == "true";
            }
            "secret.reloader.stakater.com/auto" => reloader.auto |= value == "true",
            RELOADER_SECRETS => reloader.secrets.extend(split(value)),
            RELOADER_CONFIG_MAPS => reloader.config_maps.extend(split(value)),
            key if key.contains("reloader.stakater.com/") => {
                if value != "false" {
                    findings.differs(format_args!("its annotation {key:?} has no counterpart"));
                }
                continue;
            }
            _ => continue,
        }
        reloader.replaced.push(key);
    }
    let rotate = if reloader.auto {
        "true".to_owned()
    } else if reloader.secrets.is_empty() && reloader.config_maps.is_empty() {
        return;
    } else {
        for (annotation, names) in [
            (RELOADER_SECRETS, &reloader.secrets),
            (RELOADER_CONFIG_MAPS, &reloader.config_maps),
        ] {
            if !names.iter().all(|name| names::is_dns(name)) {
                findings.not_converted(format_args!("{annotation} is not a list of names"));
                return;
            }
        }
        let secrets = reloader.secrets.iter().map(|name| (*name).to_owned());
        let config_maps = reloader.config_maps.iter();
        let names = secrets.chain(config_maps.map(|name| format!("configmap/{name}")));
        names.collect::<Vec<_>>().join(",")
    };
    if !ROLLED.contains(&resource.kind.as_str()) {
        findings.not_converted(
            "Reloader restarts it; Keytide rolls Deployments, StatefulSets, DaemonSets and Argo Rollouts",
        );
        return;
    }
    if reloader.all_config_maps
        && resource
            .pointer("/spec/template")
            .is_some_and(uses_config_map)
    {
        findings.differs(format_args!(
            "Reloader restarts it for ConfigMaps too, also for those that no mirror fills; {WATCH_ALL}"
        ));
    }
    for (kind, names) in [
        (TargetKind::ConfigMap, &reloader.config_maps),
        (TargetKind::Secret, &reloader.secrets),
    ] {
        let is_filled = |name: &str| mirrored.contains(&(resource.namespace.as_str(), kind, name));
        for name in names.iter().filter(|name| !is_filled(name)) {
            findings.differs(format_args!(
                "Reloader restarts it for {kind} {name:?}, which no mirror here fills; {WATCH_ALL}"
            ));
        }
    }
    let removed: String = reloader
        .replaced
        .iter()
        .map(|key| format!(" {key}-"))
        .collect();
    findings.by_hand(format_args!(
        "kubectl annotate {} --namespace {} {} keytide.dev/rotate={rotate}{removed}",
        resource.kind.to_lowercase(),
        resource.namespace,
        resource.name
    ));
}

fn split(names: &str) -> impl Iterator<Item = &str> {
    names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
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
