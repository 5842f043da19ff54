//! A certificate's private key, in the encoding that it came in.

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier, OctetStringRef};
use x509_cert::der::{Any, Decode, Encode, Reader, Tag};
use x509_cert::spki::AlgorithmIdentifierOwned;
use zeroize::{Zeroize, Zeroizing};

use super::certificate::encode;
use crate::vault::SecretValue;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Encoding {
    /// RFC 5958.
    Pkcs8,
    /// RFC 8017, RSA only.
    Pkcs1,
    /// RFC 5915, curves only.
    Sec1,
}

impl Encoding {
    fn of(label: &str) -> Option<Self> {
        match label {
            "PRIVATE KEY" => Some(Self::Pkcs8),
            "RSA PRIVATE KEY" => Some(Self::Pkcs1),
            "EC PRIVATE KEY" => Some(Self::Sec1),
            _ => None,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Pkcs8 => "PRIVATE KEY",
            Self::Pkcs1 => "RSA PRIVATE KEY",
            Self::Sec1 => "EC PRIVATE KEY",
        }
    }
}

/// A private key that was seen to be one, and its public part.
pub(super) struct PrivateKey {
    encoding: Encoding,
    der: Zeroizing<Vec<u8>>,
    /// SubjectPublicKeyInfo in DER.
    public: Vec<u8>,
}

impl PrivateKey {
    /// Takes what stands under a label of PEM (RFC 7468).
    pub(super) fn parse(label: &str, der: &[u8]) -> Option<Self> {
        let encoding = Encoding::of(label)?;
        let borrowed = match encoding {
            Encoding::Pkcs8 => PrivateKeyDer::Pkcs8(der.into()),
            Encoding::Pkcs1 => PrivateKeyDer::Pkcs1(der.into()),
            Encoding::Sec1 => PrivateKeyDer::Sec1(der.into()),
        };
        let key = any_supported_type(&borrowed).ok()?;
        let public = key.public_key()?.to_vec();
        Some(Self {
            encoding,
            der: Zeroizing::new(der.to_vec()),
            public,
        })
    }

    pub(super) fn public_key(&self) -> &[u8] {
        &self.public
    }

    pub(super) fn pem(&self) -> SecretValue {
        encode(self.encoding.label(), &self.der).into_bytes().into()
    }

    /// RSA keys in PKCS#1, and others in the encoding that they have.
    pub(super) fn pkcs1_pem(&self) -> SecretValue {
        match (self.encoding, rsa_of(&self.der)) {
            (Encoding::Pkcs8, Some(key)) => {
                encode(Encoding::Pkcs1.label(), &key).into_bytes().into()
            }
            _ => self.pem(),
        }
    }

    /// In PKCS#8, which is what keystores hold. `algorithm` is that of the certificate's public key.
    pub(super) fn pkcs8(&self, algorithm: &AlgorithmIdentifierOwned) -> Option<SecretValue> {
        if self.encoding == Encoding::Pkcs8 {
            return Some(self.der.to_vec().into());
        }
        // PrivateKeyInfo: version 0, the algorithm, and the key as octets.
        let mut fields = vec![0x02, 0x01, 0x00];
        fields.extend(algorithm.to_der().ok()?);
        let octets = OctetStringRef::new(&self.der).ok()?;
        octets.encode_to_vec(&mut fields).ok()?;
        let info = Any::new(Tag::Sequence, fields.as_slice()).ok()?;
        let der = info.to_der().ok()?;
        fields.zeroize();
        Some(der.into())
    }
}

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// The key in PKCS#1 that a PrivateKeyInfo of RSA holds.
fn rsa_of(pkcs8: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let info = AnyRef::from_der(pkcs8).ok()?;
    let fields = info.sequence(|fields| {
        let _version = AnyRef::decode(fields)?;
        let algorithm = AlgorithmIdentifierOwned::decode(fields)?;
        let key = AnyRef::decode(fields)?;
        // Attributes may follow.
        let rest = fields.remaining_len();
        fields.read_slice(rest)?;
        Ok::<_, x509_cert::der::Error>((algorithm.oid, key))
    });
    let (algorithm, key) = fields.ok()?;
    (algorithm == RSA).then(|| Zeroizing::new(key.value().to_vec()))
}
