//! Tells how a mirror is doing: by its status, events and metrics.

use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::controller::Mirrors;
use super::memory::Memory;
use super::status::{Outcome, status};
use crate::api::{KeyVaultMirror, KeyVaultMirrorStatus, condition};
use crate::telemetry::Kind;

impl Mirrors {
    /// Writes the status if it says something new, and tells it by event and metric; a failure that was told already, by no event, nor
    /// the first content, which the status tells. `false` if the status could not be written.
    pub(super) async fn report(
        &self,
        mirror: &KeyVaultMirror,
        memory: &mut Memory,
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
            Outcome::Mirrored { .. } | Outcome::Unchanged => None,
        };
        let text = failure.as_ref().map(|(_, text)| text.clone());
        let before = std::mem::replace(&mut memory.told, text);
        // The target that was just written comes back before the status does.
        let is_told = matches!(outcome, Outcome::Unchanged)
            && before.is_none()
            && memory.told_on.is_some()
            && memory.told_on == mirror.resource_version();
        if is_told || mirror.status.as_ref() == Some(&after) {
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
        let had_content = |status: &KeyVaultMirrorStatus| status.last_change.is_some();
        if let Outcome::Mirrored { changed: true, .. } = outcome
            && mirror.status.as_ref().is_some_and(had_content)
        {
            let versions: Vec<String> = after
                .objects
                .iter()
                .map(|o| format!("{} from {} {} version {}", o.key, o.kind, o.name, o.version))
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
        match self.write_status(mirror, outcome, now).await {
            Ok(()) => {
                memory.told_on = mirror.resource_version();
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the status can't be written; that is tried again");
                false
            }
        }
    }

    /// Writes a status on the mirror that it was decided on. Where only the cache lags behind, what it lags behind is looked at;
    /// a mirror that wants something else now, or is gone, is told of its own attempt.
    async fn write_status(
        &self,
        mirror: &KeyVaultMirror,
        outcome: &Outcome<'_>,
        now: Timestamp,
    ) -> Result<(), kube::Error> {
        let (namespace, name) = (mirror.namespace().unwrap_or_default(), mirror.name_any());
        let api: Api<KeyVaultMirror> = Api::namespaced(self.client.clone(), &namespace);
        let write = async |mirror: &KeyVaultMirror| {
            let patch = json!({
                "metadata": {"uid": mirror.uid(), "resourceVersion": mirror.resource_version()},
                "status": status(mirror, outcome, now),
            });
            let written = api
                .patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
                .await;
            match written {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                written => written.map(drop),
            }
        };
        match write(mirror).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            written => return written,
        }
        match api.get_opt(&name).await? {
            Some(latest)
                if latest.uid() == mirror.uid()
                    && latest.metadata.generation == mirror.metadata.generation =>
            {
                write(&latest).await
            }
            _ => Ok(()),
        }
    }
}

/// Whether a status says this of its mirror's failure already.
fn says(status: Option<&KeyVaultMirrorStatus>, text: &str) -> bool {
    let conditions = status.into_iter().flat_map(|status| &status.conditions);
    let mut ready = conditions.filter(|c| c.type_ == condition::READY);
    ready.any(|c| c.message == text)
}
