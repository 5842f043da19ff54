//! Turns `dataFrom[].match` into entries of `data`: which secrets are meant, by their names and tags, and which key each fills. Pure.
//!
//! What a mirror has once matched stays wanted while it isn't found any more, where the mirror keeps what is missing: a list may
//! lag, a new version may have come without its tags, and a secret that is gone may have gone by mistake.

use std::collections::{BTreeMap, BTreeSet};

use regex::{Captures, Regex, RegexBuilder};
use sha2::{Digest, Sha256};

use super::limits::{self, TooManyKeys};
use super::record::Record;
use crate::api::{
    DataEntry, KeyVaultMirrorSpec, Match, MergePolicy, ObjectKind, Template, VaultObject,
};
use crate::render::{inputs, is_key};
use crate::vault::{Listed, VaultHost};

/// Most memory that a pattern may take, in bytes.
const MOST_PATTERN: usize = 1 << 20;

/// Why it can't be said what is matched.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MatchError {
    #[error("namePattern {pattern:?} is no regular expression: {problem}")]
    Pattern { pattern: String, problem: String },
    #[error(
        "rename {0:?} can't be meant so: after a dollar sign comes the number of a group of namePattern, its name in braces, or another dollar sign"
    )]
    Rename(String),
    #[error("rename {rename:?} names group {group}, which namePattern does not have")]
    NoGroup { rename: String, group: String },
    #[error(
        "secret {object} would fill key {key:?}, which a Secret can't have: that has letters, digits, '-', '_' and '.', and 253 characters at most; correct rename"
    )]
    Key { object: String, key: String },
    #[error(
        "secrets {first} and {second} would both fill key {key}; correct rename or namePattern, so that each has a key of its own"
    )]
    Twice {
        key: String,
        first: String,
        second: String,
    },
    #[error(
        "key {key}, which another entry of the mirror gives, is what secret {object} would fill too; leave one of them"
    )]
    Given { key: String, object: String },
    #[error(transparent)]
    TooMany(#[from] TooManyKeys),
}

/// Whether a mirror looks for secrets by name or tag.
pub fn is_in(spec: &KeyVaultMirrorSpec) -> bool {
    matches(spec).next().is_some()
}

/// What tells the wishes of a mirror for secrets by name or tag from other ones, in what is written down of it.
pub fn mark(spec: &KeyVaultMirrorSpec) -> Option<String> {
    let wished: Vec<&Match> = matches(spec).collect();
    if wished.is_empty() {
        return None;
    }
    let digest = Sha256::digest(serde_json::json!(wished).to_string());
    Some(
        digest
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    )
}

fn matches(spec: &KeyVaultMirrorSpec) -> impl Iterator<Item = &Match> {
    spec.data_from
        .iter()
        .filter_map(|from| from.matching.as_ref())
}

/// What a mirror may choose from.
pub struct Found<'a> {
    pub vault: &'a VaultHost,
    /// The secrets that it may read.
    pub secrets: &'a [&'a Listed],
    /// What it has written down on its target.
    pub record: Option<&'a Record>,
    /// Whether a key stays that its secret is not found for any more.
    pub keeps_missing: bool,
}

/// The spec with an entry of `data` in the place of each secret that is matched.
pub fn resolve(
    spec: &KeyVaultMirrorSpec,
    found: &Found<'_>,
) -> Result<KeyVaultMirrorSpec, MatchError> {
    let wished: Vec<Wished> = matches(spec).map(Wished::of).collect::<Result<_, _>>()?;
    let mut matched: BTreeMap<String, &str> = BTreeMap::new();
    for wished in &wished {
        for secret in found.secrets.iter().filter(|secret| secret.enabled) {
            let Some(key) = wished.key(secret) else {
                continue;
            };
            let name = secret.name.as_str();
            if !is_key(&key) {
                let object = name.to_owned();
                return Err(MatchError::Key { object, key });
            }
            match matched.get(&key) {
                Some(other) if !other.eq_ignore_ascii_case(name) => {
                    return Err(MatchError::Twice {
                        first: (*other).to_owned(),
                        second: name.to_owned(),
                        key,
                    });
                }
                _ => matched.insert(key, name),
            };
        }
    }
    let mut resolved = spec.clone();
    resolved.data_from.retain(|from| from.matching.is_none());
    let given: BTreeSet<&str> = inputs(&resolved).into_iter().collect();
    if let Some((key, object)) = matched.iter().find(|(key, _)| given.contains(key.as_str())) {
        return Err(MatchError::Given {
            key: key.clone(),
            object: (*object).to_owned(),
        });
    }
    if found.keeps_missing {
        let missing = missing(spec, found, &wished).filter(|(key, _)| !given.contains(key));
        for (key, name) in missing {
            matched.entry(key.to_owned()).or_insert(name);
        }
    }
    let replaces = |template: &Template| template.merge_policy == MergePolicy::Replace;
    // What a template takes the place of is not written down.
    if !spec.template.as_ref().is_some_and(replaces) {
        limits::check_matched(found.vault, &matched)?;
    }
    let entries = matched.into_iter().map(|(key, name)| entry(key, name));
    resolved.data.extend(entries);
    Ok(resolved)
}

