//! From vault objects to the data of a target. Pure: no clock, no cluster, no vault. It must never put content into an
//! error: parsers' own words are left out, since they may quote it.
//!
//! ```text
//! spec ──source──▶ what to read        value ──certificate, key──▶ PEM ──▶ keys ──template──▶ keys of the target ──secret_type──▶ fit for its type
//!                                                └──keystore──▶ PKCS#12, JKS
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::{DataEntry, Expand, KeyFormat, KeyVaultMirrorSpec, ObjectKind};
use crate::vault::{SecretValue, VaultSecret};

mod certificate;
mod chain;
mod dotenv;
mod jks;
mod key;
mod keystore;
mod login;
mod missing;
mod private_key;
mod secret_type;
mod source;
mod structure;
mod template;
mod transform;

pub use self::certificate::CertificateError;
pub use self::key::KeyError;
pub use self::keystore::KeystoreError;
pub use self::login::LoginError;
pub use self::missing::without;
pub use self::secret_type::{UnfitSecret, check, check_keys};
pub use self::source::{Contents, Source, inputs, is_known, is_pinned, keys, sources};
pub use self::structure::{StructureError, is_key};
pub use self::template::{TemplateError, TemplateProblem, check as check_template};
pub use self::transform::TransformError;

/// What one key of a target will hold, and where it comes from.
#[derive(Clone, Debug)]
pub struct RenderedKey {
    pub value: SecretValue,
    /// What tells this content from another, where `value` is another one each time it is made: what it was made of.
    pub made_of: Option<SecretValue>,
    /// Kind and name of the vault object.
    pub kind: ObjectKind,
    pub object: String,
    pub secret: Arc<VaultSecret>,
}

impl RenderedKey {
    /// The bytes whose digest tells whether the content changed.
    pub fn identity(&self) -> &[u8] {
        self.made_of.as_ref().unwrap_or(&self.value).expose()
    }
}

/// The whole data of a mirror, by key of the target.
pub type Rendered = BTreeMap<String, RenderedKey>;

/// An object whose content can't become what the mirror wants.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{kind} {object} can't be mirrored: {problem}")]
pub struct Unrenderable {
    pub kind: ObjectKind,
    pub object: String,
    pub problem: Problem,
}

/// What is wrong with an object's content.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Problem {
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Keystore(#[from] KeystoreError),
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error(transparent)]
    Structure(#[from] StructureError),
    #[error(transparent)]
    Transform(#[from] TransformError),
    #[error(
        "its value has key {0}, which another entry of the mirror fills too; leave one of them"
    )]
    KeyTwice(String),
    #[error("it was not read; that is a mistake of the daemon's, which should be reported")]
    Missing,
}

/// Why a mirror's data can't be rendered.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RenderError {
    #[error(transparent)]
    Object(#[from] Unrenderable),
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// Renders all keys of a mirror from the objects that [`sources`] names.
pub fn render(spec: &KeyVaultMirrorSpec, contents: &Contents) -> Result<Rendered, RenderError> {
    let rendered = objects(spec, contents)?;
    match &spec.template {
        Some(template) => Ok(template::fill(template, rendered)?),
        None => Ok(rendered),
    }
}

/// The keys that `data` and `dataFrom` give.
fn objects(spec: &KeyVaultMirrorSpec, contents: &Contents) -> Result<Rendered, Unrenderable> {
    let mut rendered = Rendered::new();
    for entry in &spec.data {
        let source = Source::of(&entry.object);
        let key = one(entry, contents.get(&source)).map_err(source.failed())?;
        rendered.insert(entry.key.clone(), key);
    }
    for certificate in spec
        .data_from
        .iter()
        .filter_map(|from| from.certificate.as_ref())
    {
        let source = Source::of_certificate(certificate);
        let password = match &certificate.keystore {
            Some(keystore) => {
                let password = Source::of_secret(&keystore.password);
                let value = contents.get(&password).map_err(password.failed())?;
                keystore::check_password(&value.value).map_err(password.failed())?;
                Some(value.value.clone())
            }
            None => None,
        };
        let keys = certificate::render(certificate, password, &source, contents)
            .map_err(source.failed())?;
        rendered.extend(keys);
    }
    for from in &spec.data_from {
        if let Some(wanted) = &from.basic_auth {
            let source = Source::of_secret(&wanted.object);
            let secret = contents.get(&source).map_err(source.failed())?;
            rendered.extend(login::basic_auth(wanted, secret).map_err(source.failed())?);
        }
        if let Some(wanted) = &from.docker_config {
            rendered.extend(login::docker_config(wanted, spec.target.type_, contents)?);
        }
    }
    for expanded in spec
        .data_from
        .iter()
        .filter_map(|from| from.expand.as_ref())
    {
        let source = Source::of_secret(&expanded.object);
        for (key, value) in expand(expanded, contents.get(&source)).map_err(source.failed())? {
            if rendered.contains_key(&key) {
                return Err(source.failed()(Problem::KeyTwice(key)));
            }
            rendered.insert(key, value);
        }
    }
    Ok(rendered)
}

/// A key that one object fills: a secret byte for byte, with line ends and trailing newlines as the vault has them; of a
/// certificate or key the public part.
fn one(
    entry: &DataEntry,
    content: Result<&Arc<VaultSecret>, Problem>,
) -> Result<RenderedKey, Problem> {
    let (object, secret) = (&entry.object, content?);
    let value = match object.kind {
        ObjectKind::Secret => match &object.property {
            Some(path) => structure::property(secret.value.expose(), path)?,
            None => secret.value.clone(),
        },
        ObjectKind::Certificate if object.format == Some(KeyFormat::Raw) => {
            certificate::raw(&secret.value)?
        }
        ObjectKind::Certificate => certificate::public(secret.value.expose())?,
        ObjectKind::Key => key::render(secret.value.expose(), object.format.unwrap_or_default())?,
    };
    Ok(RenderedKey {
        value: transform::transform(&value, &entry.transforms)?,
        made_of: None,
        kind: object.kind,
        object: object.name.clone(),
        secret: Arc::clone(secret),
    })
}

/// The keys that a secret with many values fills.
fn expand(
    expanded: &Expand,
    content: Result<&Arc<VaultSecret>, Problem>,
) -> Result<Rendered, Problem> {
    let secret = content?;
    let values = structure::expand(secret.value.expose(), expanded.format)?;
    let key = |(key, value)| {
        let rendered = RenderedKey {
            value,
            made_of: None,
            kind: ObjectKind::Secret,
            object: expanded.object.name.clone(),
            secret: Arc::clone(secret),
        };
        (key, rendered)
    };
    Ok(values.into_iter().map(key).collect())
}

#[cfg(test)]
mod tests;
