//! A cluster for tests that need one to themselves: they install the chart in other ways, or go without it.

use serde::Deserialize;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::testbed::Testbed;
use crate::testbed::shared::scratch_parent;

/// The CustomResourceDefinitions of the chart.
pub const CRDS: [&str; 3] = [
    "keyvaultmirrors.keytide.dev",
    "keyvaultgrants.keytide.dev",
    "rotationpolicies.keytide.dev",
];

/// That of akv2k8s, which some tests bring.
const AKV2K8S: &str = "azurekeyvaultsecrets.spv.no";

/// The cluster, for one test at a time.
pub struct Alone {
    pub testbed: &'static Testbed,
    _turn: MutexGuard<'static, ()>,
}

#[derive(Deserialize)]
struct Release {
    name: String,
    namespace: String,
}

/// Waits for its turn and gives a cluster with nothing of Keytide in it.
pub async fn alone() -> Alone {
    static TURN: Mutex<()> = Mutex::const_new(());
    static TESTBED: OnceCell<Testbed> = OnceCell::const_new();
    let turn = TURN.lock().await;
    let testbed = TESTBED
        .get_or_init(async || {
            Testbed::start_own(&scratch_parent())
                .await
                .expect("a cluster")
        })
        .await;
    let releases = testbed
        .helm(&["list", "--all-namespaces", "--output", "json"])
        .await
        .ok();
    let releases: Vec<Release> = serde_json::from_str(&releases).expect("a list of releases");
    for Release { name, namespace } in &releases {
        testbed
            .helm(&["uninstall", name, "--namespace", namespace])
            .await
            .ok();
    }
    let delete = [
        "delete",
        "customresourcedefinition",
        "--ignore-not-found",
        "--timeout=60s",
    ];
    let definitions = [&CRDS[..], &[AKV2K8S]].concat();
    testbed
        .kubectl(&[&delete[..], &definitions].concat())
        .await
        .ok();
    Alone {
        testbed,
        _turn: turn,
    }
}
