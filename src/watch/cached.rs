//! What a store keeps of objects that there may be many of: where it is, and one value.

use std::borrow::Cow;

use kube::core::ObjectMeta;
use kube::runtime::reflector::Lookup;

/// Namespace, name, and what is kept of it.
#[derive(Clone, Debug)]
pub struct Cached<T> {
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub value: T,
}

impl<T> Cached<T> {
    /// What is kept of the object with this metadata.
    pub fn new(metadata: ObjectMeta, value: T) -> Self {
        Self {
            namespace: metadata.namespace.unwrap_or_default().into(),
            name: metadata.name.unwrap_or_default().into(),
            value,
        }
    }
}

/// What a store needs of its objects. It has objects of one kind, and asks for no more than the name; UID and resourceVersion
/// would only be kept twice.
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
