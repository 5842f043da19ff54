//! Which reads a mirror may do, and as whom. Pure.

use std::collections::BTreeSet;

use crate::api::{KeyVaultGrantSpec, KeyVaultMirrorSpec, ObjectKind};
use crate::render::Source;
use crate::vault::{DnsSuffixes, Identity, InvalidVault, ReadKey, VaultHost};

/// Why a mirror may not read; the text says what is missing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    InvalidVault(#[from] InvalidVault),
    #[error(
        "no KeyVaultGrant lets namespace {namespace} read {kind} {object} of vault {vault}; add one, for example by the chart's value vaults"
    )]
    NotGranted {
        namespace: String,
        kind: ObjectKind,
        object: String,
        vault: VaultHost,
    },
    #[error(
        "several KeyVaultGrants let namespace {namespace} read {kind} {object} of vault {vault}, as different identities ({identities}); leave one of them"
    )]
    Ambiguous {
        namespace: String,
        kind: ObjectKind,
        object: String,
        vault: VaultHost,
        identities: String,
    },
}

/// The reads that a mirror needs, in the order of its sources. Every one needs a grant, and all grants for one read must name the
/// same identity.
pub fn reads<'a>(
    namespace: &str,
    spec: &KeyVaultMirrorSpec,
    sources: &[Source],
    grants: impl Iterator<Item = &'a KeyVaultGrantSpec> + Clone,
    suffixes: &DnsSuffixes,
) -> Result<Vec<ReadKey>, Refusal> {
    let vault = suffixes.host(&spec.vault)?;
    let read = |object: &Source| {
        let identities: BTreeSet<Identity> = grants
            .clone()
            .filter(|grant| suffixes.host(&grant.vault).is_ok_and(|host| host == vault))
            .filter(|grant| allows(grant, namespace, object.kind, &object.name))
            .map(identity)
            .collect();
        let mut candidates = identities.iter();
        match (candidates.next(), candidates.next()) {
            (Some(identity), None) => Ok(ReadKey {
                vault: vault.clone(),
                identity: identity.clone(),
                collection: object.collection,
                // Key Vault's names don't distinguish case, so equal reads should not either.
                name: object.name.to_ascii_lowercase(),
                version: object.version.clone(),
            }),
            (None, _) => Err(Refusal::NotGranted {
                namespace: namespace.to_owned(),
                kind: object.kind,
                object: object.name.clone(),
                vault: vault.clone(),
            }),
            (Some(_), Some(_)) => Err(Refusal::Ambiguous {
                namespace: namespace.to_owned(),
                kind: object.kind,
                object: object.name.clone(),
                vault: vault.clone(),
                identities: identities
                    .iter()
                    .map(Identity::to_string)
                    .collect::<Vec<_>>()
                    .join(", "),
            }),
        }
    };
    sources.iter().map(read).collect()
}

fn allows(grant: &KeyVaultGrantSpec, namespace: &str, kind: ObjectKind, name: &str) -> bool {
    grant
        .namespaces
        .iter()
        .any(|pattern| matches(pattern, namespace))
        && grant.objects.iter().any(|objects| {
            objects.kind == kind
                && matches(
                    &objects.name.to_ascii_lowercase(),
                    &name.to_ascii_lowercase(),
                )
        })
}

fn identity(grant: &KeyVaultGrantSpec) -> Identity {
    grant
        .identity
        .as_ref()
        .map_or_else(Identity::default, |identity| Identity {
            client_id: Some(identity.client_id.clone()),
            tenant_id: identity.tenant_id.clone(),
        })
}

/// Whether `text` is what `pattern` means, in which `*` stands for any number of characters.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::render::sources;

    fn spec(object: &str) -> KeyVaultMirrorSpec {
        serde_json::from_value(json!({
            "vault": {"name": "contoso"},
            "data": [{"key": "token", "object": {"name": object}}],
            "target": {"name": "t"},
        }))
        .expect("a spec")
    }

    fn grant(
        vault: &str,
        namespaces: &[&str],
        objects: &str,
        client_id: Option<&str>,
    ) -> KeyVaultGrantSpec {
        let mut grant = json!({
            "vault": {"name": vault},
            "namespaces": namespaces,
            "objects": [{"kind": "secret", "name": objects}],
        });
        if let Some(client_id) = client_id {
            grant["identity"] = json!({"clientId": client_id});
        }
        serde_json::from_value(grant).expect("a grant")
    }

    fn read(object: &str, grants: &[KeyVaultGrantSpec]) -> Result<Vec<ReadKey>, Refusal> {
        let spec = spec(object);
        reads(
            "runners",
            &spec,
            &sources(&spec),
            grants.iter(),
            &"vault.azure.net".parse().expect("suffix"),
        )
    }

    #[test]
    fn vault_namespace_and_object_must_all_be_granted() {
        assert!(read("ado-pat", &[grant("contoso", &["runners"], "ado-*", None)]).is_ok());
        for wrong in [
            grant("fabrikam", &["runners"], "*", None),
            grant("contoso", &["others", "runner"], "*", None),
            grant("contoso", &["runners"], "web-*", None),
        ] {
            assert!(matches!(
                read("ado-pat", &[wrong]),
                Err(Refusal::NotGranted { .. })
            ));
        }
    }

    #[test]
    fn object_names_do_not_distinguish_case() {
        let keys = read("ADO-Pat", &[grant("Contoso", &["*"], "ado-PAT", None)]).expect("granted");
        assert_eq!(keys[0].name, "ado-pat");
    }

    #[test]
    fn different_identities_for_one_read_are_ambiguous() {
        let own = grant("contoso", &["*"], "*", None);
        let other = grant("contoso", &["*"], "*", Some("b"));
        assert!(matches!(
            read("x", &[own.clone(), other]),
            Err(Refusal::Ambiguous { .. })
        ));
        assert!(read("x", &[own.clone(), own]).is_ok());
    }

    #[test]
    fn the_refusal_names_what_is_missing() {
        let text = read("ado-pat", &[]).expect_err("refused").to_string();
        for word in ["runners", "ado-pat", "contoso.vault.azure.net"] {
            assert!(text.contains(word), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_star_stands_for_any_text(start in "[a-c]{0,3}", middle in "[a-c]{0,5}", end in "[a-c]{0,3}") {
            let text = format!("{start}{middle}{end}");
            let pattern = format!("{start}*{end}");
            prop_assert!(matches(&pattern, &text));
            prop_assert!(matches("*", &text));
            prop_assert_eq!(matches(&start, &text), start == text);
        }
    }
}
