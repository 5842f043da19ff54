//! All that the dev vault knows, and what it answers: the core that every listener and the control endpoint share.
//!
//! Nothing here waits, reads a clock or touches a socket.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::entra;
use super::exchange::{Call, Moment, Outcome, Reply};
use super::faults::{Asked, Fault, Faults};
use super::identity::Identities;
use super::imds;
use super::keyvault;
use super::operation::{Kind, Operation};
use super::refusal::Refusal;
use super::requests::Requests;
use super::seed::Seed;
use super::store::Vault;
use super::tokens::{Denial, Tokens};

/// The public cloud's suffix, which vaults named without one get.
const DEFAULT_SUFFIX: &str = "vault.azure.net";

#[derive(Default)]
pub struct World {
    vaults: BTreeMap<String, Vault>,
    identities: Identities,
    tokens: Tokens,
    faults: BTreeMap<String, Faults>,
    /// Hosts that are served elsewhere, and where.
    forwards: BTreeMap<String, SocketAddr>,
    requests: Requests,
}

/// A vault's full host name: names without a dot are in the public cloud.
pub fn vault_host(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    if name.contains('.') {
        name
    } else {
        format!("{name}.{DEFAULT_SUFFIX}")
    }
}

/// A host that faults can be set for: a vault, `entra` or `imds`.
fn fault_host(name: &str) -> String {
    match name {
        "entra" => entra::HOST.to_owned(),
        "imds" => imds::HOST.to_owned(),
        name => vault_host(name),
    }
}

impl World {
    pub fn from_seed(seed: Seed, now: Timestamp) -> Result<Self, Refusal> {
        let mut world = Self {
            identities: Identities::new(seed.identities),
            ..Self::default()
        };
        for (name, vault) in seed.vaults {
            world.create_vault(&name, vault.access)?;
            for (secret, versions) in vault.secrets {
                for version in versions.0 {
                    let fresh = Uuid::new_v4();
                    let moment = Moment { now, fresh };
                    world.vault(&name)?.set(&secret, version, moment)?;
                }
            }
        }
        Ok(world)
    }

    /// Whether requests for this host are answered here, or forwarded.
    pub fn serves(&self, host: &str) -> bool {
        host == entra::HOST || self.vaults.contains_key(host) || self.forwards.contains_key(host)
    }

    /// Has tunnels to this host lead to an address.
    pub fn forward(&mut self, host: &str, address: SocketAddr) {
        self.forwards.insert(host.to_ascii_lowercase(), address);
    }

    /// Where tunnels to this host lead, if they don't end here.
    pub fn forwarded(&self, host: &str) -> Option<SocketAddr> {
        self.forwards.get(host).copied()
    }

    /// Creates a vault, or changes who may use it.
    pub fn create_vault(&mut self, name: &str, access: Option<Vec<String>>) -> Result<(), Refusal> {
        let host = vault_host(name);
        let valid = host
            .split('.')
            .all(|label| (1..=63).contains(&label.len()) && super::operation::is_valid_name(label));
        if !valid || self.is_reserved(&host) {
            return Err(Refusal::bad_parameter(format!(
                "{name} is not a vault's name or host name"
            )));
        }
        let access = access.map(|ids| ids.iter().map(|id| id.to_ascii_lowercase()).collect());
        self.vaults.entry(host).or_default().access = access;
        Ok(())
    }

    fn is_reserved(&self, host: &str) -> bool {
        host == entra::HOST || host == imds::HOST
    }

    pub fn vault(&mut self, name: &str) -> Result<&mut Vault, Refusal> {
        self.vaults
            .get_mut(&vault_host(name))
            .ok_or_else(|| Refusal::vault_not_found(name))
    }

