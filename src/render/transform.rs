//! Transforms of values, in the order in which the mirror names them.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use zeroize::Zeroizing;

use super::certificate::{CertificateError, bundle_pem};
use crate::api::Transform;
use crate::vault::SecretValue;

/// Takes base64 with and without padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a transform can't be done.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TransformError {
    #[error("transform {0} is for text in UTF-8, which its value is not")]
    NotText(Transform),
    #[error("transform base64Decode: its value is no base64")]
    Base64,
    #[error("transform pemBundle: {0}")]
    Certificate(#[from] CertificateError),
}

/// Does one transform after the other.
pub(super) fn transform(
    value: &SecretValue,
    transforms: &[Transform],
) -> Result<SecretValue, TransformError> {
    transforms
        .iter()
        .try_fold(value.clone(), |value, transform| apply(&value, *transform))
}

fn apply(value: &SecretValue, transform: Transform) -> Result<SecretValue, TransformError> {
    let bytes = value.expose();
    let text = || std::str::from_utf8(bytes).map_err(|_| TransformError::NotText(transform));
    Ok(match transform {
        Transform::Trim => bytes.trim_ascii().to_vec().into(),
        Transform::Base64Encode => STANDARD.encode(bytes).into_bytes().into(),
        Transform::Base64Decode => {
            // Tools break lines.
            let compact = bytes.iter().filter(|byte| !byte.is_ascii_whitespace());
            let compact: Zeroizing<Vec<u8>> = Zeroizing::new(compact.copied().collect());
            let decoded = LENIENT
                .decode(&*compact)
                .map_err(|_| TransformError::Base64)?;
            decoded.into()
        }
        Transform::Lower => text()?.to_lowercase().into_bytes().into(),
        Transform::Upper => text()?.to_uppercase().into_bytes().into(),
        Transform::JsonEscape => {
            let quoted = Zeroizing::new(serde_json::Value::from(text()?).to_string());
            quoted.as_bytes()[1..quoted.len() - 1].to_vec().into()
        }
        Transform::PemBundle => bundle_pem(bytes)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn done(value: &[u8], transforms: &[Transform]) -> Result<Vec<u8>, TransformError> {
        transform(&value.to_vec().into(), transforms).map(|value| value.expose().to_vec())
    }

    #[test]
    fn transforms_are_done_in_order() {
        use Transform as T;
        for (value, transforms, expected) in [
            (&b" a\n"[..], &[T::Trim][..], &b"a"[..]),
            (b" a\n", &[], b" a\n"),
            (b"\xff", &[T::Base64Encode], b"/w=="),
            (b"/w==\n", &[T::Base64Decode], b"\xff"),
            (b"/w", &[T::Base64Decode], b"\xff"),
            (b" YSA= ", &[T::Base64Decode, T::Trim, T::Upper], b"A"),
            ("\u{c4}".as_bytes(), &[T::Lower], "\u{e4}".as_bytes()),
            (b"a\"\\\n", &[T::JsonEscape], br#"a\"\\\n"#),
        ] {
            assert_eq!(
                done(value, transforms).as_deref(),
                Ok(expected),
                "{transforms:?}"
            );
        }
    }

    #[test]
    fn a_pfx_becomes_one_file_of_pem() {
        let pfx = include_bytes!("testdata/modern.pfx");
        let expected = [
            include_str!("testdata/rsa.key"),
            include_str!("testdata/rsa.crt"),
            include_str!("testdata/intermediate.crt"),
            include_str!("testdata/root.crt"),
        ];
        assert_eq!(
            done(pfx, &[Transform::PemBundle]),
            Ok(expected.concat().into_bytes())
        );
    }

    #[test]
    fn what_can_not_be_transformed_is_said_without_quoting_it() {
        for (value, transform) in [
            (&b"hunter2!"[..], Transform::Base64Decode),
            (b"hunter2\xff", Transform::Upper),
            (b"hunter2", Transform::PemBundle),
        ] {
            let error = done(value, &[transform]).expect_err("refused").to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(value: Vec<u8>) {
            let there_and_back = [Transform::Base64Encode, Transform::Base64Decode];
            prop_assert_eq!(done(&value, &there_and_back), Ok(value));
        }
    }
}
