//! What can go wrong with a vault, classified once, here, by status and inner error code.

use std::time::Duration;

use azure_core::error::ErrorKind;
use serde::Deserialize;

use super::VaultHost;

/// Longest that a vault is left alone, whatever it asks for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Class of a failure: what to tell people, and when to try again.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum VaultErrorKind {
    /// 429: the vault wants fewer requests, and may have said for how long.
    Throttled { retry_after: Option<Duration> },
    /// 403 by RBAC or an access policy.
    Forbidden,
    /// 403 by the vault's firewall.
    Firewall,
    /// 403 because the object is disabled.
    Disabled,
    /// 404.
    NotFound,
    /// 401: the vault does not accept the token.
    Unauthorized,
    /// No token could be had.
    BadCredentials,
    /// No connection: DNS, TCP, TLS, proxy, or no answer in time.
    Unreachable,
    /// Any other status, 5xx above all.
    Server { status: u16 },
    /// An answer that is not Key Vault's.
    Malformed,
}

impl VaultErrorKind {
    /// Whether the same request may succeed soon though nobody does anything.
    pub fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Throttled { .. }
                | Self::Unreachable
                | Self::Server { .. }
                | Self::BadCredentials
                | Self::Unauthorized
        )
    }

    /// Whether the vault says that there is nothing to read: the object was deleted or disabled, or never was.
    pub fn is_missing(self) -> bool {
        matches!(self, Self::NotFound | Self::Disabled)
    }

    /// Whether it is the vault that fails, and not this one object.
    pub fn concerns_vault(self) -> bool {
        match self {
            Self::Forbidden | Self::Disabled | Self::NotFound => false,
            Self::Server { status } => status >= 500,
            Self::Throttled { .. }
            | Self::Firewall
            | Self::Unauthorized
            | Self::BadCredentials
            | Self::Unreachable
            | Self::Malformed => true,
        }
    }

    /// Label for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Throttled { .. } => "throttled",
            Self::Forbidden => "forbidden",
            Self::Firewall => "firewall",
            Self::Disabled => "disabled",
            Self::NotFound => "not_found",
            Self::Unauthorized => "unauthorized",
            Self::BadCredentials => "bad_credentials",
            Self::Unreachable => "unreachable",
            Self::Server { .. } => "server_error",
            Self::Malformed => "malformed",
        }
    }
}

/// A failed request. What it says is for the owner of the namespace, and says what to do.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{}", self.message())]
pub struct VaultError {
    pub kind: VaultErrorKind,
    vault: VaultHost,
    object: String,
    detail: String,
}

impl VaultError {
    /// Describes a failure of reading `object` (such as `secret ado-pat`) of `vault`.
    pub fn new(kind: VaultErrorKind, vault: &VaultHost, object: &str, detail: &str) -> Self {
        Self {
            kind,
            vault: vault.clone(),
            object: object.to_owned(),
            detail: detail.to_owned(),
        }
    }

    /// The same failure, told of another object: the names of objects are nothing for everybody.
    pub fn about(&self, object: &str) -> Self {
        Self {
            object: object.to_owned(),
            ..self.clone()
        }
    }

    fn message(&self) -> String {
        use VaultErrorKind as K;
        let Self {
            vault,
            object,
            detail,
            ..
        } = self;
        let detail = if detail.is_empty() {
            String::new()
        } else {
            format!(" ({detail})")
        };
        match self.kind {
            K::Throttled { .. } => format!(
                "vault {vault} asks for fewer requests (429); reads of it pause and go on by themselves"
            ),
            K::Forbidden => format!(
                "vault {vault} forbids reading {object}{detail}; give the identity the role 'Key Vault Secrets User' on the vault ('Key Vault Reader' for the public parts of certificates and keys), or 'get' in its access policy"
            ),
            K::Firewall => format!(
                "the firewall of vault {vault} refuses this cluster{detail}; allow the cluster's outbound address or use a private endpoint"
            ),
            K::Disabled => format!(
                "{object} of vault {vault} is disabled; enable it, or mirror another object or version"
            ),
            K::NotFound => format!(
                "vault {vault} has no {object}; correct the name or the version, or create the object"
            ),
            K::Unauthorized => format!(
                "vault {vault} does not accept the identity's token for {object}{detail}; check that identity and vault belong to one tenant and cloud"
            ),
            K::BadCredentials => format!(
                "no token for vault {vault}{detail}; check the identity's client ID and, for workload identity, its federated credential for the daemon's ServiceAccount"
            ),
            K::Unreachable => format!(
                "vault {vault} can't be reached{detail}; check its name, DNS, network policies, proxy and CA bundle"
            ),
            K::Server { status } => {
                format!("vault {vault} answered {status} for {object}{detail}; it is asked again")
            }
            K::Malformed => format!(
                "what answered as vault {vault} is not a Key Vault; check DNS and proxies between the cluster and the vault"
            ),
        }
    }

