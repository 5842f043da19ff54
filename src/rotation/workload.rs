//! Workloads of every kind as one plain value: as much of them as decisions need, which is what the caches keep. Pure.
//!
//! The kinds differ in how their rollouts go ([`super::rollout`]) and in where their Pods come from. Nothing else asks for the kind.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{ApiResource, DynamicObject};
use kube::core::{ObjectMeta, Selector};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use serde_json::Value;

use super::baseline::BASELINE;
use super::opt_in::{COMPATIBLE, ROTATE};
use super::reference::{Reference, references};
use super::rollout::{self, Rollout};

/// Annotations that are kept, besides those of others that opt in: all of Keytide's own.
const OWN: &str = "keytide.dev/";

/// A kind of workload.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum WorkloadKind {
    Deployment,
    StatefulSet,
    DaemonSet,
    /// Never restarted: its next run starts with the new content, and a Job that runs is left alone.
    CronJob,
    /// Of Argo Rollouts (<https://argo-rollouts.readthedocs.io/en/stable/features/specification/>), where it is installed.
    Rollout,
}

impl WorkloadKind {
    pub const ALL: [Self; 5] = [
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::CronJob,
        Self::Rollout,
    ];

    /// As `kind` in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::CronJob => "CronJob",
            Self::Rollout => "Rollout",
        }
    }

    /// API group, version and plural.
    pub const fn resource(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Deployment => ("apps", "v1", "deployments"),
            Self::StatefulSet => ("apps", "v1", "statefulsets"),
            Self::DaemonSet => ("apps", "v1", "daemonsets"),
            Self::CronJob => ("batch", "v1", "cronjobs"),
            Self::Rollout => ("argoproj.io", "v1alpha1", "rollouts"),
        }
    }

    /// The same, for requests.
    pub fn api_resource(self) -> ApiResource {
        ApiResource::erase::<Workload>(&self)
    }
}

/// A workload, as far as decisions go.
#[derive(Clone, Debug)]
pub struct Workload {
    pub kind: WorkloadKind,
    /// Without managed fields, owners, and annotations that nothing asks for.
    pub metadata: ObjectMeta,
    /// Something else made it and may make it anew, such as an operator.
    pub controlled: bool,
    /// What its Pod template uses.
    pub references: BTreeSet<Reference>,
    /// Selects its Pods. None: it has none that could be restarted.
    pub selector: Option<Box<str>>,
    /// Wanted Pods, where the kind says.
    pub replicas: Option<i32>,
    /// It makes no Pods of a new template until it is resumed.
    pub paused: bool,
    pub rollout: Rollout,
    /// Hash of what its Pod template has besides metadata, which is Keytide's own and others' to change. Of workloads that have a
    /// baseline, since nobody asks for that of others.
    pub template: Option<u64>,
}

impl Workload {
    fn new(kind: WorkloadKind, metadata: ObjectMeta, template: Option<PodTemplateSpec>) -> Self {
        let pod = template.and_then(|template| template.spec);
        let annotations = metadata.annotations.as_ref();
        let has_baseline = annotations.is_some_and(|it| it.contains_key(BASELINE));
        let owners = metadata.owner_references.iter().flatten();
        Self {
            kind,
            controlled: owners
                .into_iter()
                .any(|owner| owner.controller == Some(true)),
            metadata: trimmed(metadata),
            references: pod.as_ref().map(references).unwrap_or_default(),
            selector: None,
            replicas: None,
            paused: false,
            rollout: Rollout::Finished,
            template: pod.as_ref().filter(|_| has_baseline).map(hash),
        }
    }

    fn with_selector(mut self, selector: Option<LabelSelector>) -> Self {
        // The API server checks selectors, so one that can't be read selects nothing that it would.
        let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
        self.selector = selector.map(|selector| selector.to_string().into());
        self
    }

    /// Reads a Rollout of Argo; what is not as expected is as if it were not there.
    pub fn of_argo(mut object: DynamicObject) -> Self {
        if object.data.pointer("/spec/workloadRef").is_some() {
            // Its Pods are made of another workload's template, and Argo refuses one of its own.
            object.annotations_mut().remove(ROTATE);
        }
        let rollout = rollout::of_argo(&object.metadata, &object.data);
        let spec = |field: &str| object.data.pointer(&format!("/spec/{field}")).cloned();
        let template = spec("template").and_then(|it| serde_json::from_value(it).ok());
        let selector = spec("selector").and_then(|it| serde_json::from_value(it).ok());
        let replicas = spec("replicas").as_ref().and_then(Value::as_i64);
        // Between two steps of a canary it waits for somebody, and a new template would begin with the first step again.
        let waits = object.data.pointer("/status/phase").and_then(Value::as_str) == Some("Paused");
        Self {
            replicas: replicas.and_then(|replicas| replicas.try_into().ok()),
            paused: waits || spec("paused").as_ref().and_then(Value::as_bool) == Some(true),
            rollout,
            ..Self::new(WorkloadKind::Rollout, object.metadata, template).with_selector(selector)
        }
    }

