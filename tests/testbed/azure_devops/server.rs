//! The listener: reads requests, has an organization decide, and answers or cuts the connection.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::Query;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use jiff::Timestamp;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value as Json, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::api::{self, ENTRA_TOKEN, Reply};
use super::command::{Command, Outage};
use super::{Result, Shared};

/// How long an agent is kept waiting for a job; Azure DevOps answers after 50 s.
const LONG_POLL: Duration = Duration::from_secs(10);

const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Azure DevOps as Entra knows it, and the only thing that the double's Entra gives tokens for.
const SCOPE: &str = "499b84ac-1321-427f-aa17-267ca6975798/.default";

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A new authority's certificate, and what speaks TLS with a certificate by it.
pub fn acceptor(address: IpAddr) -> Result<(String, TlsAcceptor)> {
    let mut authority = CertificateParams::default();
    authority
        .distinguished_name
        .push(DnType::CommonName, "Azure DevOps double CA");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate()?;
    let ca = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let names = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        address.to_string(),
    ];
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )?;
    Ok((ca, TlsAcceptor::from(Arc::new(config))))
}

/// Until the sender of `shutdown` is gone.
pub async fn serve(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    mut shutdown: watch::Receiver<()>,
) {
    loop {
        let accepted = tokio::select! {
            _ = shutdown.changed() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (acceptor, shared, mut shutdown) = (acceptor.clone(), shared.clone(), shutdown.clone());
        tokio::spawn(async move {
            let connection = async {
                match acceptor {
                    // A handshake that fails is the client's to report.
                    Some(acceptor) => {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            serve_client(stream, shared).await;
                        }
                    }
                    None => serve_client(stream, shared).await,
                }
            };
            tokio::select! {
                _ = shutdown.changed() => {}
                () = connection => {}
            }
        });
    }
}

async fn serve_client(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    shared: Arc<Shared>,
) {
    let cut = Arc::new(Notify::new());
    let service = service_fn(|request: Request<Incoming>| {
        let (shared, cut) = (shared.clone(), cut.clone());
        async move { Ok::<_, Infallible>(answer(request, &shared, &cut).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let connection = server.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = connection => {}
        () = cut.notified() => {}
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared, cut: &Notify) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(Body::new(body), MAX_BODY_BYTES).await else {
        return respond(400, Some(json!({"message": "The body can't be read."})));
    };
    let path = parts.uri.path();
    if let Some(organization) = path.strip_prefix("/_control/") {
        return control(&parts.method, organization, &body, shared);
    }
    if path.ends_with("/oauth2/v2.0/token") {
        return token(&body);
    }
    let Some((organization, api_path)) = path[1..].split_once("/_apis/") else {
        return respond(404, None);
    };
    let query = parts.uri.query();
    let request = api::Request {
        method: parts.method,
        path: api_path.to_owned(),
        query: pairs(&parts.uri),
        raw_query: query.map(|query| format!("?{query}")).unwrap_or_default(),
        token: bearer_or_password(&parts.headers),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    match decide(organization, &request, shared).await {
        Decision::Reply(reply) => render(reply),
        Decision::Cut => {
            cut.notify_one();
            // Whoever waits for this is dropped with the connection.
            std::future::pending().await
        }
    }
}

enum Decision {
    Reply(Reply),
    Cut,
}

/// Waits while there is no message for an agent that asks for one.
async fn decide(name: &str, request: &api::Request, shared: &Shared) -> Decision {
    let mut changed = shared.changed.subscribe();
    let end = Instant::now() + LONG_POLL;
    let mut held = false;
    loop {
        let mut must_wait = false;
        {
            let mut organizations = shared.organizations();
            let Some(organization) = organizations.get_mut(name) else {
                return Decision::Reply(api::no_organization());
            };
            match organization.outage {
                Outage::None => {}
                Outage::Unreachable => return Decision::Cut,
                Outage::Unavailable => return Decision::Reply(api::unavailable()),
                Outage::HeldRegistrations => must_wait = api::is_registration(request),
                Outage::HeldMessages => must_wait = api::is_for_messages(request),
            }
            if must_wait && !held {
                held = true;
                organization.held += 1;
            }
            if !must_wait && let Some(reply) = api::answer(organization, request, Timestamp::now())
            {
                if request.method != Method::GET {
                    shared.changed.send_replace(());
                }
                return Decision::Reply(reply);
            }
        }
        if must_wait {
            // It can't fail: the sender is in `shared`.
            let _ = changed.changed().await;
        } else if tokio::time::timeout_at(end, changed.changed())
            .await
            .is_err()
        {
            return Decision::Reply(api::no_message());
        }
    }
}

/// What is tried: a bearer token, or the password of basic authentication, whoever the user.
fn bearer_or_password(headers: &HeaderMap) -> Option<String> {
    let (scheme, credential) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(credential.to_owned());
    }
    let decoded = String::from_utf8(STANDARD.decode(credential).ok()?).ok()?;
    Some(decoded.split_once(':')?.1.to_owned())
}

fn pairs(uri: &Uri) -> BTreeMap<String, String> {
    Query::try_from_uri(uri)
        .map(|Query(pairs)| pairs)
        .unwrap_or_default()
}

/// Entra's token endpoint, for workload identities.
fn token(body: &[u8]) -> Response<Body> {
    let form = format!("/?{}", String::from_utf8_lossy(body));
    let form = form.parse().map(|uri| pairs(&uri)).unwrap_or_default();
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let is_asked_well = field("grant_type") == "client_credentials"
        && field("scope") == SCOPE
        && field("client_assertion_type") == ASSERTION_TYPE;
    if !is_asked_well {
        let description = "AADSTS900144: The request is missing a parameter, or has a wrong one.";
        return respond(
            400,
            Some(json!({"error": "invalid_request", "error_description": description})),
        );
    }
    // Three parts, as any JSON web token. Who signed it is not asked.
    if field("client_assertion").split('.').count() != 3 {
        let description = "AADSTS700213: No matching federated identity record found for the presented assertion.";
        return respond(
            401,
            Some(json!({"error": "invalid_client", "error_description": description})),
        );
    }
    let token = format!(
        "{ENTRA_TOKEN}{}.{}",
        field("client_id"),
        uuid::Uuid::new_v4()
    );
    respond(
        200,
        Some(json!({"token_type": "Bearer", "expires_in": 3599, "access_token": token})),
    )
}

fn control(method: &Method, organization: &str, body: &[u8], shared: &Shared) -> Response<Body> {
    if method == Method::GET {
        let organizations = shared.organizations();
        let found = organizations.get(organization);
        return match found {
            Some(organization) => respond(200, Some(organization.json(Timestamp::now()))),
            None => respond(404, None),
        };
    }
    let done = serde_json::from_slice::<Command>(body)
        .map_err(|error| error.to_string())
        .and_then(|command| shared.run(organization, command));
    match done {
        Ok(answer) => respond(200, Some(answer)),
        Err(message) => respond(400, Some(json!({"message": message}))),
    }
}

fn render(reply: Reply) -> Response<Body> {
    match reply.body {
        api::Body::Json(body) => respond(reply.status, Some(body)),
        api::Body::Empty => respond(reply.status, None),
        api::Body::Html(page) => {
            let mut response = Response::new(Body::from(page));
            *response.status_mut() =
                StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let html = http::HeaderValue::from_static("text/html; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, html);
            response
        }
    }
}

fn respond(status: u16, body: Option<Json>) -> Response<Body> {
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = http::HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}
