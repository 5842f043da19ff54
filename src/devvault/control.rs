//! The control endpoint: what tests in other processes do to the dev vault, as JSON over plain HTTP.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `PUT /control/vaults/{vault}` | `{access?: [clientId]}` or none | 204 |
//! | `PUT /control/vaults/{vault}/secrets/{name}` | `{value, contentType?, tags?, enabled?, nbf?, exp?, managed?, created?, updated?}` | `{version, updated}` |
//! | `PATCH /control/vaults/{vault}/secrets/{name}` | the same without value, managed and created | `{version, updated}` |
//! | `DELETE /control/vaults/{vault}/secrets/{name}[?purge=true]` | | 204 |
//! | `POST /control/vaults/{vault}/secrets/{name}/restore` | `{version}`: as a backup of when it was current | `{version, updated}` |
//! | `PUT /control/vaults/{vault}/clock` | `{aheadSeconds}` | 204 |
//! | `PUT /control/vaults/{vault}/faults` | a list of faults; `{vault}` may be `entra` or `imds` | 204 |
//! | `DELETE /control/vaults/{vault}/faults` | | 204 |
//! | `PUT /control/forwards/{host}` | `{address}`: where tunnels to this host lead | 204 |
//! | `PUT /control/tokens` | `{lifetimeSeconds}` | 204 |
//! | `POST /control/tokens/expire` | | 204 |
//! | `GET /control/requests`, `DELETE /control/requests` | | counts; 204 |
//! | `GET /control/ca` | | PEM |
//!
//! Errors are `{"error": "…"}`. No token is asked for: whoever reaches loopback may do all this.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use jiff::SignedDuration;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::exchange::Moment;
use super::faults::Fault;
use super::refusal::Refusal;
use super::secret::{Changes, NewSecret, Written};
use super::shared::Shared;

type Control = State<Arc<Shared>>;

pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/control/vaults/{vault}", put(create_vault))
        .route(
            "/control/vaults/{vault}/secrets/{name}",
            put(set_secret).patch(update_secret).delete(delete_secret),
        )
        .route(
            "/control/vaults/{vault}/secrets/{name}/restore",
            post(restore_secret),
        )
        .route("/control/vaults/{vault}/clock", put(set_clock))
        .route(
            "/control/vaults/{vault}/faults",
            put(set_faults).delete(clear_faults),
        )
        .route("/control/forwards/{host}", put(forward))
        .route("/control/tokens", put(set_token_lifetime))
        .route("/control/tokens/expire", post(expire_tokens))
        .route("/control/requests", get(requests).delete(reset_requests))
        .route("/control/ca", get(ca))
        .fallback(async || {
            let refusal = Refusal::bad_parameter("there is no such control request");
            (StatusCode::NOT_FOUND, Failure(refusal))
        })
        .with_state(shared)
}

/// A refusal in the control endpoint's own, shorter words.
struct Failure(Refusal);

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::BAD_REQUEST);
        (status, Json(json!({"error": self.0.message}))).into_response()
    }
}

type Done = Result<StatusCode, Failure>;

/// Reads a body whatever its content type, and doesn't quote it when it is wrong: it may hold a value.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => {
                "has a field that is unknown, missing or of another type"
            }
            _ => "is not JSON",
        };
        let (line, column) = (error.line(), error.column());
        Refusal::bad_parameter(format!("the body {what} (line {line}, column {column})")).into()
    })
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct VaultBody {
    access: Option<Vec<String>>,
}

async fn create_vault(State(shared): Control, Path(vault): Path<String>, body: Bytes) -> Done {
    let body = if body.is_empty() {
        VaultBody::default()
    } else {
        read(&body)?
    };
    shared.world().create_vault(&vault, body.access)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_secret(
    State(shared): Control,
    Path((vault, name)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Written>, Failure> {
    let secret: NewSecret = read(&body)?;
    let written = shared
        .world()
        .vault(&vault)?
        .set(&name, secret, Moment::current())?;
    Ok(Json(written))
}

async fn update_secret(
    State(shared): Control,
    Path((vault, name)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Written>, Failure> {
    let changes: Changes = read(&body)?;
    let written = shared
        .world()
        .vault(&vault)?
        .update(&name, None, changes, Moment::current())?;
    Ok(Json(written))
}

#[derive(Deserialize)]
struct DeleteQuery {
    #[serde(default)]
    purge: bool,
}

async fn delete_secret(
    State(shared): Control,
    Path((vault, name)): Path<(String, String)>,
    Query(query): Query<DeleteQuery>,
) -> Done {
    let mut world = shared.world();
    let vault = world.vault(&vault)?;
    vault.delete(&name, Moment::current())?;
    if query.purge {
        vault.purge(&name)?;
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RestoreBody {
    version: String,
}

async fn restore_secret(
    State(shared): Control,
    Path((vault, name)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Written>, Failure> {
    let body: RestoreBody = read(&body)?;
    let written = shared
        .world()
        .vault(&vault)?
        .restore(&name, &body.version, Moment::current())?;
    Ok(Json(written))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ClockBody {
    ahead_seconds: i64,
}

async fn set_clock(State(shared): Control, Path(vault): Path<String>, body: Bytes) -> Done {
    let body: ClockBody = read(&body)?;
    let ahead = SignedDuration::from_secs(body.ahead_seconds);
    shared.world().vault(&vault)?.set_clock_ahead(ahead);
    Ok(StatusCode::NO_CONTENT)
}

async fn set_faults(State(shared): Control, Path(vault): Path<String>, body: Bytes) -> Done {
    let faults: Vec<Fault> = read(&body)?;
    shared.world().set_faults(&vault, faults)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_faults(State(shared): Control, Path(vault): Path<String>) -> Done {
    shared.world().set_faults(&vault, Vec::new())?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForwardBody {
    address: SocketAddr,
}

async fn forward(State(shared): Control, Path(host): Path<String>, body: Bytes) -> Done {
    let body: ForwardBody = read(&body)?;
    shared.world().forward(&host, body.address);
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct TokensBody {
    lifetime_seconds: u32,
}

async fn set_token_lifetime(State(shared): Control, body: Bytes) -> Done {
    let body: TokensBody = read(&body)?;
    let lifetime = SignedDuration::from_secs(i64::from(body.lifetime_seconds));
    shared.world().set_token_lifetime(lifetime);
    Ok(StatusCode::NO_CONTENT)
}

async fn expire_tokens(State(shared): Control) -> StatusCode {
    shared.world().expire_tokens(Moment::current().now);
    StatusCode::NO_CONTENT
}

async fn requests(State(shared): Control) -> Response {
    let counts = shared.world().requests().clone();
    Json(counts).into_response()
}

async fn reset_requests(State(shared): Control) -> StatusCode {
    shared.world().reset_requests();
    StatusCode::NO_CONTENT
}

async fn ca(State(shared): Control) -> Response {
    let pem = shared.certificates.ca_pem().to_owned();
    ([(header::CONTENT_TYPE, "application/x-pem-file")], pem).into_response()
}
