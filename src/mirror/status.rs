//! How a mirror is doing, as its status says it. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::conflict::Conflict;
use super::grant::Refusal;
use super::limits::TooManyKeys;
use super::matching::{self, MatchError};
use super::revert::Reverted;
use super::size::TooLarge;
use super::target_name::TargetName;
use crate::api::condition::{self, Wanted, reason};
use crate::api::{
    KeyVaultMirror, KeyVaultMirrorStatus, MirroredObject, MissingObject, TargetStatus,
};
use crate::render::{RenderError, Rendered, Source, TemplateError, UnfitSecret, Unrenderable};
use crate::vault::{VaultError, VaultErrorKind, VaultHost};

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
    /// All contents together are no Secret of the target's type.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error(transparent)]
    Template(#[from] Unfilled),
    #[error("spec.dataFrom: {0}")]
    Match(MatchError),
    #[error(transparent)]
    TooManyKeys(#[from] TooManyKeys),
    /// The identity may read secrets and not list them.
    #[error(
        "vault {0} forbids listing its secrets, which match in spec.dataFrom needs; give the identity the role 'Key Vault Secrets User' on the vault, or 'list' for secrets in its access policy, or name the secrets in spec.data"
    )]
    Unlisted(VaultHost),
    #[error(transparent)]
    Conflict(#[from] Conflict),
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The API server does not take the target as it would be; no use in repeating it.
    #[error("the API server rejects {target}: {message}")]
    Rejected { target: TargetName, message: String },
    /// The API server could not be asked; it is asked again.
    #[error("the API server can't be asked: {0}; that is tried again")]
    ApiServer(String),
    /// Someone else wrote at the same moment; what is there now is looked at anew.
    #[error("{0} was changed by someone else at the same moment; that is tried again")]
    Raced(TargetName),
}

/// A Secret that is none of its type, and what that may be for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{problem}{}", left_out(.missing))]
pub struct Unfit {
    pub problem: UnfitSecret,
    /// Objects that the vault does not have.
    pub missing: Vec<MissingObject>,
}

/// A template that can't be rendered, and what that may be for.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{problem}{}", left_out(.missing))]
pub struct Unfilled {
    pub problem: TemplateError,
    /// Objects that the vault does not have.
    pub missing: Vec<MissingObject>,
}

impl From<MatchError> for Failure {
    fn from(error: MatchError) -> Self {
        match error {
            MatchError::TooMany(error) => error.into(),
            error => Self::Match(error),
        }
    }
}

impl Failure {
    /// Why there is no data, where the vault does not have these objects.
    pub fn of_render(error: RenderError, missing: Vec<MissingObject>) -> Self {
        match error {
            RenderError::Object(error) => error.into(),
            RenderError::Template(problem) => Unfilled { problem, missing }.into(),
        }
    }

    /// Why an object can't be read, in the mirror's own words: a certificate with its key is read as a secret, of which the mirror
    /// says nothing.
    pub fn of(error: &VaultError, source: Option<&Source>) -> Self {
        let error = match source {
            Some(source) => error.about(&format!("{} {}", source.kind, source.name)),
            None => error.clone(),
        };
        Self::Vault(error)
    }

    /// The reason of the condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidSpec(_) | Self::Match(_) | Self::Refused(Refusal::InvalidVault(_)) => {
                reason::INVALID_SPEC
            }
            Self::Refused(Refusal::NotGranted { .. }) => reason::NOT_GRANTED,
            Self::Refused(Refusal::Ambiguous { .. }) => reason::AMBIGUOUS_GRANT,
            Self::Refused(Refusal::Account(_)) => reason::SERVICE_ACCOUNT_NOT_USABLE,
            Self::Refused(Refusal::NotForConfigMap { .. } | Refusal::ConfigMapsOff) => {
                reason::CONFIG_MAP_NOT_ALLOWED
            }
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
            Self::Content(_) | Self::Unfit(_) => reason::INVALID_CONTENT,
            Self::TooLarge(_) => reason::TOO_LARGE,
            Self::Template(_) => reason::INVALID_TEMPLATE,
            Self::TooManyKeys(_) => reason::TOO_MANY_KEYS,
            Self::Unlisted(_) => reason::VAULT_FORBIDDEN,
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
            | Self::Unfit(_)
            | Self::TooLarge(_)
            | Self::Template(_)
            | Self::Match(_)
            | Self::TooManyKeys(_)
            | Self::Unlisted(_)
            | Self::Conflict(_)
            | Self::Rejected { .. } => true,
            Self::Vault(error) => !error.kind.is_transient(),
            Self::ApiServer(_) | Self::Raced(_) => false,
        }
    }
}

