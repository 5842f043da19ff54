//! Attributes of certificates and keys.
//!
//! REST reference: "CertificateAttributes", "KeyAttributes".

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::object::RECOVERABLE_DAYS;

/// Unix seconds, as all times here.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    pub enabled: bool,
    pub nbf: Option<i64>,
    pub exp: Option<i64>,
    pub created: i64,
    pub updated: i64,
}

/// Attributes in a request; what is left out stays as it is.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Wanted {
    pub enabled: Option<bool>,
    pub nbf: Option<i64>,
    pub exp: Option<i64>,
}

impl Attributes {
    pub fn new(wanted: Wanted, now: i64) -> Self {
        Self {
            enabled: wanted.enabled.unwrap_or(true),
            nbf: wanted.nbf,
            exp: wanted.exp,
            created: now,
            updated: now,
        }
    }

    pub fn change(&mut self, wanted: Wanted, now: i64) {
        self.enabled = wanted.enabled.unwrap_or(self.enabled);
        self.nbf = wanted.nbf.or(self.nbf);
        self.exp = wanted.exp.or(self.exp);
        self.updated = now;
    }

    pub fn json(&self) -> Json {
        let mut json = json!({
            "enabled": self.enabled,
            "created": self.created,
            "updated": self.updated,
            "recoveryLevel": "Recoverable+Purgeable",
            "recoverableDays": RECOVERABLE_DAYS,
        });
        for (name, time) in [("nbf", self.nbf), ("exp", self.exp)] {
            if let Some(time) = time {
                json[name] = json!(time);
            }
        }
        json
    }
}
