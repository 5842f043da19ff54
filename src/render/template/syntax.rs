//! The part of Jinja that templates may use.
//!
//! Whatever a template computes is written out, where it counts, or goes through one of our filters, where it counts too. What could
//! grow without being counted is left out: names bound to computed values (`set`, `with`, macros, loops over anything but a key's
//! content) double it with each line, and so does arithmetic on text. Other statements have no use where there is one template.
//! Nor may anything be nested so deep that minijinja, which works through it by recursion, runs out of stack.
//!
//! This looks at tags as minijinja's lexer does. Where the two could differ, the text is refused.

use std::sync::LazyLock;

use regex::Regex;

use super::TemplateProblem as Problem;
use super::filters;

/// Longest text of a template, in bytes.
pub const MOST_TEXT: usize = 64 * 1024;
/// Most `~` in one tag, so that what they put together is no more than so many contents.
const MOST_JOINED: usize = 16;
/// Most words and signs in one tag: each can be one level of nesting.
const MOST_WORDS: usize = 200;
/// Most levels of brackets in a tag, and of statements.
const MOST_DEPTH: usize = 20;
/// Most `elif` in a template: each is in the `else` of the one before.
const MOST_ELIFS: usize = 50;

const STATEMENTS: [&str; 6] = ["if", "elif", "else", "endif", "for", "endfor"];

/// A loop goes over a name, a part of it, or what a filter makes of it. Literals are `""` here.
static LOOP: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let path = r#"\w+(\.\w+|\[(\w+|"")\])*"#;
    let filters = r#"(\s*\|\s*\w+(\s*\(\s*""\s*\))?)*"#;
    Regex::new(&format!(r"^for\s+\w+(\s*,\s*\w+)?\s+in\s+{path}{filters}$")).ok()
});

static FILTER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\|\s*([\w.]*)").ok());

/// Refuses what is not in that part, with the line.
pub fn check(text: &str) -> Result<(), (usize, Problem)> {
    if text.len() > MOST_TEXT {
        return Err((1, Problem::TooLong));
    }
    let (mut depth, mut elifs) = (0_usize, 0);
    for tag in tags(text) {
        let failed = |problem| (tag.line, problem);
        match tag.check().map_err(failed)? {
            "if" | "for" => depth += 1,
            "endif" | "endfor" => depth = depth.saturating_sub(1),
            "elif" => elifs += 1,
            _ => {}
        }
        if depth > MOST_DEPTH || elifs > MOST_ELIFS {
            let what =
                format!("more than {MOST_DEPTH} levels of statements, or {MOST_ELIFS} elif,");
            return Err(failed(Problem::Unsupported(what)));
        }
    }
    Ok(())
}

/// `{{ … }}`, or `{% … %}`.
struct Tag {
    line: usize,
    is_statement: bool,
    /// What is in it, with `""` for each literal.
    code: String,
}

