//! Mistakes that were found by using Keytide, and must not come back.

use std::process::Command;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::fixture::{Fixture, KEYTIDE, QUICK, SOON, revision};
use crate::testbed::system::{CHART, RELEASE};
use crate::testbed::{eventually, shared};

#[tokio::test]
async fn a_deployment_whose_pods_got_unready_is_rolled_for_what_may_be_their_cure() {
    let fixture = Fixture::new("unready").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "revoked");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture
        .apply(&fixture.deployment("d", Some("true"), "t", "k"))
        .await;
    fixture.settled("d", "t", "k").await;

    let pods: Api<Pod> = Api::namespaced(fixture.client.clone(), &fixture.namespace);
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    for pod in pods.list(&ListParams::default()).await.expect("Pods") {
        let patch = Patch::Strategic(&unready);
        pods.patch_status(&pod.name_any(), &PatchParams::default(), &patch)
            .await
            .expect("unready");
    }
    eventually(SOON, "no replica is available", async || {
        let status = fixture.deployments().get("d").await.map(|d| d.status);
        let status = status.map_err(|error| error.to_string())?;
        let available = status.and_then(|status| status.available_replicas);
        available.map_or(Ok(()), |available| Err(format!("{available} are")))
    })
    .await;

    fixture.set("s", "new");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "k", b"new").await;
    assert_eq!(revision(&fixture.settled("d", "t", "k").await), "2");
}

/// Waits until the Secret has these keys and no others, and is still the same one.
async fn only_has(fixture: &Fixture, secret: &Secret, keys: &[&str]) {
    let name = secret.name_any();
    eventually(SOON, &format!("{name} has only {keys:?}"), async || {
        let now = fixture.secrets().get_opt(&name).await;
        let Some(now) = now.map_err(|error| error.to_string())? else {
            return Err("it is gone".to_owned());
        };
        assert_eq!(now.uid(), secret.uid(), "it was deleted and made anew");
        let data = now.data.unwrap_or_default();
        if data.keys().eq(keys) {
            Ok(())
        } else {
            Err(format!("it has {:?}", data.keys()))
        }
    })
    .await;
}

async fn owners_of(fixture: &Fixture, secret: &str) -> usize {
    let secret = fixture.secrets().get(secret).await.expect("the Secret");
    secret.owner_references().len()
}

#[tokio::test]
async fn what_a_mirror_with_retain_put_into_a_shared_target_stays_when_the_other_goes() {
    let fixture = Fixture::new("retained").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    fixture
        .apply(&fixture.mirror("goes", "t", &[("goes", "s")]))
        .await;
    fixture.secret_has("t", "goes", b"v").await;
    assert_eq!(owners_of(&fixture, "t").await, 1);
    let mut mirror = fixture.mirror("stays", "t", &[("stays", "s")]);
    mirror["spec"]["deletionPolicy"] = json!("Retain");
    fixture.apply(&mirror).await;
    let secret = fixture.secret_has("t", "stays", b"v").await;
    assert!(secret.owner_references().is_empty());

    for name in ["goes", "stays"] {
        fixture.reason(name, "Mirrored").await;
        let delete = DeleteParams::default();
        fixture.mirrors().delete(name, &delete).await.expect(name);
        only_has(&fixture, &secret, &["stays"]).await;
    }
}

#[tokio::test]
async fn a_key_that_somebody_added_stays_when_the_mirror_goes() {
    let fixture = Fixture::new("added").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    let secret = fixture.secret_has("t", "k", b"v").await;
    let more = json!({"stringData": {"theirs": "own"}});
    fixture
        .secrets()
        .patch("t", &PatchParams::default(), &Patch::Merge(&more))
        .await
        .expect("edited");
    eventually(SOON, "the Secret has no owner", async || {
        match owners_of(&fixture, "t").await {
            0 => Ok(()),
            owners => Err(format!("it has {owners}")),
        }
    })
    .await;
    let delete = DeleteParams::default();
    fixture.mirrors().delete("m", &delete).await.expect("m");
    only_has(&fixture, &secret, &["theirs"]).await;
}

