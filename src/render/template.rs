//! Keys that are made of other keys by templates in the syntax of Jinja.
//!
//! Whoever writes a mirror writes the templates, so nothing that a template says may cost much: [`syntax`] lets through a small
//! part of Jinja, and [`scope`] counts what that part does. minijinja's own errors may quote a value, so of those that come
//! while rendering nothing is taken over but their kind and line.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value};
use zeroize::Zeroizing;

use self::scope::{Root, Scope};
use super::{Rendered, RenderedKey};
use crate::api::{MergePolicy, ObjectKind, Template};
use crate::vault::VaultSecret;

mod filters;
mod scope;
mod syntax;

/// Most bytes that a template may make: no Secret holds more.
const MOST_OUTPUT: usize = 1 << 20;
/// Steps of minijinja's machine: a loop over a few hundred keys has some thousands.
const FUEL: u64 = 50_000;
/// Objects that are named where a key is made of several.
const NAMED: usize = 3;

/// A template that can't be rendered.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the template of key {key} can't be rendered (line {line}): {problem}")]
pub struct TemplateError {
    /// The key of the target that it is to fill.
    pub key: String,
    pub line: usize,
    pub problem: TemplateProblem,
}

/// What is wrong with a template. It may quote the template, and never what its keys hold.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TemplateProblem {
    #[error("its text is longer than {} KiB", syntax::MOST_TEXT / 1024)]
    TooLong,
    #[error("{0}")]
    Syntax(String),
    #[error("{0} can't be used; templates have variables, filters, if and for")]
    Unsupported(String),
    #[error("there is no filter {0}; there are {filters}", filters = filters::NAMES.join(", "))]
    UnknownFilter(String),
    #[error("{0} is not known: neither data nor dataFrom gives it")]
    Unknown(String),
    #[error(
        "the content of {0} is no text in UTF-8, which templates take; give its entry of data the transform base64Encode"
    )]
    NotText(String),
    #[error("filter {filter}: {problem}")]
    Filter {
        filter: &'static str,
        problem: &'static str,
    },
    #[error("it makes more than {} MiB", MOST_OUTPUT >> 20)]
    TooLarge,
    #[error("it takes too much time and memory; make it simpler")]
    TooMuch,
    /// The kind of any other error.
    #[error("{0}")]
    Failed(String),
}

/// Refuses templates that can't be rendered whatever their keys hold.
pub fn check(template: &Template) -> Result<(), TemplateError> {
    for (key, text) in &template.data {
        let failed = |(line, problem)| TemplateError {
            key: key.clone(),
            line,
            problem,
        };
        syntax::check(text).map_err(failed)?;
        environment(&Arc::default())
            .template_from_str(text)
            .map_err(|error| failed(malformed(&error)))?;
    }
    Ok(())
}

/// What the target gets of the keys of `data` and `dataFrom` and of those that the template makes of them.
pub(super) fn fill(template: &Template, inputs: Rendered) -> Result<Rendered, TemplateError> {
    check(template)?;
    let inputs = Arc::new(inputs);
    let mut made = Rendered::new();
    for (key, text) in &template.data {
        let rendered = render(text, &inputs).map_err(|(line, problem)| TemplateError {
            key: key.clone(),
            line,
            problem,
        })?;
        made.insert(key.clone(), rendered);
    }
    Ok(match template.merge_policy {
        MergePolicy::Replace => made,
        MergePolicy::Merge => {
            let mut all = Arc::unwrap_or_clone(inputs);
            all.extend(made);
            all
        }
    })
}

