//! As whom the daemon reads, and what it says when it gets no token. Each test has a daemon of its own.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keytide::api::KeyVaultMirror;
use keytide::devvault::{ENTRA_HOST, Fault, IMDS_HOST, Operation};
use kube::Client;
use kube::api::Api;
use serde_json::{Value, json};

use crate::alone::{Alone, alone};
use crate::fixture::{KEYTIDE, SOON};
use crate::testbed::daemon::Daemon;
use crate::testbed::eventually;
use crate::testbed::system::System;

const APP: &str = "11111111-1111-4111-8111-111111111111";
const SYSTEM: &str = "22222222-2222-4222-8222-222222222222";
const TENANT: &str = "99999999-9999-4999-8999-999999999999";
/// The vaults are each open to one identity, so that a value tells who read it.
const SEED: &str = r#"
identities:
  - clientId: 11111111-1111-4111-8111-111111111111
    tenantId: 99999999-9999-4999-8999-999999999999
    clientSecret: a-client-secret
    federated: [{subject: "system:serviceaccount:keytide:keytide"}]
  - clientId: 22222222-2222-4222-8222-222222222222
    tenantId: 99999999-9999-4999-8999-999999999999
    system: true
  - clientId: 44444444-4444-4444-8444-444444444444
    tenantId: 99999999-9999-4999-8999-999999999999
    federated: [{subject: "system:serviceaccount:TEAM:mirror"}]
vaults:
  for-team: {access: [44444444-4444-4444-8444-444444444444], secrets: {s: of the team}}
  for-app: {access: [11111111-1111-4111-8111-111111111111], secrets: {s: of the app}}
  for-system: {access: [22222222-2222-4222-8222-222222222222], secrets: {s: of the system}}
  elsewhere.vault.azure.cn: {secrets: {s: of another cloud}}
"#;

/// The daemon of a test, and one namespace with a mirror of secret `s`.
struct Scene {
    alone: Alone,
    system: System,
    client: Client,
    namespace: String,
}

impl Scene {
    /// `identity` is that of the grant.
    async fn set(vault: &str, identity: Value) -> Self {
        Self::with_values(vault, identity, &[]).await
    }

    /// The same with values of the chart.
    async fn with_values(vault: &str, identity: Value, values: &[&str]) -> Self {
        let alone = alone().await;
        let namespace = alone.testbed.namespace("identity").await;
        let seed = SEED.replace("TEAM", &namespace);
        let system = System::start(alone.testbed, Path::new(KEYTIDE), &seed, values)
            .await
            .expect("a system");
        let client = alone.testbed.client().await;
        let scene = Self {
            alone,
            system,
            client,
            namespace,
        };
        let spec = json!({
            "vault": {"name": vault},
            "identity": identity,
            "namespaces": [scene.namespace],
            "objects": [{"kind": "secret", "name": "*"}],
        });
        scene.apply("KeyVaultGrant", &scene.namespace, spec).await;
        let spec = json!({
            "vault": {"name": vault},
            "refreshInterval": "10s",
            "data": [{"key": "k", "object": {"name": "s"}}],
            "target": {"name": "t"},
        });
        scene.apply("KeyVaultMirror", "m", spec).await;
        scene
    }

    async fn apply(&self, kind: &str, name: &str, spec: Value) {
        let manifest = json!({
            "apiVersion": "keytide.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
        });
        self.alone
            .testbed
            .apply(&self.namespace, &manifest.to_string())
            .await
            .ok();
    }

