//! The bundles were made by OpenSSL (`testdata/make.sh`).

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const ROOT: &str = include_str!("testdata/root.crt");
const INTERMEDIATE: &str = include_str!("testdata/intermediate.crt");
const RSA: &str = include_str!("testdata/rsa.crt");
const EC: &str = include_str!("testdata/ec.crt");
const RSA_PKCS8: &str = include_str!("testdata/rsa.key");
const RSA_PKCS1: &str = include_str!("testdata/rsa.pkcs1.key");
const EC_PKCS8: &str = include_str!("testdata/ec.key");
const EC_SEC1: &str = include_str!("testdata/ec.sec1.key");
const MODERN: &str = include_str!("testdata/modern.pfx");
const LEGACY: &str = include_str!("testdata/legacy.pfx");
const NO_KEY: &str = include_str!("testdata/nokey.pfx");
const PASSWORD: &str = include_str!("testdata/password.pfx");

fn parse(value: &str) -> Result<Bundle, CertificateError> {
    Bundle::parse(value.as_bytes())
}

fn text(value: &SecretValue) -> &str {
    std::str::from_utf8(value.expose()).expect("PEM")
}

/// `tls.crt`, `tls.key` and `ca.crt`.
fn files(value: &str) -> (String, Option<String>, Option<String>) {
    let bundle = parse(value).expect("a bundle");
    let key = bundle.key.as_ref().map(|key| text(&key.pem()).to_owned());
    let root =
        root(&bundle.certificates).map(|root| text(&pem(std::slice::from_ref(root))).to_owned());
    (text(&pem(&bundle.certificates)).to_owned(), key, root)
}

fn chain(leaf: &str) -> String {
    [leaf, INTERMEDIATE, ROOT].concat()
}

#[test]
fn a_pfx_with_a_modern_or_a_legacy_cipher_gives_chain_key_and_root() {
    for pfx in [MODERN, LEGACY] {
        let expected = (
            chain(RSA),
            Some(RSA_PKCS8.to_owned()),
            Some(ROOT.to_owned()),
        );
        assert_eq!(files(pfx), expected);
    }
}

/// `tls.crt` and `tls.key` as akv2k8s writes them.
fn as_akv2k8s(value: &str, layout: CertificateLayout) -> (String, Option<String>) {
    let bundle = Bundle::as_stored(value.as_bytes(), layout).expect("a bundle");
    let key = bundle.key.as_ref().map(PrivateKey::pkcs1_pem);
    let key = key.map(|key| text(&key).to_owned());
    (text(&pem(&bundle.certificates)).to_owned(), key)
}

#[test]
fn as_akv2k8s_has_it_the_order_is_that_of_the_vault_and_the_key_of_rsa_in_pkcs1() {
    use CertificateLayout::{Akv2k8s, Akv2k8sServerFirst};
    let key = Some(RSA_PKCS1.to_owned());
    let stored = [RSA, ROOT, INTERMEDIATE].concat();
    for pfx in [MODERN, LEGACY] {
        assert_eq!(as_akv2k8s(pfx, Akv2k8s), (stored.clone(), key.clone()));
        let server_first = [INTERMEDIATE, RSA, ROOT].concat();
        assert_eq!(
            as_akv2k8s(pfx, Akv2k8sServerFirst),
            (server_first, key.clone())
        );
    }
    // Of PEM, chainOrder changes nothing.
    for encoding in [RSA_PKCS8, RSA_PKCS1] {
        let value = [ROOT, encoding, RSA].concat();
        let expected = ([ROOT, RSA].concat(), key.clone());
        assert_eq!(as_akv2k8s(&value, Akv2k8sServerFirst), expected);
    }
    let curve = [EC, EC_PKCS8].concat();
    let expected = (EC.to_owned(), Some(EC_PKCS8.to_owned()));
    assert_eq!(as_akv2k8s(&curve, Akv2k8s), expected);
}

