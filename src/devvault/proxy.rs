//! The listener: an HTTPS proxy that is itself where its tunnels end, a plain HTTP proxy for IMDS, and the control
//! endpoint, told apart by the form of the request's target.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::certificates::Authority;
use super::control;
use super::exchange::{Call, Moment, Outcome, Reply};
use super::imds;
use super::refusal::Refusal;
use super::shared::Shared;

/// Far above the largest secret, so that the core can refuse values that are too long.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Ends every task that was started for a dev vault once the sender is gone.
pub type Shutdown = watch::Receiver<()>;

pub async fn serve(listener: TcpListener, shared: Arc<Shared>, shutdown: Shutdown) {
    let control = control::router(shared.clone());
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let connection =
                        serve_client(stream, shared.clone(), control.clone(), shutdown.clone());
                    spawn_until(shutdown.clone(), connection);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    };
    until(shutdown.clone(), accept).await;
}

async fn until(mut shutdown: Shutdown, work: impl Future<Output = ()>) {
    tokio::select! {
        // An error means that the sender is gone, which is the signal.
        _ = shutdown.changed() => {}
        () = work => {}
    }
}

fn spawn_until(shutdown: Shutdown, work: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(until(shutdown, work));
}

/// One connection as a client's proxy, or to the control endpoint.
async fn serve_client(
    stream: TcpStream,
    shared: Arc<Shared>,
    control: axum::Router,
    shutdown: Shutdown,
) {
    let cut = Arc::new(Notify::new());
    let service = service_fn(|request: Request<Incoming>| {
        let (shared, control, shutdown, cut) = (
            shared.clone(),
            control.clone(),
            shutdown.clone(),
            cut.clone(),
        );
        async move { Ok::<_, Infallible>(route(request, shared, control, shutdown, &cut).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::select! {
        _ = connection => {}
        () = cut.notified() => {}
    }
}

async fn route(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    control: axum::Router,
    shutdown: Shutdown,
    cut: &Notify,
) -> Response<Body> {
    if request.method() == Method::CONNECT {
        return open_tunnel(request, shared, shutdown);
    }
    // Clients whose proxy settings don't exempt loopback reach the control endpoint through the proxy, so the path
    // tells it apart, not the form alone.
    let host = request.uri().host().map(str::to_ascii_lowercase);
    match host.as_deref() {
        Some(imds::HOST) => answer(imds::HOST, request, &shared, cut).await,
        Some(host) if host != "127.0.0.1" && host != "localhost" && host != "[::1]" => {
            shared.world().connect(host);
            tracing::warn!(
                host,
                "refused a proxy request for a host that isn't served here"
            );
            respond(
                Refusal::vault_not_found(host).into(),
                StatusCode::BAD_GATEWAY,
            )
        }
        _ => match control.oneshot(request.map(Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
    }
}

/// Answers a CONNECT and becomes the host that it names.
fn open_tunnel(
    request: Request<Incoming>,
    shared: Arc<Shared>,
    shutdown: Shutdown,
) -> Response<Body> {
    let host = request
        .uri()
        .host()
        .unwrap_or_default()
        .to_ascii_lowercase();
    if !shared.world().connect(&host) {
        tracing::warn!(host, "refused a tunnel to a host that isn't served here");
        return respond(
            Refusal::vault_not_found(&host).into(),
            StatusCode::BAD_GATEWAY,
        );
    }
    if let Some(address) = shared.world().forwarded(&host) {
        spawn_until(shutdown, forward(request, address));
        return Response::new(Body::empty());
    }
    let authority = if shared.world().meet_other_ca(&host) {
        Authority::Other
    } else {
        Authority::Trusted
    };
    let config = match shared.certificates.config(&host, authority) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(host, %error, "no certificate could be made");
            return respond(
                Refusal::vault_not_found(&host).into(),
                StatusCode::BAD_GATEWAY,
            );
        }
    };
    spawn_until(shutdown, async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else {
            return;
        };
        match TlsAcceptor::from(config)
            .accept(TokioIo::new(upgraded))
            .await
        {
            Ok(stream) => serve_tunnel(stream, host, authority, shared).await,
            Err(error) => tracing::debug!(host, %error, "a TLS handshake failed"),
        }
    });
    Response::new(Body::empty())
}

/// Carries a tunnel on to where it leads.
async fn forward(request: Request<Incoming>, address: SocketAddr) {
    let Ok(upgraded) = hyper::upgrade::on(request).await else {
        return;
    };
    let carried = async {
        let mut there = TcpStream::connect(address).await?;
        tokio::io::copy_bidirectional(&mut TokioIo::new(upgraded), &mut there).await
    };
    if let Err(error) = carried.await {
        tracing::debug!(%address, %error, "a forwarded tunnel broke");
    }
}

async fn serve_tunnel<S>(stream: S, host: String, authority: Authority, shared: Arc<Shared>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let cut = Arc::new(Notify::new());
    let service = service_fn(|request: Request<Incoming>| {
        let (host, shared, cut) = (host.clone(), shared.clone(), cut.clone());
        async move {
            // A client that keeps its connection would never see the other certificate.
            if authority == Authority::Trusted && shared.world().has_other_ca(&host) {
                return Ok::<_, Infallible>(never_answer(&cut).await);
            }
            Ok(answer(&host, request, &shared, &cut).await)
        }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    let connection = server.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = connection => {}
        () = cut.notified() => {}
    }
}

/// Answers as `host`, whatever host the request itself names. Reads the request, has the core decide, waits as told, and answers or cuts the connection.
async fn answer(
    host: &str,
    request: Request<Incoming>,
    shared: &Shared,
    cut: &Notify,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(Body::new(body), MAX_BODY_BYTES).await else {
        let refusal = Refusal::bad_parameter("The request body could not be read or is too long");
        return respond(refusal.into(), StatusCode::BAD_REQUEST);
    };
    let call = Call {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: Call::pairs(parts.uri.query().unwrap_or_default()),
        headers: parts.headers,
        body: body.to_vec(),
    };
    let Outcome { delay, reply } = shared.world().answer(host, &call, Moment::current());
    tracing::debug!(
        host,
        method = %call.method,
        path = call.path,
        status = reply.as_ref().map(|reply| reply.status),
        delay_ms = delay.as_millis(),
        "answered"
    );
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    match reply {
        Some(reply) => {
            let status =
                StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            respond(reply, status)
        }
        None => never_answer(cut).await,
    }
}

/// Cuts the connection. Whoever waits for this is dropped with it.
async fn never_answer(cut: &Notify) -> Response<Body> {
    cut.notify_one();
    pending().await
}

fn respond(reply: Reply, status: StatusCode) -> Response<Body> {
    let body = reply
        .body
        .map_or_else(Body::empty, |body| Body::from(body.to_string()));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    response
}
