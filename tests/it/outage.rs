//! An API server that doesn't answer for a minute.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use crate::alone::alone;
use crate::fixture::{Fixture, QUICK, SOON, revision};
use crate::policies::{change, installed, under};
use crate::testbed::eventually;

/// Longer than anybody waits for an answer.
const OUTAGE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_api_server_that_does_not_answer_for_a_minute_costs_time_and_no_rotation() {
    let alone = alone().await;
    let testbed = alone.testbed;
    // Without a Lease: the daemon that could not renew it would end, and be started again by the kubelet.
    let arguments = [&QUICK[..], &["--leader-elect=false"]].concat();
    let fixture = Fixture::alone(&alone, "outage", &arguments).await;
    let names = ["a", "b", "c"];
    let deployments = names.map(|name| under(&fixture, name, "p"));
    installed(&fixture, &deployments, &json!({"maxConcurrent": 1})).await;
    change(&fixture).await;
    // Between the first of the rotations and the last.
    eventually(SOON, "a rotation has started", async || {
        for name in names {
            if !fixture.events(name, "RotationStarted").await.is_empty() {
                return Ok(());
            }
        }
        Err("none yet".to_owned())
    })
    .await;

    testbed.freeze_api_server().expect("frozen");
    sleep(OUTAGE).await;
    testbed.thaw_api_server().expect("thawed");
    for name in names {
        let settled = fixture.settled(name, "t", "k").await;
        assert_eq!(revision(&settled), "2", "{name}");
    }
    // And still once, when all that was sent in vain has come to an end.
    fixture.sync_now("m").await;
    fixture.reason("m", "Mirrored").await;
    for name in names {
        let settled = fixture.settled(name, "t", "k").await;
        assert_eq!(revision(&settled), "2", "{name}");
    }
    fixture.daemon_alone().await.kill();
}
