//! The content that a workload's Pods already have, or are being given: a map in an annotation on the workload. It is the
//! authority; the Pod template's annotation is only the trigger.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::reference::SourceKey;
use super::trial::Trial;

/// Annotation of a workload that holds its baseline.
pub const BASELINE: &str = "keytide.dev/baseline";
/// Annotation of a Pod template that makes it another one.
pub const CONTENT_DIGEST: &str = "keytide.dev/content-digest";

/// The baseline of a workload.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    /// ID of the key that the digests are made with.
    pub digest_key: String,
    /// Digests of the keys in use.
    pub keys: BTreeMap<SourceKey, String>,
    /// When the workload was last rolled by Keytide, by the API server's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated: Option<Timestamp>,
    /// When the latest of this content had come. Content that went away and came back is later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_of: Option<Timestamp>,
    /// When versions expire that the Pods have, of keys whose version does.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub expires: BTreeMap<SourceKey, Timestamp>,
    /// It was failing already when it was last rolled, so that its failure says nothing of the content.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failing: bool,
    /// Content that a failure of its rollout has taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
}

impl Baseline {
    /// Reads the annotation; one that can't be read is none, and change times decide.
    pub fn parse(annotation: &str) -> Option<Self> {
        serde_json::from_str(annotation).ok()
    }

    /// Whether both say the same of the content, and of what is on trial.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.digest_key == other.digest_key
            && self.keys == other.keys
            && self.expires == other.expires
            && self.trial == other.trial
    }
}

#[cfg(test)]
mod tests {
    use super::super::reference::{Source, SourceKind};
    use super::*;

    #[test]
    fn a_baseline_is_read_as_it_was_written() {
        let key = |kind, key: &str| SourceKey {
            source: Source {
                kind,
                name: "adopat".into(),
            },
            key: key.into(),
        };
        let baseline = Baseline {
            digest_key: "k".into(),
            keys: BTreeMap::from([
                (key(SourceKind::Secret, "to.ken"), "d".into()),
                (key(SourceKind::ConfigMap, "url"), "e".into()),
            ]),
            rotated: Some(Timestamp::UNIX_EPOCH),
            as_of: Some(Timestamp::UNIX_EPOCH),
            expires: BTreeMap::from([(key(SourceKind::Secret, "to.ken"), Timestamp::UNIX_EPOCH)]),
            failing: true,
            trial: Some(Trial {
                template: u64::MAX,
                before: BTreeMap::from([
                    (key(SourceKind::Secret, "to.ken"), Some("c".into())),
                    (key(SourceKind::ConfigMap, "url"), None),
                ]),
            }),
        };
        let json = serde_json::to_string(&baseline).expect("JSON");
        assert!(json.contains(r#""adopat/to.ken":"d""#), "{json}");
        assert!(json.contains(r#""configmap/adopat/url":"e""#), "{json}");
        assert_eq!(Baseline::parse(&json), Some(baseline));
        assert_eq!(Baseline::parse("{"), None);
    }
}
