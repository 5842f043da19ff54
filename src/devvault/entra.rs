//! Entra's token endpoint for client credentials, and what MSAL asks before it goes there.
//!
//! Documentation: "Microsoft identity platform and the OAuth 2.0 client credentials flow"; the codes are those of
//! "Microsoft Entra authentication and authorization error codes".

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::exchange::{Call, Moment, Reply};
use super::identity::{Identities, Identity, Lookup};
use super::operation::Kind;
use super::tokens::Tokens;

pub const HOST: &str = "login.microsoftonline.com";

/// The audience that federated assertions are made for.
const EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

pub enum Operation<'a> {
    Instances,
    OpenIdConfiguration { tenant: &'a str },
    Token { tenant: &'a str },
    Other,
}

impl<'a> Operation<'a> {
    pub fn parse(call: &'a Call) -> Self {
        let segments: Vec<&str> = call.path.trim_start_matches('/').split('/').collect();
        match (call.method.as_str(), segments.as_slice()) {
            ("GET", ["common", "discovery", "instance"]) => Self::Instances,
            ("GET", [tenant, "v2.0", ".well-known", "openid-configuration"]) => {
                Self::OpenIdConfiguration { tenant }
            }
            ("POST", [tenant, "oauth2", "v2.0", "token"]) => Self::Token { tenant },
            _ => Self::Other,
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Instances | Self::OpenIdConfiguration { .. } => Kind::Discovery,
            Self::Token { .. } => Kind::Token,
            Self::Other => Kind::Other,
        }
    }
}

pub fn answer(
    identities: &Identities,
    tokens: &mut Tokens,
    operation: Operation<'_>,
    call: &Call,
    moment: Moment,
) -> Reply {
    let result = match operation {
        Operation::Instances => Ok(instances(identities.tenant())),
        Operation::OpenIdConfiguration { tenant } => openid_configuration(identities, tenant),
        Operation::Token { tenant } => token(identities, tokens, tenant, call, moment),
        Operation::Other => Err(Refused::new(
            404,
            "invalid_request",
            900_144,
            "There is nothing here.",
        )),
    };
    result.unwrap_or_else(|refused| refused.reply(moment))
}

/// An error of Entra's, with its AADSTS number.
#[derive(Debug)]
struct Refused {
    status: u16,
    error: &'static str,
    code: u32,
    message: String,
}

impl Refused {
    fn new(status: u16, error: &'static str, code: u32, message: impl Into<String>) -> Self {
        Self {
            status,
            error,
            code,
            message: message.into(),
        }
    }

    fn invalid_client(code: u32, message: impl Into<String>) -> Self {
        Self::new(401, "invalid_client", code, message)
    }

    fn missing(parameter: &str) -> Self {
        let message =
            format!("The request body must contain the following parameter: '{parameter}'.");
        Self::new(400, "invalid_request", 900_144, message)
    }

    fn reply(self, moment: Moment) -> Reply {
        let id = moment.fresh;
        let description = format!(
            "AADSTS{}: {} Trace ID: {id} Correlation ID: {id} Timestamp: {}",
            self.code, self.message, moment.now
        );
        let mut reply = Reply::oauth_error(self.status, self.error, &description);
        if let Some(body) = &mut reply.body {
            body["error_codes"] = json!([self.code]);
            body["timestamp"] = json!(moment.now.to_string());
            body["trace_id"] = json!(id.to_string());
            body["correlation_id"] = json!(id.to_string());
        }
        reply
    }
}

fn instances(tenant: &str) -> Reply {
    Reply::ok(json!({
        "tenant_discovery_endpoint": format!("https://{HOST}/{tenant}/v2.0/.well-known/openid-configuration"),
        "api-version": "1.1",
        "metadata": [{
            "preferred_network": HOST,
            "preferred_cache": "login.windows.net",
            "aliases": [HOST, "login.windows.net", "login.microsoft.com", "sts.windows.net"],
        }],
    }))
}

fn openid_configuration(identities: &Identities, tenant: &str) -> Result<Reply, Refused> {
    check_tenant(identities, tenant)?;
    let base = format!("https://{HOST}/{tenant}");
    Ok(Reply::ok(json!({
        "issuer": format!("{base}/v2.0"),
        "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
        "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        "device_authorization_endpoint": format!("{base}/oauth2/v2.0/devicecode"),
        "jwks_uri": format!("{base}/discovery/v2.0/keys"),
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt"],
        "response_types_supported": ["code"],
        "subject_types_supported": ["pairwise"],
        "cloud_instance_name": "microsoftonline.com",
    })))
}

fn check_tenant(identities: &Identities, tenant: &str) -> Result<(), Refused> {
    if identities.has_tenant(tenant) {
        return Ok(());
    }
    let message =
        format!("Tenant '{tenant}' not found. Check to make sure you have the correct tenant ID.");
    Err(Refused::new(400, "invalid_request", 90_002, message))
}

fn token(
    identities: &Identities,
    tokens: &mut Tokens,
    tenant: &str,
    call: &Call,
    moment: Moment,
) -> Result<Reply, Refused> {
    check_tenant(identities, tenant)?;
    let form = Call::pairs(&String::from_utf8_lossy(&call.body));
    let field = |name: &str| {
        form.get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    };
    let grant = field("grant_type").ok_or_else(|| Refused::missing("grant_type"))?;
    if grant != "client_credentials" {
        let message = format!("The app requested an unsupported grant type '{grant}'.");
        return Err(Refused::new(400, "unsupported_grant_type", 70_003, message));
    }
    let client_id = field("client_id").ok_or_else(|| Refused::missing("client_id"))?;
    let scope = field("scope").ok_or_else(|| Refused::missing("scope"))?;
    let identity = match identities.find(client_id) {
        Lookup::Known(identity) if identity.tenant_id.eq_ignore_ascii_case(tenant) => {
            Some(identity)
        }
        Lookup::Anyone => None,
        _ => {
            let message = format!(
                "Application with identifier '{client_id}' was not found in the directory '{tenant}'."
            );
            return Err(Refused::new(400, "unauthorized_client", 700_016, message));
        }
    };
    match (field("client_assertion"), field("client_secret")) {
        (Some(assertion), _) => {
            if field("client_assertion_type") != Some(ASSERTION_TYPE) {
                return Err(Refused::missing("client_assertion_type"));
            }
            check_assertion(identity, assertion, moment.now)?;
        }
        (None, Some(secret)) => check_secret(identity, client_id, secret)?,
        (None, None) => {
            let message = "The request body must contain the following parameter: 'client_assertion' or \
                           'client_secret'.";
            return Err(Refused::invalid_client(7_000_218, message));
        }
    }
    let audience = scope.strip_suffix("/.default").ok_or_else(|| {
        let message =
            format!("The provided value for the input parameter 'scope' is not valid: {scope}.");
        Refused::new(400, "invalid_scope", 1_002_012, message)
    })?;
    let issued = tokens.issue(audience, client_id, tenant, moment);
    Ok(Reply::ok(json!({
        "token_type": "Bearer",
        "expires_in": issued.lifetime_seconds,
        "ext_expires_in": issued.lifetime_seconds,
        "access_token": issued.token,
    })))
}

fn check_secret(identity: Option<&Identity>, client_id: &str, secret: &str) -> Result<(), Refused> {
    match identity {
        Some(identity) if identity.client_secret.as_deref() != Some(secret) => {
            Err(Refused::invalid_client(
                7_000_215,
                format!("Invalid client secret provided for app '{client_id}'."),
            ))
        }
        _ => Ok(()),
    }
}

/// The claims that a federated assertion is judged by. Its signature isn't: that would need its issuer's keys.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    iss: String,
    #[serde(default)]
    sub: String,
    #[serde(default)]
    aud: Json,
    exp: Option<f64>,
    nbf: Option<f64>,
}

