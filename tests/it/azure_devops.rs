//! The double of Azure DevOps, asked as KEDA's scaler asks: pkg/scalers/azure_pipelines_scaler.go of v2.21.

use serde_json::{Value as Json, json};

use crate::runner::{ORGANIZATION, POOL, TOKEN, azure_devops};
use crate::testbed::azure_devops::AzureDevOps;

async fn ask(double: &AzureDevOps, path: &str) -> Json {
    let request = client()
        .get(format!("{}/{ORGANIZATION}/_apis/{path}", double.url()))
        .basic_auth("", Some(TOKEN));
    answer(request).await
}

async fn tell(double: &AzureDevOps, command: Json) -> Json {
    let request = client()
        .post(format!("{}/_control/{ORGANIZATION}", double.url()))
        .body(command.to_string());
    answer(request).await
}

fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().no_proxy();
    builder.build().expect("a client")
}

async fn answer(request: reqwest::RequestBuilder) -> Json {
    let response = request.send().await.expect("an answer");
    let status = response.status();
    let text = response.text().await.expect("its body");
    assert!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn pools_are_found_by_name() {
    let double = azure_devops().await;
    let pools = ask(&double, "distributedtask/pools?poolName=linux").await;
    assert_eq!(pools["value"][0]["id"], 7);
    let none = ask(&double, "distributedtask/pools?poolName=windows").await;
    assert_eq!(none["value"], json!([]));
    let added = tell(&double, json!({"addPool": {"name": "windows"}})).await;
    let found = ask(&double, "distributedtask/pools?poolName=windows").await;
    assert_eq!(found["value"][0]["id"], added["id"]);
}

#[tokio::test]
async fn the_queue_tells_what_is_demanded_and_which_agents_match() {
    let double = azure_devops().await;
    let parent = json!({"pool": 7, "name": "parent", "capabilities": {"gpu": "a100"}});
    tell(&double, json!({"addAgent": parent})).await;
    for demands in [json!(["gpu -equals a100"]), json!(["windows"])] {
        tell(
            &double,
            json!({"queueJobs": {"pool": 7, "demands": demands}}),
        )
        .await;
    }
    let queue = ask(&double, "distributedtask/pools/7/jobrequests").await;
    let [windows, gpu] = queue["value"].as_array().expect("a list").as_slice() else {
        panic!("{queue}");
    };
    assert_eq!(windows["matchedAgents"], json!([]));
    assert_eq!(gpu["matchedAgents"][0]["name"], "parent");
    assert_eq!(gpu["demands"], json!(["gpu -equals a100"]));
    for field in ["result", "assignTime", "receiveTime", "reservedAgent"] {
        assert_eq!(gpu[field], Json::Null, "{field}");
    }
    // As the original, it leaves the agents out where the number of jobs is given.
    let newest = ask(&double, "distributedtask/pools/7/jobrequests?$top=1").await;
    assert_eq!(newest["count"], 1);
    assert_eq!(newest["value"][0]["requestId"], windows["requestId"]);
    assert_eq!(newest["value"][0]["matchedAgents"], Json::Null);
    assert_eq!(
        ask(&double, &format!("distributedtask/pools?poolName={POOL}")).await["count"],
        1
    );
}

#[tokio::test]
async fn commands_that_are_wrong_are_refused_with_a_sentence() {
    let double = azure_devops().await;
    for (command, expected) in [
        (json!({"queueJobs": {"pool": 99}}), "there is no pool 99"),
        (json!({"queueJob": {}}), "unknown variant"),
    ] {
        let response = client()
            .post(format!("{}/_control/{ORGANIZATION}", double.url()))
            .body(command.to_string())
            .send()
            .await
            .expect("an answer");
        assert_eq!(response.status(), 400);
        let said = response.text().await.expect("its body");
        assert!(said.contains(expected), "{said}");
    }
}
