//! The chart: what it renders, what it refuses, what its notes say, and what it lets the daemon do.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use k8s_openapi::api::rbac::v1::ClusterRole;
use keytide::rotation::WorkloadKind::{CronJob, DaemonSet, StatefulSet};
use kube::api::Api;
use serde_json::{Value, json};

use crate::fixture::{Fixture, SOON};
use crate::testbed::system::{CHART, RELEASE};
use crate::testbed::{Testbed, eventually, shared};
use crate::workloads::{make_what_is_not_everywhere, workload};

/// Every value away from its default, as far as one can be with the others; what excludes them is in [`OTHERWISE`].
const EVERYTHING: &str = r#"
vaults:
  youradorunnerskv:
    namespaces: [runners, "team-*"]
    objects: [{kind: secret, name: "*"}, {kind: secret, name: ado-pat}]
    allowConfigMap: ["feature-*"]
  contoso-web.vault.azure.cn:
    clientId: 00000000-0000-0000-0000-000000000001
    tenantId: contoso.onmicrosoft.com
    namespaces: ["*"]
    objects: [{kind: secret, name: web-tls}]
  contoso-teams:
    serviceAccounts: ["*-mirror"]
    namespaceSelector:
      matchLabels: {team: a}
      matchExpressions: [{key: stage, operator: In, values: [live]}]
    objects: [{kind: secret, name: "*"}]
identity:
  type: workloadIdentity
  clientId: 01234567-89ab-cdef-0123-456789abcdef
  tenantId: 01234567-89ab-cdef-0123-456789abcdee
  projectedToken: true
  authorityHost: https://login.partner.microsoftonline.cn/
  serviceAccounts: true
targets:
  configMaps: true
akv2k8s:
  enabled: true
vaultDnsSuffixes: [vault.azure.net, vault.azure.cn]
minRefreshInterval: 30s
hints:
  queueUrl: https://contoso.queue.core.windows.net/keytide
  clientId: 01234567-89ab-cdef-0123-456789abcdef
  pause: 500ms
rotation:
  settle: 1m30s
  minInterval: 2m
  windows: [{days: [Monday], from: "22:00", to: "04:00", timeZone: Europe/Berlin}]
  deadline: 72h
  beforeExpiry: 2h
  maxConcurrent: 5
  clusterMaxConcurrent: 20
  canary: {matchLabels: {tier: canary}, soak: 10m}
  onFailure: Continue
  "on": [env]
  watch: all
  compatibility: true
digestKeySecret: digests
log: {format: text, filter: "info,keytide=debug"}
caBundle: {configMap: roots, key: bundle.crt}
proxy:
  httpsProxy: http://proxy.example.com:3128
  httpProxy: http://proxy.example.com:3128
  noProxy: 10.0.0.0/8,.example.com
replicaCount: 0
image:
  repository: registry.example.com/keytide
  tag: "1.2"
  digest: sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  pullPolicy: Always
imagePullSecrets: [{name: registry}]
nameOverride: tide
fullnameOverride: tide-of-keys
serviceAccount: {name: tide, annotations: {example.com/owner: platform}}
metrics:
  service: {annotations: {prometheus.io/scrape: "true"}}
  serviceMonitor: {labels: {release: prometheus}, interval: 30s, scrapeTimeout: 10s}
resources: {requests: {cpu: 20m, memory: 64Mi}, limits: {memory: 256Mi}}
priorityClassName: system-cluster-critical
nodeSelector: {kubernetes.io/os: linux, pool: system}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms: [{matchExpressions: [{key: pool, operator: In, values: [system]}]}]
tolerations: [{key: CriticalAddonsOnly, operator: Exists}]
topologySpreadConstraints:
  - {maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {}}
