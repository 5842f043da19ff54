//! Secrets, those among them that back certificates.

use azure_core::http::pager::PagerOptions;
use azure_security_keyvault_secrets::ResourceExt;
use azure_security_keyvault_secrets::models::{
    SecretClientGetSecretOptions, SecretClientListSecretPropertiesOptions,
};

use super::{Told, VaultClient, attributes};
use crate::vault::fingerprint::Attributes;
use crate::vault::survey::{Answer, ObjectId, Page};
use crate::vault::{VaultError, VaultSecret};

/// <https://learn.microsoft.com/rest/api/keyvault/secrets/get-secret/get-secret>
pub async fn get(client: &VaultClient, id: &ObjectId) -> Result<(VaultSecret, Answer), VaultError> {
    let options = SecretClientGetSecretOptions {
        secret_version: id.version.clone(),
        ..Default::default()
    };
    let answer = client.secrets.get_secret(&id.name, Some(options)).await;
    let (secret, date) = client.model(id, answer)?;
    let told = Told {
        version: secret.resource_id().ok().and_then(|id| id.version),
        attributes: Attributes {
            content_type: secret.content_type.as_deref(),
            tags: secret.tags.as_ref(),
            ..attributes(secret.attributes.as_ref())
        },
        value: secret.value.map(String::into_bytes),
    };
    client.answered(id, told, date)
}

/// <https://learn.microsoft.com/rest/api/keyvault/secrets/get-secrets/get-secrets>
pub async fn list(
    client: &VaultClient,
    method_options: PagerOptions<'_>,
) -> Result<Page, VaultError> {
    const LIST: &str = "the list of secrets";
    let options = SecretClientListSecretPropertiesOptions {
        method_options,
        ..Default::default()
    };
    let pager = client.secrets.list_secret_properties(Some(options));
    let (page, next) = client.page(LIST, pager).await?;
    let items = page.value.into_iter().filter_map(|item| {
        let name = item.resource_id().ok()?.name.to_ascii_lowercase();
        let attributes = Attributes {
            content_type: item.content_type.as_deref(),
            tags: item.tags.as_ref(),
            ..attributes(item.attributes.as_ref())
        };
        Some((name, attributes.into()))
    });
    let items = items.collect();
    Ok(Page { items, next })
}
