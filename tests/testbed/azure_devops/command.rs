//! What is done to an organization from outside its API: by its users in the portal, by pipelines, by tests.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::job::Job;
use super::organization::{Access, Agent, Organization, Pool};

/// As JSON: `{"addPool": {"name": "linux"}}`, and `{"setOutage": {"outage": "none"}}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Command {
    /// Answers with the pool's `id`.
    AddPool {
        name: String,
        id: Option<u64>,
    },
    /// Makes a personal access token, or gives one other access.
    SetToken {
        token: String,
        #[serde(default)]
        access: Access,
    },
    /// Lets an Entra application in, under its client ID.
    SetIdentity {
        client_id: String,
        #[serde(default)]
        access: Access,
    },
    /// Answers with `requestIds`. A job without `seconds` runs until `finishJobs`.
    QueueJobs {
        pool: u64,
        #[serde(default = "one")]
        count: u32,
        seconds: Option<f64>,
        #[serde(default)]
        demands: Vec<String>,
    },
    /// Has all jobs of the pool that have no `seconds` succeed, those that are still queued too.
    FinishJobs {
        pool: u64,
    },
    /// Registers an agent that isn't there, as one that was killed leaves it. Answers with its `id`.
    AddAgent {
        pool: u64,
        name: String,
        #[serde(default = "yes")]
        enabled: bool,
        #[serde(default)]
        online: bool,
        #[serde(default)]
        capabilities: BTreeMap<String, String>,
        /// How long it has been as it is.
        #[serde(default)]
        for_seconds: i64,
    },
    SetOutage {
        outage: Outage,
    },
}

fn one() -> u32 {
    1
}

fn yes() -> bool {
    true
}

/// How an organization fails everyone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outage {
    #[default]
    None,
    /// Connections are cut.
    Unreachable,
    /// Status 503.
    Unavailable,
    /// What registers an agent is answered only once this is over.
    HeldRegistrations,
    /// Agents that ask for messages are answered only once this is over.
    HeldMessages,
}

impl Organization {
    pub fn run(&mut self, command: Command, now: Timestamp) -> Result<Json, String> {
        match command {
            Command::AddPool { name, id } => {
                let id = id.unwrap_or_else(|| self.next_id());
                self.pools.insert(id, Pool::named(name));
                Ok(json!({"id": id}))
            }
            Command::SetToken { token, access } => {
                self.tokens.insert(token, access);
                Ok(Json::Null)
            }
            Command::SetIdentity { client_id, access } => {
                self.identities.insert(client_id, access);
                Ok(Json::Null)
            }
            Command::QueueJobs {
                pool,
                count,
                seconds,
                demands,
            } => {
                let ids: Vec<u64> = (0..count).map(|_| self.next_id()).collect();
                let pool = self.pool_mut(pool)?;
                for id in &ids {
                    let job = Job::queued(*id, now, demands.clone(), seconds);
                    pool.jobs.insert(*id, job);
                }
                pool.assign(now);
                Ok(json!({"requestIds": ids}))
            }
            Command::FinishJobs { pool } => {
                for job in self.pool_mut(pool)?.jobs.values_mut() {
                    job.may_finish = true;
                }
                Ok(Json::Null)
            }
            Command::AddAgent {
                pool,
                name,
                enabled,
                online,
                capabilities,
                for_seconds,
            } => {
                let id = self.next_id();
                let since = now - SignedDuration::from_secs(for_seconds);
                let mut agent = Agent::registered(id, name, since);
                agent.enabled = enabled;
                agent.always_online = online;
                agent.capabilities = capabilities;
                self.pool_mut(pool)?.agents.insert(id, agent);
                Ok(json!({"id": id}))
            }
            Command::SetOutage { outage } => {
                self.outage = outage;
                Ok(Json::Null)
            }
        }
    }

    fn pool_mut(&mut self, id: u64) -> Result<&mut Pool, String> {
        let pool = self.pools.get_mut(&id);
        pool.ok_or_else(|| format!("there is no pool {id}"))
    }
}
