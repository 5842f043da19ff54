//! Runner pools: agents that come and go with the jobs that wait, and whose jobs nothing cuts off.

use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::Step;
use crate::runners::{Release, Runners};
use crate::scene::{DEADLINE, container};
use crate::testbed::Result;
use crate::testbed::azure_devops::Access;
use crate::testbed::wait::within;

/// The step after which the daemon runs.
pub const DAEMON: &str = "the daemon starts";

/// The step after which KEDA runs.
pub const KEDA: &str = "KEDA starts";

pub const ALL: [(&str, Step<Runners>); 11] = [
    (DAEMON, |r| Box::pin(r.install_daemon())),
    (
        "a pool that scales is refused where there is no KEDA",
        |r| Box::pin(without_keda(r)),
    ),
    ("a pool of fixed size needs no KEDA", |r| {
        Box::pin(fixed_size(r))
    }),
    (
        "agents that are told to stop as they start leave nothing",
        |r| Box::pin(stopped_at_the_start(r)),
    ),
    (KEDA, |r| Box::pin(r.start_keda())),
    ("a Deployment of agents scales from zero and back", |r| {
        Box::pin(from_zero_and_back(r, "deployment"))
    }),
    ("a Job for each job scales from zero and back", |r| {
        Box::pin(from_zero_and_back(r, "job"))
    }),
    (
        "a Deployment of agents finishes 20 jobs while the PAT rotates",
        |r| Box::pin(rotates_while_jobs_run(r, "deployment")),
    ),
    (
        "a Job for each job finishes 20 jobs while the PAT rotates",
        |r| Box::pin(rotates_while_jobs_run(r, "job")),
    ),
    ("two organizations are upgraded independently", |r| {
        Box::pin(two_organizations(r))
    }),
    (
        "a missing pool and a PAT without its scope are told of",
        |r| Box::pin(told_of(r)),
    ),
];

async fn without_keda(runners: &Runners) -> Result<()> {
    let release = runners.release("contoso", json!({})).await?;
    match release.install(json!({})).await {
        Ok(()) => Err("the chart was installed".into()),
        Err(error) if error.to_string().contains("KEDA") => Ok(()),
        Err(error) => Err(format!("the chart doesn't name KEDA: {error}").into()),
    }
}

async fn fixed_size(runners: &Runners) -> Result<()> {
    let fixed = json!({"scale": {"enabled": false}, "replicas": 2});
    let release = runners.release("contoso", fixed).await?;
    release.install(json!({})).await?;
    release.queue_jobs(2)?;
    release.run_jobs(2).await?;
    release.finish_jobs()?;
    release.all_jobs_succeed().await?;
    release.uninstall().await?;
    release.scales_back_to(0).await
}

/// A container's first process ignores a signal that it has no handler for yet.
async fn stopped_at_the_start(runners: &Runners) -> Result<()> {
    let fixed = json!({"scale": {"enabled": false}, "replicas": 10});
    let release = runners.release("contoso", fixed).await?;
    release.install(json!({})).await?;
    let one_runs = within(DEADLINE, "a container runs", async || {
        let pods = release.pods().await.map_err(|error| error.to_string())?;
        let running =
            |pod: &Pod| container(pod).is_some_and(|container| container.started == Some(true));
        if pods.iter().any(running) {
            Ok(())
        } else {
            Err("none does".to_owned())
        }
    });
    one_runs.await?;
    release.uninstall().await?;
    release.scales_back_to(0).await
}

async fn from_zero_and_back(runners: &Runners, mode: &str) -> Result<()> {
    let release = runners.release("contoso", pool(mode, 0)).await?;
    release.install(json!({})).await?;
    release.has_placeholder().await?;
    release.scales_back_to(0).await?;
    let begin = Instant::now();
    release.queue_jobs(1)?;
    release.run_jobs(1).await?;
    tell(mode, "from a queued job to its start on a new agent", begin);
    release.finish_jobs()?;
    release.all_jobs_succeed().await?;
    let begin = Instant::now();
    release.scales_back_to(0).await?;
    tell(mode, "from the last job's end to no agent", begin);
    release.uninstall().await
}

async fn rotates_while_jobs_run(runners: &Runners, mode: &str) -> Result<()> {
    const JOBS: u32 = 20;
    let release = runners.release("contoso", pool(mode, 0)).await?;
    // Jobs that Pods are busy with count against the maximum.
    let most = if mode == "job" { 2 * JOBS } else { JOBS };
    release.install(json!({"scale": {"max": most}})).await?;
    release.has_placeholder().await?;
    let begin = Instant::now();
    release.queue_jobs(JOBS)?;
    release.run_jobs(20).await?;
    tell(mode, "from 20 queued jobs to 20 that run", begin);

    release.set_token("second", Access::Manage)?;
    release.set_in_vault("second")?;
    has_token(&release, "second").await?;
    // From here on, whoever still uses it is refused.
    release.set_token("first", Access::Expired)?;
    let revoked = release.look(|organization| organization.journal.len());
    let begin = Instant::now();
    release.queue_jobs(JOBS)?;
    release.run_jobs(40).await?;
    tell(mode, "from a revoked PAT to 20 more jobs that run", begin);

    release.finish_jobs()?;
    release.all_jobs_succeed().await?;
    let begin = Instant::now();
    release.scales_back_to(0).await?;
    tell(mode, "from the last job's end to no agent", begin);
    only_used(&release, revoked, "second")?;
    release.uninstall().await
}

