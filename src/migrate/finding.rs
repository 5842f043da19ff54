//! What a person has to know beside the manifests.

use std::fmt;

/// Something that the manifests don't have.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// What it is about, such as `ExternalSecret web/db`.
    pub subject: String,
    pub weight: Weight,
    /// A sentence, or a command to run.
    pub text: String,
}

/// What a finding means for the migration.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Weight {
    /// There is no manifest in its place.
    NotConverted,
    /// There is one, which does something else.
    Differs,
    /// All is there, and this is to be done by hand.
    ByHand,
}

impl Weight {
    /// Whether the manifests give less than what they replace.
    pub fn is_loss(self) -> bool {
        self != Self::ByHand
    }
}

/// What mirrors can't do yet that others do: each with one sentence, so that what is built later has one place to be taken
/// out of.
#[derive(Clone, Debug)]
pub(super) enum Gap {
    /// A certificate in DER, or with its key in one value.
    RawCertificate(String),
    Property(String),
    Transform(String),
    Encoding(String),
    Rewrite,
    Template,
    Tags(String),
    Immutable,
    EmptySecret,
    Once,
    AdoptedSecret(String),
    PodIdentity,
    ClientSecret,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RawCertificate(name) => write!(
                f,
                "the certificate {name:?} as it comes, in DER or PFX; mirrors give PEM"
            ),
            Self::Property(property) => write!(
                f,
                "the property {property:?} is more than names with dots between, which is what mirrors take"
            ),
            Self::Transform(name) => write!(f, "the transform {name:?} is not known"),
            Self::Encoding(field) => write!(f, "{field}; mirrors have no transform for it"),
            Self::Rewrite => f.write_str(
                "rewritten keys; mirrors rename what is found by name, by the groups of that one pattern",
            ),
            Self::Template => f.write_str(
                "a template that says more than where keys go and b64enc, b64dec, trim, lower, upper or toJson; write it anew for spec.template",
            ),
            Self::Tags(name) => write!(f, "the tags of {name:?}; mirrors read values"),
            Self::Immutable => f.write_str(
                "the Secret is immutable; that of a mirror is if each of its objects has a version and no other mirror fills it",
            ),
            Self::EmptySecret => f.write_str(
                "the Secret goes when all of its objects are deleted; a mirror with missingPolicy Remove takes the keys out and leaves the Secret",
            ),
            Self::Once => f.write_str("the Secret is written once; a mirror keeps it as the vault is"),
            Self::AdoptedSecret(name) => write!(
                f,
                "the Secret {name:?} is someone else's; write a mirror by hand, and let it take its keys over by keytide.dev/adopt-by on the Secret"
            ),
            Self::PodIdentity => f.write_str(
                "an identity of aad-pod-identity; the grant is for the daemon's own identity: write the identity's client ID into it",
            ),
            Self::ClientSecret => f.write_str(
                "a service principal with a secret of the cluster; the grant is for the daemon's own identity: give the application a \
                 federated credential and write its client ID into the grant",
            ),
        }
    }
}

/// What is found while one Secret is converted.
pub(super) struct Findings {
    subject: String,
    found: Vec<Finding>,
}

impl Findings {
    pub fn about(subject: impl fmt::Display) -> Self {
        Self {
            subject: subject.to_string(),
            found: Vec::new(),
        }
    }

    pub fn not_converted(&mut self, text: impl fmt::Display) {
        self.add(Weight::NotConverted, text);
    }

    pub fn differs(&mut self, text: impl fmt::Display) {
        self.add(Weight::Differs, text);
    }

    pub fn by_hand(&mut self, text: impl fmt::Display) {
        self.add(Weight::ByHand, text);
    }

    fn add(&mut self, weight: Weight, text: impl fmt::Display) {
        self.found.push(Finding {
            subject: self.subject.clone(),
            weight,
            text: text.to_string(),
        });
    }

    /// What a result has, or nothing and its error as a finding.
    pub fn take<T>(&mut self, result: Result<T, impl fmt::Display>) -> Option<T> {
        result.map_err(|error| self.not_converted(error)).ok()
    }

    /// Whether anything stands in the way of a manifest. Half a Secret is none.
    pub fn forbid(&self) -> bool {
        let forbids = |finding: &Finding| finding.weight == Weight::NotConverted;
        self.found.iter().any(forbids)
    }

    pub fn into_vec(self) -> Vec<Finding> {
        self.found
    }
}
