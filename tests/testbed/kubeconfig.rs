//! Kubeconfigs: written whole, so that a file can be handed to a process and needs no other.

use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};

use super::Result;
use super::certificates::{Certificates, write_private};

/// A client of its own for each caller: its connections live on the caller's runtime and die with it.
pub async fn client(kubeconfig: &Path) -> Result<Client> {
    let options = KubeConfigOptions::default();
    let mut config =
        Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &options).await?;
    // Whatever proxy the environment asks for, the cluster is not behind it.
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

/// The administrator's.
pub fn write_admin(path: &Path, port: u16, certificates: &Certificates) -> Result<()> {
    let cluster = json!({
        "server": format!("https://127.0.0.1:{port}"),
        "certificate-authority-data": BASE64_STANDARD.encode(&certificates.ca),
    });
    let user = json!({
        "client-certificate-data": BASE64_STANDARD.encode(&certificates.admin),
        "client-key-data": BASE64_STANDARD.encode(&certificates.admin_key),
    });
    write(path, &cluster, &user, "default")
}

/// A ServiceAccount's, by a token of its own, and for the cluster that `admin` is about: what uses it has exactly the
/// permissions that were granted to the ServiceAccount.
pub async fn write_service_account(
    path: &Path,
    admin: &Path,
    namespace: &str,
    name: &str,
) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client(admin).await?, namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(24 * 60 * 60),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request(name, &PostParams::default(), &request)
        .await?;
    let token = answer
        .status
        .ok_or("the token request was answered without a token")?
        .token;

    let known = Kubeconfig::read_from(admin)?;
    let current = known.current_context.unwrap_or_default();
    let context = known
        .contexts
        .into_iter()
        .find(|context| context.name == current);
    let cluster_name = context
        .and_then(|named| named.context)
        .map(|context| context.cluster);
    let cluster = known
        .clusters
        .into_iter()
        .find(|cluster| Some(&cluster.name) == cluster_name.as_ref())
        .and_then(|named| named.cluster)
        .ok_or_else(|| format!("{}: the current context has no cluster", admin.display()))?;
    write(
        path,
        &serde_json::to_value(cluster)?,
        &json!({ "token": token }),
        namespace,
    )
}

fn write(path: &Path, cluster: &Value, user: &Value, namespace: &str) -> Result<()> {
    let name = "testbed";
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": cluster }],
        "users": [{ "name": name, "user": user }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name, "namespace": namespace } }],
        "current-context": name,
    });
    // Every JSON document is a YAML document.
    write_private(path, &serde_json::to_string_pretty(&kubeconfig)?)
}
