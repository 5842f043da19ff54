//! `keytide migrate` as it is typed: files and a cluster in, manifests that the API server takes out.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;

use crate::alone::alone;
use crate::fixture::{Fixture, KEYTIDE};
use crate::workloads::definition;

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/migrate/testdata");

fn migrate(kubeconfig: &Path, arguments: &[&str]) -> Output {
    Command::new(KEYTIDE)
        .arg("migrate")
        .args(arguments)
        .env_clear()
        .env("KUBECONFIG", kubeconfig)
        .output()
        .expect("keytide runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

#[tokio::test]
async fn what_migrate_prints_is_taken_by_the_api_server() {
    let fixture = Fixture::without_grant("migrate").await;
    let nowhere = Path::new("/nonexistent");
    let files =
        ["akv2k8s", "external-secrets", "csi"].map(|tool| format!("{EXAMPLES}/{tool}.yaml"));
    let arguments = ["-f", &files[0], "-f", &files[1], "-f", &files[2]];
    let arguments = [&arguments[..], &["--namespace", &fixture.namespace]].concat();
    let migrated = migrate(nowhere, &arguments);
    assert!(migrated.status.success(), "{migrated:?}");
    let manifests = text(&migrated.stdout);
    let apply = [
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "--filename",
        "-",
    ];
    let applied = fixture.testbed.kubectl_with(&manifests, &apply).await.ok();
    assert_eq!(applied.matches("keyvaultmirror").count(), 27, "{applied}");
    assert_eq!(applied.matches("keyvaultgrant").count(), 7, "{applied}");

    let strict = migrate(nowhere, &[&arguments[..], &["--strict"]].concat());
    assert_eq!(strict.status.code(), Some(1));
    assert_eq!(text(&strict.stdout), manifests);
    assert!(
        text(&strict.stderr).contains("keytide: --strict: "),
        "{strict:?}"
    );
}

#[test]
fn a_file_that_can_not_be_read_is_said_without_its_content() {
    let nowhere = Path::new("/nonexistent");
    let missing = migrate(nowhere, &["-f", "missing.yaml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).starts_with("keytide: can't read missing.yaml: "));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("broken.yaml");
    std::fs::write(&file, "password: hunter2\n\t- [broken").expect("a file");
    let broken = migrate(nowhere, &["-f", file.to_str().expect("a path")]);
    assert_eq!(broken.status.code(), Some(1));
    let said = text(&broken.stderr);
    assert!(said.contains("broken.yaml is not YAML or JSON: "), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn a_cluster_is_read_in_the_versions_that_it_serves_and_one_without_other_tools_says_so() {
    let alone = alone().await;
    let testbed = alone.testbed;
    let nothing = migrate(testbed.kubeconfig(), &[]);
    assert_eq!(nothing.status.code(), Some(1));
    assert_eq!(
        text(&nothing.stderr),
        "keytide: there is nothing to migrate: the cluster knows none of AzureKeyVaultSecret, SecretStore, ClusterSecretStore, \
         ExternalSecret, SecretProviderClass; give files by --filename, or another cluster by KUBECONFIG\n"
    );

    let namespace = testbed.namespace("migrate").await;
    let definition = definition(
        "spv.no",
        "AzureKeyVaultSecret",
        "azurekeyvaultsecrets",
        &["v1", "v2beta1"],
    );
    testbed
        .apply(&namespace, &definition.to_string())
        .await
        .ok();
    let name = "crd/azurekeyvaultsecrets.spv.no";
    testbed
        .kubectl(&["wait", "--for=condition=Established", name])
        .await
        .ok();
    let resource = json!({
        "apiVersion": "spv.no/v1",
        "kind": "AzureKeyVaultSecret",
        "metadata": {"name": "db"},
        "spec": {
            "vault": {"name": "contoso", "object": {"name": "db", "type": "secret"}},
            "output": {"secret": {"name": "db", "dataKey": "password"}},
        },
    });
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "injected"},
        "spec": {"containers": [{
            "name": "app",
            "image": "app",
            "env": [{"name": "PASSWORD", "value": "db@azurekeyvault"}],
        }]},
    });
    for manifest in [&resource, &pod] {
        testbed.apply(&namespace, &manifest.to_string()).await.ok();
    }
    let migrated = migrate(testbed.kubeconfig(), &[]);
    testbed
        .kubectl(&["delete", "--timeout=60s", name])
        .await
        .ok();
    assert!(migrated.status.success(), "{migrated:?}");
    let manifests = text(&migrated.stdout);
    assert!(manifests.contains("kind: KeyVaultMirror"), "{manifests}");
    assert!(
        manifests.contains(&format!("namespace: {namespace}")),
        "{manifests}"
    );
    let said = text(&migrated.stderr);
    let injected = format!("Pod {namespace}/injected: variable \"PASSWORD\"");
    assert!(said.contains(&injected), "{said}");
}
