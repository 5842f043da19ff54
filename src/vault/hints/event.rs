//! What a message of the queue says: which object of which vault changed, or why that can't be told. Pure.

use azure_core::http::Url;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::vault::Collection;

/// Somebody says that an object changed. That may be wrong, late, or said before; it is where to look, not what is there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hint {
    /// Host of the vault, in lower case. Nothing is ever sent there because a hint names it: it is compared with the vaults that
    /// mirrors want something of.
    pub vault: String,
    pub collection: Collection,
    /// Name of the object, in lower case.
    pub name: String,
    /// The version that was made; none where the event is about one that is there for long.
    pub version: Option<String>,
    /// When it happened, by Azure's clock.
    pub happened: Option<Timestamp>,
}

/// Why a message is no hint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NoHint {
    /// It is no event, or one of Key Vault's that names no object.
    Malformed,
    /// It is an event about something else.
    Other,
}

/// An event in the Event Grid schema (<https://learn.microsoft.com/azure/event-grid/event-schema>) or the CloudEvents 1.0 schema
/// (<https://learn.microsoft.com/azure/event-grid/cloud-event-schema>), which name two fields differently.
#[derive(Deserialize)]
struct Event {
    #[serde(rename = "eventType", alias = "type")]
    event_type: String,
    #[serde(rename = "eventTime", alias = "time")]
    time: Option<String>,
    #[serde(default)]
    data: Value,
}

impl Hint {
    /// Reads a message: an event as JSON, in base64, which is how Event Grid fills a queue, or plain, which is how others pass
    /// events on. Of Key Vault's events (<https://learn.microsoft.com/azure/event-grid/event-schema-key-vault>) all that are about
    /// an object count.
    pub fn parse(message: &str) -> Result<Self, NoHint> {
        let message = message.trim();
        // No base64 begins like that.
        let event: Event = if message.starts_with('{') {
            serde_json::from_str(message).map_err(|_| NoHint::Malformed)?
        } else {
            let json = STANDARD.decode(message).map_err(|_| NoHint::Malformed)?;
            serde_json::from_slice(&json).map_err(|_| NoHint::Malformed)?
        };
        let (collection, is_new) = subject(&event.event_type).ok_or(NoHint::Other)?;
        // Both spellings are seen: documentation and events don't agree with each other.
        let id = ["Id", "id"]
            .iter()
            .find_map(|name| event.data.get(name)?.as_str());
        let (vault, name, version) = id
            .and_then(|id| identified(id, collection))
            .ok_or(NoHint::Malformed)?;
        Ok(Self {
            vault,
            collection,
            name,
            version: version.filter(|_| is_new),
            happened: event.time.and_then(|time| time.parse().ok()),
        })
    }
}

/// What kind of object an event is about, and whether it says that there is a new version.
fn subject(event_type: &str) -> Option<(Collection, bool)> {
    let event = event_type.strip_prefix("Microsoft.KeyVault.")?;
    let kinds = [
        ("Secret", Collection::Secrets),
        ("Certificate", Collection::Certificates),
        ("Key", Collection::Keys),
    ];
    kinds
        .into_iter()
        .find_map(|(kind, collection)| match event.strip_prefix(kind)? {
            "NewVersionCreated" => Some((collection, true)),
            "NearExpiry" | "Expired" => Some((collection, false)),
            _ => None,
        })
}