fn check_assertion(
    identity: Option<&Identity>,
    assertion: &str,
    now: Timestamp,
) -> Result<(), Refused> {
    let claims = read_claims(assertion).ok_or_else(|| {
        let message = "Invalid JWT token. The token must be in JWS Compact Serialization form.";
        Refused::new(400, "invalid_request", 50_027, message)
    })?;
    let for_exchange = match &claims.aud {
        Json::String(audience) => audience == EXCHANGE_AUDIENCE,
        Json::Array(audiences) => audiences
            .iter()
            .any(|audience| audience == EXCHANGE_AUDIENCE),
        _ => false,
    };
    if !for_exchange {
        let message = format!(
            "No matching federated identity record found for presented assertion audience '{}'.",
            claims.aud.as_str().unwrap_or("...")
        );
        return Err(Refused::invalid_client(700_212, message));
    }
    // Whole seconds fit a float exactly for the next two hundred million years.
    let now = now.as_second() as f64;
    if claims.exp.is_none_or(|exp| exp <= now) || claims.nbf.is_some_and(|nbf| nbf > now) {
        return Err(Refused::invalid_client(
            700_024,
            "Client assertion is not within its valid time range.",
        ));
    }
    let records = identity
        .map(|identity| identity.federated.as_slice())
        .unwrap_or_default();
    let matching = records.iter().any(|record| {
        record.subject == claims.sub
            && record
                .issuer
                .as_ref()
                .is_none_or(|issuer| *issuer == claims.iss)
    });
    if claims.sub.is_empty() || !(records.is_empty() || matching) {
        let message = format!(
            "No matching federated identity record found for presented assertion subject '{}'.",
            claims.sub
        );
        return Err(Refused::invalid_client(700_213, message));
    }
    Ok(())
}

