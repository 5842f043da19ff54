//! Secrets and ConfigMaps that no mirror fills, where they are to be rolled for too. Only digests are kept of what is read, and read is
//! what a workload that opted in uses, once for each version.
//!
//! Nothing is written on them, so when their content changed is what the API server says of who wrote it: `managedFields` has, for each
//! writer of a part of it, when that last changed anything of its own. That lasts, so a restart of the daemon loses no change; and it may be
//! later than the content, by which a workload that opts in then is rolled once more than it need be.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::ObjectMeta;
use kube::runtime::reflector::Store;
use kube::{Api, Client};
use zeroize::Zeroize;

use super::cached::Version;
use super::decide::Content;
use super::reference::{Source, SourceKind};
use crate::digest::{DigestKey, Place};
use crate::mirror::KeyRecord;
use crate::watch;

/// What is there, and what was read of it.
pub struct Unmirrored {
    client: Client,
    digest_key: DigestKey,
    secrets: Store<Version>,
    config_maps: Store<Version>,
    /// By namespace. Each is behind a lock of its own, so that workloads that want the same wait for one read.
    reads: Mutex<HashMap<(String, Source), Slot>>,
}

type Slot = Arc<tokio::sync::Mutex<Option<Read>>>;

/// What was read, at one version.
struct Read {
    version: Box<str>,
    keys: BTreeMap<String, KeyRecord>,
}

impl Unmirrored {
    /// Nothing is read yet.
    pub fn new(
        client: Client,
        digest_key: DigestKey,
        secrets: Store<Version>,
        config_maps: Store<Version>,
    ) -> Self {
        Self {
            client,
            digest_key,
            secrets,
            config_maps,
            reads: Mutex::default(),
        }
    }

    /// The version that a watch has shown; none if it isn't there.
    pub fn version(&self, namespace: &str, source: &Source) -> Option<Box<str>> {
        let store = match source.kind {
            SourceKind::Secret => &self.secrets,
            SourceKind::ConfigMap => &self.config_maps,
            SourceKind::SecretProviderClass => return None,
        };
        let found = store.get(&watch::reference(namespace, &source.name))?;
        Some(found.value.clone())
    }

    /// The content of a source by key; nothing if it isn't there.
    pub async fn contents(
        &self,
        namespace: &str,
        source: &Source,
    ) -> Result<BTreeMap<String, Content>, kube::Error> {
        let place = (namespace.to_owned(), source.clone());
        let Some(version) = self.version(namespace, source) else {
            self.slots().remove(&place);
            return Ok(BTreeMap::new());
        };
        let slot = Arc::clone(self.slots().entry(place).or_default());
        let mut slot = slot.lock().await;
        let known = slot.as_ref().is_some_and(|read| read.version == version);
        if !known {
            let before = slot.take();
            *slot = self.read(namespace, source, before.as_ref()).await?;
        }
        let keys = slot.iter().flat_map(|read| &read.keys);
        Ok(keys
            .map(|(key, record)| {
                let content = Content {
                    digest_key: self.digest_key.id().to_owned(),
                    record: record.clone(),
                };
                (key.clone(), content)
            })
            .collect())
    }

    /// Forgets what was read of what is gone.
    pub fn forget_gone(&self) {
        let is_there =
            |(namespace, source): &(String, Source)| self.version(namespace, source).is_some();
        self.slots().retain(|place, _| is_there(place));
    }

    /// None if it was deleted meanwhile.
    async fn read(
        &self,
        namespace: &str,
        source: &Source,
        before: Option<&Read>,
    ) -> Result<Option<Read>, kube::Error> {
        let found = match source.kind {
            SourceKind::Secret => {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
                api.get_opt(&source.name).await?.map(of_secret)
            }
            SourceKind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
                api.get_opt(&source.name).await?.map(of_config_map)
            }
            SourceKind::SecretProviderClass => None,
        };
        Ok(found.map(|(metadata, data)| {
            digested(&self.digest_key, namespace, source, &metadata, data, before)
        }))
    }

    /// A panic elsewhere leaves the map whole, so its poison means nothing.
    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<(String, Source), Slot>> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Data = BTreeMap<String, Vec<u8>>;

fn of_secret(secret: Secret) -> (ObjectMeta, Data) {
    let data = secret.data.into_iter().flatten();
    let data = data.map(|(key, value)| (key, value.0)).collect();
    (secret.metadata, data)
}

fn of_config_map(map: ConfigMap) -> (ObjectMeta, Data) {
    let text = map.data.into_iter().flatten();
    let binary = map.binary_data.into_iter().flatten();
    let text = text.map(|(key, value)| (key, value.into_bytes()));
    let data = text.chain(binary.map(|(key, value)| (key, value.0)));
    (map.metadata, data.collect())
}

