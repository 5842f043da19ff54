//! Which reads a mirror may do, and as whom. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

use super::account::UnusableAccount;
use crate::api::{KeyVaultGrantSpec, KeyVaultMirrorSpec, ObjectKind};
use crate::render::Source;
use crate::vault::{DnsSuffixes, Identity, InvalidVault, ReadKey, ServiceAccount, VaultHost};

/// Why a mirror may not read; the text says what is missing.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Refusal {
    #[error(transparent)]
    InvalidVault(#[from] InvalidVault),
    #[error(
        "no KeyVaultGrant lets namespace {namespace} read {kind} {object} of vault {vault}{}; add one, for example by the chart's value vaults",
        as_whom(.account.as_deref())
    )]
    NotGranted {
        namespace: String,
        kind: ObjectKind,
        object: String,
        vault: VaultHost,
        /// The ServiceAccount that the mirror names.
        account: Option<String>,
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
    #[error(transparent)]
    Account(#[from] UnusableAccount),
}

fn as_whom(account: Option<&str>) -> String {
    account.map_or_else(String::new, |account| {
        format!(" as its ServiceAccount {account} (identity.mirrorsOwn)")
    })
}

/// What is known of a mirror's namespace.
pub struct Applicant<'a> {
    pub namespace: &'a str,
    /// Labels of the namespace.
    pub labels: &'a BTreeMap<String, String>,
    /// The ServiceAccount that the mirror names, if it names one.
    pub account: Option<ServiceAccount>,
}

