//! Key Vault's REST API over one vault: an operation in, a reply out. Who asks was settled before.

use std::collections::BTreeMap;
use std::ops::Bound;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::exchange::{Call, Moment, Reply};
use super::object::Deleted;
use super::operation::{Action, Operation, Type};
use super::refusal::Refusal;
use super::secret::{Changes, NewSecret, Secret, Tags, Value, Version};
use super::store::Vault;

pub mod certificates;
mod keys;

/// Parameter of a `nextLink` that says where the list goes on.
const SKIP_TOKEN: &str = "$skiptoken";

/// The most that Key Vault puts on a page, and what it puts there if nobody asks.
const PAGE: usize = 25;

const API_VERSIONS: [&str; 12] = [
    "2015-06-01",
    "2016-10-01",
    "7.0",
    "7.1",
    "7.2",
    "7.3",
    "7.4",
    "7.5",
    "7.6",
    "7.6-preview.2",
    "2025-07-01",
    "2026-04-01",
];

/// The bodies of "Set Secret" and "Update Secret". Key Vault ignores members that it doesn't know.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    value: Option<Value>,
    content_type: Option<String>,
    tags: Option<Tags>,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Default, Deserialize)]
struct Attributes {
    enabled: Option<bool>,
    nbf: Option<i64>,
    exp: Option<i64>,
}

/// Does what is asked for and words the answer. `host` is the vault's full host name, which ids carry.
pub fn answer(
    vault: &mut Vault,
    host: &str,
    operation: Operation,
    call: &Call,
    moment: Moment,
) -> Reply {
    let Operation { of, action } = operation;
    let reply = match of {
        Type::Secret => execute(vault, host, action, call, moment),
        Type::Certificate => certificates::execute(vault, host, action, call, moment),
        Type::Key => keys::execute(vault, host, action, call, moment),
    };
    reply.unwrap_or_else(Reply::from)
}

/// Whether a request follows a `nextLink`.
pub fn follows_link(call: &Call) -> bool {
    call.query.contains_key(SKIP_TOKEN)
}

/// Refuses what comes without an API version that Key Vault has.
pub fn check_api_version(call: &Call) -> Result<(), Refusal> {
    match call.query.get("api-version") {
        None => Err(Refusal::bad_parameter("api-version must be specified")),
        Some(version) if API_VERSIONS.contains(&version.as_str()) => Ok(()),
        Some(version) => Err(Refusal::bad_parameter(format!(
            "The specified version ({version}) is not recognized. Consider using the latest supported version \
             (2025-07-01)."
        ))),
    }
}

fn execute(
    vault: &mut Vault,
    host: &str,
    action: Action,
    call: &Call,
    moment: Moment,
) -> Result<Reply, Refusal> {
    let reply = match action {
        Action::Get { name, version } => {
            let (secret, id, version) = vault.get(&name, version)?;
            Reply::ok(bundle(host, secret, id, version))
        }
        Action::Set { name } => {
            refuse_managed(vault, &name)?;
            let parameters = body::<Parameters>(call)?;
            let Some(value) = parameters.value else {
                return Err(Refusal::bad_parameter("The property 'value' is required"));
            };
            let secret = NewSecret {
                content_type: parameters.content_type,
                tags: parameters.tags,
                enabled: parameters.attributes.enabled,
                nbf: parameters.attributes.nbf,
                exp: parameters.attributes.exp,
                ..NewSecret::from(value)
            };
            vault.set(&name, secret, moment)?;
            let secret = vault.secret(&name)?;
            Reply::ok(bundle(host, secret, secret.current_id, &secret.current))
        }
        Action::Update { name, version } => {
            refuse_managed(vault, &name)?;
            let parameters = body::<Parameters>(call)?;
            let changes = Changes {
                content_type: parameters.content_type,
                tags: parameters.tags,
                enabled: parameters.attributes.enabled,
                nbf: parameters.attributes.nbf,
                exp: parameters.attributes.exp,
                updated: None,
            };
            vault.update(&name, version, changes, moment)?;
            let secret = vault.secret(&name)?;
            let Some((id, version)) = secret.version(version) else {
                return Err(Refusal::secret_not_found(&name));
            };
            Reply::ok(version.item(secret_id(host, &secret.name, Some(id))))
        }
        Action::Delete { name } => {
            refuse_managed(vault, &name)?;
            Reply::ok(deleted_bundle(host, vault.delete(&name, moment)?))
        }
        Action::GetDeleted { name } => Reply::ok(deleted_bundle(host, vault.deleted(&name)?)),
        Action::Purge { name } => {
            vault.purge(&name)?;
            Reply::no_content()
        }
        Action::Recover { name } => {
            let secret = vault.recover(&name, moment)?;
            Reply::ok(
                secret
                    .current
                    .item(secret_id(host, &secret.name, Some(secret.current_id))),
            )
        }
        Action::List => {
            let item = |secret: &Secret| secret.current.item(secret_id(host, &secret.name, None));
            page(host, call, vault.list(), item)?
        }
        Action::ListDeleted => {
            let item = |deleted: &Deleted<Version>| {
                let secret = &deleted.object;
                let item = secret.current.item(secret_id(host, &secret.name, None));
                deletion(host, Type::Secret, deleted, item)
            };
            page(host, call, vault.list_deleted(), item)?
        }
        Action::ListVersions { name } => {
            // Not 404: Key Vault answers an empty page for a secret that isn't there.
            let secret = vault.secret(&name).ok();
            let versions = secret.map(Secret::versions).unwrap_or_default();
            let versions = versions.into_iter().map(|(id, version)| {
                let item = version.item(secret_id(host, &name, Some(id)));
                (id.simple().to_string(), item)
            });
            page(host, call, &versions.collect(), Json::clone)?
        }
        Action::Create { .. }
        | Action::Import { .. }
        | Action::GetPending { .. }
        | Action::GetPolicy { .. } => {
            return Err(Refusal::bad_parameter("Secrets have no such operation"));
        }
    };
    Ok(reply)
}

