//! Carries out what [`super::plan`] decided: the only place that hands content to the API server.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource};
use serde_json::{Value, json};

use super::ownership::manager;
use super::plan::{MIRRORED_LABEL, Write};
use super::record::annotation;
use super::status::Failure;
use crate::api::KeyVaultMirror;
use crate::render::Rendered;
use crate::vault::SecretValue;

/// A resourceVersion that no object has, since etcd counts from it: an apply that carries it makes what isn't there, and is
/// refused (409) where anything is. (The API server drops the version of what it creates.)
const NO_VERSION: &str = "1";

/// Targets of one namespace.
pub struct Targets {
    api: Api<Secret>,
}

impl Targets {
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
        }
    }

    /// The metadata of a Secret that the watch does not have: because it isn't a target, or isn't there.
    pub async fn metadata(&self, name: &str) -> Result<Option<PartialObjectMeta<Secret>>, Failure> {
        self.api
            .get_metadata_opt(name)
            .await
            .map_err(|error| Failure::ApiServer(error.to_string()))
    }

    /// Writes a target by server-side apply. Every write carries what it was decided on, the first one that there was nothing, so
    /// that a stale decision is refused. Gives the resourceVersion that the write produced.
    pub async fn write(
        &self,
        mirror: &KeyVaultMirror,
        write: &Write,
        rendered: &Rendered,
    ) -> Result<String, Failure> {
        let target = &mirror.spec.target.name;
        let uid = mirror.metadata.uid.as_deref().unwrap_or_default();
        let write = &*self.release(target, uid, write).await?;
        let written = self
            .apply(uid, target, &body(mirror, write, rendered))
            .await
            .map_err(|error| refusal(error, target, rendered.values().map(|key| &key.value)))?;
        Ok(written.metadata.resource_version.unwrap_or_default())
    }

    /// Takes away the ownerReferences that must go before a write. Gives the write as it is decided on the target without them.
    async fn release<'a>(
        &self,
        target: &str,
        mirror_uid: &str,
        write: &'a Write,
    ) -> Result<Cow<'a, Write>, Failure> {
        let there = write.precondition.as_ref();
        let Some((uid, resource_version)) = there.filter(|_| !write.release.is_empty()) else {
            return Ok(Cow::Borrowed(write));
        };
        let owners = write.release.iter();
        let references: Vec<Value> = owners
            .map(|owner| json!({"$patch": "delete", "uid": owner}))
            .collect();
        let patch = json!({"metadata": {
            "uid": uid, "resourceVersion": resource_version, "ownerReferences": references,
        }});
        let params = PatchParams {
            field_manager: Some(manager(mirror_uid)),
            ..Default::default()
        };
        let released = self
            .api
            .patch_metadata(target, &params, &Patch::Strategic(&patch))
            .await
            .map_err(|error| refusal(error, target, std::iter::empty()))?;
        let resource_version = released.metadata.resource_version.unwrap_or_default();
        Ok(Cow::Owned(Write {
            precondition: Some((uid.clone(), resource_version)),
            ..write.clone()
        }))
    }

    /// Takes a mirror's keys, annotation, label and ownerReference out of a target, if it is still the one that was looked at:
    /// an apply that wants nothing. Gives the resourceVersion that the write produced.
    pub async fn withdraw(
        &self,
        target: &str,
        mirror_uid: &str,
        uid: &str,
        resource_version: &str,
    ) -> Result<String, Failure> {
        let metadata = json!({"name": target, "uid": uid, "resourceVersion": resource_version});
        let body = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata});
        self.apply(mirror_uid, target, &body)
            .await
            .map(|written| written.metadata.resource_version.unwrap_or_default())
            .map_err(|error| refusal(error, target, std::iter::empty()))
    }

    async fn apply(
        &self,
        mirror_uid: &str,
        target: &str,
        body: &Value,
    ) -> Result<PartialObjectMeta<Secret>, kube::Error> {
        let params = PatchParams::apply(&manager(mirror_uid)).force();
        self.api
            .patch_metadata(target, &params, &Patch::Apply(body))
            .await
    }

    /// Deletes a target that no mirror wants any more, if it is still the one that was looked at.
    pub async fn delete(
        &self,
        target: &str,
        uid: &str,
        resource_version: &str,
    ) -> Result<(), Failure> {
        let preconditions = Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: Some(resource_version.to_owned()),
        };
        let params = DeleteParams {
            preconditions: Some(preconditions),
            ..Default::default()
        };
        self.api
            .delete(target, &params)
            .await
            .map(drop)
            .map_err(|error| refusal(error, target, std::iter::empty()))
    }
}

