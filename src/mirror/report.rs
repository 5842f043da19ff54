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
    /// Writes the status if it says something new, and tells it by event and metric; a failure that was `told` already, by no event.
    /// `false` if the status could not be written.
    pub(super) async fn report(
        &self,
        mirror: &KeyVaultMirror,
        told: &mut Option<String>,
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
        let failure = match outcome {
            Outcome::Failed(failure) => Some((failure.reason(), failure.to_string())),
            Outcome::Mirrored { .. } => None,
        };
        let before = std::mem::replace(told, failure.as_ref().map(|(_, text)| text.clone()));
        // The cache may lag behind our own last write of the status; one write too many is the worst that comes of it.
        if mirror.status.as_ref() == Some(&after) {
            return true;
        }
        if let Some((reason, text)) = failure
            && before.as_ref() != Some(&text)
            && !says(mirror.status.as_ref(), &text)
        {
            tracing::warn!(reason, "{text}");
            let about = mirror.object_ref(&());
            self.events
                .publish(about, Kind::Warning, reason, "Mirror", text)
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

/// Whether a status says this of its mirror's failure already.
fn says(status: Option<&KeyVaultMirrorStatus>, text: &str) -> bool {
    let conditions = status.into_iter().flat_map(|status| &status.conditions);
    let mut ready = conditions.filter(|c| c.type_ == condition::READY);
    ready.any(|c| c.message == text)
}
