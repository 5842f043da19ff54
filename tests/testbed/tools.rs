//! The programs that the testbed runs.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::Result;

/// Where a tool lies that every test needs: in the folder that `KUBEBUILDER_ASSETS` names (setup-envtest's convention) or else among the
/// pinned ones, which are built at the first need.
pub fn tool(name: &str) -> Result<PathBuf> {
    let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    match assets.map(|folder| folder.join(name)) {
        Some(path) if path.exists() => Ok(path),
        _ => {
            static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
            Ok(pinned(&FOLDER, &[])?.join(name))
        }
    }
}

/// Where a tool lies that only a real node needs.
pub fn node_tool(name: &str) -> Result<PathBuf> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    Ok(pinned(&FOLDER, &["node"])?.join(name))
}

/// Where a tool lies that only KEDA needs, or its folder `keda-crds`.
pub fn keda_tool(name: &str) -> Result<PathBuf> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    Ok(pinned(&FOLDER, &["keda"])?.join(name))
}

/// `build.sh` knows the folder and answers at once when all is built: asked every time, it can't be out of date.
fn pinned(
    folder: &'static OnceLock<Result<PathBuf, String>>,
    arguments: &[&str],
) -> Result<&'static Path> {
    let folder = folder.get_or_init(|| {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/testbed/build.sh");
        let output = Command::new(script)
            .args(arguments)
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| format!("{script}: {error}"))?;
        if !output.status.success() {
            return Err(format!("{script}: {}", output.status));
        }
        let stdout = String::from_utf8_lossy(&output.stdout);
        let folder = stdout
            .lines()
            .last()
            .ok_or_else(|| format!("{script}: no folder printed"))?;
        Ok(PathBuf::from(folder))
    });
    Ok(folder.as_deref().map_err(Clone::clone)?)
}
