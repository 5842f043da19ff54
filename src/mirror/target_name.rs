//! Which object of a namespace a target is.

use std::fmt;

use crate::api::{self, TargetKind};

/// A Secret or ConfigMap of the mirror's namespace. Written as in a sentence: `Secret adopat`.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct TargetName {
    pub kind: TargetKind,
    pub name: String,
}

impl TargetName {
    /// The target of a mirror's spec.
    pub fn of(target: &api::Target) -> Self {
        Self::new(target.kind, &target.name)
    }

    pub fn new(kind: TargetKind, name: &str) -> Self {
        Self {
            kind,
            name: name.to_owned(),
        }
    }

    /// As arguments of kubectl: `secret adopat`.
    pub fn as_arguments(&self) -> String {
        format!("{} {}", self.kind.as_str().to_lowercase(), self.name)
    }
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_said_and_typed() {
        let target = TargetName::new(TargetKind::ConfigMap, "t");
        assert_eq!(target.to_string(), "ConfigMap t");
        assert_eq!(target.as_arguments(), "configmap t");
        assert_eq!(
            TargetName::new(TargetKind::Secret, "t").to_string(),
            "Secret t"
        );
    }
}
