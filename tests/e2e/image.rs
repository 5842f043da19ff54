//! The images that the Pods run, built without a registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::testbed::Result;
use crate::testbed::process::{Lifetime, spawn};

/// References that the manifests use.
pub const DAEMON: &str = "docker.io/library/keytide:e2e";
pub const WORKLOAD: &str = "docker.io/library/workload:e2e";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/image.sh");
const WORKLOAD_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/workload/Dockerfile");

/// Builds the daemon's image, by default with the program that Cargo built beside this one, so that nothing is compiled
/// twice.
pub fn build_daemon(program: Option<&Path>, folder: &Path) -> Result<PathBuf> {
    let program = match program {
        Some(program) => program.to_owned(),
        // Cargo puts examples one folder below the programs.
        None => std::env::current_exe()?
            .ancestors()
            .nth(2)
            .ok_or("this program is in no folder")?
            .join("keytide"),
    };
    let context = folder.join("daemon-image");
    run(&[
        "stage",
        &program.display().to_string(),
        &context.display().to_string(),
    ])?;
    build(&context, "keytide:e2e", folder.join("daemon-image.tar"))
}

/// Builds an image with a shell.
pub fn build_workload(folder: &Path) -> Result<PathBuf> {
    let context = folder.join("workload-image");
    let programs = context.join("rootfs/bin");
    fs::create_dir_all(&programs)?;
    fs::copy(WORKLOAD_FILE, context.join("Dockerfile"))?;
    fs::copy("/bin/busybox", programs.join("busybox"))?;
    for name in ["sh", "sleep"] {
        std::os::unix::fs::symlink("busybox", programs.join(name))?;
    }
    build(&context, "workload:e2e", folder.join("workload-image.tar"))
}

fn build(context: &Path, tag: &str, archive: PathBuf) -> Result<PathBuf> {
    run(&[
        "build",
        &context.display().to_string(),
        tag,
        &archive.display().to_string(),
        "VERSION=e2e",
        "REVISION=e2e",
    ])?;
    Ok(archive)
}

fn run(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(SCRIPT);
    command.args(arguments);
    let status = spawn(command, Lifetime::Tied)?.wait()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("deploy/image.sh {}: {status}", arguments[0]).into())
    }
}
