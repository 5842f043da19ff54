//! Keytide in the place of akv2k8s' controller: what that had written is taken over as it is, and looked after from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use futures::StreamExt;
use futures::future::join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::alone::{Alone, alone};
use crate::fixture::{KEYTIDE, QUICK, SOON, revision};
use crate::testbed::daemon::Daemon;
use crate::testbed::eventually;
use crate::testbed::system::System;
use crate::workloads::definition;

const VAULT: &str = "akv2k8s-test";
const CRD: &str = "customresourcedefinition/azurekeyvaultsecrets.spv.no";
/// The name under which akv2k8s' controller writes, that of its program.
const THEIRS: &str = "azure-keyvault-controller";
const VERSIONS: [&str; 4] = ["v1", "v1alpha1", "v2alpha1", "v2beta1"];
const NAMESPACES: usize = 4;
const SECRETS: usize = 200;

/// A cluster with the chart, and namespaces that may mirror from a vault.
struct Scene {
    alone: Alone,
    system: System,
    client: Client,
    namespaces: Vec<String>,
}

impl Scene {
    async fn set(namespaces: usize) -> Self {
        let alone = alone().await;
        let testbed = alone.testbed;
        testbed
            .kubectl(&["delete", "--ignore-not-found", "--timeout=60s", CRD])
            .await
            .ok();
        let enabled = ["--set", "akv2k8s.enabled=true,targets.configMaps=true"];
        let system = System::start(testbed, Path::new(KEYTIDE), "{}", &enabled)
            .await
            .expect("a system");
        system.vault().create_vault(VAULT, None).expect("a vault");
        let mut names = Vec::new();
        for _ in 0..namespaces {
            names.push(testbed.namespace("akv2k8s").await);
        }
        let scene = Self {
            alone,
            system,
            client: testbed.client().await,
            namespaces: names,
        };
        let grant = json!({
            "apiVersion": "keytide.dev/v1alpha1",
            "kind": "KeyVaultGrant",
            "metadata": {"name": "akv2k8s"},
            "spec": {
                "vault": {"name": VAULT},
                "namespaces": scene.namespaces,
                "objects": [{"kind": "secret", "name": "*"}],
                "allowConfigMap": ["s"],
            },
        });
        scene.apply(&scene.namespaces[0], &grant).await;
        scene
    }

    async fn apply(&self, namespace: &str, manifest: &Value) {
        let testbed = self.alone.testbed;
        testbed.apply(namespace, &manifest.to_string()).await.ok();
    }

    /// Installs a definition of AzureKeyVaultSecrets.
    async fn define(&self, definition: &str) {
        let testbed = self.alone.testbed;
        testbed.apply("default", definition).await.ok();
        testbed
            .kubectl(&["wait", "--for=condition=Established", CRD])
            .await
            .ok();
    }

    async fn daemon(&self) -> Daemon {
        let log = self.alone.testbed.log_file("keytide-akv2k8s.log");
        let arguments = [&QUICK[..], &["--akv2k8s", "--config-maps"]].concat();
        let daemon = self.system.daemon(&log, &arguments, &[]).await;
        daemon.expect("a daemon")
    }

    fn set_secret(&self, name: &str, value: &str) {
        let vault = self.system.vault();
        vault.set_secret(VAULT, name, value).expect("set");
    }

    fn resources(&self, namespace: &str, version: &str) -> Api<DynamicObject> {
        let kind = ApiResource {
            group: "spv.no".into(),
            version: version.into(),
            api_version: format!("spv.no/{version}"),
            kind: "AzureKeyVaultSecret".into(),
            plural: "azurekeyvaultsecrets".into(),
        };
        Api::namespaced_with(self.client.clone(), namespace, &kind)
    }

    fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Changes a resource as its owner does, and has its vault asked at once.
    async fn change(&self, namespace: &str, name: &str, spec: Value) {
        let sync = self.alone.testbed.unique("sync");
        let annotations = json!({"keytide.dev/sync-now": sync});
        let patch = json!({"metadata": {"annotations": annotations}, "spec": spec});
        self.resources(namespace, "v2beta1")
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .expect("patched");
    }