/// What is kept of what was read. A key whose content is as before has not changed since, whatever else was written.
fn digested(
    digest_key: &DigestKey,
    namespace: &str,
    source: &Source,
    metadata: &ObjectMeta,
    data: Data,
    before: Option<&Read>,
) -> Read {
    let kind = source.kind.to_string();
    let version = metadata.resource_version.clone().unwrap_or_default();
    let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
    let changed = changed(metadata).or(created).unwrap_or(Timestamp::MIN);
    let record = |key: &str, mut content: Vec<u8>| {
        let place = Place {
            namespace,
            kind: &kind,
            target: &source.name,
            key,
        };
        let digest = digest_key.content(place, &content);
        content.zeroize();
        let known = before.and_then(|read| read.keys.get(key));
        match known.filter(|known| known.digest == digest) {
            Some(known) => known.clone(),
            None => KeyRecord {
                digest,
                object: format!("{kind} {}", source.name),
                version: version.clone(),
                updated: None,
                expires: None,
                changed,
                first: known.is_none() && Some(changed) == created,
                unsettled_since: None,
                previous: None,
                failed: None,
            },
        }
    };
    let keys = data.into_iter().map(|(key, content)| {
        let record = record(&key, content);
        (key, record)
    });
    Read {
        keys: keys.collect(),
        version: version.clone().into(),
    }
}

/// When content was last written, by the API server's clock.
fn changed(metadata: &ObjectMeta) -> Option<Timestamp> {
    let entries = metadata.managed_fields.iter().flatten();
    let of_content = entries.filter(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        fields.is_some_and(|fields| {
            ["f:data", "f:binaryData"]
                .iter()
                .any(|it| fields.get(it).is_some())
        })
    });
    of_content
        .filter_map(|entry| Some(entry.time.as_ref()?.0))
        .max()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key() -> DigestKey {
        DigestKey::new(vec![1; 32]).expect("a key")
    }

    /// A Secret that `kubectl` wrote at a second of the first minute of a year, with a label that `labeller` wrote at its end.
    fn secret(second: u8, version: &str, token: &str) -> (ObjectMeta, Data) {
        let entry = |manager: &str, second: u8, fields| {
            json!({
                "manager": manager, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                "time": format!("2026-01-01T00:00:{second:02}Z"), "fieldsV1": fields,
            })
        };
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {
                "name": "s", "namespace": "n", "resourceVersion": version, "creationTimestamp": "2026-01-01T00:00:01Z",
                "managedFields": [
                    entry("kubectl", second, json!({"f:data": {"f:token": {}}})),
                    entry("labeller", 59, json!({"f:metadata": {"f:labels": {}}})),
                ],
            },
            "data": {"token": k8s_openapi::ByteString(token.as_bytes().to_vec()), "other": k8s_openapi::ByteString(b"same".to_vec())},
        }))
        .expect("a Secret");
        of_secret(secret)
    }

    fn read(second: u8, version: &str, token: &str, before: Option<&Read>) -> Read {
        let (metadata, data) = secret(second, version, token);
        digested(&key(), "n", &Source::secret("s"), &metadata, data, before)
    }

    fn at(second: u8) -> Timestamp {
        format!("2026-01-01T00:00:{second:02}Z")
            .parse()
            .expect("a time")
    }

    #[test]
    fn content_changed_when_the_api_server_says_that_it_was_written() {
        let created = read(1, "1", "a", None);
        let token = &created.keys["token"];
        assert!(token.first && token.changed == at(1));
        let later = read(30, "2", "b", None);
        let token = &later.keys["token"];
        assert!(
            !token.first && token.changed == at(30),
            "also for who never saw it before"
        );
    }

    #[test]
    fn what_is_as_before_has_not_changed_since() {
        let created = read(1, "1", "a", None);
        let written = read(30, "2", "b", Some(&created));
        assert_eq!(written.keys["other"], created.keys["other"]);
        assert_eq!(written.keys["token"].changed, at(30));
        assert_ne!(written.keys["token"].digest, created.keys["token"].digest);
        assert_eq!(&*written.version, "2");
    }

    #[test]
    fn a_config_map_has_text_and_bytes() {
        let map: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": "c"}, "data": {"a": "x"}, "binaryData": {"b": "eA=="},
        }))
        .expect("a ConfigMap");
        let (metadata, data) = of_config_map(map);
        let read = digested(&key(), "n", &Source::config_map("c"), &metadata, data, None);
        assert_ne!(read.keys["a"].digest, read.keys["b"].digest, "of two keys");
        assert_eq!(read.keys["a"].object, "ConfigMap c");
    }

    #[test]
    fn nothing_of_what_was_read_is_shown() {
        let (metadata, data) = secret(1, "1", "a-canary");
        let read = digested(&key(), "n", &Source::secret("s"), &metadata, data, None);
        assert!(!format!("{:?}", read.keys).contains("a-canary"));
    }
}
