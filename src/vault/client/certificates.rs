//! Public parts of certificates. The value is the certificate in DER.

use azure_core::http::pager::PagerOptions;
use azure_security_keyvault_certificates::ResourceExt;
use azure_security_keyvault_certificates::models::{
    CertificateClientGetCertificateOptions, CertificateClientListCertificatePropertiesOptions,
};

use super::{Told, VaultClient, attributes};
use crate::vault::fingerprint::Attributes;
use crate::vault::survey::{Answer, ObjectId, Page};
use crate::vault::{VaultError, VaultSecret};

/// <https://learn.microsoft.com/rest/api/keyvault/certificates/get-certificate/get-certificate>
pub async fn get(client: &VaultClient, id: &ObjectId) -> Result<(VaultSecret, Answer), VaultError> {
    let options = CertificateClientGetCertificateOptions {
        certificate_version: id.version.clone(),
        ..Default::default()
    };
    let answer = client
        .certificates
        .get_certificate(&id.name, Some(options))
        .await;
    let (certificate, date) = client.model(id, answer)?;
    let told = Told {
        version: certificate.resource_id().ok().and_then(|id| id.version),
        attributes: Attributes {
            tags: certificate.tags.as_ref(),
            ..attributes(certificate.attributes.as_ref())
        },
        value: certificate.cer,
    };
    client.answered(id, told, date)
}

/// <https://learn.microsoft.com/rest/api/keyvault/certificates/get-certificates/get-certificates>
pub async fn list(
    client: &VaultClient,
    method_options: PagerOptions<'_>,
) -> Result<Page, VaultError> {
    const LIST: &str = "the list of certificates";
    let options = CertificateClientListCertificatePropertiesOptions {
        method_options,
        ..Default::default()
    };
    let pager = client
        .certificates
        .list_certificate_properties(Some(options));
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
