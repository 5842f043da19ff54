//! A version of a certificate: how it is issued or imported, what backs it, and how it looks on the wire.
//!
//! REST reference: "CertificateBundle", "CertificateItem", "CertificatePolicy".

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use p12_keystore::{
    Certificate as Pkcs12Certificate, KeyStore, KeyStoreEntry, Pkcs12Archive,
    PrivateKey as Pkcs12Key, PrivateKeyChain,
};
use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PublicKeyData};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use sha1::{Digest, Sha1};
use x509_cert::der::{Decode, Encode};

use super::key_object::KeyParameters;
use super::object_attributes::{Attributes, Wanted};
use super::refusal::Refusal;
use super::secret::{Tags, Value};

pub const PFX: &str = "application/x-pkcs12";
pub const PEM: &str = "application/x-pem-file";

#[derive(Clone, Debug)]
pub struct Certificate {
    pub der: Vec<u8>,
    pub policy: Policy,
    pub attributes: Attributes,
    pub tags: Option<Tags>,
}

/// The policy as it was given; what this vault goes by is looked up in it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Policy(serde_json::Map<String, Json>);

impl Policy {
    fn get(&self, group: &str, name: &str) -> Option<&Json> {
        self.0.get(group)?.get(name)
    }

    fn text(&self, group: &str, name: &str) -> Option<&str> {
        self.get(group, name)?.as_str()
    }

    pub fn content_type(&self) -> &str {
        self.text("secret_props", "contentType").unwrap_or(PFX)
    }

    pub fn is_exportable(&self) -> bool {
        self.get("key_props", "exportable") != Some(&Json::Bool(false))
    }

    pub fn key(&self) -> KeyParameters {
        let parameters = self.0.get("key_props").cloned().unwrap_or_default();
        serde_json::from_value(parameters).unwrap_or_default()
    }

    pub fn json(&self, id: &str) -> Json {
        let mut policy = self.0.clone();
        policy.insert("id".to_owned(), json!(id));
        Json::Object(policy)
    }

    fn with(mut self, group: &str, name: &str, value: impl Into<Json>) -> Self {
        let group = self.0.entry(group).or_insert_with(|| json!({}));
        if group.get(name).is_none() {
            group[name] = value.into();
        }
        self
    }
}

/// A certificate with all that the vault makes of it: itself, a key and a secret under one version.
pub struct Issued {
    pub certificate: Certificate,
    pub key: KeyPair,
    /// Of the secret that backs it.
    pub value: Value,
}

impl Issued {
    /// A certificate that signs itself, which is issued at once.
    pub fn self_signed(
        policy: Policy,
        wanted: Wanted,
        tags: Option<Tags>,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        if policy
            .text("issuer", "name")
            .is_some_and(|issuer| issuer != "Self")
        {
            return Err(Refusal::bad_parameter(
                "This vault has no issuer but 'Self': certificates of others can be imported",
            ));
        }
        let key = policy.key().generate()?;
        let params = params(&policy, now)?;
        let made = params.self_signed(&key).map_err(|error| {
            Refusal::bad_parameter(format!("The policy can't be used: {error}"))
        })?;
        let der = made.der().to_vec();
        let kty = policy.key().kty.unwrap_or_else(|| "RSA".to_owned());
        let policy = policy
            .with("secret_props", "contentType", PFX)
            .with("key_props", "exportable", true)
            .with("key_props", "kty", kty)
            .with("issuer", "name", "Self");
        Self::new(vec![der], key, policy, wanted, tags, now)
    }

    /// What is imported, with its chain in the order that it has.
    pub fn imported(
        value: &str,
        password: &str,
        policy: Policy,
        wanted: Wanted,
        tags: Option<Tags>,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let unreadable = || {
            Refusal::bad_parameter(
                "The specified PKCS#12 or PEM content can't be read with this password",
            )
        };
        // Clients send PEM as it is, or in base64 as they send a PFX.
        let content = match value.contains("-----BEGIN ") {
            true => value.as_bytes().to_vec(),
            false => STANDARD.decode(value).map_err(|_| unreadable())?,
        };
        let pem = std::str::from_utf8(&content)
            .ok()
            .filter(|text| text.contains("-----BEGIN "));
        let parts = match pem {
            Some(text) => from_pem(text),
            None => from_pfx(&content, password),
        };
        let (chain, keys) = parts.ok_or_else(unreadable)?;
        let key = match keys.as_slice() {
            [key] if !chain.is_empty() => {
                KeyPair::try_from(key.as_slice()).map_err(|_| unreadable())?
            }
            _ => {
                return Err(Refusal::bad_parameter(
                    "One private key and its certificate are needed",
                ));
            }
        };
        let kty = match key.algorithm() == &rcgen::PKCS_RSA_SHA256 {
            true => "RSA",
            false => "EC",
        };
        let policy = policy
            .with(
                "secret_props",
                "contentType",
                if pem.is_some() { PEM } else { PFX },
            )
            .with("key_props", "exportable", true)
            .with("key_props", "kty", kty)
            .with("issuer", "name", "Unknown");
        Self::new(chain, key, policy, wanted, tags, now)
    }

