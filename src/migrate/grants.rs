//! The grants that mirrors need, and no more: a grant per namespace, vault and identity, with the names of the objects.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::{Finding, Weight};
use super::wish::Wish;
use super::{name_pattern, unique};
use crate::api::{
    GrantIdentity, GrantedObjects, KeyVaultGrant, KeyVaultGrantSpec, MirrorsOwn, ObjectKind,
    TargetKind, VaultRef,
};
use crate::render;
use crate::vault::Collection;

/// Most objects that a grant can list.
const MOST: usize = 1000;

type Object = (ObjectKind, String);

/// What the mirrors of one grant read.
#[derive(Default)]
struct Needs {
    objects: BTreeSet<Object>,
    /// Names of those whose values go into ConfigMaps.
    exposed: BTreeSet<String>,
}

/// The identity of a grant that lets mirrors read as this ServiceAccount of their namespace.
pub(super) fn mirrors_own(service_account: &str) -> GrantIdentity {
    GrantIdentity {
        client_id: None,
        tenant_id: None,
        mirrors_own: Some(MirrorsOwn {
            service_accounts: vec![service_account.to_owned()],
        }),
    }
}

pub(super) fn of(wishes: &[Wish]) -> (Vec<KeyVaultGrant>, Vec<Finding>) {
    let mut needed: BTreeMap<_, (&Wish, Needs)> = BTreeMap::new();
    for wish in wishes {
        let key = (
            wish.namespace.as_str(),
            host(&wish.spec.vault),
            reader(wish),
        );
        let (_, needs) = needed
            .entry(key)
            .or_insert_with(|| (wish, Needs::default()));
        needs.objects.extend(reads(wish));
        needs.exposed.extend(exposes(wish));
    }
    let mut names = BTreeSet::new();
    let mut grants = Vec::new();
    for (wish, needs) in needed.into_values() {
        let objects: Vec<Object> = needs.objects.into_iter().collect();
        for objects in objects.chunks(MOST) {
            let label = host(&wish.spec.vault);
            let label = label.split('.').next().unwrap_or_default();
            let name = unique(&mut names, "", &format!("{}-{label}", wish.namespace));
            grants.push(KeyVaultGrant::new(
                &name,
                spec(wish, objects, &needs.exposed),
            ));
        }
    }
    (grants, ambiguous(wishes))
}

fn spec(wish: &Wish, objects: &[Object], exposed: &BTreeSet<String>) -> KeyVaultGrantSpec {
    let granted = |(kind, name): &Object| GrantedObjects {
        kind: *kind,
        name: name.clone(),
    };
    let exposed = objects.iter().filter(|(_, name)| exposed.contains(name));
    let exposed: BTreeSet<&String> = exposed.map(|(_, name)| name).collect();
    let exposed: Vec<String> = exposed.into_iter().cloned().collect();
    KeyVaultGrantSpec {
        vault: wish.spec.vault.clone(),
        identity: wish.reader.clone(),
        namespaces: Some(vec![wish.namespace.clone()]),
        namespace_selector: None,
        objects: objects.iter().map(granted).collect(),
        allow_config_map: Some(exposed).filter(|exposed| !exposed.is_empty()),
    }
}

/// The objects that a mirror reads, or what all their names begin with; Key Vault takes names without regard to case.
fn reads(wish: &Wish) -> impl Iterator<Item = Object> {
    let sources = render::sources(&wish.spec).into_iter();
    let named = sources.map(|source| (source.kind, source.name.to_lowercase()));
    let matching = wish
        .spec
        .data_from
        .iter()
        .filter_map(|from| from.matching.as_ref());
    let found = matching.map(|matching| {
        let pattern = matching.name_pattern.as_deref().unwrap_or_default();
        let start = name_pattern::start(pattern).to_lowercase();
        (ObjectKind::Secret, format!("{start}*"))
    });
    named.chain(found)
}

/// Names of the objects whose values, and not only public parts, go into a ConfigMap.
fn exposes(wish: &Wish) -> impl Iterator<Item = String> {
    let is_exposed = wish.spec.target.kind == TargetKind::ConfigMap;
    let sources = render::sources(&wish.spec).into_iter();
    sources
        .filter(move |source| is_exposed && source.collection == Collection::Secrets)
        .map(|source| source.name.to_lowercase())
}

fn host(vault: &VaultRef) -> String {
    let given = vault.name.as_deref().or(vault.url.as_deref());
    let given = given.unwrap_or_default().to_lowercase();
    given.strip_prefix("https://").unwrap_or(&given).to_owned()
}

/// What tells identities apart: client ID, tenant, ServiceAccount.
fn reader(wish: &Wish) -> [Option<&str>; 3] {
    let identity = wish.reader.as_ref();
    let account = wish.spec.identity.as_ref();
    [
        identity.and_then(|identity| identity.client_id.as_deref()),
        identity.and_then(|identity| identity.tenant_id.as_deref()),
        account.map(|account| account.service_account_name.as_str()),
    ]
}

/// Reads that two grants would allow as different identities: the daemon refuses to guess.
fn ambiguous(wishes: &[Wish]) -> Vec<Finding> {
    let mut first: BTreeMap<_, &Wish> = BTreeMap::new();
    let mut found = BTreeMap::new();
    for wish in wishes.iter().filter(|wish| wish.spec.identity.is_none()) {
        for object in reads(wish) {
            let read = (wish.namespace.as_str(), host(&wish.spec.vault), object);
            let name = read.2.1.clone();
            let other = *first.entry(read).or_insert(wish);
            if reader(other) != reader(wish) {
                found.entry((&wish.subject, &other.subject)).or_insert(name);
            }
        }
    }
    let finding = |((subject, other), name): ((&String, &String), String)| Finding {
        subject: subject.clone(),
        weight: Weight::Differs,
        text: format!(
            "it reads {name:?} as another identity than {other}, which makes their grants ambiguous: let one identity read it"
        ),
    };
    found.into_iter().map(finding).collect()
}
