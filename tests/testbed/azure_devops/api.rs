//! The REST API of an organization: what KEDA's scaler, the runner's entrypoint and an agent ask.
//!
//! Documentation: "Azure DevOps REST API, Distributed Task". What agents ask is not documented; its source is
//! <https://github.com/microsoft/azure-pipelines-agent>.

use std::collections::BTreeMap;

use http::Method;
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::organization::{Access, Agent, Call, Organization, Pool};

/// Which application a token of the double's Entra is of.
pub const ENTRA_TOKEN: &str = "entra-token.";

pub struct Request {
    pub method: Method,
    /// After `_apis/`, without its query.
    pub path: String,
    pub query: BTreeMap<String, String>,
    /// As it stands after the path, for the journal.
    pub raw_query: String,
    pub token: Option<String>,
    pub body: Json,
}

#[derive(Debug, PartialEq)]
pub struct Reply {
    pub status: u16,
    pub body: Body,
}

#[derive(Debug, PartialEq)]
pub enum Body {
    Json(Json),
    Html(&'static str),
    Empty,
}

impl Reply {
    fn ok(body: Json) -> Self {
        let body = Body::Json(body);
        Self { status: 200, body }
    }

    fn empty(status: u16) -> Self {
        let body = Body::Empty;
        Self { status, body }
    }