/// Keys that were filled for these same wishes, with their secrets; whatever tags these have now.
fn missing<'a>(
    spec: &KeyVaultMirrorSpec,
    found: &Found<'a>,
    wished: &[Wished],
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let path = format!("{}/secrets/", found.vault);
    let mark = mark(spec);
    let record = found.record.filter(|record| record.matched == mark);
    let keys = record.into_iter().flat_map(|record| &record.keys);
    keys.filter_map(move |(key, content)| {
        let name = content.object.strip_prefix(&path)?;
        Some((key.as_str(), name))
    })
    .filter(move |(key, name)| {
        let mut keys = wished.iter().filter_map(|wished| wished.key_of(name));
        keys.any(|other| other == *key)
    })
}

fn entry(key: String, name: &str) -> DataEntry {
    DataEntry {
        key,
        object: VaultObject {
            kind: ObjectKind::Secret,
            name: name.to_owned(),
            version: None,
            property: None,
            format: None,
        },
        transforms: Vec::new(),
    }
}

/// A wish that was understood.
struct Wished<'a> {
    pattern: Option<Regex>,
    tags: &'a BTreeMap<String, String>,
    rename: Option<Vec<Part<'a>>>,
}

/// A part of a key.
enum Part<'a> {
    Text(&'a str),
    /// The group with this number.
    Group(usize),
}

impl<'a> Wished<'a> {
    fn of(wished: &'a Match) -> Result<Self, MatchError> {
        let pattern = wished.name_pattern.as_deref().map(regex).transpose()?;
        let rename = match (&pattern, &wished.rename) {
            (Some(pattern), Some(rename)) => Some(parts(rename, pattern)?),
            (None, Some(rename)) => return Err(MatchError::Rename(rename.clone())),
            (_, None) => None,
        };
        Ok(Self {
            pattern,
            tags: &wished.tags,
            rename,
        })
    }

    /// The key that a secret fills, if it is meant.
    fn key(&self, secret: &Listed) -> Option<String> {
        let has = |(tag, value): (&String, &String)| secret.tags.get(tag) == Some(value);
        self.tags
            .iter()
            .all(has)
            .then(|| self.key_of(&secret.name))?
    }

    /// The key that a secret of this name fills, if the name is one that is meant.
    fn key_of(&self, name: &str) -> Option<String> {
        let Some(pattern) = &self.pattern else {
            return Some(name.to_owned());
        };
        let groups = pattern.captures(name)?;
        Some(match &self.rename {
            Some(parts) => parts.iter().map(|part| part.text(&groups)).collect(),
            None => name.to_owned(),
        })
    }
}

impl Part<'_> {
    fn text<'t>(&'t self, groups: &'t Captures<'_>) -> &'t str {
        match self {
            Self::Text(text) => text,
            Self::Group(number) => groups.get(*number).map_or("", |group| group.as_str()),
        }
    }
}

/// Fits whole names. A pattern must be one by itself before it is put between anchors, or it could get round them.
fn regex(pattern: &str) -> Result<Regex, MatchError> {
    let compile = |pattern: &str| {
        RegexBuilder::new(pattern)
            .case_insensitive(true)
            .size_limit(MOST_PATTERN)
            .dfa_size_limit(MOST_PATTERN)
            .build()
    };
    let compiled = compile(pattern).and_then(|_| compile(&format!("^(?:{pattern})$")));
    compiled.map_err(|error| MatchError::Pattern {
        pattern: pattern.to_owned(),
        problem: last_line(&error.to_string()),
    })
}

/// The library draws where the error is, over several lines, and says at the end what it is.
fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or_default();
    line.trim_start_matches("error: ").to_owned()
}

fn parts<'a>(rename: &'a str, pattern: &Regex) -> Result<Vec<Part<'a>>, MatchError> {
    let wrong = || MatchError::Rename(rename.to_owned());
    let mut parts = Vec::new();
    let mut rest = rename;
    while let Some((text, after)) = rest.split_once('$') {
        parts.push(Part::Text(text));
        rest = if let Some(after) = after.strip_prefix('$') {
            parts.push(Part::Text("$"));
            after
        } else if let Some(after) = after.strip_prefix('{') {
            let (name, after) = after.split_once('}').ok_or_else(wrong)?;
            parts.push(Part::Group(group(rename, name, pattern)?));
            after
        } else {
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = after.split_at(digits);
            if number.is_empty() {
                return Err(wrong());
            }
            parts.push(Part::Group(group(rename, number, pattern)?));
            after
        };
    }
    parts.push(Part::Text(rest));
    Ok(parts)
}

/// The number of a group, which may be named.
fn group(rename: &str, group: &str, pattern: &Regex) -> Result<usize, MatchError> {
    let number = match group.parse() {
        Ok(number) => Some(number).filter(|number| *number < pattern.captures_len()),
        Err(_) => pattern.capture_names().position(|name| name == Some(group)),
    };
    number.ok_or_else(|| MatchError::NoGroup {
        rename: rename.to_owned(),
        group: group.to_owned(),
    })
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
