//! How a mirror is doing, as its status says it. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;

use super::grant::Refusal;
use super::plan::Conflict;
use crate::api::condition::{self, Wanted, reason};
use crate::api::{KeyVaultMirror, KeyVaultMirrorStatus, MirroredObject, TargetStatus};
use crate::render::{Rendered, Unrenderable};
use crate::vault::{VaultError, VaultErrorKind};

/// Why a mirror's target does not have what the vault has. Whatever it is, the target keeps what it had.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    InvalidSpec(String),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// An object's content can't become what the mirror wants.
    #[error(transparent)]
    Content(#[from] Unrenderable),
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The API server does not take the target as it would be; no use in repeating it.
    #[error("the API server rejects Secret {target}: {message}")]
    Rejected { target: String, message: String },
    /// The API server could not be asked; it is asked again.
    #[error("the API server can't be asked: {0}; that is tried again")]
    ApiServer(String),
    /// Someone else wrote at the same moment; what is there now is looked at anew.
    #[error("Secret {0} was changed by someone else at the same moment; that is tried again")]
    Raced(String),
}

impl Failure {
    /// The reason of the condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidSpec(_) | Self::Refused(Refusal::InvalidVault(_)) => reason::INVALID_SPEC,
            Self::Refused(Refusal::NotGranted { .. }) => reason::NOT_GRANTED,
            Self::Refused(Refusal::Ambiguous { .. }) => reason::AMBIGUOUS_GRANT,
            Self::Refused(Refusal::Account(_)) => reason::SERVICE_ACCOUNT_NOT_USABLE,
            Self::Vault(error) => match error.kind {
                VaultErrorKind::Throttled { .. } => reason::VAULT_THROTTLED,
                VaultErrorKind::Forbidden => reason::VAULT_FORBIDDEN,
                VaultErrorKind::Firewall => reason::VAULT_FIREWALL,
                VaultErrorKind::Disabled => reason::OBJECT_DISABLED,
                VaultErrorKind::NotFound => reason::OBJECT_NOT_FOUND,
                VaultErrorKind::Unauthorized | VaultErrorKind::BadCredentials => {
                    reason::BAD_CREDENTIALS
                }
                VaultErrorKind::Unreachable => reason::VAULT_UNREACHABLE,
                VaultErrorKind::Server { .. } | VaultErrorKind::Malformed => reason::VAULT_ERROR,
            },
            Self::Content(_) => reason::INVALID_CONTENT,
            Self::Conflict(_) => reason::TARGET_CONFLICT,
            Self::Rejected { .. } => reason::TARGET_REJECTED,
            Self::ApiServer(_) | Self::Raced(_) => reason::API_SERVER_ERROR,
        }
    }

    /// Whether only a change by a person, here or in the vault, ends it.
    fn needs_a_person(&self) -> bool {
        match self {
            Self::InvalidSpec(_)
            | Self::Refused(_)
            | Self::Content(_)
            | Self::Conflict(_)
            | Self::Rejected { .. } => true,
            Self::Vault(error) => !error.kind.is_transient(),
            Self::ApiServer(_) | Self::Raced(_) => false,
        }
    }
}

/// How an attempt ended.
pub enum Outcome<'a> {
    /// The target has what the vault has; whether its content changed just now, and when it last did as far as the target tells.
    Mirrored {
        rendered: &'a Rendered,
        changed: bool,
        last_change: Option<Timestamp>,
    },
    Failed(&'a Failure),
    /// The target still has what the vault has.
    Unchanged,
}

