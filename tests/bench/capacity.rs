//! The dev vault alone: how many GETs it answers in a second, so that it is known not to be what is measured.

use std::time::{Duration, Instant};

use keytide::devvault::IMDS_HOST;
use serde::Deserialize;

use super::Bench;
use super::finding::Finding;
use super::layout::Layout;
use super::recorder::Recorder;
use super::testbed::Result;
use super::vault::Vault;

/// HTTP clients, and requests that each has under way.
const CLIENTS: usize = 4;
const CONCURRENCY: usize = 16;

const WARM_UP: Duration = Duration::from_secs(1);
const TIME: Duration = Duration::from_secs(5);

#[derive(Deserialize)]
struct Token {
    access_token: String,
}

/// Runs the scenario.
pub async fn run(bench: &Bench, objects: usize, recorder: &mut Recorder) -> Result<()> {
    let folder = bench.scratch.join("capacity");
    std::fs::create_dir_all(&folder)?;
    let layout = Layout::spread(objects, 1, 1);
    let vault = Vault::start(&bench.program, &layout, &folder).await?;
    let token = token(&client(&vault)?).await?;
    let urls: Vec<String> = layout
        .objects()
        .map(|(vault, object)| {
            format!("https://{vault}.vault.azure.net/secrets/{object}?api-version=2025-07-01")
        })
        .collect();
    ask(&vault, &token, &urls, WARM_UP).await?;
    let before = vault.requests().await?;
    let began = Instant::now();
    ask(&vault, &token, &urls, TIME).await?;
    let seconds = began.elapsed().as_secs_f64();
    let answered = vault.requests().await? - before;
    recorder.found(Finding::Capacity {
        requests_per_second: answered.get as f64 / seconds,
    })
}

/// Asks for so long, as fast as answers come.
async fn ask(vault: &Vault, token: &str, urls: &[String], time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let client = client(vault)?;
        for worker in 0..CONCURRENCY {
            let (client, token, urls) = (client.clone(), token.to_owned(), urls.to_owned());
            workers.spawn(async move {
                for url in urls.iter().cycle().skip(worker) {
                    if Instant::now() >= end {
                        break;
                    }
                    let request = client.get(url).bearer_auth(&token);
                    request.send().await?.error_for_status()?.bytes().await?;
                }
                Ok::<(), reqwest::Error>(())
            });
        }
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(())
}

fn client(vault: &Vault) -> Result<reqwest::Client> {
    let ca = reqwest::Certificate::from_pem_bundle(&std::fs::read(vault.ca())?)?;
    Ok(reqwest::Client::builder()
        .proxy(reqwest::Proxy::all(vault.proxy())?)
        .tls_certs_only(ca)
        .build()?)
}

async fn token(client: &reqwest::Client) -> Result<String> {
    let url = format!(
        "http://{IMDS_HOST}/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
    );
    let request = client.get(url).header("Metadata", "true");
    let answer = request.send().await?.error_for_status()?.bytes().await?;
    Ok(serde_json::from_slice::<Token>(&answer)?.access_token)
}
