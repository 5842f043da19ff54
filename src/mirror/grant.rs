//! Which reads a mirror may do, and as whom. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Selector, SelectorExt};

use super::account::UnusableAccount;
use crate::api::{KeyVaultGrantSpec, KeyVaultMirrorSpec, ObjectKind, TargetKind};
use crate::render::Source;
use crate::vault::{
    Account, Collection, DnsSuffixes, Identity, InvalidVault, Listed, ReadKey, Roster,
    ServiceAccount, VaultHost,
};

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
    #[error(
        "no KeyVaultGrant lets namespace {namespace} mirror {kind} {object} of vault {vault} into a ConfigMap{}; add its name to spec.allowConfigMap \
         of the grant (allowConfigMap of the chart's value vaults), or set spec.target.kind to Secret",
        private_part(.kind)
    )]
    NotForConfigMap {
        namespace: String,
        kind: ObjectKind,
        object: String,
        vault: VaultHost,
    },
    #[error(
        "spec.target.kind is ConfigMap, but Keytide is installed without the right to write ConfigMaps; set the chart's value targets.configMaps, or \
         spec.target.kind to Secret"
    )]
    ConfigMapsOff,
}

fn private_part(kind: &ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Certificate => {
            ", which dataFrom gives with its private key (an entry of data gives its public part, which needs no more than this)"
        }
        ObjectKind::Secret | ObjectKind::Key => "",
    }
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
        let granted = grants
            .clone()
            .filter(|grant| covers(grant, object.kind, &object.name))
            .filter_map(|grant| Some((grant, identity(grant, own)?)));
        let exposable = !is_exposed(spec, object)
            || granted.clone().any(|(grant, _)| lets_expose(grant, object));
        let identities: BTreeSet<Identity> = granted.map(|(_, identity)| identity).collect();
        let mut candidates = identities.iter();
        match (candidates.next(), candidates.next()) {
            (Some(_), None) if !exposable => Err(Refusal::NotForConfigMap {
                namespace: applicant.namespace.to_owned(),
                kind: object.kind,
                object: object.name.clone(),
                vault: vault.clone(),
            }),
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

/// As whom a mirror that looks for secrets by name or tag may have the vault listed: as everybody who may read secrets of it for the
/// mirror.
pub fn listers<'a>(
    applicant: &Applicant<'_>,
    spec: &KeyVaultMirrorSpec,
    grants: impl Iterator<Item = &'a KeyVaultGrantSpec>,
    suffixes: &DnsSuffixes,
) -> Result<Vec<Account>, Refusal> {
    let vault = suffixes.host(&spec.vault)?;
    let own = applicant.account.as_ref();
    let secrets = |grant: &&KeyVaultGrantSpec| {
        let mut objects = grant.objects.iter();
        objects.any(|objects| objects.kind == ObjectKind::Secret)
    };
    let identities: BTreeSet<Identity> = grants
        .filter(|grant| suffixes.host(&grant.vault).is_ok_and(|host| host == vault))
        .filter(|grant| includes(grant, applicant))
        .filter(secrets)
        .filter_map(|grant| identity(grant, own))
        .collect();
    if identities.is_empty() {
        let mut patterns = spec
            .data_from
            .iter()
            .filter_map(|from| from.matching.as_ref());
        let pattern = patterns.find_map(|wished| wished.name_pattern.as_deref());
        return Err(Refusal::NotGranted {
            namespace: applicant.namespace.to_owned(),
            kind: ObjectKind::Secret,
            object: pattern.unwrap_or("*").to_owned(),
            vault,
            account: own.map(|own| own.name.clone()),
        });
    }
    let account = |identity| Account {
        vault: vault.clone(),
        identity,
    };
    Ok(identities.into_iter().map(account).collect())
}

