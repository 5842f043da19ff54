//! Figures for the docs, of one installation: how soon it is ready, and how much memory it takes.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use serde_json::Value;

use crate::scene::{DEADLINE, Scene, mirror};
use crate::testbed::Result;
use crate::testbed::system::RELEASE;
use crate::testbed::wait::within;

const MIRRORS: usize = 100;
/// Between two looks at a figure that has to come to rest.
const PAUSE: Duration = Duration::from_secs(5);

pub async fn print(scene: &Scene) -> Result<()> {
    scene
        .install(&["--wait", "--timeout=3m", "--set", "log.format=json"])
        .await?;
    let pod = scene.daemons().await?.first().map(ResourceExt::name_any);
    let log = scene
        .kubectl(&[
            "logs",
            "--namespace",
            RELEASE,
            &pod.ok_or("no daemon's Pod")?,
        ])
        .await?;
    let ready = seconds_between(&log, "keytide starts", "ready")?;
    println!("from start to ready: {ready:.2} s");
    println!(
        "resident memory, idle: {:.1} MiB",
        resident_at_rest().await?
    );

    let namespace = scene.namespace("figures").await;
    for number in 0..MIRRORS {
        let secret = format!("figure-{number}");
        scene.set(&secret, "value")?;
        let mut manifest = mirror(&secret);
        manifest["metadata"]["name"] = secret.clone().into();
        manifest["spec"]["target"]["name"] = secret.into();
        scene.apply(&namespace, &manifest).await?;
    }
    within(DEADLINE, "all mirrors are Ready", async || {
        let columns = "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}";
        let states = scene
            .kubectl(&[
                "get",
                "keyvaultmirrors",
                "--namespace",
                &namespace,
                "--output",
                columns,
            ])
            .await
            .map_err(|error| error.to_string())?;
        match states
            .split_whitespace()
            .filter(|state| *state == "True")
            .count()
        {
            MIRRORS => Ok(()),
            ready => Err(format!("{ready} are")),
        }
    })
    .await?;
    println!(
        "resident memory, {MIRRORS} mirrors: {:.1} MiB",
        resident_at_rest().await?
    );
    Ok(())
}

fn seconds_between(log: &str, first: &str, second: &str) -> Result<f64> {
    let at = |message: &str| -> Option<Timestamp> {
        log.lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["fields"]["message"] == message)
            .and_then(|line| line["timestamp"].as_str()?.parse().ok())
    };
    match (at(first), at(second)) {
        (Some(first), Some(second)) => Ok(second.duration_since(first).as_secs_f64()),
        _ => Err(format!("the log doesn't have both `{first}` and `{second}`: {log}").into()),
    }
}

/// Resident memory of the daemon that has most, in MiB, once two looks agree to a tenth.
async fn resident_at_rest() -> Result<f64> {
    let mut before = 0.0;
    let rest = within(DEADLINE, "the memory is at rest", async || {
        tokio::time::sleep(PAUSE).await;
        let now = resident();
        let moved = (now - before).abs();
        before = now;
        if now > 0.0 && moved < 0.1 {
            Ok(now)
        } else {
            Err(format!("{now:.1} MiB"))
        }
    });
    Ok(rest.await?)
}

fn resident() -> f64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let of_daemon = processes.filter_map(|entry| {
        let command = fs::read(entry.path().join("cmdline")).ok()?;
        if !command.starts_with(b"/keytide\0run\0") {
            return None;
        }
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    });
    of_daemon.fold(0.0, f64::max) / 1024.0
}