    /// Waits until a Secret has this data.
    async fn has(&self, namespace: &str, secret: &str, data: &[(&str, &str)]) -> Secret {
        let what = format!("Secret {secret} has {data:?}");
        eventually(SOON, &what, async || {
            let found = self.secrets(namespace).get(secret).await;
            let found = found.map_err(|error| error.to_string())?;
            let there = texts(&found);
            let there: Vec<_> = there
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect();
            if there == data {
                Ok(found)
            } else {
                Err(format!("{there:?}"))
            }
        })
        .await
    }

    /// Waits until the status of a resource has what is looked for.
    async fn status<T>(
        &self,
        namespace: &str,
        name: &str,
        look: impl Fn(&Value) -> Option<T>,
    ) -> T {
        let what = format!("the status of {name}");
        eventually(SOON, &what, async || {
            let found = self.resources(namespace, "v2beta1").get(name).await;
            let found = found.map_err(|error| error.to_string())?;
            look(&found.data["status"]).ok_or_else(|| found.data["status"].to_string())
        })
        .await
    }

    /// What every Secret of the namespaces has held from now on: each data that it had.
    fn record(&self) -> Arc<Mutex<Held>> {
        let contents = Arc::<Mutex<Held>>::default();
        for namespace in &self.namespaces {
            let record = Arc::clone(&contents);
            let namespace = namespace.clone();
            let secrets = watcher(self.secrets(&namespace), watcher::Config::default());
            tokio::spawn(async move {
                let mut secrets = std::pin::pin!(secrets.default_backoff().applied_objects());
                while let Some(secret) = secrets.next().await {
                    let Ok(secret) = secret else { continue };
                    let mut record = record.lock().expect("not poisoned");
                    let held: &mut Vec<Texts> = record
                        .entry((namespace.clone(), secret.name_any()))
                        .or_default();
                    let data = texts(&secret);
                    if held.last() != Some(&data) {
                        held.push(data);
                    }
                }
            });
        }
        contents
    }
}

type Texts = BTreeMap<String, String>;

/// By namespace and name.
type Held = BTreeMap<(String, String), Vec<Texts>>;

fn texts(secret: &Secret) -> Texts {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()))
        .collect()
}

/// What `keytide crd --akv2k8s` prints.
fn printed_definition() -> String {
    let printed = Command::new(KEYTIDE)
        .args(["crd", "--akv2k8s"])
        .env_clear()
        .output()
        .expect("keytide runs");
    assert!(printed.status.success(), "{printed:?}");
    String::from_utf8(printed.stdout).expect("UTF-8")
}

fn resource(version: &str, name: &str, object: Value, output: Value) -> DynamicObject {
    let manifest = json!({
        "apiVersion": format!("spv.no/{version}"),
        "kind": "AzureKeyVaultSecret",
        "metadata": {
            "name": name,
            "labels": {"app": "shop", "app.kubernetes.io/managed-by": "Helm"},
            "annotations": {"team": "a", "argocd.argoproj.io/tracking-id": "shop:x"},
        },
        "spec": {"vault": {"name": VAULT, "object": object}, "output": output},
    });
    serde_json::from_value(manifest).expect("a resource")
}

/// The number `index` of the Secrets that akv2k8s has written: its namespace, name, data, and the resources that it is for.
struct Written {
    namespace: String,
    name: String,
    data: Texts,
    resources: Vec<DynamicObject>,
}

impl Written {
    fn new(scene: &Scene, index: usize) -> Self {
        let version = VERSIONS[index / 4 % 4];
        let name = format!("s-{index}");
        let secret = |name: &str, key: &str| {
            resource(
                version,
                name,
                json!({"name": name, "type": "secret"}),
                json!({"secret": {"name": format!("s-{index}"), "dataKey": key}}),
            )
        };
        let (resources, data) = match index % 4 {
            1 => {
                let value = json!({"a": format!("a-{index}"), "b": "b"}).to_string();
                scene.set_secret(&name, &value);
                let object = json!({"name": name, "type": "multi-key-value-secret", "contentType": "application/x-json"});
                let multi = resource(version, &name, object, json!({"secret": {"name": name}}));
                (
                    vec![multi],
                    vec![("a", format!("a-{index}")), ("b", "b".into())],
                )
            }
            2 => {
                let output = json!({"secret": {"name": name, "type": "kubernetes.io/ssh-auth"}});
                scene.set_secret(&name, &format!("key-{index}"));
                let object = json!({"name": name, "type": "secret"});
                let ssh = resource(version, &name, object, output);
                (vec![ssh], vec![("ssh-privatekey", format!("key-{index}"))])
            }
            3 => {
                let more = format!("{name}-more");
                scene.set_secret(&name, &format!("value-{index}"));
                scene.set_secret(&more, "more");
                (
                    vec![secret(&name, "k"), secret(&more, "more")],
                    vec![("k", format!("value-{index}")), ("more", "more".into())],
                )
            }
            _ => {
                scene.set_secret(&name, &format!("value-{index}"));
                (
                    vec![secret(&name, "k")],
                    vec![("k", format!("value-{index}"))],
                )
            }
        };
        Self {
            namespace: scene.namespaces[index % NAMESPACES].clone(),
            name,
            data: data.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
            resources,
        }
    }

