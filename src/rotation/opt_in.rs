//! Whether a workload wants to be rolled, and for which Secrets and ConfigMaps. Pure.

use std::collections::BTreeSet;
use std::fmt;

use super::reference::{Reference, Source, SourceKind, Via};
use super::workload::Workload;

/// Annotation of a workload, or of a Namespace for the workloads in it: `"true"`, `"false"`, or names, separated by commas.
pub const ROTATE: &str = "keytide.dev/rotate";

/// The annotations of Stakater's Reloader (<https://github.com/stakater/Reloader#how-to-use-reloader>).
pub const RELOADER_AUTO: &str = "reloader.stakater.com/auto";
pub const RELOADER_SECRETS: &str = "secret.reloader.stakater.com/reload";
pub const RELOADER_CONFIG_MAPS: &str = "configmap.reloader.stakater.com/reload";
/// The annotation of wave (<https://github.com/wave-k8s/wave#usage>).
const WAVE: &str = "wave.pusher.com/update-on-config-change";

/// The annotations of others that say the same.
pub const COMPATIBLE: [&str; 4] = [RELOADER_AUTO, RELOADER_SECRETS, RELOADER_CONFIG_MAPS, WAVE];

/// What a workload wants.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum OptIn {
    #[default]
    No,
    /// For all that the Pod template uses, but not for what its image is pulled with.
    All,
    /// For these only.
    Named(BTreeSet<Name>),
    /// For these only, as far as the Pod template uses them: a Namespace can't know what each workload in it reads.
    Among(BTreeSet<Name>),
}

/// A name in the annotation: `name`, which may be that of a Secret and of a ConfigMap, `secret/name` or `configmap/name`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Name {
    kind: Option<SourceKind>,
    name: String,
}

/// Where a workload's wish may be written, besides its own annotation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context<'a> {
    /// The annotation of its Namespace.
    pub namespace: Option<&'a str>,
    /// Whether the annotations of Reloader and wave are honoured.
    pub compatibility: bool,
}

/// A name in the annotation that nothing goes by, so that it would silently never roll.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{ROTATE} names {name}, which {filler} (the Pod template uses: {used})")]
pub struct Typo {
    name: Name,
    filler: &'static str,
    used: String,
}

impl OptIn {
    /// What a workload wants: its own annotation says so, else those of others, else its Namespace. What something else made is
    /// left alone unless it says so itself: its maker may undo what is written on it.
    pub fn of(workload: &Workload, context: Context<'_>) -> Self {
        if let Some(own) = workload.annotation(ROTATE) {
            return Self::parse(own);
        }
        let theirs = context.compatibility.then(|| Self::compatible(workload));
        match (theirs.flatten(), context.namespace) {
            (Some(theirs), _) => theirs,
            (None, Some(default)) if !workload.controlled => match Self::parse(default) {
                Self::Named(names) => Self::Among(names),
                other => other,
            },
            _ => Self::No,
        }
    }

    /// Reads the annotation's value.
    pub fn parse(value: &str) -> Self {
        match value.trim() {
            "" | "false" => Self::No,
            "true" => Self::All,
            names => Self::Named(split(names).map(Name::parse).collect()),
        }
    }

    /// What the annotations of Reloader and wave say, if there are any.
    fn compatible(workload: &Workload) -> Option<Self> {
        let says = |name| workload.annotation(name).map(str::trim);
        if says(RELOADER_AUTO) == Some("true") || says(WAVE) == Some("true") {
            return Some(Self::All);
        }
        let named = |annotation, kind| {
            let names = says(annotation).into_iter().flat_map(split);
            names.map(move |name| Name {
                kind: Some(kind),
                name: name.to_owned(),
            })
        };
        let secrets = named(RELOADER_SECRETS, SourceKind::Secret);
        let names: BTreeSet<Name> = secrets
            .chain(named(RELOADER_CONFIG_MAPS, SourceKind::ConfigMap))
            .collect();
        if !names.is_empty() {
            return Some(Self::Named(names));
        }
        (says(RELOADER_AUTO) == Some("false")).then_some(Self::No)
    }