    fn error(status: u16, kind: &str, message: impl Into<String>) -> Self {
        let body = Body::Json(json!({
            "$id": "1",
            "message": message.into(),
            "typeKey": kind,
            "errorCode": 0,
        }));
        Self { status, body }
    }
}

pub fn is_registration(request: &Request) -> bool {
    matches!(request.method, Method::POST | Method::PUT) && request.path.contains("/agents")
}

pub fn is_for_messages(request: &Request) -> bool {
    request.method == Method::GET && request.path.ends_with("/messages")
}

/// There is nothing for an agent that waited long enough.
pub fn no_message() -> Reply {
    Reply::empty(202)
}

pub fn no_organization() -> Reply {
    not_found("The organization")
}

pub fn unavailable() -> Reply {
    Reply::error(503, "ServiceUnavailable", "The service is unavailable.")
}

/// Who asks.
#[derive(Clone, Copy, PartialEq)]
enum Caller {
    /// Someone who may change pools.
    Manager,
    Reader,
    /// An agent, with its pool's ID and its own.
    Agent(u64, u64),
}

/// `None`: there is no message for this agent yet, so look again when something has changed.
pub fn answer(organization: &mut Organization, request: &Request, now: Timestamp) -> Option<Reply> {
    let reply = match caller(organization, request.token.as_deref()) {
        Ok(caller) => dispatch(organization, request, caller, now)?,
        Err(refusal) => refusal,
    };
    organization.journal.push(Call {
        time: now,
        method: request.method.to_string(),
        path: format!("{}{}", request.path, request.raw_query),
        token: request.token.clone().unwrap_or_default(),
        status: reply.status,
    });
    Some(reply)
}

fn caller(organization: &Organization, token: Option<&str>) -> Result<Caller, Reply> {
    let sign_in = || Reply {
        status: 203,
        body: Body::Html("<html><title>Azure DevOps Services | Sign In</title></html>"),
    };
    let unauthorized = || Reply {
        status: 401,
        body: Body::Empty,
    };
    let token = token.ok_or_else(sign_in)?;
    for (pool_id, pool) in &organization.pools {
        if let Some(agent) = pool.agents.values().find(|agent| agent.credential == token) {
            return Ok(Caller::Agent(*pool_id, agent.id));
        }
    }
    let application = token
        .strip_prefix(ENTRA_TOKEN)
        .and_then(|rest| rest.split_once('.'))
        .and_then(|(client_id, _)| organization.identities.get(client_id));
    match application.or_else(|| organization.tokens.get(token)) {
        Some(Access::Manage) => Ok(Caller::Manager),
        Some(Access::Read) => Ok(Caller::Reader),
        Some(Access::None) => Err(forbidden()),
        Some(Access::SignIn) => Err(sign_in()),
        Some(Access::Expired) | None => Err(unauthorized()),
    }
}

fn forbidden() -> Reply {
    let message = "Access denied. The identity needs Manage permissions to perform the action. For more \
                   information, contact the Azure DevOps Server administrator.";
    Reply::error(403, "AccessDeniedException", message)
}

fn not_found(what: &str) -> Reply {
    Reply::error(404, "NotFoundException", format!("{what} is not found."))
}

fn dispatch(
    organization: &mut Organization,
    request: &Request,
    caller: Caller,
    now: Timestamp,
) -> Option<Reply> {
    let segments: Vec<&str> = request.path.trim_end_matches('/').split('/').collect();
    let segments = match segments.as_slice() {
        ["connectionData"] => {
            return Some(Reply::ok(
                json!({"authenticatedUser": {"id": "1"}, "deploymentType": "hosted"}),
            ));
        }
        ["distributedtask", "pools"] => return Some(pools(organization, request)),
        ["distributedtask", "pools", rest @ ..] => rest,
        _ => return Some(not_found("The page")),
    };
    let Some(pool_id) = segments[0].parse::<u64>().ok() else {
        return Some(not_found("The page"));
    };
    // Before the pool is borrowed.
    let fresh_id = if request.method == Method::POST {
        organization.next_id()
    } else {
        0
    };
    let Some(pool) = organization.pools.get_mut(&pool_id) else {
        return Some(not_found(&format!("Agent pool {pool_id}")));
    };
    let id = |text: &str| text.parse::<u64>().unwrap_or(0);
    let is_change = request.method != Method::GET;
    Some(match &segments[1..] {
        [] => Reply::ok(pool_json(pool_id, pool)),
        ["agents", ..] if is_change && caller != Caller::Manager => forbidden(),
        ["agents"] if request.method == Method::POST => add_agent(pool, fresh_id, request, now),
        ["agents"] => agents(pool, request, now),
        ["agents", agent] => one_agent(pool, id(agent), request, now),
        ["sessions"] if request.method == Method::POST => open_session(pool, request, caller, now),
        ["sessions", _] if request.method == Method::DELETE => close_session(pool, caller, now),
        ["messages"] if request.method == Method::GET => {
            return next_message(pool, request, caller, now);
        }
        ["messages", _] if request.method == Method::DELETE => Reply::empty(204),
        ["jobrequests"] => jobs(pool_id, pool, request, now),
        ["jobrequests", job] => one_job(pool_id, pool, id(job), request, caller, now),
        _ => not_found("The page"),
    })
}

fn list(values: Vec<Json>) -> Reply {
    Reply::ok(json!({"count": values.len(), "value": values}))
}

fn pool_json(id: u64, pool: &Pool) -> Json {
    json!({"id": id, "name": pool.name, "size": pool.agents.len(), "isHosted": false, "poolType": "automation"})
}

/// Like the original, it ignores `poolID`, which KEDA asks by, and answers with all pools then.
fn pools(organization: &Organization, request: &Request) -> Reply {
    let name = request.query.get("poolName");
    let pools = organization.pools.iter();
    let found = pools.filter(|(_, pool)| {
        name.is_none_or(|name| name.to_lowercase() == pool.name.to_lowercase())
    });
    list(found.map(|(id, pool)| pool_json(*id, pool)).collect())
}

fn agent_json(pool: &Pool, agent: &Agent, request: &Request, now: Timestamp) -> Json {
    let wants = |name: &str| {
        let value = request.query.get(name);
        value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
    };
    let mut json = agent.json(now, wants("includeCapabilities"));
    if wants("includeAssignedRequest")
        && let Some(job) = pool.job_of(agent.id)
    {
        json["assignedRequest"] = json!({"requestId": job.id});
    }
    json
}

fn agents(pool: &Pool, request: &Request, now: Timestamp) -> Reply {
    let name = request.query.get("agentName");
    let found = pool
        .agents
        .values()
        .filter(|agent| name.is_none_or(|name| name.to_lowercase() == agent.name.to_lowercase()));
    list(
        found
            .map(|agent| agent_json(pool, agent, request, now))
            .collect(),
    )
}

/// With what the agent signs in with, which is told only to whoever registers it.
fn registered(agent: &Agent, now: Timestamp) -> Reply {
    let mut json = agent.json(now, true);
    json["authorization"] = json!({"clientId": agent.credential});
    Reply::ok(json)
}

fn set_capabilities(agent: &mut Agent, request: &Request) {
    if let Some(capabilities) = request.body["systemCapabilities"].as_object() {
        agent.capabilities = capabilities
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect();
    }
}

fn add_agent(pool: &mut Pool, id: u64, request: &Request, now: Timestamp) -> Reply {
    let Some(name) = request.body["name"]
        .as_str()
        .filter(|name| !name.is_empty())
    else {
        return Reply::error(400, "ArgumentException", "The agent has no name.");
    };
    if pool.agents.values().any(|agent| agent.name == name) {
        let message = format!("The pool already contains an agent with name {name}.");
        return Reply::error(409, "TaskAgentExistsException", message);
    }
    let mut agent = Agent::registered(id, name.to_owned(), now);
    set_capabilities(&mut agent, request);
    let reply = registered(&agent, now);
    pool.agents.insert(id, agent);
    reply
}

fn one_agent(pool: &mut Pool, id: u64, request: &Request, now: Timestamp) -> Reply {
    let is_busy = pool.job_of(id).is_some();
    let Some(agent) = pool.agents.get_mut(&id) else {
        return not_found(&format!("Agent {id}"));
    };
    match request.method {
        Method::PUT => {
            agent.credential = uuid::Uuid::new_v4().to_string();
            set_capabilities(agent, request);
            registered(agent, now)
        }
        Method::PATCH => {
            if request.body["id"].as_u64() != Some(id) {
                return Reply::error(
                    400,
                    "ArgumentException",
                    "The body's id is not the agent's.",
                );
            }
            if let Some(enabled) = request.body["enabled"].as_bool() {
                agent.enabled = enabled;
            }
            let reply = Reply::ok(agent.json(now, false));
            pool.assign(now);
            reply
        }
        Method::DELETE if is_busy => {
            let message = format!("Agent {id} has a job that is not finished.");
            Reply::error(400, "TaskAgentJobStillRunningException", message)
        }
        Method::DELETE => {
            pool.agents.remove(&id);
            Reply::empty(204)
        }
        _ => {
            let agent = agent.clone();
            Reply::ok(agent_json(pool, &agent, request, now))
        }
    }
}

fn open_session(pool: &mut Pool, request: &Request, caller: Caller, now: Timestamp) -> Reply {
    let Caller::Agent(_, id) = caller else {
        return forbidden();
    };
    let Some(agent) = pool.agents.get_mut(&id) else {
        return not_found("The agent");
    };
    if agent.is_online(now) {
        let message = format!("The agent {} already has an active session.", agent.name);
        return Reply::error(409, "TaskAgentSessionConflictException", message);
    }
    let session = uuid::Uuid::new_v4().to_string();
    agent.session = Some((session.clone(), now));
    agent.status_changed = now;
    pool.assign(now);
    Reply::ok(json!({"sessionId": session, "ownerName": request.body["ownerName"]}))
}

fn close_session(pool: &mut Pool, caller: Caller, now: Timestamp) -> Reply {
    let Caller::Agent(_, id) = caller else {
        return forbidden();
    };
    pool.end_session(id, now);
    Reply::empty(204)
}

fn next_message(
    pool: &mut Pool,
    request: &Request,
    caller: Caller,
    now: Timestamp,
) -> Option<Reply> {
    let Caller::Agent(_, id) = caller else {
        return Some(forbidden());
    };
    let session = pool
        .agents
        .get_mut(&id)
        .and_then(|agent| agent.session.as_mut());
    match session {
        Some((session, seen)) if request.query.get("sessionId") == Some(session) => *seen = now,
        _ => {
            let message = "The session is not found.";
            return Some(Reply::error(
                404,
                "TaskAgentSessionExpiredException",
                message,
            ));
        }
    }
    pool.assign(now);
    let job = pool
        .jobs
        .values_mut()
        .find(|job| job.is_of(id) && job.is_unfinished() && !job.delivered)?;
    job.delivered = true;
    Some(Reply::ok(json!({
        "messageId": job.id,
        "messageType": "PipelineAgentJobRequest",
        "body": json!({"requestId": job.id}).to_string(),
    })))
}

/// With `$top`, the newest, without the agents that match; with `completedRequestCount`, so many that are finished.
fn jobs(pool_id: u64, pool: &Pool, request: &Request, now: Timestamp) -> Reply {
    let number = |name: &str| request.query.get(name)?.parse::<usize>().ok();
    let newest_first = || pool.jobs.values().rev();
    if let Some(top) = number("$top") {
        let found = newest_first().take(top);
        return list(found.map(|job| job.json(pool_id, None, now)).collect());
    }
    let completed = number("completedRequestCount").unwrap_or(25);
    let unfinished = newest_first().filter(|job| job.is_unfinished());
    let finished = newest_first()
        .filter(|job| !job.is_unfinished())
        .take(completed);
    let found = unfinished.chain(finished);
    list(
        found
            .map(|job| job.json(pool_id, Some(pool.matched(job, now)), now))
            .collect(),
    )
}

/// An agent's renewal of its lock says that it has begun; a `result` ends the job.
fn one_job(
    pool_id: u64,
    pool: &mut Pool,
    id: u64,
    request: &Request,
    caller: Caller,
    now: Timestamp,
) -> Reply {
    let Some(job) = pool.jobs.get_mut(&id) else {
        return not_found(&format!("Job request {id}"));
    };
    if request.method == Method::PATCH {
        match caller {
            Caller::Agent(_, agent) if job.is_of(agent) => {}
            _ => return forbidden(),
        }
        match request.body["result"].as_str() {
            Some(result) if job.is_unfinished() => job.end(result, now),
            Some(_) => {}
            None => job.received = job.received.or(Some(now)),
        }
    }
    Reply::ok(job.json(pool_id, None, now))
}
