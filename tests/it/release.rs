//! Releases of the chart from beginning to end: the definitions that it brings, a release with everything in it, and uninstalling.

use std::fs;
use std::path::Path;
use std::process::Command;

use k8s_openapi::api::authorization::v1::{
    ResourceRule, SelfSubjectRulesReview, SelfSubjectRulesReviewSpec,
};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use keytide::api::KeyVaultMirror;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::alone::{CRDS, alone};
use crate::chart::template;
use crate::fixture::{KEYTIDE, SOON};
use crate::testbed::system::{CHART, RELEASE, System};
use crate::testbed::{Testbed, eventually, kubeconfig};

fn keytide(arguments: &[&str], kubeconfig: &Path) -> std::process::Output {
    Command::new(KEYTIDE)
        .args(arguments)
        .env_clear()
        .env("KUBECONFIG", kubeconfig)
        .output()
        .expect("keytide runs")
}

#[tokio::test]
async fn a_daemon_without_definitions_says_what_to_run_and_goes_on_after_it() {
    let alone = alone().await;
    let system = System::start(alone.testbed, Path::new(KEYTIDE), "{}", &[]).await;
    let system = system.expect("a system");
    let delete = ["delete", "customresourcedefinition"];
    let delete = [&delete[..], &CRDS].concat();
    alone.testbed.kubectl(&delete).await.ok();
    let log = alone.testbed.log_file("keytide-without-crds.log");
    let mut daemon = system.start_daemon(&log, &[], &[]).expect("a daemon");
    eventually(SOON, "it says what is missing", async || {
        let (status, said) = daemon
            .get("/readyz")
            .await
            .map_err(|error| error.to_string())?;
        let sentence =
            "the CustomResourceDefinition of KeyVaultMirror is missing; run: keytide crd --apply\n";
        if (status, said.as_str()) == (503, sentence) {
            Ok(())
        } else {
            Err(format!("{status}: {said}"))
        }
    })
    .await;
    assert_eq!(daemon.get("/healthz").await.expect("an answer").0, 200);
    let applied = keytide(&["crd", "--apply"], alone.testbed.kubeconfig());
    assert!(applied.status.success(), "{applied:?}");
    daemon.wait_ready().await.expect("ready");
}

#[tokio::test]
async fn the_hook_brings_the_definitions_up_to_date_and_can_do_nothing_else() {
    let alone = alone().await;
    let testbed = alone.testbed;
    let namespace = testbed.namespace("hook").await;
    let install = [
        "install",
        RELEASE,
        CHART,
        "--namespace",
        &namespace,
        "--set",
        "replicaCount=0",
    ];
    testbed.helm(&install).await.ok();
    let client = testbed.client().await;
    let crds: Api<CustomResourceDefinition> = Api::all(client);
    let mut specs = Vec::new();
    for name in CRDS {
        specs.push(crds.get(name).await.expect("a definition").spec);
        let older = json!([{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns"}]);
        let older = serde_json::from_value(older).expect("a patch");
        let older = Patch::Json::<()>(older);
        crds.patch(name, &PatchParams::default(), &older)
            .await
            .expect("patched");
    }

    let hook = template(
        testbed,
        &namespace,
        "{}",
        &["--show-only", "templates/crd-upgrade.yaml"],
    )
    .await;
    let accounts: Vec<&str> = hook
        .split("\n---\n")
        .filter(|text| !text.contains("kind: Job"))
        .collect();
    testbed
        .apply(&namespace, &accounts.join("\n---\n"))
        .await
        .ok();
    let account = format!("{RELEASE}-crds");
    let path = testbed
        .service_account_kubeconfig(&namespace, &account)
        .await;
    let applied = keytide(&["crd", "--apply"], &path);
    assert!(applied.status.success(), "{applied:?}");
    for (name, spec) in CRDS.iter().zip(specs) {
        assert_eq!(
            crds.get(name).await.expect("a definition").spec,
            spec,
            "{name}"
        );
    }

    // What every ServiceAccount may do is not the hook's.
    let default = testbed
        .service_account_kubeconfig(&namespace, "default")
        .await;
    let everybodys = rights(&default, &namespace).await;
    let mut rights = rights(&path, &namespace).await;
    rights.retain(|right| !everybodys.contains(right));
    let [right] = rights.as_slice() else {
        panic!("{rights:?}")
    };
    let names = right.resource_names.as_deref();
    assert_eq!(names, Some(CRDS.map(String::from).as_slice()));
    let resources = right.resources.as_deref();
    assert_eq!(
        resources,
        Some(["customresourcedefinitions".to_owned()].as_slice())
    );
    assert_eq!(right.verbs, ["get", "create", "patch"]);
}

/// What a kubeconfig's user may do in a namespace, by what the API server says.
async fn rights(kubeconfig: &Path, namespace: &str) -> Vec<ResourceRule> {
    let client = kubeconfig::client(kubeconfig).await.expect("a client");
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec {
            namespace: Some(namespace.to_owned()),
        },
        ..SelfSubjectRulesReview::default()
    };
    let review = Api::all(client)
        .create(&PostParams::default(), &review)
        .await;
    review
        .expect("a review")
        .status
        .expect("rules")
        .resource_rules
}

/// A chart of someone's that brings the daemon, its grants, mirrors and a workload in one release.
fn parent_chart(testbed: &Testbed) -> String {
    let folder = testbed.folder("parent");
    let templates = folder.join("templates");
    fs::create_dir_all(&templates).expect("a folder");
    copy(Path::new(CHART), &folder.join("charts").join("keytide"));
    let chart = "{apiVersion: v2, name: parent, version: 0.1.0, dependencies: [{name: keytide, version: '>0'}]}";
    fs::write(folder.join("Chart.yaml"), chart).expect("written");
    let mirror = |name: &str, policy: &str| {
        json!({
            "apiVersion": "keytide.dev/v1alpha1",
            "kind": "KeyVaultMirror",
            "metadata": {"name": name},
            "spec": {
                "vault": {"name": "contoso"},
                "refreshInterval": "10s",
                "data": [{"key": "k", "object": {"name": "s"}}],
                "target": {"name": name},
                "deletionPolicy": policy,
            },
        })
    };
    let deployment = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "annotations": {"keytide.dev/rotate": "goes"}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{
                    "name": "web",
                    "image": "none",
                    "envFrom": [{"secretRef": {"name": "goes"}}],
                }]},
            },
        },
    });
    let all = [
        mirror("goes", "Delete"),
        mirror("stays", "Retain"),
        deployment,
    ];
    let all = all.map(|manifest| manifest.to_string());
    fs::write(templates.join("all.yaml"), all.join("\n---\n")).expect("written");
    folder.display().to_string()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}