fn render(text: &str, inputs: &Arc<Rendered>) -> Result<RenderedKey, (usize, TemplateProblem)> {
    let scope = Arc::new(Scope::of(Arc::clone(inputs)));
    let mut output = Output::default();
    let environment = environment(&scope);
    let template = environment
        .template_from_str(text)
        .map_err(|error| malformed(&error))?;
    let root = Value::from_object(Root(Arc::clone(&scope)));
    let rendered = template.render_captured_to(root, &mut output).map(drop);
    rendered.map_err(|error| {
        let line = error.line().unwrap_or(1);
        (line, explain(&error, &scope, text, line))
    })?;
    // `data` as a whole is written out, with words in the place of what it can't have.
    if let Some(problem) = scope.problem() {
        return Err((1, problem));
    }
    let mut made_of: Vec<&RenderedKey> = scope
        .used()
        .iter()
        .filter_map(|key| inputs.get(key))
        .collect();
    if made_of.is_empty() {
        made_of = inputs.values().collect();
    }
    let (kind, object, secret) = origin(&made_of);
    Ok(RenderedKey {
        value: std::mem::take(&mut *output.0).into(),
        made_of: None,
        kind,
        object,
        secret,
    })
}

/// No name but `data` is there, no function, and no filter but ours.
fn environment<'text>(scope: &Arc<Scope>) -> Environment<'text> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // A file ends as its text does. Delimiters are what could be wrong with it, and they stay.
    let syntax = environment
        .syntax()
        .to_builder()
        .keep_trailing_newline(true)
        .build();
    if let Ok(syntax) = syntax {
        environment.set_syntax(syntax);
    }
    environment.set_fuel(Some(FUEL));
    filters::add(&mut environment, scope);
    environment.add_test("defined", is_defined);
    environment
}

fn is_defined(value: &Value) -> bool {
    !value.is_undefined()
}

/// What the parser says: it has seen the template alone.
fn malformed(error: &Error) -> (usize, TemplateProblem) {
    let detail = error.detail().map(|detail| format!(": {detail}"));
    let text = format!("{}{}", error.kind(), detail.unwrap_or_default());
    (error.line().unwrap_or(1), TemplateProblem::Syntax(text))
}

fn explain(error: &Error, scope: &Scope, text: &str, line: usize) -> TemplateProblem {
    if let Some(problem) = scope.problem() {
        return problem;
    }
    match error.kind() {
        ErrorKind::UndefinedError => {
            let line = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
            let unknown = scope.unknown(line).or_else(|| scope.unknown(text));
            TemplateProblem::Unknown(unknown.unwrap_or_else(|| "a key that it looks up".to_owned()))
        }
        ErrorKind::OutOfFuel => TemplateProblem::TooMuch,
        ErrorKind::WriteFailure => TemplateProblem::TooLarge,
        // The description of a kind is always the same.
        kind => TemplateProblem::Failed(kind.to_string()),
    }
}

/// Where content comes from that is made of several keys. Its version and its time are those of what changed last, since that is what
/// changed it, and it is valid as long as all of it is.
fn origin(made_of: &[&RenderedKey]) -> (ObjectKind, String, Arc<VaultSecret>) {
    let latest = made_of
        .iter()
        .max_by_key(|from| (from.secret.updated, &from.object));
    let (kind, version, updated) = match latest {
        Some(from) => (from.kind, from.secret.version.clone(), from.secret.updated),
        // Text without anything to put in.
        None => (ObjectKind::Secret, "none".to_owned(), None),
    };
    let objects: BTreeSet<&str> = made_of.iter().map(|from| from.object.as_str()).collect();
    let secrets = || made_of.iter().map(|from| &from.secret);
    let secret = VaultSecret {
        value: Vec::new().into(),
        version,
        updated,
        not_before: secrets().filter_map(|secret| secret.not_before).max(),
        expires: secrets().filter_map(|secret| secret.expires).min(),
    };
    (kind, names(&objects), Arc::new(secret))
}

fn names(objects: &BTreeSet<&str>) -> String {
    let named: Vec<&str> = objects.iter().copied().take(NAMED).collect();
    match objects.len().saturating_sub(NAMED) {
        0 if named.is_empty() => "none".to_owned(),
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// What a template makes, which wipes itself and takes no more than a Secret does.
#[derive(Default)]
struct Output(Zeroizing<Vec<u8>>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_OUTPUT {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
