//! A secret, its versions, and how they look on the wire.
//!
//! REST reference: "SecretBundle", "SecretItem", "DeletedSecretBundle", "SecretAttributes".

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::object::{Object, RECOVERABLE_DAYS};

pub type Tags = BTreeMap<String, String>;

/// A secret's value, which can't be printed by accident.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Value(String);

impl Value {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// A new version of a secret: the body of the control endpoint's PUT, and an entry of the seed.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewSecret {
    pub value: Value,
    pub content_type: Option<String>,
    pub tags: Option<Tags>,
    /// True if left out.
    pub enabled: Option<bool>,
    /// Unix seconds, as all times here.
    pub nbf: Option<i64>,
    pub exp: Option<i64>,
    /// Whether it backs a certificate.
    #[serde(default)]
    pub managed: bool,
    /// Now if left out. A restored vault has times of the past.
    pub created: Option<i64>,
    pub updated: Option<i64>,
}

impl<V: Into<Value>> From<V> for NewSecret {
    fn from(value: V) -> Self {
        Self {
            value: value.into(),
            content_type: None,
            tags: None,
            enabled: None,
            nbf: None,
            exp: None,
            managed: false,
            created: None,
            updated: None,
        }
    }
}

/// Changes to a version that leave its value alone. What is left out stays.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Changes {
    pub content_type: Option<String>,
    pub tags: Option<Tags>,
    pub enabled: Option<bool>,
    pub nbf: Option<i64>,
    pub exp: Option<i64>,
    /// Now if left out.
    pub updated: Option<i64>,
}

/// What a write left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// 32 hex digits.
    pub version: String,
    pub updated: i64,
}

#[derive(Clone, Debug)]
pub struct Version {
    pub value: Value,
    pub content_type: Option<String>,
    pub tags: Option<Tags>,
    pub enabled: bool,
    pub nbf: Option<i64>,
    pub exp: Option<i64>,
    pub managed: bool,
    pub created: i64,
    pub updated: i64,
}

impl Version {
    pub fn new(secret: NewSecret, now: i64) -> Self {
        Self {
            value: secret.value,
            content_type: secret.content_type,
            tags: secret.tags,
            enabled: secret.enabled.unwrap_or(true),
            nbf: secret.nbf,
            exp: secret.exp,
            managed: secret.managed,
            created: secret.created.unwrap_or(now),
            updated: secret.updated.unwrap_or(now),
        }
    }

    pub fn change(&mut self, changes: Changes, now: i64) {
        self.content_type = changes.content_type.or(self.content_type.take());
        self.tags = changes.tags.or(self.tags.take());
        self.enabled = changes.enabled.unwrap_or(self.enabled);
        self.nbf = changes.nbf.or(self.nbf);
        self.exp = changes.exp.or(self.exp);
        self.updated = changes.updated.unwrap_or(now);
    }

    /// The version without its value, under the given id.
    pub fn item(&self, id: String) -> Json {
        let mut attributes = json!({
            "enabled": self.enabled,
            "created": self.created,
            "updated": self.updated,
            "recoveryLevel": "Recoverable+Purgeable",
            "recoverableDays": RECOVERABLE_DAYS,
        });
        if let Some(nbf) = self.nbf {
            attributes["nbf"] = json!(nbf);
        }
        if let Some(exp) = self.exp {
            attributes["exp"] = json!(exp);
        }
        let mut item = json!({"id": id, "attributes": attributes});
        if let Some(content_type) = &self.content_type {
            item["contentType"] = json!(content_type);
        }
        if let Some(tags) = &self.tags {
            item["tags"] = json!(tags);
        }
        if self.managed {
            item["managed"] = json!(true);
        }
        item
    }
}

/// A secret with its versions.
pub type Secret = Object<Version>;

impl Object<Version> {
    /// Makes a version current again, as if nothing had been written since.
    pub fn restore(&mut self, id: Uuid) -> bool {
        self.restore_if(id, |older, restored| older.created <= restored.created)
    }
}
