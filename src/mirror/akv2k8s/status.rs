//! What the status of an AzureKeyVaultSecret says: the fields that akv2k8s has, by which scripts and health checks go, and the
//! conditions, where its definition has a place for them. Pure. akv2k8s' hash is a plain MD5 of the content, with which anybody
//! who can read the resource can try guesses; this one is keyed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::api::{KeyVaultMirror, KeyVaultMirrorStatus, TargetKind};
use crate::digest::{DigestKey, Place};
use crate::mirror::status::Outcome;
use crate::render::Rendered;

/// The merge patch that tells a resource what `after` tells of its mirror. What was mirrored before a failure stays told.
pub fn patch(
    mirror: &KeyVaultMirror,
    resource: &OwnerReference,
    outcome: &Outcome<'_>,
    after: &KeyVaultMirrorStatus,
    digest_key: &DigestKey,
    now: Timestamp,
) -> Value {
    let mut conditions = after.conditions.clone();
    for condition in &mut conditions {
        // That is the mirror's, and not the resource's.
        condition.observed_generation = None;
    }
    let mut status = json!({});
    // Two mirrors would take turns at them. How the second one is doing, its events say.
    if !super::is_second(mirror) {
        status["conditions"] = json!(conditions);
    }
    if let Outcome::Mirrored { rendered, .. } = outcome {
        let [name, of_content] = match mirror.spec.target.kind {
            TargetKind::Secret => ["secretName", "secretHash"],
            TargetKind::ConfigMap => ["configMapName", "configMapHash"],
        };
        status[name] = json!(mirror.spec.target.name);
        status[of_content] = json!(hash(mirror, rendered, digest_key));
        // What was taken over has been there for nobody knows how long.
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let last_change = after.last_change.clone();
        status["lastAzureUpdate"] = json!(last_change.unwrap_or_else(|| now.to_string()));
    }
    json!({"metadata": {"uid": resource.uid}, "status": status})
}

/// One digest of all that was mirrored.
fn hash(mirror: &KeyVaultMirror, rendered: &Rendered, digest_key: &DigestKey) -> String {
    let namespace = mirror.namespace().unwrap_or_default();
    let place = |key| Place {
        namespace: &namespace,
        kind: mirror.spec.target.kind.as_str(),
        target: &mirror.spec.target.name,
        key,
    };
    let digests: BTreeMap<&str, String> = rendered
        .iter()
        .map(|(key, from)| {
            let digest = digest_key.content(place(key), from.identity());
            (key.as_str(), digest)
        })
        .collect();
    // No key is empty, so this is no digest of one.
    digest_key.content(place(""), json!(digests).to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{mirrors_of, resource};
    use super::*;
    use crate::api::ObjectKind;
    use crate::mirror::revert::Reverted;
    use crate::mirror::status::{Failure, status};
    use crate::render::RenderedKey;
    use crate::vault::VaultSecret;

    /// The mirrors of a resource into a Secret and a ConfigMap.
    fn mirrors() -> [KeyVaultMirror; 2] {
        let manifest = json!({
            "apiVersion": "spv.no/v2beta1",
            "kind": "AzureKeyVaultSecret",
            "metadata": {"name": "db", "namespace": "web", "uid": "u"},
            "spec": {
                "vault": {"name": "contoso", "object": {"name": "db", "type": "secret"}},
                "output": {
                    "secret": {"name": "t", "dataKey": "password"},
                    "configMap": {"name": "c", "dataKey": "password"},
                },
            },
        });
        let resource = serde_json::from_value(manifest).expect("an object");
        mirrors_of(resource).try_into().expect("two mirrors")
    }

    fn rendered(value: &str) -> Rendered {
        let secret = Arc::new(VaultSecret {
            value: value.as_bytes().to_vec().into(),
            version: "1".into(),
            updated: None,
            not_before: None,
            expires: None,
        });
        let key = RenderedKey {
            value: secret.value.clone(),
            made_of: None,
            kind: ObjectKind::Secret,
            object: "db".to_owned(),
            secret,
        };
        Rendered::from([("password".to_owned(), key)])
    }

    fn patch_of(outcome: &Outcome<'_>) -> Value {
        patch_of_mirror(&mirrors()[0], outcome)
    }

    fn patch_of_mirror(mirror: &KeyVaultMirror, outcome: &Outcome<'_>) -> Value {
        let after = status(mirror, outcome, Timestamp::UNIX_EPOCH);
        let key = DigestKey::new(vec![7; 32]).expect("a key");
        let resource = resource(mirror).expect("a resource");
        let now = Timestamp::from_second(60).expect("in range");
        patch(mirror, resource, outcome, &after, &key, now)
    }

    fn mirrored(value: &str, changed: bool) -> Value {
        patch_of(&Outcome::Mirrored {
            rendered: &rendered(value),
            missing: &[],
            reverted: &Reverted::default(),
            changed,
            last_change: None,
            adopted: false,
        })
    }

    #[test]
    fn what_was_mirrored_is_told_in_the_fields_of_akv2k8s() {
        let patch = mirrored("hunter2", true);
        assert_eq!(patch["metadata"], json!({"uid": "u"}));
        let status = &patch["status"];
        assert_eq!(status["secretName"], "t");
        assert_eq!(status["lastAzureUpdate"], "1970-01-01T00:00:00Z");
        assert_eq!(status["conditions"][0]["type"], "Ready");
        assert_eq!(status["conditions"][0]["status"], "True");
        let taken_over = mirrored("hunter2", false);
        // A health check of Argo CD's waits for it.
        assert_eq!(
            taken_over["status"]["lastAzureUpdate"],
            "1970-01-01T00:01:00Z"
        );
    }

    #[test]
    fn the_hash_goes_with_the_content_and_is_not_the_md5_of_it() {
        let hash = |value| mirrored(value, true)["status"]["secretHash"].clone();
        assert_eq!(hash("hunter2"), hash("hunter2"));
        assert_ne!(hash("hunter2"), hash("hunter3"));
        let text = hash("hunter2");
        let text = text.as_str().expect("text");
        // An MD5 is 32 hexadecimal digits.
        assert_eq!(text.len(), 43, "{text}");
    }

    #[test]
    fn a_second_mirror_tells_of_its_config_map_and_leaves_the_conditions_to_the_first() {
        let outcome = Outcome::Mirrored {
            rendered: &rendered("public"),
            missing: &[],
            reverted: &Reverted::default(),
            changed: true,
            last_change: None,
            adopted: false,
        };
        let patch = patch_of_mirror(&mirrors()[1], &outcome);
        let status = patch["status"].as_object().expect("an object");
        let fields: Vec<&str> = status.keys().map(String::as_str).collect();
        assert_eq!(
            fields,
            ["configMapHash", "configMapName", "lastAzureUpdate"]
        );
        assert_eq!(status["configMapName"], "c");
        assert_ne!(
            status["configMapHash"],
            mirrored("public", true)["status"]["secretHash"]
        );
    }

    #[test]
    fn a_failure_leaves_alone_what_was_mirrored() {
        let failure = Failure::InvalidSpec("x".into());
        let patch = patch_of(&Outcome::Failed(&failure));
        let fields = patch["status"].as_object().expect("an object");
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["conditions"]);
        assert_eq!(fields["conditions"][0]["reason"], "InvalidSpec");
    }
}
