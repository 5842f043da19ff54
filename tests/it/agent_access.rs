//! How an agent's entrypoint signs in, what it lets others see of its token, and what it says when it is refused.

use crate::runner::{
    ORGANIZATION, POOL, Setup, TOKEN, add_pool, agent_names, azure_devops, finish_jobs, queue,
    results, set_token, set_up, until, until_online, until_running,
};
use crate::testbed::azure_devops::{Access, AzureDevOps, Command, Outage};

/// A token that is nowhere but where it must be.
const CANARY: &str = "canary-7f3a51c2";

/// Exit code and log of an entrypoint that can't do its work.
async fn failed(setup: Setup) -> String {
    let mut runner = setup.start();
    let code = runner.ended().await;
    let log = runner.log();
    assert_eq!(code, 1, "{log}");
    assert!(!log.contains(TOKEN), "{log}");
    log
}

/// Its last words, which say what to do.
async fn complaint(setup: Setup) -> String {
    let log = failed(setup).await;
    let error = log.lines().find(|line| line.contains("error:"));
    error
        .unwrap_or_else(|| panic!("no error: {log}"))
        .to_owned()
}

fn tokens_used(double: &AzureDevOps, method: &str) -> Vec<String> {
    double.look(ORGANIZATION, |organization| {
        organization
            .journal
            .iter()
            .filter(|call| call.method == method && call.path.contains("/agents"))
            .map(|call| call.token.clone())
            .collect()
    })
}

#[tokio::test]
async fn a_token_that_is_replaced_while_a_job_runs_is_used_to_unregister() {
    let double = azure_devops().await;
    let mut runner = Setup::new(&double).start();
    until_online(&double, POOL, "runner-1").await;
    queue(&double, 1);
    until_running(&double, 1).await;
    set_token(&double, ORGANIZATION, "second-token", "manage");
    set_token(&double, ORGANIZATION, TOKEN, "expired");
    runner.rotate("second-token\n");
    runner.terminate();
    finish_jobs(&double);
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    assert_eq!(results(&double), ["succeeded"]);
    assert_eq!(agent_names(&double, POOL), [""; 0]);
    assert_eq!(tokens_used(&double, "DELETE"), ["second-token"]);
}

#[tokio::test]
async fn a_token_that_expires_while_a_job_runs_costs_no_job_and_is_waited_for() {
    let double = azure_devops().await;
    let mut runner = Setup::new(&double).start();
    until_online(&double, POOL, "runner-1").await;
    queue(&double, 1);
    until_running(&double, 1).await;
    set_token(&double, ORGANIZATION, TOKEN, "expired");
    runner.terminate();
    runner.logged("refuses the token (status 401)").await;
    finish_jobs(&double);
    // The new one comes late.
    set_token(&double, ORGANIZATION, "second-token", "manage");
    runner.rotate("second-token");
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    assert_eq!(results(&double), ["succeeded"]);
    assert_eq!(agent_names(&double, POOL), [""; 0]);
}

#[tokio::test]
async fn a_job_is_waited_for_even_if_the_agent_can_not_be_disabled_in_time() {
    let double = azure_devops().await;
    let mut runner = Setup::new(&double).set("AZP_RETRY_SECONDS", "1").start();
    until_online(&double, POOL, "runner-1").await;
    queue(&double, 1);
    until_running(&double, 1).await;
    set_token(&double, ORGANIZATION, TOKEN, "expired");
    runner.terminate();
    // One look a second, so far more than the time in which it would give up without a job.
    until(&double, "it tried often", |organization| {
        let refused = organization
            .journal
            .iter()
            .filter(|call| call.status == 401);
        (refused.count() >= 4).then_some(())
    })
    .await;
    assert!(runner.is_running(), "{}", runner.log());
    finish_jobs(&double);
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    assert_eq!(results(&double), ["succeeded"]);
    runner.gone().await;
}

#[tokio::test]
async fn an_agent_that_can_not_unregister_says_so_and_ends_all_the_same() {
    let double = azure_devops().await;
    let setup = Setup::new(&double).set("AZP_RETRY_SECONDS", "2");
    let mut runner = setup.start();
    until_online(&double, POOL, "runner-1").await;
    set_token(&double, ORGANIZATION, TOKEN, "expired");
    runner.terminate();
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    runner.logged("stays registered").await;
    assert_eq!(agent_names(&double, POOL), ["runner-1"]);
    runner.gone().await;
}

