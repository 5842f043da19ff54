//! Dotenv: a variable a line, as Docker and the dotenv libraries agree on. Variables are not substituted: a password may have a
//! dollar in it.

use std::collections::BTreeMap;

use super::structure::StructureError;
use crate::vault::SecretValue;

/// Reads `NAME=value`, `export NAME=value`, `NAME="value"` with escapes, `NAME='value'` without; both kinds of quotes may span
/// lines. A `#` at the start of a line, or after white space behind a value without quotes, begins a comment.
pub(super) fn dotenv(text: &str) -> Result<BTreeMap<String, SecretValue>, StructureError> {
    let mut entries = BTreeMap::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    while !rest.is_empty() {
        // Of the original, since values may span lines.
        let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
        let wrong = || StructureError::Dotenv(line);
        let (first, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let trimmed = first.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = after;
            continue;
        }
        let (name, plain_value) = first.split_once('=').ok_or_else(wrong)?;
        let value = &rest[name.len() + 1..];
        let name = name.trim();
        let name = name.strip_prefix("export ").map_or(name, str::trim);
        let blank = value.len() - value.trim_start_matches([' ', '\t']).len();
        let quoted = &value[blank..];
        let value = match quoted.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let (value, end) = unquote(&quoted[1..], quote).ok_or_else(wrong)?;
                let (tail, after) = end.split_once('\n').unwrap_or((end, ""));
                let tail = tail.trim();
                if !tail.is_empty() && !tail.starts_with('#') {
                    return Err(wrong());
                }
                rest = after;
                value
            }
            _ => {
                rest = after;
                plain(plain_value).to_owned()
            }
        };
        entries.insert(name.to_owned(), value.into_bytes().into());
    }
    Ok(entries)
}

/// A value without quotes: until the comment, without white space around it.
fn plain(value: &str) -> &str {
    let starts_comment = |(at, _): &(usize, &str)| {
        let before = value[..*at].chars().next_back();
        before.is_none_or(char::is_whitespace)
    };
    let comment = value.match_indices('#').find(starts_comment);
    value[..comment.map_or(value.len(), |(at, _)| at)].trim()
}

/// What stands before the closing quote, and what follows it.
fn unquote(text: &str, quote: char) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            _ if char == quote => return Some((value, &text[at + 1..])),
            '\\' if quote == '"' => match chars.next()?.1 {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                escaped @ ('"' | '\\' | '$') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            char => value.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(text: &str) -> Result<String, StructureError> {
        let mut entries = dotenv(text)?;
        let value = entries.remove("A").expect("A");
        Ok(String::from_utf8(value.expose().to_vec()).expect("text"))
    }

    #[test]
    fn values_come_with_and_without_quotes() {
        for (text, value) in [
            ("A=b", "b"),
            ("A = b \r\n", "b"),
            ("export A=b # c", "b"),
            ("A=b#c", "b#c"),
            ("A=", ""),
            ("A= # c", ""),
            ("A=a=b", "a=b"),
            ("A='a # \\n' # c", "a # \\n"),
            (r#"A="a\n\"b\" $c \$d \x""#, "a\n\"b\" $c $d \\x"),
            ("A=\"a\nb\"\nB=c", "a\nb"),
            ("# c\n\nA=1\nA=2", "2"),
            ("\u{feff}A=b", "b"),
        ] {
            assert_eq!(one(text).as_deref(), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_variable_is_said_by_its_line() {
        for (text, line) in [("A=1\nhunter2", 2), ("A=\"a", 1), ("B='a\nb'\nA='c' d", 3)] {
            assert_eq!(
                dotenv(text).err(),
                Some(StructureError::Dotenv(line)),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn quoting_is_undone(value in ".{0,50}") {
            let quoted = value.replace('\\', r"\\").replace('"', r#"\""#).replace('$', r"\$");
            prop_assert_eq!(one(&format!("A=\"{quoted}\"\n")), Ok(value));
        }
    }
}
