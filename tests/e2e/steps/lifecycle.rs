//! How the daemon's process ends, and what starts it again.

use std::fs;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use rustix::process::{Pid, Signal, kill_process};

use crate::scene::{DEADLINE, Scene, container};
use crate::testbed::Result;
use crate::testbed::process::Identity;
use crate::testbed::wait::within;

/// Longest that an orderly end may take.
const ORDERLY: Duration = Duration::from_secs(5);

pub async fn ends_on_sigterm(scene: &Scene) -> Result<()> {
    let before = scene.daemons().await?;
    let daemon = any_daemon()?;
    let begin = Instant::now();
    signal(&daemon, Signal::TERM)?;
    let ended = within(DEADLINE, "the daemon has ended", async || {
        if daemon.is_running() {
            Err("it runs".to_owned())
        } else {
            Ok(begin.elapsed())
        }
    })
    .await?;
    if ended > ORDERLY {
        return Err(format!("it took {:.1} s", ended.as_secs_f64()).into());
    }
    let code = restarted(scene, &before).await?;
    if code != 0 {
        return Err(format!("it ended with exit code {code}").into());
    }
    Ok(())
}

pub async fn wedged_is_restarted(scene: &Scene) -> Result<()> {
    let before = scene.daemons().await?;
    signal(&any_daemon()?, Signal::STOP)?;
    restarted(scene, &before).await.map(drop)
}

/// Waits until one of the daemons was started again and all are ready; gives the exit code of the one that ended.
async fn restarted(scene: &Scene, before: &[k8s_openapi::api::core::v1::Pod]) -> Result<i32> {
    let code = within(DEADLINE, "the daemon is started again", async || {
        let pods = scene.daemons().await.map_err(|error| error.to_string())?;
        let restarted = pods.iter().find_map(|pod| {
            let old = before.iter().find(|old| old.uid() == pod.uid())?;
            let (now, then) = (container(pod)?, container(old)?);
            let ended = now.last_state.as_ref()?.terminated.as_ref()?;
            (now.restart_count > then.restart_count).then_some(ended.exit_code)
        });
        let ready = pods
            .iter()
            .all(|pod| container(pod).is_some_and(|container| container.ready));
        match restarted {
            Some(code) if ready => Ok(code),
            Some(_) => Err("it isn't ready yet".to_owned()),
            None => Err("no container was restarted".to_owned()),
        }
    });
    Ok(code.await?)
}

/// The process of a daemon's container: in the sandbox there is no other program of that name.
fn any_daemon() -> Result<Identity> {
    let processes = fs::read_dir("/proc")?.flatten();
    let daemon = processes.into_iter().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        command
            .starts_with(b"/keytide\0run\0")
            .then(|| Identity::of(pid))?
    });
    Ok(daemon.ok_or("no process of the daemon")?)
}

fn signal(process: &Identity, signal: Signal) -> Result<()> {
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw);
    Ok(kill_process(pid.ok_or("no process number")?, signal)?)
}
