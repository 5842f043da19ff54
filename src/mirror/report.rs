//! Tells how a mirror is doing: by its status, events and metrics.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::akv2k8s;
use super::controller::Mirrors;
use super::memory::Memory;
use super::revert::Reverted;
use super::status::{Outcome, left_out, status};
use super::target_name::TargetName;
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
        let told = akv2k8s::with_status(mirror, memory.status.as_deref());
        let mirror = told.as_ref();
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
            has(condition::REVERTED),
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
            let about = akv2k8s::reference(mirror);
            self.events
                .publish(about, Kind::Warning, reason, "Mirror", text)
                .await;
        }
        if let Outcome::Mirrored { reverted, .. } = outcome {
            self.tell_reverted(mirror, &after, reverted).await;
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
                "{} written: {}{}",
                TargetName::of(&mirror.spec.target),
                versions.join(", "),
                left_out(&after.missing_objects)
            );
            self.events
                .publish(
                    akv2k8s::reference(mirror),
                    Kind::Normal,
                    "Mirrored",
                    "Mirror",
                    note,
                )
                .await;
        }
        let is_adopted = |status: &KeyVaultMirrorStatus| {
            let (target, wanted) = (status.target.as_ref(), &mirror.spec.target);
            target.is_some_and(|it| {
                it.adopted && it.kind == wanted.kind.as_str() && it.name == wanted.name
            })
        };
        if is_adopted(&after) && !mirror.status.as_ref().is_some_and(is_adopted) {
            let target = TargetName::of(&mirror.spec.target);
            let note =
                format!("{target} was taken over, as it consents; it stays when the mirror goes");
            let about = akv2k8s::reference(mirror);
            self.events
                .publish(about, Kind::Normal, "Adopted", "Mirror", note)
                .await;
        }
        match self.write_status(mirror, outcome, now).await {
            Ok(()) => {
                memory.told_on = mirror.resource_version();
                memory.status = akv2k8s::is_in_place(mirror).then(|| Box::new(after));
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the status can't be written; that is tried again");
                false
            }
        }
    }

    /// Tells what became of content whose rollout has failed, once.
    async fn tell_reverted(
        &self,
        mirror: &KeyVaultMirror,
        after: &KeyVaultMirrorStatus,
        reverted: &Reverted,
    ) {
        let said = |status: &KeyVaultMirrorStatus| {
            let mut conditions = status.conditions.iter();
            let condition = conditions.find(|c| c.type_ == condition::REVERTED)?;
            Some((condition.reason.clone(), condition.message.clone()))
        };
        let before = mirror.status.as_ref().and_then(said);
        let Some((reason, message)) = said(after).filter(|news| before.as_ref() != Some(news))
        else {
            return;
        };
        let note = match &reverted.because {
            Some(because) => format!("{because}: {message}"),
            None => message,
        };
        tracing::warn!(reason, "{note}");
        let about = akv2k8s::reference(mirror);
        self.events
            .publish(about, Kind::Warning, &reason, "Mirror", note)
            .await;
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
        if let Some(resource) = akv2k8s::resource(mirror) {
            let after = status(mirror, outcome, now);
            let patch =
                akv2k8s::status::patch(mirror, resource, outcome, &after, &self.digest_key, now);
            return self
                .write_status_in_place(&namespace, resource, &patch)
                .await;
        }
        let api: Api<KeyVaultMirror> = Api::namespaced(self.client.clone(), &namespace);
        let write = async |mirror: &KeyVaultMirror| {
            let mut after = json!(status(mirror, outcome, now));
            take_out(&json!(mirror.status), &mut after);
            let patch = json!({
                "metadata": {"uid": mirror.uid(), "resourceVersion": mirror.resource_version()},
                "status": after,
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

/// Has a merge patch take out what was there before and is not there after: what it doesn't name it leaves (RFC 7396).
fn take_out(before: &Value, after: &mut Value) {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return;
    };
    for (name, before) in before {
        take_out(before, after.entry(name).or_insert(Value::Null));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_status_says_no_more_is_taken_out_of_it() {
        let before =
            json!({"missingObjects": [1], "target": {"name": "t", "adopted": true}, "same": 1});
        let mut after = json!({"target": {"name": "t"}, "same": 1, "new": 2});
        take_out(&before, &mut after);
        let expected = json!({"missingObjects": null, "target": {"name": "t", "adopted": null}, "same": 1, "new": 2});
        assert_eq!(after, expected);
    }
}
