//! What an organization knows and decides: who may do what, which agents there are, and which job goes to which.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::command::Outage;
use super::job::{Job, satisfies};

/// An agent that hasn't asked for messages for so long is offline.
const OFFLINE_AFTER: SignedDuration = SignedDuration::from_secs(30);

#[derive(Debug, Default)]
pub struct Organization {
    /// Personal access tokens.
    pub tokens: BTreeMap<String, Access>,
    /// Entra applications by client ID.
    pub identities: BTreeMap<String, Access>,
    pub pools: BTreeMap<u64, Pool>,
    pub outage: Outage,
    /// Every request that was answered.
    pub journal: Vec<Call>,
    /// How many requests were held back so far.
    pub held: u64,
    last_id: u64,
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Access {
    /// Scope *Agent Pools (read, manage)*, and an administrator of the pools.
    #[default]
    Manage,
    /// Scope *Agent Pools (read)*.
    Read,
    /// Another scope.
    None,
    /// Expired or revoked: 401.
    Expired,
    /// Expired, and the sign-in page is shown: 203 and HTML.
    SignIn,
}

/// A request as the journal has it.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    pub time: Timestamp,
    pub method: String,
    /// After `_apis/`, with its query.
    pub path: String,
    /// The token in clear: this is how a test sees which one was used.
    pub token: String,
    pub status: u16,
}

#[derive(Debug)]
pub struct Pool {
    pub name: String,
    pub agents: BTreeMap<u64, Agent>,
    pub jobs: BTreeMap<u64, Job>,
}

#[derive(Clone, Debug)]
pub struct Agent {
    pub id: u64,
    pub name: String,
    pub enabled: bool,
    pub capabilities: BTreeMap<String, String>,
    pub created: Timestamp,
    pub status_changed: Timestamp,
    /// Its ID and when it last asked for messages.
    pub session: Option<(String, Timestamp)>,
    /// What the agent signs in with once it is registered.
    pub credential: String,
    /// Counts as online without a session.
    pub always_online: bool,
}

impl Organization {
    pub fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The agents of the pool of this name, by name.
    pub fn agents(&self, pool: &str) -> BTreeMap<&str, &Agent> {
        let pool = self.pools.values().find(|candidate| candidate.name == pool);
        pool.into_iter()
            .flat_map(|pool| pool.agents.values())
            .map(|agent| (agent.name.as_str(), agent))
            .collect()
    }

    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.pools.values().flat_map(|pool| pool.jobs.values())
    }

    /// All of it, for a test in another language.
    pub fn json(&self, now: Timestamp) -> Json {
        let pools = self.pools.iter().map(|(id, pool)| {
            json!({
                "id": id,
                "name": pool.name,
                "agents": pool.agents.values().map(|agent| agent.json(now, true)).collect::<Vec<_>>(),
                "jobs": pool.jobs.values().map(|job| job.json(*id, None, now)).collect::<Vec<_>>(),
            })
        });
        json!({"outage": self.outage, "held": self.held, "pools": pools.collect::<Vec<_>>(), "journal": self.journal})
    }
}

impl Pool {
    pub fn named(name: String) -> Self {
        Self {
            name,
            agents: BTreeMap::new(),
            jobs: BTreeMap::new(),
        }
    }

    /// The job that an agent has and that isn't finished.
    pub fn job_of(&self, agent: u64) -> Option<&Job> {
        self.jobs
            .values()
            .find(|job| job.is_of(agent) && job.is_unfinished())
    }

    /// Gives queued jobs, oldest first, to agents that are enabled, online and idle.
    pub fn assign(&mut self, now: Timestamp) {
        let queued: Vec<u64> = self
            .jobs
            .values()
            .filter(|job| job.agent.is_none() && job.is_unfinished())
            .map(|job| job.id)
            .collect();
        for id in queued {
            let demands = &self.jobs[&id].demands;
            let idle = self.agents.values().find(|agent| {
                agent.enabled
                    && agent.session.is_some()
                    && agent.is_online(now)
                    && self.job_of(agent.id).is_none()
                    && demands.iter().all(|demand| satisfies(agent, demand))
            });
            let Some((agent, name)) = idle.map(|agent| (agent.id, agent.name.clone())) else {
                continue;
            };
            if let Some(job) = self.jobs.get_mut(&id) {
                job.agent = Some((agent, name));
                job.assigned = Some(now);
            }
        }
    }

    /// The agents that have what the job demands, whether they are there or not.
    pub fn matched(&self, job: &Job, now: Timestamp) -> Vec<Json> {
        self.agents
            .values()
            .filter(|agent| job.demands.iter().all(|demand| satisfies(agent, demand)))
            .map(|agent| agent.json(now, false))
            .collect()
    }

    /// Ends an agent's session. A job that it had begun is lost; one that it hadn't is queued again.
    pub fn end_session(&mut self, agent: u64, now: Timestamp) {
        if let Some(agent) = self.agents.get_mut(&agent) {
            agent.session = None;
            agent.status_changed = now;
        }
        for job in self.jobs.values_mut() {
            if job.is_of(agent) && job.is_unfinished() {
                if job.received.is_some() {
                    job.end("abandoned", now);
                } else {
                    job.queue_again();
                }
            }
        }
    }
}

impl Agent {
    pub fn registered(id: u64, name: String, now: Timestamp) -> Self {
        Self {
            id,
            name,
            enabled: true,
            capabilities: BTreeMap::new(),
            created: now,
            status_changed: now,
            session: None,
            credential: uuid::Uuid::new_v4().to_string(),
            always_online: false,
        }
    }

    pub fn is_online(&self, now: Timestamp) -> bool {
        let seen = self.session.as_ref().map(|(_, seen)| *seen);
        self.always_online || seen.is_some_and(|seen| now < seen + OFFLINE_AFTER)
    }

    pub fn json(&self, now: Timestamp, capabilities: bool) -> Json {
        let mut json = json!({
            "id": self.id,
            "name": self.name,
            "version": "4.255.0",
            "osDescription": "Linux",
            "enabled": self.enabled,
            "status": if self.is_online(now) { "online" } else { "offline" },
            "provisioningState": "Provisioned",
            "accessPoint": "CodexAccessMapping",
            "maxParallelism": 1,
            "createdOn": self.created,
            "statusChangedOn": self.status_changed,
        });
        if capabilities {
            json["systemCapabilities"] = json!(self.capabilities);
        }
        json
    }
}
