//! Certificates: create (issued at once), import, get, list, update, and what is deleted. Each version has a secret and a key
//! of the same name and version, which live and die with it.

use serde::Deserialize;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::{body, deletion, id, page};
use crate::devvault::certificate_object::{Certificate, Issued, Policy};
use crate::devvault::exchange::{Call, Moment, Reply};
use crate::devvault::key_object::{Key, PublicJwk};
use crate::devvault::object::{Deleted, Object};
use crate::devvault::object_attributes::Wanted;
use crate::devvault::operation::{Action, Type};
use crate::devvault::refusal::Refusal;
use crate::devvault::secret::{Changes, NewSecret, Tags, Value};
use crate::devvault::store::Vault;

#[derive(Deserialize)]
struct Parameters {
    value: Option<Value>,
    pwd: Option<Value>,
    policy: Option<Policy>,
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
    let now = vault.clock(moment);
    let certificates = &mut vault.certificates;
    let reply = match action {
        Action::Get { name, version } => {
            let name = certificates.object(&name)?.name.clone();
            let (id, certificate) = certificates.version(&name, version)?;
            Reply::ok(bundle(host, &name, id, certificate))
        }
        Action::Create { name } => {
            let parameters: Parameters = body(call)?;
            let Some(policy) = parameters.policy else {
                return Err(Refusal::bad_parameter("The property 'policy' is required"));
            };
            let (attributes, tags) = (parameters.attributes, parameters.tags);
            let issued = Issued::self_signed(policy, attributes, tags, now)?;
            add(vault, &name, issued, moment)?;
            // It is, but clients ask again before they take it for issued.
            Reply::json(202, operation(host, &name, "inProgress"))
        }
        Action::GetPending { name } => {
            certificates.object(&name)?;
            Reply::ok(operation(host, &name, "completed"))
        }
        Action::GetPolicy { name } => {
            let certificate = &certificates.object(&name)?.current;
            Reply::ok(certificate.policy.json(&policy_id(host, &name)))
        }
        Action::Import { name } => {
            let parameters: Parameters = body(call)?;
            let Some(value) = parameters.value else {
                return Err(Refusal::bad_parameter("The property 'value' is required"));
            };
            let password = parameters.pwd.as_ref().map_or("", Value::expose);
            let issued = Issued::imported(
                value.expose(),
                password,
                parameters.policy.unwrap_or_default(),
                parameters.attributes,
                parameters.tags,
                now,
            )?;
            add(vault, &name, issued, moment)?;
            let (id, certificate) = vault.certificates.version(&name, None)?;
            Reply::ok(bundle(host, &name, id, certificate))
        }
        Action::Update { name, version } => {
            let parameters: Parameters = body(call)?;
            let (id, certificate) = certificates.version_mut(&name, version)?;
            certificate
                .attributes
                .change(parameters.attributes, now.as_second());
            certificate.tags = parameters.tags.or(certificate.tags.take());
            let (wanted, tags) = (certificate.attributes, certificate.tags.clone());
            let reply = bundle(host, &name, id, certificate);
            let changes = Changes {
                tags,
                enabled: Some(wanted.enabled),
                ..Changes::default()
            };
            vault.update(&name, Some(id), changes, moment)?;
            Reply::ok(reply)
        }
        Action::Delete { name } => {
            let reply = deleted(host, certificates.delete(&name, now.as_second())?);
            vault.delete(&name, moment)?;
            vault.keys.delete(&name, now.as_second())?;
            Reply::ok(reply)
        }
        Action::GetDeleted { name } => Reply::ok(deleted(host, certificates.deleted(&name)?)),
        Action::Purge { name } => {
            certificates.purge(&name)?;
            vault.purge(&name)?;
            vault.keys.purge(&name)?;
            Reply::no_content()
        }
        Action::Recover { name } => {
            let recovered = certificates.recover(&name)?;
            let reply = bundle(
                host,
                &recovered.name,
                recovered.current_id,
                &recovered.current,
            );
            vault.recover(&name, moment)?;
            vault.keys.recover(&name)?;
            Reply::ok(reply)
        }
        Action::List => {
            let item = |listed: &Object<Certificate>| {
                listed
                    .current
                    .item(&id(host, Type::Certificate, &listed.name, None))
            };
            page(host, call, certificates.list(), item)?
        }
        Action::ListDeleted => {
            let item = |listed: &Deleted<Certificate>| {
                let object = &listed.object;
                let item = object
                    .current
                    .item(&id(host, Type::Certificate, &object.name, None));
                deletion(host, Type::Certificate, listed, item)
            };
            page(host, call, certificates.list_deleted(), item)?
        }
        Action::ListVersions { name } => {
            let versions = certificates
                .object(&name)
                .map(Object::versions)
                .unwrap_or_default();
            let item = |(version, certificate): (Uuid, &Certificate)| {
                let item = certificate.item(&id(host, Type::Certificate, &name, Some(version)));
                (version.simple().to_string(), item)
            };
            page(
                host,
                call,
                &versions.into_iter().map(item).collect(),
                Json::clone,
            )?
        }
        Action::Set { .. } => {
            return Err(Refusal::bad_parameter(
                "Certificates have no such operation",
            ));
        }
    };
    Ok(reply)
}

/// Puts a certificate into the vault, with the secret and the key that back it.
pub fn add(vault: &mut Vault, name: &str, issued: Issued, moment: Moment) -> Result<(), Refusal> {
    vault.certificates.check(name)?;
    let Issued {
        certificate,
        key,
        value,
    } = issued;
    let kty = certificate
        .policy
        .key()
        .kty
        .unwrap_or_else(|| "RSA".to_owned());
    let key = Key {
        public: PublicJwk::of(&key, &kty)?,
        operations: vec!["sign".to_owned(), "verify".to_owned()],
        attributes: certificate.attributes,
        tags: certificate.tags.clone(),
        managed: true,
    };
    let secret = NewSecret {
        content_type: Some(certificate.policy.content_type().to_owned()),
        tags: certificate.tags.clone(),
        enabled: Some(certificate.attributes.enabled),
        nbf: certificate.attributes.nbf,
        exp: certificate.attributes.exp,
        managed: true,
        ..NewSecret::from(value)
    };
    vault.set(name, secret, moment)?;
    vault.keys.add(name, moment.fresh, key)?;
    vault.certificates.add(name, moment.fresh, certificate)
}

fn operation(host: &str, name: &str, status: &str) -> Json {
    json!({
        "id": format!("https://{host}/certificates/{name}/pending"),
        "issuer": {"name": "Self"},
        "cancellation_requested": false,
        "status": status,
        "target": format!("https://{host}/certificates/{name}"),
    })
}

fn policy_id(host: &str, name: &str) -> String {
    format!("https://{host}/certificates/{name}/policy")
}

fn bundle(host: &str, name: &str, version: Uuid, certificate: &Certificate) -> Json {
    certificate.bundle(
        &format!("https://{host}"),
        name,
        &version.simple().to_string(),
    )
}

fn deleted(host: &str, deleted: &Deleted<Certificate>) -> Json {
    let object = &deleted.object;
    let bundle = bundle(host, &object.name, object.current_id, &object.current);
    deletion(host, Type::Certificate, deleted, bundle)
}