    /// Replaces the faults of a vault, of `entra` or of `imds`.
    pub fn set_faults(&mut self, name: &str, faults: Vec<Fault>) -> Result<(), Refusal> {
        let host = fault_host(name);
        if !self.is_reserved(&host) && !self.vaults.contains_key(&host) {
            return Err(Refusal::vault_not_found(name));
        }
        if let Some(wrong) = faults.iter().find_map(|fault| fault.check().err()) {
            return Err(Refusal::bad_parameter(wrong));
        }
        let faults = Faults::new(faults);
        if let Some(vault) = self.vaults.get_mut(&host) {
            vault.remember(faults.has_lag());
        }
        self.faults.insert(host, faults);
        Ok(())
    }

    pub fn expire_tokens(&mut self, now: Timestamp) {
        self.tokens.expire(now);
    }

    pub fn set_token_lifetime(&mut self, lifetime: SignedDuration) {
        self.tokens.set_lifetime(lifetime);
    }

    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    pub fn reset_requests(&mut self) {
        self.requests = Requests::default();
    }

    /// Whether a proxy request for this host is taken.
    pub fn connect(&mut self, host: &str) -> bool {
        let serves = self.serves(host);
        if serves {
            self.requests.connect(host);
        } else {
            self.requests.refused_connect(host);
        }
        serves
    }

    pub fn meet_other_ca(&mut self, host: &str) -> bool {
        self.faults.get_mut(host).is_some_and(Faults::meet_other_ca)
    }

    pub fn has_other_ca(&self, host: &str) -> bool {
        self.faults.get(host).is_some_and(Faults::has_other_ca)
    }

    /// Answers one request to a host that is served here, and counts it.
    pub fn answer(&mut self, host: &str, call: &Call, moment: Moment) -> Outcome {
        let outcome = match host {
            imds::HOST => self.answer_imds(call, moment),
            entra::HOST => self.answer_entra(call, moment),
            host => self.answer_vault(host, call, moment),
        };
        match &outcome.reply {
            Some(reply) => self.requests.status(host, reply.status),
            None => self.requests.drop_of(host),
        }
        outcome
    }

    fn answer_imds(&mut self, call: &Call, moment: Moment) -> Outcome {
        let kind = if call.path == imds::TOKEN_PATH {
            Kind::Token
        } else {
            Kind::Other
        };
        self.requests.operation(imds::HOST, kind, None);
        let fault = self.meet(imds::HOST, Asked::of(kind));
        misbehave(fault, oauth_fault, || {
            imds::answer(&self.identities, &mut self.tokens, call, moment)
        })
    }

    fn answer_entra(&mut self, call: &Call, moment: Moment) -> Outcome {
        let operation = entra::Operation::parse(call);
        self.requests.operation(entra::HOST, operation.kind(), None);
        let fault = self.meet(entra::HOST, Asked::of(operation.kind()));
        misbehave(fault, oauth_fault, || {
            entra::answer(&self.identities, &mut self.tokens, operation, call, moment)
        })
    }

    /// In Key Vault's order: who asks, may they, what do they ask. Faults come once it is known who asks, so that
    /// "fail once" fails a client's request and not the challenge before it.
    fn answer_vault(&mut self, host: &str, call: &Call, moment: Moment) -> Outcome {
        let operation = Operation::parse(&call.method, &call.path);
        let asked = match &operation {
            Ok(operation) => Asked {
                kind: operation.kind(),
                secret: operation.secret(),
                next_page: keyvault::follows_link(call),
            },
            Err(_) => Asked::of(Kind::Other),
        };
        let mut outcome = match self.admit(host, call, asked, moment) {
            Err(challenge) => Outcome::from(challenge),
            Ok(client_id) => {
                self.requests.operation(host, asked.kind, asked.secret);
                let fault = self.meet(host, asked);
                let lag = fault.as_ref().and_then(|fault| fault.lag_ms);
                misbehave(
                    fault,
                    |fault, status| {
                        Refusal::injected(
                            status,
                            fault.innererror_code.as_deref(),
                            host,
                            &client_id,
                        )
                        .into()
                    },
                    || match self.vaults.get_mut(host) {
                        None => Refusal::vault_not_found(host).into(),
                        Some(vault) => permit(vault, host, &client_id, call, operation)
                            .map_or_else(Reply::from, |operation| match lag {
                                None => keyvault::answer(vault, host, operation, call, moment),
                                Some(lag) => {
                                    let mut was = vault.as_it_was(moment.before(lag));
                                    keyvault::answer(&mut was, host, operation, call, moment)
                                }
                            }),
                    },
                )
            }
        };
        if let Some(reply) = &mut outcome.reply {
            let now = self
                .vaults
                .get(host)
                .map_or(moment.now, |vault| vault.clock(moment));
            add_service_headers(reply, call, moment, now);
        }
        outcome
    }