    fn new(
        chain: Vec<Vec<u8>>,
        key: KeyPair,
        policy: Policy,
        wanted: Wanted,
        tags: Option<Tags>,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let unreadable = || Refusal::bad_parameter("The certificate can't be read");
        let own = chain.iter().find_map(|der| {
            let parsed = x509_cert::Certificate::from_der(der).ok()?;
            let certificate = parsed.tbs_certificate();
            let public = certificate.subject_public_key_info().to_der().ok()?;
            (public == key.subject_public_key_info())
                .then_some((der.clone(), *certificate.validity()))
        });
        let (der, validity) =
            own.ok_or_else(|| Refusal::bad_parameter("The private key belongs to no certificate"))?;
        let seconds = |time: x509_cert::time::Time| {
            i64::try_from(time.to_unix_duration().as_secs()).map_err(|_| unreadable())
        };
        let wanted = Wanted {
            enabled: wanted.enabled,
            nbf: Some(seconds(validity.not_before)?),
            exp: Some(seconds(validity.not_after)?),
        };
        let exported = policy.is_exportable().then_some(&key);
        let value = match policy.content_type() {
            PEM => pem_of(&chain, exported),
            _ => pfx_of(&chain, exported).ok_or_else(unreadable)?,
        };
        Ok(Self {
            certificate: Certificate {
                der,
                attributes: Attributes::new(wanted, now.as_second()),
                policy,
                tags,
            },
            key,
            value: value.into(),
        })
    }
}

fn params(policy: &Policy, now: Timestamp) -> Result<CertificateParams, Refusal> {
    let names = policy
        .get("x509_props", "sans")
        .and_then(|sans| sans.get("dns_names"));
    let names = names.and_then(Json::as_array).into_iter().flatten();
    let names: Vec<String> = names
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let mut params = CertificateParams::new(names)
        .map_err(|error| Refusal::bad_parameter(format!("A name can't be used: {error}")))?;
    let mut subject = DistinguishedName::new();
    let parts = policy
        .text("x509_props", "subject")
        .unwrap_or_default()
        .split(',');
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        let attribute = match part.split_once('=') {
            Some(("CN", value)) => (DnType::CommonName, value),
            Some(("O", value)) => (DnType::OrganizationName, value),
            Some(("OU", value)) => (DnType::OrganizationalUnitName, value),
            Some(("C", value)) => (DnType::CountryName, value),
            _ => {
                return Err(Refusal::bad_parameter(
                    "The subject is not a name such as CN=example",
                ));
            }
        };
        subject.push(attribute.0, attribute.1);
    }
    params.distinguished_name = subject;
    let months = policy
        .get("x509_props", "validity_months")
        .and_then(Json::as_i64)
        .unwrap_or(12);
    let from = now.to_zoned(TimeZone::UTC).date();
    let until = from
        .checked_add(months.clamp(1, 1200).months())
        .map_err(|_| Refusal::bad_parameter("The validity is too long"))?;
    let day = |date: jiff::civil::Date| {
        rcgen::date_time_ymd(i32::from(date.year()), date.month() as u8, date.day() as u8)
    };
    (params.not_before, params.not_after) = (day(from), day(until));
    Ok(params)
}

type Parts = (Vec<Vec<u8>>, Vec<Vec<u8>>);

fn from_pem(text: &str) -> Option<Parts> {
    let (mut certificates, mut keys) = Parts::default();
    for block in pem::parse_many(text).ok()? {
        match block.tag() {
            "CERTIFICATE" => certificates.push(block.into_contents()),
            tag if tag.ends_with("PRIVATE KEY") => keys.push(block.into_contents()),
            _ => {}
        }
    }
    Some((certificates, keys))
}

fn from_pfx(der: &[u8], password: &str) -> Option<Parts> {
    let archive = Pkcs12Archive::from_pkcs12(der, password).ok()?;
    let certificates = archive.certs.iter().map(|bag| bag.cert.as_der().to_vec());
    let keys = archive.keys.iter().map(|bag| bag.key.as_der().to_vec());
    Some((certificates.collect(), keys.collect()))
}

fn pem_of(chain: &[Vec<u8>], key: Option<&KeyPair>) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    let encode = |label: &str, der: Vec<u8>| pem::encode_config(&Pem::new(label, der), config);
    let key = key.map(|key| encode("PRIVATE KEY", key.serialize_der()));
    let chain = chain.iter().map(|der| encode("CERTIFICATE", der.clone()));
    key.into_iter().chain(chain).collect()
}

/// As Key Vault has it: without a password.
fn pfx_of(chain: &[Vec<u8>], key: Option<&KeyPair>) -> Option<String> {
    let certificates = chain.iter().map(|der| Pkcs12Certificate::from_der(der));
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().ok()?;
    let mut keystore = KeyStore::new();
    match key {
        Some(key) => {
            let key = Pkcs12Key::from_der(&key.serialize_der()).ok()?;
            let entry = PrivateKeyChain::new("1", key, certificates);
            keystore.add_entry("1", KeyStoreEntry::PrivateKeyChain(entry));
        }
        None => {
            for (number, certificate) in certificates.into_iter().enumerate() {
                let entry = KeyStoreEntry::Certificate(certificate);
                keystore.add_entry(&number.to_string(), entry);
            }
        }
    }
    Some(STANDARD.encode(keystore.writer("").write().ok()?))
}

impl Certificate {
    pub fn item(&self, id: &str) -> Json {
        let mut item = json!({
            "id": id,
            "x5t": URL_SAFE_NO_PAD.encode(Sha1::digest(&self.der)),
            "attributes": self.attributes.json(),
        });
        if let Some(tags) = &self.tags {
            item["tags"] = json!(tags);
        }
        item
    }

    /// All of it. `url` is the vault's, `place` the name and version.
    pub fn bundle(&self, url: &str, name: &str, version: &str) -> Json {
        let of = |collection: &str| format!("{url}/{collection}/{name}/{version}");
        let mut bundle = self.item(&of("certificates"));
        bundle["kid"] = json!(of("keys"));
        bundle["sid"] = json!(of("secrets"));
        bundle["cer"] = json!(STANDARD.encode(&self.der));
        bundle["policy"] = self
            .policy
            .json(&format!("{url}/certificates/{name}/policy"));
        bundle
    }
}
