//! Workloads of every kind: how each is rolled, and who decides that it is.

use k8s_openapi::api::core::v1::Pod;
use keytide::rotation::{Workload, WorkloadKind};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use crate::fixture::{Fixture, SOON, revision};
use crate::testbed::eventually;

/// API group of the Secrets Store CSI driver, and its name.
const CSI_GROUP: &str = "secrets-store.csi.x-k8s.io";
const CSI_DRIVER: &str = "secrets-store.csi.k8s.io";

/// A workload of any kind, whose only container takes key `k` of Secret `t` as a variable.
pub fn workload(kind: WorkloadKind, name: &str, rotate: Option<&str>, spec: Value) -> Value {
    let annotations = rotate.map_or(json!({}), |rotate| json!({"keytide.dev/rotate": rotate}));
    let variable =
        json!({"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "t", "key": "k"}}});
    let pod = json!({"containers": [{"name": "main", "image": "none", "env": [variable]}]});
    let template = json!({"metadata": {"labels": {"app": name}}, "spec": pod});
    let mut manifest = json!({
        "apiVersion": Workload::api_version(&kind),
        "kind": kind.name(),
        "metadata": {"name": name, "annotations": annotations},
        "spec": spec,
    });
    let spec = &mut manifest["spec"];
    if kind == WorkloadKind::CronJob {
        spec["schedule"] = json!("0 0 29 2 *");
        spec["jobTemplate"]["spec"]["template"] = template;
        spec["jobTemplate"]["spec"]["template"]["spec"]["restartPolicy"] = json!("Never");
        return manifest;
    }
    spec["selector"] = json!({"matchLabels": {"app": name}});
    spec["template"] = template;
    if kind == WorkloadKind::StatefulSet {
        spec["serviceName"] = json!(name);
    }
    manifest
}

impl Fixture {
    pub fn workloads(&self, kind: WorkloadKind) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind.api_resource())
    }

    /// Waits until a workload's baseline is of this content of key `k` of Secret `t`, and gives it.
    pub async fn recorded(&self, kind: WorkloadKind, name: &str) -> DynamicObject {
        let what = format!("{} {name} has the content as its baseline", kind.name());
        eventually(SOON, &what, async || {
            let error = |error: kube::Error| error.to_string();
            let found = self.workloads(kind).get(name).await.map_err(error)?;
            let target = self.secrets().get("t").await.map_err(error)?;
            let records = keytide::mirror::records(target.annotations());
            let record = records.values().find_map(|record| record.keys.get("k"));
            let digest = &record.ok_or("no record of the key")?.digest;
            let baseline = found.annotations().get("keytide.dev/baseline");
            match baseline {
                Some(baseline) if baseline.contains(digest) => Ok(found),
                other => Err(format!("the baseline is {other:?}")),
            }
        })
        .await
    }

    /// The Pods of a workload that have been made from a template that Keytide has stamped.
    async fn stamped(&self, name: &str) -> Vec<String> {
        let pods: Api<k8s_openapi::api::core::v1::Pod> =
            Api::namespaced(self.client.clone(), &self.namespace);
        let selector = kube::api::ListParams::default().labels(&format!("app={name}"));
        let pods = pods.list(&selector).await.expect("Pods");
        let stamped = pods.items.iter().filter(|pod| {
            pod.metadata.deletion_timestamp.is_none()
                && pod.annotations().contains_key("keytide.dev/content-digest")
        });
        let mut stamped: Vec<String> = stamped.map(ResourceExt::name_any).collect();
        stamped.sort();
        stamped
    }
}

/// How often the spec of a workload was changed, the first time being its making.
fn changes(workload: &DynamicObject) -> i64 {
    workload.metadata.generation.unwrap_or_default()
}