#[tokio::test]
async fn a_token_from_the_environment_is_in_no_command_line_environment_log_or_capability() {
    let double = azure_devops().await;
    set_token(&double, ORGANIZATION, CANARY, "manage");
    let command = |outage| Command::SetOutage { outage };
    double
        .run(ORGANIZATION, command(Outage::HeldRegistrations))
        .expect("set");
    let mut runner = Setup::new(&double)
        .without("AZP_TOKEN_FILE")
        .set("AZP_TOKEN", CANARY)
        .start();
    until(&double, "it registers", |organization| {
        (organization.held == 1).then_some(())
    })
    .await;
    // The agent's own programs are given the token in their environment now, and are gone before a job comes.
    let exposed = runner.exposed();
    assert!(exposed.len() >= 3, "{exposed:#?}");
    for (command_line, environment) in &exposed {
        assert!(!command_line.contains(CANARY), "{command_line}");
        let is_registering =
            command_line.contains("Agent.Listener") || command_line.contains("curl");
        assert!(
            is_registering || !environment.contains(CANARY),
            "{command_line}{environment}"
        );
    }
    double
        .run(ORGANIZATION, command(Outage::None))
        .expect("set");
    until_online(&double, POOL, "runner-1").await;
    queue(&double, 1);
    until_running(&double, 1).await;
    let exposed = runner.exposed();
    assert!(
        exposed
            .iter()
            .any(|(line, _)| line.contains("Agent.Worker")),
        "{exposed:#?}"
    );
    for (command_line, environment) in &exposed {
        assert!(!command_line.contains(CANARY), "{command_line}");
        assert!(!environment.contains(CANARY), "{command_line}{environment}");
    }
    let capabilities = double.look(ORGANIZATION, |organization| {
        organization.agents(POOL)["runner-1"].capabilities.clone()
    });
    assert!(capabilities.contains_key("AZP_POOL"), "{capabilities:?}");
    for name in ["AZP_TOKEN", "AZP_TOKEN_FILE", "VSTS_AGENT_INPUT_TOKEN"] {
        assert!(!capabilities.contains_key(name), "{capabilities:?}");
    }
    assert!(!format!("{capabilities:?}").contains(CANARY));
    runner.terminate();
    finish_jobs(&double);
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    assert!(!runner.log().contains(CANARY), "{}", runner.log());
    assert_eq!(agent_names(&double, POOL), [""; 0]);
}

#[tokio::test]
async fn a_workload_identity_needs_no_token_of_azure_devops() {
    let double = azure_devops().await;
    let client_id = "11111111-2222-3333-4444-555555555555".to_owned();
    let access = Access::Manage;
    double
        .run(ORGANIZATION, Command::SetIdentity { client_id, access })
        .expect("an identity");
    let mut runner = Setup::new(&double)
        .without("AZP_TOKEN_FILE")
        .set("AZP_AUTH", "workload-identity")
        .set("AZURE_AUTHORITY_HOST", &format!("{}/", double.url()))
        .set("AZURE_TENANT_ID", "tenant")
        .set("AZURE_CLIENT_ID", "11111111-2222-3333-4444-555555555555")
        .file("AZURE_FEDERATED_TOKEN_FILE", "e30.e30.c2ln")
        .start();
    until_online(&double, POOL, "runner-1").await;
    runner.terminate();
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    assert_eq!(agent_names(&double, POOL), [""; 0]);
    let log = runner.log();
    assert!(!log.contains("entra-token"), "{log}");
    for method in ["POST", "PATCH", "DELETE"] {
        let used = tokens_used(&double, method);
        assert!(
            used.iter().all(|token| token.starts_with("entra-token.")) && !used.is_empty(),
            "{method}: {used:?}"
        );
    }
}

#[tokio::test]
async fn a_workload_identity_that_entra_refuses_is_told_what_entra_says() {
    let double = azure_devops().await;
    let setup = Setup::new(&double)
        .set("AZP_AUTH", "workload-identity")
        .set("AZURE_AUTHORITY_HOST", &double.url())
        .set("AZURE_TENANT_ID", "tenant")
        .set("AZURE_CLIENT_ID", "stranger")
        .file("AZURE_FEDERATED_TOKEN_FILE", "no-token")
        .set("AZP_RETRY_SECONDS", "0");
    let said = complaint(setup).await;
    assert!(said.contains("AADSTS700213"), "{said}");
}

#[tokio::test]
async fn a_workload_identity_without_its_webhook_is_told_what_is_missing() {
    let double = azure_devops().await;
    let setup = Setup::new(&double).set("AZP_AUTH", "workload-identity");
    let said = complaint(setup).await;
    assert!(said.contains("azure.workload.identity/use=true"), "{said}");
}

#[tokio::test]
async fn tokens_that_are_refused_are_explained() {
    let double = azure_devops().await;
    for (access, expected) in [
        ("expired", "refuses the token (status 401)"),
        ("signIn", "refuses the token (status 203)"),
        ("none", "scope 'Agent Pools (read, manage)'"),
        ("read", "scope 'Agent Pools (read, manage)'"),
    ] {
        set_token(&double, ORGANIZATION, "other-token", access);
        let said = complaint(Setup::new(&double).token_file("other-token")).await;
        assert!(said.contains(expected), "{access}: {said}");
    }
    assert_eq!(agent_names(&double, POOL), [""; 0]);
}