impl Tag {
    /// Gives the word that says what statement it is, or nothing if it is none.
    fn check(&self) -> Result<&str, Problem> {
        // A sign at either end is about white space.
        let code = self.code.strip_prefix(['-', '+']).unwrap_or(&self.code);
        let code = code.strip_suffix(['-', '+']).unwrap_or(code).trim();
        let unsupported = |what: &str| Err(Problem::Unsupported(what.to_owned()));
        let is_known = |c: char| {
            c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || "_.,|()[]~=!<>\"-".contains(c)
        };
        if let Some(other) = code.chars().find(|c| !is_known(*c)) {
            return unsupported(&format!("`{other}`"));
        }
        if code.matches('~').count() > MOST_JOINED {
            return unsupported(&format!("`~` more than {MOST_JOINED} times in a tag"));
        }
        if words(code) > MOST_WORDS || depth(code) > MOST_DEPTH {
            return unsupported(&format!(
                "more than {MOST_WORDS} words and signs, or {MOST_DEPTH} levels of brackets, in a tag"
            ));
        }
        if let Some(filter) = unknown_filter(code) {
            return Err(Problem::UnknownFilter(filter));
        }
        if !self.is_statement {
            return Ok("");
        }
        let statement = code.split(|c| !is_word(c)).next().unwrap_or_default();
        if !STATEMENTS.contains(&statement) {
            return unsupported(&format!("`{{% {statement} %}}`"));
        }
        let is_loop = LOOP.as_ref().is_some_and(|regex| regex.is_match(code));
        match statement {
            "for" if !is_loop => unsupported(
                "a loop over anything but data, a key of it, or what one filter after the other makes of that",
            ),
            _ => Ok(statement),
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Words and signs.
fn words(code: &str) -> usize {
    let begins = |(before, c): (char, char)| {
        let goes_on = is_word(c) && is_word(before);
        !(c.is_ascii_whitespace() || goes_on)
    };
    let before = std::iter::once(' ').chain(code.chars());
    before
        .zip(code.chars())
        .filter(|pair| begins(*pair))
        .count()
}

/// Levels of brackets.
fn depth(code: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for char in code.chars() {
        match char {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn unknown_filter(code: &str) -> Option<String> {
    let filters = FILTER.as_ref()?.captures_iter(code);
    let mut names = filters.filter_map(|found| Some(found.get(1)?.as_str()));
    names
        .find(|name| !filters::NAMES.contains(name))
        .map(str::to_owned)
}

fn tags(text: &str) -> Vec<Tag> {
    let (mut tags, mut at, mut line) = (Vec::new(), 0, 1);
    let lines = |text: &str| text.matches('\n').count();
    while let Some(start) = start(&text[at..]) {
        let inside = at + start + 2;
        line += lines(&text[at..inside]);
        let rest = &text[inside..];
        let is_statement = text.as_bytes()[inside - 1] == b'%';
        let length = match text.as_bytes()[inside - 1] {
            b'#' => rest.find("#}").map_or(rest.len(), |end| end + 2),
            _ => {
                let end = if is_statement { "%}" } else { "}}" };
                let (code, length) = code(rest, end);
                tags.push(Tag {
                    line,
                    is_statement,
                    code,
                });
                length
            }
        };
        line += lines(&rest[..length]);
        at = inside + length;
    }
    tags
}

/// Where the next tag or comment begins.
fn start(text: &str) -> Option<usize> {
    let mut pairs = text.as_bytes().windows(2);
    pairs.position(|pair| pair[0] == b'{' && matches!(pair[1], b'{' | b'%' | b'#'))
}

/// What is in a tag, and its length with its end.
fn code(rest: &str, end: &str) -> (String, usize) {
    let mut code = String::new();
    let (mut quote, mut is_escaped) = (None, false);
    for (at, char) in rest.char_indices() {
        match quote {
            Some(_) if is_escaped => is_escaped = false,
            Some(_) if char == '\\' => is_escaped = true,
            Some(mark) if char == mark => {
                quote = None;
                code.push('"');
            }
            Some(_) => {}
            None if rest[at..].starts_with(end) => return (code, at + end.len()),
            None if matches!(char, '"' | '\'') => {
                quote = Some(char);
                code.push('"');
            }
            None => code.push(char),
        }
    }
    (code, rest.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Option<(usize, String)> {
        let (line, problem) = check(text).err()?;
        Some((line, problem.to_string()))
    }

    #[test]
    fn what_config_files_need_is_let_through() {
        for text in [
            "no tag at all: {a: 1} %} }} #}",
            "{{ data.a }}{{- data[\"b-c\"] -}}{{ data['d.e'] | trim | replace(\"a\", '}}') }}",
            "{% if data.a == \"x\" and data.b is defined %}{% elif not data.c %}{% else %}{%- endif +%}",
            "{% for key, value in data|items %}{{ key }}={{ value|tojson }}\n{% endfor %}",
            "{% for host in data[\"hosts\"] | split(\",\") %}{{ loop.index }}{% endfor %}",
            "{{ (data.user ~ ':' ~ data.password)|b64encode }}",
            "{# a comment with {{ set }} and \" #}{{ data.a }}",
            "{{ \"\\\"}} * \" }}",
        ] {
            assert_eq!(refused(text), None, "{text}");
        }
    }

    #[test]
    fn what_could_grow_is_refused_with_its_line() {
        for (text, what) in [
            ("\n{% set a = data.a ~ data.a %}", "`{% set %}`"),
            ("\n{%- with a = data.a %}{% endwith %}", "`{% with %}`"),
            ("\n{% raw %}{{{% endraw %}", "`{% raw %}`"),
            ("\n{% macro a() %}{% endmacro %}", "`{% macro %}`"),
            ("\n{% include \"x\" %}", "`{% include %}`"),
            ("\n{% filter upper %}{% endfilter %}", "`{% filter %}`"),
            ("\n{{ data.a * 1000000 }}", "`*`"),
            ("\n{{ data.a + data.a }}", "`+`"),
            ("\n{{ {\"a\": 1} }}", "`{`"),
            (
                "\n{% for a in [data.a, data.a] %}{% endfor %}",
                "a loop over",
            ),
            (
                "\n{% for a in (data.a, data.a) %}{% endfor %}",
                "a loop over",
            ),
            (
                "\n{% for a in data.a ~ data.a %}{% endfor %}",
                "a loop over",
            ),
            ("\n{% for a in data recursive %}{% endfor %}", "a loop over"),
            ("\n{{ data.a|repeat(9) }}", "there is no filter repeat"),
            // A literal hides nothing.
            (
                "\n{{ \"}}\" ~ data.a|repeat }}",
                "there is no filter repeat",
            ),
            (
                "{# {{ #}\n{{ '\\'}}' ~ data.a|repeat }}",
                "there is no filter repeat",
            ),
        ] {
            let (line, problem) = refused(text).expect(text);
            assert_eq!(line, 2, "{text}");
            assert!(problem.contains(what), "{text}: {problem}");
        }
        let joined = format!("{{{{ data.a{} }}}}", "~ data.a".repeat(MOST_JOINED + 1));
        assert!(refused(&joined).is_some());
        assert!(refused(&"x".repeat(MOST_TEXT + 1)).is_some());
    }

    #[test]
    fn what_is_nested_too_deep_is_refused() {
        for text in [
            format!("{{{{ {}data.a }}}}", "not ".repeat(MOST_WORDS)),
            format!("{{{{ {}data.a }}}}", "-".repeat(MOST_WORDS)),
            format!("{{{{{}data.a }}}}", "-".repeat(MOST_WORDS)),
            format!("{{{{ data{} }}}}", ".a".repeat(MOST_WORDS)),
            format!("{{{{ data.a{} }}}}", "|trim".repeat(MOST_WORDS)),
            format!("{{{{ {}data.a }}}}", "(".repeat(MOST_DEPTH + 1)),
            format!("{{{{ data{} }}}}", "[data".repeat(MOST_DEPTH + 1)),
            "{% if data.a %}".repeat(MOST_DEPTH + 1),
            format!(
                "{{% if data.a %}}{}",
                "{% elif data.a %}".repeat(MOST_ELIFS + 1)
            ),
        ] {
            assert!(refused(&text).is_some(), "{text}");
        }
        let many = "{% if data.a %}{% elif data.b %}{% endif %}".repeat(MOST_ELIFS);
        assert_eq!(refused(&many), None);
    }
}
