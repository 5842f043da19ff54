//! Carries out what [`super::plan`] decided: the only place that hands content to the API server.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Api, Client};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::akv2k8s;
use super::ownership::{claimed, manager};
use super::plan::{MIRRORED_LABEL, Write};
use super::record::annotation;
use super::status::Failure;
use super::target_name::TargetName;
use crate::api::{KeyVaultMirror, TargetKind};
use crate::render::{Rendered, RenderedKey};
use crate::vault::SecretValue;

/// A resourceVersion that no object has, since etcd counts from it: an apply that carries it makes what isn't there, and is
/// refused (409) where anything is. (The API server drops the version of what it creates.)
const NO_VERSION: &str = "1";

/// A target with its content.
pub struct Held {
    pub uid: String,
    pub resource_version: String,
    /// Type of the Secret.
    pub type_: Option<String>,
    pub data: BTreeMap<String, SecretValue>,
}

/// Targets of one kind in one namespace.
pub struct Targets {
    client: Client,
    namespace: String,
    kind: TargetKind,
    api: Api<DynamicObject>,
}

impl Targets {
    pub fn new(client: Client, namespace: &str, kind: TargetKind) -> Self {
        let resource = match kind {
            TargetKind::Secret => ApiResource::erase::<Secret>(&()),
            TargetKind::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
        };
        Self {
            api: Api::namespaced_with(client.clone(), namespace, &resource),
            client,
            namespace: namespace.to_owned(),
            kind,
        }
    }

    /// The metadata of what the watch does not have: because it isn't a target, or isn't there.
    pub async fn metadata(&self, name: &str) -> Result<Option<ObjectMeta>, Failure> {
        let found = self.api.get_metadata_opt(name).await;
        let found = found.map_err(|error| Failure::ApiServer(error.to_string()))?;
        Ok(found.map(|object| object.metadata))
    }

    /// What is in a target, to be compared with what is to be written there.
    pub async fn content(&self, name: &str) -> Result<Option<Held>, Failure> {
        let (client, namespace) = (self.client.clone(), &self.namespace);
        let found = match self.kind {
            TargetKind::Secret => {
                let api: Api<Secret> = Api::namespaced(client, namespace);
                api.get_opt(name).await.map(|it| it.map(Held::from))
            }
            TargetKind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(client, namespace);
                api.get_opt(name).await.map(|it| it.map(Held::from))
            }
        };
        found.map_err(|error| Failure::ApiServer(error.to_string()))
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
        let values = rendered.values().map(|key| &key.value);
        let written = self
            .apply(uid, target, &body(mirror, write, rendered), values)
            .await?;
        if write.record.adopted {
            return self.claim(target, uid, written).await;
        }
        Ok(written.resource_version.unwrap_or_default())
    }

    /// Takes away from those who are no mirrors what they own of a mirror's, on a target that was just written. Gives the
    /// resourceVersion that there is then.
    async fn claim(
        &self,
        target: &str,
        mirror_uid: &str,
        written: ObjectMeta,
    ) -> Result<String, Failure> {
        let resource_version = written.resource_version.unwrap_or_default();
        let entries = written.managed_fields.unwrap_or_default();
        let Some(entries) = claimed(entries, mirror_uid) else {
            return Ok(resource_version);
        };
        let patch = json!({"metadata": {
            "uid": written.uid, "resourceVersion": resource_version, "managedFields": entries,
        }});
        let claimed = self
            .patch(target, mirror_uid, &Patch::Merge(&patch))
            .await?;
        Ok(claimed.resource_version.unwrap_or_default())
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
        let released = self
            .patch(target, mirror_uid, &Patch::Strategic(&patch))
            .await?;
        let resource_version = released.resource_version.unwrap_or_default();
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
        let body = json!({"apiVersion": "v1", "kind": self.kind, "metadata": metadata});
        let written = self
            .apply(mirror_uid, target, &body, std::iter::empty())
            .await?;
        Ok(written.resource_version.unwrap_or_default())
    }

    /// Applies a body in which these values are.
    async fn apply<'a>(
        &self,
        mirror_uid: &str,
        target: &str,
        body: &Value,
        values: impl Iterator<Item = &'a SecretValue>,
    ) -> Result<ObjectMeta, Failure> {
        let params = PatchParams::apply(&manager(mirror_uid)).force();
        let patch = Patch::Apply(body);
        match self.api.patch_metadata(target, &params, &patch).await {
            Ok(written) => Ok(written.metadata),
            Err(error) => Err(refusal(error, self.named(target), values)),
        }
    }

    /// Changes metadata alone.
    async fn patch(
        &self,
        target: &str,
        mirror_uid: &str,
        patch: &Patch<&Value>,
    ) -> Result<ObjectMeta, Failure> {
        let params = PatchParams {
            field_manager: Some(manager(mirror_uid)),
            ..Default::default()
        };
        match self.api.patch_metadata(target, &params, patch).await {
            Ok(patched) => Ok(patched.metadata),
            Err(error) => Err(refusal(error, self.named(target), std::iter::empty())),
        }
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
            .map_err(|error| refusal(error, self.named(target), std::iter::empty()))
    }

    fn named(&self, target: &str) -> TargetName {
        TargetName::new(self.kind, target)
    }
}