#[tokio::test]
async fn another_type_is_said_until_the_secret_is_deleted() {
    let fixture = Fixture::new("type").await;
    let _daemon = fixture.daemon().await;
    fixture.set("s", "v");
    let mut mirror = fixture.mirror("m", "t", &[("username", "s")]);
    fixture.apply(&mirror).await;
    fixture.secret_has("t", "username", b"v").await;
    mirror["spec"]["target"]["type"] = json!("kubernetes.io/basic-auth");
    fixture.apply(&mirror).await;
    let message = fixture.reason("m", "TargetConflict").await;
    assert!(message.contains("delete the Secret"), "{message}");

    let delete = DeleteParams::default();
    fixture.secrets().delete("t", &delete).await.expect("t");
    fixture.reason("m", "Mirrored").await;
    let anew = fixture.secret_has("t", "username", b"v").await;
    assert_eq!(anew.type_.as_deref(), Some("kubernetes.io/basic-auth"));
}

#[tokio::test]
async fn the_chart_refuses_a_tenant_without_an_identity() {
    let testbed = shared().await;
    let mut vault = json!({
        "namespaces": ["a"],
        "objects": [{"kind": "secret", "name": "x"}],
        "tenantId": "contoso.onmicrosoft.com",
    });
    let values = format!("vaults.contoso={vault}");
    let refused = testbed
        .helm(&["template", RELEASE, CHART, "--set-json", &values])
        .await;
    assert!(!refused.success, "{values} was taken");
    let sentence = "vaults.contoso.tenantId is set without clientId: write the client ID";
    assert!(refused.stderr.contains(sentence), "{}", refused.stderr);

    vault["clientId"] = json!("01234567-89ab-cdef-0123-456789abcdef");
    let values = format!("vaults.contoso={vault}");
    let rendered = testbed
        .helm(&["template", RELEASE, CHART, "--set-json", &values])
        .await
        .ok();
    assert!(rendered.contains(r#"tenantId: "contoso.onmicrosoft.com""#));
}

#[tokio::test]
async fn the_list_of_grants_has_every_vault() {
    let fixture = Fixture::without_grant("columns").await;
    let host = fixture.host();
    for (end, vault) in [
        ("name", json!({"name": fixture.vault})),
        ("url", json!({"url": format!("https://{host}")})),
    ] {
        let name = format!("{}-{end}", fixture.namespace);
        let grant = json!({
            "apiVersion": "keytide.dev/v1alpha1",
            "kind": "KeyVaultGrant",
            "metadata": {"name": name},
            "spec": {"vault": vault, "namespaces": ["none"], "objects": [{"kind": "secret", "name": "*"}]},
        });
        fixture.apply(&grant).await;
        let get = ["get", "keyvaultgrant", &name, "--no-headers"];
        let listed = fixture.testbed.kubectl(&get).await.ok();
        assert!(listed.contains(&fixture.vault), "{listed}");
    }
}

#[tokio::test]
async fn a_line_of_json_has_no_key_twice() {
    let fixture = Fixture::new("json").await;
    let mut daemon = fixture.daemon_alone().await;
    assert_eq!(daemon.terminate().await.expect("ended"), 0);
    let log = fixture.testbed.log_file("keytide-json.log");
    let json = [&QUICK[..], &["--log-format", "json"]].concat();
    *daemon = fixture
        .system()
        .daemon(&log, &json, &[])
        .await
        .expect("a daemon");
    fixture.set("s", "v");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture.reason("m", "Mirrored").await;
    let lines = std::fs::read_to_string(&log).expect("a log");
    let written = lines.lines().find(|line| line.contains("Secret written"));
    let written = written.expect("a line about the Secret");
    assert!(written.contains(r#""mirror":"m""#), "{written}");
    for object in written.split('{') {
        assert!(object.matches(r#""name":"#).count() <= 1, "{written}");
    }
}

#[test]
fn a_log_that_is_no_terminal_has_no_colours() {
    let output = Command::new(KEYTIDE)
        .args(["run", "--listen", "127.0.0.1:0", "--log-format", "text"])
        .env("KUBECONFIG", "/no/such/file")
        .output()
        .expect("keytide runs");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(log.contains("keytide starts"), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");
}