fn refuse_managed(vault: &Vault, name: &str) -> Result<(), Refusal> {
    match vault.secret(name) {
        Ok(secret) if secret.current.managed => Err(Refusal::managed(Type::Secret, name)),
        _ => Ok(()),
    }
}

/// Reads a request's body.
fn body<T: DeserializeOwned>(call: &Call) -> Result<T, Refusal> {
    // The parser's words may quote the body, which has the value in it.
    serde_json::from_slice(&call.body).map_err(|error| {
        Refusal::bad_parameter(format!(
            "The request body is not valid at line {}, column {}",
            error.line(),
            error.column()
        ))
    })
}

fn secret_id(host: &str, name: &str, version: Option<Uuid>) -> String {
    id(host, Type::Secret, name, version)
}

fn id(host: &str, of: Type, name: &str, version: Option<Uuid>) -> String {
    let collection = of.noun().to_ascii_lowercase();
    match version {
        Some(version) => format!("https://{host}/{collection}s/{name}/{}", version.simple()),
        None => format!("https://{host}/{collection}s/{name}"),
    }
}

fn bundle(host: &str, secret: &Secret, id: Uuid, version: &Version) -> Json {
    let mut bundle = version.item(secret_id(host, &secret.name, Some(id)));
    bundle["value"] = json!(version.value.expose());
    bundle
}

fn deleted_bundle(host: &str, deleted: &Deleted<Version>) -> Json {
    let secret = &deleted.object;
    let id = secret_id(host, &secret.name, Some(secret.current_id));
    deletion(host, Type::Secret, deleted, secret.current.item(id))
}

/// Adds to an item or bundle what is said of deleted ones.
fn deletion<V>(host: &str, of: Type, deleted: &Deleted<V>, mut item: Json) -> Json {
    let collection = of.noun().to_ascii_lowercase();
    item["recoveryId"] = json!(format!(
        "https://{host}/deleted{collection}s/{}",
        deleted.object.name
    ));
    item["deletedDate"] = json!(deleted.deleted);
    item["scheduledPurgeDate"] = json!(deleted.scheduled_purge);
    item
}