    /// Creates the resources, and then the Secret as akv2k8s does: by its controller's name, with their labels, their
    /// annotations and ownerReferences to them. Then it notes the MD5 in their status.
    async fn write(&self, scene: &Scene) {
        let mut owners = Vec::new();
        for resource in &self.resources {
            let version = resource.types.as_ref().expect("types").api_version.clone();
            let version = version.rsplit('/').next().expect("a version");
            let api = scene.resources(&self.namespace, version);
            let created = api.create(&PostParams::default(), resource).await;
            let created = created.expect("a resource");
            owners.push(json!({
                // That of akv2k8s' own code, whatever the manifest is written in.
                "apiVersion": "spv.no/v2beta1",
                "kind": "AzureKeyVaultSecret",
                "name": created.name_any(),
                "uid": created.uid(),
                "controller": false,
                "blockOwnerDeletion": true,
            }));
            let status = json!({"status": {
                "secretName": self.name,
                "secretHash": "0123456789abcdef0123456789abcdef",
                "lastAzureUpdate": "2026-01-01T00:00:00Z",
            }});
            let name = created.name_any();
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
                .await
                .expect("a status");
        }
        let first = &self.resources[0];
        let secret: Secret = serde_json::from_value(json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": self.name,
                "labels": first.labels(),
                "annotations": first.annotations(),
                "ownerReferences": owners,
            },
            "type": first.data["spec"]["output"]["secret"]["type"].as_str().unwrap_or("Opaque"),
            "stringData": self.data,
        }))
        .expect("a Secret");
        let theirs = PostParams {
            field_manager: Some(THEIRS.into()),
            ..PostParams::default()
        };
        let created = scene
            .secrets(&self.namespace)
            .create(&theirs, &secret)
            .await;
        created.expect("a Secret");
    }

    /// Whether all of its data is Keytide's, each key of one of its resources' mirrors, and nobody else's.
    fn is_taken_over(&self, secret: &Secret) -> Result<(), String> {
        let records = keytide::mirror::records(secret.annotations());
        let recorded: BTreeSet<&String> = records.values().flat_map(|r| r.keys.keys()).collect();
        let mut owned: BTreeSet<String> = BTreeSet::new();
        for entry in secret.managed_fields() {
            let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:data"]);
            let keys = fields.and_then(Value::as_object).into_iter().flatten();
            let keys = keys.filter_map(|(key, _)| key.strip_prefix("f:"));
            let manager = entry.manager.as_deref().unwrap_or_default();
            for key in keys {
                if !manager.starts_with("keytide/") {
                    return Err(format!("{key} is owned by {manager}"));
                }
                owned.insert(key.to_owned());
            }
        }
        let wanted: BTreeSet<&String> = self.data.keys().collect();
        if records.len() == self.resources.len()
            && recorded == wanted
            && owned.iter().collect::<BTreeSet<_>>() == wanted
        {
            Ok(())
        } else {
            Err(format!(
                "{} records, {recorded:?}, {owned:?}",
                records.len()
            ))
        }
    }
}

/// A Deployment that opted in, with a variable from a key of a Secret, which it may also do without.
async fn use_it(scene: &Scene, written: &Written, key: &str) {
    let reference = json!({"name": written.name, "key": key, "optional": true});
    let variable = json!({"name": "V", "valueFrom": {"secretKeyRef": reference}});
    let manifest = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": written.name, "annotations": {"keytide.dev/rotate": "true"}},
        "spec": {
            "selector": {"matchLabels": {"app": written.name}},
            "template": {
                "metadata": {"labels": {"app": written.name}},
                "spec": {"containers": [{"name": "main", "image": "none", "env": [variable]}]},
            },
        },
    });
    scene.apply(&written.namespace, &manifest).await;
}