    /// What a workload is rolled for: what its Pod template uses and is meant, and what is named and the template doesn't mention.
    pub fn wanted(&self, used: &BTreeSet<Reference>) -> BTreeSet<Reference> {
        let meant = used.iter().filter(|it| self.includes(it)).cloned();
        meant.chain(self.not_mentioned(used)).collect()
    }

    fn includes(&self, reference: &Reference) -> bool {
        match self {
            Self::No => false,
            Self::All => reference.via != Via::ImagePull,
            Self::Named(names) | Self::Among(names) => {
                names.iter().any(|name| name.means(&reference.source))
            }
        }
    }

    /// What an application may read by other ways than its Pod template.
    fn not_mentioned(&self, used: &BTreeSet<Reference>) -> impl Iterator<Item = Reference> {
        let names = match self {
            Self::Named(names) => Some(names),
            _ => None,
        };
        let names = names.into_iter().flatten();
        names
            .filter(|name| !used.iter().any(|it| name.means(&it.source)))
            .map(Name::source)
            .map(Reference::to_whole)
    }

    /// Names that nothing goes by, given what the Pod template uses and what there is. `filler` says what is missing, after *which*.
    pub fn typos(
        &self,
        used: &BTreeSet<Reference>,
        there: &BTreeSet<&Source>,
        filler: &'static str,
    ) -> Vec<Typo> {
        let Self::Named(names) = self else {
            return Vec::new();
        };
        let used: BTreeSet<String> = used.iter().map(|it| it.source.to_string()).collect();
        let used: Vec<String> = used.into_iter().collect();
        names
            .iter()
            .filter(|name| !there.iter().any(|source| name.means(source)))
            .map(|name| Typo {
                name: name.clone(),
                filler,
                used: used.join(", "),
            })
            .collect()
    }
}

