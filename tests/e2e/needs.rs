//! What the machine must have, looked for before anything is built or started.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::Play;
use crate::sandbox::UNSHARE;

/// A program, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 6] = [
    ("/bin/bash", "bash"),
    ("/bin/busybox", "busybox-static"),
    ("/usr/bin/strip", "binutils"),
    ("/usr/bin/unshare", "util-linux"),
    ("/usr/lib/cni/ptp", "containernetworking-plugins"),
    ("/usr/sbin/runc", "runc"),
];

/// What the runners' image is made of besides.
const RUNNER_PROGRAMS: [(&str, &str); 3] = [
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/jq", "jq"),
    ("/usr/bin/pgrep", "procps"),
];

/// What is missing, for a person; nothing if all is there.
pub fn missing(play: Play) -> Vec<String> {
    if !rustix::process::geteuid().is_root() {
        return vec!["root: run it as root".to_owned()];
    }
    let for_runners = RUNNER_PROGRAMS.iter().filter(|_| play == Play::Keda);
    let programs = PROGRAMS
        .iter()
        .chain(for_runners)
        .filter(|(program, _)| !Path::new(program).exists())
        .map(|(program, package)| format!("{program}: install the package {package}"));
    let mut missing: Vec<String> = programs.collect();
    if !succeeds("buildah", &["--version"]) && !succeeds("docker", &["--version"]) {
        missing.push("buildah: install the package buildah (or docker)".to_owned());
    }
    if !succeeds("ip", &["-V"]) {
        missing.push("ip: install the package iproute2".to_owned());
        return missing;
    }
    let in_sandbox = |script| [UNSHARE, &["/bin/bash", "-c", script]].concat();
    if !succeeds("unshare", &in_sandbox("true")) {
        missing.push("a kernel that gives root new namespaces for mounts, network and processes (is this an unprivileged container?)".to_owned());
        return missing;
    }
    let features = [
        (
            "pairs of network interfaces (veth)",
            "ip link add name one type veth peer name two",
        ),
        (
            "overlay filesystems",
            "mount -t tmpfs none /mnt && mkdir /mnt/{l,u,w,m} && mount -t overlay none -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w /mnt/m",
        ),
        (
            "the cgroup controllers cpu, memory and pids",
            "for c in cpu memory pids; do test -d /sys/fs/cgroup/$c || grep -qw $c /sys/fs/cgroup/cgroup.controllers || exit 1; done",
        ),
    ];
    for (feature, script) in features {
        if !succeeds("unshare", &in_sandbox(script)) {
            missing.push(format!("a kernel with {feature}"));
        }
    }
    missing
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
