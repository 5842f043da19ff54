//! The order of a certificate's chain.

use x509_cert::certificate::{CertificateInner, Raw};
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, SubjectKeyIdentifier};
use x509_cert::spki::AlgorithmIdentifierOwned;

/// A certificate with what its place in a chain is told by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Certificate {
    der: Vec<u8>,
    /// Names in DER.
    subject: Vec<u8>,
    issuer: Vec<u8>,
    /// Identifiers of its own key and of the one that signed it, where it says so.
    key_id: Option<Vec<u8>>,
    issuer_key_id: Option<Vec<u8>>,
    /// SubjectPublicKeyInfo in DER.
    public_key: Vec<u8>,
    pub(super) algorithm: AlgorithmIdentifierOwned,
}

impl Certificate {
    pub(super) fn parse(der: &[u8]) -> Option<Self> {
        let parsed = CertificateInner::<Raw>::from_der(der).ok()?;
        let certificate = parsed.tbs_certificate();
        let key_id = certificate.get_extension::<SubjectKeyIdentifier>();
        let issuer_key_id = certificate.get_extension::<AuthorityKeyIdentifier>();
        let public_key = certificate.subject_public_key_info();
        Some(Self {
            der: der.to_vec(),
            subject: certificate.subject().to_der().ok()?,
            issuer: certificate.issuer().to_der().ok()?,
            // Extensions that can't be read say nothing.
            key_id: key_id
                .ok()
                .flatten()
                .map(|(_, id)| id.0.into_bytes().into()),
            issuer_key_id: issuer_key_id
                .ok()
                .flatten()
                .and_then(|(_, id)| Some(id.key_identifier?.into_bytes().into())),
            public_key: public_key.to_der().ok()?,
            algorithm: public_key.algorithm.clone(),
        })
    }

    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    /// SubjectPublicKeyInfo in DER.
    #[cfg(test)]
    pub(super) fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether `issuer` may have signed this one: the name is right and, where both say so, the key.
    fn is_issued_by(&self, issuer: &Self) -> bool {
        let same_key = match (&self.issuer_key_id, &issuer.key_id) {
            (Some(wanted), Some(is)) => wanted == is,
            _ => true,
        };
        self.issuer == issuer.subject && same_key
    }
}

/// Puts certificates into the order of TLS (RFC 8446, section 4.4.2): the one that the key belongs to, then each one's issuer.
/// Without a key, the first is the one that issued none of the others. What is of another chain comes last, as it was. `None` if
/// the key belongs to none.
pub(super) fn in_order(
    mut rest: Vec<Certificate>,
    public_key: Option<&[u8]>,
) -> Option<Vec<Certificate>> {
    let leaf = match public_key {
        Some(public_key) => rest
            .iter()
            .position(|certificate| certificate.public_key == public_key)?,
        None => {
            let issued_none = |(index, candidate): &(usize, &Certificate)| {
                let mut others = rest.iter().enumerate();
                !others.any(|(other, certificate)| {
                    other != *index && certificate.is_issued_by(candidate)
                })
            };
            let mut candidates = rest.iter().enumerate();
            candidates.find(issued_none).map_or(0, |(index, _)| index)
        }
    };
    let mut ordered = vec![rest.remove(leaf)];
    while let Some(last) = ordered.last()
        && !last.is_self_issued()
        && let Some(issuer) = rest.iter().position(|other| last.is_issued_by(other))
    {
        ordered.push(rest.remove(issuer));
    }
    for certificate in rest {
        if !ordered.contains(&certificate) {
            ordered.push(certificate);
        }
    }
    Some(ordered)
}

/// The certificate that the chain ends in, if it goes up to its root.
pub(super) fn root(ordered: &[Certificate]) -> Option<&Certificate> {
    let mut last = ordered.first()?;
    for next in &ordered[1..] {
        if last.is_self_issued() || !last.is_issued_by(next) {
            break;
        }
        last = next;
    }
    last.is_self_issued().then_some(last)
}
