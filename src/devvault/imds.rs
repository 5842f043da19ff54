//! The instance metadata service's token endpoint, by which managed identities get tokens.
//!
//! Documentation: "How to use managed identities on an Azure VM to acquire an access token", sections "Get a token
//! using HTTP" and "Error handling".

use serde_json::json;

use super::exchange::{Call, Moment, Reply};
use super::identity::{Identities, Lookup};
use super::tokens::Tokens;

pub const HOST: &str = "169.254.169.254";

pub const TOKEN_PATH: &str = "/metadata/identity/oauth2/token";

pub fn answer(identities: &Identities, tokens: &mut Tokens, call: &Call, moment: Moment) -> Reply {
    let invalid = |description: &str| Reply::oauth_error(400, "invalid_request", description);
    if call.path.trim_end_matches('/') != TOKEN_PATH {
        return Reply::oauth_error(404, "not_found", "There is no such metadata here");
    }
    if call.method != http::Method::GET {
        return Reply::oauth_error(405, "method_not_allowed", "Tokens are asked for by GET");
    }
    // Both keep a server that can be talked into requests from fetching tokens for others.
    if !call
        .header("metadata")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    {
        return invalid("Required metadata header not specified");
    }
    if call.header("x-forwarded-for").is_some() {
        return invalid("Forwarded requests are not allowed");
    }
    if !call.query.contains_key("api-version") {
        return invalid("Required query variable 'api-version' is missing");
    }
    let Some(resource) = call
        .query
        .get("resource")
        .filter(|resource| !resource.is_empty())
    else {
        return invalid("Required query variable 'resource' is missing");
    };
    // Identities are known here by client ID only.
    let named_otherwise = ["object_id", "principal_id", "msi_res_id", "mi_res_id"]
        .iter()
        .any(|name| call.query.contains_key(*name));
    let client_id = match call.query.get("client_id") {
        Some(client_id) if !matches!(identities.find(client_id), Lookup::Unknown) => client_id,
        None if !named_otherwise && let Some(client_id) = identities.system() => client_id,
        _ => return invalid("Identity not found"),
    };
    let tenant = match identities.find(client_id) {
        Lookup::Known(identity) => &identity.tenant_id,
        _ => identities.tenant(),
    };
    let issued = tokens.issue(resource, client_id, tenant, moment);
    Reply::ok(json!({
        "access_token": issued.token,
        "client_id": client_id,
        // Strings, unlike Entra's.
        "expires_in": issued.lifetime_seconds.to_string(),
        "expires_on": issued.expires_on.to_string(),
        "ext_expires_in": issued.lifetime_seconds.to_string(),
        "not_before": moment.seconds().to_string(),
        "resource": resource,
        "token_type": "Bearer",
    }))
}

#[cfg(test)]
mod tests {
    use super::super::identity::Identity;
    use super::*;
    use http::{HeaderMap, Method};

    fn ask(identities: &Identities, query: &str, header: bool) -> Reply {
        let mut headers = HeaderMap::new();
        if header {
            headers.insert("Metadata", http::HeaderValue::from_static("true"));
        }
        let call = Call {
            method: Method::GET,
            path: TOKEN_PATH.to_owned(),
            query: Call::pairs(query),
            headers,
            body: Vec::new(),
        };
        answer(identities, &mut Tokens::default(), &call, Moment::current())
    }

    const QUERY: &str = "api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net";

    fn seeded() -> Identities {
        Identities::new(vec![Identity {
            client_id: "known".to_owned(),
            tenant_id: "t".to_owned(),
            system: false,
            client_secret: None,
            federated: Vec::new(),
        }])
    }

    #[test]
    fn the_metadata_header_is_needed() {
        assert_eq!(ask(&Identities::default(), QUERY, false).status, 400);
        assert_eq!(ask(&Identities::default(), QUERY, true).status, 200);
    }

    #[test]
    fn only_the_seeds_identities_are_found() {
        let identities = seeded();
        assert_eq!(
            ask(&identities, &format!("{QUERY}&client_id=known"), true).status,
            200
        );
        let unknown = ask(&identities, &format!("{QUERY}&client_id=other"), true);
        assert_eq!(
            unknown.body.unwrap()["error_description"],
            "Identity not found"
        );
        assert_eq!(ask(&identities, QUERY, true).status, 400);
    }
}