#[test]
fn what_the_vault_has_is_given_as_it_is() {
    let given =
        |value: &str| raw(&value.as_bytes().to_vec().into()).map(|raw| raw.expose().to_vec());
    let pem = [RSA, RSA_PKCS8].concat();
    assert_eq!(given(&pem).as_deref(), Ok(pem.as_bytes()));
    let pfx = STANDARD.decode(MODERN.trim()).expect("base64");
    assert_eq!(given(MODERN), Ok(pfx));
    assert_eq!(given("?"), Err(CertificateError::NoCertificate));
}

#[test]
fn a_pfx_without_key_gives_the_public_part() {
    assert_eq!(files(NO_KEY), (chain(RSA), None, Some(ROOT.to_owned())));
}

#[test]
fn the_leaf_comes_first_whatever_the_order_in_the_vault() {
    for leaf in [EC, RSA] {
        let (a, b, c) = (leaf, INTERMEDIATE, ROOT);
        for order in [
            [a, b, c],
            [a, c, b],
            [b, a, c],
            [b, c, a],
            [c, a, b],
            [c, b, a],
        ] {
            assert_eq!(files(&order.concat()).0, chain(leaf));
        }
    }
}

#[test]
fn with_a_key_its_own_certificate_is_the_leaf() {
    let both = [ROOT, RSA, INTERMEDIATE, EC, EC_PKCS8].concat();
    assert!(files(&both).0.starts_with(&chain(EC)));
}

#[test]
fn a_key_stays_in_the_encoding_that_it_has() {
    for (certificate, key) in [
        (RSA, RSA_PKCS8),
        (RSA, RSA_PKCS1),
        (EC, EC_PKCS8),
        (EC, EC_SEC1),
    ] {
        for value in [[key, certificate].concat(), [certificate, key].concat()] {
            let value = value.replace('\n', "\r\n");
            assert_eq!(
                files(&value),
                (certificate.to_owned(), Some(key.to_owned()), None)
            );
        }
    }
}

#[test]
fn a_chain_that_ends_below_its_root_has_no_ca() {
    assert_eq!(files(&[EC, INTERMEDIATE].concat()).2, None);
    assert_eq!(files(ROOT).2.as_deref(), Some(ROOT));
}

#[test]
fn what_no_use_can_be_made_of_is_said() {
    use CertificateError as E;
    let encrypted = include_str!("testdata/ec.encrypted.key");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let broken_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for (value, error) in [
        ("hunter2".to_owned(), E::NoCertificate),
        (String::new(), E::MalformedPfx),
        ("AAAA".to_owned(), E::MalformedPfx),
        (PASSWORD.to_owned(), E::PasswordNeeded),
        (MODERN[..2000].to_owned(), E::MalformedPfx),
        ([EC, RSA_PKCS8].concat(), E::KeyMismatch),
        ([EC, EC_PKCS8, RSA_PKCS8].concat(), E::SeveralKeys(2)),
        ([EC, encrypted].concat(), E::EncryptedKey),
        ([EC, broken].concat(), E::Malformed(2)),
        ([EC, broken_key].concat(), E::UnusableKey),
        (EC_PKCS8.to_owned(), E::Empty),
    ] {
        assert_eq!(parse(&value).err(), Some(error), "{value}");
    }
    assert_eq!(Bundle::parse(b"\xff").err(), Some(E::NoCertificate));
}

#[test]
fn the_public_part_alone_is_pem() {
    let der = pem::parse(EC).expect("PEM");
    assert_eq!(public(der.contents()).as_ref().map(text), Ok(EC));
    assert!(public(b"x").is_err());
}

proptest! {
    #[test]
    fn no_text_panics(value in ".{0,200}") {
        let _ = parse(&value);
    }

    #[test]
    fn no_broken_bundle_panics(
        which in 0..3usize,
        cut in any::<Index>(),
        replaced in any::<Index>(),
        byte: u8,
    ) {
        let pem = [EC_SEC1, EC, INTERMEDIATE].concat();
        let value = [NO_KEY, PASSWORD, &pem][which];
        let mut bytes = value.as_bytes().to_vec();
        let at = replaced.index(bytes.len());
        bytes[at] = byte;
        bytes.truncate(cut.index(bytes.len() * 4).max(1));
        let _ = Bundle::parse(&bytes);
    }
}
