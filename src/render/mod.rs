//! From vault objects to the data of a target. Pure: no clock, no cluster, no vault. It must never put content into an
//! error.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::vault::{SecretValue, VaultSecret};

/// What one key of a target will hold, and where it comes from.
#[derive(Clone, Debug)]
pub struct RenderedKey {
    pub value: SecretValue,
    /// Name of the vault object.
    pub object: String,
    pub secret: Arc<VaultSecret>,
}

/// The whole data of a mirror, by key of the target.
pub type Rendered = BTreeMap<String, RenderedKey>;

/// Renders each key from its object: byte for byte, with line ends and trailing newlines as the vault has them.
pub fn render<'a>(
    answers: impl IntoIterator<Item = (&'a str, &'a str, Arc<VaultSecret>)>,
) -> Rendered {
    answers
        .into_iter()
        .map(|(key, object, secret)| {
            let rendered = RenderedKey {
                value: secret.value.clone(),
                object: object.to_owned(),
                secret,
            };
            (key.to_owned(), rendered)
        })
        .collect()
}