#[tokio::test]
async fn every_kind_is_rolled_once_and_as_its_strategy_says() {
    use WorkloadKind::{CronJob, DaemonSet, StatefulSet};
    let fixture = Fixture::new("kinds").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "first");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture.secret_has("t", "k", b"first").await;
    let by_hand = json!({"type": "OnDelete"});
    let partition = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}});
    let all = [
        (StatefulSet, "ordered", json!({"replicas": 2})),
        (
            StatefulSet,
            "partitioned",
            json!({"replicas": 2, "updateStrategy": partition}),
        ),
        (
            StatefulSet,
            "by-hand",
            json!({"replicas": 1, "updateStrategy": by_hand}),
        ),
        (DaemonSet, "everywhere", json!({})),
        (DaemonSet, "by-hand-too", json!({"updateStrategy": by_hand})),
        (CronJob, "at-times", json!({})),
    ];
    for (kind, name, spec) in all.clone() {
        fixture
            .apply(&workload(kind, name, Some("true"), spec))
            .await;
    }
    for (kind, name, _) in &all {
        fixture.recorded(*kind, name).await;
        rolled_out(&fixture, *kind, name).await;
    }

    let run = ["create", "job", "run", "--from=cronjob/at-times"];
    let run = [&run[..], &["--namespace", &fixture.namespace]].concat();
    fixture.testbed.kubectl(&run).await.ok();
    let running = pod_of_job(&fixture, "run").await;

    fixture.set("s", "second");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "k", b"second").await;
    for (kind, name, _) in &all {
        let found = fixture.recorded(*kind, name).await;
        let expected = if *kind == CronJob { 1 } else { 2 };
        assert_eq!(changes(&found), expected, "{name}");
    }
    for (name, expected) in [
        ("ordered", &["ordered-0", "ordered-1"][..]),
        ("partitioned", &["partitioned-1"]),
    ] {
        eventually(SOON, &format!("{name} is rolled out"), async || {
            let stamped = fixture.stamped(name).await;
            if stamped == expected {
                Ok(())
            } else {
                Err(format!("{stamped:?}"))
            }
        })
        .await;
    }
    rolled_out(&fixture, DaemonSet, "everywhere").await;
    assert!(!fixture.stamped("everywhere").await.is_empty());
    for name in ["by-hand", "by-hand-too"] {
        assert!(fixture.stamped(name).await.is_empty(), "{name}");
    }
    assert_eq!(
        pod_of_job(&fixture, "run").await,
        running,
        "a run goes on as it began"
    );
}

/// Waits for the Pod of a Job, and gives its name, UID and spec.
async fn pod_of_job(fixture: &Fixture, job: &str) -> (String, Option<String>, Value) {
    let pods: Api<Pod> = Api::namespaced(fixture.client.clone(), &fixture.namespace);
    let of_it = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    eventually(SOON, &format!("a Pod of Job {job}"), async || {
        let found = pods.list(&of_it).await.map_err(|error| error.to_string())?;
        let live = found.items.into_iter();
        let mut live = live.filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let pod = live.next().ok_or("none")?;
        pod.spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_ref())
            .ok_or("no node")?;
        Ok((pod.name_any(), pod.uid(), json!(pod.spec)))
    })
    .await
}

/// Waits for `kubectl rollout status`, where it has something to say.
async fn rolled_out(fixture: &Fixture, kind: WorkloadKind, name: &str) {
    let status = [
        "rollout",
        "status",
        &format!("{}/{name}", kind.name()),
        "--timeout=90s",
    ];
    let output = fixture
        .testbed
        .kubectl(&[&status[..], &["--namespace", &fixture.namespace]].concat())
        .await;
    let silent = ["only available for RollingUpdate", "no status viewer"];
    assert!(
        output.success || silent.iter().any(|it| output.stderr.contains(it)),
        "{name}: {}",
        output.stderr
    );
}

