//! Keystores: a certificate, its chain and its private key in one file under a password.

use p12_keystore::{
    Certificate as Pkcs12Certificate, KeyStore, KeyStoreEntry, PrivateKey as Pkcs12Key,
    PrivateKeyChain,
};

use super::certificate::Bundle;
use super::jks::{self, Entry};
use crate::api::{Keystore, KeystoreFormat};
use crate::vault::SecretValue;

/// Java's tools refuse shorter ones.
const SHORTEST_PASSWORD: usize = 6;

/// Why a keystore can't be made.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeystoreError {
    #[error("a keystore needs its private key, which can't be exported; leave out the keystore")]
    NoKey,
    #[error("its certificate or key can't be put into a keystore")]
    Unwritable,
    #[error(
        "it is no password for a keystore: that is text of at least {SHORTEST_PASSWORD} characters, without line ends or other control characters"
    )]
    Password,
}

/// A keystore that was made.
pub(super) struct Made {
    pub(super) value: SecretValue,
    pub(super) made_of: Option<SecretValue>,
}

/// Refuses what programs would not take as a password, or what nobody could type.
pub(super) fn check_password(value: &SecretValue) -> Result<(), KeystoreError> {
    text(value).map(drop)
}

fn text(password: &SecretValue) -> Result<&str, KeystoreError> {
    std::str::from_utf8(password.expose())
        .ok()
        .filter(|text| text.chars().count() >= SHORTEST_PASSWORD)
        // Passwords in PKCS#12 have no characters beyond the Basic Multilingual Plane.
        .filter(|text| {
            text.chars()
                .all(|c| !c.is_control() && u32::from(c) <= 0xffff)
        })
        .ok_or(KeystoreError::Password)
}

pub(super) fn make(
    wanted: &Keystore,
    bundle: &Bundle,
    password: &SecretValue,
) -> Result<Made, KeystoreError> {
    let password_text = text(password)?;
    let leaf = bundle
        .certificates
        .first()
        .ok_or(KeystoreError::Unwritable)?;
    let key = bundle.key.as_ref().ok_or(KeystoreError::NoKey)?;
    let key = key
        .pkcs8(&leaf.algorithm)
        .ok_or(KeystoreError::Unwritable)?;
    let chain: Vec<&[u8]> = bundle.certificates.iter().map(|c| c.der()).collect();
    let entry = Entry {
        alias: &wanted.alias,
        key: &key,
        chain: &chain,
    };
    match wanted.format {
        KeystoreFormat::Jks => Ok(Made {
            value: jks::write(&entry, password_text).ok_or(KeystoreError::Unwritable)?,
            made_of: None,
        }),
        // Its salts are random, so that no two of the same content are equal.
        KeystoreFormat::Pkcs12 => Ok(Made {
            value: pkcs12(&entry, password_text).ok_or(KeystoreError::Unwritable)?,
            made_of: Some(made_of(&entry, password)),
        }),
    }
}

fn pkcs12(entry: &Entry<'_>, password: &str) -> Option<SecretValue> {
    let chain = entry
        .chain
        .iter()
        .map(|der| Pkcs12Certificate::from_der(der));
    let chain: Vec<_> = chain.collect::<Result<_, _>>().ok()?;
    let key = Pkcs12Key::from_der(entry.key.expose()).ok()?;
    let mut keystore = KeyStore::new();
    keystore.add_entry(
        entry.alias,
        KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new(entry.alias, key, chain)),
    );
    Some(keystore.writer(password).write().ok()?.into())
}

/// All that goes into a keystore, each part with its length before it.
fn made_of(entry: &Entry<'_>, password: &SecretValue) -> SecretValue {
    let mut all = Vec::new();
    let parts = [
        b"PKCS12",
        entry.alias.as_bytes(),
        password.expose(),
        entry.key.expose(),
    ];
    for part in parts.into_iter().chain(entry.chain.iter().copied()) {
        all.extend((part.len() as u64).to_be_bytes());
        all.extend(part);
    }
    all.into()
}
