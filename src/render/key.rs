//! The public part of a key, from the JSON Web Key that the vault gives to SubjectPublicKeyInfo or to a JSON Web Key as RFC 7517
//! has it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::json;
use x509_cert::der::asn1::{BitString, ObjectIdentifier, UintRef};
use x509_cert::der::{Any, Encode, Tag};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::certificate::encode;
use crate::api::KeyFormat;
use crate::vault::SecretValue;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");

/// Why a key has no public part that can be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyError {
    #[error("it is a symmetric key, which has no public part")]
    Symmetric,
    #[error(
        "it is of a type or on a curve that is not supported; RSA, P-256, P-384, P-521 and P-256K are"
    )]
    Unsupported,
    #[error("it is no RSA key, and only those have a modulus; set format to PEM or JWK")]
    NoModulus,
    #[error("format Raw is for certificates; set it to PEM, JWK or Modulus")]
    Raw,
    #[error("what the vault gave is no JSON Web Key")]
    Malformed,
}

/// What the vault gives. Members that are not public are not even parsed.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

enum PublicKey {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    Ec {
        curve: Curve,
        x: Vec<u8>,
        y: Vec<u8>,
    },
}

struct Curve {
    /// Name in JSON Web Keys: RFC 7518, section 6.2.1.1, and RFC 8812.
    name: &'static str,
    oid: ObjectIdentifier,
    /// Length of a coordinate in bytes.
    size: usize,
}

impl Curve {
    fn named(name: &str) -> Option<Self> {
        let (name, oid, size) = match name {
            "P-256" => (
                "P-256",
                ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7"),
                32,
            ),
            "P-384" => ("P-384", ObjectIdentifier::new_unwrap("1.3.132.0.34"), 48),
            "P-521" => ("P-521", ObjectIdentifier::new_unwrap("1.3.132.0.35"), 66),
            "P-256K" | "secp256k1" => (
                "secp256k1",
                ObjectIdentifier::new_unwrap("1.3.132.0.10"),
                32,
            ),
            _ => return None,
        };
        Some(Self { name, oid, size })
    }
}

/// Writes a key's public part.
pub(super) fn render(jwk: &[u8], format: KeyFormat) -> Result<SecretValue, KeyError> {
    let jwk: Jwk = serde_json::from_slice(jwk).map_err(|_| KeyError::Malformed)?;
    let key = public_key(&jwk)?;
    match format {
        KeyFormat::Pem => {
            let der = key.spki().ok_or(KeyError::Malformed)?;
            Ok(encode("PUBLIC KEY", &der).into_bytes().into())
        }
        KeyFormat::Jwk => Ok(key.jwk(jwk.kid.as_deref()).into_bytes().into()),
        KeyFormat::Modulus => match key {
            PublicKey::Rsa { n, .. } => Ok(URL_SAFE_NO_PAD.encode(n).into_bytes().into()),
            PublicKey::Ec { .. } => Err(KeyError::NoModulus),
        },
        KeyFormat::Raw => Err(KeyError::Raw),
    }
}

fn public_key(jwk: &Jwk) -> Result<PublicKey, KeyError> {
    let number = |member: &Option<String>| {
        let bytes = URL_SAFE_NO_PAD.decode(member.as_ref()?).ok()?;
        let bytes: Vec<u8> = bytes.into_iter().skip_while(|byte| *byte == 0).collect();
        (!bytes.is_empty()).then_some(bytes)
    };
    // Keys in hardware have types of their own.
    match jwk.kty.trim_end_matches("-HSM") {
        "RSA" => {
            let (n, e) = number(&jwk.n)
                .zip(number(&jwk.e))
                .ok_or(KeyError::Malformed)?;
            Ok(PublicKey::Rsa { n, e })
        }
        "EC" => {
            let curve = jwk.crv.as_deref().ok_or(KeyError::Malformed)?;
            let curve = Curve::named(curve).ok_or(KeyError::Unsupported)?;
            let coordinate = |member: &Option<String>| {
                let bytes = number(member).filter(|bytes| bytes.len() <= curve.size)?;
                let mut padded = vec![0; curve.size - bytes.len()];
                padded.extend(bytes);
                Some(padded)
            };
            let (x, y) = coordinate(&jwk.x)
                .zip(coordinate(&jwk.y))
                .ok_or(KeyError::Malformed)?;
            Ok(PublicKey::Ec { curve, x, y })
        }
        "oct" => Err(KeyError::Symmetric),
        _ => Err(KeyError::Unsupported),
    }
}

impl PublicKey {
    /// SubjectPublicKeyInfo (RFC 5280, section 4.1) in DER.
    fn spki(&self) -> Option<Vec<u8>> {
        let (oid, parameters, bits) = match self {
            Self::Rsa { n, e } => {
                // RSAPublicKey (RFC 8017, appendix A.1.1).
                let mut fields = UintRef::new(n).ok()?.to_der().ok()?;
                fields.extend(UintRef::new(e).ok()?.to_der().ok()?);
                let bits = Any::new(Tag::Sequence, fields).ok()?.to_der().ok()?;
                (RSA, Any::null(), bits)
            }
            Self::Ec { curve, x, y } => {
                // The point, uncompressed (RFC 5480, section 2.2).
                let bits = [&[4], x.as_slice(), y.as_slice()].concat();
                (EC, Any::encode_from(&curve.oid).ok()?, bits)
            }
        };
        let spki = SubjectPublicKeyInfoOwned {
            algorithm: AlgorithmIdentifierOwned {
                oid,
                parameters: Some(parameters),
            },
            subject_public_key: BitString::from_bytes(&bits).ok()?,
        };
        spki.to_der().ok()
    }