#[tokio::test]
async fn a_namespace_opts_in_for_what_is_in_it_but_not_for_what_says_no_or_is_made_by_something_else()
 {
    use WorkloadKind::Deployment;
    let fixture = Fixture::new("default").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    let owner = fixture.secret_has("t", "k", b"v").await;
    let mut made = workload(Deployment, "made", None, json!({}));
    made["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "Secret", "name": "t", "uid": owner.metadata.uid, "controller": true,
    }]);
    let mut named = made.clone();
    named["metadata"]["name"] = json!("made-and-named");
    named["metadata"]["annotations"] = json!({"keytide.dev/rotate": "true"});
    let no = workload(Deployment, "no", Some("false"), json!({}));
    for manifest in [
        &made,
        &named,
        &no,
        &workload(Deployment, "silent", None, json!({})),
    ] {
        fixture.apply(manifest).await;
    }
    fixture.recorded(Deployment, "made-and-named").await;
    let silent = fixture.workloads(Deployment).get("silent").await;
    let baseline = |found: &DynamicObject| found.annotations().contains_key("keytide.dev/baseline");
    assert!(
        !baseline(&silent.expect("silent")),
        "nothing opted it in yet"
    );

    let annotate = [
        "annotate",
        "namespace",
        &fixture.namespace,
        "keytide.dev/rotate=true",
    ];
    fixture.testbed.kubectl(&annotate).await.ok();
    fixture.recorded(Deployment, "silent").await;
    for name in ["made", "no"] {
        let found = fixture.workloads(Deployment).get(name).await.expect(name);
        assert!(!baseline(&found), "{name}");
    }
}

#[tokio::test]
async fn a_template_with_a_new_reference_is_rolled_by_its_owner_alone() {
    use WorkloadKind::Deployment;
    let fixture = Fixture::new("reference").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    fixture.set("new", "v");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture
        .apply(&fixture.mirror("n", "new", &[("k", "new")]))
        .await;
    fixture
        .apply(&workload(
            Deployment,
            "d",
            Some("true"),
            json!({"replicas": 2}),
        ))
        .await;
    fixture.settled("d", "t", "k").await;
    // Changed since its containers started, and not used by them.
    fixture.set("new", "w");
    fixture.sync_now("n").await;
    let secret = fixture.secret_has("new", "k", b"w").await;
    // What starts within the margin after a change is stale, however it came about.
    let records = keytide::mirror::records(secret.annotations());
    let record = records.values().next().expect("a record");
    let changed = record.keys["k"].changed;
    eventually(SOON, "the margin is over", async || {
        let since = jiff::Timestamp::now().duration_since(changed).as_secs();
        (since > 6).then_some(()).ok_or(format!("{since} s"))
    })
    .await;
    let from = json!([{"prefix": "NEW_", "secretRef": {"name": "new"}}]);
    let container = json!([{"name": "main", "image": "none", "envFrom": from}]);
    let patch = json!({"spec": {"template": {"spec": {"containers": container}}}});
    fixture
        .deployments()
        .patch("d", &PatchParams::default(), &Patch::Strategic(&patch))
        .await
        .expect("patched");
    let settled = fixture.settled("d", "new", "k").await;
    assert_eq!(revision(&settled), "2");
}

/// The definition of a kind, as open as can be, in the place of what its maker installs. The first version is stored.
pub fn definition(group: &str, kind: &str, plural: &str, versions: &[&str]) -> Value {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let version = |name: &&str| {
        let storage = versions.first() == Some(name);
        let schema = json!({"openAPIV3Schema": open});
        json!({"name": name, "served": true, "storage": storage, "schema": schema})
    };
    let versions: Vec<Value> = versions.iter().map(version).collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": versions,
        },
    })
}

/// Makes the definitions of kinds that are not in every cluster.
async fn define(fixture: &Fixture, definitions: &[Value]) {
    for definition in definitions {
        fixture.apply(definition).await;
        let name = definition["metadata"]["name"].as_str().unwrap_or_default();
        let name = format!("crd/{name}");
        let established = ["wait", "--for=condition=Established", &name];
        fixture.testbed.kubectl(&established).await.ok();
    }
}

/// The definition of SecretProviderClasses.
pub fn definition_of_classes() -> Value {
    let (kind, plural) = ("SecretProviderClass", "secretproviderclasses");
    definition(CSI_GROUP, kind, plural, &["v1"])
}

/// A SecretProviderClass of which the CSI driver keeps key `k` of a Secret.
pub fn class(name: &str, secret: &str) -> Value {
    let objects = json!([{"secretName": secret, "data": [{"objectName": "o", "key": "k"}]}]);
    json!({
        "apiVersion": format!("{CSI_GROUP}/v1"),
        "kind": "SecretProviderClass",
        "metadata": {"name": name},
        "spec": {"provider": "azure", "secretObjects": objects},
    })
}

