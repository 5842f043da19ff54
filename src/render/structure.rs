//! Values with a structure: JSON, YAML and dotenv. Errors say where, and never what stands there.
//!
//! All is bounded. A secret has 25 KB at most, but a few aliases of YAML can stand for gigabytes, and a few thousand brackets nest
//! deeper than a stack.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::dotenv::dotenv;
use crate::api::ExpandFormat;
use crate::vault::SecretValue;

/// Events of YAML, with those that aliases repeat: more than 25 KB can have without aliases.
const MAX_EVENTS: usize = 50_000;
const MAX_DEPTH: usize = 64;

/// Why a value has not the structure that it is to have.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum StructureError {
    #[error("its value is no text in UTF-8")]
    NotText,
    #[error("its value is no JSON (line {line}, column {column})")]
    Json { line: usize, column: usize },
    #[error("its value is no YAML that can be read (line {0})")]
    Yaml(u64),
    #[error("its value is not dotenv: NAME=value is (line {0})")]
    Dotenv(usize),
    #[error("its value is no object of keys and values")]
    NoObject,
    #[error("its value has nothing at property {path}")]
    NoProperty { path: String },
    #[error(
        "entry {0} of its value can't be a key of a Secret: that has letters, digits, '-', '_' and '.', and 253 characters at most"
    )]
    Key(usize),
}

/// The part of a value that a path leads to: names and numbers of list entries, with dots between them; `\.` is a dot in a name.
pub(super) fn property(value: &[u8], path: &str) -> Result<SecretValue, StructureError> {
    let missing = || StructureError::NoProperty {
        path: path.to_owned(),
    };
    let mut here = document(value)?;
    for step in steps(path) {
        let next = match entries(&here) {
            Some(mut entries) => entries.remove(&step),
            None => list(&here)
                .zip(step.parse().ok())
                .and_then(|(items, index): (Vec<_>, usize)| items.into_iter().nth(index)),
        };
        here = next.ok_or_else(missing)?;
    }
    text(&here).ok_or_else(missing)
}

/// All entries of a value, each of which fills a key.
pub(super) fn expand(
    value: &[u8],
    format: ExpandFormat,
) -> Result<BTreeMap<String, SecretValue>, StructureError> {
    let entries: BTreeMap<String, SecretValue> = match format {
        ExpandFormat::Dotenv => dotenv(as_text(value)?)?,
        ExpandFormat::Json => flat(&json(as_text(value)?)?)?,
        ExpandFormat::Yaml => flat(&yaml(as_text(value)?)?)?,
    };
    match entries.keys().position(|key| !is_key(key)) {
        Some(index) => Err(StructureError::Key(index + 1)),
        None => Ok(entries),
    }
}

fn as_text(value: &[u8]) -> Result<&str, StructureError> {
    std::str::from_utf8(value).map_err(|_| StructureError::NotText)
}

/// JSON, which most values are, or YAML.
fn document(value: &[u8]) -> Result<Box<RawValue>, StructureError> {
    let text = as_text(value)?;
    json(text).or_else(|error| match text.trim_start().starts_with(['{', '[']) {
        // A map of YAML may look like that too, but who writes braces means JSON.
        true => yaml(text).map_err(|_| error),
        false => yaml(text),
    })
}

/// Kept as it is written, so that no number loses a digit.
fn json(text: &str) -> Result<Box<RawValue>, StructureError> {
    serde_json::from_str(text).map_err(|error| StructureError::Json {
        line: error.line(),
        column: error.column(),
    })
}

fn yaml(text: &str) -> Result<Box<RawValue>, StructureError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: MAX_EVENTS,
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
        },
        with_snippet: false,
    };
    let value: serde_json::Value = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| StructureError::Yaml(error.location().map_or(1, |at| at.line())))?;
    serde_json::value::to_raw_value(&value).map_err(|_| StructureError::Yaml(1))
}

fn flat(value: &RawValue) -> Result<BTreeMap<String, SecretValue>, StructureError> {
    let entries = entries(value).ok_or(StructureError::NoObject)?;
    // What is null is as if it was not there.
    let texts = entries.into_iter();
    Ok(texts
        .filter_map(|(key, value)| Some((key, text(&value)?)))
        .collect())
}

fn entries(value: &RawValue) -> Option<BTreeMap<String, Box<RawValue>>> {
    serde_json::from_str(value.get()).ok()
}

fn list(value: &RawValue) -> Option<Vec<Box<RawValue>>> {
    serde_json::from_str(value.get()).ok()
}

/// Text as it is; anything else as JSON. Nothing for null.
fn text(value: &RawValue) -> Option<SecretValue> {
    let raw = value.get();
    if raw == "null" {
        return None;
    }
    let text: String = match raw.starts_with('"') {
        true => serde_json::from_str(raw).ok()?,
        false => raw.to_owned(),
    };
    Some(text.into_bytes().into())
}

fn steps(path: &str) -> Vec<String> {
    let mut steps = vec![String::new()];
    let mut chars = path.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '.' => steps.push(String::new()),
            '\\' if chars.peek() == Some(&'.') => {
                chars.next();
                steps
                    .iter_mut()
                    .last()
                    .into_iter()
                    .for_each(|step| step.push('.'));
            }
            char => steps
                .iter_mut()
                .last()
                .into_iter()
                .for_each(|step| step.push(char)),
        }
    }
    steps
}

