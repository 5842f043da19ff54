//! What the daemon asked of the API server, by the API server's own account.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use serde::Deserialize;

/// The audit log of ServiceAccounts of namespace `keytide`, from a moment on.
#[derive(Clone, Debug)]
pub struct Audit {
    path: PathBuf,
    /// In bytes.
    begin: u64,
}

/// A request that was answered.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub verb: String,
    #[serde(rename = "requestURI")]
    pub uri: String,
    #[serde(rename = "objectRef")]
    pub about: Object,
    #[serde(rename = "responseStatus")]
    pub answer: Answer,
}

/// What a request was about. What it leaves out is empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Object {
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Answer {
    pub code: u16,
}

impl Request {
    /// Verb and resource, such as `patch keyvaultmirrors/status`.
    pub fn what(&self) -> String {
        let Object {
            resource,
            subresource,
            ..
        } = &self.about;
        match subresource.as_str() {
            "" => format!("{} {resource}", self.verb),
            subresource => format!("{} {resource}/{subresource}", self.verb),
        }
    }

    /// Whether it changed something.
    pub fn has_written(&self) -> bool {
        let writes = ["create", "update", "patch", "delete"].contains(&self.verb.as_str());
        writes && (200..300).contains(&self.answer.code)
    }
}

impl Audit {
    /// The log in this file, from now on.
    pub fn from_now(path: PathBuf) -> Self {
        let begin = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        Self { path, begin }
    }

    /// The requests so far, in the order of their answers. Watches are none: they go on.
    pub fn requests(&self) -> Vec<Request> {
        let parse = |line: &str| serde_json::from_str::<Request>(line).ok();
        let text = self.text().unwrap_or_default();
        // The last line may be half written, and what is about no object is of no interest.
        let requests = text.lines().filter_map(parse);
        requests.filter(|it| it.verb != "watch").collect()
    }

    fn text(&self) -> std::io::Result<String> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.begin))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