terminationGracePeriodSeconds: 10
dnsConfig: {options: [{name: ndots, value: "2"}]}
hostAliases: [{ip: 10.1.2.3, hostnames: [youradorunnerskv.vault.azure.net]}]
podAnnotations: {example.com/a: b}
podLabels: {team: platform}
extraEnv: [{name: RUST_BACKTRACE, value: "1"}, {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
extraEnvFrom: [{configMapRef: {name: more, optional: true}}]
extraVolumes: [{name: extra, emptyDir: {}}]
extraVolumeMounts: [{name: extra, mountPath: /extra}]
"#;

/// What [`EVERYTHING`] excludes.
const OTHERWISE: &str = r#"
runners: {enabled: true}
identity: {type: environment}
serviceAccount: {create: false, name: mine}
caBundle: {secret: roots}
crds: {upgrade: false}
podDisruptionBudget: {enabled: false}
"#;

/// Needs definitions that the testbed has not.
const SERVICE_MONITOR: &str = "metrics: {serviceMonitor: {enabled: true, interval: 30s}}";

/// What Helm makes of the chart.
pub async fn template(testbed: &Testbed, namespace: &str, values: &str, more: &[&str]) -> String {
    let arguments = [
        "template",
        RELEASE,
        CHART,
        "--namespace",
        namespace,
        "--values",
        "-",
    ];
    let arguments = [&arguments, more].concat();
    testbed.helm_with(values, &arguments).await.ok()
}

/// Has the API server look at everything as strictly as it can.
pub async fn is_taken(testbed: &Testbed, manifests: &str) {
    let apply = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
    ];
    let apply = [&apply[..], &["--validate=strict", "--filename", "-"]].concat();
    let taken = testbed.kubectl_with(manifests, &apply).await.ok();
    let kinds = manifests.lines().filter(|line| line.starts_with("kind: "));
    assert_eq!(taken.lines().count(), kinds.count(), "{taken}");
}

pub fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("YAML")
}

#[tokio::test]
async fn helm_finds_nothing_to_complain_about() {
    let testbed = shared().await;
    for values in ["{}", EVERYTHING, OTHERWISE] {
        let lint = ["lint", "--strict", CHART, "--values", "-"];
        testbed.helm_with(values, &lint).await.ok();
    }
    testbed.helm3(&["lint", "--strict", CHART]).await.ok();
}

#[test]
fn the_values_here_are_all_that_there_are() {
    let defaults = fs::read_to_string(Path::new(CHART).join("values.yaml")).expect("values.yaml");
    let here = [EVERYTHING, OTHERWISE, SERVICE_MONITOR].map(yaml);
    let mut same = Vec::new();
    unchanged("", &yaml(&defaults), &here, &mut same);
    assert!(same.is_empty(), "nothing here changes {same:?}");
}

/// The paths of the values that keep their defaults everywhere.
pub fn unchanged(path: &str, default: &Value, given: &[Value], same: &mut Vec<String>) {
    match default {
        Value::Object(fields) if !fields.is_empty() && !path.ends_with("/nodeSelector") => {
            for (name, default) in fields {
                unchanged(&format!("{path}/{name}"), default, given, same);
            }
        }
        default => {
            let changes = |values: &Value| values.pointer(path).is_some_and(|v| v != default);
            if !given.iter().any(changes) {
                same.push(path.to_owned());
            }
        }
    }
}

#[tokio::test]
async fn the_api_server_takes_all_that_is_rendered() {
    // Its daemon's release brings the definitions.
    let fixture = Fixture::without_grant("rendered").await;
    for values in ["{}", EVERYTHING, OTHERWISE] {
        let manifests = template(fixture.testbed, &fixture.namespace, values, &[]).await;
        is_taken(fixture.testbed, &manifests).await;
    }
}

