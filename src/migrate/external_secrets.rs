//! `ExternalSecret` of External Secrets, with its stores of provider azurekv, in versions v1alpha1, v1beta1 and v1. What the
//! fields mean is in <https://external-secrets.io/latest/api/externalsecret/> and
//! <https://external-secrets.io/latest/provider/azure-key-vault/>.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::finding::{Findings, Gap};
use super::resource::Resource;
use super::store::{Reader, Store, StoreName, Stores};
use super::wish::{self, Pinned, Wish};
use super::{Outcome, go_template, name_pattern};
use crate::api::{
    self, CertificateKind, DataEntry, DataSource, DeletionPolicy, ExpandFormat, KeyFormat, Match,
    MergePolicy, MirrorIdentity, MissingPolicy, ObjectKind, Transform,
};
use crate::render;

pub(super) const GROUP: &str = "external-secrets.io";
pub(super) const KIND: &str = "ExternalSecret";

/// The shortest interval that a mirror may have.
const SHORTEST: SignedDuration = SignedDuration::from_secs(10);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    secret_store_ref: Option<StoreRef>,
    target: Option<Target>,
    refresh_policy: Option<String>,
    refresh_interval: Option<String>,
    data: Option<Vec<Data>>,
    data_from: Option<Vec<DataFrom>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreRef {
    name: Option<String>,
    kind: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Target {
    name: Option<String>,
    creation_policy: Option<String>,
    deletion_policy: Option<String>,
    template: Option<Template>,
    immutable: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[derive(Default)]
struct Template {
    #[serde(rename = "type")]
    type_: String,
    engine_version: Option<String>,
    metadata: TemplateMetadata,
    merge_policy: Option<String>,
    data: BTreeMap<String, String>,
    template_from: Vec<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TemplateMetadata {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Data {
    secret_key: String,
    remote_ref: RemoteRef,
    source_ref: Option<SourceRef>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RemoteRef {
    key: String,
    #[serde(default)]
    property: String,
    #[serde(default)]
    version: String,
    metadata_policy: Option<String>,
    /// How names of keys are converted that are found; of a key that is named it has no effect.
    #[serde(rename = "conversionStrategy")]
    _conversion_strategy: Option<IgnoredAny>,
    decoding_strategy: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SourceRef {
    store_ref: Option<StoreRef>,
    generator_ref: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DataFrom {
    extract: Option<RemoteRef>,
    find: Option<Find>,
    rewrite: Option<Vec<Rewrite>>,
    source_ref: Option<SourceRef>,
    /// v1alpha1 has the fields of `extract` here.
    key: Option<String>,
    #[serde(rename = "version")]
    _version: Option<IgnoredAny>,
    #[serde(rename = "property")]
    _property: Option<IgnoredAny>,
    #[serde(rename = "conversionStrategy")]
    _conversion_strategy: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Find {
    path: Option<String>,
    name: Option<FindName>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    /// What names of Key Vault have needs no conversion.
    #[serde(rename = "conversionStrategy")]
    _conversion_strategy: Option<IgnoredAny>,
    decoding_strategy: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FindName {
    #[serde(default)]
    regexp: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rewrite {
    regexp: Option<RewriteRegexp>,
    #[serde(rename = "transform")]
    _transform: Option<IgnoredAny>,
    #[serde(rename = "merge")]
    _merge: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RewriteRegexp {
    source: String,
    target: String,
}

pub(super) fn convert(resource: &Resource, stores: &Stores) -> Outcome {
    let mut findings = Findings::about(resource);
    let Some(spec) = findings.take(resource.spec::<Spec>()) else {
        return Outcome::nothing(findings);
    };
    let default = spec
        .secret_store_ref
        .as_ref()
        .map(|store| store_name(store, resource));
    let data = spec.data.unwrap_or_default();
    let data_from = spec.data_from.unwrap_or_default();

    // A mirror reads one vault, an ExternalSecret any number; several mirrors may fill one Secret.
    let mut by_store: BTreeMap<StoreName, (Vec<DataEntry>, Vec<DataSource>)> = BTreeMap::new();
    let spec_target = spec.target.unwrap_or_default();
    let taken_apart = takes_apart(&spec_target, &data);
    let mut foreign = Vec::new();
    for data in &data {
        let Some(name) = source(&data.source_ref, resource).or(default.clone()) else {
            findings.not_converted(format_args!(
                "no store is named for key {:?}",
                data.secret_key
            ));
            continue;
        };
        if stores.is_of_another_provider(&name) {
            foreign.push(name);
            continue;
        }
        let (entries, sources) = by_store.entry(name).or_default();
        if taken_apart {
            let object = object(&mut findings, &data.remote_ref);
            let certificate = |(_, object)| {
                wish::certificate(&mut findings, object, CertificateKind::Certificate, None)
            };
            sources.extend(object.map(certificate));
        } else {
            entries.extend(entry(&mut findings, data));
        }
    }
    for data in &data_from {
        match source(&data.source_ref, resource).or(default.clone()) {
            Some(name) if stores.is_of_another_provider(&name) => foreign.push(name),
            Some(name) => {
                let (_, sources) = by_store.entry(name).or_default();
                sources.extend(many(&mut findings, data));
            }
            None => findings.not_converted("no store is named for an entry of dataFrom"),
        }
    }
    if !foreign.is_empty() && by_store.is_empty() && !findings.forbid() {
        // Nothing of it is from a Key Vault.
        return Outcome::default();
    }
    for name in foreign {
        findings.not_converted(format_args!("{name} is of another provider than azurekv"));
    }
    if data.is_empty() && data_from.is_empty() {
        findings.not_converted("it has neither data nor dataFrom");
    }
    let Some(target) = target(&mut findings, resource, spec_target, taken_apart) else {
        return Outcome::nothing(findings);
    };
    let interval = interval(
        &mut findings,
        spec.refresh_policy.as_deref(),
        spec.refresh_interval,
    );

    if target.template.is_some() && by_store.len() > 1 {
        findings.not_converted("a template over keys of several vaults");
    }

    let mut wishes = Vec::new();
    let is_sole = by_store.len() == 1;
    for (name, (entries, sources)) in by_store {
        let Some(Store { vault, reader }) = findings.take(stores.get(&name)).cloned() else {
            continue;
        };
        let mut spec = wish::spec(vault, entries, sources, target.secret.clone());
        spec.template.clone_from(&target.template);
        spec.deletion_policy = target.deletion_policy;
        spec.missing_policy = target.missing_policy;
        if target.immutable && is_sole && render::is_pinned(&spec) {
            spec.target.immutable = true;
        } else if target.immutable {
            findings.differs(Gap::Immutable);
        }
        spec.refresh_interval.clone_from(&interval);
        let reader = match reader {
            Reader::Grant(identity) => identity,
            Reader::ServiceAccount(service_account_name) => {
                let own = super::grants::mirrors_own(&service_account_name);
                spec.identity = Some(MirrorIdentity {
                    service_account_name,
                });
                Some(own)
            }
        };
        wishes.push(Wish {
            subject: resource.to_string(),
            namespace: resource.namespace.clone(),
            name: resource.name.clone(),
            reader,
            spec,
        });
    }
    Outcome::of(findings, wishes)
}

fn store_name(store: &StoreRef, resource: &Resource) -> StoreName {
    let name = store.name.clone().unwrap_or_default();
    match store.kind.as_deref() {
        Some("ClusterSecretStore") => StoreName::Cluster(name),
        _ => StoreName::Namespaced(resource.namespace.clone(), name),
    }
}

fn source(source: &Option<SourceRef>, resource: &Resource) -> Option<StoreName> {
    let store = source.as_ref()?.store_ref.as_ref()?;
    Some(store_name(store, resource))
}

/// What External Secrets calls an object: `secret/name`, `cert/name`, `key/name` or, for a secret, the name alone
/// (<https://external-secrets.io/latest/provider/azure-key-vault/#object-types>).
fn object<'a>(findings: &mut Findings, remote: &'a RemoteRef) -> Option<(ObjectKind, Pinned<'a>)> {
    let pinned = |name| Pinned {
        name,
        version: &remote.version,
    };
    if remote.metadata_policy.as_deref() == Some("Fetch") {
        findings.not_converted(Gap::Tags(remote.key.clone()));
    }
    match remote.key.split_once('/') {
        None => Some((ObjectKind::Secret, pinned(&remote.key))),
        Some(("secret", name)) => Some((ObjectKind::Secret, pinned(name))),
        Some(("key", name)) => Some((ObjectKind::Key, pinned(name))),
        Some(("cert", name)) => {
            findings.not_converted(Gap::RawCertificate(name.to_owned()));
            None
        }
        Some((other, _)) => {
            findings.not_converted(format_args!("{other:?} is not a type of vault objects"));
            None
        }
    }
}

fn entry(findings: &mut Findings, data: &Data) -> Option<DataEntry> {
    let remote = &data.remote_ref;
    if data
        .source_ref
        .as_ref()
        .is_some_and(|source| source.generator_ref.is_some())
    {
        findings.not_converted(format_args!(
            "key {:?} is from a generator",
            data.secret_key
        ));
    }
    let (kind, pinned) = object(findings, remote)?;
    let mut entry = wish::entry(findings, &data.secret_key, kind, pinned);
    if kind == ObjectKind::Key {
        entry.object.format = Some(KeyFormat::Jwk);
    } else if !remote.property.is_empty() {
        entry.object.property = Some(property(findings, &remote.property));
    }
    match remote.decoding_strategy.as_deref() {
        None | Some("" | "None") => {}
        Some("Base64") => entry.transforms.push(Transform::Base64Decode),
        Some(other) => {
            let name = &remote.key;
            findings.not_converted(Gap::Encoding(format!(
                "decodingStrategy {other:?} of {name:?}"
            )));
        }
    }
    Some(entry)
}

/// External Secrets takes paths of GJSON, of which names with dots between are the part that mirrors take too.
fn property(findings: &mut Findings, path: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    if !path.chars().all(plain) {
        findings.not_converted(Gap::Property(path.to_owned()));
    }
    path.to_owned()
}

/// What fills several keys.
fn many(findings: &mut Findings, data: &DataFrom) -> Option<DataSource> {
    let rewrite = data.rewrite.as_deref().unwrap_or_default();
    if let Some(find) = &data.find {
        return found(findings, find, rewrite);
    }
    if !rewrite.is_empty() {
        findings.not_converted(Gap::Rewrite);
    }
    let Some(remote) = &data.extract else {
        if data.key.is_some() {
            findings.not_converted("an entry of dataFrom as v1alpha1 has it; write it as extract");
        } else {
            findings.not_converted("an entry of dataFrom is from a generator");
        }
        return None;
    };
    if !remote.property.is_empty() {
        findings.not_converted(Gap::Property(remote.property.clone()));
    }
    if let Some(other) = remote
        .decoding_strategy
        .as_deref()
        .filter(|name| *name != "None")
    {
        let name = &remote.key;
        findings.not_converted(Gap::Encoding(format!(
            "decodingStrategy {other:?} of {name:?}"
        )));
    }
    let (kind, pinned) = object(findings, remote)?;
    if kind != ObjectKind::Secret {
        findings.not_converted(format_args!(
            "{:?} is not a secret with several values",
            remote.key
        ));
    }
    Some(wish::expand(findings, pinned, ExpandFormat::Json))
}

/// Secrets that are found by name or tag.
fn found(findings: &mut Findings, find: &Find, rewrite: &[Rewrite]) -> Option<DataSource> {
    if find.path.as_ref().is_some_and(|path| !path.is_empty()) {
        findings.not_converted("objects found by path, which a Key Vault does not have");
    }
    if let Some(other) = find
        .decoding_strategy
        .as_deref()
        .filter(|name| *name != "None")
    {
        findings.not_converted(Gap::Encoding(format!(
            "decodingStrategy {other:?} of what is found"
        )));
    }
    let regexp = find.name.as_ref().map(|name| name.regexp.as_str());
    let regexp = regexp.filter(|regexp| !regexp.is_empty());
    let rename = match (rewrite, regexp) {
        ([], _) => None,
        (
            [
                Rewrite {
                    regexp: Some(RewriteRegexp { source, target }),
                    ..
                },
            ],
            Some(regexp),
        ) if source == regexp => name_pattern::rename(source, target),
        _ => None,
    };
    if rename.is_none() && !rewrite.is_empty() {
        findings.not_converted(Gap::Rewrite);
    }
    let pattern = regexp.map(name_pattern::whole);
    if let Some(pattern) = pattern.as_deref().filter(|p| !name_pattern::is_valid(p)) {
        findings.not_converted(format_args!("{pattern:?} is no regular expression"));
    }
    let is_all = pattern.is_none() && find.tags.is_empty();
    let matching = Match {
        name_pattern: pattern.or_else(|| is_all.then(|| ".*".to_owned())),
        tags: find.tags.clone(),
        rename,
    };
    Some(DataSource {
        certificate: None,
        expand: None,
        matching: Some(matching),
        basic_auth: None,
        docker_config: None,
    })
}

/// Whether the template makes `tls.crt` and `tls.key` of the one object, in the words of External Secrets' own documentation
/// (<https://external-secrets.io/latest/provider/azure-key-vault/#creating-external-secret>), and nothing else.
fn takes_apart(target: &Target, data: &[Data]) -> bool {
    let ([only], Some(template)) = (data, &target.template) else {
        return false;
    };
    let plain = only.remote_ref.property.is_empty()
        && !only.remote_ref.key.starts_with("key/")
        && matches!(
            only.remote_ref.decoding_strategy.as_deref(),
            None | Some("None")
        );
    let is = |key: &str, function: &str| {
        let words = template
            .data
            .get(key)
            .map(|text| text.split_whitespace().collect::<String>());
        words == Some(format!("{{{{.{}|b64dec|{function}}}}}", only.secret_key))
    };
    plain && template.data.len() == 2 && is("tls.crt", "pkcs12cert") && is("tls.key", "pkcs12key")
}

struct Converted {
    secret: api::Target,
    template: Option<api::Template>,
    deletion_policy: DeletionPolicy,
    missing_policy: MissingPolicy,
    immutable: bool,
}

/// The Secret, or nothing where there is none to be.
fn target(
    findings: &mut Findings,
    resource: &Resource,
    target: Target,
    taken_apart: bool,
) -> Option<Converted> {
    let name = target.name.unwrap_or_else(|| resource.name.clone());
    let deletion_policy = match target.creation_policy.as_deref() {
        None | Some("" | "Owner") => DeletionPolicy::Delete,
        Some("Orphan") => DeletionPolicy::Retain,
        Some("Merge") => {
            findings.not_converted(Gap::AdoptedSecret(name));
            return None;
        }
        Some("None") => {
            findings.by_hand(
                "its creationPolicy is None: it writes no Secret, and there is nothing to mirror",
            );
            return None;
        }
        Some(other) => {
            findings.not_converted(format_args!("its creationPolicy {other:?} is not known"));
            return None;
        }
    };
    let missing_policy = match target.deletion_policy.as_deref() {
        Some("Merge") => MissingPolicy::Remove,
        Some("Delete") => {
            findings.differs(Gap::EmptySecret);
            MissingPolicy::Remove
        }
        _ => MissingPolicy::Keep,
    };
    let immutable = target.immutable;
    let mut rendered = None;
    // With a template, the ExternalSecret's own labels and annotations are not put on the Secret.
    let secret = match target.template {
        None => wish::target(findings, &name, "", &resource.labels, &resource.annotations),
        Some(template) => {
            let metadata = &template.metadata;
            let mut values = metadata
                .labels
                .values()
                .chain(metadata.annotations.values());
            let is_template = values.any(|value| value.contains("{{"));
            let is_data = !taken_apart && !template.data.is_empty();
            if is_data {
                rendered = jinja(&template);
            }
            if is_template || is_data && rendered.is_none() || !template.template_from.is_empty() {
                findings.not_converted(Gap::Template);
            }
            wish::target(
                findings,
                &name,
                &template.type_,
                &metadata.labels,
                &metadata.annotations,
            )
        }
    };
    Some(Converted {
        secret,
        template: rendered,
        deletion_policy,
        missing_policy,
        immutable,
    })
}

/// The template as a mirror has it, if it can be told in Jinja.
fn jinja(template: &Template) -> Option<api::Template> {
    let merge_policy = match template.merge_policy.as_deref() {
        None | Some("" | "Replace") => MergePolicy::Replace,
        Some("Merge") => MergePolicy::Merge,
        Some(_) => return None,
    };
    if !matches!(template.engine_version.as_deref(), None | Some("" | "v2")) {
        return None;
    }
    let text = |(key, text): (&String, &String)| Some((key.clone(), go_template::jinja(text)?));
    let data = template.data.iter().map(text).collect::<Option<_>>()?;
    let converted = api::Template { merge_policy, data };
    render::check_template(&converted)
        .is_ok()
        .then_some(converted)
}

/// How often the vault is asked. External Secrets asks every hour if nothing is said.
fn interval(findings: &mut Findings, policy: Option<&str>, interval: Option<String>) -> String {
    let interval = interval.unwrap_or_else(|| "1h".to_owned());
    if matches!(policy, Some("CreatedOnce" | "OnChange")) {
        findings.differs(Gap::Once);
        return "1h".to_owned();
    }
    // Go's `0` has no unit.
    let parsed = if interval == "0" {
        Ok(SignedDuration::ZERO)
    } else {
        interval.parse()
    };
    match parsed {
        Ok(duration) if duration.is_zero() => {
            findings.differs(Gap::Once);
            "1h".to_owned()
        }
        Ok(duration) => in_hours(duration.max(SHORTEST)),
        Err(_) => {
            findings.not_converted(format_args!("refreshInterval {interval:?} is no duration"));
            String::new()
        }
    }
}

/// As the API takes it: hours, minutes and seconds, each at most once.
pub(super) fn in_hours(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().min(999_999 * 3600);
    let parts = [
        (seconds / 3600, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ];
    let given = parts.into_iter().filter(|(count, _)| *count > 0);
    given
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect()
}
