//! `keytide status`: how mirrors and workloads stand. It decides anew, by what the daemon decides by, and reads no Secret's data.

pub(super) mod snapshot;

use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;

use self::snapshot::{Here, snapshot};
use super::Result;
use super::akv2k8s::Akv2k8sFlag;
use super::rotation::RotationFlags;
use super::table::aligned;
use crate::clock::ServerClock;
use crate::daemon::Clients;
use crate::rotation::Standing;

/// How often it is looked for something new to print.
const PAUSE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub struct Status {
    /// The namespace to look at; left out, that of the current context
    #[arg(long, short)]
    namespace: Option<String>,
    /// Look at all namespaces
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    all_namespaces: bool,
    /// How it is printed
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Print again whenever something has changed
    #[arg(long, short)]
    watch: bool,
    #[command(flatten)]
    akv2k8s: Akv2k8sFlag,
    #[command(flatten)]
    rotation: RotationFlags,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
enum Output {
    #[default]
    Table,
    Json,
}

/// How one object stands.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    namespace: String,
    kind: &'static str,
    name: String,
    #[serde(flatten)]
    standing: Standing,
}

impl Status {
    pub fn execute(self) -> Result {
        super::runtime()?.block_on(self.print())
    }

    async fn print(self) -> Result {
        let clock = ServerClock::default();
        let clients = Clients::new(&clock, None).await?;
        let namespace = match (self.namespace, self.all_namespaces) {
            (_, true) => None,
            (Some(namespace), _) => Some(namespace),
            (None, false) => Some(clients.config.default_namespace.clone()),
        };
        let mut printed = None;
        loop {
            let client = clients.watching.clone();
            let here = Here {
                client,
                namespace: namespace.as_deref(),
            };
            let in_place = self.akv2k8s.in_place();
            let snapshot = snapshot(&here, &clock, &self.rotation, in_place).await?;
            let rows = snapshot.rows().await?;
            let text = match self.output {
                Output::Table => table(&rows, namespace.is_none(), clock.now()),
                Output::Json => serde_json::to_string_pretty(&rows)?,
            };
            if printed.as_ref() != Some(&text) {
                println!("{text}");
                printed = Some(text);
            }
            if !self.watch {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

const COLUMNS: [&str; 6] = ["NAMESPACE", "KIND", "NAME", "STATE", "UNTIL", "WHY"];

/// The rows for people. A time that has come is none to wait for.
fn table(rows: &[Row], with_namespaces: bool, now: Timestamp) -> String {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let cells = |row: &Row| {
        let until = row.standing.until.filter(|until| *until > now);
        [
            row.namespace.clone(),
            row.kind.to_owned(),
            row.name.clone(),
            row.standing.state.to_string(),
            or_dash(until.map(|until| format!("{until:.0}"))),
            or_dash(row.standing.why.clone()),
        ]
    };
    let columns = if with_namespaces { 0..6 } else { 1..6 };
    let lines: Vec<_> = std::iter::once(COLUMNS.map(str::to_owned))
        .chain(rows.iter().map(cells))
        .map(|line| line[columns.clone()].to_vec())
        .collect();
    aligned(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rotation::State;

    fn rows() -> Vec<Row> {
        let at = Timestamp::from_second(100).expect("in range");
        let row = |name: &str, standing| Row {
            namespace: "web".to_owned(),
            kind: "Deployment",
            name: name.to_owned(),
            standing,
        };
        vec![
            row("a", Standing::new(State::Current, None, None)),
            row(
                "longer",
                Standing::new(State::Waiting, Some(at), Some("why".to_owned())),
            ),
        ]
    }

    #[test]
    fn the_table_is_as_wide_as_it_has_to_be() {
        let now = Timestamp::from_second(99).expect("in range");
        let expected = "\
KIND        NAME    STATE    UNTIL                 WHY
Deployment  a       current  -                     -
Deployment  longer  waiting  1970-01-01T00:01:40Z  why";
        assert_eq!(table(&rows(), false, now), expected);
        let later = Timestamp::from_second(100).expect("in range");
        let table = table(&rows(), true, later);
        assert!(table.starts_with("NAMESPACE  KIND"), "{table}");
        assert!(!table.contains("1970"), "{table}");
    }

    #[test]
    fn json_says_the_same() {
        let json = serde_json::to_value(rows()).expect("JSON");
        assert_eq!(
            json[0],
            serde_json::json!({"namespace": "web", "kind": "Deployment", "name": "a", "state": "current"})
        );
        assert_eq!(json[1]["until"], "1970-01-01T00:01:40Z");
    }
}