fn body(mirror: &KeyVaultMirror, write: &Write, rendered: &Rendered) -> Value {
    let (target, uid) = (
        &mirror.spec.target,
        mirror.metadata.uid.as_deref().unwrap_or_default(),
    );
    let mut labels = target.labels.clone();
    labels.insert(MIRRORED_LABEL.to_owned(), "true".to_owned());
    let mut annotations = target.annotations.clone();
    annotations.insert(annotation(uid), json!(write.record).to_string());
    let data: BTreeMap<&String, String> = rendered
        .iter()
        .map(|(key, from)| (key, STANDARD.encode(from.value.expose())))
        .collect();
    let mut body = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": target.name, "labels": labels, "annotations": annotations},
        "type": target.type_,
        "data": data,
    });
    match &write.precondition {
        Some((uid, resource_version)) => {
            body["metadata"]["uid"] = uid.as_str().into();
            body["metadata"]["resourceVersion"] = resource_version.as_str().into();
        }
        None => body["metadata"]["resourceVersion"] = NO_VERSION.into(),
    }
    if write.record.is_owner()
        && let Some(mut owner) = mirror.owner_ref(&())
    {
        // A controller reference would be for one mirror alone; the target may have several.
        owner.controller = None;
        body["metadata"]["ownerReferences"] = json!([owner]);
    }
    body
}

/// What a refused write means. The API server's text is passed on only if it quotes none of the values.
fn refusal<'a>(
    error: kube::Error,
    target: &str,
    mut values: impl Iterator<Item = &'a SecretValue>,
) -> Failure {
    let kube::Error::Api(status) = &error else {
        return Failure::ApiServer(error.to_string());
    };
    let quotes = |value: &SecretValue| {
        let value = value.expose();
        let plain =
            std::str::from_utf8(value).is_ok_and(|text| status.message.contains(text.trim()));
        !value.is_empty() && (plain || status.message.contains(&STANDARD.encode(value)))
    };
    let message = if values.any(quotes) {
        format!(
            "{} (its text is left out because it quotes the content)",
            status.reason
        )
    } else {
        status.message.clone()
    };
    match status.code {
        409 => Failure::Raced(target.to_owned()),
        // 401 is about the daemon's own token, and 404 about a target or namespace that has just gone.
        400..=499 if !matches!(status.code, 401 | 404 | 429) => Failure::Rejected {
            target: target.to_owned(),
            message,
        },
        _ => Failure::ApiServer(message),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn refused(code: u16, message: &str) -> Failure {
        let status = Status {
            code,
            message: message.into(),
            reason: "Invalid".into(),
            ..Default::default()
        };
        let value = SecretValue::from(b"hunter2\n".to_vec());
        refusal(
            kube::Error::Api(Box::new(status)),
            "t",
            [&value].into_iter(),
        )
    }

    #[test]
    fn a_refusal_that_quotes_a_value_is_not_passed_on() {
        for text in ["bad: hunter2", "bad: aHVudGVyMgo="] {
            let said = refused(422, text).to_string();
            assert!(
                !said.contains("hunter2") && !said.contains("aHVudGVy"),
                "{said}"
            );
        }
        assert!(
            refused(422, "the field is immutable")
                .to_string()
                .contains("immutable")
        );
    }

    #[test]
    fn a_race_is_not_a_rejection() {
        assert!(matches!(refused(409, "conflict"), Failure::Raced(_)));
        for code in [401, 404, 429, 503] {
            assert!(matches!(refused(code, "later"), Failure::ApiServer(_)));
        }
        assert!(matches!(refused(403, "quota"), Failure::Rejected { .. }));
    }
}
