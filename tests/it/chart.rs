//! The chart, as Helm renders it.

use crate::testbed::shared;
use crate::testbed::system::CHART;

#[tokio::test]
async fn what_is_rendered_by_default_is_taken_by_the_api_server() {
    let testbed = shared().await;
    let namespace = testbed.namespace("chart").await;
    let rendered = testbed
        .helm(&["template", &namespace, CHART, "--namespace", &namespace])
        .await
        .ok();
    for expected in [
        "replicas: 2",
        "kind: PodDisruptionBudget",
        "leader-election",
    ] {
        assert!(rendered.contains(expected), "{expected}: {rendered}");
    }
    let file = testbed.log_file("rendered.yaml");
    std::fs::write(&file, rendered).expect("written");
    let file = file.display().to_string();
    let arguments = [
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "--namespace",
        &namespace,
        "--filename",
        &file,
    ];
    testbed.kubectl(&arguments).await.ok();
}
