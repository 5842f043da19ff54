//! What `keytide plan` prints.

use serde::Serialize;

use crate::cli::table::aligned;
use crate::mirror::{KeyChange, KeyPreview, KeyVersion, Preview, TargetChange};
use crate::rotation::{Outlook, Restart};

/// Of a digest, enough to tell one from another.
const DIGEST: usize = 8;

/// All that would be done. Its JSON is an interface: fields may be added, and are not renamed or removed.
#[derive(Debug, Serialize)]
pub struct Report {
    pub differences: bool,
    pub targets: Vec<TargetRow>,
    pub workloads: Vec<WorkloadRow>,
    pub errors: Vec<Problem>,
}

/// What would become of a target by one mirror.
#[derive(Debug, Serialize)]
pub struct TargetRow {
    namespace: String,
    kind: &'static str,
    name: String,
    mirror: String,
    change: TargetChange,
    keys: Vec<KeyPreview>,
}

/// What would become of a workload.
#[derive(Debug, Serialize)]
pub struct WorkloadRow {
    pub namespace: String,
    pub kind: &'static str,
    pub name: String,
    #[serde(flatten)]
    pub outlook: Outlook,
}

/// Why something can't be told.
#[derive(Debug, Serialize)]
pub struct Problem {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub kind: String,
    pub name: String,
    /// As the conditions have it, or as the API server says.
    pub reason: String,
    pub message: String,
}

impl Problem {
    /// The API server does not take an object.
    pub fn of_error(
        namespace: Option<String>,
        kind: String,
        name: String,
        error: &kube::Error,
    ) -> Self {
        let (reason, message) = match error {
            kube::Error::Api(status) => (status.reason.clone(), status.message.clone()),
            error => ("ApiServerError".to_owned(), error.to_string()),
        };
        Self {
            namespace,
            kind,
            name,
            reason,
            message,
        }
    }

    /// The same as one line.
    pub fn sentence(&self) -> String {
        let Self {
            kind,
            name,
            reason,
            message,
            ..
        } = self;
        let namespace = self
            .namespace
            .as_ref()
            .map(|namespace| format!("{namespace}/"));
        let namespace = namespace.unwrap_or_default();
        format!("{kind} {namespace}{name}: {reason}: {message}")
    }
}

impl From<Preview> for TargetRow {
    fn from(preview: Preview) -> Self {
        Self {
            namespace: preview.namespace,
            kind: preview.target.kind.as_str(),
            name: preview.target.name,
            mirror: preview.mirror,
            change: preview.change,
            keys: preview.keys,
        }
    }
}

impl Report {
    /// Puts together what there is to tell.
    pub fn new(previews: Vec<Preview>, workloads: Vec<WorkloadRow>, errors: Vec<Problem>) -> Self {
        let mut targets: Vec<TargetRow> = previews.into_iter().map(TargetRow::from).collect();
        targets.sort_by(|a, b| a.place().cmp(&b.place()));
        let unchanged = |target: &TargetRow| target.change == TargetChange::Unchanged;
        let stays = |workload: &WorkloadRow| workload.outlook.restart == Restart::No;
        Self {
            differences: !(targets.iter().all(unchanged) && workloads.iter().all(stays)),
            targets,
            workloads,
            errors,
        }
    }

    /// As text: a line for each key, and one for each workload.
    pub fn text(&self) -> String {
        let targets = self.targets.iter().flat_map(TargetRow::lines).collect();
        let workloads = self.workloads.iter().map(WorkloadRow::line).collect();
        let tables = [
            table(
                &[
                    "NAMESPACE",
                    "TARGET",
                    "KEY",
                    "CHANGE",
                    "BEFORE",
                    "AFTER",
                    "OBJECT",
                ],
                targets,
            ),
            table(
                &["NAMESPACE", "KIND", "NAME", "RESTART", "UNTIL", "WHY"],
                workloads,
            ),
        ];
        tables
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join("\n\n")
    }
}

/// None of no lines.
fn table(columns: &[&str], lines: Vec<Vec<String>>) -> Option<String> {
    if lines.is_empty() {
        return None;
    }
    let head = columns.iter().map(|column| (*column).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(lines).collect();
    Some(aligned(&lines))
}

impl TargetRow {
    fn place(&self) -> (&str, &str, &str) {
        (&self.namespace, &self.name, &self.mirror)
    }

    fn lines(&self) -> Vec<Vec<String>> {
        let line = |rest: [String; 5]| {
            let target = format!("{}/{}", self.kind, self.name);
            [vec![self.namespace.clone(), target], rest.to_vec()].concat()
        };
        let dash = || "-".to_owned();
        let of_key = |key: &KeyPreview| {
            line([
                key.key.clone(),
                word(key.change).to_owned(),
                cell(key.before.as_ref()),
                cell(key.after.as_ref()),
                key.object.clone(),
            ])
        };
        let is_told = |key: &KeyPreview| key.change != KeyChange::Unchanged;
        // What no key tells of.
        let own = match self.change {
            TargetChange::Deleted => Some("deleted"),
            TargetChange::Changed if !self.keys.iter().any(is_told) => Some("changed"),
            _ => None,
        };
        let own = own.map(|word| line([dash(), word.to_owned(), dash(), dash(), dash()]));
        own.into_iter()
            .chain(self.keys.iter().map(of_key))
            .collect()
    }
}

impl WorkloadRow {
    fn line(&self) -> Vec<String> {
        let until = self.outlook.until.map(|until| format!("{until:.0}"));
        vec![
            self.namespace.clone(),
            self.kind.to_owned(),
            self.name.clone(),
            self.outlook.restart.to_string(),
            until.unwrap_or_else(|| "-".to_owned()),
            self.outlook.why.clone(),
        ]
    }
}

fn word(change: KeyChange) -> &'static str {
    match change {
        KeyChange::Created => "created",
        KeyChange::Changed => "changed",
        KeyChange::Removed => "removed",
        KeyChange::Unchanged => "unchanged",
    }
}