    async fn daemon(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Daemon {
        let log = self.alone.testbed.log_file("keytide-identity.log");
        let daemon = self.system.daemon(&log, arguments, environment).await;
        daemon.expect("a daemon")
    }

    async fn has(&self, value: &str) {
        let secrets: Api<k8s_openapi::api::core::v1::Secret> =
            Api::namespaced(self.client.clone(), &self.namespace);
        let what = format!("the target has the secret {value}");
        eventually(SOON, &what, async || {
            let secret = secrets.get("t").await.map_err(|error| error.to_string());
            let secret = match secret {
                Ok(secret) => secret,
                Err(error) => return Err(format!("{error}; {:?}", self.ready().await)),
            };
            let content = secret.data.and_then(|mut data| data.remove("k"));
            match content {
                Some(content) if content.0 == value.as_bytes() => Ok(()),
                other => Err(format!("{other:?}; {:?}", self.ready().await)),
            }
        })
        .await;
    }

    /// Reason and message of the mirror's Ready.
    async fn ready(&self) -> Option<(String, String)> {
        let mirrors: Api<KeyVaultMirror> = Api::namespaced(self.client.clone(), &self.namespace);
        let conditions = mirrors.get("m").await.ok()?.status?.conditions;
        let ready = conditions.into_iter().find(|c| c.type_ == "Ready")?;
        Some((ready.reason, ready.message))
    }

    async fn says(&self, reason: &str, words: &[&str]) {
        eventually(
            SOON,
            &format!("the mirror says {reason}"),
            async || match self.ready().await {
                Some((said, message))
                    if said == reason && words.iter().all(|word| message.contains(word)) =>
                {
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            },
        )
        .await;
    }

    async fn resource_version(&self) -> Option<String> {
        let mirrors: Api<KeyVaultMirror> = Api::namespaced(self.client.clone(), &self.namespace);
        mirrors
            .get("m")
            .await
            .expect("the mirror")
            .metadata
            .resource_version
    }

    /// Waits for so many more token requests to a host.
    async fn token_requests(&self, host: &str, count: u64) {
        let asked = || self.system.vault().requests().count(host, Operation::Token);
        let before = asked();
        eventually(SOON, "more token requests", async || {
            let more = asked() - before;
            if more >= count {
                Ok(())
            } else {
                Err(format!("{more}"))
            }
        })
        .await;
    }
}

/// A token as the kubelet puts one into the Pod of a ServiceAccount.
fn federated_token(scene: &Scene, subject: &str) -> String {
    let claims = json!({
        "iss": "https://issuer.example",
        "sub": subject,
        "aud": ["api://AzureADTokenExchange"],
        "exp": jiff::Timestamp::now().as_second() + 3600,
    });
    let claims = URL_SAFE_NO_PAD.encode(claims.to_string());
    let file = scene
        .alone
        .testbed
        .folder("token")
        .join("azure-identity-token");
    std::fs::write(&file, format!("e30.{claims}.c2lnbmF0dXJl")).expect("written");
    file.display().to_string()
}

#[tokio::test]
async fn the_system_assigned_identity_and_lines_of_json() {
    let scene = Scene::set("for-system", Value::Null).await;
    let daemon = scene.daemon(&["--log-format", "json"], &[]).await;
    scene.has("of the system").await;
    scene.says("Mirrored", &[]).await;

    let log = daemon.log();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let written = lines
        .iter()
        .find(|line| line["fields"]["message"] == "Secret written")
        .expect("a line that tells of the write");
    assert_eq!(written["level"], "INFO");
    assert_eq!(written["span"]["name"], "mirror");
    assert_eq!(written["span"]["namespace"], json!(scene.namespace));
    assert_eq!(written["span"]["mirror"], "m");

    // The cluster is not behind the proxy.
    let requests = scene.system.vault().requests();
    assert!(requests.count(IMDS_HOST, Operation::Token) > 0);
    assert_eq!(requests.refused_connects, Default::default());
    let hosts: Vec<&String> = requests.connects.keys().collect();
    assert_eq!(hosts, ["for-system.vault.azure.net"]);
}

#[tokio::test]
async fn a_user_assigned_identity_of_the_daemon() {
    let scene = Scene::set("for-app", Value::Null).await;
    let _daemon = scene.daemon(&[], &[("AZURE_CLIENT_ID", APP)]).await;
    scene.has("of the app").await;
}

#[tokio::test]
async fn a_user_assigned_identity_of_the_grant() {
    let scene = Scene::set("for-app", json!({"clientId": APP})).await;
    let _daemon = scene.daemon(&[], &[("AZURE_CLIENT_ID", SYSTEM)]).await;
    scene.has("of the app").await;
}

#[tokio::test]
async fn workload_identity_by_a_federated_token() {
    let scene = Scene::set("for-app", Value::Null).await;
    let right = federated_token(&scene, "system:serviceaccount:keytide:keytide");
    let wrong = federated_token(&scene, "system:serviceaccount:keytide:other");
    let with = |file| {
        [
            ("AZURE_CLIENT_ID", APP),
            ("AZURE_TENANT_ID", TENANT),
            ("AZURE_FEDERATED_TOKEN_FILE", file),
        ]
    };
    let daemon = scene.daemon(&[], &with(&wrong)).await;
    let words = [
        "AADSTS700213",
        "federated credential for the daemon's ServiceAccount",
    ];
    scene.says("BadCredentials", &words).await;
    // Entra's answers differ every time, by IDs.
    let told = scene.resource_version().await;
    scene.token_requests(ENTRA_HOST, 2).await;
    assert_eq!(
        scene.resource_version().await,
        told,
        "the same was written again"
    );
    drop(daemon);

    let _daemon = scene.daemon(&[], &with(&right)).await;
    scene.has("of the app").await;
    let requests = scene.system.vault().requests();
    assert_eq!(requests.count(IMDS_HOST, Operation::Token), 0);
}

#[tokio::test]
async fn a_service_principal_by_its_client_secret() {
    let scene = Scene::set("for-app", Value::Null).await;
    let with = |secret| {
        [
            ("AZURE_CLIENT_ID", APP),
            ("AZURE_TENANT_ID", TENANT),
            ("AZURE_CLIENT_SECRET", secret),
        ]
    };
    let daemon = scene.daemon(&[], &with("a-wrong-secret")).await;
    scene.says("BadCredentials", &["AADSTS7000215"]).await;
    assert!(!daemon.log().contains("a-wrong-secret"));
    drop(daemon);
    let daemon = scene.daemon(&[], &with("a-client-secret")).await;
    scene.has("of the app").await;
    assert!(!daemon.log().contains("a-client-secret"));
}

#[tokio::test]
async fn no_token_is_told_until_there_is_one() {
    let scene = Scene::set("for-app", Value::Null).await;
    let fault = |fault| {
        scene
            .system
            .vault()
            .set_faults("imds", vec![fault])
            .expect("a fault")
    };
    fault(Fault::status(500));
    let unknown = "33333333-3333-4333-8333-333333333333";
    let daemon = scene.daemon(&[], &[("AZURE_CLIENT_ID", unknown)]).await;
    scene
        .says("BadCredentials", &["no token for vault for-app"])
        .await;
    scene.system.vault().clear_faults("imds").expect("IMDS");
    scene
        .says("BadCredentials", &["has not been assigned"])
        .await;
    let told = scene.resource_version().await;
    scene.token_requests(IMDS_HOST, 2).await;
    assert_eq!(
        scene.resource_version().await,
        told,
        "the same was written again"
    );
    drop(daemon);

    fault(Fault::status(403));
    let _daemon = scene.daemon(&[], &[("AZURE_CLIENT_ID", APP)]).await;
    scene
        .says("BadCredentials", &["no token for vault for-app"])
        .await;
    scene.system.vault().clear_faults("imds").expect("IMDS");
    scene.has("of the app").await;
    scene.says("Mirrored", &[]).await;
}

#[tokio::test]
async fn a_token_that_expires_or_is_revoked_is_replaced() {
    let scene = Scene::set("for-system", Value::Null).await;
    let vault = scene.system.vault();
    vault.set_token_lifetime(Duration::from_secs(2));
    let _daemon = scene.daemon(&[], &[]).await;
    scene.has("of the system").await;
    // Expired by the next cycle: noticed before it is used.
    vault.set_secret("for-system", "s", "second").expect("set");
    scene.has("second").await;
    assert_eq!(vault.requests().rejected_tokens, 0);

    vault.set_token_lifetime(Duration::from_secs(24 * 3600));
    scene.token_requests(IMDS_HOST, 1).await;
    vault.set_secret("for-system", "s", "third").expect("set");
    scene.has("third").await;
    // Revoked, which nobody but the vault knows.
    vault.expire_tokens();
    vault.set_secret("for-system", "s", "fourth").expect("set");
    scene.has("fourth").await;
    assert!(vault.requests().rejected_tokens > 0);
}

#[tokio::test]
async fn another_cloud_by_its_dns_suffix() {
    let scene = Scene::set("elsewhere", Value::Null).await;
    let arguments = ["--vault-dns-suffix", "vault.azure.cn"];
    let _daemon = scene.daemon(&arguments, &[]).await;
    scene.has("of another cloud").await;
}

/// The ServiceAccount `mirror` of the test's namespace.
async fn apply_account(scene: &Scene, metadata: Value) {
    let mut account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
    account["metadata"]["name"] = json!("mirror");
    let account = account.to_string();
    scene
        .alone
        .testbed
        .apply(&scene.namespace, &account)
        .await
        .ok();
}

#[tokio::test]
async fn a_service_account_of_the_mirrors_own_namespace_that_opted_in() {
    let values = ["--set", "identity.serviceAccounts=true"];
    let scene = Scene::with_values("for-team", json!({"mirrorsOwn": {}}), &values).await;
    let mirror = json!({
        "vault": {"name": "for-team"},
        "identity": {"serviceAccountName": "mirror"},
        "refreshInterval": "10s",
        "data": [{"key": "k", "object": {"name": "s"}}],
        "target": {"name": "t"},
    });
    scene.apply("KeyVaultMirror", "m", mirror).await;
    apply_account(&scene, json!({})).await;
    // The daemon has no tenant of its own here.
    let _daemon = scene.daemon(&["--service-accounts"], &[]).await;
    let reason = "ServiceAccountNotUsable";
    scene.says(reason, &["mirror", "keytide.dev/use"]).await;
    let label = json!({"keytide.dev/use": "true"});
    apply_account(&scene, json!({"labels": label})).await;
    scene
        .says(reason, &["azure.workload.identity/client-id"])
        .await;
    let client_id = "44444444-4444-4444-8444-444444444444";
    let mut annotations = json!({"azure.workload.identity/client-id": client_id});
    apply_account(&scene, json!({"labels": label, "annotations": annotations})).await;
    scene
        .says("BadCredentials", &["azure.workload.identity/tenant-id"])
        .await;
    annotations["azure.workload.identity/tenant-id"] = json!(TENANT);
    apply_account(&scene, json!({"labels": label, "annotations": annotations})).await;
    scene.has("of the team").await;
    scene.says("Mirrored", &[]).await;

    // Reads stop with the consent, and what is there stays.
    apply_account(&scene, json!({"annotations": annotations})).await;
    scene.says(reason, &["keytide.dev/use"]).await;
    scene.has("of the team").await;
}