async fn two_organizations(runners: &Runners) -> Result<()> {
    let contoso = runners.release("contoso", pool("deployment", 1)).await?;
    let fabrikam = runners.release("fabrikam", pool("deployment", 1)).await?;
    for release in [&contoso, &fabrikam] {
        release.install(json!({})).await?;
        release.queue_jobs(2)?;
        release.run_jobs(2).await?;
    }
    let before = fabrikam.objects().await?;
    contoso
        .install(json!({"scale": {"max": 7}, "capabilities": {"docker": "no"}}))
        .await?;
    let upgraded = within(
        DEADLINE,
        "the upgrade has come to the autoscaler",
        async || {
            let most = [
                "get",
                "hpa",
                "--output",
                "jsonpath={.items[*].spec.maxReplicas}",
            ];
            match contoso
                .kubectl(&most)
                .await
                .map_err(|error| error.to_string())?
                .as_str()
            {
                "7" => Ok(()),
                other => Err(format!("its maximum is {other}")),
            }
        },
    );
    upgraded.await?;
    contoso.rolls_out().await?;
    let after = fabrikam.objects().await?;
    if after != before {
        return Err(format!("the other's were\n{before}\nand are\n{after}").into());
    }
    for release in [&contoso, &fabrikam] {
        release.finish_jobs()?;
        release.all_jobs_succeed().await?;
        release.uninstall().await?;
        release.scales_back_to(0).await?;
    }
    Ok(())
}

async fn told_of(runners: &Runners) -> Result<()> {
    let release = runners.release("contoso", pool("deployment", 0)).await?;
    release.install(json!({"poolName": "No such pool"})).await?;
    release
        .keda_says("agent pool with name `No such pool` not found")
        .await?;
    release
        .placeholder_says("has no agent pool named 'No such pool': create it")
        .await?;

    release.set_token("first", Access::None)?;
    release.install(json!({})).await?;
    release.keda_says("status: 403").await?;
    release
        .placeholder_says("the token needs the scope 'Agent Pools (read, manage)'")
        .await?;

    // And all of it heals by itself.
    release.set_token("first", Access::Manage)?;
    release.queue_jobs(1)?;
    release.run_jobs(1).await?;
    release.finish_jobs()?;
    release.all_jobs_succeed().await?;
    release.scales_back_to(0).await?;
    release.uninstall().await
}

/// It is rolled only once each agent has the new PAT in its volume, as by default, but on a node that brings it sooner: within one and
/// a half sync periods.
fn pool(mode: &str, min: u32) -> Value {
    json!({"mode": mode, "scale": {"min": min}, "rotateAfter": "20s"})
}

/// Waits until the mirrored Secret has this token.
async fn has_token(release: &Release<'_>, token: &str) -> Result<()> {
    let written = within(DEADLINE, "the Secret has the new token", async || {
        let get = [
            "get",
            "secret",
            "adopat",
            "--output",
            "go-template={{.data.token | base64decode}}",
        ];
        let found = release
            .kubectl(&get)
            .await
            .map_err(|error| error.to_string())?;
        if found == token {
            Ok(())
        } else {
            Err("it has another".to_owned())
        }
    });
    Ok(written.await?)
}

/// Whether every change of an agent's registration, from call number `since` on, was made with this token.
fn only_used(release: &Release<'_>, since: usize, token: &str) -> Result<()> {
    let others = release.look(|organization| {
        let changes = organization.journal[since..].iter().filter(|call| {
            call.status < 300 && call.method != "GET" && call.path.contains("/agents")
        });
        let (own, others): (Vec<_>, Vec<_>) = changes.partition(|call| call.token == token);
        if own.is_empty() {
            return vec!["nothing was changed".to_owned()];
        }
        others
            .iter()
            .map(|call| format!("{} {} by {}", call.method, call.path, call.token))
            .collect()
    });
    if others.is_empty() {
        Ok(())
    } else {
        Err(others.join("; ").into())
    }
}

/// Prints a time for the docs.
fn tell(mode: &str, what: &str, begin: Instant) {
    println!(
        "e2e: {mode}: {what}: {:.1} s",
        begin.elapsed().as_secs_f64()
    );
}
