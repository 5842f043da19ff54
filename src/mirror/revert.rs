//! Going back to the version before, where a rollout to the vault's version has failed: a function of what the record on the target
//! says, what is asked for, what the mirror wants and what the vault has. Pure.
//!
//! The record is all the memory there is. Of content that was gone back to it says which version failed, and the content stays for as long as
//! the vault has that one; of other content it says which version came before. So a version of the vault is gone back from once,
//! whichever daemon looks, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::record::{self, KeyRecord, Record};
use super::revert_requests::RevertRequest;
use crate::render::{RenderError, Source};
use crate::vault::{Found, ReadKey, VaultError, VaultHost, VaultSecret};

/// A source that is to be mirrored in the version before the vault's.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Step {
    /// Its place among the mirror's sources.
    place: usize,
    /// The vault object, as records have it.
    pub object: String,
    /// The vault's version, whose rollout failed.
    pub failed: String,
    /// The version before.
    pub to: String,
}

/// Why content stays whose rollout has failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CannotRevert {
    #[error("{object} is at the version before already")]
    Twice { object: String },
    #[error("the mirror's spec asks for a version of {object}")]
    Pinned { object: String },
    #[error("what was rolled out is made of several objects: {objects}")]
    Several { objects: String },
    #[error("no version of {object} before {version} is known")]
    Unknown { object: String, version: String },
    #[error("version {version} of {object} has expired, at {expires}")]
    Expired {
        object: String,
        version: String,
        expires: Timestamp,
    },
    #[error("the version before can't be read: {0}")]
    Unreadable(VaultError),
    #[error("the version before can't be used: {0}")]
    Unusable(RenderError),
    #[error("the version before of {object} is not what the Pods had")]
    NeverUsed { object: String },
}

/// The versions before the vault's that a mirror's sources have gone back to, or are to, as far as they are known before anything is
/// read.
#[derive(Clone, Debug, Default)]
pub struct PriorVersions {
    /// Gone back to already.
    gone: Vec<Step>,
    /// Those of them whose version can't be read, and why.
    lost: Vec<(Step, VaultError)>,
    asked: Vec<Step>,
    /// By key of the target, digests of contents that Pods had.
    had: BTreeMap<String, BTreeSet<String>>,
    because: Option<String>,
    refusal: Option<CannotRevert>,
}

/// What is gone back to, given what the vault has.
#[derive(Clone, Debug, Default)]
pub struct Reverted {
    gone: Vec<(Step, Arc<VaultSecret>)>,
    asked: Vec<(Step, Arc<VaultSecret>)>,
    had: BTreeMap<String, BTreeSet<String>>,
    /// What asked for it.
    pub because: Option<String>,
    /// Why what is asked for isn't done.
    pub refusal: Option<Box<CannotRevert>>,
}

impl PriorVersions {
    /// Those that the record and the requests (by key of the target) name.
    pub fn of(
        vault: &VaultHost,
        sources: &[Source],
        record: Option<&Record>,
        requests: &[(String, RevertRequest)],
    ) -> Self {
        let mut prior = Self::default();
        let Some(record) = record else { return prior };
        let keys = record.keys.values();
        let gone =
            keys.filter_map(|key| Some((&*key.object, (&**key.failed.as_ref()?, &*key.version))));
        prior.gone = steps(vault, sources, &gone.collect());
        let mut asked = BTreeMap::new();
        for (key, request) in requests {
            let known = record.keys.get(key);
            let is_it = |known: &&KeyRecord| {
                record.digest_key == request.digest_key && known.digest == request.failed
            };
            let Some(known) = known.filter(is_it) else {
                continue;
            };
            prior.because = Some(request.because.clone());
            match before(vault, sources, known) {
                Ok(before) => {
                    asked.insert(&*known.object, (&*known.version, before));
                    let had = prior.had.entry(key.clone()).or_default();
                    had.extend(request.before.clone());
                }
                Err(refusal) => prior.refusal = Some(refusal),
            }
        }
        // All of it or nothing: contents that belong together stay together.
        if prior.refusal.is_none() {
            prior.asked = steps(vault, sources, &asked);
        }
        prior
    }

    /// The reads of the versions before, beside those of the sources.
    pub fn reads(&self, sources: &[ReadKey]) -> Vec<ReadKey> {
        let steps = self.gone.iter().chain(&self.asked);
        steps.map(|step| earlier(step, sources)).collect()
    }

    /// Takes in which reads have failed for good, and drops those from `lost` that are of no interest.
    pub fn lose(&mut self, sources: &[ReadKey], lost: &mut BTreeMap<ReadKey, VaultError>) {
        if lost.is_empty() {
            return;
        }
        let reads = self.reads(sources);
        lost.retain(|read, _| reads.contains(read));
        let error = |step: &Step| lost.get(&earlier(step, sources)).cloned();
        self.gone.retain(|step| {
            let error = error(step);
            let is_there = error.is_none();
            self.lost.extend(error.map(|error| (step.clone(), error)));
            is_there
        });
        if let Some(error) = self.asked.iter().find_map(error) {
            self.refusal = Some(CannotRevert::Unreadable(error));
            self.asked.clear();
        }
    }

