//! What the cache keeps of a Deployment: as much as decisions need. Pure.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus};
use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, EnvVarSource, PodSpec, PodTemplateSpec,
    ProjectedVolumeSource, Volume, VolumeMount,
};

use super::baseline::BASELINE;
use super::controller::opt_in;
use super::opt_in::{OptIn, ROTATE};

/// Drops the rest. Of a Deployment that did not opt in, that is all but its name and annotations.
pub fn trim(deployment: &mut Deployment) {
    let metadata = &mut deployment.metadata;
    metadata.managed_fields = None;
    metadata.labels = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|name, _| name == ROTATE || name == BASELINE);
    }
    if opt_in(deployment) == OptIn::No {
        deployment.spec = None;
        deployment.status = None;
        return;
    }
    deployment.spec = deployment.spec.take().map(|spec| DeploymentSpec {
        paused: spec.paused,
        progress_deadline_seconds: spec.progress_deadline_seconds,
        replicas: spec.replicas,
        selector: spec.selector,
        template: PodTemplateSpec {
            metadata: None,
            spec: spec.template.spec.map(pod),
        },
        ..Default::default()
    });
    deployment.status = deployment.status.take().map(|status| DeploymentStatus {
        available_replicas: status.available_replicas,
        conditions: status.conditions.map(|mut conditions| {
            conditions.retain(|condition| condition.type_ == "Progressing");
            conditions
        }),
        observed_generation: status.observed_generation,
        replicas: status.replicas,
        updated_replicas: status.updated_replicas,
        ..Default::default()
    });
}

fn pod(pod: PodSpec) -> PodSpec {
    let containers = |containers| all(containers, |it| Some(container(it)));
    PodSpec {
        containers: containers(pod.containers),
        init_containers: pod.init_containers.map(containers),
        volumes: pod.volumes.map(|volumes| all(volumes, volume)),
        ..Default::default()
    }
}

fn container(container: Container) -> Container {
    let variable = |variable: EnvVar| {
        let secret = variable.value_from?.secret_key_ref?;
        Some(EnvVar {
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(secret),
                ..Default::default()
            }),
            ..Default::default()
        })
    };
    let source = |source: EnvFromSource| {
        Some(EnvFromSource {
            secret_ref: Some(source.secret_ref?),
            ..Default::default()
        })
    };
    let mount = |mount: VolumeMount| {
        Some(VolumeMount {
            name: mount.name,
            ..Default::default()
        })
    };
    Container {
        name: container.name,
        env: container.env.map(|them| all(them, variable)),
        env_from: container.env_from.map(|them| all(them, source)),
        volume_mounts: container.volume_mounts.map(|them| all(them, mount)),
        ..Default::default()
    }
}

/// What is kept of each, in no more memory than that needs: collecting in place would keep the room of what was dropped.
fn all<T>(them: Vec<T>, keep: impl FnMut(T) -> Option<T>) -> Vec<T> {
    let mut kept: Vec<T> = them.into_iter().filter_map(keep).collect();
    kept.shrink_to_fit();
    kept
}

