//! The book: its links lead somewhere, and what the source has to say to users is in it. Needs no cluster.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::CommandFactory;
use keytide::api::VaultRef;
use keytide::cli::Cli;
use keytide::telemetry::Metrics;
use keytide::vault::{Account, DnsSuffixes, Identity};

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");
const BOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/src");

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn page(name: &str) -> String {
    read(Path::new(BOOK).join(name))
}

/// The files below a folder that end in `extension`.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|end| end == extension) {
            found.push(path);
        }
    }
    found
}

/// What stands between each `start` and the next `end`.
fn between<'a>(text: &'a str, start: &str, end: &str) -> impl Iterator<Item = &'a str> {
    text.split(start)
        .skip(1)
        .filter_map(move |rest| Some(rest.split_once(end)?.0))
}

fn targets(text: &str) -> impl Iterator<Item = &str> {
    between(text, "](", ")").filter(|target| !target.contains("://"))
}

/// The anchors of a page's headings, as mdBook makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let anchor = |heading: &str| {
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        });
        kept.collect()
    };
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| anchor(line.trim_start_matches('#')))
        .collect()
}

/// What is missing, so that one run tells all of it.
#[track_caller]
fn none(missing: Vec<String>) {
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_page_is_in_the_summary_and_every_link_leads_somewhere() {
    let book = Path::new(BOOK);
    let mut broken = Vec::new();
    let mut pages = files(book, "md");
    pages.extend(["README.md", "CONTRIBUTING.md"].map(|name| Path::new(REPOSITORY).join(name)));
    for path in &pages {
        let text = read(path);
        let folder = path.parent().expect("a folder");
        for target in targets(&text) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let there = if file.is_empty() {
                path.clone()
            } else {
                folder.join(file)
            };
            let leads = there.exists()
                && (anchor.is_empty() || anchors(&read(&there)).contains(anchor))
                // What lies outside is not in the HTML.
                && (!path.starts_with(book) || !file.contains(".."));
            if !leads {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
        for included in between(&text, "{{#include ", "}}") {
            if !folder.join(included).exists() {
                broken.push(format!("{}: include {included}", path.display()));
            }
        }
    }
    let summary = page("SUMMARY.md");
    let listed: BTreeSet<PathBuf> = targets(&summary).map(|target| book.join(target)).collect();
    for path in files(book, "md") {
        if path.file_name().is_some_and(|name| name != "SUMMARY.md") && !listed.contains(&path) {
            broken.push(format!("{} is not in SUMMARY.md", path.display()));
        }
    }
    none(broken);
}

#[test]
fn every_condition_and_reason_has_its_row() {
    let source = read(Path::new(REPOSITORY).join("src/api/condition.rs"));
    let names: Vec<&str> = between(&source, ": &str = \"", "\"").collect();
    assert!(names.contains(&"Ready") && names.contains(&"Mirrored"));
    let text = page("conditions.md");
    let missing = names
        .iter()
        .filter(|name| !text.contains(&format!("\n| `{name}` |")));
    none(
        missing
            .map(|name| format!("conditions.md has no row of {name}"))
            .collect(),
    );
}

#[test]
fn every_name_under_keytide_dev_is_explained() {
    let mut names = BTreeSet::new();
    for path in files(&Path::new(REPOSITORY).join("src"), "rs") {
        let source = read(path);
        names.extend(
            between(&source, "\"keytide.dev/", "\"").map(|name| format!("keytide.dev/{name}")),
        );
    }
    assert!(names.contains("keytide.dev/rotate"), "{names:?}");
    let book: String = files(Path::new(BOOK), "md").iter().map(read).collect();
    let missing = names
        .iter()
        .filter(|name| !book.contains(&format!("`{name}")));
    none(missing.map(|name| format!("no page has {name}")).collect());
}

/// The exposed names of all metrics, as a scrape has them.
fn metrics() -> BTreeSet<String> {
    let suffixes: DnsSuffixes = "vault.azure.net".parse().expect("a suffix");
    let reference = VaultRef {
        name: Some("contoso".into()),
        url: None,
    };
    let vault = suffixes.host(&reference).expect("a host");
    let metrics = Metrics::default();
    // A metric without a series is not exposed.
    let account = Account {
        vault,
        identity: Identity::default(),
    };
    metrics.vault_request(&account.vault, "get", "ok");
    metrics.vault_state(&account, 1, true);
    metrics.vault_listed(Duration::from_secs(1));
    metrics.hint_request("receive", None);
    metrics.hint_received();
    metrics.hint_dropped("unwanted");
    metrics.hint_age(Duration::from_secs(1));
    metrics.reconciled("mirror", true);
    metrics.target_written("n");
    metrics.mirror_state("n", "m", true, true, true);
    metrics.rotated("n", "content", Some(1.0));
    metrics.rotation_states(
        &[("window", 1)],
        &[("failed", 1)],
        1,
        1,
        &[("Deployment", 1.0)],
    );
    metrics.rolled_out(1.0);
    let exposed: BTreeSet<String> = metrics
        .encode()
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| match kind {
            "counter" => format!("{name}_total"),
            _ => name.to_owned(),
        })
        .collect();
    let source = read(Path::new(REPOSITORY).join("src/telemetry/metrics.rs"));
    assert_eq!(
        exposed.len(),
        source.matches("registry.register").count(),
        "a metric has no series here: let this function make one"
    );
    exposed
}

#[test]
fn every_metric_has_its_row_and_no_page_has_others() {
    let metrics = metrics();
    let text = page("metrics.md");
    let unsaid = metrics
        .iter()
        .filter(|name| !text.contains(&format!("\n| `{name}` |")))
        .map(|name| format!("metrics.md has no row of {name}"));
    let book: String = files(Path::new(BOOK), "md").iter().map(read).collect();
    let words = book.split(|c: char| !c.is_alphanumeric() && c != '_');
    let untrue = words
        .filter(|word| word.starts_with("keytide_"))
        .filter(|word| {
            let series = ["_bucket", "_sum", "_count"];
            let base = series.iter().find_map(|end| word.strip_suffix(end));
            !metrics.contains(base.unwrap_or(word))
        })
        .map(|word| format!("there is no metric {word}"));
    none(unsaid.chain(untrue).collect());
}

#[test]
fn every_subcommand_and_flag_has_its_row() {
    let text = page("cli.md");
    let mut missing = Vec::new();
    for command in Cli::command().get_subcommands() {
        let heading = format!("\n## keytide {}\n", command.get_name());
        let section = between(&text, &heading, "\n## ")
            .next()
            .or_else(|| Some(text.split_once(&heading)?.1))
            .unwrap_or_default();
        if section.is_empty() {
            missing.push(format!("cli.md has no section{heading}"));
        }
        for argument in command.get_arguments() {
            let Some(long) = argument.get_long().filter(|long| *long != "help") else {
                continue;
            };
            let row = between(section, &format!("\n| `--{long}`"), "\n").next();
            let mut words: Vec<String> = Vec::new();
            if argument.get_action().takes_values() {
                let defaults = argument.get_default_values().iter();
                words.extend(defaults.map(|value| value.to_string_lossy().into_owned()));
                words.extend(
                    argument
                        .get_env()
                        .map(|name| name.to_string_lossy().into_owned()),
                );
                let values = argument.get_possible_values().into_iter();
                words.extend(values.map(|value| value.get_name().to_owned()));
            }
            let whole =
                row.is_some_and(|row| words.iter().all(|word| row.contains(&format!("`{word}`"))));
            if !whole {
                missing.push(format!("cli.md has no row of --{long} with {words:?}"));
            }
        }
    }
    none(missing);
}

#[test]
fn the_charts_have_every_value_that_the_book_lists() {
    let charts = [
        ("chart.md", "charts/keytide", "rotation.settle"),
        (
            "runners-values.md",
            "charts/keytide/charts/runners",
            "pools",
        ),
    ];
    let unknown = charts.into_iter().flat_map(|(page_name, chart, known)| {
        let values = read(Path::new(REPOSITORY).join(chart).join("values.yaml"));
        let values: serde_json::Value = serde_saphyr::from_str(&values).expect("YAML");
        let text = page(page_name);
        let (table, _) = text.split_once("\n## ").expect("the table comes first");
        let rows = between(table, "\n| `", " | ");
        let names: Vec<String> = rows
            .flat_map(|names| names.split(", "))
            .map(|name| name.trim_matches('`').to_owned())
            .collect();
        assert!(names.iter().any(|name| name == known));
        let is_unknown = move |name: &String| {
            let pointer = format!("/{}", name.replace('.', "/"));
            values.pointer(&pointer).is_none()
        };
        let unknown = names.into_iter().filter(is_unknown);
        unknown.map(move |name| format!("{chart} has no value {name}"))
    });
    none(unknown.collect());
}

/// The tests of this repository, as `file::test`; the file is that whose tests they are.
fn tests() -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for folder in ["src", "tests/it"] {
        for path in files(&Path::new(REPOSITORY).join(folder), "rs") {
            // Tests may lie in a file of their own, `plan_tests.rs` or `render/tests.rs`.
            let name = path.file_stem().expect("a name").to_string_lossy();
            let folder = path.parent().and_then(Path::file_name);
            let stem = match &*name {
                "tests" | "mod" => folder.expect("a folder").to_string_lossy(),
                _ => name.strip_suffix("_tests").unwrap_or(&name).into(),
            };
            let text = read(&path);
            let lines: Vec<&str> = text.lines().map(str::trim).collect();
            for pair in lines.windows(2) {
                let is_test = pair[0] == "#[test]" || pair[0].starts_with("#[tokio::test");
                let name = between(pair[1], "fn ", "(").next();
                tests.extend(
                    name.filter(|_| is_test)
                        .map(|name| format!("{stem}::{name}")),
                );
            }
        }
    }
    tests
}

