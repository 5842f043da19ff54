//! A certificate with its chain and private key, from what the vault has: a PFX in base64, or PEM.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use p12_keystore::Pkcs12Archive;
use p12_keystore::error::Error as Pkcs12Error;
use pem::{EncodeConfig, LineEnding, Pem};
use zeroize::Zeroizing;

use super::chain::{Certificate, in_order, root};
use super::private_key::PrivateKey;
use super::source::{Contents, Source};
use super::{Problem, RenderedKey, keystore};
use crate::api::{CertificateLayout, CertificateObject};
use crate::vault::SecretValue;

/// Label of a certificate in PEM (RFC 7468).
const LABEL: &str = "CERTIFICATE";

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CertificateError {
    #[error(
        "its value is neither PEM nor a PFX in base64; import it into the vault as a certificate, or mirror it as a secret"
    )]
    NoCertificate,
    #[error("its value is a PFX that needs a password; import it into the vault as a certificate")]
    PasswordNeeded,
    #[error(
        "its PFX is encrypted in a way that is not supported; export it anew with AES-256, or import it into the vault as a certificate"
    )]
    UnsupportedCipher,
    #[error("its value is base64 but no PFX that can be read; import it anew")]
    MalformedPfx,
    #[error("number {0} of its certificates is no X.509 certificate in DER; import it anew")]
    Malformed(usize),
    #[error("it holds no certificate")]
    Empty,
    #[error("it holds {0} private keys; keep one certificate with its key in an object")]
    SeveralKeys(usize),
    #[error("its private key is encrypted; import it into the vault as a certificate")]
    EncryptedKey,
    #[error(
        "its private key can't be used: RSA keys of 2048 to 8192 bits, the curves P-256, P-384 and P-521, and Ed25519 can, in PKCS#8, PKCS#1 or SEC1"
    )]
    UnusableKey,
    #[error(
        "its private key belongs to none of its certificates; import the two that belong together"
    )]
    KeyMismatch,
}

/// A certificate with what belongs to it.
pub(super) struct Bundle {
    /// The certificate itself, then its chain.
    pub(super) certificates: Vec<Certificate>,
    pub(super) key: Option<PrivateKey>,
}

/// The keys that a certificate fills.
pub(super) fn render(
    object: &CertificateObject,
    password: Option<SecretValue>,
    source: &Source,
    contents: &Contents,
) -> Result<Vec<(String, RenderedKey)>, Problem> {
    let secret = contents.get(source)?;
    let bundle = match object.layout {
        None => Bundle::parse(secret.value.expose())?,
        Some(layout) => Bundle::as_stored(secret.value.expose(), layout)?,
    };
    let key = |name: &str, value: SecretValue, made_of| {
        let rendered = RenderedKey {
            value,
            made_of,
            kind: source.kind,
            object: object.name.clone(),
            secret: Arc::clone(secret),
        };
        (name.to_owned(), rendered)
    };
    let mut keys = vec![key("tls.crt", pem(&bundle.certificates), None)];
    if let Some(private) = &bundle.key {
        let pem = match object.layout {
            None => private.pem(),
            Some(_) => private.pkcs1_pem(),
        };
        keys.push(key("tls.key", pem, None));
    }
    if object.layout.is_none()
        && let Some(root) = root(&bundle.certificates)
    {
        keys.push(key("ca.crt", pem(std::slice::from_ref(root)), None));
    }
    if let Some((wanted, password)) = object.keystore.as_ref().zip(password) {
        let made = keystore::make(wanted, &bundle, &password)?;
        keys.push(key(wanted.target_key(), made.value, made.made_of));
    }
    Ok(keys)
}

/// One PEM file of all: the private key, where there is one, then the certificate and its chain.
pub(super) fn bundle_pem(value: &[u8]) -> Result<SecretValue, CertificateError> {
    let bundle = Bundle::parse(value)?;
    let key = bundle.key.as_ref().map(PrivateKey::pem);
    let mut all = key.map_or_else(Vec::new, |key| key.expose().to_vec());
    all.extend(pem(&bundle.certificates).expose());
    Ok(all.into())
}

/// What the vault has, as it is: PEM, or a PFX in binary.
pub(super) fn raw(value: &SecretValue) -> Result<SecretValue, CertificateError> {
    let text = std::str::from_utf8(value.expose()).map_err(|_| CertificateError::NoCertificate)?;
    if is_pem(text) {
        return Ok(value.clone());
    }
    Ok(pfx(text)?.to_vec().into())
}

/// The public part alone, from DER.
pub(super) fn public(der: &[u8]) -> Result<SecretValue, CertificateError> {
    let certificate = Certificate::parse(der).ok_or(CertificateError::Malformed(1))?;
    Ok(pem(&[certificate]))
}

