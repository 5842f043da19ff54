//! Who may ask for tokens, and by what they prove it.

use std::fmt;

use serde::Deserialize;

/// The tenant of identities that name none.
pub const DEFAULT_TENANT: &str = "7e57a2e0-0000-4000-8000-000000000001";

/// The system-assigned identity where the seed has no identities.
const DEFAULT_SYSTEM_CLIENT_ID: &str = "7e57a2e0-0000-4000-8000-000000000002";

/// An application or managed identity of the seed.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identity {
    pub client_id: String,
    #[serde(default = "default_tenant")]
    pub tenant_id: String,
    /// Whether IMDS answers with this one when no client ID is asked for.
    #[serde(default)]
    pub system: bool,
    pub client_secret: Option<String>,
    /// The federated credentials; any subject is taken if there are none.
    #[serde(default)]
    pub federated: Vec<FederatedCredential>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FederatedCredential {
    /// Any issuer if left out.
    pub issuer: Option<String>,
    pub subject: String,
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Identity")
            .field("client_id", &self.client_id)
            .field("tenant_id", &self.tenant_id)
            .finish_non_exhaustive()
    }
}

fn default_tenant() -> String {
    DEFAULT_TENANT.to_owned()
}

/// The seed's identities. Without any, every client ID exists and proves itself by any secret or assertion.
#[derive(Clone, Debug, Default)]
pub struct Identities(Vec<Identity>);

/// Whether a client ID exists.
pub enum Lookup<'a> {
    /// It is in the seed.
    Known(&'a Identity),
    /// Nothing is, so that it is taken as it comes.
    Anyone,
    Unknown,
}

impl Identities {
    pub fn new(identities: Vec<Identity>) -> Self {
        Self(identities)
    }

    pub fn find(&self, client_id: &str) -> Lookup<'_> {
        if self.0.is_empty() {
            return Lookup::Anyone;
        }
        match self
            .0
            .iter()
            .find(|identity| identity.client_id.eq_ignore_ascii_case(client_id))
        {
            Some(identity) => Lookup::Known(identity),
            None => Lookup::Unknown,
        }
    }

    /// The client ID of the system-assigned identity, if there is one.
    pub fn system(&self) -> Option<&str> {
        if self.0.is_empty() {
            return Some(DEFAULT_SYSTEM_CLIENT_ID);
        }
        self.0
            .iter()
            .find(|identity| identity.system)
            .map(|identity| identity.client_id.as_str())
    }

    /// The tenant that vaults send their clients to.
    pub fn tenant(&self) -> &str {
        self.0
            .first()
            .map_or(DEFAULT_TENANT, |identity| &identity.tenant_id)
    }

    /// Whether there is such a tenant.
    pub fn has_tenant(&self, tenant: &str) -> bool {
        self.0.is_empty()
            || self
                .0
                .iter()
                .any(|identity| identity.tenant_id.eq_ignore_ascii_case(tenant))
    }
}
