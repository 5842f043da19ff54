//! Whether a workload wants to be rolled, and for which Secrets.

use std::collections::BTreeSet;

use super::reference::Source;
use super::workload::Workload;

/// Annotation of a workload: `"true"`, `"false"`, or names of Secrets, separated by commas.
pub const ROTATE: &str = "keytide.dev/rotate";

/// What the annotation says.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum OptIn {
    #[default]
    No,
    /// For all mirrored Secrets that the Pod template refers to.
    All,
    /// For these only.
    Named(BTreeSet<String>),
}

/// A name in the annotation that nothing goes by.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Typo {
    #[error("{ROTATE} names Secret {name}, which the Pod template does not use (it uses: {used})")]
    NotUsed { name: String, used: String },
    #[error("{ROTATE} names Secret {name}, which no KeyVaultMirror fills")]
    NotMirrored { name: String },
}

impl OptIn {
    /// What a workload wants.
    pub fn of(workload: &Workload) -> Self {
        workload
            .annotation(ROTATE)
            .map(Self::parse)
            .unwrap_or_default()
    }

    /// Reads the annotation's value.
    pub fn parse(value: &str) -> Self {
        match value.trim() {
            "" | "false" => Self::No,
            "true" => Self::All,
            names => Self::Named(
                names
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect(),
            ),
        }
    }

    /// Names that nothing goes by and that would silently never roll, given the Secrets that the Pod template uses, and those of
    /// them that are mirrored.
    pub fn typos(&self, used: &BTreeSet<&str>, mirrored: &BTreeSet<&str>) -> Vec<Typo> {
        let Self::Named(names) = self else {
            return Vec::new();
        };
        let typo = |name: &String| match (
            used.contains(name.as_str()),
            mirrored.contains(name.as_str()),
        ) {
            (false, _) => Some(Typo::NotUsed {
                name: name.clone(),
                used: used.iter().copied().collect::<Vec<_>>().join(", "),
            }),
            (true, false) => Some(Typo::NotMirrored { name: name.clone() }),
            (true, true) => None,
        };
        names.iter().filter_map(typo).collect()
    }

    /// Whether a source is meant.
    pub fn includes(&self, source: &Source) -> bool {
        match self {
            Self::No => false,
            Self::All => true,
            Self::Named(names) => names.contains(&source.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nothing_goes_by_are_told() {
        let (used, mirrored) = (BTreeSet::from(["a", "b"]), BTreeSet::from(["a", "c"]));
        let typos = OptIn::parse("a,b,c").typos(&used, &mirrored);
        let told: Vec<String> = typos.iter().map(Typo::to_string).collect();
        assert_eq!(told.len(), 2);
        assert!(
            told[0].contains("Secret b, which no KeyVaultMirror"),
            "{told:?}"
        );
        assert!(
            told[1].contains("Secret c") && told[1].contains("a, b"),
            "{told:?}"
        );
        assert!(OptIn::All.typos(&used, &mirrored).is_empty());
    }

    #[test]
    fn true_is_everything_and_names_are_themselves() {
        assert_eq!(OptIn::parse("true"), OptIn::All);
        assert_eq!(OptIn::parse("false"), OptIn::No);
        assert_eq!(OptIn::parse(""), OptIn::No);
        let named = OptIn::parse("adopat, web-tls,");
        let includes = |name| named.includes(&Source::secret(name));
        assert!(includes("adopat") && includes("web-tls") && !includes("true"));
    }
}
