//! What a changed Secret costs the API server: nothing that grows with the number of workloads.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::fixture::{Fixture, SOON};

/// The benchmark (`make bench-rotation`) has a hundred times as many.
const WORKLOADS: usize = 50;

#[tokio::test]
async fn a_changed_secret_costs_what_its_own_workload_costs_however_many_others_there_are() {
    let fixture = Fixture::new("requests").await;
    let _daemon = fixture.daemon().await;
    if fixture.testbed.audit().is_none() {
        eprintln!("not checked: the audit log of this cluster is not ours to read");
        return;
    }
    for (object, target) in [("s", "t"), ("other", "o"), ("clock", "clock")] {
        fixture.set(object, "first");
        fixture
            .apply(&fixture.mirror(object, target, &[("k", object)]))
            .await;
    }
    let others = (1..WORKLOADS).map(|number| {
        let name = format!("other-{number}");
        let mut deployment = fixture.deployment(&name, Some("true"), "o", "k");
        deployment["spec"]["replicas"] = json!(0);
        deployment
    });
    let others: Vec<Value> = others.collect();
    fixture
        .apply(&json!({"apiVersion": "v1", "kind": "List", "items": others}))
        .await;
    fixture.all_settled("o", "k", SOON).await;
    fixture
        .apply(&fixture.deployment("consumer", Some("true"), "t", "k"))
        .await;
    fixture.settled("consumer", "t", "k").await;
    for mirror in ["s", "other", "clock"] {
        fixture.reason(mirror, "Mirrored").await;
    }

    let audit = fixture.testbed.audit().expect("an audit log");
    fixture.set("s", "second");
    fixture.event("consumer", "RotationFinished").await;
    // What there might be to do after that.
    fixture.cycles(2).await;
    let mut asked = BTreeMap::<String, usize>::new();
    for request in audit.requests() {
        let of_all_namespaces = request.about.namespace.is_empty() && request.verb == "list";
        if !of_all_namespaces && request.about.namespace != fixture.namespace {
            continue;
        }
        let what = request.what();
        assert!(
            what != "list pods" || request.uri.contains("labelSelector=app%3Dconsumer"),
            "{}",
            request.uri
        );
        *asked.entry(what).or_default() += 1;
    }
    let expected = [
        // Of the mirror that it was written, and of the workload that its rotation has started and finished.
        ("create events", 3),
        ("list pods", 1),
        ("patch deployments", 1),
        ("patch keyvaultmirrors/status", 1),
        ("patch secrets", 1),
    ];
    let expected = expected.map(|(what, count)| (what.to_owned(), count));
    assert_eq!(asked, BTreeMap::from(expected));
}