/// The status after an attempt.
pub fn status(
    mirror: &KeyVaultMirror,
    outcome: &Outcome<'_>,
    now: Timestamp,
) -> KeyVaultMirrorStatus {
    let before = mirror.status.clone().unwrap_or_default();
    let generation = mirror.metadata.generation;
    let conditions = wanted(mirror, outcome, now)
        .into_iter()
        .map(|wanted| wanted.after(&before.conditions, generation, now))
        .collect();
    match outcome {
        Outcome::Failed(_) | Outcome::Unchanged => {
            let kept_validity = before
                .conditions
                .iter()
                .filter(|c| c.type_ == condition::OUTSIDE_VALIDITY)
                .cloned();
            let conditions = [conditions, kept_validity.collect()].concat();
            KeyVaultMirrorStatus {
                observed_generation: generation,
                conditions,
                ..before
            }
        }
        Outcome::Mirrored {
            rendered,
            changed,
            last_change,
        } => KeyVaultMirrorStatus {
            observed_generation: generation,
            conditions,
            objects: rendered
                .iter()
                .map(|(key, from)| MirroredObject {
                    key: key.clone(),
                    kind: from.kind,
                    name: from.object.clone(),
                    version: from.secret.version.clone(),
                    updated: from.secret.updated.map(|time| time.to_string()),
                    expires: from.secret.expires.map(|time| time.to_string()),
                })
                .collect(),
            target: Some(TargetStatus {
                kind: "Secret".to_owned(),
                name: mirror.spec.target.name.clone(),
            }),
            // A key that went is a change too, which the target can't tell of.
            last_change: [
                changed.then_some(now),
                *last_change,
                before.last_change.and_then(|time| time.parse().ok()),
            ]
            .into_iter()
            .flatten()
            .max()
            .map(|time| seconds(time).to_string()),
        },
    }
}

fn wanted(mirror: &KeyVaultMirror, outcome: &Outcome<'_>, now: Timestamp) -> Vec<Wanted> {
    let ready = |count: usize| Wanted {
        type_: condition::READY,
        status: true,
        reason: reason::MIRRORED,
        message: format!("{} in the Secret as in the vault", keys(count)),
    };
    match outcome {
        Outcome::Mirrored { rendered, .. } => {
            [Some(ready(rendered.len())), outside_validity(rendered, now)]
                .into_iter()
                .flatten()
                .collect()
        }
        Outcome::Unchanged => {
            let mirrored = mirror.status.as_ref().map(|status| status.objects.len());
            vec![ready(mirrored.unwrap_or_default())]
        }
        Outcome::Failed(failure) => {
            let (reason, message) = (failure.reason(), failure.to_string());
            let ready = Wanted {
                type_: condition::READY,
                status: false,
                reason,
                message: message.clone(),
            };
            let stalled = failure.needs_a_person().then_some(Wanted {
                type_: condition::STALLED,
                status: true,
                reason,
                message,
            });
            [Some(ready), stalled].into_iter().flatten().collect()
        }
    }
}

/// Key Vault serves expired secrets and those that are not valid yet. They are mirrored, and said.
fn outside_validity(rendered: &Rendered, now: Timestamp) -> Option<Wanted> {
    let names = |outside: &dyn Fn(&crate::vault::VaultSecret) -> bool| -> Vec<&str> {
        rendered
            .values()
            .filter(|from| outside(&from.secret))
            .map(|from| from.object.as_str())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    };
    let expired = names(&|secret| secret.expires.is_some_and(|expires| expires <= now));
    let early = names(&|secret| secret.not_before.is_some_and(|not_before| not_before > now));
    let (reason, message) = if !expired.is_empty() {
        (
            reason::EXPIRED,
            format!(
                "expired, and mirrored all the same: {}; renew it in the vault",
                expired.join(", ")
            ),
        )
    } else if !early.is_empty() {
        (
            reason::NOT_YET_VALID,
            format!(
                "not valid yet, and mirrored all the same: {}",
                early.join(", ")
            ),
        )
    } else {
        return None;
    };
    Some(Wanted {
        type_: condition::OUTSIDE_VALIDITY,
        status: true,
        reason,
        message,
    })
}

fn keys(count: usize) -> String {
    if count == 1 {
        "1 key is".to_owned()
    } else {
        format!("{count} keys are")
    }
}

fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::api::ObjectKind;
    use crate::render::RenderedKey;
    use crate::vault::VaultSecret;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn mirror() -> KeyVaultMirror {
        let spec = json!({
            "vault": {"name": "contoso"},
            "data": [{"key": "token", "object": {"name": "pat"}}],
            "target": {"name": "t"},
        });
        KeyVaultMirror::new("m", serde_json::from_value(spec).expect("a spec"))
    }

    fn rendered(expires: Option<i64>) -> Rendered {
        let secret = Arc::new(VaultSecret {
            value: b"v".to_vec().into(),
            version: "1".into(),
            updated: None,
            not_before: None,
            expires: expires.map(at),
        });
        Rendered::from([(
            "token".to_owned(),
            RenderedKey {
                value: secret.value.clone(),
                made_of: None,
                kind: ObjectKind::Secret,
                object: "pat".to_owned(),
                secret,
            },
        )])
    }

    #[test]
    fn the_time_of_a_condition_is_that_of_its_change() {
        let mut mirror = mirror();
        let data = rendered(None);
        let ok = Outcome::Mirrored {
            rendered: &data,
            changed: true,
            last_change: Some(at(10)),
        };
        mirror.status = Some(status(&mirror, &ok, at(10)));
        let again = Outcome::Mirrored {
            rendered: &data,
            changed: false,
            last_change: Some(at(10)),
        };
        assert_eq!(
            mirror.status,
            Some(status(&mirror, &again, at(20))),
            "no write for nothing"
        );
    }

    #[test]
    fn a_failure_keeps_what_was_mirrored() {
        let mut mirror = mirror();
        let data = rendered(None);
        mirror.status = Some(status(
            &mirror,
            &Outcome::Mirrored {
                rendered: &data,
                changed: true,
                last_change: None,
            },
            at(10),
        ));
        let failure = Failure::InvalidSpec("x".into());
        let after = status(&mirror, &Outcome::Failed(&failure), at(20));
        assert_eq!(after.objects.len(), 1);
        let types: Vec<_> = after
            .conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str()))
            .collect();
        assert_eq!(types, [("Ready", "False"), ("Stalled", "True")]);
    }

    #[test]
    fn a_change_that_was_never_told_is_told_later() {
        let data = rendered(None);
        let outcome = Outcome::Mirrored {
            rendered: &data,
            changed: false,
            last_change: Some(at(10)),
        };
        let after = status(&mirror(), &outcome, at(20));
        assert_eq!(after.last_change.as_deref(), Some("1970-01-01T00:00:10Z"));
    }

    #[test]
    fn what_failed_and_is_as_before_is_ready_again() {
        let mut mirror = mirror();
        let data = rendered(Some(5));
        let mirrored = Outcome::Mirrored {
            rendered: &data,
            changed: true,
            last_change: None,
        };
        let before = status(&mirror, &mirrored, at(10));
        mirror.status = Some(before.clone());
        assert_eq!(
            before,
            status(&mirror, &Outcome::Unchanged, at(20)),
            "no write for nothing"
        );
        let failure = Failure::ApiServer("x".into());
        mirror.status = Some(status(&mirror, &Outcome::Failed(&failure), at(30)));
        let after = status(&mirror, &Outcome::Unchanged, at(40));
        assert_eq!(after.objects, before.objects);
        let types: Vec<_> = after
            .conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str()))
            .collect();
        assert_eq!(types, [("Ready", "True"), ("OutsideValidity", "True")]);
    }

    #[test]
    fn an_expired_object_is_said() {
        let data = rendered(Some(5));
        let after = status(
            &mirror(),
            &Outcome::Mirrored {
                rendered: &data,
                changed: true,
                last_change: None,
            },
            at(10),
        );
        assert_eq!(after.conditions[1].reason, reason::EXPIRED);
    }
}