    fn jwk(&self, kid: Option<&str>) -> String {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match self {
            Self::Rsa { n, e } => json!({"kty": "RSA", "n": text(n), "e": text(e)}),
            Self::Ec { curve, x, y } => {
                json!({"kty": "EC", "crv": curve.name, "x": text(x), "y": text(y)})
            }
        };
        if let Some(kid) = kid {
            jwk["kid"] = kid.into();
        }
        jwk.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use x509_cert::der::Decode;
    use x509_cert::der::asn1::Uint;

    use super::*;
    use crate::render::chain::Certificate;

    /// The JSON Web Key of a certificate's public key, as the vault has it.
    fn jwk_of(pem: &str) -> (String, Vec<u8>) {
        let der = pem::parse(pem).expect("PEM").into_contents();
        let certificate = Certificate::parse(&der).expect("a certificate");
        let spki = certificate.public_key().to_vec();
        let parsed = SubjectPublicKeyInfoOwned::from_der(&spki).expect("a key");
        let bits = parsed.subject_public_key.raw_bytes();
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let jwk = if parsed.algorithm.oid == RSA {
            let fields = Vec::<Uint>::from_der(bits).expect("numbers");
            let [n, e] = [0, 1].map(|field| text(fields[field].as_bytes()));
            json!({"kty": "RSA-HSM", "kid": "https://v/keys/k/1", "n": n, "e": e, "d": "private"})
        } else {
            json!({"kty": "EC", "crv": "P-256", "x": text(&bits[1..33]), "y": text(&bits[33..])})
        };
        (jwk.to_string(), spki)
    }

    #[test]
    fn a_key_in_pem_is_what_openssl_has_in_its_certificate() {
        for pem in [
            include_str!("testdata/rsa.crt"),
            include_str!("testdata/ec.crt"),
        ] {
            let (jwk, spki) = jwk_of(pem);
            let rendered = render(jwk.as_bytes(), KeyFormat::Pem).expect("rendered");
            assert_eq!(rendered.expose(), encode("PUBLIC KEY", &spki).as_bytes());
        }
    }

    #[test]
    fn a_json_web_key_has_the_names_of_the_rfcs_and_nothing_private() {
        let (jwk, _) = jwk_of(include_str!("testdata/rsa.crt"));
        let rendered = render(jwk.as_bytes(), KeyFormat::Jwk).expect("rendered");
        let rendered: serde_json::Value = serde_json::from_slice(rendered.expose()).expect("JSON");
        assert_eq!(rendered["kty"], "RSA");
        assert_eq!(rendered["kid"], "https://v/keys/k/1");
        assert_eq!(rendered.get("d"), None);
        let odd = r#"{"kty":"EC-HSM","crv":"P-256K","x":"AQ","y":"Ag"}"#;
        let rendered = render(odd.as_bytes(), KeyFormat::Jwk).expect("rendered");
        let rendered: serde_json::Value = serde_json::from_slice(rendered.expose()).expect("JSON");
        assert_eq!(
            (&rendered["kty"], &rendered["crv"]),
            (&json!("EC"), &json!("secp256k1"))
        );
        assert_eq!(
            rendered["x"].as_str().map(str::len),
            Some(43),
            "padded to 32 bytes"
        );
    }

    #[test]
    fn the_modulus_is_what_the_vault_has_of_an_rsa_key_alone() {
        let (jwk, _) = jwk_of(include_str!("testdata/rsa.crt"));
        let parsed: serde_json::Value = serde_json::from_str(&jwk).expect("JSON");
        let rendered = render(jwk.as_bytes(), KeyFormat::Modulus).expect("rendered");
        assert_eq!(
            parsed["n"].as_str().map(str::as_bytes),
            Some(rendered.expose())
        );
        let (curve, _) = jwk_of(include_str!("testdata/ec.crt"));
        let refused = |format| render(curve.as_bytes(), format).err();
        assert_eq!(refused(KeyFormat::Modulus), Some(KeyError::NoModulus));
        assert_eq!(refused(KeyFormat::Raw), Some(KeyError::Raw));
    }

    #[test]
    fn what_has_no_public_part_is_said() {
        for (jwk, error) in [
            (r#"{"kty":"oct-HSM"}"#, KeyError::Symmetric),
            (r#"{"kty":"EC","crv":"P-1"}"#, KeyError::Unsupported),
            (r#"{"kty":"OKP"}"#, KeyError::Unsupported),
            (r#"{"kty":"RSA","n":"AQAB"}"#, KeyError::Malformed),
            (r#"{"kty":"RSA","n":"*","e":"AQAB"}"#, KeyError::Malformed),
            ("hunter2", KeyError::Malformed),
        ] {
            assert_eq!(
                render(jwk.as_bytes(), KeyFormat::Pem).err(),
                Some(error),
                "{jwk}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_numbers_panic(kty in "RSA|EC", n in "[A-Za-z0-9_-]{0,200}", e in "[A-Za-z0-9_-]{0,90}") {
            let jwk = json!({"kty": kty, "crv": "P-521", "n": n, "e": e, "x": n, "y": e});
            for format in [KeyFormat::Pem, KeyFormat::Jwk] {
                let _ = render(jwk.to_string().as_bytes(), format);
            }
        }
    }
}
