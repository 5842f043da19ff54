//! The cluster's certificates and the key that signs its ServiceAccount tokens, made anew for each cluster.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};

use super::Result;

/// The names by which Pods and we reach the API server; the address is the first of the Service range.
const SERVER_NAMES: [&str; 7] = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
    "127.0.0.1",
    "10.0.0.1",
];

/// Everything in PEM.
pub struct Certificates {
    pub ca: String,
    /// The administrator's client certificate, of the group that RBAC never asks.
    pub admin: String,
    pub admin_key: String,
    folder: PathBuf,
}

impl Certificates {
    /// Makes them and writes to `folder` what the control plane reads from files.
    pub fn create(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let authority = authority()?;
        let (server, server_key) = leaf(&authority, "kube-apiserver", None, &SERVER_NAMES)?;
        let (admin, admin_key) = leaf(&authority, "testbed-admin", Some("system:masters"), &[])?;
        let tokens = KeyPair::generate()?;

        let certificates = Self {
            ca: authority.pem(),
            admin,
            admin_key,
            folder: folder.into(),
        };
        for (path, content) in [
            (certificates.ca_file(), &certificates.ca),
            (certificates.ca_key_file(), &authority.key().serialize_pem()),
            (certificates.server_file(), &server),
            (certificates.server_key_file(), &server_key),
            (certificates.admin_file(), &certificates.admin),
            (certificates.admin_key_file(), &certificates.admin_key),
            (certificates.token_key_file(), &tokens.serialize_pem()),
            (
                certificates.token_public_key_file(),
                &tokens.public_key_pem(),
            ),
        ] {
            write_private(&path, content)?;
        }
        Ok(certificates)
    }

    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    pub fn ca_key_file(&self) -> PathBuf {
        self.folder.join("ca.key")
    }

    pub fn server_file(&self) -> PathBuf {
        self.folder.join("kube-apiserver.crt")
    }

    pub fn server_key_file(&self) -> PathBuf {
        self.folder.join("kube-apiserver.key")
    }

    pub fn admin_file(&self) -> PathBuf {
        self.folder.join("admin.crt")
    }

    pub fn admin_key_file(&self) -> PathBuf {
        self.folder.join("admin.key")
    }

    pub fn token_key_file(&self) -> PathBuf {
        self.folder.join("service-accounts.key")
    }

    pub fn token_public_key_file(&self) -> PathBuf {
        self.folder.join("service-accounts.pub")
    }
}

/// A server that isn't the cluster's: the certificate of its authority, its own, and its key.
pub fn server(name: &str) -> Result<(String, String, String)> {
    let authority = authority()?;
    let (certificate, key) = leaf(&authority, name, None, &[name])?;
    Ok((authority.pem(), certificate, key))
}

/// Writes a file that holds a credential: other users of the machine can't read it.
pub fn write_private(path: &Path, content: &str) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(content.as_bytes())?)
}

fn authority() -> Result<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "testbed CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?)
}

/// A certificate and its key. Kubernetes takes the common name for the user and the organization for the group.
fn leaf(
    authority: &CertifiedIssuer<'static, KeyPair>,
    common_name: &str,
    organization: Option<&str>,
    names: &[&str],
) -> Result<(String, String)> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let usage = if names.is_empty() {
        ExtendedKeyUsagePurpose::ClientAuth
    } else {
        ExtendedKeyUsagePurpose::ServerAuth
    };
    let mut params = CertificateParams::new(names)?;
    // rcgen's default is a name of its own.
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    Ok((certificate.pem(), key.serialize_pem()))
}
