//! Whether somebody else's Secret may be taken over. Consent is on that Secret itself, where only those can give it who may change
//! it anyway: whoever writes a mirror can't thereby take anything over. Pure.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

/// Annotation of a Secret with the names of the mirrors that may take it over, separated by commas.
pub const ADOPT_BY: &str = "keytide.dev/adopt-by";

/// The API group and kind of akv2k8s' resources.
const AKV2K8S: (&str, &str) = ("spv.no", "AzureKeyVaultSecret");

/// What a mirror was made of.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Origin {
    #[default]
    KeyVaultMirror,
    /// A resource of akv2k8s, which is read in place.
    AzureKeyVaultSecret,
}

/// To whom a Secret consents.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Consent {
    mirrors: BTreeSet<String>,
    /// UIDs of the AzureKeyVaultSecrets that own it: what it was made for is what they say.
    resources: BTreeSet<String>,
}

impl Consent {
    /// Reads the annotation [`ADOPT_BY`], and UIDs that [`resource`] gave.
    pub fn of<'a>(annotation: Option<&str>, resources: impl Iterator<Item = &'a str>) -> Self {
        let names = annotation.unwrap_or_default().split(',').map(str::trim);
        Self {
            mirrors: names
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect(),
            resources: resources.map(str::to_owned).collect(),
        }
    }

    /// Whether the mirror with this name, that was made of what has this UID, may take it over.
    pub fn includes(&self, origin: Origin, name: &str, uid: &str) -> bool {
        match origin {
            Origin::KeyVaultMirror => self.mirrors.contains(name),
            Origin::AzureKeyVaultSecret => self.resources.contains(uid),
        }
    }
}

/// UID of the owner, if that is a resource of akv2k8s.
pub fn resource(owner: &OwnerReference) -> Option<&str> {
    let (group, _) = owner.api_version.split_once('/')?;
    ((group, owner.kind.as_str()) == AKV2K8S).then_some(owner.uid.as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Origin::{AzureKeyVaultSecret, KeyVaultMirror};
    use super::*;

    fn owner(api_version: &str, kind: &str) -> OwnerReference {
        OwnerReference {
            api_version: api_version.into(),
            kind: kind.into(),
            name: "m".into(),
            uid: "u".into(),
            ..OwnerReference::default()
        }
    }

    #[test]
    fn the_annotation_names_mirrors() {
        let consent = Consent::of(Some("m, other,,"), std::iter::empty());
        assert!(consent.includes(KeyVaultMirror, "m", "u"));
        assert!(consent.includes(KeyVaultMirror, "other", "u"));
        for name in ["", "o", "u", "m, other"] {
            assert!(!consent.includes(KeyVaultMirror, name, "u"), "{name}");
        }
        assert_eq!(
            Consent::of(None, std::iter::empty()),
            Consent::default(),
            "none is given by default"
        );
    }

    #[test]
    fn what_a_resource_of_akv2k8s_owns_is_for_the_mirror_of_that_very_resource() {
        for version in ["v1", "v1alpha1", "v2beta1"] {
            let owner = owner(&format!("spv.no/{version}"), "AzureKeyVaultSecret");
            let consent = Consent::of(None, resource(&owner).into_iter());
            assert!(consent.includes(AzureKeyVaultSecret, "m", "u"));
            // Not for one of its name, be it made anew or a mirror of ours.
            assert!(!consent.includes(AzureKeyVaultSecret, "m", "anew"));
            assert!(!consent.includes(KeyVaultMirror, "m", "u"));
        }
        for (version, kind) in [
            ("v1", "AzureKeyVaultSecret"),
            ("spv.no.example.com/v1", "AzureKeyVaultSecret"),
            ("spv.no/v1", "Secret"),
            ("external-secrets.io/v1", "ExternalSecret"),
        ] {
            assert_eq!(resource(&owner(version, kind)), None, "{version} {kind}");
        }
    }

    #[test]
    fn the_annotation_says_nothing_of_resources_of_akv2k8s() {
        let consent = Consent::of(Some("m,u"), std::iter::empty());
        assert!(!consent.includes(AzureKeyVaultSecret, "m", "u"));
    }

    proptest! {
        #[test]
        fn whoever_is_not_named_is_not_included(annotation in ".{0,40}", name in "[a-z0-9.-]{1,10}") {
            let consent = Consent::of(Some(&annotation), std::iter::empty());
            let named = annotation.split(',').any(|part| part.trim() == name);
            prop_assert_eq!(consent.includes(KeyVaultMirror, &name, "u"), named);
        }
    }
}
