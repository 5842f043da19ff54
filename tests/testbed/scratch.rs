//! A folder of its own for each run of the tests. It is left when the run ends, for its logs; the next run removes it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::Result;

/// Which folder a run writes to, for as long as this value lives.
#[derive(Debug)]
pub struct Scratch {
    pub folder: PathBuf,
    /// Locked: by this another run sees that the folder is in use, even from another container.
    _lock: File,
}

impl Scratch {
    pub fn create(parent: &Path) -> Result<Self> {
        fs::create_dir_all(parent)?;
        // Nobody looks around while another one is between creating a folder and locking it.
        let parent_lock = File::create(parent.join("lock"))?;
        parent_lock.lock()?;

        let mut number = 0;
        for entry in fs::read_dir(parent)? {
            let entry = entry?.path();
            let Some(seen) = entry
                .file_name()
                .and_then(|name| name.to_str()?.parse::<u32>().ok())
            else {
                continue;
            };
            number = number.max(seen);
            if File::create(entry.join("lock"))?.try_lock().is_ok() {
                fs::remove_dir_all(&entry)?;
            }
        }
        let folder = parent.join((number + 1).to_string());
        fs::create_dir(&folder)?;
        let lock = File::create(folder.join("lock"))?;
        lock.lock()?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }
}
