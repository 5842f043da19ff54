//! Values that the tests of several modules begin with.

use jiff::Timestamp;

use super::decide::Content;
use super::reference::{Source, SourceKey};
use crate::mirror::KeyRecord;

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

pub fn token() -> SourceKey {
    SourceKey {
        source: Source::secret("adopat"),
        key: "token".into(),
    }
}

/// Content that changed then.
pub fn content(digest: &str, changed: i64) -> Content {
    let record = KeyRecord {
        digest: digest.into(),
        object: "o".into(),
        version: "1".into(),
        updated: None,
        expires: None,
        changed: at(changed),
        first: false,
        unsettled_since: None,
        previous: None,
        failed: None,
    };
    Content {
        digest_key: "k".into(),
        record,
    }
}
