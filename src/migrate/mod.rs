//! Other tools' resources to mirrors and grants: one file per tool. From manifests to manifests, and nothing else: what is read
//! from where and what is printed is [`crate::cli`]'s.
//!
//! Nothing is lost in silence. What can't be carried over is a [`Finding`], and a Secret that a mirror could only give in part is
//! not converted at all.

mod akv2k8s;
#[cfg(test)]
mod akv2k8s_tests;
mod csi;
mod external_secrets;
mod finding;
mod go_template;
mod grants;
mod name_pattern;
mod names;
mod resource;
mod store;
#[cfg(test)]
mod tests;
mod wish;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::api::azure_key_vault_secret::{GROUP, KIND};
use crate::api::{KeyVaultGrant, KeyVaultMirror, KeyVaultMirrorSpec, TargetKind, VaultRef};
use crate::render;
use finding::Findings;
pub use finding::{Finding, Weight};
use resource::Resource;
use store::Stores;
use wish::Wish;

/// Groups and kinds that say how Secrets come from a Key Vault. akv2k8s' has had several groups; this is the one since 1.1.
pub const TOOLS: [(&str, &str); 5] = [
    (GROUP, KIND),
    (external_secrets::GROUP, store::KINDS[0]),
    (external_secrets::GROUP, store::KINDS[1]),
    (external_secrets::GROUP, external_secrets::KIND),
    (csi::GROUP, csi::KIND),
];

/// Groups and kinds of workloads, of which Reloader's annotations and the environment are looked at.
pub const WORKLOADS: [(&str, &str); 8] = [
    ("apps", "DaemonSet"),
    ("apps", "Deployment"),
    ("apps", "ReplicaSet"),
    ("apps", "StatefulSet"),
    ("argoproj.io", "Rollout"),
    ("batch", "CronJob"),
    ("batch", "Job"),
    ("", "Pod"),
];

/// What other tools' resources are with Keytide.
#[derive(Default)]
pub struct Conversion {
    pub grants: Vec<KeyVaultGrant>,
    pub mirrors: Vec<KeyVaultMirror>,
    /// By weight, then in the order of the input.
    pub findings: Vec<Finding>,
}

/// What a resource is converted to.
#[derive(Default)]
struct Outcome {
    wishes: Vec<Wish>,
    findings: Vec<Finding>,
}

impl Outcome {
    /// The wishes, if nothing stands in their way.
    fn of(mut findings: Findings, wishes: Vec<Wish>) -> Self {
        for wish in &wishes {
            wish::check(wish, &mut findings);
        }
        Self {
            wishes: if findings.forbid() {
                Vec::new()
            } else {
                wishes
            },
            findings: findings.into_vec(),
        }
    }

    fn nothing(findings: Findings) -> Self {
        Self::of(findings, Vec::new())
    }

    fn add(&mut self, other: Self) {
        self.wishes.extend(other.wishes);
        self.findings.extend(other.findings);
    }
}

impl Conversion {
    /// Converts manifests, and lists of them; those of other kinds are passed over. `namespace` is that of manifests which name
    /// none.
    pub fn of(documents: Vec<Value>, namespace: &str) -> Self {
        let mut outcome = Outcome::default();
        let mut resources = Vec::new();
        for (index, document) in resource::flatten(documents).into_iter().enumerate() {
            match Resource::read(document, namespace) {
                Ok(resource) => resources.push(resource),
                Err(error) => {
                    let mut findings = Findings::about(format_args!("Manifest {}", index + 1));
                    findings.not_converted(error);
                    outcome.add(Outcome::nothing(findings));
                }
            }
        }
        let is_store = |resource: &Resource| {
            resource.group == external_secrets::GROUP
                && store::KINDS.contains(&resource.kind.as_str())
        };
        let (stores, resources): (Vec<_>, Vec<_>) = resources.into_iter().partition(is_store);
        let (stores, findings) = Stores::of(&stores);
        outcome.findings.extend(findings);
        for resource in &resources {
            match (resource.group.as_str(), resource.kind.as_str()) {
                (group, KIND) if akv2k8s::is_group(group) => {
                    outcome.add(akv2k8s::convert(resource));
                }
                (external_secrets::GROUP, external_secrets::KIND) => {
                    outcome.add(external_secrets::convert(resource, &stores));
                }
                (csi::GROUP, csi::KIND) => outcome.add(csi::convert(resource)),
                _ => {}
            }
        }
        let Outcome {
            mut wishes,
            mut findings,
        } = outcome;
        findings.extend(conflicts(&wishes));
        let mirrored: workloads::Mirrored = wishes
            .iter()
            .map(|wish| {
                let target = &wish.spec.target;
                (wish.namespace.as_str(), target.kind, target.name.as_str())
            })
            .collect();
        for resource in &resources {
            if workloads::KINDS.contains(&resource.kind.as_str()) {
                findings.extend(workloads::examine(resource, &mirrored));
            }
        }
        let mut names = BTreeSet::new();
        for wish in &mut wishes {
            wish.name = unique(&mut names, &wish.namespace, &wish.name);
        }
        let (grants, ambiguous) = grants::of(&wishes);
        findings.extend(ambiguous);
        findings.sort_by_key(|finding| finding.weight);
        Self {
            grants,
            mirrors: wishes.into_iter().map(mirror).collect(),
            findings,
        }
    }
}

