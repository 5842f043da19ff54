//! A version of a key: its public part, and how it looks on the wire. Nothing is ever signed or decrypted with it, so that the
//! private part isn't kept.
//!
//! REST reference: "KeyBundle", "KeyItem", "JsonWebKey".

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, RsaKeySize, SignatureAlgorithm};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use x509_cert::der::Decode;
use x509_cert::der::asn1::Uint;

use super::object_attributes::Attributes;
use super::refusal::Refusal;
use super::secret::Tags;

#[derive(Clone, Debug)]
pub struct Key {
    /// The public members of a JSON Web Key.
    pub public: PublicJwk,
    pub operations: Vec<String>,
    pub attributes: Attributes,
    pub tags: Option<Tags>,
    /// Whether it backs a certificate.
    pub managed: bool,
}

/// `kty` and what else is public.
#[derive(Clone, Debug, Deserialize)]
pub struct PublicJwk {
    pub kty: String,
    pub n: Option<String>,
    pub e: Option<String>,
    pub crv: Option<String>,
    pub x: Option<String>,
    pub y: Option<String>,
}

/// What a key is to be like.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct KeyParameters {
    pub kty: Option<String>,
    pub key_size: Option<u32>,
    pub crv: Option<String>,
}

impl KeyParameters {
    /// Makes a key pair. (The one place of the core that draws random numbers itself: a key is nothing a test foresees.)
    pub fn generate(&self) -> Result<KeyPair, Refusal> {
        let unsupported = |what: &str| Refusal::bad_parameter(format!("{what} is not supported"));
        let pair = match self.kty.as_deref().unwrap_or("RSA") {
            "RSA" | "RSA-HSM" => {
                let size = match self.key_size.unwrap_or(2048) {
                    2048 => RsaKeySize::_2048,
                    3072 => RsaKeySize::_3072,
                    4096 => RsaKeySize::_4096,
                    size => return Err(unsupported(&format!("Key size {size}"))),
                };
                KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size)
            }
            "EC" | "EC-HSM" => {
                KeyPair::generate_for(match self.crv.as_deref().unwrap_or("P-256") {
                    "P-256" => &rcgen::PKCS_ECDSA_P256_SHA256,
                    "P-384" => &rcgen::PKCS_ECDSA_P384_SHA384,
                    "P-521" => &rcgen::PKCS_ECDSA_P521_SHA512,
                    curve => return Err(unsupported(&format!("Curve {curve}"))),
                })
            }
            kind => return Err(unsupported(&format!("Key type {kind}"))),
        };
        pair.map_err(|error| Refusal::bad_parameter(format!("The key can't be made: {error}")))
    }
}

impl PublicJwk {
    pub fn of(pair: &KeyPair, kty: &str) -> Result<Self, Refusal> {
        Self::parse(pair.algorithm(), pair.public_key_raw(), kty)
            .ok_or_else(|| Refusal::bad_parameter("The key is of a type that is not supported"))
    }

    fn parse(algorithm: &SignatureAlgorithm, public: &[u8], kty: &str) -> Option<Self> {
        let text = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
        let mut jwk = Self {
            kty: kty.to_owned(),
            n: None,
            e: None,
            crv: None,
            x: None,
            y: None,
        };
        if algorithm == &rcgen::PKCS_RSA_SHA256 {
            let fields = Vec::<Uint>::from_der(public).ok()?;
            let [n, e] = fields.as_slice() else {
                return None;
            };
            (jwk.n, jwk.e) = (text(n.as_bytes()), text(e.as_bytes()));
            return Some(jwk);
        }
        // The point, uncompressed.
        let (x, y) = public.get(1..)?.split_at_checked(public.len() / 2)?;
        jwk.crv = Some(format!(
            "P-{}",
            if x.len() == 66 { 521 } else { x.len() * 8 }
        ));
        (jwk.x, jwk.y) = (text(x), text(y));
        Some(jwk)
    }

    fn is_complete(&self) -> bool {
        match self.kty.trim_end_matches("-HSM") {
            "RSA" => self.n.is_some() && self.e.is_some(),
            "EC" => self.crv.is_some() && self.x.is_some() && self.y.is_some(),
            _ => false,
        }
    }

    /// Refuses what a vault that is no managed HSM doesn't import.
    pub fn check(self) -> Result<Self, Refusal> {
        if self.is_complete() {
            Ok(self)
        } else {
            Err(Refusal::bad_parameter(
                "The property 'key' is not a key that can be imported",
            ))
        }
    }
}

impl Key {
    /// All but what a list leaves out.
    pub fn bundle(&self, kid: &str) -> Json {
        let public = &self.public;
        let mut key = json!({"kid": kid, "kty": public.kty, "key_ops": self.operations});
        let members = [
            ("n", &public.n),
            ("e", &public.e),
            ("crv", &public.crv),
            ("x", &public.x),
            ("y", &public.y),
        ];
        for (name, value) in members {
            if let Some(value) = value {
                key[name] = json!(value);
            }
        }
        let mut bundle = json!({"key": key});
        self.describe(&mut bundle);
        bundle
    }

    pub fn item(&self, kid: &str) -> Json {
        let mut item = json!({"kid": kid});
        self.describe(&mut item);
        item
    }

    fn describe(&self, json: &mut Json) {
        json["attributes"] = self.attributes.json();
        if let Some(tags) = &self.tags {
            json["tags"] = json!(tags);
        }
        if self.managed {
            json["managed"] = json!(true);
        }
    }
}
