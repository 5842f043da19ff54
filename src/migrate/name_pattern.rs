//! Regular expressions over names: External Secrets looks for them anywhere in a name, and mirrors for whole names.

use regex::Regex;

pub(super) fn is_valid(pattern: &str) -> bool {
    Regex::new(pattern).is_ok()
}

/// The pattern of the whole names in which this one is found.
pub(super) fn whole(pattern: &str) -> String {
    let repeats = |rest: &str| rest.starts_with(['*', '+', '?', '{']);
    if pattern.contains('|') || pattern.strip_prefix('^').is_some_and(repeats) {
        return format!(".*(?:{pattern}).*");
    }
    let (start, pattern) = match pattern.strip_prefix('^') {
        Some(rest) => ("", rest),
        None => (".*", pattern),
    };
    let (pattern, end) = match pattern.strip_suffix('$') {
        Some(rest) if !rest.ends_with('\\') => (rest, ""),
        _ => (pattern, ".*"),
    };
    format!("{start}{pattern}{end}")
}

/// What Go makes of `source`, which must be a whole name, by `target`; if a mirror can say it.
pub(super) fn rename(source: &str, target: &str) -> Option<String> {
    let is_whole = source.starts_with('^') && source.ends_with('$') && !source.contains('|');
    let groups = Regex::new(source).ok().filter(|_| is_whole)?;
    let is_group = |name: &str| match name.parse::<usize>() {
        Ok(number) => number < groups.captures_len(),
        Err(_) => groups.capture_names().flatten().any(|group| group == name),
    };
    let (mut rename, mut rest) = (String::new(), target);
    while let Some((text, after)) = rest.split_once('$') {
        rename.push_str(text);
        if let Some(after) = after.strip_prefix('$') {
            rename.push_str("$$");
            rest = after;
            continue;
        }
        let (name, after) = match after.strip_prefix('{') {
            Some(after) => after.split_once('}')?,
            None => {
                let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let end = after.find(|c| !is_word(c)).unwrap_or(after.len());
                after.split_at(end)
            }
        };
        if !is_group(name) {
            return None;
        }
        rename.push_str(&format!("${{{name}}}"));
        rest = after;
    }
    Some(rename + rest)
}

/// What all names begin with that a whole-name pattern means: its literal start.
pub(super) fn start(pattern: &str) -> &str {
    if pattern.contains('|') {
        return "";
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let end = pattern.find(|c| !is_name(c)).unwrap_or(pattern.len());
    // A quantifier is about the last character, which then need not be there.
    match pattern[end..].starts_with(['?', '*', '{']) {
        true => &pattern[..end.saturating_sub(1)],
        false => &pattern[..end],
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_that_is_found_anywhere_is_one_of_whole_names() {
        for (anywhere, expected) in [
            ("^example", "example.*"),
            ("example$", ".*example"),
            ("^a-(.*)$", "a-(.*)"),
            ("db", ".*db.*"),
            ("^a|b$", ".*(?:^a|b$).*"),
            (r"a\$", r".*a\$.*"),
        ] {
            assert_eq!(whole(anywhere), expected);
        }
    }

    #[test]
    fn what_go_rewrites_is_renamed_where_that_is_the_same() {
        let groups = "^(?P<team>[a-z]+)-(.*)$";
        for (source, target, expected) in [
            (groups, "$1.$2", Some("${1}.${2}")),
            (groups, "${team}_$$", Some("${team}_$$")),
            // In Go this is the group `1_x`, which is not there.
            (groups, "$1_x", None),
            (groups, "$3", None),
            (groups, "$", None),
            ("^(.*)", "$1", None),
        ] {
            assert_eq!(rename(source, target).as_deref(), expected, "{target}");
        }
    }

    #[test]
    fn a_grant_is_for_what_all_names_begin_with() {
        for (pattern, expected) in [
            ("example.*", "example"),
            ("team-a-(.*)", "team-a-"),
            ("ab?c", "a"),
            ("a|b", ""),
            (".*", ""),
            ("", ""),
        ] {
            assert_eq!(start(pattern), expected, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn whole_names_are_those_in_which_it_is_found(pattern in r"\^?[ab.]{0,3}[*?|]?[ab]{0,2}\$?", name in "[ab-]{1,6}") {
            if let Ok(anywhere) = Regex::new(&pattern) {
                let whole = whole(&pattern);
                let fits = Regex::new(&format!("^(?:{whole})$")).expect("still a pattern");
                prop_assert_eq!(fits.is_match(&name), anywhere.is_match(&name), "{}", whole);
                if fits.is_match(&name) {
                    prop_assert!(name.starts_with(start(&whole)), "{}", whole);
                }
            }
        }
    }
}