impl From<Secret> for Held {
    fn from(secret: Secret) -> Self {
        let data = secret.data.into_iter().flatten();
        Self {
            uid: secret.metadata.uid.unwrap_or_default(),
            resource_version: secret.metadata.resource_version.unwrap_or_default(),
            type_: secret.type_,
            data: data
                .map(|(key, value)| (key, SecretValue::from(value.0)))
                .collect(),
        }
    }
}

impl From<ConfigMap> for Held {
    fn from(map: ConfigMap) -> Self {
        let text = map.data.into_iter().flatten();
        let text = text.map(|(key, value)| (key, SecretValue::from(value.into_bytes())));
        let bytes = map.binary_data.into_iter().flatten();
        let bytes = bytes.map(|(key, value)| (key, SecretValue::from(value.0)));
        Self {
            uid: map.metadata.uid.unwrap_or_default(),
            resource_version: map.metadata.resource_version.unwrap_or_default(),
            type_: None,
            data: text.chain(bytes).collect(),
        }
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
    let mut body = json!({
        "apiVersion": "v1",
        "kind": target.kind,
        "metadata": {"name": target.name, "labels": labels, "annotations": annotations},
    });
    match target.kind {
        TargetKind::Secret => {
            body["type"] = json!(target.type_);
            body["data"] = encoded(rendered.iter());
        }
        TargetKind::ConfigMap => {
            let (text, bytes) = text_and_bytes(rendered);
            body["data"] = json!(text);
            if !bytes.is_empty() {
                body["binaryData"] = encoded(bytes.into_iter());
            }
        }
    }
    if target.immutable {
        body["immutable"] = true.into();
    }
    match &write.precondition {
        Some((uid, resource_version)) => {
            body["metadata"]["uid"] = uid.as_str().into();
            body["metadata"]["resourceVersion"] = resource_version.as_str().into();
        }
        None => body["metadata"]["resourceVersion"] = NO_VERSION.into(),
    }
    if write.record.is_owner()
        && let Some(owner) = akv2k8s::owner(mirror)
    {
        body["metadata"]["ownerReferences"] = json!([owner]);
    }
    body
}

fn encoded<'a>(keys: impl Iterator<Item = (&'a String, &'a RenderedKey)>) -> Value {
    let encoded = keys.map(|(key, from)| (key, STANDARD.encode(from.value.expose())));
    json!(encoded.collect::<BTreeMap<_, _>>())
}

/// A ConfigMap has text, and apart from it what is none.
fn text_and_bytes(rendered: &Rendered) -> (BTreeMap<&String, &str>, Vec<(&String, &RenderedKey)>) {
    let (mut text, mut bytes) = (BTreeMap::new(), Vec::new());
    for (key, from) in rendered {
        match std::str::from_utf8(from.value.expose()) {
            Ok(value) => {
                text.insert(key, value);
            }
            Err(_) => bytes.push((key, from)),
        }
    }
    (text, bytes)
}