/// The reads that a mirror needs, in the order of its sources. Every one needs a grant, and all grants for one read must name the
/// same identity.
pub fn reads<'a>(
    applicant: &Applicant<'_>,
    spec: &KeyVaultMirrorSpec,
    sources: &[Source],
    grants: impl Iterator<Item = &'a KeyVaultGrantSpec> + Clone,
    suffixes: &DnsSuffixes,
) -> Result<Vec<ReadKey>, Refusal> {
    let vault = suffixes.host(&spec.vault)?;
    let own = applicant.account.as_ref();
    let grants = grants
        .filter(|grant| suffixes.host(&grant.vault).is_ok_and(|host| host == vault))
        .filter(|grant| includes(grant, applicant));
    let read = |object: &Source| {
        let identities: BTreeSet<Identity> = grants
            .clone()
            .filter(|grant| covers(grant, object.kind, &object.name))
            .filter_map(|grant| identity(grant, own))
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
                namespace: applicant.namespace.to_owned(),
                kind: object.kind,
                object: object.name.clone(),
                vault: vault.clone(),
                account: own.map(|own| own.name.clone()),
            }),
            (Some(_), Some(_)) => Err(Refusal::Ambiguous {
                namespace: applicant.namespace.to_owned(),
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

fn includes(grant: &KeyVaultGrantSpec, applicant: &Applicant<'_>) -> bool {
    let named = grant.namespaces.iter().flatten();
    let selected = |selector: &LabelSelector| {
        // A selector of nothing would be one of everything, and one that can't be read is one of nothing.
        Selector::try_from(selector.clone())
            .is_ok_and(|selector| !selector.selects_all() && selector.matches(applicant.labels))
    };
    named
        .into_iter()
        .any(|pattern| matches(pattern, applicant.namespace))
        || grant.namespace_selector.as_ref().is_some_and(selected)
}

fn covers(grant: &KeyVaultGrantSpec, kind: ObjectKind, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    grant
        .objects
        .iter()
        .any(|objects| objects.kind == kind && matches(&objects.name.to_ascii_lowercase(), &name))
}

/// As whom a grant lets a mirror read: one that names no ServiceAccount as the grant says, one that does as that, or not at all.
fn identity(grant: &KeyVaultGrantSpec, own: Option<&ServiceAccount>) -> Option<Identity> {
    let Some(identity) = &grant.identity else {
        return own.is_none().then_some(Identity::Daemon);
    };
    match (&identity.client_id, &identity.mirrors_own, own) {
        (Some(client_id), None, None) => Some(Identity::Application {
            client_id: client_id.clone(),
            tenant_id: identity.tenant_id.clone(),
        }),
        (None, Some(allowed), Some(own)) => {
            let mut patterns = allowed.service_accounts.iter();
            let allowed = patterns.any(|pattern| matches(pattern, &own.name));
            allowed.then(|| Identity::ServiceAccount(own.clone()))
        }
        _ => None,
    }
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

    fn runners<'a>(labels: &'a BTreeMap<String, String>, account: Option<&str>) -> Applicant<'a> {
        let account = account.map(|name| ServiceAccount {
            namespace: "runners".to_owned(),
            name: name.to_owned(),
            client_id: "own".to_owned(),
            tenant_id: None,
        });
        Applicant {
            namespace: "runners",
            labels,
            account,
        }
    }

    fn reads_of<'a>(
        applicant: &Applicant<'_>,
        spec: &KeyVaultMirrorSpec,
        grants: impl Iterator<Item = &'a KeyVaultGrantSpec> + Clone,
        suffixes: &DnsSuffixes,
    ) -> Result<Vec<ReadKey>, Refusal> {
        reads(applicant, spec, &sources(spec), grants, suffixes)
    }

    fn read(object: &str, grants: &[KeyVaultGrantSpec]) -> Result<Vec<ReadKey>, Refusal> {
        reads_of(
            &runners(&BTreeMap::new(), None),
            &spec(object),
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
    fn a_namespace_may_be_granted_by_its_labels() {
        let mut grant = grant("contoso", &["others"], "*", None);
        grant.namespace_selector = serde_json::from_value(json!({
            "matchLabels": {"team": "a"},
            "matchExpressions": [{"key": "stage", "operator": "NotIn", "values": ["test"]}],
        }))
        .expect("a selector");
        let suffixes: DnsSuffixes = "vault.azure.net".parse().expect("suffix");
        let allowed = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(k, v)| (k.to_string(), v.to_string()));
            let labels = labels.collect();
            let applicant = runners(&labels, None);
            reads_of(&applicant, &spec("s"), [&grant].into_iter(), &suffixes).is_ok()
        };
        assert!(allowed(&[("team", "a")]));
        assert!(allowed(&[("team", "a"), ("stage", "live")]));
        assert!(!allowed(&[("team", "b")]));
        assert!(!allowed(&[("team", "a"), ("stage", "test")]));
        assert!(!allowed(&[]));
    }

    #[test]
    fn an_empty_selector_is_no_namespace() {
        let mut grant = grant("contoso", &["others"], "*", None);
        grant.namespace_selector = Some(LabelSelector::default());
        assert!(matches!(
            read("s", &[grant]),
            Err(Refusal::NotGranted { .. })
        ));
    }

    #[test]
    fn only_a_grant_that_allows_it_lets_a_mirror_read_as_its_own_service_account() {
        let (labels, suffixes) = (BTreeMap::new(), "vault.azure.net".parse().expect("suffix"));
        let mut spec = spec("s");
        spec.identity =
            serde_json::from_value(json!({"serviceAccountName": "runner"})).expect("one");
        let applicant = runners(&labels, Some("runner"));
        let by =
            |grants: &[KeyVaultGrantSpec]| reads_of(&applicant, &spec, grants.iter(), &suffixes);
        let named = grant("contoso", &["*"], "*", Some("b"));
        let daemon = grant("contoso", &["*"], "*", None);
        let own = |accounts: &[&str]| {
            let mut grant = grant("contoso", &["*"], "*", None);
            grant.identity =
                serde_json::from_value(json!({"mirrorsOwn": {"serviceAccounts": accounts}}))
                    .expect("one");
            grant
        };
        let refused = by(&[named.clone(), daemon.clone(), own(&["web-*"])]).expect_err("refused");
        assert!(
            refused.to_string().contains("as its ServiceAccount runner"),
            "{refused}"
        );
        let keys = by(&[named.clone(), daemon, own(&["run*"])]).expect("granted");
        assert!(
            matches!(&keys[0].identity, Identity::ServiceAccount(account) if account.client_id == "own")
        );
        // And a mirror that names none never reads as one.
        assert!(matches!(
            read("s", &[own(&["*"])]),
            Err(Refusal::NotGranted { .. })
        ));
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
