//! Targets that are ConfigMaps.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::fixture::{Fixture, SOON, revision};
use crate::status::status;
use crate::testbed::eventually;

const EC: &str = include_str!("../../src/render/testdata/ec.crt");
const EC_KEY: &str = include_str!("../../src/render/testdata/ec.key");
const RSA: &str = include_str!("../../src/render/testdata/rsa.crt");
const RSA_KEY: &str = include_str!("../../src/render/testdata/rsa.key");

/// A mirror of secrets into a ConfigMap.
fn mirror(fixture: &Fixture, name: &str, target: &str, data: &[(&str, &str)]) -> Value {
    let mut mirror = fixture.mirror(name, target, data);
    mirror["spec"]["target"]["kind"] = json!("ConfigMap");
    mirror
}

/// Lets the namespace mirror everything, and these objects into ConfigMaps.
async fn allow(fixture: &Fixture, config_maps: &[&str]) {
    let mut grant = fixture.grant_of(&fixture.namespace, "*");
    let kinds = ["secret", "certificate", "key"];
    grant["spec"]["objects"] = kinds.map(|kind| json!({"kind": kind, "name": "*"})).into();
    if !config_maps.is_empty() {
        grant["spec"]["allowConfigMap"] = json!(config_maps);
    }
    fixture.apply(&grant).await;
}

/// Waits until a key of a ConfigMap has this text, and gives the ConfigMap.
async fn has(fixture: &Fixture, name: &str, key: &str, value: &str) -> ConfigMap {
    let what = format!("ConfigMap {name} has the wanted {key}");
    eventually(SOON, &what, async || {
        let found = fixture.config_maps().get(name).await;
        let found = found.map_err(|error| error.to_string())?;
        let content = found.data.as_ref().and_then(|data| data.get(key));
        match content {
            Some(content) if content == value => Ok(found),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

async fn is_gone(fixture: &Fixture, name: &str) {
    let what = format!("ConfigMap {name} is gone");
    eventually(SOON, &what, async || {
        match fixture.config_maps().get_opt(name).await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|it| it.map(|it| it.name_any())))),
        }
    })
    .await;
}

#[tokio::test]
async fn the_public_part_of_a_certificate_goes_into_a_config_map() {
    let fixture = Fixture::without_grant("map-public").await;
    let _daemon = fixture.daemon().await;
    allow(&fixture, &[]).await;
    let import = |certificate: &str, key: &str| {
        let azure = fixture.azure();
        azure
            .import_certificate(&fixture.vault, "web", &[certificate, key].concat())
            .expect("imported");
    };
    import(EC, EC_KEY);
    let mut manifest = mirror(&fixture, "m", "web", &[]);
    manifest["spec"]["data"] = json!([
        {"key": "web.crt", "object": {"kind": "certificate", "name": "web"}},
        {"key": "web.pem", "object": {"kind": "key", "name": "web"}},
    ]);
    fixture.apply(&manifest).await;
    let map = has(&fixture, "web", "web.crt", EC).await;
    let data = map.data.clone().unwrap_or_default();
    assert!(data["web.pem"].starts_with("-----BEGIN PUBLIC KEY-----"));
    assert_eq!(map.binary_data, None);
    assert_eq!(map.labels()["keytide.dev/mirrored"], "true");
    assert_eq!(map.owner_references()[0].kind, "KeyVaultMirror");
    let message = fixture.reason("m", "Mirrored").await;
    assert_eq!(message, "2 keys are in the ConfigMap as in the vault");
    let status = fixture.mirrors().get("m").await.expect("m").status;
    let target = status.and_then(|status| status.target).expect("a target");
    assert_eq!((&*target.kind, &*target.name), ("ConfigMap", "web"));

    // It is followed, and drift is repaired, as of a Secret.
    import(RSA, RSA_KEY);
    has(&fixture, "web", "web.crt", RSA).await;
    let requests = fixture.azure().requests();
    assert!(
        !requests.secret_gets.contains_key(&fixture.host()),
        "nothing is read as a secret: {requests:?}"
    );
    let wrong = json!({"data": {"web.crt": "wrong", "own": "theirs"}});
    let (config_maps, how) = (fixture.config_maps(), PatchParams::default());
    let edited = config_maps.patch("web", &how, &Patch::Merge(&wrong)).await;
    edited.expect("edited");
    let repaired = has(&fixture, "web", "web.crt", RSA).await;
    assert_eq!(repaired.data.unwrap_or_default()["own"], "theirs");
    let delete = DeleteParams::default();
    fixture
        .config_maps()
        .delete("web", &delete)
        .await
        .expect("deleted");
    let anew = has(&fixture, "web", "web.crt", RSA).await;
    assert_ne!(anew.uid(), map.uid());

    // Its private key does not go there.
    manifest["spec"]["data"] = json!([]);
    manifest["spec"]["dataFrom"] = json!([{"certificate": {"name": "web"}}]);
    fixture.apply(&manifest).await;
    let message = fixture.reason("m", "ConfigMapNotAllowed").await;
    assert!(message.contains("with its private key"), "{message}");
    let kept = fixture.config_maps().get("web").await.expect("kept");
    assert!(!kept.data.unwrap_or_default().contains_key("tls.key"));
}

