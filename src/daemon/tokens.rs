//! Tokens of ServiceAccounts, made by the API server.

use std::fmt;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::vault::{EXCHANGE_AUDIENCE, ServiceAccount, ServiceAccountTokens};

/// Seconds that a token is good for: the API server's least. It is exchanged at once.
const LIFETIME: i64 = 600;

/// Asks by the TokenRequest API (<https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/>).
pub struct TokenRequests(pub Client);

impl fmt::Debug for TokenRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenRequests")
    }
}

#[async_trait]
impl ServiceAccountTokens for TokenRequests {
    async fn token(&self, account: &ServiceAccount) -> Result<String, String> {
        let (name, namespace) = (&account.name, &account.namespace);
        let api: Api<v1::ServiceAccount> = Api::namespaced(self.0.clone(), namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(vec![EXCHANGE_AUDIENCE.to_owned()]),
                expiration_seconds: Some(LIFETIME),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let refused =
            |why: String| format!("the API server makes no token for ServiceAccount {name}: {why}");
        let made = api
            .create_token_request(name, &PostParams::default(), &request)
            .await;
        let made = made.map_err(|error| refused(error.to_string()))?;
        let token = made.status.and_then(|status| status.token);
        token.ok_or_else(|| refused("its answer has none".to_owned()))
    }
}