#[tokio::test]
async fn a_service_monitor_is_rendered_where_there_is_one() {
    let testbed = shared().await;
    let known = ["--api-versions", "monitoring.coreos.com/v1/ServiceMonitor"];
    let show = ["--show-only", "templates/metrics.yaml"];
    let rendered = template(testbed, "n", SERVICE_MONITOR, &[&known[..], &show].concat()).await;
    let monitor = rendered
        .split("---")
        .find(|text| text.contains("kind: ServiceMonitor"));
    let monitor = yaml(monitor.expect("a ServiceMonitor"));
    assert_eq!(monitor["spec"]["endpoints"][0]["interval"], "30s");
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], "http-metrics");
    let refused = testbed
        .helm_with(
            SERVICE_MONITOR,
            &["template", RELEASE, CHART, "--values", "-"],
        )
        .await;
    assert!(
        refused
            .stderr
            .contains("this cluster has no ServiceMonitor"),
        "{}",
        refused.stderr
    );
}

/// Installs with wrong values, which must fail, leave nothing behind, and say all of this.
pub async fn is_refused(testbed: &Testbed, chart: &str, values: &str, sentences: &[&str]) {
    let namespace = testbed.namespace("values").await;
    let install = [
        "install",
        "wrong",
        chart,
        "--namespace",
        &namespace,
        "--values",
        "-",
    ];
    let output = testbed.helm_with(values, &install).await;
    assert!(!output.success, "{values} was taken");
    for sentence in sentences {
        assert!(
            output.stderr.contains(sentence),
            "{sentence} is not in: {}",
            output.stderr
        );
    }
    let releases = testbed
        .helm(&["list", "--namespace", &namespace, "--output", "json"])
        .await;
    assert_eq!(releases.ok().trim(), "[]");
}

#[tokio::test]
async fn values_of_a_wrong_kind_stop_the_install() {
    let values = "
unknown: 1
vaults: {contoso: {namespaces: [a], objects: [{kind: password, name: x}]}}
identity: {type: magic}
log: {format: xml}
image: {digest: md5}
";
    let sentences = [
        "additional properties 'unknown' not allowed",
        "at '/vaults/contoso/objects/0/kind': value must be one of 'secret', 'certificate', 'key'",
        "at '/identity/type': value must be one of 'auto'",
        "'workloadIdentity'",
        "'json', 'text'",
        "digest",
    ];
    is_refused(shared().await, CHART, values, &sentences).await;
}

#[tokio::test]
async fn values_that_can_not_be_right_stop_the_install_with_a_sentence_each() {
    let values = r#"
vaults:
  https://contoso.vault.azure.net: {namespaces: [a], objects: [{kind: secret, name: x}]}
  contoso.example.com: {namespaces: [a], objects: [{kind: secret, name: x}]}
  "-_": {namespaces: [a], objects: [{kind: secret, name: x}]}
  empty: {}
  wrong: {namespaces: [Upper], objects: [{kind: secret, name: a/b}, {kind: secret}], clientId: my-identity, tenantId: "?"}
  same.vault.azure.net: {namespaces: [a], objects: [{kind: secret, name: x}]}
  both: {namespaces: [a], objects: [{kind: secret, name: x}], clientId: 01234567-89ab-cdef-0123-456789abcdef, serviceAccounts: [x]}
  same-vault-azure-net: {namespaces: [a], objects: [{kind: secret, name: x}]}
  exposed: {namespaces: [a], objects: [{kind: secret, name: x}], allowConfigMap: [x, a/b]}
identity: {type: managedIdentity, projectedToken: true, authorityHost: "http://login"}
serviceAccount: {create: false}
hints: {queueUrl: "https://contoso.queue.core.windows.net/keytide?sig=hidden", clientId: my-identity, pause: often}
rotation:
  settle: soon
vaultDnsSuffixes: [vault.azure.net, net]
caBundle: {configMap: a, secret: b}
proxy: {httpsProxy: proxy.example.com}
extraEnv: [{name: KEYTIDE_MAX_ROTATIONS, value: "1"}]
"#;
    let sentences = [
        "without https:// and without a path, such as contoso.vault.azure.net",
        "the daemon doesn't ask hosts outside vaultDnsSuffixes",
        "is not a Key Vault's name",
        "vaults.empty.namespaces is missing",
        "vaults.empty.objects is missing",
        "which no namespace can be called",
        "which no vault object can be called",
        "needs both kind and name",
        "vaults.wrong.clientId is \"my-identity\"",
        "vaults.wrong.tenantId is \"?\"",
        "vaults.both has both clientId and serviceAccounts",
        "vaults.both.serviceAccounts needs identity.serviceAccounts: true",
        "would both become the grant",
        "vaults.exposed.allowConfigMap needs targets.configMaps: true",
        "vaults.exposed.allowConfigMap[1] is \"a/b\"",
        "identity.projectedToken is for workload identity",
        "identity.projectedToken needs identity.clientId and identity.tenantId",
        "write the Microsoft Entra endpoint with https://",
        "write the name of a ServiceAccount",
        "rotation.settle is \"soon\": write a number with its unit",
        "hints.queueUrl is not the URL of a queue of Azure Storage",
        "hints.clientId is \"my-identity\"",
        "hints.pause is \"often\": write a number with its unit",
        "write what follows the first dot of a vault's host",
        "caBundle.configMap and caBundle.secret are both set",
        "write the proxy with its scheme",
        "extraEnv sets KEYTIDE_MAX_ROTATIONS, which is set by a value of its own already",
    ];
    is_refused(shared().await, CHART, values, &sentences).await;
}