#[test]
fn every_yes_of_the_comparison_names_a_test() {
    let tests = tests();
    let text = page("compared.md");
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| |"));
    let mut wrong = Vec::new();
    let mut count = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [feature, own, .., shown] = &cells[..] else {
            wrong.push(format!("not a row: {row}"));
            continue;
        };
        let named: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        let unknown = named.iter().filter(|name| !tests.contains(**name));
        wrong.extend(unknown.map(|name| format!("{feature}: there is no test {name}")));
        let is_yes = own.starts_with("yes");
        count += usize::from(is_yes);
        if is_yes == named.is_empty() || !(is_yes || *own == "no") {
            wrong.push(format!("{feature}: {own} is shown by {named:?}"));
        }
    }
    assert!(count > 20, "the table is not found");
    none(wrong);
}

#[test]
fn every_variable_that_a_runner_is_given_has_its_row() {
    let templates = Path::new(REPOSITORY).join("charts/keytide/charts/runners/templates");
    let agent = read(templates.join("_agent.tpl"));
    let text = page("runners-values.md");
    let names = between(&agent, "- name: ", "\n").filter(|name| {
        let capital = |c: char| c.is_ascii_uppercase() || c == '_';
        name.chars().all(capital) && !name.starts_with("AZURE_")
    });
    let missing = names.filter(|name| !text.contains(&format!("`{name}`")));
    none(
        missing
            .map(|name| format!("runners-values.md has no {name}"))
            .collect(),
    );
}
