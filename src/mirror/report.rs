//! Tells how a mirror is doing: by its status, events and metrics.

use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::controller::Mirrors;
use super::status::{Outcome, status};
use crate::api::{KeyVaultMirror, KeyVaultMirrorStatus, condition};
use crate::telemetry::Kind;

impl Mirrors {
    /// Writes the status if it says something new, and tells it by event and metric. `false` if the status could not be written.
    pub(super) async fn report(
        &self,
        mirror: &KeyVaultMirror,
        outcome: &Outcome<'_>,
        now: Timestamp,
    ) -> bool {
        let (namespace, name) = (mirror.namespace().unwrap_or_default(), mirror.name_any());
        let after = status(mirror, outcome, now);
        let has = |type_: &str| {
            after
                .conditions
                .iter()
                .any(|c| c.type_ == type_ && c.status == "True")
        };
        self.metrics.mirror_state(
            &namespace,
            &name,
            has(condition::READY),
            has(condition::OUTSIDE_VALIDITY),
        );
        // The cache may lag behind our own last write of the status; one write too many is the worst that comes of it.
        if mirror.status.as_ref() == Some(&after) {
            return true;
        }
        let said = |status: Option<&KeyVaultMirrorStatus>| {
            let ready = status?
                .conditions
                .iter()
                .find(|c| c.type_ == condition::READY)?;
            Some((ready.reason.clone(), ready.message.clone()))
        };
        if let Outcome::Failed(failure) = outcome
            && said(mirror.status.as_ref()) != said(Some(&after))
        {
            tracing::warn!(reason = failure.reason(), "{failure}");
            let about = mirror.object_ref(&());
            self.events
                .publish(
                    about,
                    Kind::Warning,
                    failure.reason(),
                    "Mirror",
                    failure.to_string(),
                )
                .await;
        }
        if let Outcome::Mirrored { changed: true, .. } = outcome {
            let versions: Vec<String> = after
                .objects
                .iter()
                .map(|o| format!("{} from {} version {}", o.key, o.name, o.version))
                .collect();
            let note = format!(
                "Secret {} written: {}",
                mirror.spec.target.name,
                versions.join(", ")
            );
            self.events
                .publish(
                    mirror.object_ref(&()),
                    Kind::Normal,
                    "Mirrored",
                    "Mirror",
                    note,
                )
                .await;
        }
        let api: Api<KeyVaultMirror> = Api::namespaced(self.client.clone(), &namespace);
        let patch = Patch::Merge(json!({"status": after}));
        match api
            .patch_status(&name, &PatchParams::default(), &patch)
            .await
        {
            Ok(_) => true,
            // The mirror is gone, so there is nobody to tell.
            Err(kube::Error::Api(status)) if status.code == 404 => true,
            Err(error) => {
                tracing::warn!(%error, "the status can't be written; that is tried again");
                false
            }
        }
    }
}