fn volume(volume: Volume) -> Option<Volume> {
    let projected = volume.projected.and_then(|projected| {
        let sources = projected.sources?.into_iter();
        let sources: Vec<_> = sources.filter(|source| source.secret.is_some()).collect();
        (!sources.is_empty()).then(|| ProjectedVolumeSource {
            sources: Some(sources),
            ..Default::default()
        })
    });
    (volume.secret.is_some() || projected.is_some()).then(|| Volume {
        name: volume.name,
        secret: volume.secret,
        projected,
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::controller::template_references;
    use super::super::decide::Rollout;
    use super::super::rollout::rollout;
    use super::*;

    fn deployment(rotate: &str) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {
                "name": "d", "namespace": "n", "generation": 3, "resourceVersion": "7",
                "annotations": {ROTATE: rotate, BASELINE: "{}", "other": "x"},
                "labels": {"l": "x"},
            },
            "spec": {
                "replicas": 2,
                "paused": true,
                "progressDeadlineSeconds": 30,
                "selector": {"matchLabels": {"app": "d"}},
                "template": {"metadata": {"labels": {"app": "d"}}, "spec": {
                    "initContainers": [{"name": "i", "image": "x", "envFrom": [{"secretRef": {"name": "whole"}}, {"configMapRef": {"name": "c"}}]}],
                    "containers": [{"name": "c", "image": "x", "command": ["y"], "env": [
                        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                        {"name": "B", "value": "plain"},
                        {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
                    ], "volumeMounts": [
                        {"name": "own", "mountPath": "/1"}, {"name": "mixed", "mountPath": "/2"}, {"name": "scratch", "mountPath": "/3"},
                    ]}],
                    "volumes": [
                        {"name": "own", "secret": {"secretName": "s1", "items": [{"key": "k", "path": "p"}], "optional": true}},
                        {"name": "mixed", "projected": {"sources": [{"secret": {"name": "s2"}}, {"configMap": {"name": "c"}}]}},
                        {"name": "scratch", "emptyDir": {}},
                    ],
                }},
            },
            "status": {
                "observedGeneration": 3, "replicas": 2, "updatedReplicas": 1, "availableReplicas": 1, "readyReplicas": 1,
                "conditions": [
                    {"type": "Available", "status": "True"},
                    {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"},
                ],
            },
        }))
        .expect("a Deployment")
    }

    #[test]
    fn decisions_are_the_same_on_what_is_kept() {
        let whole = deployment("true");
        let mut trimmed = whole.clone();
        trim(&mut trimmed);
        assert_eq!(template_references(&trimmed), template_references(&whole));
        assert_eq!(template_references(&whole).len(), 4);
        assert_eq!(opt_in(&trimmed), opt_in(&whole));
        let spec = |deployment: &Deployment| {
            let spec = deployment.spec.clone().expect("a spec");
            let deadline = spec.progress_deadline_seconds;
            (spec.selector, spec.paused, spec.replicas, deadline)
        };
        assert_eq!(spec(&trimmed), spec(&whole));
        assert_eq!(
            trimmed.metadata.resource_version,
            whole.metadata.resource_version
        );
        let annotations = trimmed.metadata.annotations.expect("annotations");
        assert!(annotations.contains_key(BASELINE) && !annotations.contains_key("other"));
    }

    #[test]
    fn a_rollout_is_as_far_on_what_is_kept() {
        let after = |reason: &str, updated: i32, available: i32, deadline: i32| {
            let mut deployment = deployment("true");
            let spec = deployment.spec.as_mut().expect("a spec");
            spec.progress_deadline_seconds = Some(deadline);
            let status = deployment.status.as_mut().expect("a status");
            status.updated_replicas = Some(updated);
            status.available_replicas = Some(available);
            let conditions = status.conditions.as_mut().expect("conditions");
            conditions[1].reason = Some(reason.to_owned());
            deployment
        };
        let mut unseen = after("NewReplicaSetAvailable", 2, 2, 30);
        unseen.metadata.generation = Some(4);
        for (mut deployment, expected) in [
            (after("NewReplicaSetAvailable", 2, 0, 30), Rollout::Finished),
            (after("ReplicaSetUpdated", 2, 2, 30), Rollout::Finished),
            (after("ReplicaSetUpdated", 2, 1, 30), Rollout::UnderWay),
            (
                after("ReplicaSetUpdated", 2, 1, i32::MAX),
                Rollout::UnderWayForEver,
            ),
            (after("ProgressDeadlineExceeded", 1, 1, 30), Rollout::Failed),
            (unseen, Rollout::UnderWay),
        ] {
            assert_eq!(rollout(&deployment), expected);
            trim(&mut deployment);
            assert_eq!(rollout(&deployment), expected);
        }
    }

    #[test]
    fn of_one_that_did_not_opt_in_nothing_but_its_name_is_kept() {
        let mut trimmed = deployment("false");
        trim(&mut trimmed);
        assert_eq!(trimmed.metadata.name.as_deref(), Some("d"));
        assert!(trimmed.spec.is_none() && trimmed.status.is_none());
    }
}