    /// Classifies an error of Azure's client. Of the error's own text only that of connections and credentials is taken
    /// over: the text of a parser could quote the value.
    pub fn classify(error: &azure_core::Error, vault: &VaultHost, object: &str) -> Self {
        let (kind, detail) = match error.kind() {
            ErrorKind::HttpResponse {
                status,
                error_code,
                raw_response,
            } => {
                let raw = raw_response.as_deref();
                let inner = raw.and_then(|raw| inner_code(raw.body().as_ref()));
                let retry_after = raw
                    .and_then(|raw| {
                        raw.headers()
                            .get_optional_str(&azure_core::http::headers::RETRY_AFTER)
                    })
                    .and_then(retry_after);
                let code = inner.or_else(|| error_code.clone()).unwrap_or_default();
                (
                    classify_status(u16::from(*status), &code, retry_after),
                    code,
                )
            }
            ErrorKind::Credential | ErrorKind::Connection | ErrorKind::Io => {
                let kind = match error.kind() {
                    ErrorKind::Credential => VaultErrorKind::BadCredentials,
                    _ => VaultErrorKind::Unreachable,
                };
                let text = one_line(error);
                tracing::debug!(%vault, error = text, "a read failed on its way");
                (kind, stable(&text))
            }
            _ => (VaultErrorKind::Malformed, String::new()),
        };
        Self::new(kind, vault, object, &detail)
    }
}

fn classify_status(status: u16, code: &str, retry_after: Option<Duration>) -> VaultErrorKind {
    use VaultErrorKind as K;
    match (status, code) {
        (429, _) => K::Throttled { retry_after },
        (403, "SecretDisabled" | "CertificateDisabled" | "KeyDisabled") => K::Disabled,
        (403, "ForbiddenByFirewall" | "ForbiddenByConnection") => K::Firewall,
        (403, _) => K::Forbidden,
        (404, _) => K::NotFound,
        (401, _) => K::Unauthorized,
        // Key Vault says so when it sheds load; the header is the same.
        (503, _) if retry_after.is_some() => K::Throttled { retry_after },
        (status, _) => K::Server { status },
    }
}

/// Reads a `Retry-After` in seconds.
fn retry_after(header: &str) -> Option<Duration> {
    let seconds = header.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_RETRY_AFTER))
}

/// Key Vault's error body: <https://learn.microsoft.com/azure/key-vault/general/rest-error-codes>.
fn inner_code(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        error: Outer,
    }
    #[derive(Deserialize)]
    struct Outer {
        innererror: Option<Inner>,
    }
    #[derive(Deserialize)]
    struct Inner {
        code: String,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    // Codes are words; anything longer was not written by Key Vault.
    body.error
        .innererror
        .map(|inner| inner.code)
        .filter(|code| code.len() <= 64)
}

