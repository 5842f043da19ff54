//! Secrets, those among them that back certificates.

use azure_core::http::pager::PagerOptions;
use azure_security_keyvault_secrets::ResourceExt;
use azure_security_keyvault_secrets::models::{
    SecretClientGetSecretOptions, SecretClientListSecretPropertiesOptions,
};

use super::{Told, VaultClient, attributes};
use crate::vault::fingerprint::{Attributes, Fingerprint};
use crate::vault::survey::{Answer, Listed, ObjectId, Page};
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
    let (answer, next) = client.page(LIST, pager).await?;
    let mut page = Page {
        next,
        ..Page::default()
    };
    for item in answer.value {
        let Ok(id) = item.resource_id() else {
            continue;
        };
        let fingerprint = Fingerprint::from(Attributes {
            content_type: item.content_type.as_deref(),
            tags: item.tags.as_ref(),
            ..attributes(item.attributes.as_ref())
        });
        page.items.push((id.name.to_ascii_lowercase(), fingerprint));
        // What backs a certificate is looked for as a certificate.
        if item.managed != Some(true) {
            page.listed.push(Listed {
                name: id.name,
                enabled: fingerprint.enabled,
                tags: item.tags.unwrap_or_default(),
            });
        }
    }
    Ok(page)
}
