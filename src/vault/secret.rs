//! A secret of the vault, and the type its value travels in.

use std::fmt;

use jiff::Timestamp;
use zeroize::Zeroizing;

/// A secret's value, from GET to apply. It wipes itself when dropped and prints as `[redacted]`. Copies in the buffers
/// of the HTTP client and the JSON parser are freed at once, but not wiped: see the threat model in the docs.
#[derive(Clone, Eq, PartialEq)]
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl SecretValue {
    /// The bytes, for those who write or digest them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for SecretValue {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// One version of a secret as the vault gave it.
#[derive(Clone, Debug)]
pub struct VaultSecret {
    pub value: SecretValue,
    /// 32 hexadecimal digits.
    pub version: String,
    /// By the vault's clock, in whole seconds.
    pub updated: Option<Timestamp>,
    /// `nbf`: Key Vault serves the value before it too.
    pub not_before: Option<Timestamp>,
    /// `exp`: Key Vault serves the value after it too.
    pub expires: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_value() {
        let secret = VaultSecret {
            value: b"hunter2".to_vec().into(),
            version: String::new(),
            updated: None,
            not_before: None,
            expires: None,
        };
        assert!(format!("{secret:?}").contains("[redacted]"));
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
