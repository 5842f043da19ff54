//! Keyed digests of content. They go where people who may not read Secrets can read them (annotations of
//! Deployments), so they are HMACs under a key that is in a Secret of the daemon's own namespace: nobody can test
//! a guess against them, or compare them with a value of their own elsewhere.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Length of a digest key in bytes: that of SHA-256's output.
pub const KEY_LENGTH: usize = 32;

/// The key under which digests are made. `Debug` shows its ID, never the key.
#[derive(Clone)]
pub struct DigestKey {
    id: String,
    key: Zeroizing<Vec<u8>>,
}

/// What a digest is about. Every part goes into the digest, so equal content in two places has unequal digests.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub namespace: &'a str,
    /// Kind of what it is on: `Secret` or `Deployment`.
    pub kind: &'a str,
    /// Its name.
    pub target: &'a str,
    /// Key in the target's data.
    pub key: &'a str,
}

/// A key that is too short to be one.
#[derive(Debug, thiserror::Error)]
#[error(
    "the digest key has {0} bytes, {KEY_LENGTH} are needed; delete its Secret and restart the daemon, which then makes a new one (that restarts no workload)"
)]
pub struct KeyTooShort(usize);

impl DigestKey {
    /// Takes the key's bytes; its ID is a digest that the key makes of a constant.
    pub fn new(bytes: Vec<u8>) -> Result<Self, KeyTooShort> {
        let key = Zeroizing::new(bytes);
        if key.len() < KEY_LENGTH {
            return Err(KeyTooShort(key.len()));
        }
        let mut key = Self {
            id: String::new(),
            key,
        };
        key.id = key
            .hmac(&[b"keytide/digest-key-id"])
            .chars()
            .take(8)
            .collect();
        Ok(key)
    }

    /// Tells one key from another without telling anything about either.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Digest of the content of one key of one target.
    pub fn content(&self, place: Place<'_>, content: &[u8]) -> String {
        let Place {
            namespace,
            kind,
            target,
            key,
        } = place;
        self.hmac(&[
            b"keytide/content",
            namespace.as_bytes(),
            kind.as_bytes(),
            target.as_bytes(),
            key.as_bytes(),
            content,
        ])
    }

    /// HMAC-SHA-256 (RFC 2104) over the parts, each with its length before it, so that no two lists of parts are one
    /// message; in base64url without padding (RFC 4648, section 5).
    fn hmac(&self, parts: &[&[u8]]) -> String {
        // HMAC takes keys of any length, so this can't fail; a digest of nothing would be the one wrong answer.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else {
            unreachable!("HMAC takes keys of any length")
        };
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> DigestKey {
        DigestKey::new(vec![byte; KEY_LENGTH]).expect("long enough")
    }

    const PLACE: Place<'_> = Place {
        namespace: "runners",
        kind: "Secret",
        target: "adopat",
        key: "token",
    };

    #[test]
    fn a_short_key_is_refused() {
        assert!(DigestKey::new(vec![0; KEY_LENGTH - 1]).is_err());
    }

    #[test]
    fn debug_output_shows_no_key() {
        assert!(!format!("{:?}", key(0x61)).contains("97"));
        assert!(!format!("{:?}", key(0x61)).contains("aaaa"));
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let other = Place {
            target: "adopatt",
            key: "oken",
            ..PLACE
        };
        assert_ne!(key(1).content(PLACE, b"x"), key(1).content(other, b"x"));
    }

    proptest! {
        #[test]
        fn equal_only_for_equal_key_place_and_content(a: Vec<u8>, b: Vec<u8>, namespace in "[a-z]{1,8}") {
            let elsewhere = Place { namespace: &namespace, ..PLACE };
            prop_assert_eq!(key(1).content(PLACE, &a), key(1).content(PLACE, &a));
            prop_assert_eq!(key(1).content(PLACE, &a) == key(1).content(PLACE, &b), a == b);
            prop_assert_ne!(key(1).content(PLACE, &a), key(2).content(PLACE, &a));
            prop_assert_eq!(key(1).content(PLACE, &a) == key(1).content(elsewhere, &a), namespace == "runners");
        }
    }
}