/// Has a Deployment use nothing but classes: it mounts the first of them, and has volumes of the others that it doesn't mount.
pub fn use_classes(deployment: &mut Value, classes: &[&str]) {
    let volumes = classes.iter().map(|name| {
        let attributes = json!({"secretProviderClass": name});
        let csi = json!({"driver": CSI_DRIVER, "readOnly": true, "volumeAttributes": attributes});
        json!({"name": name, "csi": csi})
    });
    let pod = &mut deployment["spec"]["template"]["spec"];
    pod["volumes"] = volumes.collect();
    let mounts = json!([{"name": classes[0], "mountPath": "/in"}]);
    pod["containers"] = json!([{"name": "main", "image": "none", "volumeMounts": mounts}]);
}

/// Makes a Rollout of Argo and a SecretProviderClass, and before them their definitions.
pub async fn make_what_is_not_everywhere(fixture: &Fixture) {
    let rollouts = definition("argoproj.io", "Rollout", "rollouts", &["v1alpha1"]);
    define(fixture, &[rollouts, definition_of_classes()]).await;
    let mut rollout = workload(
        WorkloadKind::Rollout,
        "argo",
        Some("true"),
        json!({"replicas": 1}),
    );
    // Nobody here is its controller: this is what that would say, and the Pod that it would make.
    rollout["status"] = json!({"phase": "Healthy"});
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "argo", "labels": {"app": "argo"}}});
    pod["spec"] = rollout["spec"]["template"]["spec"].clone();
    for manifest in [&rollout, &pod, &class("class", "kept")] {
        fixture.apply(manifest).await;
    }
}

#[tokio::test]
async fn a_rollout_of_argo_is_rolled_once_its_definition_has_come() {
    let fixture = Fixture::new("argo").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "first");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture.secret_has("t", "k", b"first").await;
    make_what_is_not_everywhere(&fixture).await;
    let recorded = fixture.recorded(WorkloadKind::Rollout, "argo").await;
    let stamp = |rollout: &DynamicObject| {
        let annotations = "/spec/template/metadata/annotations/keytide.dev~1content-digest";
        rollout.data.pointer(annotations).cloned()
    };
    assert_eq!(stamp(&recorded), None);
    fixture.set("s", "second");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "k", b"second").await;
    let rotated = fixture.recorded(WorkloadKind::Rollout, "argo").await;
    assert!(stamp(&rotated).is_some());
}

#[tokio::test]
async fn what_mounts_a_class_is_rolled_when_a_secret_changes_that_the_csi_driver_keeps_of_it() {
    let fixture = Fixture::new("csi").await;
    let _daemon = fixture.daemon().await;
    define(&fixture, &[definition_of_classes()]).await;
    for (object, mirror, target) in [("s", "m", "t"), ("other", "n", "u")] {
        fixture.set(object, "first");
        fixture
            .apply(&fixture.mirror(mirror, target, &[("k", object), ("unused", object)]))
            .await;
        fixture.secret_has(target, "k", b"first").await;
    }
    fixture.apply(&class("mounted", "t")).await;
    fixture.apply(&class("not-mounted", "u")).await;
    let mut deployment = fixture.deployment("d", Some("true"), "t", "k");
    use_classes(&mut deployment, &["mounted", "not-mounted"]);
    fixture.apply(&deployment).await;
    let settled = fixture.settled("d", "t", "k").await;
    let baseline = &settled.annotations()["keytide.dev/baseline"];
    assert!(baseline.contains("t/k"), "{baseline}");
    assert!(
        !baseline.contains("unused") && !baseline.contains("u/k"),
        "{baseline}"
    );

    for (object, mirror) in [("other", "n"), ("s", "m")] {
        fixture.set(object, "second");
        fixture.sync_now(mirror).await;
    }
    fixture.secret_has("u", "k", b"second").await;
    fixture.secret_has("t", "k", b"second").await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "2");
}