/// Vault, name and version of an ID such as `https://contoso.vault.azure.net/secrets/ado-pat/0123…`.
fn identified(id: &str, collection: Collection) -> Option<(String, String, Option<String>)> {
    let url: Url = id
        .trim()
        .parse()
        .ok()
        .filter(|url: &Url| url.scheme() == "https")?;
    let segments: Vec<&str> = url.path_segments()?.collect();
    let (found, name, version) = match segments.as_slice() {
        [found, name] => (found, name, None),
        [found, name, version] => (found, name, Some(version)),
        _ => return None,
    };
    let wanted = collection.to_string();
    let version = version.filter(|version| !version.is_empty());
    (*found == wanted && !name.is_empty()).then(|| {
        let vault = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let name = name.to_ascii_lowercase();
        (vault, name, version.map(ToString::to_string))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const VERSION: &str = "ee059b2bb5bc48398a53b168c6cdcb10";

    fn encoded(event: &Value) -> String {
        STANDARD.encode(event.to_string())
    }

    fn parse(event: &Value) -> Result<Hint, NoHint> {
        Hint::parse(&encoded(event))
    }

    /// The example of Event Grid's documentation, without the list around it: a queue gets events one by one.
    fn event_grid() -> Value {
        json!({
            "id": "00eccf70-95a7-4e7c-8299-2eb17ee9ad64",
            "topic": "/subscriptions/s/resourceGroups/sample-rg/providers/Microsoft.KeyVault/vaults/sample-kv",
            "subject": "NewSecret",
            "eventType": "Microsoft.KeyVault.SecretNewVersionCreated",
            "eventTime": "2019-07-25T01:08:33.1036736Z",
            "data": {
                "Id": format!("https://Sample-kv.vault.azure.net/secrets/NewSecret/{VERSION}"),
                "VaultName": "sample-kv",
                "ObjectType": "Secret",
                "ObjectName": "NewSecret",
                "Version": VERSION,
                "NBF": 1559081980,
                "EXP": null,
            },
            "dataVersion": "1",
            "metadataVersion": "1",
        })
    }

    fn cloud_event(event_type: &str, id: &str) -> Value {
        json!({
            "specversion": "1.0",
            "type": event_type,
            "source": "/subscriptions/s/resourceGroups/sample-rg/providers/Microsoft.KeyVault/vaults/sample-kv",
            "id": "00eccf70-95a7-4e7c-8299-2eb17ee9ad64",
            "time": "2019-07-25T01:08:33.1036736Z",
            "subject": "newsecret",
            "data": {"id": id, "vaultName": "sample-kv"},
            "extension": {"of": ["any", "kind"]},
        })
    }

    fn hint() -> Hint {
        Hint {
            vault: "sample-kv.vault.azure.net".to_owned(),
            collection: Collection::Secrets,
            name: "newsecret".to_owned(),
            version: Some(VERSION.to_owned()),
            happened: Some("2019-07-25T01:08:33.1036736Z".parse().expect("a time")),
        }
    }

    #[test]
    fn both_schemas_are_understood() {
        assert_eq!(parse(&event_grid()), Ok(hint()));
        let id = format!("https://sample-kv.vault.azure.net/secrets/newsecret/{VERSION}");
        let event = cloud_event("Microsoft.KeyVault.SecretNewVersionCreated", &id);
        assert_eq!(parse(&event), Ok(hint()));
    }

    #[test]
    fn every_event_about_an_object_is_a_hint_and_only_a_new_version_names_one() {
        for (kind, path, collection) in [
            ("Secret", "secrets", Collection::Secrets),
            ("Certificate", "certificates", Collection::Certificates),
            ("Key", "keys", Collection::Keys),
        ] {
            for event in ["NewVersionCreated", "NearExpiry", "Expired"] {
                let event_type = format!("Microsoft.KeyVault.{kind}{event}");
                let id = format!("https://sample-kv.vault.azure.net/{path}/newsecret/{VERSION}");
                let expected = Hint {
                    collection,
                    version: (event == "NewVersionCreated").then(|| VERSION.to_owned()),
                    ..hint()
                };
                assert_eq!(parse(&cloud_event(&event_type, &id)), Ok(expected));
            }
        }
    }

    #[test]
    fn events_about_something_else_are_no_hints_whatever_they_hold() {
        for event_type in [
            "Microsoft.KeyVault.VaultAccessPolicyChanged",
            "Microsoft.KeyVault.SecretDeleted",
            "Microsoft.Storage.BlobCreated",
            "",
        ] {
            let mut event = event_grid();
            event["eventType"] = json!(event_type);
            assert_eq!(parse(&event), Err(NoHint::Other), "{event_type}");
            event["data"] = json!([1, 2]);
            assert_eq!(parse(&event), Err(NoHint::Other), "{event_type}");
        }
    }

    #[test]
    fn what_names_no_object_is_malformed() {
        let new = "Microsoft.KeyVault.SecretNewVersionCreated";
        for id in [
            "",
            "newsecret",
            "http://sample-kv.vault.azure.net/secrets/newsecret",
            "https://sample-kv.vault.azure.net/secrets",
            "https://sample-kv.vault.azure.net/secrets//1",
            "https://sample-kv.vault.azure.net/keys/newsecret",
            "https://sample-kv.vault.azure.net/secrets/newsecret/1/2",
            "data:text/plain,secrets/x",
        ] {
            assert_eq!(parse(&cloud_event(new, id)), Err(NoHint::Malformed), "{id}");
        }
        for data in [json!(null), json!("x"), json!({"Id": 5}), json!([])] {
            let mut event = event_grid();
            event["data"] = data;
            assert_eq!(parse(&event), Err(NoHint::Malformed));
        }
        assert_eq!(parse(&json!([event_grid()])), Err(NoHint::Malformed));
        assert_eq!(parse(&json!({"eventType": 1})), Err(NoHint::Malformed));
    }

    #[test]
    fn base64_and_plain_json_are_understood_and_half_of_either_is_malformed() {
        for whole in [encoded(&event_grid()), event_grid().to_string()] {
            assert_eq!(Hint::parse(&whole), Ok(hint()));
            assert_eq!(Hint::parse(&format!("\n{whole} ")), Ok(hint()));
            assert_eq!(Hint::parse(&whole[..41]), Err(NoHint::Malformed));
        }
    }

    #[test]
    fn a_time_that_is_none_takes_nothing_but_the_age() {
        let mut event = event_grid();
        event["eventTime"] = json!("yesterday");
        let expected = Hint {
            happened: None,
            ..hint()
        };
        assert_eq!(parse(&event), Ok(expected));
    }

    #[test]
    fn a_message_as_large_and_as_deep_as_can_be_does_no_harm() {
        let mut event = event_grid();
        event["data"]["padding"] = json!("x".repeat(1 << 20));
        assert_eq!(parse(&event), Ok(hint()));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(Hint::parse(&STANDARD.encode(deep)), Err(NoHint::Malformed));
        let deep = format!("{}{}", r#"{"data":"#.repeat(100_000), "}".repeat(100_000));
        assert_eq!(Hint::parse(&deep), Err(NoHint::Malformed));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map("[a-zA-Z]{1,9}", inner, 0..4)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = Hint::parse(&text);
            let _ = Hint::parse(&STANDARD.encode(text));
        }

        #[test]
        fn fields_that_are_not_known_don_t_count(
            name in "[a-z]{1,8}Unknown", value in any_json(),
        ) {
            let mut event = event_grid();
            event[&name] = value.clone();
            event["data"][&name] = value;
            prop_assert_eq!(parse(&event), Ok(hint()));
        }

        #[test]
        fn no_value_of_a_known_field_makes_it_panic(
            field in prop::sample::select(vec!["eventType", "eventTime", "data"]), value in any_json(),
        ) {
            let mut event = event_grid();
            event[field] = value;
            let _ = parse(&event);
        }
    }
}
