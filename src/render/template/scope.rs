//! What a template sees, and what it has cost.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use minijinja::value::{Enumerator, Object};
use minijinja::{Error, ErrorKind, Value};

use super::TemplateProblem as Problem;
use crate::render::Rendered;

/// The name under which templates have the keys of `data` and `dataFrom`.
pub const DATA: &str = "data";
/// Most bytes that a template may look at and have filters make.
const MOST_WORK: usize = 16 << 20;
/// Most bytes that one filter may make.
const MOST_MADE: usize = 1 << 20;

/// The keys that a template may use, as the map `data`.
#[derive(Debug, Default)]
pub struct Scope {
    inputs: Arc<Rendered>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    used: BTreeSet<String>,
    /// Names that are not there, in the order in which they were asked for.
    missed: Vec<String>,
    problem: Option<Problem>,
    work: usize,
}

impl Scope {
    pub fn of(inputs: Arc<Rendered>) -> Self {
        Self {
            inputs,
            seen: Mutex::default(),
        }
    }

    /// The keys that were used.
    pub fn used(&self) -> BTreeSet<String> {
        self.seen().used.clone()
    }

    /// What went wrong, where it was noticed here.
    pub fn problem(&self) -> Option<Problem> {
        self.seen().problem.clone()
    }

    /// What is not known of what stands in this text. A name that does not stand there may be the content of a key, by which another
    /// one was looked up.
    pub fn unknown(&self, text: &str) -> Option<String> {
        let is_of_name = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        let words: BTreeSet<&str> = text.split(|c| !is_of_name(c)).collect();
        let seen = self.seen();
        let there = seen.missed.iter().filter(|name| {
            let key = name.strip_prefix("data.").unwrap_or(name);
            words.contains(name.as_str()) || words.contains(key)
        });
        let there: BTreeSet<&str> = there.map(String::as_str).collect();
        (!there.is_empty()).then(|| Vec::from_iter(there).join(", "))
    }

    /// What a key holds.
    pub fn content(&self, key: &str) -> Option<Result<Value, Error>> {
        let Some(from) = self.inputs.get(key) else {
            self.seen().missed.push(format!("{DATA}.{key}"));
            return None;
        };
        let content = from.value.expose();
        self.seen().used.insert(key.to_owned());
        Some(self.charge(content.len()).and_then(|()| {
            let text = std::str::from_utf8(content);
            text.map(Value::from)
                .map_err(|_| self.fail(Problem::NotText(format!("{DATA}.{key}"))))
        }))
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.inputs.keys().map(String::as_str)
    }

    /// Takes in that a filter made this.
    pub fn made(&self, text: String) -> Result<Value, Error> {
        if text.len() > MOST_MADE {
            return Err(self.fail(Problem::TooMuch));
        }
        self.charge(text.len())?;
        Ok(Value::from(text))
    }

    /// Takes in that so many bytes are about to be worked through.
    pub fn charge(&self, bytes: usize) -> Result<(), Error> {
        let work = {
            let mut seen = self.seen();
            seen.work = seen.work.saturating_add(bytes);
            seen.work
        };
        if work > MOST_WORK {
            return Err(self.fail(Problem::TooMuch));
        }
        Ok(())
    }

    /// Notes what went wrong. minijinja is told no more than that something did.
    pub fn fail(&self, problem: Problem) -> Error {
        self.seen().problem.get_or_insert(problem);
        Error::from(ErrorKind::InvalidOperation)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Object for Scope {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let content = self.content(key.as_str()?)?;
        // A value that is an error ends the rendering where it is used.
        Some(content.unwrap_or_else(Value::from))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.keys().map(Value::from).collect())
    }
}

/// All names that a template has by itself.
#[derive(Debug)]
pub struct Root(pub Arc<Scope>);

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let name = key.as_str()?;
        if name == DATA {
            return Some(Value::from_dyn_object(Arc::clone(&self.0)));
        }
        self.0.seen().missed.push(name.to_owned());
        None
    }
}
