//! Public parts of keys. The value is a JSON Web Key (RFC 7517) of public members only.

use azure_core::http::pager::PagerOptions;
use azure_security_keyvault_keys::ResourceExt;
use azure_security_keyvault_keys::models::{
    JsonWebKey, KeyClientGetKeyOptions, KeyClientListKeyPropertiesOptions,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::{Told, VaultClient, attributes};
use crate::vault::fingerprint::Attributes;
use crate::vault::survey::{Answer, ObjectId, Page};
use crate::vault::{VaultError, VaultSecret};

/// <https://learn.microsoft.com/rest/api/keyvault/keys/get-key/get-key>
pub async fn get(client: &VaultClient, id: &ObjectId) -> Result<(VaultSecret, Answer), VaultError> {
    let options = KeyClientGetKeyOptions {
        key_version: id.version.clone(),
        ..Default::default()
    };
    let answer = client.keys.get_key(&id.name, Some(options)).await;
    let (key, date) = client.model(id, answer)?;
    let told = Told {
        version: key.resource_id().ok().and_then(|id| id.version),
        attributes: Attributes {
            tags: key.tags.as_ref(),
            ..attributes(key.attributes.as_ref())
        },
        value: key.key.as_ref().map(public_jwk),
    };
    client.answered(id, told, date)
}

/// <https://learn.microsoft.com/rest/api/keyvault/keys/get-keys/get-keys>
pub async fn list(
    client: &VaultClient,
    method_options: PagerOptions<'_>,
) -> Result<Page, VaultError> {
    const LIST: &str = "the list of keys";
    let options = KeyClientListKeyPropertiesOptions {
        method_options,
        ..Default::default()
    };
    let pager = client.keys.list_key_properties(Some(options));
    let (page, next) = client.page(LIST, pager).await?;
    let items = page.value.into_iter().filter_map(|item| {
        let name = item.resource_id().ok()?.name.to_ascii_lowercase();
        let attributes = Attributes {
            tags: item.tags.as_ref(),
            ..attributes(item.attributes.as_ref())
        };
        Some((name, attributes.into()))
    });
    let items = items.collect();
    Ok(Page {
        items,
        next,
        ..Page::default()
    })
}

/// The public members as Key Vault gives them: its names of key types and curves are not all those of the RFCs.
fn public_jwk(key: &JsonWebKey) -> Vec<u8> {
    let number =
        |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
    let members = [
        ("kty", key.kty.as_ref().map(ToString::to_string)),
        ("kid", key.kid.clone()),
        ("n", number(&key.n)),
        ("e", number(&key.e)),
        ("crv", key.crv.as_ref().map(ToString::to_string)),
        ("x", number(&key.x)),
        ("y", number(&key.y)),
    ];
    let members = members.into_iter();
    let jwk: serde_json::Map<String, Value> = members
        .filter_map(|(name, value)| Some((name.to_owned(), value?.into())))
        .collect();
    Value::Object(jwk).to_string().into_bytes()
}
