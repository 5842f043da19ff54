//! What the caches keep of objects that there may be many of: where it is, and one value. Pure.

use std::borrow::Cow;

use kube::api::DynamicObject;
use kube::core::ObjectMeta;
use kube::runtime::reflector::Lookup;
use serde_json::Value;

use super::reference::{Source, SourceKey};

/// Namespace, name, and what is kept of it.
#[derive(Clone, Debug)]
pub struct Cached<T> {
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub value: T,
}

/// A Secret or ConfigMap: its resourceVersion, which moves when its content does.
pub type Version = Cached<Box<str>>;
/// A SecretProviderClass: the keys that the CSI driver keeps of it in Secrets.
pub type Class = Cached<Box<[SourceKey]>>;

impl<T> Cached<T> {
    fn new(metadata: ObjectMeta, value: T) -> Self {
        Self {
            namespace: metadata.namespace.unwrap_or_default().into(),
            name: metadata.name.unwrap_or_default().into(),
            value,
        }
    }
}

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

/// What a store needs of its objects; it has one store for each kind, and asks for no more than the name.
impl<T> Lookup for Cached<T> {
    type DynamicType = ();

    fn kind((): &()) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn group((): &()) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn version((): &()) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn plural((): &()) -> Cow<'_, str> {
        Cow::Borrowed("")
    }

    fn name(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.name))
    }

    fn namespace(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(&self.namespace))
    }

    fn resource_version(&self) -> Option<Cow<'_, str>> {
        None
    }

    fn uid(&self) -> Option<Cow<'_, str>> {
        None
    }
}