/// Version, and the beginning of the digest.
fn cell(version: Option<&KeyVersion>) -> String {
    let Some(KeyVersion { version, digest }) = version else {
        return "-".to_owned();
    };
    match digest {
        Some(digest) => {
            let digest: String = digest.chars().take(DIGEST).collect();
            format!("{version}/{digest}")
        }
        None => version.clone(),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn version(version: &str) -> Option<KeyVersion> {
        Some(KeyVersion {
            version: version.to_owned(),
            digest: Some("0123456789".to_owned()),
        })
    }

    fn target(change: TargetChange, keys: Vec<KeyPreview>) -> TargetRow {
        TargetRow {
            namespace: "web".to_owned(),
            kind: "Secret",
            name: "db".to_owned(),
            mirror: "m".to_owned(),
            change,
            keys,
        }
    }

    fn key(name: &str, change: KeyChange) -> KeyPreview {
        KeyPreview {
            key: name.to_owned(),
            change,
            object: "contoso.vault.azure.net/secrets/s".to_owned(),
            before: version("1"),
            after: version("2").filter(|_| change != KeyChange::Removed),
        }
    }

    fn report(targets: Vec<TargetRow>, restart: Option<Restart>) -> Report {
        let workload = |restart| WorkloadRow {
            namespace: "web".to_owned(),
            kind: "Deployment",
            name: "d".to_owned(),
            outlook: Outlook {
                restart,
                until: Some(Timestamp::UNIX_EPOCH),
                why: "because".to_owned(),
            },
        };
        let workloads = restart.map(workload).into_iter().collect();
        Report {
            targets,
            ..Report::new(Vec::new(), workloads, Vec::new())
        }
    }

    #[test]
    fn there_is_a_line_for_each_key_and_each_workload() {
        let keys = vec![key("a", KeyChange::Changed), key("b", KeyChange::Removed)];
        let report = report(
            vec![target(TargetChange::Changed, keys)],
            Some(Restart::Later),
        );
        let expected = "\
NAMESPACE  TARGET     KEY  CHANGE   BEFORE      AFTER       OBJECT
web        Secret/db  a    changed  1/01234567  2/01234567  contoso.vault.azure.net/secrets/s
web        Secret/db  b    removed  1/01234567  -           contoso.vault.azure.net/secrets/s

NAMESPACE  KIND        NAME  RESTART  UNTIL                 WHY
web        Deployment  d     later    1970-01-01T00:00:00Z  because";
        assert_eq!(report.text(), expected);
        assert!(report.differences);
    }

    #[test]
    fn what_no_key_tells_of_has_a_line_of_its_own() {
        for (change, word) in [
            (TargetChange::Changed, "changed"),
            (TargetChange::Deleted, "deleted"),
        ] {
            let target = target(change, vec![key("a", KeyChange::Unchanged)]);
            let lines = target.lines();
            assert_eq!(lines[0][2..4], ["-", word]);
            assert_eq!(lines.len(), 2);
        }
        let unchanged = target(
            TargetChange::Unchanged,
            vec![key("a", KeyChange::Unchanged)],
        );
        assert_eq!(unchanged.lines().len(), 1);
    }

    #[test]
    fn a_restart_alone_is_a_difference() {
        assert!(!report(Vec::new(), None).differences);
        assert!(!report(Vec::new(), Some(Restart::No)).differences);
        for restart in [Restart::Yes, Restart::Later, Restart::Held] {
            assert!(report(Vec::new(), Some(restart)).differences);
        }
    }

    #[test]
    fn json_has_the_fields_that_the_book_promises() {
        let mut report = report(
            vec![target(
                TargetChange::Created,
                vec![key("a", KeyChange::Created)],
            )],
            Some(Restart::Yes),
        );
        report.errors.push(Problem {
            namespace: None,
            kind: "KeyVaultGrant".to_owned(),
            name: "g".to_owned(),
            reason: "Invalid".to_owned(),
            message: "why".to_owned(),
        });
        let version = |version: &str| json!({"version": version, "digest": "0123456789"});
        let expected = json!({
            "differences": true,
            "targets": [{
                "namespace": "web", "kind": "Secret", "name": "db", "mirror": "m", "change": "created",
                "keys": [{
                    "key": "a", "change": "created", "object": "contoso.vault.azure.net/secrets/s",
                    "before": version("1"), "after": version("2"),
                }],
            }],
            "workloads": [{
                "namespace": "web", "kind": "Deployment", "name": "d", "restart": "yes",
                "until": "1970-01-01T00:00:00Z", "why": "because",
            }],
            "errors": [{"kind": "KeyVaultGrant", "name": "g", "reason": "Invalid", "message": "why"}],
        });
        assert_eq!(serde_json::to_value(&report).expect("JSON"), expected);
        assert_eq!(report.errors[0].sentence(), "KeyVaultGrant g: Invalid: why");
    }
}
