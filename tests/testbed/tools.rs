//! The programs that the testbed runs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::Result;

/// Where a tool lies: in the folder that `KUBEBUILDER_ASSETS` names (setup-envtest's convention) or else among the
/// pinned ones, which are built at the first need.
pub fn tool(name: &str) -> Result<PathBuf> {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    match assets.map(|folder| folder.join(name)) {
        Some(path) if path.exists() => Ok(path),
        _ => Ok(pinned()?.join(name)),
    }
}

/// `build.sh` knows the folder and answers at once when all is built: asked every time, it can't be out of date.
fn pinned() -> Result<&'static Path> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let output = Command::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/testbed/build.sh"
        ))
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("tests/testbed/build.sh: {error}"))?;
        if !output.status.success() {
            return Err(format!("tests/testbed/build.sh: {}", output.status));
        }
        let stdout = String::from_utf8_lossy(&output.stdout);
        let folder = stdout
            .lines()
            .last()
            .ok_or("tests/testbed/build.sh: no folder printed")?;
        Ok(PathBuf::from(folder))
    });
    Ok(folder.as_deref().map_err(Clone::clone)?)
}