/// Of the secrets that a vault has by these lists, those that the mirror may read. It must never know of others.
pub fn visible<'a, 'l>(
    applicant: &Applicant<'_>,
    grants: impl Iterator<Item = &'a KeyVaultGrantSpec> + Clone,
    suffixes: &DnsSuffixes,
    lists: &'l [(Account, Roster)],
) -> Vec<&'l Listed> {
    let own = applicant.account.as_ref();
    let grants = grants.filter(|grant| includes(grant, applicant));
    let mut visible = Vec::new();
    for (account, roster) in lists {
        let of_account = |grant: &&KeyVaultGrantSpec| {
            identity(grant, own).as_ref() == Some(&account.identity)
                && suffixes
                    .host(&grant.vault)
                    .is_ok_and(|host| host == account.vault)
        };
        let grants: Vec<&KeyVaultGrantSpec> = grants.clone().filter(of_account).collect();
        let granted = |listed: &&Listed| {
            let mut grants = grants.iter();
            grants.any(|grant| covers(grant, ObjectKind::Secret, &listed.name))
        };
        visible.extend(roster.iter().filter(granted));
    }
    visible
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
        .any(|pattern| glob_matches(pattern, applicant.namespace))
        || grant.namespace_selector.as_ref().is_some_and(selected)
}

/// Whether what is read of the object is not public, and goes where more people can read it than Secrets.
fn is_exposed(spec: &KeyVaultMirrorSpec, object: &Source) -> bool {
    // Of certificates and keys the vault only ever gives the public part; a certificate with its key is read as a secret.
    spec.target.kind == TargetKind::ConfigMap && object.collection == Collection::Secrets
}

fn lets_expose(grant: &KeyVaultGrantSpec, object: &Source) -> bool {
    let name = object.name.to_ascii_lowercase();
    let mut patterns = grant.allow_config_map.iter().flatten();
    patterns.any(|pattern| glob_matches(&pattern.to_ascii_lowercase(), &name))
}

fn covers(grant: &KeyVaultGrantSpec, kind: ObjectKind, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    grant.objects.iter().any(|objects| {
        objects.kind == kind && glob_matches(&objects.name.to_ascii_lowercase(), &name)
    })
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
            let allowed = patterns.any(|pattern| glob_matches(pattern, &own.name));
            allowed.then(|| Identity::ServiceAccount(own.clone()))
        }
        _ => None,
    }
}

