//! The dev vault's certificate authority, made anew at every start, and the one that nobody trusts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;

use super::StartError;

/// Which authority signs for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Authority {
    Trusted,
    /// For the fault `otherCa`.
    Other,
}

/// TLS configurations by host, made when first asked for.
pub struct Certificates {
    provider: Arc<CryptoProvider>,
    trusted: Ca,
    other: Ca,
    configs: Mutex<HashMap<(String, Authority), Arc<ServerConfig>>>,
}

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Certificates {
    pub fn generate() -> Result<Self, StartError> {
        Ok(Self {
            // Passed along explicitly: which provider is the process's default is not for a test double to say.
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            trusted: Ca::generate("Keytide dev vault CA")?,
            other: Ca::generate("Keytide dev vault other CA")?,
            configs: Mutex::default(),
        })
    }

    /// What clients are to trust.
    pub fn ca_pem(&self) -> &str {
        &self.trusted.pem
    }

    pub fn config(
        &self,
        host: &str,
        authority: Authority,
    ) -> Result<Arc<ServerConfig>, StartError> {
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (host.to_owned(), authority);
        if let Some(config) = configs.get(&key) {
            return Ok(config.clone());
        }
        let ca = match authority {
            Authority::Trusted => &self.trusted,
            Authority::Other => &self.other,
        };
        let config = Arc::new(ca.config(host, self.provider.clone())?);
        configs.insert(key, config.clone());
        Ok(config)
    }
}

impl Ca {
    fn generate(name: &str) -> Result<Self, StartError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    fn config(
        &self,
        host: &str,
        provider: Arc<CryptoProvider>,
    ) -> Result<ServerConfig, StartError> {
        let mut params = CertificateParams::new(vec![host.to_owned()])?;
        params.distinguished_name = named("Keytide dev vault");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Strict verifiers (Python from 3.13 on) want it.
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
