//! A job request: a pipeline's job on its way through a pool.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value as Json, json};

use super::organization::Agent;

#[derive(Clone, Debug)]
pub struct Job {
    pub id: u64,
    pub demands: Vec<String>,
    pub queued: Timestamp,
    /// The agent, with the name that it had.
    pub agent: Option<(u64, String)>,
    pub assigned: Option<Timestamp>,
    /// Whether the agent was told of it.
    pub delivered: bool,
    /// When the agent said that it had begun.
    pub received: Option<Timestamp>,
    pub finished: Option<Timestamp>,
    /// `succeeded`, `failed`, `canceled` or `abandoned`.
    pub result: Option<String>,
    /// How long it runs; without this, until `may_finish`.
    seconds: Option<f64>,
    pub may_finish: bool,
}

impl Job {
    pub fn queued(id: u64, now: Timestamp, demands: Vec<String>, seconds: Option<f64>) -> Self {
        Self {
            id,
            demands,
            queued: now,
            agent: None,
            assigned: None,
            delivered: false,
            received: None,
            finished: None,
            result: None,
            seconds,
            may_finish: false,
        }
    }

    pub fn is_unfinished(&self) -> bool {
        self.result.is_none()
    }

    pub fn is_of(&self, agent: u64) -> bool {
        self.agent.as_ref().is_some_and(|(id, _)| *id == agent)
    }

    pub fn end(&mut self, result: &str, now: Timestamp) {
        self.result = Some(result.to_owned());
        self.finished = Some(now);
    }

    pub fn queue_again(&mut self) {
        self.agent = None;
        self.assigned = None;
        self.delivered = false;
    }

    /// Whether its steps are through.
    fn is_through(&self, now: Timestamp) -> bool {
        match (self.seconds, self.received) {
            (Some(seconds), Some(received)) => {
                now >= received + SignedDuration::from_millis((seconds * 1000.0) as i64)
            }
            _ => self.may_finish,
        }
    }

    /// As the API tells it. With `matched`, the agents that could take it are told too.
    pub fn json(&self, pool: u64, matched: Option<Vec<Json>>, now: Timestamp) -> Json {
        let plan = format!("00000000-0000-4000-8000-{:012}", self.id);
        let mut json = json!({
            "requestId": self.id,
            "queueTime": self.queued,
            "serviceOwner": "00025394-6065-48ca-87d9-7f5672854ef7",
            "hostId": "00000000-0000-4000-8000-000000000001",
            "scopeId": "00000000-0000-4000-8000-000000000002",
            "planType": "Build",
            "planId": plan,
            "jobId": plan,
            "demands": self.demands,
            "definition": {"id": 1, "name": "pipeline"},
            "owner": {"id": self.id, "name": format!("run {}", self.id)},
            // `Through` is how a stub's job knows that its steps are through.
            "data": {"ParallelismTag": "Private", "IsScheduledKey": "False", "Through": self.is_through(now).to_string()},
            "poolId": pool,
            "orchestrationId": format!("{plan}.job"),
            "priority": 0,
        });
        for (name, time) in [
            ("assignTime", self.assigned),
            ("receiveTime", self.received),
            ("finishTime", self.finished),
        ] {
            if let Some(time) = time {
                json[name] = json!(time);
            }
        }
        if let Some(result) = &self.result {
            json["result"] = json!(result);
        }
        if let Some((id, name)) = &self.agent {
            json["reservedAgent"] =
                json!({"id": id, "name": name, "enabled": true, "status": "online"});
        }
        if let Some(matched) = matched {
            json["matchedAgents"] = json!(matched);
        }
        json
    }
}

/// Whether an agent has what a demand asks for: `name`, `name -equals value`, or `Agent.Version -gtVersion x`, which every
/// stub satisfies.
pub fn satisfies(agent: &Agent, demand: &str) -> bool {
    match demand.split_once(" -equals ") {
        Some((name, value)) => {
            agent.capabilities.get(name.trim()).map(String::as_str) == Some(value.trim())
        }
        None => demand.starts_with("Agent.Version") || agent.capabilities.contains_key(demand),
    }
}