fn read_claims(assertion: &str) -> Option<Claims> {
    let mut parts = assertion.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    let claims = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    if parts.next().is_some() {
        return None;
    }
    serde_json::from_slice(&claims).ok()
}

#[cfg(test)]
mod tests {
    use super::super::identity::FederatedCredential;
    use super::*;
    use http::{HeaderMap, Method};
    use uuid::Uuid;

    const NOW: i64 = 1_700_000_000;

    fn moment() -> Moment {
        Moment {
            now: Timestamp::from_second(NOW).unwrap(),
            fresh: Uuid::new_v4(),
        }
    }

    fn identities() -> Identities {
        Identities::new(vec![Identity {
            client_id: "app".to_owned(),
            tenant_id: "t".to_owned(),
            system: false,
            client_secret: Some("right".to_owned()),
            federated: vec![FederatedCredential {
                issuer: Some("https://issuer".to_owned()),
                subject: "system:serviceaccount:ns:sa".to_owned(),
            }],
        }])
    }

    fn ask(identities: &Identities, tenant: &str, form: &str) -> Reply {
        let call = Call {
            method: Method::POST,
            path: format!("/{tenant}/oauth2/v2.0/token"),
            query: Default::default(),
            headers: HeaderMap::new(),
            body: form.as_bytes().to_vec(),
        };
        let operation = Operation::parse(&call);
        answer(
            identities,
            &mut Tokens::default(),
            operation,
            &call,
            moment(),
        )
    }

    fn code(reply: Reply) -> u64 {
        reply.body.unwrap()["error_codes"][0].as_u64().unwrap()
    }

    const FORM: &str = "grant_type=client_credentials&client_id=app&scope=https%3A%2F%2Fvault.azure.net%2F.default";

    fn assertion(claims: Json) -> String {
        let jwt = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let kind = "urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer";
        format!("{FORM}&client_assertion_type={kind}&client_assertion={jwt}")
    }

    fn claims() -> Json {
        json!({
            "iss": "https://issuer",
            "sub": "system:serviceaccount:ns:sa",
            "aud": ["api://AzureADTokenExchange"],
            "exp": NOW + 60,
        })
    }

    #[test]
    fn a_client_secret_is_compared() {
        let right = ask(&identities(), "t", &format!("{FORM}&client_secret=right"));
        assert_eq!(right.status, 200);
        let wrong = ask(&identities(), "t", &format!("{FORM}&client_secret=wrong"));
        assert_eq!((wrong.status, code(wrong)), (401, 7_000_215));
    }

    #[test]
    fn an_assertion_is_judged_by_audience_time_issuer_and_subject() {
        assert_eq!(ask(&identities(), "t", &assertion(claims())).status, 200);
        for (claim, value, expected) in [
            ("aud", json!("api://other"), 700_212),
            ("exp", json!(NOW), 700_024),
            ("sub", json!("system:serviceaccount:ns:other"), 700_213),
            ("iss", json!("https://elsewhere"), 700_213),
        ] {
            let mut claims = claims();
            claims[claim] = value;
            assert_eq!(
                code(ask(&identities(), "t", &assertion(claims))),
                expected,
                "{claim}"
            );
        }
    }

    #[test]
    fn without_seeded_identities_anyone_gets_a_token() {
        let reply = ask(
            &Identities::default(),
            "any",
            &format!("{FORM}&client_secret=any"),
        );
        assert_eq!(reply.status, 200);
    }

    #[test]
    fn tenants_and_applications_are_looked_up() {
        assert_eq!(code(ask(&identities(), "other", FORM)), 90_002);
        let stranger = FORM.replace("=app", "=stranger");
        assert_eq!(code(ask(&identities(), "t", &stranger)), 700_016);
    }
}