fn pem(certificates: &[Certificate]) -> SecretValue {
    let blocks: Vec<String> = certificates
        .iter()
        .map(|certificate| encode(LABEL, certificate.der()))
        .collect();
    blocks.concat().into_bytes().into()
}

/// PEM with lines of 64 characters and LF.
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new(label, der), config)
}

impl Bundle {
    pub(super) fn parse(value: &[u8]) -> Result<Self, CertificateError> {
        let Self { certificates, key } = Self::unordered(value)?;
        let certificates = in_order(certificates, key.as_ref().map(PrivateKey::public_key))
            .ok_or(CertificateError::KeyMismatch)?;
        Ok(Self { certificates, key })
    }

    /// In the order of akv2k8s, which is that of the vault.
    fn as_stored(value: &[u8], layout: CertificateLayout) -> Result<Self, CertificateError> {
        let mut bundle = Self::unordered(value)?;
        let is_pfx = !std::str::from_utf8(value).is_ok_and(is_pem);
        if is_pfx && layout == CertificateLayout::Akv2k8sServerFirst {
            bundle.certificates.rotate_right(1);
        }
        Ok(bundle)
    }

    fn unordered(value: &[u8]) -> Result<Self, CertificateError> {
        let text = std::str::from_utf8(value).map_err(|_| CertificateError::NoCertificate)?;
        let (certificates, mut keys) = if is_pem(text) {
            from_pem(text)?
        } else {
            from_pfx(text)?
        };
        if certificates.is_empty() {
            return Err(CertificateError::Empty);
        }
        if keys.len() > 1 {
            return Err(CertificateError::SeveralKeys(keys.len()));
        }
        let key = keys.pop();
        Ok(Self { certificates, key })
    }
}

fn is_pem(text: &str) -> bool {
    text.contains("-----BEGIN ")
}

type Parts = (Vec<Certificate>, Vec<PrivateKey>);

fn from_pem(text: &str) -> Result<Parts, CertificateError> {
    let (mut certificates, mut keys) = Parts::default();
    for block in pem::parse_many(text).map_err(|_| CertificateError::NoCertificate)? {
        let der = block.contents();
        match block.tag() {
            LABEL | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => certificates.push(
                Certificate::parse(der)
                    .ok_or(CertificateError::Malformed(certificates.len() + 1))?,
            ),
            "ENCRYPTED PRIVATE KEY" => return Err(CertificateError::EncryptedKey),
            label if label.ends_with("PRIVATE KEY") => {
                // RFC 1421's header, which OpenSSL's older formats have: `Proc-Type: 4,ENCRYPTED`.
                if block.headers().get("Proc-Type").is_some() {
                    return Err(CertificateError::EncryptedKey);
                }
                keys.push(PrivateKey::parse(label, der).ok_or(CertificateError::UnusableKey)?);
            }
            _ => {}
        }
    }
    Ok((certificates, keys))
}

/// A PFX in DER, from base64.
fn pfx(text: &str) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let compact: Zeroizing<String> = Zeroizing::new(text.split_whitespace().collect());
    STANDARD
        .decode(&*compact)
        .map(Zeroizing::new)
        .map_err(|_| CertificateError::NoCertificate)
}

/// Key Vault's PFX has no password.
fn from_pfx(text: &str) -> Result<Parts, CertificateError> {
    let der = pfx(text)?;
    let archive = Pkcs12Archive::from_pkcs12(&der, "").map_err(|error| match error {
        // Where there is no MAC, a wrong password shows as padding that is none.
        Pkcs12Error::MacError(_) | Pkcs12Error::UnpadError | Pkcs12Error::Pkcs5Error(_) => {
            CertificateError::PasswordNeeded
        }
        Pkcs12Error::UnsupportedEncryptionScheme
        | Pkcs12Error::UnsupportedMacAlgorithm
        | Pkcs12Error::UnsupportedContentType
        | Pkcs12Error::InvalidParameters => CertificateError::UnsupportedCipher,
        _ => CertificateError::MalformedPfx,
    })?;
    let certificates = archive.certs.iter().enumerate().map(|(index, bag)| {
        Certificate::parse(bag.cert.as_der()).ok_or(CertificateError::Malformed(index + 1))
    });
    let keys = archive.keys.iter().map(|bag| {
        PrivateKey::parse("PRIVATE KEY", bag.key.as_der()).ok_or(CertificateError::UnusableKey)
    });
    Ok((
        certificates.collect::<Result<_, _>>()?,
        keys.collect::<Result<_, _>>()?,
    ))
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