fn split(names: &str) -> impl Iterator<Item = &str> {
    names
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

impl Name {
    fn parse(text: &str) -> Self {
        let (kind, name) = match text.split_once('/') {
            Some(("secret", name)) => (Some(SourceKind::Secret), name),
            Some(("configmap", name)) => (Some(SourceKind::ConfigMap), name),
            _ => (None, text),
        };
        Self {
            kind,
            name: name.to_owned(),
        }
    }

    fn means(&self, source: &Source) -> bool {
        self.name == source.name && self.kind.is_none_or(|kind| kind == source.kind)
    }

    /// What it means where nothing says otherwise.
    fn source(&self) -> Source {
        Source {
            kind: self.kind.unwrap_or(SourceKind::Secret),
            name: self.name.clone(),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Some(kind) => write!(f, "{kind} {}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::{Value, json};

    use super::*;

    fn workload(annotations: Value, controlled: bool) -> Workload {
        let owner = json!([{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "u", "controller": controlled}]);
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": "d", "annotations": annotations, "ownerReferences": owner},
        }))
        .expect("a Deployment");
        deployment.into()
    }

    fn used() -> BTreeSet<Reference> {
        let by = |source, via| Reference {
            container: Some("c".into()),
            source,
            key: None,
            optional: false,
            via,
        };
        BTreeSet::from([
            by(Source::secret("a"), Via::Environment),
            by(Source::config_map("a"), Via::Volume),
            by(Source::secret("b"), Via::Environment),
            by(Source::secret("pull"), Via::ImagePull),
        ])
    }

    fn wanted(opt_in: &OptIn) -> Vec<String> {
        let wanted = opt_in.wanted(&used());
        wanted.iter().map(|it| it.source.to_string()).collect()
    }

    #[test]
    fn true_is_everything_that_containers_use() {
        assert_eq!(wanted(&OptIn::parse("true")), ["a", "b", "configmap/a"]);
        assert!(wanted(&OptIn::parse("false")).is_empty());
        assert!(wanted(&OptIn::parse("")).is_empty());
    }

    #[test]
    fn names_are_what_they_say_also_what_the_template_does_not_mention() {
        assert_eq!(wanted(&OptIn::parse("a")), ["a", "configmap/a"]);
        assert_eq!(wanted(&OptIn::parse("secret/a,")), ["a"]);
        assert_eq!(
            wanted(&OptIn::parse("configmap/a, b")),
            ["b", "configmap/a"]
        );
        let elsewhere = OptIn::parse("read-by-the-api, configmap/too");
        assert_eq!(wanted(&elsewhere), ["read-by-the-api", "configmap/too"]);
        assert_eq!(wanted(&OptIn::parse("pull")), ["pull"], "on request");
    }

    #[test]
    fn a_namespace_is_the_default_for_what_is_in_it() {
        let of = |annotations, controlled, namespace| {
            let context = Context {
                namespace: Some(namespace),
                compatibility: false,
            };
            OptIn::of(&workload(annotations, controlled), context)
        };
        assert_eq!(of(json!({}), false, "true"), OptIn::All);
        assert_eq!(of(json!({}), false, "false"), OptIn::No);
        assert_eq!(of(json!({ROTATE: "false"}), false, "true"), OptIn::No);
        assert_eq!(
            of(json!({}), true, "true"),
            OptIn::No,
            "its maker may undo it"
        );
        assert_eq!(of(json!({ROTATE: "true"}), true, "true"), OptIn::All);
        let among = of(json!({}), false, "a, unknown");
        assert_eq!(wanted(&among), ["a", "configmap/a"]);
        assert!(
            among
                .typos(&used(), &BTreeSet::new(), "is not there")
                .is_empty()
        );
    }

    #[test]
    fn annotations_of_reloader_and_wave_count_where_they_are_honoured() {
        let of = |annotations: &Value, compatibility| {
            let context = Context {
                namespace: None,
                compatibility,
            };
            OptIn::of(&workload(annotations.clone(), false), context)
        };
        for (annotations, expected) in [
            (json!({RELOADER_AUTO: "true"}), "true"),
            (
                json!({RELOADER_AUTO: "true", RELOADER_SECRETS: "b"}),
                "true",
            ),
            (json!({WAVE: "true"}), "true"),
            (json!({RELOADER_SECRETS: "a, b"}), "secret/a,secret/b"),
            (json!({RELOADER_CONFIG_MAPS: "a"}), "configmap/a"),
            (
                json!({RELOADER_SECRETS: "b", RELOADER_CONFIG_MAPS: "a"}),
                "secret/b,configmap/a",
            ),
            (json!({RELOADER_AUTO: "false", WAVE: "false"}), "false"),
            (json!({RELOADER_AUTO: "true", ROTATE: "b"}), "b"),
        ] {
            assert_eq!(
                of(&annotations, true),
                OptIn::parse(expected),
                "{annotations}"
            );
            if annotations.get(ROTATE).is_none() {
                assert_eq!(of(&annotations, false), OptIn::No, "{annotations}");
            }
        }
    }

    #[test]
    fn names_that_nothing_goes_by_are_told() {
        let there = [Source::secret("a"), Source::secret("other")];
        let opt_in = OptIn::parse("a,b,other,configmap/c");
        let typos = opt_in.typos(&used(), &there.iter().collect(), "no mirror fills");
        let told: Vec<String> = typos.iter().map(Typo::to_string).collect();
        assert_eq!(told.len(), 2);
        assert!(
            told[0].contains("names b, which no mirror fills"),
            "{told:?}"
        );
        assert!(told[0].contains("a, b, configmap/a, pull"), "{told:?}");
        assert!(told[1].contains("ConfigMap c"), "{told:?}");
    }
}