#[tokio::test]
async fn the_notes_can_be_typed_as_they_are() {
    let fixture = Fixture::without_grant("notes").await;
    let namespace = &fixture.namespace;
    let values = json!({
        "replicaCount": 0,
        "vaults": {&fixture.vault: {"namespaces": [namespace], "objects": [{"kind": "secret", "name": "*"}]}},
    });
    let install = [
        "install",
        "notes",
        CHART,
        "--namespace",
        namespace,
        "--values",
        "-",
    ];
    let notes = fixture
        .testbed
        .helm_with(&values.to_string(), &install)
        .await
        .ok();
    let example = notes
        .lines()
        .skip_while(|line| !line.contains("kubectl apply -f - <<EOF"))
        .take_while(|line| !line.contains("Roll a Deployment"));
    let example = example.collect::<Vec<_>>().join("\n");
    fixture.testbed.bash(&example).await.ok();
    let _daemon = fixture.daemon().await;
    fixture.set("ado-pat", "v");
    fixture.secret_has("adopat", "token", b"v").await;

    let deployment = fixture
        .deployment("NAME", None, "adopat", "token")
        .to_string();
    fixture
        .apply(&serde_json::from_str(&deployment.replace("NAME", "web")).expect("JSON"))
        .await;
    let annotate = notes
        .lines()
        .find(|line| line.contains("kubectl annotate"))
        .expect("a command");
    fixture
        .testbed
        .bash(&annotate.replace("NAME", "web"))
        .await
        .ok();
    fixture.settled("web", "adopat", "token").await;
    let list = notes
        .lines()
        .find(|line| line.contains("kubectl get keyvaultmirrors"))
        .expect("a command");
    assert!(fixture.testbed.bash(list).await.ok().contains("adopat"));
    for said in [
        "Before you run `helm uninstall`",
        "Delete removes the Secret,\nRetain keeps it",
    ] {
        assert!(notes.contains(said), "{said} is not in: {notes}");
    }
}