/// How an attempt ended.
pub enum Outcome<'a> {
    /// The target has what the vault has, or had before; whether its content changed just now, and when it last did as far as the
    /// target tells.
    Mirrored {
        rendered: &'a Rendered,
        missing: &'a [MissingObject],
        reverted: &'a Reverted,
        changed: bool,
        last_change: Option<Timestamp>,
        /// Whether the target was somebody else's once.
        adopted: bool,
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
    let mut conditions: Vec<Condition> = wanted(mirror, outcome, now)
        .into_iter()
        .map(|wanted| wanted.after(&before.conditions, generation, now))
        .collect();
    let kept = before.conditions.iter().filter(|c| is_kept(c, outcome));
    conditions.extend(kept.cloned());
    match outcome {
        Outcome::Failed(_) | Outcome::Unchanged => KeyVaultMirrorStatus {
            observed_generation: generation,
            conditions,
            ..before
        },
        Outcome::Mirrored {
            rendered,
            missing,
            changed,
            last_change,
            adopted,
            ..
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
            missing_objects: missing.to_vec(),
            target: Some(TargetStatus {
                kind: mirror.spec.target.kind.to_string(),
                name: mirror.spec.target.name.clone(),
                adopted: *adopted,
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

/// Whether a condition goes on to hold as it is.
fn is_kept(condition: &Condition, outcome: &Outcome<'_>) -> bool {
    let is_reverted = condition.type_ == condition::REVERTED;
    match outcome {
        Outcome::Failed(_) | Outcome::Unchanged => {
            is_reverted || condition.type_ == condition::OUTSIDE_VALIDITY
        }
        // That there was no way back is true of this content, though nobody asks any more.
        Outcome::Mirrored {
            reverted,
            changed,
            last_change,
            ..
        } => {
            let is_newer = last_change.is_some_and(|at| at > condition.last_transition_time.0);
            let is_of_it = !changed && !is_newer;
            is_reverted
                && condition.status == "False"
                && is_of_it
                && reverted_condition(reverted).is_none()
        }
    }
}

fn wanted(mirror: &KeyVaultMirror, outcome: &Outcome<'_>, now: Timestamp) -> Vec<Wanted> {
    let kind = mirror.spec.target.kind;
    let ready = |count: usize, missing: &[MissingObject], is_reverted: bool| Wanted {
        type_: condition::READY,
        status: true,
        reason: reason::MIRRORED,
        message: if count == 0 && missing.is_empty() {
            let why = if matching::is_in(&mirror.spec) {
                "no secret of the vault is what match in spec.dataFrom looks for"
            } else {
                "what the mirror's objects hold gives none"
            };
            format!("{why}; the {kind} has no key")
        } else {
            format!(
                "{} in the {kind}{}{}",
                keys(count),
                if is_reverted {
                    ", not all as in the vault: see the condition Reverted"
                } else {
                    " as in the vault"
                },
                left_out(missing)
            )
        },
    };
    match outcome {
        Outcome::Mirrored {
            rendered,
            missing,
            reverted,
            changed,
            ..
        } => {
            let is_reverted = reverted.steps().next().is_some();
            [
                Some(ready(rendered.len(), missing, is_reverted)),
                outside_validity(rendered, now),
                // Other content than the one that was to be taken back is not the one that stays.
                reverted_condition(reverted).filter(|said| said.status || !changed),
            ]
            .into_iter()
            .flatten()
            .collect()
        }
        Outcome::Unchanged => vec![mirror.status.as_ref().map_or_else(
            || ready(0, &[], false),
            |before| {
                let mut conditions = before.conditions.iter();
                let is_reverted =
                    conditions.any(|c| c.type_ == condition::REVERTED && c.status == "True");
                ready(before.objects.len(), &before.missing_objects, is_reverted)
            },
        )],
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

/// What is said of the objects that the vault does not have.
pub fn left_out(missing: &[MissingObject]) -> String {
    if missing.is_empty() {
        return String::new();
    }
    let names: Vec<String> = missing
        .iter()
        .map(|object| format!("{} {}", object.kind, object.name))
        .collect();
    format!(
        "; left out by missingPolicy Remove, since the vault does not have it or it is disabled: {}",
        names.join(", ")
    )
}

/// What became of content whose rollout has failed, where its workload's policy wants it taken back.
fn reverted_condition(reverted: &Reverted) -> Option<Wanted> {
    let said: BTreeSet<String> = reverted
        .steps()
        .map(|step| {
            format!(
                "{} is at version {} again, because a rollout of version {}, which the vault has, failed",
                step.object, step.to, step.failed
            )
        })
        .collect();
    let (status, reason, what) = match &reverted.refusal {
        _ if !said.is_empty() => {
            let said: Vec<String> = said.into_iter().collect();
            (true, reason::ROLLOUT_FAILED, said.join("; "))
        }
        Some(refusal) => (
            false,
            reason::NO_WAY_BACK,
            format!("a rollout of this content failed, and it stays, because {refusal}"),
        ),
        None => return None,
    };
    Some(Wanted {
        type_: condition::REVERTED,
        status,
        reason,
        message: format!("{what}; set a version in the vault that works"),
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

    use super::super::revert::CannotRevert;
    use super::*;
    use crate::api::ObjectKind;
    use crate::render::{RenderedKey, TemplateProblem};
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
            missing: &[],
            reverted: &Reverted::default(),
            changed: true,
            last_change: Some(at(10)),
            adopted: false,
        };
        mirror.status = Some(status(&mirror, &ok, at(10)));
        let again = Outcome::Mirrored {
            rendered: &data,
            missing: &[],
            reverted: &Reverted::default(),
            changed: false,
            last_change: Some(at(10)),
            adopted: false,
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
                missing: &[],
                reverted: &Reverted::default(),
                changed: true,
                last_change: None,
                adopted: false,
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
    fn a_config_map_is_called_one() {
        let mut mirror = mirror();
        mirror.spec.target.kind = crate::api::TargetKind::ConfigMap;
        let outcome = Outcome::Mirrored {
            rendered: &rendered(None),
            missing: &[],
            reverted: &Reverted::default(),
            changed: false,
            last_change: None,
            adopted: false,
        };
        let after = status(&mirror, &outcome, at(10));
        let message = "1 key is in the ConfigMap as in the vault";
        assert_eq!(after.conditions[0].message, message);
        assert_eq!(after.target.expect("a target").kind, "ConfigMap");
    }

    #[test]
    fn a_target_that_was_taken_over_is_said_to_be() {
        let data = rendered(None);
        let adopted = |adopted| {
            let outcome = Outcome::Mirrored {
                rendered: &data,
                reverted: &Reverted::default(),
                missing: &[],
                changed: false,
                last_change: None,
                adopted,
            };
            let target = status(&mirror(), &outcome, at(10)).target;
            serde_json::to_value(target).expect("JSON")["adopted"].clone()
        };
        assert_eq!(adopted(true), json!(true));
        assert_eq!(adopted(false), json!(null), "it goes without saying");
    }

    #[test]
    fn a_change_that_was_never_told_is_told_later() {
        let data = rendered(None);
        let outcome = Outcome::Mirrored {
            rendered: &data,
            missing: &[],
            reverted: &Reverted::default(),
            changed: false,
            last_change: Some(at(10)),
            adopted: false,
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
            missing: &[],
            reverted: &Reverted::default(),
            changed: true,
            last_change: None,
            adopted: false,
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

    /// What the conditions say after an attempt, and then on the mirror too.
    fn after(mirror: &mut KeyVaultMirror, outcome: &Outcome<'_>) -> Vec<(String, String)> {
        let status = status(mirror, outcome, at(20));
        mirror.status = Some(status.clone());
        let conditions = status.conditions.iter();
        conditions
            .map(|c| (format!("{}={}", c.type_, c.status), c.message.clone()))
            .collect()
    }

    #[test]
    fn content_that_was_gone_back_to_is_said_until_the_vault_has_another_version() {
        let (mut mirror, data) = (mirror(), rendered(None));
        let reverted = Reverted::to("v/secrets/pat", "1", "2");
        let mirrored = |reverted, changed| Outcome::Mirrored {
            rendered: &data,
            missing: &[],
            reverted,
            changed,
            adopted: false,
            last_change: None,
        };
        let said = after(&mut mirror, &mirrored(&reverted, true));
        assert_eq!(said[1].0, "Reverted=True");
        assert!(said[0].1.contains("not all as in the vault"), "{said:?}");
        assert!(
            said[1].1.contains("v/secrets/pat is at version 1 again"),
            "{said:?}"
        );
        assert_eq!(after(&mut mirror, &Outcome::Unchanged), said);
        let failure = Failure::ApiServer("x".into());
        let failed = after(&mut mirror, &Outcome::Failed(&failure));
        assert_eq!(failed[1], said[1]);
        let none = Reverted::default();
        assert_eq!(after(&mut mirror, &mirrored(&none, false)).len(), 1);
    }

    #[test]
    fn that_there_is_no_way_back_is_said_until_the_content_changes() {
        let (mut mirror, data) = (mirror(), rendered(None));
        let (mut refused, none) = (Reverted::default(), Reverted::default());
        refused.refuse(CannotRevert::Pinned {
            object: "v/secrets/pat".into(),
        });
        let mirrored = |reverted, changed| Outcome::Mirrored {
            rendered: &data,
            missing: &[],
            reverted,
            changed,
            adopted: false,
            last_change: None,
        };
        let said = after(&mut mirror, &mirrored(&refused, false));
        assert_eq!(said[1].0, "Reverted=False");
        assert_eq!(after(&mut mirror, &mirrored(&none, false)), said);
        assert_eq!(after(&mut mirror, &Outcome::Unchanged), said);
        // Of content that came since nobody has said so, though that it came was not told.
        let came = |at: &str| {
            let mut outcome = mirrored(&none, false);
            if let Outcome::Mirrored { last_change, .. } = &mut outcome {
                *last_change = Some(at.parse().expect("a time"));
            }
            outcome
        };
        assert_eq!(
            after(&mut mirror.clone(), &came("1970-01-01T00:00:00Z")),
            said
        );
        assert_eq!(
            after(&mut mirror.clone(), &came("9999-01-01T00:00:00Z")).len(),
            1
        );
        assert_eq!(after(&mut mirror, &mirrored(&none, true)).len(), 1);
        assert_eq!(after(&mut mirror, &mirrored(&refused, true)).len(), 1);
    }

    #[test]
    fn what_is_left_out_is_said_and_said_again_after_a_failure() {
        let mut mirror = mirror();
        let data = rendered(None);
        let missing = [MissingObject {
            kind: ObjectKind::Certificate,
            name: "web".into(),
        }];
        let outcome = Outcome::Mirrored {
            rendered: &data,
            reverted: &Reverted::default(),
            missing: &missing,
            changed: true,
            adopted: false,
            last_change: None,
        };
        let before = status(&mirror, &outcome, at(10));
        assert_eq!(before.missing_objects, missing);
        let message = &before.conditions[0].message;
        assert!(
            message.starts_with("1 key is") && message.ends_with(": certificate web"),
            "{message}"
        );
        mirror.status = Some(before.clone());
        let failure = Failure::ApiServer("x".into());
        mirror.status = Some(status(&mirror, &Outcome::Failed(&failure), at(20)));
        let after = status(&mirror, &Outcome::Unchanged, at(30));
        assert_eq!(after.missing_objects, missing);
        assert_eq!(&after.conditions[0].message, message);
    }

    #[test]
    fn a_template_that_lacks_a_key_names_what_the_vault_does_not_have() {
        let problem = TemplateError {
            key: "url".into(),
            line: 1,
            problem: TemplateProblem::Unknown("data.password".into()),
        };
        let missing = MissingObject {
            kind: ObjectKind::Secret,
            name: "pw".into(),
        };
        let failure = Failure::of_render(RenderError::Template(problem), vec![missing]);
        let said = failure.to_string();
        assert!(said.contains("data.password is not known"), "{said}");
        assert!(said.ends_with("secret pw"), "{said}");
    }

    #[test]
    fn a_key_that_its_type_needs_is_not_left_out() {
        let unfit = Unfit {
            problem: crate::render::check_keys(crate::api::SecretType::SshAuth, |_| false)
                .expect_err("refused"),
            missing: vec![MissingObject {
                kind: ObjectKind::Secret,
                name: "deploy-key".into(),
            }],
        };
        let failure = Failure::from(unfit);
        assert_eq!(failure.reason(), reason::INVALID_CONTENT);
        let message = failure.to_string();
        assert!(
            message.contains("ssh-privatekey") && message.ends_with("secret deploy-key"),
            "{message}"
        );
    }

    #[test]
    fn a_certificate_that_is_read_as_a_secret_is_told_as_a_certificate() {
        let suffixes: crate::vault::DnsSuffixes = "vault.azure.net".parse().expect("a suffix");
        let spec: crate::api::KeyVaultMirrorSpec = serde_json::from_value(json!({
            "vault": {"name": "contoso"},
            "dataFrom": [{"certificate": {"name": "Web-TLS"}}],
            "target": {"name": "t"},
        }))
        .expect("a spec");
        let vault = suffixes.host(&spec.vault).expect("a host");
        let error = VaultError::new(VaultErrorKind::NotFound, &vault, "secret web-tls", "");
        let sources = crate::render::sources(&spec);
        let told = Failure::of(&error, sources.first()).to_string();
        assert!(told.contains("has no certificate Web-TLS"), "{told}");
        assert!(
            Failure::of(&error, None)
                .to_string()
                .contains("secret web-tls")
        );
    }

    #[test]
    fn a_mirror_of_nothing_says_so() {
        let nothing = Rendered::new();
        let outcome = Outcome::Mirrored {
            rendered: &nothing,
            missing: &[],
            reverted: &Reverted::default(),
            changed: true,
            last_change: None,
            adopted: false,
        };
        let said = |mirror| {
            status(mirror, &outcome, at(10)).conditions[0]
                .message
                .clone()
        };
        let (named, mut looking) = (mirror(), mirror());
        let wished = json!({"match": {"namePattern": "a-.*"}});
        let wished = serde_json::from_value(wished).expect("an entry of dataFrom");
        looking.spec.data_from.push(wished);
        assert!(said(&named).starts_with("what the mirror's objects hold"));
        assert!(said(&looking).starts_with("no secret of the vault"));
    }

    #[test]
    fn an_expired_object_is_said() {
        let data = rendered(Some(5));
        let after = status(
            &mirror(),
            &Outcome::Mirrored {
                rendered: &data,
                missing: &[],
                reverted: &Reverted::default(),
                changed: true,
                last_change: None,
                adopted: false,
            },
            at(10),
        );
        assert_eq!(after.conditions[1].reason, reason::EXPIRED);
    }
}