#[tokio::test]
async fn pools_and_organizations_that_do_not_exist_are_named() {
    let double = azure_devops().await;
    let elsewhere = format!("{}/fabrikam", double.url());
    for (setup, expected) in [
        (
            Setup::new(&double).set("AZP_POOL", "no \"such\" pool"),
            "no agent pool named 'no \"such\" pool'",
        ),
        (
            Setup::new(&double).set("AZP_POOL_ID", "99"),
            "no agent pool with the ID 99",
        ),
        (
            Setup::new(&double).set("AZP_URL", &elsewhere),
            "check AZP_URL",
        ),
    ] {
        let said = complaint(setup).await;
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn settings_that_can_not_be_meant_are_refused_at_once() {
    let double = azure_devops().await;
    let setup = || Setup::new(&double);
    for (setup, expected) in [
        (setup().without("AZP_URL"), "AZP_URL is ''"),
        (
            setup().set("AZP_URL", "dev.azure.com/contoso"),
            "AZP_URL is 'dev",
        ),
        (
            setup().set("AZP_URL", "https://u:p@dev.azure.com/contoso"),
            "AZP_URL is",
        ),
        (
            setup().without("AZP_POOL"),
            "neither AZP_POOL nor AZP_POOL_ID",
        ),
        (
            setup().set("AZP_POOL_ID", "linux"),
            "AZP_POOL_ID is 'linux'",
        ),
        (
            setup().set("AZP_AUTH", "kerberos"),
            "AZP_AUTH is 'kerberos'",
        ),
        (setup().without("AZP_TOKEN_FILE"), "there is no token"),
        (
            setup().set("AZP_RETRY_SECONDS", "5m"),
            "AZP_RETRY_SECONDS is '5m'",
        ),
        (setup().file("AZP_CA_BUNDLE", "empty"), "AZP_CA_BUNDLE is"),
        (
            setup().set("AZP_AGENT_HOME", "/nowhere"),
            "set AZP_AGENT_HOME",
        ),
    ] {
        let said = complaint(setup).await;
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[tokio::test]
async fn an_organization_that_is_down_is_waited_for() {
    let double = azure_devops().await;
    for outage in [Outage::Unreachable, Outage::Unavailable] {
        let set = |outage| {
            double
                .run(ORGANIZATION, Command::SetOutage { outage })
                .expect("set");
        };
        set(outage);
        let mut runner = Setup::new(&double).start();
        runner.logged("trying again").await;
        set(Outage::None);
        until_online(&double, POOL, "runner-1").await;
        // And when it is down at the end.
        set(outage);
        runner.terminate();
        runner.logged("draining goes on").await;
        set(Outage::None);
        assert_eq!(runner.ended().await, 0, "{}", runner.log());
        assert_eq!(agent_names(&double, POOL), [""; 0]);
    }
}

#[tokio::test]
async fn an_organization_that_stays_down_is_given_up_with_a_sentence() {
    let double = azure_devops().await;
    let setup = Setup::new(&double)
        .set("AZP_URL", "http://127.0.0.1:1/contoso")
        .set("AZP_RETRY_SECONDS", "1");
    let said = complaint(setup).await;
    assert!(said.contains("can't be reached"), "{said}");
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_by_its_bundle() {
    let double = AzureDevOps::listen(([127, 0, 0, 1], 0).into(), true)
        .await
        .expect("a double");
    set_up(&double, ORGANIZATION);
    let refused = complaint(Setup::new(&double).set("AZP_RETRY_SECONDS", "0")).await;
    assert!(refused.contains("certificate"), "{refused}");
    let ca = double.ca_pem().expect("a certificate");
    let mut runner = Setup::new(&double).file("AZP_CA_BUNDLE", ca).start();
    until_online(&double, POOL, "runner-1").await;
    runner.terminate();
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    assert_eq!(agent_names(&double, POOL), [""; 0]);
}

#[tokio::test]
async fn everything_goes_through_a_proxy() {
    let double = azure_devops().await;
    // A name that nothing resolves: only the proxy, which is the double itself, knows it.
    let mut runner = Setup::new(&double)
        .set("AZP_URL", "http://azure-devops.invalid/contoso")
        .set("HTTP_PROXY", &double.url())
        .start();
    until_online(&double, POOL, "runner-1").await;
    runner.terminate();
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    assert_eq!(agent_names(&double, POOL), [""; 0]);
}

#[tokio::test]
async fn collections_of_a_server_are_organizations_too() {
    let double = azure_devops().await;
    let collection = "tfs/DefaultCollection";
    add_pool(&double, collection, POOL, 3);
    set_token(&double, collection, TOKEN, "manage");
    let url = format!("{}/{collection}/", double.url());
    let mut runner = Setup::new(&double)
        .set("AZP_URL", &url)
        .set("AZP_ONCE", "1")
        .start();
    let command = Command::QueueJobs {
        pool: 3,
        count: 1,
        seconds: Some(0.0),
        demands: vec![
            "AZP_POOL -equals linux".into(),
            "Agent.Version -gtVersion 2.163.1".into(),
        ],
    };
    double.run(collection, command).expect("queued");
    assert_eq!(runner.ended().await, 0, "{}", runner.log());
    double.look(collection, |organization| {
        let results: Vec<_> = organization
            .jobs()
            .map(|job| job.result.as_deref())
            .collect();
        assert_eq!(results, [Some("succeeded")]);
        assert!(organization.agents(POOL).is_empty());
    });
}