    /// Name in the terms of the store.
    pub fn reference(&self) -> ObjectRef<Self> {
        ObjectRef::from_obj_with(self, self.kind)
    }

    /// Value of an annotation that is kept.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations().get(name).map(String::as_str)
    }
}

impl From<Deployment> for Workload {
    fn from(deployment: Deployment) -> Self {
        let rollout = rollout::of_deployment(&deployment);
        let Some(spec) = deployment.spec else {
            return Self::new(WorkloadKind::Deployment, deployment.metadata, None);
        };
        Self {
            replicas: spec.replicas,
            paused: spec.paused.unwrap_or(false),
            rollout,
            ..Self::new(
                WorkloadKind::Deployment,
                deployment.metadata,
                Some(spec.template),
            )
            .with_selector(Some(spec.selector))
        }
    }
}

impl From<StatefulSet> for Workload {
    fn from(set: StatefulSet) -> Self {
        let rollout = rollout::of_stateful_set(&set);
        let Some(spec) = set.spec else {
            return Self::new(WorkloadKind::StatefulSet, set.metadata, None);
        };
        Self {
            replicas: spec.replicas,
            rollout,
            ..Self::new(WorkloadKind::StatefulSet, set.metadata, Some(spec.template))
                .with_selector(Some(spec.selector))
        }
    }
}

impl From<DaemonSet> for Workload {
    fn from(set: DaemonSet) -> Self {
        let rollout = rollout::of_daemon_set(&set);
        let Some(spec) = set.spec else {
            return Self::new(WorkloadKind::DaemonSet, set.metadata, None);
        };
        Self {
            rollout,
            ..Self::new(WorkloadKind::DaemonSet, set.metadata, Some(spec.template))
                .with_selector(Some(spec.selector))
        }
    }
}

impl From<CronJob> for Workload {
    fn from(job: CronJob) -> Self {
        let template = job.spec.job_template.spec.map(|spec| spec.template);
        Self::new(WorkloadKind::CronJob, job.metadata, template)
    }
}

/// Another one where another release makes it in another way; that ends trials, and nothing else.
fn hash(pod: &PodSpec) -> u64 {
    let mut hasher = DefaultHasher::new();
    // A struct of text and numbers is always JSON.
    serde_json::to_string(pod)
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

fn trimmed(metadata: ObjectMeta) -> ObjectMeta {
    let annotations = metadata.annotations.map(|mut annotations| {
        annotations.retain(|name, _| name.starts_with(OWN) || COMPATIBLE.contains(&name.as_str()));
        annotations
    });
    ObjectMeta {
        annotations: annotations.filter(|annotations| !annotations.is_empty()),
        creation_timestamp: metadata.creation_timestamp,
        deletion_timestamp: metadata.deletion_timestamp,
        generation: metadata.generation,
        labels: metadata.labels,
        name: metadata.name,
        namespace: metadata.namespace,
        resource_version: metadata.resource_version,
        uid: metadata.uid,
        ..Default::default()
    }
}

impl Resource for Workload {
    type DynamicType = WorkloadKind;
    type Scope = NamespaceResourceScope;

    fn kind(kind: &WorkloadKind) -> Cow<'_, str> {
        Cow::Borrowed(kind.name())
    }

    fn group(kind: &WorkloadKind) -> Cow<'_, str> {
        Cow::Borrowed(kind.resource().0)
    }

    fn version(kind: &WorkloadKind) -> Cow<'_, str> {
        Cow::Borrowed(kind.resource().1)
    }

    fn plural(kind: &WorkloadKind) -> Cow<'_, str> {
        Cow::Borrowed(kind.resource().2)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A workload, by its name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct WorkloadId {
    pub namespace: String,
    pub kind: WorkloadKind,
    pub name: String,
}

impl WorkloadId {
    pub fn of(workload: &Workload) -> Self {
        let metadata = &workload.metadata;
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            kind: workload.kind,
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// Name in the terms of the store.
    pub fn reference(&self) -> ObjectRef<Workload> {
        ObjectRef::new_with(&self.name, self.kind).within(&self.namespace)
    }
}

impl From<&ObjectRef<Workload>> for WorkloadId {
    fn from(reference: &ObjectRef<Workload>) -> Self {
        Self {
            namespace: reference.namespace.clone().unwrap_or_default(),
            kind: reference.dyntype,
            name: reference.name.clone(),
        }
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What all kinds have in common.
    fn manifest(spec: Value) -> Value {
        json!({
            "metadata": {
                "name": "w", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 3,
                "annotations": {"keytide.dev/rotate": "true", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
                "labels": {"tier": "canary"},
                "managedFields": [{"manager": "kubectl"}],
                "ownerReferences": [{"apiVersion": "v1", "kind": "Owner", "name": "o", "uid": "o", "controller": true}],
            },
            "spec": spec,
        })
    }

    fn template() -> Value {
        let variable =
            json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}});
        json!({
            "metadata": {"labels": {"app": "w"}},
            "spec": {"containers": [{"name": "c", "image": "i", "env": [variable]}]},
        })
    }