/// The error and its causes in one line.
pub(super) fn one_line(error: &azure_core::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What HTTP's own words for a failed connection come down to, in the order of looking.
const CAUSES: [(&str, &str); 9] = [
    ("dns error", "the name does not resolve"),
    ("tunnel error", "the proxy does not connect to it"),
    ("timed out", "no answer in time"),
    ("connection refused", "the connection is refused"),
    ("unreachable", "there is no route to it"),
    ("connection reset", "the connection was cut"),
    ("unexpected-eof", "the connection was cut"),
    ("closed", "the connection was cut"),
    ("broken pipe", "the connection was cut"),
];

/// A text of bounded length that is the same as long as the failure is. Every other text is a write of the status and an event, and
/// a connection that is cut is told in other words each time, by who noticed it first.
fn stable(text: &str) -> String {
    let text = without_request_ids(text);
    if text.contains("error sending request") {
        if let Some((_, reason)) = text.split_once("invalid peer certificate: ") {
            let reason = reason.split([':', ';', ',']).next().unwrap_or_default();
            return format!("its certificate is not trusted: {reason}");
        }
        let text = text.to_ascii_lowercase();
        if let Some((_, cause)) = CAUSES.iter().find(|(words, _)| text.contains(words)) {
            return (*cause).to_owned();
        }
    }
    match text.char_indices().nth(400) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Microsoft Entra ends its messages in IDs of the request. They would make every attempt another message, and every
/// other message is a write of the status and an event.
fn without_request_ids(text: &str) -> &str {
    let ids = [
        "Trace ID:",
        "Correlation ID:",
        "\"trace_id\"",
        "\"timestamp\"",
    ];
    let end = ids.iter().filter_map(|id| text.find(id)).min();
    text[..end.unwrap_or(text.len())].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_inner_code_decide_the_class() {
        use VaultErrorKind as K;
        let second = Some(Duration::from_secs(1));
        for (status, code, after, kind) in [
            (
                429,
                "",
                second,
                K::Throttled {
                    retry_after: second,
                },
            ),
            (
                503,
                "",
                second,
                K::Throttled {
                    retry_after: second,
                },
            ),
            (503, "", None, K::Server { status: 503 }),
            (403, "SecretDisabled", None, K::Disabled),
            (403, "ForbiddenByFirewall", None, K::Firewall),
            (403, "ForbiddenByRbac", None, K::Forbidden),
            (404, "SecretNotFound", None, K::NotFound),
            (401, "Unauthorized", None, K::Unauthorized),
            (500, "", None, K::Server { status: 500 }),
        ] {
            assert_eq!(
                classify_status(status, code, after),
                kind,
                "{status} {code}"
            );
        }
    }

    #[test]
    fn a_vault_can_not_ask_to_be_left_alone_for_ever() {
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after(&u64::MAX.to_string()),
            Some(LONGEST_RETRY_AFTER)
        );
        assert_eq!(retry_after("Fri, 31 Dec 2100 23:59:59 GMT"), None);
    }

    #[test]
    fn what_differs_in_every_answer_is_left_out() {
        let text = "AADSTS700016: no such application. Trace ID: 1 Correlation ID: 2";
        assert_eq!(
            without_request_ids(text),
            "AADSTS700016: no such application."
        );
        assert_eq!(without_request_ids("no route"), "no route");
    }

    #[test]
    fn one_cause_is_told_in_one_way() {
        let failed = "failed to execute `reqwest` request: error sending request for url (https://v/): client error";
        for (end, said) in [
            (
                "(SendRequest): connection error: connection reset",
                "the connection was cut",
            ),
            (
                "(SendRequest): connection error: peer closed connection without sending TLS close_notify",
                "the connection was cut",
            ),
            (
                "(Connect): tcp connect error: Connection refused (os error 111)",
                "the connection is refused",
            ),
            (
                "(Connect): dns error: failed to lookup address information",
                "the name does not resolve",
            ),
            (
                "(Connect): invalid peer certificate: UnknownIssuer",
                "its certificate is not trusted: UnknownIssuer",
            ),
            (
                "(Connect): invalid peer certificate: certificate expired: verification time 1",
                "its certificate is not trusted: certificate expired",
            ),
        ] {
            assert_eq!(stable(&format!("{failed} {end}")), said);
        }
        assert_eq!(stable("AADSTS1: closed"), "AADSTS1: closed");
        assert_eq!(stable(&"x".repeat(1000)).chars().count(), 401);
    }

    #[test]
    fn the_inner_code_is_found() {
        let body = br#"{"error":{"code":"Forbidden","message":"m","innererror":{"code":"SecretDisabled"}}}"#;
        assert_eq!(inner_code(body).as_deref(), Some("SecretDisabled"));
        assert_eq!(inner_code(b"<html>"), None);
    }
}
