//! Misbehaviour to order: which requests of a host fail, how, and how often.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::operation::Kind;

/// A fault. What it doesn't match on matches everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fault {
    #[serde(rename = "match")]
    pub matching: Match,
    /// For how many requests (for `otherCa`: connections) it holds; unlimited if left out.
    pub times: Option<u32>,
    /// Answer with this instead; if left out, `delayMs` alone delays the true answer.
    pub status: Option<u16>,
    pub innererror_code: Option<String>,
    /// Seconds, as the `Retry-After` header.
    pub retry_after: Option<u32>,
    pub delay_ms: Option<u64>,
    /// Answer as the vault was so long ago, but not before this fault was set: a replica that lags.
    pub lag_ms: Option<u64>,
    /// Cut the connection without an answer.
    pub drop: bool,
    /// Show a certificate of a CA that nobody trusts.
    pub other_ca: bool,
    /// Treat good tokens as if they were for another audience.
    pub wrong_audience: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    pub operation: Option<Kind>,
    /// A secret's name, in any case.
    pub secret: Option<String>,
    /// Whether it follows a `nextLink`, or must not.
    #[serde(rename = "nextPage")]
    pub next_page: Option<bool>,
}

/// A request, as far as faults tell one from another.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub kind: Kind,
    pub secret: Option<&'a str>,
    pub next_page: bool,
}

impl Asked<'_> {
    /// A request that is about no secret.
    pub fn of(kind: Kind) -> Self {
        Self {
            kind,
            secret: None,
            next_page: false,
        }
    }
}

impl Match {
    fn covers(&self, asked: Asked<'_>) -> bool {
        self.operation
            .is_none_or(|operation| operation == asked.kind)
            && self.secret.as_ref().is_none_or(|wanted| {
                asked
                    .secret
                    .is_some_and(|secret| wanted.eq_ignore_ascii_case(secret))
            })
            && self
                .next_page
                .is_none_or(|next_page| next_page == asked.next_page)
    }
}

impl Fault {
    pub fn status(status: u16) -> Self {
        Self {
            status: Some(status),
            ..Self::default()
        }
    }

    pub fn delay(delay: Duration) -> Self {
        Self {
            delay_ms: Some(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
            ..Self::default()
        }
    }

    pub fn drop() -> Self {
        Self {
            drop: true,
            ..Self::default()
        }
    }

    pub fn lag(lag: Duration) -> Self {
        Self {
            lag_ms: Some(u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
            ..Self::default()
        }
    }

    pub fn on_next_pages(mut self) -> Self {
        self.matching.next_page = Some(true);
        self
    }

    pub fn on(mut self, operation: Kind) -> Self {
        self.matching.operation = Some(operation);
        self
    }

    pub fn for_secret(mut self, name: &str) -> Self {
        self.matching.secret = Some(name.to_owned());
        self
    }

    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// What is wrong with this fault, if anything is.
    pub fn check(&self) -> Result<(), &'static str> {
        if self
            .status
            .is_some_and(|status| !(400..=599).contains(&status))
        {
            return Err("status must be from 400 to 599");
        }
        if self.status.is_none()
            && self.delay_ms.is_none()
            && self.lag_ms.is_none()
            && !(self.drop || self.other_ca || self.wrong_audience)
        {
            return Err("a fault needs status, delayMs, lagMs, drop, otherCa or wrongAudience");
        }
        Ok(())
    }
}

/// A host's faults, in order: the first that matches and isn't used up counts.
#[derive(Clone, Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub fn new(faults: Vec<Fault>) -> Self {
        Self(faults)
    }

    /// The fault that a request meets, once it is known who asks.
    pub fn meet(&mut self, asked: Asked<'_>) -> Option<Fault> {
        self.take(|fault| !fault.other_ca && !fault.wrong_audience && fault.matching.covers(asked))
    }

    pub fn meet_wrong_audience(&mut self, asked: Asked<'_>) -> bool {
        self.take(|fault| fault.wrong_audience && fault.matching.covers(asked))
            .is_some()
    }

    /// Whether one of them needs to know what was.
    pub fn has_lag(&self) -> bool {
        self.0.iter().any(|fault| fault.lag_ms.is_some())
    }

    /// Whether a new connection is served with the other CA's certificate.
    pub fn meet_other_ca(&mut self) -> bool {
        self.take(|fault| fault.other_ca).is_some()
    }

    /// Whether the next connection would be, so that open ones can be closed.
    pub fn has_other_ca(&self) -> bool {
        self.0
            .iter()
            .any(|fault| fault.other_ca && fault.times != Some(0))
    }

    fn take(&mut self, wanted: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let fault = self
            .0
            .iter_mut()
            .find(|fault| fault.times != Some(0) && wanted(fault))?;
        fault.times = fault.times.map(|times| times - 1);
        Some(fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(kind: Kind, secret: Option<&str>) -> Asked<'_> {
        Asked {
            kind,
            secret,
            next_page: false,
        }
    }

    #[test]
    fn a_fault_matches_by_operation_and_secret_until_used_up() {
        let mut faults = Faults::new(vec![
            Fault::status(429).on(Kind::Get).for_secret("A").times(1),
        ]);
        assert!(faults.meet(asked(Kind::List, None)).is_none());
        assert!(faults.meet(asked(Kind::Get, Some("b"))).is_none());
        assert!(faults.meet(asked(Kind::Get, Some("a"))).is_some());
        assert!(faults.meet(asked(Kind::Get, Some("a"))).is_none());
    }

    #[test]
    fn a_fault_can_be_of_those_who_follow_a_link() {
        let mut faults = Faults::new(vec![Fault::status(400).on(Kind::List).on_next_pages()]);
        let first = asked(Kind::List, None);
        assert!(faults.meet(first).is_none());
        let next = Asked {
            next_page: true,
            ..first
        };
        assert!(faults.meet(next).is_some());
    }

    #[test]
    fn the_first_match_counts() {
        let mut faults = Faults::new(vec![Fault::status(503).times(1), Fault::status(429)]);
        let statuses = [(); 3].map(|()| {
            faults
                .meet(asked(Kind::Get, None))
                .and_then(|fault| fault.status)
        });
        assert_eq!(statuses, [Some(503), Some(429), Some(429)]);
    }

    #[test]
    fn a_fault_is_read_as_the_control_endpoint_takes_it() {
        let text = r#"{"match":{"operation":"listVersions"},"status":403,"innererrorCode":"ForbiddenByPolicy",
                       "retryAfter":2,"delayMs":5}"#;
        let fault: Fault = serde_json::from_str(text).unwrap();
        assert_eq!(fault.matching.operation, Some(Kind::ListVersions));
        assert_eq!(fault.innererror_code.as_deref(), Some("ForbiddenByPolicy"));
        assert!(fault.check().is_ok());
        assert!(serde_json::from_str::<Fault>(r#"{"stauts":403}"#).is_err());
        assert!(Fault::default().check().is_err());
        assert!(Fault::status(200).check().is_err());
    }
}
