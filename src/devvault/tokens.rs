//! Access tokens: issued for one audience and one identity, and good until they expire.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::exchange::{Moment, Reply};
use super::refusal::Refusal;

/// How long an expired token is remembered, so that it is called expired and not unknown.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(24);

#[derive(Clone)]
pub struct Token {
    pub audience: String,
    /// In lower case.
    pub client_id: String,
    expires: Timestamp,
}

pub struct Tokens {
    lifetime: SignedDuration,
    issued: HashMap<String, Token>,
}

/// A token as it is handed out.
pub struct Issued {
    pub token: String,
    pub lifetime_seconds: i64,
    pub expires_on: i64,
}

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// There is no token: how every client starts.
    Missing,
    Unknown,
    Expired,
    WrongAudience {
        found: String,
    },
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            // What Entra gives to applications is 60 to 90 minutes; to managed identities 24 hours.
            lifetime: SignedDuration::from_hours(1),
            issued: HashMap::new(),
        }
    }
}

impl Tokens {
    pub fn set_lifetime(&mut self, lifetime: SignedDuration) {
        self.lifetime = lifetime;
    }

    pub fn issue(
        &mut self,
        audience: &str,
        client_id: &str,
        tenant: &str,
        moment: Moment,
    ) -> Issued {
        let expires = moment
            .now
            .saturating_add(self.lifetime)
            .unwrap_or(Timestamp::MAX);
        let claims = json!({
            "aud": audience,
            "iss": format!("https://sts.windows.net/{tenant}/"),
            "appid": client_id,
            "tid": tenant,
            "iat": moment.seconds(),
            "nbf": moment.seconds(),
            "exp": expires.as_second(),
        });
        // Looks like a JWT, for clients that read one; only the random part makes it a token.
        let token = format!(
            "{}.{}.{}",
            URL_SAFE_NO_PAD.encode(r#"{"typ":"JWT","alg":"none"}"#),
            URL_SAFE_NO_PAD.encode(claims.to_string()),
            URL_SAFE_NO_PAD.encode(moment.fresh.as_bytes()),
        );
        self.issued
            .retain(|_, token| moment.now.duration_since(token.expires) < REMEMBERED);
        self.issued.insert(
            token.clone(),
            Token {
                audience: audience.trim_end_matches('/').to_owned(),
                client_id: client_id.to_ascii_lowercase(),
                expires,
            },
        );
        Issued {
            token,
            lifetime_seconds: self.lifetime.as_secs(),
            expires_on: expires.as_second(),
        }
    }

    pub fn check(
        &self,
        bearer: Option<&str>,
        audience: &str,
        now: Timestamp,
    ) -> Result<&Token, Denial> {
        let token = self
            .issued
            .get(bearer.ok_or(Denial::Missing)?)
            .ok_or(Denial::Unknown)?;
        if token.expires <= now {
            return Err(Denial::Expired);
        }
        if token.audience != audience {
            return Err(Denial::WrongAudience {
                found: token.audience.clone(),
            });
        }
        Ok(token)
    }

    /// Ends all tokens issued so far.
    pub fn expire(&mut self, now: Timestamp) {
        for token in self.issued.values_mut() {
            token.expires = token.expires.min(now);
        }
    }
}

impl Denial {
    /// The 401 that says where tokens come from and for what.
    ///
    /// REST reference: "Authentication, requests and responses", section "Authentication".
    pub fn challenge(&self, tenant: &str, resource: &str) -> Reply {
        let message = match self {
            Self::Missing => "AKV10000: Request is missing a Bearer or PoP token.".to_owned(),
            Self::Unknown => {
                "AKV10046: Unable to resolve the key used for signature validation.".to_owned()
            }
            Self::Expired => "AKV10096: The token is expired.".to_owned(),
            Self::WrongAudience { found } => {
                format!("AKV10022: Invalid audience. Expected {resource}, found: {found}.")
            }
        };
        let mut header = format!(
            "Bearer authorization=\"https://login.microsoftonline.com/{tenant}\", resource=\"{resource}\""
        );
        if *self != Self::Missing {
            header.push_str(&format!(
                ", error=\"invalid_token\", error_description=\"{message}\""
            ));
        }
        Reply::from(Refusal::unauthorized(message)).with("www-authenticate", header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const VAULT: &str = "https://vault.azure.net";

    fn at(second: i64) -> Moment {
        Moment {
            now: Timestamp::from_second(second).unwrap(),
            fresh: Uuid::new_v4(),
        }
    }

    #[test]
    fn a_token_is_good_for_its_audience_until_it_expires() {
        let mut tokens = Tokens::default();
        tokens.set_lifetime(SignedDuration::from_secs(10));
        let issued = tokens.issue("https://vault.azure.net/", "C", "t", at(0));
        assert_eq!(issued.expires_on, 10);
        let token = Some(issued.token.as_str());
        assert!(
            tokens
                .check(token, VAULT, at(9).now)
                .is_ok_and(|token| token.client_id == "c")
        );
        assert_eq!(
            tokens.check(token, VAULT, at(10).now).err(),
            Some(Denial::Expired)
        );
        let elsewhere = tokens
            .check(token, "https://vault.azure.cn", at(9).now)
            .err();
        assert_eq!(
            elsewhere,
            Some(Denial::WrongAudience {
                found: VAULT.to_owned()
            })
        );
        assert_eq!(
            tokens.check(Some("made-up"), VAULT, at(0).now).err(),
            Some(Denial::Unknown)
        );
        assert_eq!(
            tokens.check(None, VAULT, at(0).now).err(),
            Some(Denial::Missing)
        );
    }

    #[test]
    fn expiring_all_leaves_later_ones_alone() {
        let mut tokens = Tokens::default();
        let before = tokens.issue(VAULT, "c", "t", at(0));
        tokens.expire(at(1).now);
        let after = tokens.issue(VAULT, "c", "t", at(1));
        assert!(tokens.check(Some(&before.token), VAULT, at(1).now).is_err());
        assert!(tokens.check(Some(&after.token), VAULT, at(1).now).is_ok());
    }

    #[test]
    fn a_challenge_names_an_error_only_where_there_was_a_token() {
        let header = |denial: Denial| denial.challenge("t", VAULT).headers[0].1.clone();
        assert_eq!(
            header(Denial::Missing),
            "Bearer authorization=\"https://login.microsoftonline.com/t\", resource=\"https://vault.azure.net\""
        );
        assert!(header(Denial::Expired).contains("error=\"invalid_token\""));
    }
}
