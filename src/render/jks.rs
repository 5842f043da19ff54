//! Java's own keystore format, which no crate writes. It has no specification but its implementation,
//! <https://github.com/openjdk/jdk/blob/master/src/java.base/share/classes/sun/security/provider/JavaKeyStore.java>; that of the
//! key's protection is `KeyProtector.java` beside it. Its SHA-1 is weak: what protects the key is that the file is in a Secret.

use hmac::{Hmac, KeyInit, Mac};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use x509_cert::der::asn1::{ObjectIdentifier, OctetStringRef};
use x509_cert::der::{Any, Encode, Tag};
use x509_cert::spki::AlgorithmIdentifierOwned;
use zeroize::Zeroizing;

use crate::vault::SecretValue;

const MAGIC: u32 = 0xFEED_FEED;
const VERSION: u32 = 2;
const PRIVATE_KEY_ENTRY: u32 = 1;
/// What the keystore's digest is salted with.
const WHITENER: &[u8] = b"Mighty Aphrodite";
/// Sun's own algorithm for protecting keys.
const KEY_PROTECTOR: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.42.2.17.1.1");
const SALT: usize = 20;

/// What is in a keystore.
pub(super) struct Entry<'a> {
    /// Lower case, as Java's own keystores have it.
    pub(super) alias: &'a str,
    /// In PKCS#8.
    pub(super) key: &'a SecretValue,
    /// Certificates in DER, the key's own first.
    pub(super) chain: &'a [&'a [u8]],
}

/// Writes a keystore. The same content gives the same bytes: the salt is derived from it, and there is no date.
pub(super) fn write(entry: &Entry<'_>, password: &str) -> Option<SecretValue> {
    // Java takes passwords as UTF-16.
    let password: Zeroizing<Vec<u8>> =
        Zeroizing::new(password.encode_utf16().flat_map(u16::to_be_bytes).collect());
    let protected = protect(entry.key.expose(), &password)?;
    let mut out = Vec::new();
    for word in [MAGIC, VERSION, 1, PRIVATE_KEY_ENTRY] {
        out.extend(word.to_be_bytes());
    }
    utf(&mut out, entry.alias)?;
    // When the entry was made, in milliseconds.
    out.extend(0_u64.to_be_bytes());
    block(&mut out, &protected)?;
    out.extend(u32::try_from(entry.chain.len()).ok()?.to_be_bytes());
    for certificate in entry.chain {
        utf(&mut out, "X.509")?;
        block(&mut out, certificate)?;
    }
    let digest = Sha1::new()
        .chain_update(&password)
        .chain_update(WHITENER)
        .chain_update(&out)
        .finalize();
    out.extend(digest);
    Some(out.into())
}

/// EncryptedPrivateKeyInfo: the salt, the key under a stream of SHA-1 digests, and a digest of the key.
fn protect(key: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    let salt = salt(key, password)?;
    let mut protected = salt.clone();
    let mut stream = salt;
    for chunk in key.chunks(Sha1::output_size()) {
        let digest = Sha1::new().chain_update(password).chain_update(&stream);
        stream = digest.finalize().to_vec();
        protected.extend(chunk.iter().zip(&stream).map(|(byte, mask)| byte ^ mask));
    }
    let digest = Sha1::new().chain_update(password).chain_update(key);
    protected.extend(digest.finalize());
    let algorithm = AlgorithmIdentifierOwned {
        oid: KEY_PROTECTOR,
        parameters: Some(Any::null()),
    };
    let mut fields = algorithm.to_der().ok()?;
    let octets = OctetStringRef::new(&protected).ok()?;
    octets.encode_to_vec(&mut fields).ok()?;
    Any::new(Tag::Sequence, fields).ok()?.to_der().ok()
}

/// Another one for each key and password, which is what a salt must be; nobody learns anything of either by it.
fn salt(key: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(b"keytide/jks-salt");
    mac.update(password);
    Some(mac.finalize().into_bytes()[..SALT].to_vec())
}

/// As Java's `DataOutput.writeUTF` writes text in ASCII.
fn utf(out: &mut Vec<u8>, text: &str) -> Option<()> {
    out.extend(u16::try_from(text.len()).ok()?.to_be_bytes());
    out.extend(text.as_bytes());
    Some(())
}

fn block(out: &mut Vec<u8>, bytes: &[u8]) -> Option<()> {
    out.extend(u32::try_from(bytes.len()).ok()?.to_be_bytes());
    out.extend(bytes);
    Some(())
}
