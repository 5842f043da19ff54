//! What the caches keep of what content may come from besides targets. Pure.

use kube::api::DynamicObject;
use kube::core::ObjectMeta;
use serde_json::Value;

use super::reference::{Source, SourceKey};
use crate::watch::Cached;

/// A Secret or ConfigMap: its resourceVersion, which moves when its content does.
pub type Version = Cached<Box<str>>;
/// A SecretProviderClass: the keys that the CSI driver keeps of it in Secrets.
pub type Class = Cached<Box<[SourceKey]>>;

/// What is kept of a Secret or ConfigMap.
pub fn version(mut metadata: ObjectMeta) -> Version {
    let version = metadata.resource_version.take().unwrap_or_default();
    Cached::new(metadata, version.into())
}

/// What is kept of a SecretProviderClass
/// (<https://secrets-store-csi-driver.sigs.k8s.io/topics/sync-as-kubernetes-secret>).
pub fn class(object: DynamicObject) -> Class {
    let list = |value: &Value, field: &str| value.get(field).and_then(Value::as_array).cloned();
    let text = |value: &Value, field: &str| Some(value.get(field)?.as_str()?.to_owned());
    let spec = object.data.get("spec").cloned().unwrap_or_default();
    let keys = list(&spec, "secretObjects").into_iter().flatten();
    let keys = keys.flat_map(|secret| {
        let source = text(&secret, "secretName").map(Source::secret);
        let data = list(&secret, "data").into_iter().flatten();
        data.filter_map(move |item| {
            Some(SourceKey {
                source: source.clone()?,
                key: text(&item, "key")?,
            })
        })
    });
    let keys = keys.collect();
    Cached::new(object.metadata, keys)
}
