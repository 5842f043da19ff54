//! The conditions of a mirror and their reasons. They are an interface: people alert on them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The target has what the vault has.
pub const READY: &str = "Ready";
/// Nothing will change until a person does something (kstatus).
pub const STALLED: &str = "Stalled";
/// An object is mirrored although it is expired or not valid yet.
pub const OUTSIDE_VALIDITY: &str = "OutsideValidity";
/// An object is mirrored in the version before the vault's, because the rollout of that one failed; or it should be, and can't.
pub const REVERTED: &str = "Reverted";

/// Reasons of [`READY`] and [`STALLED`].
pub mod reason {
    pub const MIRRORED: &str = "Mirrored";
    /// A policy is followed.
    pub const ACCEPTED: &str = "Accepted";
    pub const INVALID_SPEC: &str = "InvalidSpec";
    pub const NOT_GRANTED: &str = "NotGranted";
    pub const AMBIGUOUS_GRANT: &str = "AmbiguousGrant";
    pub const CONFIG_MAP_NOT_ALLOWED: &str = "ConfigMapNotAllowed";
    pub const SERVICE_ACCOUNT_NOT_USABLE: &str = "ServiceAccountNotUsable";
    pub const OBJECT_NOT_FOUND: &str = "ObjectNotFound";
    pub const INVALID_CONTENT: &str = "InvalidContent";
    pub const INVALID_TEMPLATE: &str = "InvalidTemplate";
    pub const TOO_MANY_KEYS: &str = "TooManyKeys";
    pub const OBJECT_DISABLED: &str = "ObjectDisabled";
    pub const VAULT_FORBIDDEN: &str = "VaultForbidden";
    pub const VAULT_FIREWALL: &str = "VaultFirewall";
    pub const VAULT_THROTTLED: &str = "VaultThrottled";
    pub const VAULT_UNREACHABLE: &str = "VaultUnreachable";
    pub const VAULT_ERROR: &str = "VaultError";
    pub const BAD_CREDENTIALS: &str = "BadCredentials";
    pub const TARGET_CONFLICT: &str = "TargetConflict";
    pub const TARGET_REJECTED: &str = "TargetRejected";
    pub const TOO_LARGE: &str = "TooLarge";
    pub const API_SERVER_ERROR: &str = "ApiServerError";
    /// Reasons of [`super::OUTSIDE_VALIDITY`].
    pub const EXPIRED: &str = "Expired";
    pub const NOT_YET_VALID: &str = "NotYetValid";
    /// Reasons of [`super::REVERTED`].
    pub const ROLLOUT_FAILED: &str = "RolloutFailed";
    pub const NO_WAY_BACK: &str = "NoWayBack";
}

/// What a condition should say; when it began to say so follows from what it said before.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Wanted {
    pub type_: &'static str,
    pub status: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Wanted {
    /// Turns the wish into a condition; `lastTransitionTime` is kept where the status did not change.
    pub fn after(self, before: &[Condition], generation: Option<i64>, now: Timestamp) -> Condition {
        let status = if self.status { "True" } else { "False" };
        let since = before
            .iter()
            .find(|c| c.type_ == self.type_ && c.status == status)
            .map_or(Time(now), |c| c.last_transition_time.clone());
        Condition {
            type_: self.type_.to_owned(),
            status: status.to_owned(),
            reason: self.reason.to_owned(),
            message: self.message,
            observed_generation: generation,
            last_transition_time: since,
        }
    }
}