/// What a refused write means. The API server's text is passed on only if it quotes none of the values.
fn refusal<'a>(
    error: kube::Error,
    target: TargetName,
    mut values: impl Iterator<Item = &'a SecretValue>,
) -> Failure {
    let kube::Error::Api(status) = &error else {
        return Failure::ApiServer(error.to_string());
    };
    let quotes = |value: &SecretValue| {
        let value = value.expose();
        // As it is, or as JSON and Go write it in quotes.
        let in_text = std::str::from_utf8(value).is_ok_and(|text| {
            let text = text.trim();
            let quoted = Zeroizing::new(json!(text).to_string());
            let escaped = quoted.trim_matches('"');
            status.message.contains(text) || status.message.contains(escaped)
        });
        !value.is_empty() && (in_text || status.message.contains(&STANDARD.encode(value)))
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
        409 => Failure::Raced(target),
        // 401 is about the daemon's own token, and 404 about a target or namespace that has just gone.
        400..=499 if !matches!(status.code, 401 | 404 | 429) => {
            Failure::Rejected { target, message }
        }
        _ => Failure::ApiServer(message),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube::core::Status;
    use proptest::prelude::*;

    use super::super::samples;
    use super::*;
    use crate::api::ObjectKind;
    use crate::vault::VaultSecret;

    fn a_mirror(kind: TargetKind) -> KeyVaultMirror {
        let spec = json!({
            "vault": {"name": "contoso"},
            "data": [{"key": "text", "object": {"name": "pat"}}],
            "target": {"kind": kind, "name": "t"},
        });
        KeyVaultMirror::new("m", serde_json::from_value(spec).expect("a spec"))
    }

    fn written(kind: TargetKind, values: &[(&str, &[u8])]) -> Value {
        let wanted = samples::desired("u", "a");
        let write = Write {
            precondition: None,
            release: Vec::new(),
            record: samples::record(&wanted, samples::at(1)),
            changes_content: true,
        };
        let rendered = values.iter().map(|(key, value)| {
            let secret = VaultSecret {
                value: value.to_vec().into(),
                version: "1".into(),
                updated: None,
                not_before: None,
                expires: None,
            };
            let rendered = RenderedKey {
                value: secret.value.clone(),
                made_of: None,
                kind: ObjectKind::Secret,
                object: "pat".into(),
                secret: Arc::new(secret),
            };
            (key.to_string(), rendered)
        });
        body(&a_mirror(kind), &write, &rendered.collect())
    }

    #[test]
    fn a_secret_has_everything_in_base64_and_a_config_map_what_is_no_text() {
        let values: [(&str, &[u8]); 2] = [("text", "é\n".as_bytes()), ("bytes", &[0xff, 0x00])];
        let secret = written(TargetKind::Secret, &values);
        assert_eq!(secret["data"], json!({"text": "w6kK", "bytes": "/wA="}));
        assert_eq!(
            (&secret["kind"], &secret["type"]),
            (&json!("Secret"), &json!("Opaque"))
        );
        let map = written(TargetKind::ConfigMap, &values);
        assert_eq!(map["data"], json!({"text": "é\n"}));
        assert_eq!(map["binaryData"], json!({"bytes": "/wA="}));
        assert_eq!(map["kind"], "ConfigMap");
        assert!(map.get("type").is_none(), "{map}");
    }

    proptest! {
        #[test]
        fn a_config_map_gives_back_every_byte(values in prop::collection::btree_map("[a-z]{1,4}", any::<Vec<u8>>(), 0..6)) {
            let pairs: Vec<_> = values.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
            let map: ConfigMap = serde_json::from_value(written(TargetKind::ConfigMap, &pairs)).expect("a ConfigMap");
            let held = Held::from(map).data.into_iter();
            let held: BTreeMap<_, _> = held.map(|(key, value)| (key, value.expose().to_vec())).collect();
            prop_assert_eq!(held, values);
        }
    }

    fn refused(code: u16, message: &str) -> Failure {
        let status = Status {
            code,
            message: message.into(),
            reason: "Invalid".into(),
            ..Default::default()
        };
        let value = SecretValue::from(b"hunter2\n\"quoted\"\n".to_vec());
        refusal(
            kube::Error::Api(Box::new(status)),
            TargetName::new(TargetKind::Secret, "t"),
            [&value].into_iter(),
        )
    }

    #[test]
    fn a_refusal_that_quotes_a_value_is_not_passed_on() {
        let value = "hunter2\n\"quoted\"\n";
        let encoded = STANDARD.encode(value);
        for text in [value, &*encoded, &*json!(value).to_string()] {
            let text = &format!("bad: {text}");
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
