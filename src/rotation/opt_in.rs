//! Whether a workload wants to be rolled, and for which Secrets.

use std::collections::BTreeSet;

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

impl OptIn {
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

    /// Whether a Secret is meant.
    pub fn includes(&self, secret: &str) -> bool {
        match self {
            Self::No => false,
            Self::All => true,
            Self::Named(names) => names.contains(secret),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn true_is_everything_and_names_are_themselves() {
        assert_eq!(OptIn::parse("true"), OptIn::All);
        assert_eq!(OptIn::parse("false"), OptIn::No);
        assert_eq!(OptIn::parse(""), OptIn::No);
        let named = OptIn::parse("adopat, web-tls,");
        assert!(named.includes("adopat") && named.includes("web-tls") && !named.includes("true"));
    }
}