/// The mirrors that an AzureKeyVaultSecret is, which the daemon reads in place: one for each of its outputs. None if it has no
/// output, and is for akv2k8s' env injector. The error says why there is no mirror of it.
pub fn azure_key_vault_secret(resource: Value) -> Result<Vec<KeyVaultMirrorSpec>, String> {
    let resource = Resource::read(resource, "")?;
    if !akv2k8s::has_output(&resource) {
        return Ok(Vec::new());
    }
    let Outcome { wishes, findings } = akv2k8s::convert(&resource);
    if !wishes.is_empty() {
        return Ok(wishes.into_iter().map(|wish| wish.spec).collect());
    }
    let reasons = findings
        .into_iter()
        .filter(|finding| finding.weight == Weight::NotConverted);
    let reasons: Vec<String> = reasons.map(|finding| finding.text).collect();
    Err(reasons.join("; "))
}

/// The spec of a mirror that wants nothing of any vault.
pub fn nothing(kind: TargetKind, target: &str) -> KeyVaultMirrorSpec {
    let (mut findings, none) = (Findings::about(target), BTreeMap::new());
    let target = match kind {
        TargetKind::Secret => wish::target(&mut findings, target, "", &none, &none),
        TargetKind::ConfigMap => wish::config_map(&mut findings, target, &none, &none),
    };
    let vault = VaultRef {
        name: None,
        url: None,
    };
    wish::spec(vault, Vec::new(), Vec::new(), target)
}

fn mirror(wish: Wish) -> KeyVaultMirror {
    let mut mirror = KeyVaultMirror::new(&wish.name, wish.spec);
    mirror.metadata.namespace = Some(wish.namespace);
    mirror
}

/// The name, or the name with the first number that makes it one that isn't taken in its namespace.
fn unique(taken: &mut BTreeSet<(String, String)>, namespace: &str, name: &str) -> String {
    // Room for the number in the 253 characters that a name may have.
    let name: String = name.chars().take(240).collect();
    let numbered = |number: usize| match number {
        1 => name.clone(),
        _ => format!("{name}-{number}"),
    };
    (1..)
        .map(numbered)
        .find(|name| taken.insert((namespace.to_owned(), name.clone())))
        .unwrap_or(name.clone())
}

/// Mirrors of one target that don't agree about it: the daemon would say `TargetConflict`.
fn conflicts(wishes: &[Wish]) -> Vec<Finding> {
    let mut claims: BTreeMap<(&str, TargetKind, &str, String), (String, &str)> = BTreeMap::new();
    let mut found = Vec::new();
    for (index, wish) in wishes.iter().enumerate() {
        let target = &wish.spec.target;
        let kind = std::iter::once(("its type".to_owned(), target.type_.to_string()));
        // A key has one mirror, whatever its content.
        let keys = render::keys(&wish.spec).into_iter();
        let keys = keys.map(|key| (format!("key {key:?}"), index.to_string()));
        let labels = target.labels.iter();
        let labels = labels.map(|(key, value)| (format!("label {key:?}"), value.clone()));
        let annotations = target.annotations.iter();
        let annotations =
            annotations.map(|(key, value)| (format!("annotation {key:?}"), value.clone()));
        for (what, value) in kind.chain(keys).chain(labels).chain(annotations) {
            let (namespace, name) = (wish.namespace.as_str(), target.name.as_str());
            let claim = (namespace, target.kind, name, what.clone());
            let first = claims
                .entry(claim)
                .or_insert_with(|| (value.clone(), &wish.subject));
            if first.0 != value {
                found.push(Finding {
                    subject: wish.subject.clone(),
                    weight: Weight::Differs,
                    text: format!(
                        "it and {} don't agree on {what} of {} {:?}; one of them would say TargetConflict",
                        first.1, target.kind, target.name
                    ),
                });
            }
        }
    }
    found
}
