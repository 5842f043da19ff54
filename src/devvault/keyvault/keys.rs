//! Keys: create, import, get, list, update, and what is deleted.

use serde::Deserialize;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::{body, deletion, page};
use crate::devvault::exchange::{Call, Moment, Reply};
use crate::devvault::key_object::{Key, KeyParameters, PublicJwk};
use crate::devvault::object::{Deleted, Object};
use crate::devvault::object_attributes::{Attributes, Wanted};
use crate::devvault::operation::{Action, Type};
use crate::devvault::refusal::Refusal;
use crate::devvault::secret::Tags;
use crate::devvault::store::Vault;

#[derive(Deserialize)]
struct Parameters {
    #[serde(flatten)]
    key_parameters: KeyParameters,
    key: Option<PublicJwk>,
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    attributes: Wanted,
    tags: Option<Tags>,
}

pub fn execute(
    vault: &mut Vault,
    host: &str,
    action: Action,
    call: &Call,
    moment: Moment,
) -> Result<Reply, Refusal> {
    let now = vault.clock(moment).as_second();
    let bundle =
        |name: &str, id: Uuid, key: &Key| Reply::ok(key.bundle(&kid(host, name, Some(id))));
    let reply = match action {
        Action::Get { name, version } => {
            let name = vault.keys.object(&name)?.name.clone();
            let (id, key) = vault.keys.version(&name, version)?;
            bundle(&name, id, key)
        }
        Action::Create { name } => {
            refuse_managed(vault, &name)?;
            let parameters: Parameters = body(call)?;
            let wanted = &parameters.key_parameters;
            let Some(kty) = &wanted.kty else {
                return Err(Refusal::bad_parameter("The property 'kty' is required"));
            };
            let public = PublicJwk::of(&wanted.generate()?, kty)?;
            add(vault, host, &name, public, parameters, moment)?
        }
        Action::Import { name } => {
            refuse_managed(vault, &name)?;
            let mut parameters: Parameters = body(call)?;
            let Some(public) = parameters.key.take() else {
                return Err(Refusal::bad_parameter("The property 'key' is required"));
            };
            add(vault, host, &name, public.check()?, parameters, moment)?
        }
        Action::Update { name, version } => {
            refuse_managed(vault, &name)?;
            let parameters: Parameters = body(call)?;
            let (id, key) = vault.keys.version_mut(&name, version)?;
            key.attributes.change(parameters.attributes, now);
            key.tags = parameters.tags.or(key.tags.take());
            key.operations = parameters
                .key_ops
                .unwrap_or(std::mem::take(&mut key.operations));
            bundle(&name, id, key)
        }
        Action::Delete { name } => {
            refuse_managed(vault, &name)?;
            Reply::ok(deleted(host, vault.keys.delete(&name, now)?))
        }
        Action::GetDeleted { name } => Reply::ok(deleted(host, vault.keys.deleted(&name)?)),
        Action::Purge { name } => {
            vault.keys.purge(&name)?;
            Reply::no_content()
        }
        Action::Recover { name } => {
            let key = vault.keys.recover(&name)?;
            bundle(&key.name, key.current_id, &key.current)
        }
        Action::List => {
            let item = |key: &Object<Key>| key.current.item(&kid(host, &key.name, None));
            page(host, call, vault.keys.list(), item)?
        }
        Action::ListDeleted => {
            let item = |listed: &Deleted<Key>| {
                let key = &listed.object;
                let item = key.current.item(&kid(host, &key.name, None));
                deletion(host, Type::Key, listed, item)
            };
            page(host, call, vault.keys.list_deleted(), item)?
        }
        Action::ListVersions { name } => {
            let versions = vault
                .keys
                .object(&name)
                .map(Object::versions)
                .unwrap_or_default();
            let item = |(id, key): (Uuid, &Key)| {
                (
                    id.simple().to_string(),
                    key.item(&kid(host, &name, Some(id))),
                )
            };
            page(
                host,
                call,
                &versions.into_iter().map(item).collect(),
                Json::clone,
            )?
        }
        Action::Set { .. } | Action::GetPending { .. } | Action::GetPolicy { .. } => {
            return Err(Refusal::bad_parameter("Keys have no such operation"));
        }
    };
    Ok(reply)
}

fn add(
    vault: &mut Vault,
    host: &str,
    name: &str,
    public: PublicJwk,
    parameters: Parameters,
    moment: Moment,
) -> Result<Reply, Refusal> {
    let operations = [
        "encrypt",
        "decrypt",
        "sign",
        "verify",
        "wrapKey",
        "unwrapKey",
    ];
    let curve = ["sign", "verify"];
    let default: &[&str] = if public.n.is_some() {
        &operations
    } else {
        &curve
    };
    let key = Key {
        public,
        operations: parameters
            .key_ops
            .unwrap_or_else(|| default.iter().map(ToString::to_string).collect()),
        attributes: Attributes::new(parameters.attributes, vault.clock(moment).as_second()),
        tags: parameters.tags,
        managed: false,
    };
    let reply = key.bundle(&kid(host, name, Some(moment.fresh)));
    vault.keys.add(name, moment.fresh, key)?;
    Ok(Reply::ok(reply))
}

fn refuse_managed(vault: &Vault, name: &str) -> Result<(), Refusal> {
    match vault.keys.object(name) {
        Ok(key) if key.current.managed => Err(Refusal::managed(Type::Key, name)),
        _ => Ok(()),
    }
}

fn kid(host: &str, name: &str, id: Option<Uuid>) -> String {
    super::id(host, Type::Key, name, id)
}

fn deleted(host: &str, deleted: &Deleted<Key>) -> Json {
    let key = &deleted.object;
    let bundle = key
        .current
        .bundle(&kid(host, &key.name, Some(key.current_id)));
    deletion(host, Type::Key, deleted, json!(bundle))
}