/// Whether `text` is what `pattern` means, in which `*` stands for any number of characters.
pub fn glob_matches(pattern: &str, text: &str) -> bool {
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

    /// What a mirror into a ConfigMap may read of these grants, each by its objects and allowConfigMap.
    fn exposed(sources: serde_json::Value, grants: &[(&str, &[&str])]) -> Result<usize, Refusal> {
        let mut spec = json!({
            "vault": {"name": "contoso"},
            "target": {"kind": "ConfigMap", "name": "t"},
        });
        for (field, value) in sources.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let grants = grants.iter().map(|(objects, allowed)| {
            let mut grant = grant("contoso", &["*"], objects, None);
            let of_kind = |kind| json!({"kind": kind, "name": objects});
            grant.objects =
                serde_json::from_value(json!(["secret", "certificate", "key"].map(of_kind)))
                    .expect("objects");
            let allowed: Vec<String> = allowed.iter().map(|it| (*it).to_owned()).collect();
            grant.allow_config_map = Some(allowed).filter(|allowed| !allowed.is_empty());
            grant
        });
        let grants: Vec<_> = grants.collect();
        let suffixes = "vault.azure.net".parse().expect("suffix");
        let spec = serde_json::from_value(spec).expect("a spec");
        let labels = BTreeMap::new();
        reads_of(&runners(&labels, None), &spec, grants.iter(), &suffixes).map(|it| it.len())
    }

    #[test]
    fn what_is_public_goes_into_a_config_map() {
        let data = json!({"data": [
            {"key": "crt", "object": {"kind": "certificate", "name": "web"}},
            {"key": "pub", "object": {"kind": "key", "name": "signing"}},
        ]});
        assert_eq!(exposed(data, &[("*", &[])]), Ok(2));
    }

    #[test]
    fn what_is_secret_goes_into_a_config_map_only_where_a_grant_lets_it() {
        let entry = |name: &str| json!({"key": name, "object": {"name": name}});
        let one = json!({"data": [entry("Feature-Flags")]});
        let refused = exposed(one.clone(), &[("*", &["flags-*"])]).expect_err("refused");
        let said = refused.to_string();
        for word in ["spec.allowConfigMap", "Feature-Flags", "runners"] {
            assert!(said.contains(word), "{said}");
        }
        assert_eq!(exposed(one.clone(), &[("*", &["feature-*"])]), Ok(1));
        // Two grants for one read are enough if one of them lets it; one for other objects says nothing of these.
        let read_only: (&str, &[&str]) = ("feature-*", &[]);
        assert_eq!(exposed(one.clone(), &[read_only, ("*", &["*"])]), Ok(1));
        assert!(exposed(one, &[read_only, ("other-*", &["*"])]).is_err());
        // All or nothing, as always.
        let two = json!({"data": [entry("feature-flags"), entry("password")]});
        let refused = exposed(two, &[("*", &["feature-*"])]).expect_err("refused");
        assert!(refused.to_string().contains("secret password"), "{refused}");
    }

    #[test]
    fn a_certificate_with_its_key_and_what_is_expanded_are_secret() {
        let keystore = json!({"format": "JKS", "password": {"name": "password"}});
        for (sources, secret) in [
            (
                json!({"dataFrom": [{"certificate": {"name": "web"}}]}),
                "web",
            ),
            (
                json!({"dataFrom": [{"certificate": {"name": "web", "keystore": keystore}}]}),
                "password",
            ),
            (
                json!({"dataFrom": [{"expand": {"object": {"name": "env"}, "format": "json"}}]}),
                "env",
            ),
        ] {
            let allowed: Vec<&str> = ["web", "password", "env"]
                .into_iter()
                .filter(|name| *name != secret)
                .collect();
            let refused = exposed(sources.clone(), &[("*", &allowed)]).expect_err("refused");
            assert!(
                matches!(&refused, Refusal::NotForConfigMap { object, .. } if object == secret),
                "{refused}"
            );
            assert!(exposed(sources, &[("*", &["*"])]).is_ok());
        }
    }

    #[test]
    fn of_a_list_a_mirror_sees_what_is_granted_and_to_whom() {
        let (labels, suffixes) = (BTreeMap::new(), "vault.azure.net".parse().expect("suffix"));
        let applicant = runners(&labels, None);
        let matching = json!({
            "vault": {"name": "contoso"},
            "dataFrom": [{"match": {"namePattern": ".*"}}],
            "target": {"name": "t"},
        });
        let spec = serde_json::from_value(matching).expect("a spec");
        let mut certificates = grant("contoso", &["*"], "*", Some("c"));
        certificates.objects[0].kind = ObjectKind::Certificate;
        let grants = [
            grant("contoso", &["runners"], "ado-*", None),
            grant("contoso", &["runners"], "web-*", Some("b")),
            grant("contoso", &["others"], "*", None),
            grant("fabrikam", &["runners"], "*", None),
            certificates,
        ];
        let accounts = listers(&applicant, &spec, grants.iter(), &suffixes).expect("granted");
        assert_eq!(accounts.len(), 2, "{accounts:?}");
        let listed = |name: &str| Listed {
            name: name.to_owned(),
            enabled: true,
            tags: Default::default(),
        };
        let roster = Roster::new(["ADO-pat", "web-x", "secret"].map(listed).into());
        let lists: Vec<_> = accounts
            .into_iter()
            .map(|account| (account, Roster::clone(&roster)))
            .collect();
        let visible = visible(&applicant, grants.iter(), &suffixes, &lists);
        let names: Vec<&str> = visible.iter().map(|listed| listed.name.as_str()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(
            names.contains(&"ADO-pat") && names.contains(&"web-x"),
            "{names:?}"
        );

        let refused = listers(&applicant, &spec, grants[2..].iter(), &suffixes);
        assert!(matches!(refused, Err(Refusal::NotGranted { .. })));
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
        fn no_secret_gets_into_a_config_map_that_no_pattern_means(
            name in "[a-c]{1,4}",
            patterns in prop::collection::vec("[a-c*]{1,3}", 0..3),
        ) {
            let data = json!({"data": [{"key": "k", "object": {"name": name}}]});
            let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let allowed = patterns.iter().any(|pattern| glob_matches(pattern, &name));
            prop_assert_eq!(exposed(data, &[("*", &patterns)]).is_ok(), allowed);
        }

        #[test]
        fn a_star_stands_for_any_text(start in "[a-c]{0,3}", middle in "[a-c]{0,5}", end in "[a-c]{0,3}") {
            let text = format!("{start}{middle}{end}");
            let pattern = format!("{start}*{end}");
            prop_assert!(glob_matches(&pattern, &text));
            prop_assert!(glob_matches("*", &text));
            prop_assert_eq!(glob_matches(&start, &text), start == text);
        }
    }
}