/// The API server's rule for keys of Secrets.
pub fn is_key(key: &str) -> bool {
    (1..=253).contains(&key.len())
        && key != "."
        && !key.starts_with("..")
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(value: &str, path: &str) -> Result<String, StructureError> {
        let found = property(value.as_bytes(), path)?;
        Ok(String::from_utf8(found.expose().to_vec()).expect("text"))
    }

    fn all(value: &str, format: ExpandFormat) -> Result<Vec<(String, String)>, StructureError> {
        let entries = expand(value.as_bytes(), format)?.into_iter();
        let text = |value: SecretValue| String::from_utf8(value.expose().to_vec()).expect("text");
        Ok(entries.map(|(key, value)| (key, text(value))).collect())
    }

    #[test]
    fn a_path_leads_into_json_and_yaml() {
        let json =
            r#"{"db": {"password": "a\nb", "ports": [1, 2.50], "x.y": true, "o": {"k": 1}}}"#;
        let yaml = "db:\n  password: \"a\\nb\"\n  ports: [1, 2]\n  x.y: true\n  o: {k: 1}\n";
        for value in [json, yaml] {
            assert_eq!(at(value, "db.password").as_deref(), Ok("a\nb"));
            assert_eq!(at(value, "db.ports.0").as_deref(), Ok("1"));
            assert_eq!(at(value, r"db.x\.y").as_deref(), Ok("true"));
        }
        assert_eq!(at(json, "db.o").as_deref(), Ok(r#"{"k": 1}"#));
    }

    #[test]
    fn no_number_loses_a_digit() {
        let value = r#"{"n": 123456789012345678901234567890.10}"#;
        assert_eq!(
            at(value, "n").as_deref(),
            Ok("123456789012345678901234567890.10")
        );
    }

    #[test]
    fn what_is_not_there_is_said_with_its_path() {
        for path in ["b", "a.b", "a.0", "l.9", "l.x", "z", ""] {
            let error =
                at(r#"{"a": "hunter2", "l": ["hunter2"], "z": null}"#, path).expect_err(path);
            assert!(
                error.to_string().ends_with(&format!("property {path}")),
                "{error}"
            );
        }
    }

    #[test]
    fn errors_say_where_and_not_what() {
        assert!(matches!(
            at("{\"a\": 1,\n\"b\": \"hunter2}", "a").err(),
            Some(StructureError::Json { line: 2, .. })
        ));
        assert!(matches!(
            at("a: 1\nb: [hunter2", "a").err(),
            Some(StructureError::Yaml(_))
        ));
        assert_eq!(property(b"\xff", "a").err(), Some(StructureError::NotText));
    }

    #[test]
    fn every_entry_of_an_object_is_a_key() {
        let expected = vec![
            ("a".to_owned(), "1".to_owned()),
            ("b".to_owned(), "x".to_owned()),
        ];
        assert_eq!(
            all(r#"{"b": "x", "a": 1, "n": null}"#, ExpandFormat::Json),
            Ok(expected.clone())
        );
        assert_eq!(
            all("b: x\na: 1\n", ExpandFormat::Yaml),
            Ok(expected.clone())
        );
        assert_eq!(
            all("b=x\nexport a='1'\n", ExpandFormat::Dotenv),
            Ok(expected)
        );
    }

    #[test]
    fn what_is_no_object_or_has_keys_that_are_none_is_refused() {
        assert_eq!(
            all("[1]", ExpandFormat::Json),
            Err(StructureError::NoObject)
        );
        assert_eq!(
            all("text", ExpandFormat::Yaml),
            Err(StructureError::NoObject)
        );
        assert_eq!(
            all(r#"{"a": 1, "b/c": 2}"#, ExpandFormat::Json),
            Err(StructureError::Key(2))
        );
    }

    #[test]
    fn bombs_are_defused() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let alias = format!("*a{}", level - 1);
            let items = vec![alias; 10].join(", ");
            bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        assert!(matches!(at(&bomb, "a9"), Err(StructureError::Yaml(_))));
        for deep in [
            "[".repeat(12_000),
            "- ".repeat(12_000),
            "{a: ".repeat(6_000),
        ] {
            assert!(at(&deep, "a").is_err());
        }
        let deep = format!("{}{}", "[".repeat(12_000), "]".repeat(12_000));
        assert!(at(&deep, "a").is_err());
    }

    proptest! {
        #[test]
        fn no_text_and_no_path_panics(value in ".{0,100}", path in ".{0,20}") {
            let _ = property(value.as_bytes(), &path);
            for format in [ExpandFormat::Json, ExpandFormat::Yaml, ExpandFormat::Dotenv] {
                let _ = expand(value.as_bytes(), format);
            }
        }

        #[test]
        fn what_is_put_in_comes_out(key in "[a-zA-Z0-9._-]{1,20}", value in ".{0,50}") {
            prop_assume!(is_key(&key));
            let document = serde_json::json!({ key.as_str(): value }).to_string();
            prop_assert_eq!(at(&document, &key.replace('.', r"\.")), Ok(value.clone()));
            prop_assert_eq!(all(&document, ExpandFormat::Json), Ok(vec![(key, value)]));
        }
    }
}