#[tokio::test]
async fn the_value_of_a_secret_goes_into_a_config_map_only_where_the_grant_says_so() {
    let fixture = Fixture::without_grant("map-allowed").await;
    let _daemon = fixture.daemon().await;
    allow(&fixture, &[]).await;
    fixture.set("flags", "on");
    fixture.set("flags-binary", "/wD+");
    let mut manifest = mirror(
        &fixture,
        "m",
        "t",
        &[("text", "flags"), ("bytes", "flags-binary")],
    );
    manifest["spec"]["data"][1]["transforms"] = json!(["base64Decode"]);
    fixture.apply(&manifest).await;
    let message = fixture.reason("m", "ConfigMapNotAllowed").await;
    assert!(message.contains("spec.allowConfigMap"), "{message}");
    assert!(
        fixture
            .config_maps()
            .get_opt("t")
            .await
            .expect("asked")
            .is_none()
    );
    let reads = fixture.azure().requests().gets_of(&fixture.host(), "flags");
    assert_eq!(reads, 0, "what may not be written is not read");

    allow(&fixture, &["flags*"]).await;
    let map = has(&fixture, "t", "text", "on").await;
    let bytes = map.binary_data.unwrap_or_default();
    assert_eq!(bytes["bytes"].0, [0xff, 0x00, 0xfe]);
    fixture.reason("m", "Mirrored").await;
    // What was bytes may be text later.
    fixture.set("flags-binary", "b24=");
    fixture.sync_now("m").await;
    let map = has(&fixture, "t", "bytes", "on").await;
    assert_eq!(map.binary_data, None);

    // Losing the permission stops reads, and takes nothing away.
    allow(&fixture, &["other"]).await;
    fixture.reason("m", "ConfigMapNotAllowed").await;
    has(&fixture, "t", "text", "on").await;
}

#[tokio::test]
async fn a_target_that_becomes_another_kind_is_another_target() {
    let fixture = Fixture::without_grant("map-kind").await;
    let _daemon = fixture.daemon().await;
    allow(&fixture, &["*"]).await;
    fixture.set("s", "v");
    let data = [("k", "s")];
    fixture.apply(&mirror(&fixture, "m", "t", &data)).await;
    has(&fixture, "t", "k", "v").await;
    let mut secret = fixture.mirror("m", "t", &data);
    secret["spec"]["target"]["kind"] = json!("Secret");
    fixture.apply(&secret).await;
    fixture.secret_has("t", "k", b"v").await;
    is_gone(&fixture, "t").await;
    fixture.reason("m", "Mirrored").await;

    // And back; then the mirror goes, and its target with it.
    fixture.apply(&mirror(&fixture, "m", "t", &data)).await;
    has(&fixture, "t", "k", "v").await;
    eventually(SOON, "the Secret is gone", async || {
        match fixture.secrets().get_opt("t").await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|it| it.map(|it| it.name_any())))),
        }
    })
    .await;
    let delete = DeleteParams::default();
    fixture
        .mirrors()
        .delete("m", &delete)
        .await
        .expect("deleted");
    is_gone(&fixture, "t").await;
}