    /// Which are gone, given what was found of the sources and, after that, of [`Self::reads`], which all have content: the others
    /// are [lost](Self::lose).
    ///
    /// # Errors
    ///
    /// A version that was gone back to can't be read any more.
    pub fn open(
        self,
        sources: usize,
        found: &[Found],
        now: Timestamp,
    ) -> Result<Reverted, VaultError> {
        let (current, earlier) = found.split_at(sources.min(found.len()));
        // Where the vault has another version, that is the one to have.
        let holds = |step: &Step| {
            let current = current.get(step.place).and_then(|it| it.as_ref().ok());
            current.is_some_and(|current| current.version == step.failed)
        };
        let mut reverted = Reverted {
            had: self.had,
            because: self.because,
            refusal: self.refusal.map(Box::new),
            ..Reverted::default()
        };
        if let Some((_, error)) = self.lost.into_iter().find(|(step, _)| holds(step)) {
            return Err(error);
        }
        let mut earlier = earlier.iter().flatten().cloned();
        let gone = self.gone.into_iter().zip(earlier.by_ref());
        reverted.gone = gone.filter(|(step, _)| holds(step)).collect();
        let asked: Vec<_> = self.asked.into_iter().zip(earlier).collect();
        let expired = |(step, secret): &(Step, Arc<VaultSecret>)| {
            let expires = secret.expires.filter(|expires| *expires <= now)?;
            Some(CannotRevert::Expired {
                object: step.object.clone(),
                version: step.to.clone(),
                expires,
            })
        };
        match asked.iter().find_map(expired) {
            _ if !asked.iter().all(|(step, _)| holds(step)) => {}
            Some(refusal) => reverted.refusal = Some(Box::new(refusal)),
            None => reverted.asked = asked,
        }
        Ok(reverted)
    }
}

impl Reverted {
    /// What the mirror goes by of its sources.
    pub fn found(&self, sources: usize, found: &[Found]) -> Vec<Found> {
        let mut found: Vec<_> = found.iter().take(sources).cloned().collect();
        for (step, secret) in self.gone.iter().chain(&self.asked) {
            if let Some(found) = found.get_mut(step.place) {
                *found = Ok(Arc::clone(secret));
            }
        }
        found
    }

    /// The vault's version of an object, where this version of it is one that was gone back to.
    pub fn failed(&self, object: &str, version: &str) -> Option<&str> {
        let mut steps = self.steps();
        let step = steps.find(|step| step.object == object && step.to == version)?;
        Some(&step.failed)
    }

    /// Whether what is asked for would be a way back to what Pods had.
    pub fn check(&self, contents: &BTreeMap<String, record::Content>) -> Result<(), CannotRevert> {
        if self.asked.is_empty() {
            return Ok(());
        }
        let is_other = |(key, had): &(&String, &BTreeSet<String>)| {
            let content = contents.get(*key);
            !content.is_some_and(|content| had.contains(&content.digest))
        };
        match self.had.iter().find(is_other) {
            None => Ok(()),
            Some((key, _)) => Err(CannotRevert::NeverUsed {
                object: contents
                    .get(key)
                    .map_or_else(|| key.clone(), |content| content.object.clone()),
            }),
        }
    }

    /// Whether something is gone back to that was not before.
    pub fn is_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Leaves what is asked for undone.
    pub fn refuse(&mut self, refusal: CannotRevert) {
        self.asked.clear();
        self.refusal = Some(Box::new(refusal));
    }

    /// One that is gone.
    #[cfg(test)]
    pub fn to(object: &str, to: &str, failed: &str) -> Self {
        let secret = VaultSecret {
            value: Vec::new().into(),
            version: to.into(),
            updated: None,
            not_before: None,
            expires: None,
        };
        let step = Step {
            place: 0,
            object: object.into(),
            failed: failed.into(),
            to: to.into(),
        };
        Self {
            gone: vec![(step, Arc::new(secret))],
            ..Self::default()
        }
    }

    /// All that are gone.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.gone.iter().chain(&self.asked).map(|(step, _)| step)
    }
}

/// The version before that of a key.
fn before<'a>(
    vault: &VaultHost,
    sources: &[Source],
    known: &'a KeyRecord,
) -> Result<&'a str, CannotRevert> {
    let object = || known.object.clone();
    if known.failed.is_some() {
        return Err(CannotRevert::Twice { object: object() });
    }
    if record::is_of_several(&known.object) {
        return Err(CannotRevert::Several { objects: object() });
    }
    let mut own = sources
        .iter()
        .filter(|source| record::object(vault, source.kind, &source.name) == known.object);
    if own.any(|source| source.version.is_some()) {
        return Err(CannotRevert::Pinned { object: object() });
    }
    known
        .previous
        .as_deref()
        .ok_or_else(|| CannotRevert::Unknown {
            object: object(),
            version: known.version.clone(),
        })
}

/// The steps of all sources of some objects, given by the version that failed and the one before. A version that the mirror asks for
/// is what it gets.
fn steps(
    vault: &VaultHost,
    sources: &[Source],
    objects: &BTreeMap<&str, (&str, &str)>,
) -> Vec<Step> {
    if objects.is_empty() {
        return Vec::new();
    }
    let sources = sources.iter().enumerate();
    sources
        .filter(|(_, source)| source.version.is_none())
        .filter_map(|(place, source)| {
            let object = record::object(vault, source.kind, &source.name);
            let (failed, to) = objects.get(&*object)?;
            Some(Step {
                place,
                object,
                failed: (*failed).to_owned(),
                to: (*to).to_owned(),
            })
        })
        .collect()
}

fn earlier(step: &Step, sources: &[ReadKey]) -> ReadKey {
    ReadKey {
        version: Some(step.to.clone()),
        ..sources[step.place].clone()
    }
}

#[cfg(test)]
#[path = "revert_tests.rs"]
mod tests;
