//! What was asked: counts that tests read to learn how a client behaves.

use std::collections::BTreeMap;

use serde::Serialize;

use super::operation::Kind;

/// Counts by host. Hosts are full names; Entra's is `login.microsoftonline.com` and IMDS' `169.254.169.254`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Requests {
    /// Requests that were let in, failed by a fault or not.
    pub operations: BTreeMap<String, BTreeMap<Kind, u64>>,
    /// All answers, challenges among them.
    pub statuses: BTreeMap<String, BTreeMap<u16, u64>>,
    /// "Get Secret" requests that were let in, by the secret's name as it was asked for.
    pub secret_gets: BTreeMap<String, BTreeMap<String, u64>>,
    /// Requests without a token, which were answered by a challenge.
    pub challenges: u64,
    /// Requests with a token that was expired, unknown or for another audience.
    pub rejected_tokens: u64,
    /// Connections cut by a fault.
    pub dropped: BTreeMap<String, u64>,
    /// CONNECT requests for hosts that are served here.
    pub connects: BTreeMap<String, u64>,
    /// Proxy requests, CONNECT or not, for hosts that aren't.
    pub refused_connects: BTreeMap<String, u64>,
}

impl Requests {
    pub fn operation(&mut self, host: &str, kind: Kind, secret: Option<&str>) {
        *self
            .operations
            .entry(host.to_owned())
            .or_default()
            .entry(kind)
            .or_default() += 1;
        if let (Kind::Get, Some(secret)) = (kind, secret) {
            count(self.secret_gets.entry(host.to_owned()).or_default(), secret);
        }
    }

    pub fn status(&mut self, host: &str, status: u16) {
        *self
            .statuses
            .entry(host.to_owned())
            .or_default()
            .entry(status)
            .or_default() += 1;
    }

    pub fn drop_of(&mut self, host: &str) {
        count(&mut self.dropped, host);
    }

    pub fn connect(&mut self, host: &str) {
        count(&mut self.connects, host);
    }

    pub fn refused_connect(&mut self, host: &str) {
        count(&mut self.refused_connects, host);
    }

    /// How often one operation of a host was let in.
    pub fn count(&self, host: &str, kind: Kind) -> u64 {
        self.operations
            .get(host)
            .and_then(|kinds| kinds.get(&kind))
            .copied()
            .unwrap_or(0)
    }

    /// How often a secret of a vault was read.
    pub fn gets_of(&self, host: &str, secret: &str) -> u64 {
        self.secret_gets
            .get(host)
            .and_then(|secrets| secrets.get(secret))
            .copied()
            .unwrap_or(0)
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    *counts.entry(name.to_owned()).or_default() += 1;
}
