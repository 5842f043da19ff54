//! How many keys one Secret can have. Pure.

use std::collections::BTreeMap;

use super::record::Record;
use super::size::{MOST_DATA, MOST_OWN_ANNOTATIONS};
use crate::render::Rendered;
use crate::vault::VaultHost;

/// What is written down of a key has more bytes than these and its names.
const LEAST_RECORD: usize = 150;

/// More keys than one Secret can have.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{count} keys are too many for one Secret: {excess}; narrow namePattern or tags, or give the keys to several mirrors with a Secret each"
)]
pub struct TooManyKeys {
    pub count: usize,
    pub excess: Excess,
}

/// Of what there is too much.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Excess {
    #[error("their content is more than {} MiB", MOST_DATA >> 20)]
    Data,
    #[error("what is written down of them is more than {} KiB of annotations", MOST_OWN_ANNOTATIONS >> 10)]
    Record,
}

/// Refuses what is certainly too much before anything of it is read: keys and the secrets that fill them.
pub fn check_matched(vault: &VaultHost, keys: &BTreeMap<String, &str>) -> Result<(), TooManyKeys> {
    let least = |(key, name): (&String, &&str)| {
        LEAST_RECORD + key.len() + vault.as_str().len() + name.len()
    };
    fits(
        keys.iter().map(least).sum(),
        MOST_OWN_ANNOTATIONS,
        keys.len(),
        Excess::Record,
    )
}

/// Refuses what the API server would not take of what was found by name or tag.
pub fn check(rendered: &Rendered, record: &Record) -> Result<(), TooManyKeys> {
    let count = rendered.len();
    let written = serde_json::json!(record).to_string().len();
    fits(written, MOST_OWN_ANNOTATIONS, count, Excess::Record)?;
    let data = rendered.values().map(|from| from.value.expose().len());
    fits(data.sum(), MOST_DATA, count, Excess::Data)
}

fn fits(bytes: usize, most: usize, count: usize, excess: Excess) -> Result<(), TooManyKeys> {
    match bytes > most {
        true => Err(TooManyKeys { count, excess }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;

    use super::*;
    use crate::api::{DeletionPolicy, ObjectKind, SecretType};
    use crate::mirror::record::KeyRecord;
    use crate::render::RenderedKey;
    use crate::vault::{DnsSuffixes, VaultSecret};

    fn host() -> VaultHost {
        let suffixes: DnsSuffixes = "vault.azure.net".parse().expect("a suffix");
        let vault = serde_json::from_str(r#"{"name": "contoso"}"#).expect("a vault");
        suffixes.host(&vault).expect("a host")
    }

    fn record(keys: usize) -> Record {
        let key = |number: usize| {
            let key = KeyRecord {
                digest: "d".repeat(43),
                object: format!("{}/secrets/s{number}", host()),
                version: "0".repeat(32),
                updated: None,
                expires: None,
                changed: Timestamp::UNIX_EPOCH,
                first: false,
                unsettled_since: None,
                previous: None,
                failed: None,
            };
            (format!("s{number}"), key)
        };
        Record {
            mirror: "m".into(),
            digest_key: "k".into(),
            type_: SecretType::Opaque,
            immutable: false,
            deletion_policy: DeletionPolicy::Delete,
            shared: false,
            adopted: false,
            written: None,
            matched: Some("m".into()),
            keys: (0..keys).map(key).collect(),
        }
    }

    fn rendered(keys: usize, size: usize) -> Rendered {
        let secret = Arc::new(VaultSecret {
            value: vec![b'x'; size].into(),
            version: String::new(),
            updated: None,
            not_before: None,
            expires: None,
        });
        let key = |number: usize| {
            let key = RenderedKey {
                value: secret.value.clone(),
                made_of: None,
                kind: ObjectKind::Secret,
                object: String::new(),
                secret: Arc::clone(&secret),
            };
            (format!("s{number}"), key)
        };
        (0..keys).map(key).collect()
    }

    #[test]
    fn more_than_a_secret_takes_is_refused_with_the_count() {
        let excess = |keys, size| {
            let checked = check(&rendered(keys, size), &record(keys));
            checked.err().map(|error| (error.count, error.excess))
        };
        assert_eq!(excess(500, 1000), None);
        assert_eq!(excess(42, 25_000), Some((42, Excess::Data)));
        assert_eq!(excess(2000, 1), Some((2000, Excess::Record)));
    }

    #[test]
    fn what_is_refused_before_it_is_read_would_be_refused_after_too() {
        for count in [10, 500, 1000, 1100, 1500, 10_000] {
            let names: Vec<String> = (0..count).map(|number| format!("s{number}")).collect();
            let keys = names.iter().map(|name| (name.clone(), name.as_str()));
            let early = check_matched(&host(), &keys.collect());
            let late = check(&rendered(count, 1), &record(count));
            assert!(early.is_ok() || late.is_err(), "{count}");
            assert_eq!(early.is_err(), count > 1100, "{count}");
        }
    }
}