#[tokio::test]
async fn a_config_map_of_somebody_else_is_taken_over_with_consent_and_not_without() {
    let fixture = Fixture::without_grant("map-adopt").await;
    let _daemon = fixture.daemon().await;
    allow(&fixture, &["*"]).await;
    fixture.set("s", "v");
    let theirs = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "t"},
        "data": {"kept": "v", "dropped": "v", "own": "theirs"}, "binaryData": {"bytes": "/w=="},
    });
    fixture.apply(&theirs).await;
    let both = [("kept", "s"), ("dropped", "s")];
    fixture.apply(&mirror(&fixture, "m", "t", &both)).await;
    let message = fixture.reason("m", "TargetConflict").await;
    let command = "kubectl annotate configmap t keytide.dev/adopt-by=m";
    assert!(message.ends_with(command), "{message}");
    let typed = format!("{command} --namespace {}", fixture.namespace);
    fixture.testbed.bash(&typed).await.ok();
    fixture.reason("m", "Mirrored").await;
    fixture.apply(&mirror(&fixture, "m", "t", &both[..1])).await;
    eventually(SOON, "the dropped key is gone", async || {
        let found = fixture.config_maps().get("t").await;
        let found = found.map_err(|error| error.to_string())?;
        let data = found.data.unwrap_or_default();
        let keys: Vec<&str> = data.keys().map(String::as_str).collect();
        if keys == ["kept", "own"] && found.binary_data.is_some() {
            Ok(())
        } else {
            Err(format!("{keys:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn workloads_are_rolled_for_a_config_map_that_a_mirror_fills() {
    let fixture = Fixture::without_grant("map-rotate").await;
    let _daemon = fixture.daemon().await;
    allow(&fixture, &["of-map"]).await;
    for secret in ["of-map", "of-secret"] {
        fixture.set(secret, "first");
    }
    // A Secret and a ConfigMap of one name.
    fixture
        .apply(&mirror(&fixture, "map", "t", &[("k", "of-map")]))
        .await;
    fixture
        .apply(&fixture.mirror("secret", "t", &[("k", "of-secret")]))
        .await;
    let by_map = |name: &str, rotate: &str| {
        let mut deployment = fixture.deployment(name, Some(rotate), "t", "k");
        let variable = json!({
            "name": "FLAG",
            "valueFrom": {"configMapKeyRef": {"name": "t", "key": "k"}},
        });
        deployment["spec"]["template"]["spec"]["containers"][0]["env"] = json!([variable]);
        deployment
    };
    fixture.apply(&by_map("by-map", "true")).await;
    fixture.apply(&by_map("by-name", "configmap/t")).await;
    fixture
        .apply(&fixture.deployment("by-secret", Some("true"), "t", "k"))
        .await;
    let settled = async |name: &str, value: &str| -> Deployment {
        has(&fixture, "t", "k", value).await;
        eventually(SOON, &format!("{name} has {value}"), async || {
            let error = |error: kube::Error| error.to_string();
            let found = fixture.deployments().get(name).await.map_err(error)?;
            let map = fixture.config_maps().get("t").await.map_err(error)?;
            let records = keytide::mirror::records(map.annotations());
            let record = records.values().next().ok_or("no record")?;
            let digest = &record.keys["k"].digest;
            let baseline = found.annotations().get("keytide.dev/baseline");
            let entry = format!(r#""configmap/t/k":"{digest}""#);
            let status = found.status.clone().unwrap_or_default();
            let done = status.observed_generation == found.metadata.generation
                && status.updated_replicas == Some(2);
            match baseline {
                Some(baseline) if baseline.contains(&entry) && done => Ok(found),
                other => Err(format!("{other:?}, and wanted is {entry}; {status:?}")),
            }
        })
        .await
    };
    for name in ["by-map", "by-name"] {
        assert_eq!(revision(&settled(name, "first").await), "1", "{name}");
    }
    let bystander = fixture.settled("by-secret", "t", "k").await;
    assert_eq!(revision(&bystander), "1");

    fixture.set("of-map", "second");
    fixture.sync_now("map").await;
    for name in ["by-map", "by-name"] {
        assert_eq!(revision(&settled(name, "second").await), "2", "{name}");
    }
    let note = fixture.event("by-map", "RotationStarted").await;
    assert!(note.contains("key k of ConfigMap t"), "{note}");
    let bystander = fixture.settled("by-secret", "t", "k").await;
    assert_eq!(revision(&bystander), "1", "the Secret has not changed");

    // And `keytide status` knows which one waits.
    let pause = Patch::Merge(json!({"spec": {"paused": true}}));
    let params = PatchParams::default();
    let paused = fixture.deployments().patch("by-map", &params, &pause).await;
    paused.expect("paused");
    fixture.set("of-map", "third");
    fixture.sync_now("map").await;
    has(&fixture, "t", "k", "third").await;
    eventually(SOON, "by-map is said to wait", async || {
        let said = status(&fixture, &["--output", "json"]).await;
        let rows: Vec<Value> = serde_json::from_str(&said).map_err(|error| error.to_string())?;
        let row = rows.iter().find(|row| row["name"] == "by-map");
        match row {
            Some(row) if row["state"] == "waiting" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}
