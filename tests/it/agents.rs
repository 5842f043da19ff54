//! The life of an agent: registered, given jobs, drained and unregistered, whenever it is told to stop.

use crate::runner::{ORGANIZATION, Runner};
use crate::runner::{
    POOL, Setup, agent_names, azure_devops, finish_jobs, queue, results, until, until_online,
    until_running,
};
use crate::testbed::azure_devops::{AzureDevOps, Command, Outage};

async fn online() -> (AzureDevOps, Runner) {
    let double = azure_devops().await;
    let runner = Setup::new(&double).start();
    until_online(&double, POOL, "runner-1").await;
    (double, runner)
}

fn set_outage(double: &AzureDevOps, outage: Outage) {
    double
        .run(ORGANIZATION, Command::SetOutage { outage })
        .expect("set");
}

async fn until_disabled(double: &AzureDevOps) {
    until(double, "the agent is disabled", |organization| {
        let agents = organization.agents(POOL);
        (!agents.get("runner-1")?.enabled).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_job_that_runs_when_the_agent_is_told_to_stop_ends_and_no_other_follows() {
    let (double, mut runner) = online().await;
    queue(&double, 2);
    until_running(&double, 1).await;
    runner.terminate();
    until_disabled(&double).await;
    assert!(runner.is_running());
    finish_jobs(&double);
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    assert_eq!(results(&double), ["succeeded", "queued"]);
    assert_eq!(agent_names(&double, POOL), [""; 0]);
    runner.gone().await;
}

#[tokio::test]
async fn jobs_follow_each_other_until_the_agent_is_told_to_stop() {
    let (double, mut runner) = online().await;
    queue(&double, 3);
    finish_jobs(&double);
    until(&double, "all jobs are done", |organization| {
        organization
            .jobs()
            .all(|job| job.result.as_deref() == Some("succeeded"))
            .then_some(())
    })
    .await;
    runner.terminate();
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    assert_eq!(agent_names(&double, POOL), [""; 0]);
}

#[tokio::test]
async fn an_agent_that_is_told_to_stop_twice_still_waits_for_its_job() {
    let (double, mut runner) = online().await;
    queue(&double, 1);
    until_running(&double, 1).await;
    runner.terminate();
    until_disabled(&double).await;
    runner.terminate();
    runner.terminate();
    finish_jobs(&double);
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    assert_eq!(results(&double), ["succeeded"]);
    assert_eq!(agent_names(&double, POOL), [""; 0]);
}

#[tokio::test]
async fn an_idle_agent_that_is_told_to_stop_unregisters_at_once() {
    let (double, mut runner) = online().await;
    runner.terminate();
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    assert_eq!(agent_names(&double, POOL), [""; 0]);
    runner.gone().await;
}

#[tokio::test]
async fn one_that_is_told_to_stop_before_it_registers_leaves_nothing() {
    let double = azure_devops().await;
    set_outage(&double, Outage::Unreachable);
    let mut runner = Setup::new(&double).start();
    runner.logged("trying again").await;
    runner.terminate();
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    assert_eq!(agent_names(&double, POOL), [""; 0]);
}

#[tokio::test]
async fn one_that_is_told_to_stop_while_it_registers_unregisters() {
    let double = azure_devops().await;
    set_outage(&double, Outage::HeldRegistrations);
    let mut runner = Setup::new(&double).start();
    until(&double, "it registers", |organization| {
        (organization.held == 1).then_some(())
    })
    .await;
    runner.terminate();
    set_outage(&double, Outage::None);
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    let was_registered = double.look(ORGANIZATION, |organization| {
        organization.journal.iter().any(|call| {
            call.method == "POST" && call.path.ends_with("/agents") && call.status == 200
        })
    });
    assert!(was_registered, "{}", runner.log());
    assert_eq!(agent_names(&double, POOL), [""; 0]);
}

#[tokio::test]
async fn a_job_that_was_given_but_has_not_begun_when_the_agent_is_told_to_stop_is_done() {
    let double = azure_devops().await;
    set_outage(&double, Outage::HeldMessages);
    let mut runner = Setup::new(&double).start();
    until(&double, "it asks for messages", |organization| {
        (organization.held > 0).then_some(())
    })
    .await;
    queue(&double, 1);
    assert_eq!(results(&double), ["running"]);
    runner.terminate();
    until_disabled(&double).await;
    // Twice it was told that there is a job.
    until(&double, "it asks whether it has a job", |organization| {
        let asked = organization
            .journal
            .iter()
            .filter(|call| call.path.contains("includeAssignedRequest"));
        (asked.count() >= 2).then_some(())
    })
    .await;
    set_outage(&double, Outage::None);
    finish_jobs(&double);
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    assert_eq!(results(&double), ["succeeded"]);
    assert_eq!(agent_names(&double, POOL), [""; 0]);
}

#[tokio::test]
async fn with_once_an_agent_does_one_job_and_unregisters() {
    let double = azure_devops().await;
    queue(&double, 2);
    finish_jobs(&double);
    let mut runner = Setup::new(&double).set("AZP_ONCE", "true").start();
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    assert_eq!(results(&double), ["succeeded", "queued"]);
    assert_eq!(agent_names(&double, POOL), [""; 0]);
}

#[tokio::test]
async fn an_agent_that_crashes_is_unregistered_and_its_status_passed_on() {
    let (double, mut runner) = online().await;
    runner.kill_agent();
    assert_eq!(runner.ended().await, 128 + 9, "{}", runner.log());
    assert_eq!(agent_names(&double, POOL), [""; 0]);
    runner.gone().await;
}

#[tokio::test]
async fn many_agents_that_are_told_to_stop_finish_all_jobs_that_they_have() {
    let double = azure_devops().await;
    let names: Vec<String> = (1..=5).map(|number| format!("runner-{number}")).collect();
    let mut runners: Vec<Runner> = names
        .iter()
        .map(|name| Setup::new(&double).set("AZP_AGENT_NAME", name).start())
        .collect();
    for name in &names {
        until_online(&double, POOL, name).await;
    }
    queue(&double, 5);
    until_running(&double, 5).await;
    for runner in &runners {
        runner.terminate();
    }
    finish_jobs(&double);
    for runner in &mut runners {
        assert_eq!(runner.ended().await, 0, "{}", runner.log());
    }
    assert_eq!(results(&double), ["succeeded"; 5]);
    assert_eq!(agent_names(&double, POOL), [""; 0]);
}