    fn read<K: serde::de::DeserializeOwned + Into<Workload>>(spec: Value) -> Workload {
        serde_json::from_value::<K>(manifest(spec))
            .expect("a workload")
            .into()
    }

    fn of_every_kind() -> [Workload; 5] {
        let selector = json!({"matchLabels": {"app": "w"}});
        let spec = json!({"selector": selector, "template": template(), "replicas": 2, "serviceName": "w"});
        let job = json!({"schedule": "@daily", "jobTemplate": {"spec": {"template": template()}}});
        let mut argo = manifest(spec.clone());
        argo["apiVersion"] = json!("argoproj.io/v1alpha1");
        argo["kind"] = json!("Rollout");
        [
            read::<Deployment>(spec.clone()),
            read::<StatefulSet>(spec.clone()),
            read::<DaemonSet>(spec),
            read::<CronJob>(job),
            Workload::of_argo(serde_json::from_value(argo).expect("an object")),
        ]
    }

    #[test]
    fn every_kind_gives_what_decisions_need() {
        for (workload, kind) in of_every_kind().into_iter().zip(WorkloadKind::ALL) {
            assert_eq!(workload.kind, kind);
            assert_eq!(workload.references.len(), 1, "{kind:?}");
            assert!(workload.controlled, "{kind:?}");
            assert_eq!(workload.annotation("keytide.dev/rotate"), Some("true"));
            assert_eq!(workload.labels()["tier"], "canary");
            assert_eq!(workload.reference().dyntype, kind);
            let selector = (kind != WorkloadKind::CronJob).then_some("app=w");
            assert_eq!(workload.selector.as_deref(), selector, "{kind:?}");
        }
    }

    #[test]
    fn what_decisions_do_not_need_is_not_kept() {
        for workload in of_every_kind() {
            assert_eq!(workload.annotations().len(), 1, "{:?}", workload.kind);
            assert!(workload.metadata.managed_fields.is_none());
            assert!(workload.metadata.owner_references.is_none());
        }
    }

    #[test]
    fn the_template_is_another_one_by_its_containers_and_not_by_its_metadata() {
        let with = |image: &str, annotation: &str| {
            let mut template = template();
            template["spec"]["containers"][0]["image"] = json!(image);
            template["metadata"]["annotations"] = json!({"keytide.dev/content-digest": annotation});
            let mut manifest = manifest(json!({"selector": {}, "template": template}));
            manifest["metadata"]["annotations"][BASELINE] = json!("{}");
            let deployment: Deployment = serde_json::from_value(manifest).expect("a Deployment");
            Workload::from(deployment).template.expect("a hash")
        };
        assert_eq!(with("i", "a"), with("i", "b"));
        assert_ne!(with("i", "a"), with("j", "a"));
        for workload in of_every_kind() {
            assert_eq!(workload.template, None, "it has no baseline");
        }
    }

    #[test]
    fn an_argo_rollout_between_two_steps_is_paused() {
        let paused = |data: Value| {
            let mut object = DynamicObject::new("r", &WorkloadKind::Rollout.api_resource());
            object.data = data;
            Workload::of_argo(object).paused
        };
        assert!(paused(json!({"spec": {"paused": true}})));
        assert!(paused(json!({"status": {"phase": "Paused"}})));
        assert!(!paused(
            json!({"spec": {}, "status": {"phase": "Progressing"}})
        ));
    }

    #[test]
    fn an_argo_rollout_of_another_workloads_template_is_given_none() {
        let mut object = DynamicObject::new("r", &WorkloadKind::Rollout.api_resource());
        object.annotations_mut().insert(ROTATE.into(), "s".into());
        let opted_in =
            |object: DynamicObject| Workload::of_argo(object).annotation(ROTATE).is_some();
        object.data = json!({"spec": {"template": {}}});
        assert!(opted_in(object.clone()));
        object.data = json!({"spec": {"workloadRef": {"kind": "Deployment", "name": "d"}}});
        assert!(!opted_in(object));
    }

    #[test]
    fn an_argo_rollout_that_is_not_as_expected_has_nothing_to_roll_for() {
        let mut object = DynamicObject::new("r", &WorkloadKind::Rollout.api_resource());
        object.data =
            json!({"spec": {"template": 1, "selector": [], "replicas": "two", "paused": "yes"}});
        let workload = Workload::of_argo(object);
        assert!(workload.references.is_empty() && workload.selector.is_none() && !workload.paused);
    }
}
