//! Templates of Go, as far as they say no more than where keys go: the part that Jinja says in the same way.

use std::sync::LazyLock;

use regex::Regex;

/// `.key`, or `index . "key"`, and the functions that it goes through.
static ACTION: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let key = r#"(?:\.([A-Za-z_]\w*)|index\s+\.\s+"([-._a-zA-Z0-9]+)")"#;
    Regex::new(&format!(r"^(-\s)?\s*{key}((?:\s*\|\s*\w+)*)\s*(\s-)?$")).ok()
});

/// What a template of External Secrets is in Jinja, or nothing if it says more.
pub(super) fn jinja(text: &str) -> Option<String> {
    let (mut converted, mut rest) = (String::new(), text);
    while let Some((literal, after)) = rest.split_once("{{") {
        converted.push_str(plain(literal)?);
        let (action, after) = after.split_once("}}")?;
        converted.push_str(&expression(action)?);
        rest = after;
    }
    converted.push_str(plain(rest)?);
    Some(converted)
}

/// Text that Jinja takes as it is.
fn plain(text: &str) -> Option<&str> {
    let is_tag = text.contains("{%") || text.contains("{#") || text.ends_with('{');
    (!is_tag).then_some(text)
}

fn expression(action: &str) -> Option<String> {
    let found = ACTION.as_ref()?.captures(action)?;
    let key = found.get(2).or(found.get(3))?.as_str();
    let mut expression = format!("data[\"{key}\"]");
    let functions = found.get(4).map_or("", |functions| functions.as_str());
    for function in functions
        .split('|')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        match filter(function)? {
            "" => {}
            filter => expression.push_str(&format!("|{filter}")),
        }
    }
    let sign = |group| found.get(group).map_or("", |_| "-");
    Some(format!("{{{{{} {expression} {}}}}}", sign(1), sign(5)))
}

/// The filter that does the same as a function.
fn filter(function: &str) -> Option<&'static str> {
    Some(match function {
        "b64enc" => "b64encode",
        "b64dec" => "b64decode",
        "trim" => "trim",
        "lower" => "lower",
        "upper" => "upper",
        "toJson" => "tojson",
        // All is text already.
        "toString" => "",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_and_simple_functions_are_said_in_jinja() {
        for (go, expected) in [
            (
                "https://{{ .user }}@host",
                "https://{{ data[\"user\"] }}@host",
            ),
            (
                "{{.a}}{{ .b | b64enc }}",
                "{{ data[\"a\"] }}{{ data[\"b\"]|b64encode }}",
            ),
            ("{{- .a | toString | upper -}}", "{{- data[\"a\"]|upper -}}"),
            ("{{ index . \"tls.crt\" }}\n", "{{ data[\"tls.crt\"] }}\n"),
            ("{a: 1} }}", "{a: 1} }}"),
        ] {
            assert_eq!(jinja(go).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_says_more_is_not_converted() {
        for go in [
            "{{ if .a }}x{{ end }}",
            "{{ range $k, $v := . }}{{ end }}",
            "{{ .a | b64dec | pkcs12cert }}",
            "{{ .a | replace \"a\" \"b\" }}",
            "{{ printf \"%s\" .a }}",
            "{{ .a",
            "{{ .a.b }}",
            "{% x %}",
            "{{{ .a }}",
        ] {
            assert_eq!(jinja(go), None, "{go}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in r#"[{}%#. |a"\-]{0,30}"#) {
            let _ = jinja(&text);
        }
    }
}
