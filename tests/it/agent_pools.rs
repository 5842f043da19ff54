//! Agents and what else is registered in their pool: others, leftovers, placeholders.

use std::collections::BTreeMap;

use crate::runner::{ORGANIZATION, POOL, Setup, add_pool, agent_names, azure_devops, until_online};
use crate::testbed::azure_devops::{AzureDevOps, Command};

const HOUR: i64 = 3600;

struct Other<'a> {
    pool: u64,
    name: &'a str,
    online: bool,
    capabilities: &'a [&'a str],
    for_seconds: i64,
}

/// Offline for two hours, of the pool that leftovers are looked for in.
const LEFTOVER: Other<'static> = Other {
    pool: 7,
    name: "team-a-1",
    online: false,
    capabilities: &[],
    for_seconds: 2 * HOUR,
};

fn add(double: &AzureDevOps, other: Other<'_>) -> u64 {
    let capabilities = other.capabilities.iter();
    let command = Command::AddAgent {
        pool: other.pool,
        name: other.name.to_owned(),
        enabled: true,
        online: other.online,
        capabilities: capabilities
            .map(|name| ((*name).to_owned(), "true".to_owned()))
            .collect::<BTreeMap<_, _>>(),
        for_seconds: other.for_seconds,
    };
    let answer = double.run(ORGANIZATION, command).expect("an agent");
    answer["id"].as_u64().expect("an ID")
}

#[tokio::test]
async fn a_stale_registration_of_the_same_name_is_replaced() {
    let double = azure_devops().await;
    let name = "runner-1";
    let stale = add(&double, Other { name, ..LEFTOVER });
    let mut runner = Setup::new(&double).start();
    until_online(&double, POOL, name).await;
    let id = double.look(ORGANIZATION, |organization| {
        organization.agents(POOL)[name].id
    });
    assert_eq!(id, stale);
    runner.terminate();
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    assert_eq!(agent_names(&double, POOL), [""; 0]);
}

#[tokio::test]
async fn only_leftovers_of_this_pool_and_prefix_are_cleaned_up() {
    let double = azure_devops().await;
    add_pool(&double, ORGANIZATION, "windows", 8);
    add(&double, LEFTOVER);
    add(
        &double,
        Other {
            name: "team-a-with spaces",
            ..LEFTOVER
        },
    );
    add(
        &double,
        Other {
            pool: 8,
            ..LEFTOVER
        },
    );
    add(
        &double,
        Other {
            name: "team-b-1",
            ..LEFTOVER
        },
    );
    add(
        &double,
        Other {
            name: "team-a-online",
            online: true,
            ..LEFTOVER
        },
    );
    add(
        &double,
        Other {
            name: "team-a-starting",
            for_seconds: 60,
            ..LEFTOVER
        },
    );
    add(
        &double,
        Other {
            name: "team-a-placeholder",
            capabilities: &["AZP_PLACEHOLDER"],
            ..LEFTOVER
        },
    );
    let runner = Setup::new(&double)
        .set("AZP_CLEANUP_PREFIX", "team-a-")
        .start();
    until_online(&double, POOL, "runner-1").await;
    assert_eq!(
        agent_names(&double, POOL),
        [
            "runner-1",
            "team-a-online",
            "team-a-placeholder",
            "team-a-starting",
            "team-b-1"
        ],
        "{}",
        runner.log()
    );
    assert_eq!(agent_names(&double, "windows"), ["team-a-1"]);
}

#[tokio::test]
async fn without_a_prefix_nothing_is_cleaned_up() {
    let double = azure_devops().await;
    add(&double, LEFTOVER);
    let _runner = Setup::new(&double).start();
    until_online(&double, POOL, "runner-1").await;
    assert_eq!(agent_names(&double, POOL), ["runner-1", "team-a-1"]);
}

#[tokio::test]
async fn a_placeholder_is_registered_disabled_and_left_behind() {
    let double = azure_devops().await;
    // The second time it is there already, as after an upgrade of the chart.
    for _ in 0..2 {
        let mut runner = Setup::new(&double)
            .set("AZP_PLACEHOLDER", "true")
            .set("AZP_AGENT_NAME", "placeholder")
            .set("gpu", "a100")
            .start();
        assert_eq!(runner.ended().await, 0, "{}", runner.log());
        double.look(ORGANIZATION, |organization| {
            let placeholder = organization.agents(POOL)["placeholder"];
            assert!(!placeholder.enabled && placeholder.session.is_none());
            assert_eq!(placeholder.capabilities["gpu"], "a100");
        });
    }
}

/// Programs are given the BuildKit beside them, without a Docker daemon.
#[tokio::test]
async fn buildx_is_set_up_for_the_buildkit_that_is_named() {
    let double = azure_devops().await;
    let docker =
        "#!/bin/bash\n[ \"$2\" != inspect ] && printf '%s ' \"$@\" >\"$HOME/docker-was-called\"\n";
    let runner = Setup::new(&double)
        .program("docker", docker)
        .set("BUILDKIT_HOST", "unix:///run/buildkit/buildkitd.sock")
        .start();
    until_online(&double, POOL, "runner-1").await;
    assert_eq!(
        runner.read("agent/docker-was-called"),
        "buildx create --name keytide --driver remote unix:///run/buildkit/buildkitd.sock "
    );
    let builder = double.look(ORGANIZATION, |organization| {
        organization.agents(POOL)["runner-1"].capabilities["BUILDX_BUILDER"].clone()
    });
    assert_eq!(builder, "keytide");
}

#[tokio::test]
async fn a_pool_is_found_by_its_id() {
    let double = azure_devops().await;
    let setup = Setup::new(&double)
        .without("AZP_POOL")
        .set("AZP_POOL_ID", "7");
    let _runner = setup.start();
    until_online(&double, POOL, "runner-1").await;
}

#[tokio::test]
async fn names_may_hold_spaces_quotes_and_more() {
    let double = azure_devops().await;
    let (pool, agent) = (
        "Team A's \"große\" pool & 100 %",
        "runner one's \"best\" $HOME",
    );
    add_pool(&double, ORGANIZATION, pool, 9);
    let mut runner = Setup::new(&double)
        .set("AZP_POOL", pool)
        .set("AZP_AGENT_NAME", agent)
        .set("AZP_WORK", "work of 'mine'")
        .start();
    until_online(&double, pool, agent).await;
    runner.terminate();
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    assert_eq!(agent_names(&double, pool), [""; 0]);
}
