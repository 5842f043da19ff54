//! Over real sockets: what only the listener decides.

use std::time::Duration;

use reqwest::{Certificate, Client, Proxy, StatusCode};
use serde_json::{Value as Json, json};

use super::*;

const VAULT: &str = "https://v.vault.azure.net";

async fn start() -> DevVault {
    let seed = Seed::parse("vaults: {v: {secrets: {a: one}}}").unwrap();
    DevVault::start(Options {
        seed,
        ..Options::default()
    })
    .await
    .unwrap()
}

/// A client as tests of the daemon have one: everything through the proxy, only the dev vault's CA trusted.
fn client(vault: &DevVault) -> Client {
    let ca = Certificate::from_pem(vault.ca_pem().as_bytes()).unwrap();
    Client::builder()
        .proxy(Proxy::all(vault.proxy()).unwrap())
        .tls_certs_only([ca])
        .timeout(Duration::from_secs(10))
        .build()
        .unwrap()
}

async fn token(client: &Client) -> String {
    let reply = client
        .get(
            "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01\
             &resource=https://vault.azure.net",
        )
        .header("Metadata", "true")
        .send()
        .await
        .unwrap();
    let body: Json = serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap();
    body["access_token"].as_str().unwrap().to_owned()
}

async fn get(client: &Client, token: &str) -> reqwest::Result<reqwest::Response> {
    client
        .get(format!("{VAULT}/secrets/a?api-version=7.6"))
        .bearer_auth(token)
        .send()
        .await
}

async fn json(reply: reqwest::Response) -> Json {
    serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_secret_is_read_through_the_tunnel() {
    let vault = start().await;
    let client = client(&vault);
    let token = token(&client).await;
    let reply = get(&client, &token).await.unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
    assert!(reply.headers().contains_key("date"));
    assert_eq!(json(reply).await["value"], "one");
    vault.set_secret("v", "a", "two").unwrap();
    assert_eq!(
        json(get(&client, &token).await.unwrap()).await["value"],
        "two"
    );
    let requests = vault.requests();
    assert_eq!(requests.gets_of("v.vault.azure.net", "a"), 2);
    assert_eq!(requests.connects["v.vault.azure.net"], 1);
}

#[tokio::test]
async fn other_hosts_are_refused() {
    let vault = start().await;
    let client = client(&vault);
    assert!(
        client
            .get("https://w.vault.azure.net/secrets")
            .send()
            .await
            .is_err()
    );
    let plain = client.get("http://example.com/").send().await.unwrap();
    assert_eq!(plain.status(), StatusCode::BAD_GATEWAY);
    let refused = vault.requests().refused_connects;
    assert_eq!(
        (refused["w.vault.azure.net"], refused["example.com"]),
        (1, 1)
    );
}

#[tokio::test]
async fn a_dropped_connection_is_an_error_and_not_an_answer() {
    let vault = start().await;
    let client = client(&vault);
    let token = token(&client).await;
    vault.set_faults("v", vec![Fault::drop()]).unwrap();
    assert!(get(&client, &token).await.is_err());
    vault.clear_faults("v").unwrap();
    assert_eq!(get(&client, &token).await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn another_ca_reaches_clients_with_open_connections() {
    let vault = start().await;
    let client = client(&vault);
    let token = token(&client).await;
    assert!(get(&client, &token).await.is_ok());
    let fault = Fault {
        other_ca: true,
        ..Fault::default()
    };
    vault.set_faults("v", vec![fault]).unwrap();
    assert!(get(&client, &token).await.is_err());
    vault.clear_faults("v").unwrap();
    assert!(get(&client, &token).await.is_ok());
}

#[tokio::test]
async fn the_control_endpoint_does_what_the_methods_do() {
    let vault = start().await;
    let (control, direct) = (
        vault.proxy() + "/control",
        Client::builder().no_proxy().build().unwrap(),
    );
    let put = async |path: &str, body: Json| {
        direct
            .put(format!("{control}/{path}"))
            .body(body.to_string())
            .send()
            .await
            .unwrap()
    };
    assert_eq!(
        put("vaults/w.vault.azure.cn", json!({"access": ["c"]}))
            .await
            .status(),
        204
    );
    let written = put(
        "vaults/w.vault.azure.cn/secrets/b",
        json!({"value": "x", "exp": 5}),
    )
    .await;
    assert_eq!(
        json(written).await["version"].as_str().map(str::len),
        Some(32)
    );
    let misspelt = put("vaults/v/secrets/b", json!({"value": "hush", "tag": {}})).await;
    assert_eq!(misspelt.status(), 400);
    assert!(!misspelt.text().await.unwrap().contains("hush"));
    let faults = json!([{"match": {"operation": "get", "secret": "a"}, "times": 1, "status": 429, "retryAfter": 1}]);
    assert_eq!(put("vaults/v/faults", faults).await.status(), 204);
    let client = client(&vault);
    let token = token(&client).await;
    assert_eq!(
        get(&client, &token).await.unwrap().status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    assert_eq!(get(&client, &token).await.unwrap().status(), StatusCode::OK);
    assert_eq!(
        put("tokens", json!({"lifetimeSeconds": 60})).await.status(),
        204
    );
    let expired = direct
        .post(format!("{control}/tokens/expire"))
        .send()
        .await
        .unwrap();
    assert_eq!(expired.status(), 204);
    assert_eq!(
        get(&client, &token).await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    let counts = json(
        direct
            .get(format!("{control}/requests"))
            .send()
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(counts["secretGets"]["v.vault.azure.net"]["a"], 2);
    assert_eq!(counts["statuses"]["v.vault.azure.net"]["429"], 1);
    assert_eq!(counts["rejectedTokens"], 1);
    let ca = direct.get(format!("{control}/ca")).send().await.unwrap();
    assert_eq!(ca.text().await.unwrap(), vault.ca_pem());
}

#[tokio::test]
async fn it_stops_when_dropped() {
    let vault = start().await;
    let client = client(&vault);
    let token = token(&client).await;
    assert!(get(&client, &token).await.is_ok());
    drop(vault);
    tokio::task::yield_now().await;
    assert!(get(&client, &token).await.is_err());
}

#[tokio::test]
async fn it_listens_on_loopback_only() {
    let options = Options {
        listen: SocketAddr::from(([0, 0, 0, 0], 0)),
        ..Options::default()
    };
    let refused = DevVault::start(options).await.err();
    assert!(matches!(refused, Some(StartError::NotLoopback { .. })));
}
