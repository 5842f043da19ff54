//! `SecretStore` and `ClusterSecretStore` of provider azurekv: which vault, and as whom it is read. The fields are those of
//! <https://external-secrets.io/latest/provider/azure-key-vault/>.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde_json::Value;

use super::finding::{Finding, Findings, Gap};
use super::names;
use super::resource::Resource;
use crate::api::{GrantIdentity, VaultRef};

pub(super) const KINDS: [&str; 2] = ["SecretStore", "ClusterSecretStore"];

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum StoreName {
    Cluster(String),
    /// Namespace and name.
    Namespaced(String, String),
}

impl fmt::Display for StoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster(name) => write!(f, "ClusterSecretStore {name:?}"),
            Self::Namespaced(namespace, name) => write!(f, "SecretStore {namespace}/{name:?}"),
        }
    }
}

#[derive(Clone)]
pub(super) struct Store {
    pub vault: VaultRef,
    pub reader: Reader,
}

/// As whom a store reads.
#[derive(Clone)]
pub(super) enum Reader {
    /// As an identity that the grant names, or as the daemon's own.
    Grant(Option<GrantIdentity>),
    /// As this ServiceAccount of the ExternalSecret's namespace.
    ServiceAccount(String),
}

/// The stores of the input.
pub(super) struct Stores {
    known: BTreeMap<StoreName, Known>,
}

enum Known {
    KeyVault(Store),
    /// It has findings of its own.
    NotUnderstood,
    AnotherProvider,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Provider {
    auth_type: Option<String>,
    vault_url: String,
    tenant_id: Option<String>,
    environment_type: Option<String>,
    auth_secret_ref: Option<Value>,
    service_account_ref: Option<ServiceAccountRef>,
    identity_id: Option<String>,
    #[serde(rename = "useAzureSDK")]
    _use_azure_sdk: Option<bool>,
    custom_cloud_config: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceAccountRef {
    name: String,
    namespace: Option<String>,
    audiences: Option<Vec<String>>,
}

impl Stores {
    pub fn of(resources: &[Resource]) -> (Self, Vec<Finding>) {
        let mut known = BTreeMap::new();
        let mut found = Vec::new();
        for resource in resources {
            let name = match resource.kind.as_str() {
                "ClusterSecretStore" => StoreName::Cluster(resource.name.clone()),
                _ => StoreName::Namespaced(resource.namespace.clone(), resource.name.clone()),
            };
            let mut findings = Findings::about(resource);
            known.insert(name, read(resource, &mut findings));
            found.extend(findings.into_vec());
        }
        (Self { known }, found)
    }

    pub fn get(&self, name: &StoreName) -> Result<&Store, String> {
        match self.known.get(name) {
            Some(Known::KeyVault(store)) => Ok(store),
            Some(Known::NotUnderstood) => Err(format!("{name} is not converted")),
            Some(Known::AnotherProvider) => {
                Err(format!("{name} is of another provider than azurekv"))
            }
            None => Err(format!("{name} is not in the input")),
        }
    }

    pub fn is_of_another_provider(&self, name: &StoreName) -> bool {
        matches!(self.known.get(name), Some(Known::AnotherProvider))
    }
}

fn read(resource: &Resource, findings: &mut Findings) -> Known {
    let Some(provider) = resource.pointer("/spec/provider/azurekv") else {
        return Known::AnotherProvider;
    };
    let provider = Provider::deserialize(provider)
        .map_err(|error| format!("its spec.provider.azurekv is not understood: {error}"));
    let store = findings.take(provider).and_then(|provider| {
        let vault = findings.take(names::vault_at(&provider.vault_url))?;
        let reader = reader(resource, &provider, findings);
        Some(Store { vault, reader })
    });
    store.map_or(Known::NotUnderstood, Known::KeyVault)
}

fn reader(resource: &Resource, provider: &Provider, findings: &mut Findings) -> Reader {
    if let Some(cloud) = provider
        .environment_type
        .as_deref()
        .filter(|cloud| *cloud != "PublicCloud")
    {
        findings.by_hand(format_args!(
            "its cloud is {cloud:?}: run the daemon with --vault-dns-suffix and AZURE_AUTHORITY_HOST of that cloud"
        ));
    } else if provider.custom_cloud_config.is_some() {
        findings.by_hand(
            "it has a customCloudConfig: run the daemon with --vault-dns-suffix and AZURE_AUTHORITY_HOST of that cloud",
        );
    }
    let daemon = Reader::Grant(None);
    match provider.auth_type.as_deref().unwrap_or("ServicePrincipal") {
        "ManagedIdentity" => {
            Reader::Grant(provider.identity_id.clone().map(|client_id| GrantIdentity {
                client_id: Some(client_id),
                tenant_id: None,
                mirrors_own: None,
            }))
        }
        "WorkloadIdentity" => match &provider.service_account_ref {
            Some(account) => service_account(resource, provider, account, findings),
            None if provider.auth_secret_ref.is_some() => {
                findings.differs(
                    "its client ID is in a Secret; the grant is for the daemon's own identity: write the client ID into it",
                );
                daemon
            }
            None => {
                findings.by_hand(
                    "it reads as External Secrets' own ServiceAccount; the grant is for the daemon's own identity, which needs \
                     the same rights",
                );
                daemon
            }
        },
        "ServicePrincipal" => {
            findings.differs(Gap::ClientSecret);
            daemon
        }
        other => {
            findings.not_converted(format_args!("its authType {other:?} is not known"));
            daemon
        }
    }
}

fn service_account(
    resource: &Resource,
    provider: &Provider,
    account: &ServiceAccountRef,
    findings: &mut Findings,
) -> Reader {
    let name = &account.name;
    if !names::is_dns(name) {
        findings.not_converted(format_args!("{name:?} is not a name of a ServiceAccount"));
        return Reader::Grant(None);
    }
    if resource.namespace.is_empty() {
        let namespace = account.namespace.as_deref().unwrap_or_default();
        findings.differs(format_args!(
            "it reads as ServiceAccount {name} of namespace {namespace:?}, and mirrors only as those of their own; the grant is \
             for the daemon's own identity: give the ServiceAccount's identity a federated credential for the daemon, and write \
             its client ID into the grant"
        ));
        return Reader::Grant(None);
    }
    let has_audiences = account
        .audiences
        .as_ref()
        .is_some_and(|audiences| !audiences.is_empty());
    if has_audiences {
        findings.differs(
            "its audiences are not carried over: the federated credential needs api://AzureADTokenExchange",
        );
    }
    findings.by_hand(format_args!(
        "run the daemon with --service-accounts, and: kubectl label serviceaccount --namespace {} {name} keytide.dev/use=true",
        resource.namespace
    ));
    if provider.auth_secret_ref.is_some() || provider.tenant_id.is_some() {
        findings.by_hand(format_args!(
            "write the client ID and tenant ID as annotations azure.workload.identity/client-id and \
             azure.workload.identity/tenant-id on ServiceAccount {name}"
        ));
    }
    Reader::ServiceAccount(name.clone())
}
