//! Waves: many workloads on one Secret. Each is restarted once, and never more at once than are allowed.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use kube::ResourceExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, watcher};
use serde_json::{Value, json};

use crate::fixture::{Fixture, SOON, revision};
use crate::policies::{change, policy, under};
use crate::testbed::rollouts::is_rolled_out;

/// Longest that one rollout takes of those that go at once, on a busy machine.
const ROLLOUT: Duration = Duration::from_secs(10);

/// Deployments of the wave; the bar is for 500.
fn wave() -> usize {
    let told = std::env::var("KEYTIDE_TEST_WAVE").ok();
    told.and_then(|number| number.parse().ok()).unwrap_or(20)
}

/// The most Deployments that were seen to roll at once.
type Most = Arc<Mutex<usize>>;

/// Counts what rolls, from now on and in the order in which it does.
fn count_rollouts(fixture: &Fixture) -> (Most, tokio::task::JoinHandle<()>) {
    let most = Most::default();
    let counted = Arc::clone(&most);
    let deployments = watcher(fixture.deployments(), Config::default());
    let counting = tokio::spawn(async move {
        let mut rolling = HashSet::new();
        let mut shown = std::pin::pin!(deployments.default_backoff().applied_objects());
        while let Some(deployment) = shown.next().await {
            let Ok(deployment) = deployment else { continue };
            if is_rolled_out(&deployment) {
                rolling.remove(&deployment.name_any());
            } else {
                rolling.insert(deployment.name_any());
            }
            let mut most = counted.lock().expect("a count");
            *most = rolling.len().max(*most);
        }
    });
    (most, counting)
}

#[tokio::test]
async fn a_wave_rolls_each_once_and_never_more_at_once_than_are_allowed() {
    let size = wave();
    let at_once = (size / 5).clamp(1, 10);
    let deadline = SOON + ROLLOUT * u32::try_from(size / at_once).expect("a number of rollouts");
    let fixture = Fixture::new("wave").await;
    let _daemon = fixture.daemon().await;
    let audit = fixture.testbed.audit();
    fixture
        .apply(&policy("p", &json!({"maxConcurrent": at_once})))
        .await;
    let deployments = (0..size).map(|number| {
        let mut deployment = under(&fixture, &format!("d{number}"), "p");
        deployment["spec"]["replicas"] = json!(1);
        deployment
    });
    let deployments: Vec<Value> = deployments.collect();
    fixture.set("s", "first");
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture
        .apply(&json!({"apiVersion": "v1", "kind": "List", "items": deployments}))
        .await;
    let all = fixture.all_settled("t", "k", deadline).await;
    assert_eq!(all.len(), size);

    let (most, counting) = count_rollouts(&fixture);
    change(&fixture).await;
    for deployment in fixture.all_settled("t", "k", deadline).await {
        let name = deployment.name_any();
        assert_eq!(revision(&deployment), "2", "{name}");
    }
    counting.abort();
    assert_eq!(*most.lock().expect("a count"), at_once);
    let Some(audit) = audit else {
        eprintln!("not checked: the audit log of this cluster is not ours to read");
        return;
    };
    let mut patches = BTreeMap::<String, usize>::new();
    for request in audit.requests() {
        let is_ours = request.about.namespace == fixture.namespace;
        if is_ours && request.has_written() && request.what() == "patch deployments" {
            *patches.entry(request.about.name).or_default() += 1;
        }
    }
    // The first baseline, and the rotation.
    assert_eq!(patches.len(), size);
    assert!(patches.values().all(|count| *count == 2), "{patches:?}");
}
