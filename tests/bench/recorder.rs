//! Keeps what is found as soon as it is found, so that a run that is cut short leaves what it has.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::finding::Finding;
use super::report::Report;
use super::testbed::Result;

/// A run under way.
pub struct Recorder {
    report: Report,
    began: Instant,
    json: PathBuf,
    page: PathBuf,
}

impl Recorder {
    /// Begins a run whose report goes to these files.
    pub fn begin(report: Report, json: PathBuf, page: PathBuf) -> Self {
        Self {
            report,
            began: Instant::now(),
            json,
            page,
        }
    }

    /// Tells whoever watches.
    pub fn say(&self, text: &str) {
        eprintln!("bench: {:4} s: {text}", self.began.elapsed().as_secs());
    }

    /// Something was measured.
    pub fn found(&mut self, finding: Finding) -> Result<()> {
        self.say(&serde_json::to_string(&finding)?);
        self.report.add(finding, self.began.elapsed());
        self.write()
    }

    /// Something could not be measured.
    pub fn failed(&mut self, what: String) -> Result<()> {
        self.say(&what);
        self.report.failures.push(what);
        self.write()
    }

    /// What the run came to.
    pub fn end(self) -> Report {
        self.report
    }

    fn write(&self) -> Result<()> {
        write(&self.json, &serde_json::to_string_pretty(&self.report)?)?;
        write(&self.page, &self.report.page())
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?)
}
