//! The filters that templates have. Each says what it has made, so that it counts.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Value};
use serde_json::json;

use super::TemplateProblem as Problem;
use super::scope::Scope;
use crate::api::Transform;
use crate::render::transform::transform;

pub const NAMES: [&str; 14] = [
    "b64decode",
    "b64encode",
    "default",
    "indent",
    "items",
    "lines",
    "lower",
    "quote",
    "replace",
    "split",
    "tojson",
    "trim",
    "upper",
    "urlencode",
];

/// Most spaces that lines are indented by.
const MOST_INDENT: usize = 100;

type Made = Result<Value, Error>;

/// Gives the filters to an environment.
pub fn add(environment: &mut Environment<'_>, scope: &Arc<Scope>) {
    let mut text_filter = |name: &'static str, filter: fn(&Scope, &str) -> Made| {
        let scope = Arc::clone(scope);
        environment.add_filter(name, move |value: Value| {
            filter(&scope, &text(&scope, name, &value)?)
        });
    };
    text_filter("b64encode", |scope, text| scope.made(STANDARD.encode(text)));
    text_filter("b64decode", b64decode);
    text_filter("lower", |scope, text| scope.made(text.to_lowercase()));
    text_filter("upper", |scope, text| scope.made(text.to_uppercase()));
    text_filter("trim", |scope, text| scope.made(text.trim().to_owned()));
    text_filter("urlencode", |scope, text| scope.made(urlencode(text)));
    text_filter("quote", |scope, text| scope.made(quote(text)));
    text_filter("lines", |scope, text| list(scope, text.lines()));

    let own = Arc::clone(scope);
    environment.add_filter("split", move |value: Value, at: String| {
        let text = text(&own, "split", &value)?;
        if at.is_empty() {
            return Err(failed(&own, "split", "it wants what to split at"));
        }
        list(&own, text.split(&*at))
    });
    let own = Arc::clone(scope);
    environment.add_filter("replace", move |value: Value, from: String, to: String| {
        let text = text(&own, "replace", &value)?;
        replace(&own, &text, &from, &to)
    });
    let own = Arc::clone(scope);
    environment.add_filter("indent", move |value: Value, width: usize| {
        let text = text(&own, "indent", &value)?;
        if width > MOST_INDENT {
            return Err(failed(&own, "indent", "it indents by 100 at most"));
        }
        replace(&own, &text, "\n", &format!("\n{}", " ".repeat(width)))
    });
    let own = Arc::clone(scope);
    environment.add_filter("items", move |value: Value| items(&own, &value));
    let own = Arc::clone(scope);
    environment.add_filter("tojson", move |value: Value| tojson(&own, &value));
    environment.add_filter(
        "default",
        |value: Value, other: Value| {
            if value.is_undefined() { other } else { value }
        },
    );
}

/// What a filter is given, which must be text, a number or a truth value.
fn text<'a>(scope: &Scope, filter: &'static str, value: &'a Value) -> Result<Cow<'a, str>, Error> {
    if let Some(text) = value.as_str() {
        return Ok(Cow::Borrowed(text));
    }
    match value.kind() {
        ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::Number | ValueKind::Bool => Ok(Cow::Owned(value.to_string())),
        _ => Err(failed(scope, filter, "it takes text")),
    }
}

fn failed(scope: &Scope, filter: &'static str, problem: &'static str) -> Error {
    scope.fail(Problem::Filter { filter, problem })
}

fn b64decode(scope: &Scope, text: &str) -> Made {
    let failed = |problem| failed(scope, "b64decode", problem);
    let encoded = text.as_bytes().to_vec().into();
    let decoded = transform(&encoded, &[Transform::Base64Decode])
        .map_err(|_| failed("what it is given is no base64"))?;
    let text = std::str::from_utf8(decoded.expose())
        .map_err(|_| failed("what it makes is no text in UTF-8"))?;
    scope.made(text.to_owned())
}

/// All but letters, digits, `-`, `_`, `.` and `~` (RFC 3986, section 2.3), so that it can stand anywhere in a URL.
fn urlencode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// In single quotes, as shells and files of variables take it.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn replace(scope: &Scope, text: &str, from: &str, to: &str) -> Made {
    if from.is_empty() {
        return Err(failed(scope, "replace", "it wants what to replace"));
    }
    let length = text.matches(from).count().saturating_mul(to.len());
    scope.charge(length.saturating_add(text.len()))?;
    scope.made(text.replace(from, to))
}

fn list<'a>(scope: &Scope, parts: impl Iterator<Item = &'a str>) -> Made {
    let parts: Vec<Value> = parts
        .map(|part| scope.made(part.to_owned()))
        .collect::<Result<_, _>>()?;
    // Of what is empty, too, there is a value.
    scope.charge(parts.len().saturating_mul(size_of::<Value>()))?;
    Ok(Value::from(parts))
}

/// Keys and contents of `data`.
fn items(scope: &Arc<Scope>, value: &Value) -> Made {
    if value.downcast_object_ref::<Scope>().is_none() {
        return Err(failed(scope, "items", "it takes data"));
    }
    let pair = |key: &str| -> Made {
        let content = scope.content(key).unwrap_or(Ok(Value::UNDEFINED))?;
        Ok(Value::from(vec![Value::from(key), content]))
    };
    let pairs: Vec<Value> = scope.keys().map(pair).collect::<Result<_, Error>>()?;
    Ok(Value::from(pairs))
}

fn tojson(scope: &Arc<Scope>, value: &Value) -> Made {
    if value.downcast_object_ref::<Scope>().is_some() {
        let entry = |key: &str| -> Result<(String, serde_json::Value), Error> {
            let content = scope.content(key).unwrap_or(Ok(Value::UNDEFINED))?;
            Ok((key.to_owned(), json!(content.as_str())))
        };
        let entries = scope.keys().map(entry).collect::<Result<_, Error>>()?;
        return scope.made(serde_json::Value::Object(entries).to_string());
    }
    let content = text(scope, "tojson", value)?;
    match value.kind() {
        ValueKind::String => scope.made(json!(content).to_string()),
        // minijinja writes True and False.
        _ => scope.made(content.to_lowercase()),
    }
}
