//! What a vault says of an object beside its value, small enough to keep for every object.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The attributes of an object as GET and LIST both show them. Two that differ mean that the object changed, whichever is
/// later: a restore can set `updated` back.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fingerprint {
    /// Seconds since 1970, by the vault's clock.
    pub updated: Option<i64>,
    /// Whether it can be read.
    pub enabled: bool,
    /// Hash of all attributes. Nobody gains by making two collide: whoever could is who writes the object.
    pub attributes: u64,
}

/// The attributes that count. Times are seconds since 1970.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a> {
    pub updated: Option<i64>,
    pub created: Option<i64>,
    pub enabled: Option<bool>,
    pub not_before: Option<i64>,
    pub expires: Option<i64>,
    pub content_type: Option<&'a str>,
    pub tags: Option<&'a HashMap<String, String>>,
}

impl From<Attributes<'_>> for Fingerprint {
    fn from(attributes: Attributes<'_>) -> Self {
        let mut tags: Vec<_> = attributes.tags.into_iter().flatten().collect();
        tags.sort_unstable();
        let mut hasher = DefaultHasher::new();
        (
            attributes.updated,
            attributes.created,
            attributes.enabled,
            attributes.not_before,
            attributes.expires,
            // What is empty may as well be left out of an answer.
            attributes.content_type.unwrap_or_default(),
            tags,
        )
            .hash(&mut hasher);
        Self {
            updated: attributes.updated,
            enabled: attributes.enabled != Some(false),
            attributes: hasher.finish(),
        }
    }
}

/// What a GET showed: an object's attributes and which version they are of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Revision {
    pub fingerprint: Fingerprint,
    /// Hash of the version's ID.
    pub version: u64,
}

impl Revision {
    pub fn new(version: &str, attributes: Attributes<'_>) -> Self {
        Self {
            fingerprint: attributes.into(),
            version: Self::hash(version),
        }
    }

    /// Hash of a version's ID.
    pub fn hash(version: &str) -> u64 {
        let mut hasher = DefaultHasher::new();
        version.hash(&mut hasher);
        hasher.finish()
    }

    /// Whether this may be what the object was before `other`: an answer from a replica that lags, or a restore. `updated` has
    /// whole seconds, so that of two versions with the same one neither is known to be the later.
    pub fn may_precede(&self, other: &Self) -> bool {
        match (self.fingerprint.updated, other.fingerprint.updated) {
            (Some(this), Some(other_updated)) => {
                this < other_updated || (this == other_updated && self.version != other.version)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Attributes<'_> = Attributes {
        updated: Some(10),
        created: Some(5),
        enabled: Some(true),
        not_before: None,
        expires: None,
        content_type: None,
        tags: None,
    };

    #[test]
    fn every_attribute_counts() {
        let tags = HashMap::from([("a".to_owned(), "b".to_owned())]);
        let others = [
            Attributes {
                updated: Some(9),
                ..SOME
            },
            Attributes {
                created: Some(6),
                ..SOME
            },
            Attributes {
                enabled: Some(false),
                ..SOME
            },
            Attributes {
                not_before: Some(1),
                ..SOME
            },
            Attributes {
                expires: Some(1),
                ..SOME
            },
            Attributes {
                content_type: Some("x"),
                ..SOME
            },
            Attributes {
                tags: Some(&tags),
                ..SOME
            },
        ];
        for other in others {
            assert_ne!(
                Fingerprint::from(SOME),
                Fingerprint::from(other),
                "{other:?}"
            );
        }
    }

    #[test]
    fn what_is_empty_is_as_if_left_out() {
        let empty = Attributes {
            content_type: Some(""),
            tags: Some(&HashMap::new()),
            ..SOME
        };
        assert_eq!(Fingerprint::from(SOME), Fingerprint::from(empty));
    }

    #[test]
    fn the_order_of_tags_does_not_count() {
        let tags: HashMap<String, String> = (0..50)
            .map(|n| (format!("k{n}"), format!("v{n}")))
            .collect();
        let again: HashMap<String, String> = tags.clone().into_iter().collect();
        let with = |tags| {
            Fingerprint::from(Attributes {
                tags: Some(tags),
                ..SOME
            })
        };
        assert_eq!(with(&tags), with(&again));
    }

    #[test]
    fn an_older_time_may_precede_and_an_equal_one_of_another_version() {
        let at = |updated| Attributes {
            updated: Some(updated),
            ..SOME
        };
        let now = Revision::new("b", at(10));
        assert!(Revision::new("a", at(9)).may_precede(&now));
        assert!(Revision::new("b", at(9)).may_precede(&now));
        assert!(Revision::new("a", at(10)).may_precede(&now));
        assert!(!Revision::new("c", at(11)).may_precede(&now));
        assert!(!now.may_precede(&now));
    }
}
