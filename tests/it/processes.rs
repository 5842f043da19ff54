//! What the testbed promises about the processes that it starts.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::testbed::daemon::Daemon;
use crate::testbed::process::{Identity, Lifetime, Process};
use crate::testbed::tools::tool;
use crate::testbed::{eventually, shared};

/// Serves `/readyz` and ends with exit code 7 on SIGTERM.
const STAND_IN: &str = r#"
import http.server, signal, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
        self.wfile.write(b"ready")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
host, port = sys.argv[sys.argv.index("--listen") + 1].split(":")
print("serving", flush=True)
http.server.HTTPServer((host, int(port)), Ready).serve_forever()
"#;

fn stand_in(log: &Path) -> Daemon {
    let path = env::var("PATH").expect("a PATH");
    let python = ["python3", "-c", STAND_IN];
    Daemon::start(Path::new("/usr/bin/env"), &python, &[("PATH", &path)], log).expect("started")
}

#[tokio::test]
async fn a_daemon_is_waited_for_asked_and_ended_in_order() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut daemon = stand_in(&folder.path().join("log"));
    daemon.wait_ready().await.expect("ready");
    assert_eq!(
        daemon.get("/readyz").await.expect("an answer"),
        (200, "ready".into())
    );
    assert!(daemon.log().contains("serving"));
    assert_eq!(daemon.terminate().await.expect("an exit code"), 7);
}

#[tokio::test]
async fn a_daemon_that_is_killed_answers_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut daemon = stand_in(&folder.path().join("log"));
    daemon.wait_ready().await.expect("ready");
    daemon.kill();
    assert!(daemon.get("/readyz").await.is_err());
}

#[tokio::test]
async fn a_daemon_that_ends_instead_of_getting_ready_is_reported_with_its_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = Path::new(env!("CARGO_BIN_EXE_keytide"));
    let log = folder.path().join("log");
    let mut daemon = Daemon::start(program, &["no-such-command"], &[], &log).expect("started");
    let error = daemon
        .wait_ready()
        .await
        .expect_err("not ready")
        .to_string();
    assert!(error.contains("exit code 2"), "{error}");
    assert!(error.contains("no-such-command"), "{error}");
}

/// Runs one test of this program in a program of its own.
fn run_alone(test: &str, variable: (&str, &Path)) -> String {
    let output = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .env(variable.0, variable.1)
        .output()
        .expect("started");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains("1 passed"), "{said}");
    said
}

#[test]
fn tools_of_kubebuilder_assets_come_before_the_pinned_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let kubectl = folder.path().join("kubectl");
    std::fs::write(&kubectl, "").expect("written");
    let test = "processes::says_where_the_tools_are";
    let said = run_alone(test, ("KUBEBUILDER_ASSETS", folder.path()));
    let shown = kubectl.display().to_string();
    assert!(said.lines().any(|line| line == shown), "{said}");
    // What is not there is pinned.
    assert!(
        said.lines()
            .any(|line| line.ends_with("/kwok") && !line.starts_with(&shown)),
        "{said}"
    );
}

#[test]
#[ignore = "the part of another test that runs in a program of its own"]
fn says_where_the_tools_are() {
    for name in ["kubectl", "kwok"] {
        println!("{}", tool(name).expect("a tool").display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tests_run_in_a_cluster_that_is_there_and_leave_it_alone() {
    let kubeconfig = shared().await.kubeconfig();
    let test = "control_plane::a_service_account_may_do_only_what_it_was_granted";
    let variable = ("KEYTIDE_TEST_KUBECONFIG", kubeconfig);
    tokio::task::block_in_place(|| run_alone(test, variable));
    let version = shared().await.client().await.apiserver_version().await;
    version.expect("it is still there");
}

#[tokio::test]
async fn a_process_goes_even_when_the_program_that_started_it_is_killed() {
    let mut starter = Command::new(env::current_exe().expect("this program"))
        .args([
            "--exact",
            "processes::starts_a_process_and_waits",
            "--ignored",
            "--nocapture",
        ])
        .env("KEYTIDE_TEST_STARTER", "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let output = BufReader::new(starter.stdout.take().expect("piped"));
    let pid = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("started ")?.1.trim().parse().ok())
        .expect("the process's number");
    let process = Identity::of(pid).expect("it runs");

    starter.kill().expect("killed");
    starter.wait().expect("gone");

    eventually(Duration::from_secs(10), "the process is gone", async || {
        if process.is_running() {
            Err(format!("{pid} runs"))
        } else {
            Ok(())
        }
    })
    .await;
}

#[test]
#[ignore = "the part of another test that runs in a program of its own"]
fn starts_a_process_and_waits() {
    if env::var_os("KEYTIDE_TEST_STARTER").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut sleep = Command::new("sleep");
    sleep.arg("600");
    let log = folder.path().join("log");
    let mut process = Process::start("sleep", sleep, &log, Lifetime::Tied).expect("started");
    println!("started {}", process.identity().expect("it runs").pid);
    while process.ended().is_none() {
        std::thread::park_timeout(Duration::from_secs(1));
    }
}
