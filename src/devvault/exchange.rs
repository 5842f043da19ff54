//! What goes in and out of the core: one HTTP request, the moment it came, and the reply.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderMap, Method};
use jiff::{SignedDuration, Timestamp};
use reqwest::Url;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::refusal::Refusal;

/// When a request came, and a fresh random number for what it may create. Passing both in keeps the core a function
/// of its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    pub now: Timestamp,
    pub fresh: Uuid,
}

impl Moment {
    pub fn current() -> Self {
        Self {
            now: Timestamp::now(),
            fresh: Uuid::new_v4(),
        }
    }

    pub fn seconds(&self) -> i64 {
        self.now.as_second()
    }

    /// So many milliseconds ago.
    pub fn before(&self, milliseconds: u64) -> Timestamp {
        let ago = SignedDuration::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX));
        self.now.saturating_sub(ago).unwrap_or(Timestamp::MIN)
    }
}

/// One HTTP request, its body read. Not `Debug`: headers and bodies hold tokens and values.
#[derive(Clone)]
pub struct Call {
    pub method: Method,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Call {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("bearer")
            .then_some(token.trim())
    }

    /// Decodes `application/x-www-form-urlencoded`, which queries and Entra's request bodies are. A name given twice
    /// counts as its last.
    pub fn pairs(encoded: &str) -> BTreeMap<String, String> {
        let Ok(mut url) = Url::parse("http://form.invalid/") else {
            return BTreeMap::new();
        };
        url.set_query(Some(encoded));
        url.query_pairs().into_owned().collect()
    }
}

/// The answer to a [`Call`].
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Option<Json>,
}

impl Reply {
    pub fn ok(body: Json) -> Self {
        Self::json(200, body)
    }

    pub fn json(status: u16, body: Json) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Some(body),
        }
    }

    pub fn no_content() -> Self {
        Self {
            status: 204,
            headers: Vec::new(),
            body: None,
        }
    }

    /// The two-member error body that Entra and IMDS share.
    pub fn oauth_error(status: u16, error: &str, description: &str) -> Self {
        Self::json(
            status,
            json!({"error": error, "error_description": description}),
        )
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        Self::json(refusal.status, refusal.body())
    }
}

/// What the connection does next.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How long to wait first.
    pub delay: Duration,
    /// Nothing means that the connection is cut.
    pub reply: Option<Reply>,
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self {
            delay: Duration::ZERO,
            reply: Some(reply),
        }
    }
}
