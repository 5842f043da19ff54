//! Why Key Vault says no: a status, a code, and the inner code that clients are told to go by.
//!
//! REST reference: "Authentication, requests and responses", section "Error Responses".

use serde_json::{Value as Json, json};

use super::operation::Type;

/// A request that Key Vault refuses, as it words it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    pub status: u16,
    pub code: String,
    pub message: String,
    pub inner: Option<String>,
}

impl Refusal {
    fn new(status: u16, code: &str, message: String) -> Self {
        Self {
            status,
            code: code.to_owned(),
            message,
            inner: None,
        }
    }

    fn because(mut self, inner: &str) -> Self {
        self.inner = Some(inner.to_owned());
        self
    }

    pub fn bad_parameter(message: impl Into<String>) -> Self {
        Self::new(400, "BadParameter", message.into())
    }

    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(401, "Unauthorized", message.into())
    }

    pub fn secret_not_found(name: &str) -> Self {
        Self::not_found(Type::Secret, name)
    }

    pub fn not_found(of: Type, name: &str) -> Self {
        let (noun, word) = (of.noun(), of.noun().to_ascii_lowercase());
        Self::new(
            404,
            &format!("{noun}NotFound"),
            format!(
                "A {word} with (name/id) {name} was not found in this key vault. If you recently deleted this {word} \
                 you may be able to recover it using the correct recovery command."
            ),
        )
    }

    /// Key Vault has no such answer, because the host doesn't resolve then; the control endpoint does.
    pub fn vault_not_found(name: &str) -> Self {
        Self::new(404, "VaultNotFound", format!("There is no vault {name}."))
    }

    pub fn deleted_secret_not_found(name: &str) -> Self {
        Self::deleted_not_found(Type::Secret, name)
    }

    pub fn deleted_not_found(of: Type, name: &str) -> Self {
        let noun = of.noun();
        Self::new(
            404,
            &format!("{noun}NotFound"),
            format!("Deleted {noun} not found: {name}"),
        )
    }

    pub fn secret_disabled() -> Self {
        Self::new(
            403,
            "Forbidden",
            "Operation get is not allowed on a disabled secret.".to_owned(),
        )
        .because("SecretDisabled")
    }

    /// A certificate's backing secret or key can be read, and changed only through its certificate.
    pub fn managed(of: Type, name: &str) -> Self {
        let noun = of.noun();
        Self::new(
            403,
            "Forbidden",
            format!(
                "The {} {name} is managed by Key Vault and can't be changed directly.",
                noun.to_ascii_lowercase()
            ),
        )
        .because(&format!("{noun}ManagedByKeyVault"))
    }

    pub fn deleted_but_recoverable(of: Type, name: &str) -> Self {
        let noun = of.noun();
        Self::new(
            409,
            "Conflict",
            format!(
                "{noun} {name} is currently in a deleted but recoverable state, and its name cannot be reused; in this \
                 state, it can only be recovered or purged."
            ),
        )
        .because("ObjectIsDeletedButRecoverable")
    }

    pub fn already_exists(of: Type, name: &str) -> Self {
        let word = of.noun().to_ascii_lowercase();
        Self::new(
            409,
            "Conflict",
            format!("A {word} with the name {name} already exists in this key vault."),
        )
    }

    pub fn forbidden_by_rbac(vault: &str, client_id: &str) -> Self {
        Self::injected(403, Some("ForbiddenByRbac"), vault, client_id)
    }

    /// What fault injection answers: Key Vault's own words where it has some for this status and inner code.
    pub fn injected(status: u16, inner: Option<&str>, vault: &str, client_id: &str) -> Self {
        let (code, message) = match (status, inner) {
            (403, Some("ForbiddenByRbac")) => (
                "Forbidden",
                format!(
                    "Caller is not authorized to perform action on resource.\r\nIf role assignments, deny assignments \
                     or role definitions were changed recently, please observe propagation time.\r\nCaller: \
                     appid={client_id}\r\nAssignment: (not found)\r\nDecisionReason: null\r\nVault: {vault}\r\n"
                ),
            ),
            (403, Some("ForbiddenByFirewall")) => (
                "Forbidden",
                format!(
                    "Client address is not authorized and caller is not a trusted service.\r\nVault: {vault}\r\n"
                ),
            ),
            (403, _) => (
                "Forbidden",
                format!(
                    "The user, group or application 'appid={client_id}' does not have secrets permission on key vault \
                     '{vault}'."
                ),
            ),
            (401, _) => (
                "Unauthorized",
                "AKV10046: The token was rejected.".to_owned(),
            ),
            (404, _) => (
                "SecretNotFound",
                "A secret was not found in this key vault.".to_owned(),
            ),
            (429, _) => (
                "Throttled",
                "Request was not processed because too many requests were received. Reason: \
                 VaultRequestTypeLimitReached"
                    .to_owned(),
            ),
            (503, _) => (
                "ServiceUnavailable",
                "The service is temporarily unavailable.".to_owned(),
            ),
            (504, _) => (
                "GatewayTimeout",
                "The service did not answer in time.".to_owned(),
            ),
            (500.., _) => (
                "InternalServerError",
                "An internal server error occurred.".to_owned(),
            ),
            _ => ("BadParameter", "The request was refused.".to_owned()),
        };
        let refusal = Self::new(status, code, message);
        match inner {
            Some(inner) => refusal.because(inner),
            None => refusal,
        }
    }

    pub fn body(&self) -> Json {
        let mut error = json!({"code": self.code, "message": self.message});
        if let Some(inner) = &self.inner {
            error["innererror"] = json!({"code": inner});
        }
        json!({"error": error})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inner_code_is_left_out_where_there_is_none() {
        assert_eq!(
            Refusal::secret_not_found("a").body()["error"].get("innererror"),
            None
        );
        let body = Refusal::secret_disabled().body();
        assert_eq!(body["error"]["code"], "Forbidden");
        assert_eq!(body["error"]["innererror"]["code"], "SecretDisabled");
    }

    #[test]
    fn an_injected_status_has_key_vaults_code() {
        assert_eq!(Refusal::injected(429, None, "v", "c").code, "Throttled");
        let firewall = Refusal::injected(403, Some("ForbiddenByFirewall"), "v", "c");
        assert_eq!(firewall.inner.as_deref(), Some("ForbiddenByFirewall"));
    }
}
