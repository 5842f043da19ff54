//! The images that the Pods run, built without a registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::testbed::Result;
use crate::testbed::azure_devops::AGENT;
use crate::testbed::process::{Lifetime, spawn};

/// References that the manifests use.
pub const DAEMON: &str = "docker.io/library/keytide:e2e";
pub const WORKLOAD: &str = "docker.io/library/workload:e2e";
pub const RUNNER: &str = "docker.io/library/runner:e2e";

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/image.sh");
const WORKLOAD_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/workload/Dockerfile");
const RUNNER_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/runner/Dockerfile");
const ENTRYPOINT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/runner");

/// What the entrypoint and the stub of the agent call: programs of this machine, in /usr/bin.
const RUNNER_PROGRAMS: [&str; 18] = [
    "base64", "bash", "cat", "cp", "curl", "dirname", "env", "grep", "head", "id", "jq", "mkdir",
    "mktemp", "pgrep", "rm", "setsid", "sleep", "touch",
];

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

/// Builds the runners' image: the real entrypoint with a stub of the agent, since there is no registry to have the
/// image's base from.
pub fn build_runner(folder: &Path) -> Result<PathBuf> {
    let context = folder.join("runner-image");
    let root = context.join("rootfs");
    for program in RUNNER_PROGRAMS {
        copy_with_libraries(&root, &Path::new("/usr/bin").join(program))?;
    }
    std::os::unix::fs::symlink("usr/bin", root.join("bin"))?;
    for name in ["entrypoint.sh", "azure-devops.sh"] {
        copy(
            &Path::new(ENTRYPOINT).join(name),
            &root.join("runner").join(name),
        )?;
    }
    copy_folder(Path::new(AGENT), &context.join("agent"))?;
    for name in ["tmp", "work"] {
        fs::create_dir_all(context.join("writable").join(name))?;
    }
    fs::copy(RUNNER_FILE, context.join("Dockerfile"))?;
    build(&context, "runner:e2e", folder.join("runner-image.tar"))
}

/// Copies a program, and the libraries that it is linked with, to the same paths below `root`.
fn copy_with_libraries(root: &Path, program: &Path) -> Result<()> {
    let output = Command::new("ldd").arg(program).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let libraries = said.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.map(Path::new).chain([program]) {
        copy(path, &root.join(path.strip_prefix("/")?))?;
    }
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            copy(&entry.path(), &target)?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().ok_or("a file is in a folder")?)?;
    fs::copy(from, to).map_err(|error| format!("{}: {error}", from.display()))?;
    Ok(())
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
