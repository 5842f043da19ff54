//! The key of the digests, in a Secret of the daemon's own namespace.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};

use super::Result;
use crate::digest::{DigestKey, KEY_LENGTH};

/// Key of the Secret.
const DIGEST_KEY: &str = "key";

/// Reads the digest key, or makes one where there is none. Of two daemons that make one at once, the later takes the earlier's.
pub async fn digest_key(client: &Client, namespace: &str, name: &str) -> Result<DigestKey> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = match api.get_opt(name).await? {
        Some(secret) => secret,
        None => {
            let mut bytes = vec![0; KEY_LENGTH];
            getrandom::fill(&mut bytes)?;
            let mut secret = Secret {
                data: Some([(DIGEST_KEY.to_owned(), ByteString(bytes))].into()),
                ..Default::default()
            };
            secret.metadata.name = Some(name.to_owned());
            secret.labels_mut().insert(
                "app.kubernetes.io/managed-by".to_owned(),
                "keytide".to_owned(),
            );
            match api.create(&PostParams::default(), &secret).await {
                Ok(secret) => secret,
                Err(kube::Error::Api(status)) if status.code == 409 => api.get(name).await?,
                Err(error) => return Err(error.into()),
            }
        }
    };
    of_secret(secret)
}

/// Reads the digest key. None where there is none, or who asks may not read it.
pub async fn known_digest_key(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<DigestKey>> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    match api.get_opt(name).await {
        Ok(secret) => secret.map(of_secret).transpose(),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn of_secret(secret: Secret) -> Result<DigestKey> {
    let bytes = secret
        .data
        .and_then(|mut data| data.remove(DIGEST_KEY))
        .unwrap_or_default();
    Ok(DigestKey::new(bytes.0)?)
}
