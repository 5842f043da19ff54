//! Manifests of files, as the API server would keep them.

use std::path::{Path, PathBuf};

use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::Request;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::report::Problem;
use crate::api::{GROUP, KeyVaultGrant, KeyVaultMirror};
use crate::cli::Result;
use crate::cli::migrate::read_file;

/// What the files wish for, and what of it is refused.
#[derive(Default)]
pub struct Wishes {
    pub mirrors: Vec<KeyVaultMirror>,
    pub grants: Vec<KeyVaultGrant>,
    pub refused: Vec<Problem>,
}

/// A mirror or a grant as it is written.
struct Manifest {
    /// None of a grant.
    namespace: Option<String>,
    name: String,
    value: Value,
}

impl Wishes {
    /// Reads files, and has the API server check what is in them. Manifests of other kinds are left out.
    pub async fn of(paths: &[PathBuf], client: &Client, default_namespace: &str) -> Result<Self> {
        let mut wishes = Self::default();
        let mut found = false;
        for path in paths {
            for value in read_file(path)?.into_iter().flat_map(items) {
                let (Some(kind), Some(GROUP)) = (text(&value, "/kind"), group(&value)) else {
                    continue;
                };
                match kind {
                    "KeyVaultMirror" => {
                        found = true;
                        let namespace = text(&value, "/metadata/namespace");
                        let namespace = namespace.unwrap_or(default_namespace).to_owned();
                        let manifest = Manifest::of(path, value, Some(namespace))?;
                        let tried = manifest.tried::<KeyVaultMirror>(client, &mut wishes.refused);
                        wishes.mirrors.extend(tried.await);
                    }
                    "KeyVaultGrant" => {
                        let manifest = Manifest::of(path, value, None)?;
                        let tried = manifest.tried::<KeyVaultGrant>(client, &mut wishes.refused);
                        wishes.grants.extend(tried.await);
                    }
                    _ => {}
                }
            }
        }
        if found {
            Ok(wishes)
        } else {
            Err("the files have no KeyVaultMirror; leave --filename out to plan what the cluster has".into())
        }
    }

    /// The namespace of all mirrors; none if they are in several.
    pub fn namespace(&self) -> Option<String> {
        let mut namespaces = self.mirrors.iter().map(|it| it.metadata.namespace.clone());
        let first = namespaces.next()?;
        namespaces.all(|other| other == first).then_some(first)?
    }
}

impl Manifest {
    fn of(path: &Path, value: Value, namespace: Option<String>) -> Result<Self> {
        let name = text(&value, "/metadata/name").ok_or_else(|| {
            let kind = text(&value, "/kind").unwrap_or_default();
            format!("a {kind} in {} has no metadata.name", path.display())
        })?;
        Ok(Self {
            namespace,
            name: name.to_owned(),
            value,
        })
    }

    /// What would be kept of it; none if it is refused.
    async fn tried<K>(self, client: &Client, refused: &mut Vec<Problem>) -> Option<K>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        match self.dry_run::<K>(client).await {
            Ok(kept) => Some(kept),
            Err(error) => {
                refused.push(Problem::of_error(
                    self.namespace,
                    K::kind(&()).into_owned(),
                    self.name,
                    &error,
                ));
                None
            }
        }
    }

    /// In place of what is there, and strictly: a field that is mistyped is refused, and not left out.
    async fn dry_run<K>(&self, client: &Client) -> std::result::Result<K, kube::Error>
    where
        K: Resource<DynamicType = ()> + DeserializeOwned,
    {
        let resource = ApiResource::erase::<K>(&());
        let api: Api<DynamicObject> = match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let there = api.get_metadata_opt(&self.name).await?;
        let mut value = self.value.clone();
        let metadata = value
            .pointer_mut("/metadata")
            .and_then(Value::as_object_mut);
        if let Some(metadata) = metadata {
            // What was read from a cluster has those of then.
            metadata.remove("uid");
            metadata.remove("resourceVersion");
            if let Some(there) = &there {
                let version = there.metadata.resource_version.clone();
                metadata.insert("resourceVersion".to_owned(), version.into());
            }
            if let Some(namespace) = &self.namespace {
                metadata.insert("namespace".to_owned(), namespace.as_str().into());
            }
        }
        let body = serde_json::to_vec(&value).map_err(kube::Error::SerdeError)?;
        let dry = PostParams {
            dry_run: true,
            field_manager: None,
        };
        let requests = Request::new(K::url_path(&(), self.namespace.as_deref()));
        let request = match there {
            Some(_) => requests.replace(&self.name, &dry, body),
            None => requests.create(&dry, body),
        };
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        let strict = format!("{}&fieldValidation=Strict", request.uri());
        *request.uri_mut() = strict
            .parse()
            .map_err(|error: http::uri::InvalidUri| kube::Error::HttpError(error.into()))?;
        client.request(request).await
    }
}

/// A manifest, or those of a list.
fn items(value: Value) -> Vec<Value> {
    let is_list = text(&value, "/kind").is_some_and(|kind| kind.ends_with("List"));
    match value.get("items") {
        Some(Value::Array(items)) if is_list => items.clone(),
        _ => vec![value],
    }
}

fn group(value: &Value) -> Option<&str> {
    Some(text(value, "/apiVersion")?.split_once('/')?.0)
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer)?.as_str()
}