#[tokio::test]
async fn one_release_by_helm_4_brings_everything_and_takes_its_own_along() {
    one_release(async |testbed, values, arguments| testbed.helm_with(values, arguments).await.ok())
        .await;
}

#[tokio::test]
async fn one_release_by_helm_3_brings_everything_and_takes_its_own_along() {
    one_release(async |testbed, values, arguments| {
        testbed.helm3_with(values, arguments).await.ok()
    })
    .await;
}

async fn one_release(helm: impl AsyncFn(&Testbed, &str, &[&str]) -> String) {
    let alone = alone().await;
    let testbed = alone.testbed;
    let (inside, outside) = (
        testbed.namespace("inside").await,
        testbed.namespace("outside").await,
    );
    let chart = parent_chart(testbed);
    let grant = json!({"namespaces": ["*"], "objects": [{"kind": "secret", "name": "*"}]});
    let values = json!({"keytide": {"replicaCount": 0, "vaults": {"contoso": grant}}}).to_string();
    let install = [
        "install",
        "all",
        &chart,
        "--namespace",
        &inside,
        "--values",
        "-",
    ];
    helm(testbed, &values, &install).await;
    let seed = "vaults: {contoso: {secrets: {s: value}}}";
    let system = System::installed(testbed, Path::new(KEYTIDE), seed, &inside, "all-keytide");
    let system = system.await.expect("a system");
    let log = testbed.log_file("keytide-one-release.log");
    let daemon = system.daemon(&log, &[], &[]).await.expect("a daemon");
    let client = testbed.client().await;
    exists(&client, &inside, "goes", true).await;
    exists(&client, &inside, "stays", true).await;
    let manifest = testbed
        .kubectl(&["get", "kvm", "stays", "-n", &inside, "-o", "json"])
        .await
        .ok();
    let mut manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    manifest["metadata"] = json!({"name": "stays"});
    manifest["spec"]["deletionPolicy"] = json!("Delete");
    testbed.apply(&outside, &manifest.to_string()).await.ok();
    exists(&client, &outside, "stays", true).await;
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> =
        Api::namespaced(client.clone(), &inside);
    let web = eventually(SOON, "the content is recorded", async || {
        let web = deployments
            .get("web")
            .await
            .map_err(|error| error.to_string())?;
        let annotations = web.metadata.annotations.unwrap_or_default();
        if annotations.contains_key("keytide.dev/baseline") {
            Ok(annotations)
        } else {
            Err(format!("{annotations:?}"))
        }
    })
    .await;
    assert_eq!(
        web["deployment.kubernetes.io/revision"], "1",
        "the installation restarted it"
    );
    let events = testbed
        .kubectl(&["get", "events", "-n", &inside])
        .await
        .ok();
    assert!(!events.contains("NothingToRotate"), "{events}");

    // As the Pod's end is part of it.
    drop(daemon);
    helm(testbed, "", &["uninstall", "all", "--namespace", &inside]).await;
    exists(&client, &inside, "goes", false).await;
    let mirrors: Api<KeyVaultMirror> = Api::all(client.clone());
    let left = mirrors
        .list(&Default::default())
        .await
        .expect("the definitions stay")
        .items;
    let left: Vec<_> = left
        .iter()
        .map(|mirror| mirror.metadata.namespace.as_deref())
        .collect();
    assert_eq!(left, [Some(outside.as_str())]);
    exists(&client, &inside, "stays", true).await;
    exists(&client, &outside, "stays", true).await;
}

/// Waits until a Secret is there, with its content, or until it is gone.
async fn exists(client: &Client, namespace: &str, name: &str, wanted: bool) {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    eventually(
        SOON,
        &format!("Secret {name} of {namespace} is there: {wanted}"),
        async || {
            let secret = secrets
                .get_opt(name)
                .await
                .map_err(|error| error.to_string())?;
            let content = secret.and_then(|secret| secret.data?.remove("k"));
            match content {
                Some(content) if wanted && content.0 == b"value" => Ok(()),
                None if !wanted => Ok(()),
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await;
}