    /// The client ID of whoever asks, or the challenge.
    fn admit(
        &mut self,
        host: &str,
        call: &Call,
        asked: Asked<'_>,
        moment: Moment,
    ) -> Result<String, Reply> {
        let suffix = host.split_once('.').map_or(host, |(_, suffix)| suffix);
        let resource = format!("https://{suffix}");
        let denial = match self.tokens.check(call.bearer(), &resource, moment.now) {
            Ok(token) => {
                let client_id = token.client_id.clone();
                let faults = self.faults.get_mut(host);
                if !faults.is_some_and(|faults| faults.meet_wrong_audience(asked)) {
                    return Ok(client_id);
                }
                Denial::WrongAudience {
                    found: resource.clone(),
                }
            }
            Err(denial) => denial,
        };
        if denial == Denial::Missing {
            self.requests.challenges += 1;
        } else {
            self.requests.rejected_tokens += 1;
        }
        Err(denial.challenge(self.identities.tenant(), &resource))
    }

    fn meet(&mut self, host: &str, asked: Asked<'_>) -> Option<Fault> {
        self.faults.get_mut(host)?.meet(asked)
    }
}

fn permit(
    vault: &Vault,
    host: &str,
    client_id: &str,
    call: &Call,
    operation: Result<Operation, Refusal>,
) -> Result<Operation, Refusal> {
    keyvault::check_api_version(call)?;
    let operation = operation?;
    if vault
        .access
        .as_ref()
        .is_some_and(|access| !access.contains(client_id))
    {
        return Err(Refusal::forbidden_by_rbac(host, client_id));
    }
    Ok(operation)
}

/// Does what the fault says, or else what would have been done.
fn misbehave(
    fault: Option<Fault>,
    fail: impl FnOnce(&Fault, u16) -> Reply,
    behave: impl FnOnce() -> Reply,
) -> Outcome {
    let Some(fault) = fault else {
        return behave().into();
    };
    let reply = match fault.status {
        _ if fault.drop => None,
        Some(status) => Some(fail(&fault, status)),
        None => Some(behave()),
    };
    let reply = reply.map(|reply| match fault.retry_after {
        Some(seconds) => reply.with("retry-after", seconds.to_string()),
        None => reply,
    });
    Outcome {
        delay: Duration::from_millis(fault.delay_ms.unwrap_or(0)),
        reply,
    }
}

fn oauth_fault(fault: &Fault, status: u16) -> Reply {
    let default = match status {
        429 | 500.. => "temporarily_unavailable",
        401 => "invalid_client",
        _ => "invalid_request",
    };
    let error = fault.innererror_code.as_deref().unwrap_or(default);
    Reply::oauth_error(
        status,
        error,
        "AADSTS90033: A transient error has occurred. Please try again.",
    )
}

fn add_service_headers(reply: &mut Reply, call: &Call, moment: Moment, now: Timestamp) {
    let mut add = |name: &'static str, value: String| reply.headers.push((name, value));
    // A year that HTTP has no form for has no `Date`.
    if let Ok(date) = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now) {
        add("date", date);
    }
    add("x-ms-request-id", moment.fresh.to_string());
    if let Some(id) = call.header("x-ms-client-request-id") {
        add("x-ms-client-request-id", id.to_owned());
    }
    add("x-ms-keyvault-service-version", "1.9.2000.1".to_owned());
    add("x-ms-keyvault-region", "loopback".to_owned());
    add("cache-control", "no-cache".to_owned());
    add("x-content-type-options", "nosniff".to_owned());
}

#[cfg(test)]
mod tests;