/// One page of `items`. The skip token names the key that the page before ended on, so that what is written or deleted
/// between two pages neither repeats nor hides the rest.
fn page<T>(
    host: &str,
    call: &Call,
    items: &BTreeMap<String, T>,
    item: impl Fn(&T) -> Json,
) -> Result<Reply, Refusal> {
    let size = match call.query.get("maxresults") {
        None => PAGE,
        Some(text) => text
            .parse()
            .ok()
            .filter(|size| (1..=PAGE).contains(size))
            .ok_or_else(|| Refusal::bad_parameter("maxresults must be a number from 1 to 25"))?,
    };
    let after = match call.query.get(SKIP_TOKEN) {
        None => None,
        Some(token) => Some(
            URL_SAFE_NO_PAD
                .decode(token)
                .ok()
                .and_then(|bytes| String::from_utf8(bytes).ok())
                .ok_or_else(|| Refusal::bad_parameter("The skip token is not valid"))?,
        ),
    };
    let after = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut rest = items.range::<str, _>((after, Bound::Unbounded));
    let mut value = Vec::new();
    let mut last = "";
    for (key, listed) in rest.by_ref().take(size) {
        value.push(item(listed));
        last = key;
    }
    let next = rest.next().map(|_| {
        let version = call.query.get("api-version").map_or("", String::as_str);
        let token = URL_SAFE_NO_PAD.encode(last);
        format!(
            "https://{host}{}?api-version={version}&$skiptoken={token}&maxresults={size}",
            call.path
        )
    });
    Ok(Reply::ok(json!({"value": value, "nextLink": next})))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Method};
    use jiff::Timestamp;
    use reqwest::Url;

    const HOST: &str = "v.vault.azure.net";

    fn call(path: &str, query: &str, body: &str) -> Call {
        Call {
            method: Method::GET,
            path: path.to_owned(),
            query: Call::pairs(query),
            headers: HeaderMap::new(),
            body: body.as_bytes().to_vec(),
        }
    }

    fn moment() -> Moment {
        Moment {
            now: Timestamp::from_second(1_700_000_000).unwrap(),
            fresh: Uuid::new_v4(),
        }
    }

    fn ask(vault: &mut Vault, method: Method, path: &str, query: &str, body: &str) -> Reply {
        let operation = Operation::parse(&method, path).unwrap();
        answer(vault, HOST, operation, &call(path, query, body), moment())
    }

    #[test]
    fn a_set_secret_reads_back_with_its_attributes() {
        let mut vault = Vault::default();
        let body = r#"{"value":"1","contentType":"t","attributes":{"exp":1800000000},"tags":{"a":"b"},"new":1}"#;
        let set = ask(&mut vault, Method::PUT, "/secrets/a", "", body)
            .body
            .unwrap();
        let got = ask(&mut vault, Method::GET, "/secrets/a/", "", "")
            .body
            .unwrap();
        assert_eq!(set, got);
        assert_eq!(got["value"], "1");
        assert_eq!(got["attributes"]["exp"], 1_800_000_000);
        assert_eq!(got["attributes"]["updated"], 1_700_000_000);
        assert_eq!(got["attributes"].get("nbf"), None);
        assert_eq!(got.get("managed"), None);
        let id = got["id"].as_str().unwrap();
        assert_eq!(id.rsplit('/').next().unwrap().len(), 32);
    }

    #[test]
    fn lists_come_in_pages_without_values_or_versions() {
        let mut vault = Vault::default();
        for number in 0..60 {
            vault
                .set(&format!("s{number:02}"), "x".into(), moment())
                .unwrap();
        }
        let (mut query, mut ids, mut sizes) =
            ("api-version=7.4".to_owned(), Vec::new(), Vec::new());
        loop {
            let body = ask(&mut vault, Method::GET, "/secrets", &query, "")
                .body
                .unwrap();
            let items = body["value"].as_array().unwrap();
            sizes.push(items.len());
            for item in items {
                assert_eq!(item.get("value"), None);
                ids.push(item["id"].as_str().unwrap().to_owned());
            }
            match body["nextLink"].as_str() {
                Some(next) => query = Url::parse(next).unwrap().query().unwrap().to_owned(),
                None => break,
            }
        }
        assert_eq!(sizes, [25, 25, 10]);
        assert_eq!(ids.len(), 60);
        assert_eq!(ids[0], format!("https://{HOST}/secrets/s00"));
        let over = ask(&mut vault, Method::GET, "/secrets", "maxresults=26", "");
        assert_eq!(over.status, 400);
    }

    #[test]
    fn an_api_version_is_asked_for() {
        assert!(check_api_version(&call("/secrets", "api-version=2025-07-01", "")).is_ok());
        for query in ["", "api-version=1999-01-01"] {
            let refusal = check_api_version(&call("/secrets", query, "")).unwrap_err();
            assert_eq!(
                (refusal.status, refusal.code.as_str()),
                (400, "BadParameter")
            );
        }
    }

    #[test]
    fn a_broken_body_is_refused_without_quoting_it() {
        let mut vault = Vault::default();
        let reply = ask(
            &mut vault,
            Method::PUT,
            "/secrets/a",
            "",
            r#"{"value":"hush","tags":"hush"}"#,
        );
        assert_eq!(reply.status, 400);
        assert!(!reply.body.unwrap().to_string().contains("hush"));
    }

    #[test]
    fn a_certificates_secret_is_marked_and_can_not_be_changed() {
        let mut vault = Vault::default();
        let mut backing = NewSecret::from("pfx");
        backing.managed = true;
        vault.set("web", backing, moment()).unwrap();
        let list = ask(&mut vault, Method::GET, "/secrets", "", "")
            .body
            .unwrap();
        assert_eq!(list["value"][0]["managed"], true);
        let reply = ask(&mut vault, Method::DELETE, "/secrets/web", "", "");
        assert_eq!(reply.status, 403);
    }

    #[test]
    fn a_deleted_secret_says_when_it_will_be_purged() {
        let mut vault = Vault::default();
        vault.set("a", "1".into(), moment()).unwrap();
        let deleted = ask(&mut vault, Method::DELETE, "/secrets/a", "", "")
            .body
            .unwrap();
        assert_eq!(
            deleted["recoveryId"],
            format!("https://{HOST}/deletedsecrets/a")
        );
        assert_eq!(deleted["scheduledPurgeDate"], 1_700_000_000 + 90 * 86_400);
        assert_eq!(deleted.get("value"), None);
        let list = ask(&mut vault, Method::GET, "/deletedsecrets", "", "")
            .body
            .unwrap();
        assert_eq!(list["value"].as_array().unwrap().len(), 1);
        assert_eq!(
            ask(&mut vault, Method::DELETE, "/deletedsecrets/a", "", "").status,
            204
        );
    }
}
