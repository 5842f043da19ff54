//! A cluster that outlives the program that starts it, for `make cluster`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Result;
use super::cluster::Cluster;
use super::nodes::Nodes;
use super::process::{Identity, Lifetime, Process, boot_id};
use super::wait::within;

/// What is started from one folder. Every process is on record in its `state.json` from the moment that it exists.
#[derive(Debug)]
pub struct Standing {
    folder: PathBuf,
    /// Locked, so that two callers wait for each other.
    _lock: File,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    boot_id: String,
    /// Whether the start came to its end.
    complete: bool,
    processes: Vec<Recorded>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Recorded {
    name: String,
    #[serde(flatten)]
    identity: Identity,
}

impl Standing {
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let folder = folder.canonicalize()?;
        let lock = File::create(folder.join("lock"))?;
        lock.lock()?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Starts it; `false` if it was up already. What is left of one that is not whole is ended first.
    pub async fn up(&self) -> Result<bool> {
        let state = self.state()?;
        if state.complete
            && state
                .processes
                .iter()
                .all(|recorded| recorded.identity.is_running())
        {
            return Ok(false);
        }
        self.down().await?;
        let mut state = State {
            boot_id: boot_id()?,
            ..State::default()
        };
        let mut record = |process: &Process| {
            let name = process.name.clone();
            state.processes.push(Recorded {
                name,
                identity: process.identity()?,
            });
            self.write(&state)
        };
        Cluster::start_as(&self.folder, &Nodes::Fake, Lifetime::Detached, &mut record).await?;
        state.complete = true;
        self.write(&state)?;
        Ok(true)
    }

    /// Ends exactly the processes on record and says which those were.
    pub async fn down(&self) -> Result<Vec<String>> {
        let state = self.state()?;
        let mut ended = Vec::new();
        for Recorded { name, identity } in state.processes.iter().rev() {
            if identity.is_running() {
                identity.kill()?;
                within(Duration::from_secs(30), name, async || {
                    match identity.is_running() {
                        true => Err("still runs after SIGKILL".into()),
                        false => Ok(()),
                    }
                })
                .await?;
                ended.push(name.clone());
            }
        }
        self.write(&State::default())?;
        Ok(ended)
    }

    /// Empty if nothing is on record, or if the machine was started anew since: then nothing of it can run, and its
    /// start times mean something else.
    fn state(&self) -> Result<State> {
        let file = self.file();
        if !file.exists() {
            return Ok(State::default());
        }
        let state: State = serde_json::from_slice(&fs::read(&file)?)
            .map_err(|error| format!("{}: {error}", file.display()))?;
        Ok(if state.boot_id == boot_id()? {
            state
        } else {
            State::default()
        })
    }

    /// Under another name first, so that nobody ever reads half of it.
    fn write(&self, state: &State) -> Result<()> {
        let new = self.folder.join("state.json.new");
        fs::write(&new, serde_json::to_vec_pretty(state)?)?;
        Ok(fs::rename(new, self.file())?)
    }

    fn file(&self) -> PathBuf {
        self.folder.join("state.json")
    }
}