#[tokio::test]
async fn the_daemon_may_do_nothing_that_it_does_not_do() {
    let fixture = Fixture::new("rbac").await;
    let Some(_) = fixture.testbed.audit_log() else {
        eprintln!("not checked: the audit log of this cluster is not ours to read");
        return;
    };
    let _daemon = fixture.daemon().await;
    // A policy, mirrors, a rotation, and targets that are left behind or somebody else's: what makes it use all of its rights.
    fixture
        .apply(&serde_json::json!({
            "apiVersion": "keytide.dev/v1alpha1",
            "kind": "RotationPolicy",
            "metadata": {"name": "p"},
            "spec": {},
        }))
        .await;
    fixture.set("s", "first");
    fixture
        .apply(&fixture.mirror("m", "before", &[("k", "s")]))
        .await;
    fixture.secret_has("before", "k", b"first").await;
    fixture
        .apply(&fixture.mirror("m", "t", &[("k", "s")]))
        .await;
    fixture.secret_has("t", "k", b"first").await;
    fixture
        .apply(&fixture.deployment("d", Some("true"), "t", "k"))
        .await;
    fixture.settled("d", "t", "k").await;
    fixture.set("s", "second");
    fixture.sync_now("m").await;
    fixture.secret_has("t", "k", b"second").await;
    fixture.settled("d", "t", "k").await;
    uses_config_maps(&fixture).await;
    for kind in [StatefulSet, DaemonSet, CronJob] {
        let manifest = workload(kind, "w", Some("true"), json!({}));
        fixture.apply(&manifest).await;
    }
    make_what_is_not_everywhere(&fixture).await;

    let roles: Api<ClusterRole> = Api::all(fixture.client.clone());
    let rules = roles
        .get(RELEASE)
        .await
        .expect("the role")
        .rules
        .expect("rules");
    let mut granted = BTreeSet::new();
    for rule in &rules {
        for resource in rule.resources.iter().flatten() {
            for verb in &rule.verbs {
                let group = rule.api_groups.iter().flatten().next().expect("a group");
                granted.insert([group.clone(), resource.clone(), verb.clone()]);
            }
        }
    }
    eventually(SOON, "every right is used", async || {
        let log = fixture.testbed.audit_log().unwrap_or_default();
        let used: BTreeSet<[String; 3]> = log.lines().flat_map(used_rights).collect();
        let unused: Vec<_> = granted.difference(&used).collect();
        if unused.is_empty() {
            Ok(())
        } else {
            Err(format!("{unused:?}"))
        }
    })
    .await;
}

/// A ConfigMap that is made, written and deleted, and one that is somebody else's.
async fn uses_config_maps(fixture: &Fixture) {
    let mut grant = fixture.grant_of(&fixture.namespace, "*");
    grant["spec"]["allowConfigMap"] = json!(["s"]);
    fixture.apply(&grant).await;
    let mut mirror = fixture.mirror("map", "before", &[("k", "s")]);
    mirror["spec"]["target"]["kind"] = json!("ConfigMap");
    fixture.apply(&mirror).await;
    fixture.reason("map", "Mirrored").await;
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}});
    fixture.apply(&theirs).await;
    mirror["spec"]["target"]["name"] = json!("theirs");
    fixture.apply(&mirror).await;
    fixture.reason("map", "TargetConflict").await;
}

/// API group, resource and verb of each right that a request in the audit log used.
fn used_rights(line: &str) -> Vec<[String; 3]> {
    // The last line may be half written.
    let event: Value = serde_json::from_str(line).unwrap_or_default();
    let Some([group, resource, verb]) = right(&event) else {
        return Vec::new();
    };
    let mut verbs = vec![verb];
    // An apply that makes something needs the right to create it.
    if verbs[0] == "patch" && event["responseStatus"]["code"] == 201 {
        verbs.push("create".to_owned());
    }
    let verbs = verbs.into_iter();
    verbs
        .map(|verb| [group.clone(), resource.clone(), verb])
        .collect()
}

fn right(event: &Value) -> Option<[String; 3]> {
    let about = &event["objectRef"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let resource = match text(&about["subresource"]) {
        Some(subresource) => format!("{}/{subresource}", text(&about["resource"])?),
        None => text(&about["resource"])?,
    };
    let group = text(&about["apiGroup"]).unwrap_or_default();
    Some([group, resource, text(&event["verb"])?])
}