async fn deployment(scene: &Scene, written: &Written) -> Deployment {
    let api: Api<Deployment> = Api::namespaced(scene.client.clone(), &written.namespace);
    let what = format!("{} is rolled out and has its baseline", written.name);
    eventually(SOON, &what, async || {
        let found = api.get(&written.name).await;
        let found = found.map_err(|error| error.to_string())?;
        let status = found.status.clone().unwrap_or_default();
        let done = status.observed_generation == found.metadata.generation
            && status.available_replicas == Some(1)
            && status.updated_replicas == Some(1)
            && status.replicas == Some(1);
        if done && found.annotations().contains_key("keytide.dev/baseline") {
            Ok(found)
        } else {
            Err(format!("{:?}, {status:?}", found.annotations()))
        }
    })
    .await
}

#[tokio::test]
async fn two_hundred_secrets_of_akv2k8s_are_taken_over_without_a_change_and_without_a_restart() {
    let scene = Scene::set(NAMESPACES).await;
    scene.define(&printed_definition()).await;
    let written: Vec<Written> = (0..SECRETS)
        .map(|index| Written::new(&scene, index))
        .collect();
    for some in written.chunks(20) {
        join_all(some.iter().map(|secret| secret.write(&scene))).await;
    }
    let used: Vec<(&Written, &str)> = written[..2 * NAMESPACES]
        .iter()
        .map(|secret| (secret, secret.data.keys().next().expect("a key").as_str()))
        .collect();
    for (secret, key) in &used {
        use_it(&scene, secret, key).await;
    }
    for (secret, _) in &used {
        let name = format!("deployment/{}", secret.name);
        let status = ["rollout", "status", &name, "--timeout=60s", "--namespace"];
        let arguments = [&status[..], &[&secret.namespace]].concat();
        scene.alone.testbed.kubectl(&arguments).await.ok();
    }
    let mut uids = BTreeMap::new();
    for secret in &written {
        let found = scene.secrets(&secret.namespace).get(&secret.name).await;
        let found = found.expect("a Secret");
        assert_eq!(texts(&found), secret.data);
        uids.insert(
            &secret.name,
            (found.uid(), found.owner_references().to_vec()),
        );
    }
    let record = scene.record();

    let mut daemon = scene.daemon().await;
    for secret in &written {
        let what = format!("{} is taken over", secret.name);
        eventually(SOON, &what, async || {
            let found = scene.secrets(&secret.namespace).get(&secret.name).await;
            let found = found.map_err(|error| error.to_string())?;
            secret.is_taken_over(&found)?;
            Ok(found)
        })
        .await;
    }
    for secret in &written {
        for resource in &secret.resources {
            let name = resource.name_any();
            let look = |status: &Value| {
                let hash = status["secretHash"].as_str()?;
                let ready = &status["conditions"][0];
                let told =
                    hash.len() == 43 && ready["type"] == "Ready" && ready["status"] == "True";
                told.then(|| status["lastAzureUpdate"].clone())
            };
            let updated = scene.status(&secret.namespace, &name, look).await;
            assert_eq!(updated, "2026-01-01T00:00:00Z", "nothing changed");
        }
        let found = scene.secrets(&secret.namespace).get(&secret.name).await;
        let found = found.expect("a Secret");
        let (uid, owners) = &uids[&secret.name];
        assert_eq!(&found.uid(), uid);
        let owner_uids = |owners: &[OwnerReference]| -> BTreeSet<String> {
            owners.iter().map(|owner| owner.uid.clone()).collect()
        };
        assert_eq!(owner_uids(found.owner_references()), owner_uids(owners));
        assert_eq!(found.labels().get("app").map(String::as_str), Some("shop"));
    }
    for (secret, _) in &used {
        let found = deployment(&scene, secret).await;
        assert_eq!(revision(&found), "1", "{} was restarted", secret.name);
    }
    for ((_, name), held) in record.lock().expect("not poisoned").iter() {
        assert_eq!(held.len(), 1, "Secret {name} had {held:?}");
    }

    // From here on they are as any other target.
    let [plain, multi, ssh, shared] = [&written[0], &written[1], &written[2], &written[3]];
    scene.set_secret(&multi.name, r#"{"a": "a-1"}"#);
    scene.change(&multi.namespace, &multi.name, json!({})).await;
    scene
        .has(&multi.namespace, &multi.name, &[("a", "a-1")])
        .await;
    let output = json!({"output": {"secret": {"dataKey": "renamed"}}});
    scene.change(&shared.namespace, &shared.name, output).await;
    let renamed = [("more", "more"), ("renamed", "value-3")];
    scene.has(&shared.namespace, &shared.name, &renamed).await;
    let more = format!("{}-more", shared.name);
    for (namespace, name) in [(&shared.namespace, &more), (&ssh.namespace, &ssh.name)] {
        let resources = scene.resources(namespace, "v2beta1");
        let deleted = resources.delete(name, &DeleteParams::default()).await;
        deleted.expect("deleted");
    }
    scene
        .has(&shared.namespace, &shared.name, &renamed[1..])
        .await;
    eventually(
        SOON,
        "the Secret goes with its last resource",
        async || match scene.secrets(&ssh.namespace).get_opt(&ssh.name).await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|it| it.map(|it| it.name_any())))),
        },
    )
    .await;
    scene.set_secret(&plain.name, "rotated");
    scene.change(&plain.namespace, &plain.name, json!({})).await;
    scene
        .has(&plain.namespace, &plain.name, &[("k", "rotated")])
        .await;
    eventually(SOON, "the workload is rolled", async || {
        match revision(&deployment(&scene, plain).await).as_str() {
            "2" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;

    // akv2k8s' controller that still runs writes as it always does.
    let theirs = PostParams {
        field_manager: Some(THEIRS.into()),
        ..PostParams::default()
    };
    let mut secret = scene
        .has(&plain.namespace, &plain.name, &[("k", "rotated")])
        .await;
    let resource = &plain.resources[0];
    secret.metadata.labels = Some(resource.labels().clone());
    secret.metadata.annotations = Some(resource.annotations().clone());
    let secrets = scene.secrets(&plain.namespace);
    secrets
        .replace(&plain.name, &theirs, &secret)
        .await
        .expect("replaced");
    let status = json!({"status": {"secretHash": "fedcba9876543210fedcba9876543210"}});
    let resources = scene.resources(&plain.namespace, "v2beta1");
    let (params, patch) = (PatchParams::default(), Patch::Merge(&status));
    let told = resources.patch_status(&plain.name, &params, &patch).await;
    told.expect("a status");
    eventually(SOON, "akv2k8s is noticed", async || {
        let (_, metrics) = daemon.get("/metrics").await.map_err(|e| e.to_string())?;
        if metrics.contains("keytide_akv2k8s_overwrites_total 1") {
            Ok(())
        } else {
            Err(metrics)
        }
    })
    .await;
    eventually(SOON, "the record is on the Secret again", async || {
        let found = secrets.get(&plain.name).await.map_err(|e| e.to_string())?;
        plain.is_taken_over(&found)
    })
    .await;
    let hash = resources.get(&plain.name).await.expect("it").data["status"]["secretHash"].clone();
    assert_eq!(hash, status["status"]["secretHash"], "nobody fights");
    assert_eq!(revision(&deployment(&scene, plain).await), "2");
    assert_eq!(daemon.terminate().await.expect("ended"), 0);
}

#[tokio::test]
async fn a_definition_that_comes_later_and_has_no_status_apart_is_read_too() {
    let scene = Scene::set(1).await;
    let namespace = scene.namespaces[0].clone();
    let mut daemon = scene.daemon().await;
    let definition = definition(
        "spv.no",
        "AzureKeyVaultSecret",
        "azurekeyvaultsecrets",
        &["v2beta1", "v1"],
    );
    scene.define(&definition.to_string()).await;
    scene.set_secret("s", "value");
    let resources = scene.resources(&namespace, "v2beta1");
    let create = async |name: &str, output: Value| {
        let object = json!({"name": "s", "type": "secret"});
        let created = resource("v2beta1", name, object, output);
        let created = resources.create(&PostParams::default(), &created).await;
        created.expect("a resource");
    };
    create("good", json!({"secret": {"name": "good", "dataKey": "k"}})).await;
    create("injected", Value::Null).await;
    let rot13 = json!({"secret": {"name": "bad", "dataKey": "k"}, "transform": ["rot13"]});
    create("bad", rot13).await;

    let both = json!({
        "secret": {"name": "both", "dataKey": "k"},
        "configMap": {"name": "both", "dataKey": "k"},
    });
    create("both", both).await;

    let secret = scene.has(&namespace, "good", &[("k", "value")]).await;
    let owner = &secret.owner_references()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.name.as_str(), owner.controller),
        ("AzureKeyVaultSecret", "good", Some(false))
    );
    assert_eq!(
        secret.annotations().get("team").map(String::as_str),
        Some("a")
    );
    assert_eq!(secret.labels().get("app.kubernetes.io/managed-by"), None);
    let name = scene
        .status(&namespace, "good", |status| {
            status["lastAzureUpdate"].as_str()?;
            status["secretName"].as_str().map(str::to_owned)
        })
        .await;
    assert_eq!(name, "good");
    scene.has(&namespace, "both", &[("k", "value")]).await;
    let maps: Api<ConfigMap> = Api::namespaced(scene.client.clone(), &namespace);
    let map = scene
        .status(&namespace, "both", |status| {
            status["secretName"].as_str()?;
            status["configMapName"].as_str().map(str::to_owned)
        })
        .await;
    let map = maps.get(&map).await.expect("a ConfigMap");
    assert_eq!(
        map.data
            .iter()
            .flatten()
            .next()
            .map(|(_, value)| value.as_str()),
        Some("value")
    );
    assert_eq!(map.owner_references().len(), 1);
    // What a resource no longer wants goes, though its owner stays.
    let output = json!({"output": {"configMap": null}});
    scene.change(&namespace, "both", output).await;
    eventually(SOON, "the ConfigMap is gone", async || {
        match maps.get_opt("both").await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|it| it.map(|it| it.name_any())))),
        }
    })
    .await;
    scene.has(&namespace, "both", &[("k", "value")]).await;
    let reason = scene
        .status(&namespace, "bad", |status| {
            let ready = &status["conditions"][0];
            ready["reason"].as_str().map(str::to_owned)
        })
        .await;
    assert_eq!(reason, "InvalidSpec");
    let told = Command::new(KEYTIDE)
        .args([
            "status",
            "--akv2k8s",
            "--output",
            "json",
            "--namespace",
            &namespace,
        ])
        .env("KUBECONFIG", scene.alone.testbed.kubeconfig())
        .output()
        .expect("keytide runs");
    let rows: Vec<Value> = serde_json::from_slice(&told.stdout).expect("JSON");
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or("-").to_owned();
    let rows: Vec<String> = rows
        .iter()
        .map(|row| {
            ["kind", "name", "state"]
                .map(|field| text(row, field))
                .join(" ")
        })
        .collect();
    assert_eq!(
        rows,
        [
            "AzureKeyVaultSecret bad held",
            "AzureKeyVaultSecret both current",
            "AzureKeyVaultSecret good current",
        ]
    );
    eventually(SOON, "what has no output is counted", async || {
        let (_, metrics) = daemon.get("/metrics").await.map_err(|e| e.to_string())?;
        if metrics.contains("keytide_akv2k8s_without_output 1") {
            Ok(())
        } else {
            Err(metrics)
        }
    })
    .await;
    assert!(
        scene
            .secrets(&namespace)
            .get_opt("injected")
            .await
            .expect("asked")
            .is_none()
    );

    // A status that is not apart counts as a change of the resource, which must not lead to another one.
    let version = async |name: &str| resources.get(name).await.expect("it").resource_version();
    let before = (version("good").await, secret.resource_version());
    create(
        "later",
        json!({"secret": {"name": "later", "dataKey": "k"}}),
    )
    .await;
    scene.has(&namespace, "later", &[("k", "value")]).await;
    let after = scene.secrets(&namespace).get("good").await.expect("it");
    assert_eq!((version("good").await, after.resource_version()), before);
    assert_eq!(daemon.terminate().await.expect("ended"), 0);
    let testbed = scene.alone.testbed;
    testbed
        .kubectl(&["delete", "--timeout=60s", CRD])
        .await
        .ok();
}
