//! ServiceAccounts of the mirrors' own namespaces, as whom vaults may be read. Pure.
//!
//! The daemon can have tokens made of any ServiceAccount that RBAC lets it, so it looks at those alone that carry its label:
//! whoever may write a mirror must not thereby act as an account that was made for something else.

use k8s_openapi::api::core::v1;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;

use crate::vault::ServiceAccount;

/// Label, with the value `true`, by which a ServiceAccount lets the mirrors of its namespace read as it.
pub const USE_LABEL: &str = "keytide.dev/use";
/// The annotations of Azure Workload Identity
/// (<https://azure.github.io/azure-workload-identity/docs/topics/service-account-labels-and-annotations.html>).
const CLIENT_ID: &str = "azure.workload.identity/client-id";
const TENANT_ID: &str = "azure.workload.identity/tenant-id";

/// Why a mirror can't read as the ServiceAccount that it names.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UnusableAccount {
    #[error(
        "spec.identity names ServiceAccount {0}, but Keytide is installed without the right to act as ServiceAccounts; set the chart's value identity.serviceAccounts, or leave spec.identity out"
    )]
    Off(String),
    #[error(
        "there is no ServiceAccount {0} with the label {USE_LABEL}: \"true\" in this namespace; create it, or label it if mirrors may read as it"
    )]
    NotLabelled(String),
    #[error(
        "ServiceAccount {0} has no annotation {CLIENT_ID}; set it to the client ID of the identity that has a federated credential for it"
    )]
    NoClientId(String),
}

/// As whom a mirror reads that names this ServiceAccount, of which `metadata` is known if it has the label.
pub fn usable(
    name: &str,
    metadata: Option<&PartialObjectMeta<v1::ServiceAccount>>,
) -> Result<ServiceAccount, UnusableAccount> {
    let Some(account) = metadata else {
        return Err(UnusableAccount::NotLabelled(name.to_owned()));
    };
    let annotation = |name| {
        account
            .annotations()
            .get(name)
            .filter(|value| !value.is_empty())
            .cloned()
    };
    Ok(ServiceAccount {
        namespace: account.namespace().unwrap_or_default(),
        name: name.to_owned(),
        client_id: annotation(CLIENT_ID)
            .ok_or_else(|| UnusableAccount::NoClientId(name.to_owned()))?,
        tenant_id: annotation(TENANT_ID),
    })
}
