//! The values of runner pools: that all of them do something, in every way that they can be written, and what is refused.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::chart::{is_refused, is_taken, unchanged, yaml};
use crate::fixture::Fixture;
use crate::runners::{FIRST_USER, RUNNERS, environment, get, objects, render, testbed};

/// Every field away from its default, as far as one can be with the others; what excludes them is in [`OTHERWISE`].
const EVERYTHING: &str = r#"
keda: {checkInstalled: false, operatorNamespaces: [], operatorName: operator}
pools:
  contoso: {}
  another: {name: another}
namespaces:
  TEAM:
    create: true
    team: payments
    costCenter: 4711
    labels: {owner: 12}
    annotations: {example.com/a: b}
    resourceQuota: {enabled: true, hard: {requests.storage: 1Ti}}
    limitRange: {enabled: true, limits: [{type: Container, defaultRequest: {cpu: 100m}}]}
    access:
      view: [{kind: Group, name: 0123}, {kind: ServiceAccount, name: default}]
      edit: [{kind: User, name: someone}]
defaults:
  name: agents
  namespace: TEAM
  organizationUrl: https://dev.azure.com/contoso
  poolName: Linux "agents"
  auth: {pat: {vault: youradorunnerskv, object: ado-pat, version: 0123456789abcdef0123456789abcdef, serviceAccountName: vault-reader, refreshInterval: 1m}}
  secretName: pat
  scale:
    min: 0
    max: 40
    pollingInterval: 10
    cooldownPeriod: 60
    demands: [java, Agent.OS -equals Linux]
    demandsMatch: requireAllDemands
    caseInsensitiveDemands: true
    fetchUnfinishedJobsOnly: true
    parent: placeholder-agents
    targetPipelinesQueueLength: 2
    activationTargetPipelinesQueueLength: 1
    scaleOnInFlight: false
    behavior: {scaleDown: {stabilizationWindowSeconds: 60}}
    fallback: {failureThreshold: 3, replicas: 5}
  placeholder: {enabled: true}
  rotate: false
  terminationGracePeriodSeconds: "7200"
  safeToEvict: true
  podDisruptionBudget: {maxUnavailable: 1}
  updateStrategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}
  minReadySeconds: 0
  revisionHistoryLimit: 3
  capabilities: {java: 17, node.js: 22.1}
  env: {GREETING: hello, NODE: {valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}}
  envFrom: [{configMapRef: {name: more, optional: true}}]
  image: {repository: registry.example.com/runner, tag: 4, digest: "sha256:DIGEST", pullPolicy: Always}
  imagePullSecrets: [{name: registry}]
  resources: {requests: {cpu: 1, memory: 2Gi}, limits: {memory: null, cpu: 2}}
  podSecurityContext: {runAsUser: 1000, runAsNonRoot: false, fsGroup: 2000, fsGroupChangePolicy: Always, seccompProfile: {type: Unconfined}}
  securityContext: {allowPrivilegeEscalation: true, capabilities: {drop: [NET_RAW]}}
  readinessProbe: {exec: {command: ["true"]}}
  lifecycle: {preStop: {exec: {command: ["true"]}}}
  work: {path: /agent/work, volume: {ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Gi}}}}}}}
  toolCache: {path: /tools, claim: {create: true, storageClassName: azurefile, size: 5Gi, accessModes: [ReadWriteOnce]}}
  extraVolumes: [{name: extra, emptyDir: {}}]
  extraVolumeMounts: [{name: extra, mountPath: /extra}]
  initContainers: [{name: before, image: busybox, resources: {requests: {cpu: 1m, memory: 1Mi}, limits: {cpu: 1m}}}]
  sidecars: [{name: beside, image: postgres, resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 1}}}]
  buildkit:
    enabled: true
    image: registry.example.com/buildkit:rootless
    args: [--debug]
    appArmorUnconfined: false
    resources: {requests: {cpu: 500m, memory: 1Gi}, limits: {cpu: 1, memory: 8Gi}}
    volume: {hostPath: {path: /mnt}}
  proxy: {httpsProxy: http://proxy.example.com:3128, httpProxy: http://proxy.example.com:3128, noProxy: .example.com}
  caBundle: {configMap: roots, key: bundle.crt}
  networkPolicy: {ingress: [{from: [{podSelector: {}}]}], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}
  serviceAccount: {name: agents, annotations: {example.com/a: b}, automountToken: true}
  team: payments
  costCenter: 4711
  labels: {stage: 1}
  annotations: {example.com/c: d}
  podLabels: {more: x}
  podAnnotations: {cluster-autoscaler.kubernetes.io/safe-to-evict: false}
  nodeSelector: {pool: agents, gpu: true}
  tolerations: [{key: agents, operator: Exists}]
  affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: pool, operator: Exists}]}]}}}
  topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway}]
  priorityClassName: system-cluster-critical
  runtimeClassName: kata
  dnsConfig: {options: [{name: ndots, value: "2"}]}
  hostAliases: [{ip: 10.1.2.3, hostnames: [dev.azure.com]}]
"#;

/// What [`EVERYTHING`] excludes.
const OTHERWISE: &str = r#"
pools:
  jobs:
    mode: job
    placeholder: {enabled: false}
    scale: {jobsToFetch: 100, fetchUnfinishedJobsOnly: false}
  later: {rotateAfter: 1h, auth: {pat: {vault: youradorunnerskv, object: ado-pat}}}
  fixed: {replicas: 3, scale: {enabled: false}, auth: {existingSecret: mine}}
  without-account: {serviceAccount: {create: false}, auth: {existingSecret: mine}}
defaults:
  organizationUrl: https://dev.azure.com/contoso
  poolID: 12
  mode: deployment
  auth:
    workloadIdentity:
      clientId: 01234567-89ab-cdef-0123-456789abcdef
      tenantId: 01234567-89ab-cdef-0123-456789abcdee
      kedaClientId: 01234567-89ab-cdef-0123-456789abcded
      projectedToken: true
      authorityHost: https://login.partner.microsoftonline.cn/
    existingSecretKey: pat
  job:
    scalingStrategy: {strategy: default, pendingPodConditions: [PodScheduled]}
    activeDeadlineSeconds: 3600
    ttlSecondsAfterFinished: 60
    successfulJobsHistoryLimit: 1
    failedJobsHistoryLimit: 1
  podDisruptionBudget: {enabled: false}
  updateStrategy: {type: Recreate, rollingUpdate: null}
  work: {sizeLimit: 20Gi}
  toolCache: {volume: {persistentVolumeClaim: {claimName: tools}}}
  caBundle: {secret: roots}
  networkPolicy: {enabled: false}
"#;

fn everything(team: &str) -> String {
    let digest = "0123456789abcdef".repeat(4);
    EVERYTHING.replace("TEAM", team).replace("DIGEST", &digest)
}

#[tokio::test]
async fn helm_finds_nothing_to_complain_about() {
    let testbed = testbed().await;
    for values in ["{}", FIRST_USER, &everything("team"), OTHERWISE] {
        let lint = ["lint", "--strict", RUNNERS, "--values", "-"];
        let offline = [&lint[..], &["--set", "keda.checkInstalled=false"]].concat();
        testbed.helm_with(values, &offline).await.ok();
    }
    testbed.helm3(&["lint", "--strict", RUNNERS]).await.ok();
}

#[test]
fn the_values_here_are_all_that_there_are() {
    let defaults = fs::read_to_string(Path::new(RUNNERS).join("values.yaml")).expect("values.yaml");
    let defaults = yaml(&defaults);
    let mut here = [everything("team"), OTHERWISE.to_owned()]
        .map(|text| yaml(&text))
        .to_vec();
    // What a pool says itself is as good.
    let pools = here[1]["pools"].as_object().expect("pools").clone();
    here.extend(pools.values().map(|pool| json!({"defaults": pool})));
    let mut same = Vec::new();
    unchanged("", &defaults, &here, &mut same);
    assert!(same.is_empty(), "nothing here changes {same:?}");
}

#[tokio::test]
async fn the_api_server_takes_all_that_is_rendered() {
    let _definitions = Fixture::without_grant("runners").await;
    let testbed = testbed().await;
    let team = testbed.namespace("team").await;
    let namespace = testbed.namespace("taken").await;
    for values in [FIRST_USER, &everything(&team), OTHERWISE] {
        is_taken(
            testbed,
            &render(&namespace, values, &["--set", "keda.checkInstalled=false"]).await,
        )
        .await;
    }
}

#[tokio::test]
async fn numbers_stand_for_strings_and_digits_for_numbers() {
    let values = "
pools:
  a:
    organizationUrl: https://dev.azure.com/contoso
    poolID: 123456789
    auth: {existingSecret: s}
    costCenter: 4711000000
    team: 12
    capabilities: {java: 17, node: 22.5, gpu: true}
    env: {NUMBER: 10000000}
    scale: {min: '1', max: ' 30 ', parent: 5, demands: [1, 2]}
    nodeSelector: {generation: 2}
    image: {tag: 20260101}
";
    let from_file = objects(values, &[]).await;
    let set = [
        "pools.a.organizationUrl=https://dev.azure.com/contoso",
        "pools.a.poolID=123456789",
        "pools.a.auth.existingSecret=s",
        "pools.a.costCenter=4711000000",
        "pools.a.team=12",
        "pools.a.capabilities.java=17",
        "pools.a.capabilities.node=22.5",
        "pools.a.capabilities.gpu=true",
        "pools.a.env.NUMBER=10000000",
        "pools.a.scale.min=1",
        "pools.a.scale.max=30",
        "pools.a.scale.parent=5",
        "pools.a.scale.demands={1,2}",
        "pools.a.nodeSelector.generation=2",
        "pools.a.image.tag=20260101",
    ];
    let set: Vec<&str> = set.iter().flat_map(|value| ["--set", value]).collect();
    assert_eq!(objects("{}", &set).await, from_file);
    let deployment = get(&from_file, "Deployment", "ado-a");
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(
        (&labels["cost-center"], &labels["team"]),
        (&json!("4711000000"), &json!("12"))
    );
    let variables = environment(deployment);
    for (name, value) in [
        ("java", "17"),
        ("node", "22.5"),
        ("gpu", "true"),
        ("NUMBER", "10000000"),
    ] {
        assert_eq!(variables[name]["value"], value);
    }
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["nodeSelector"]["generation"], "2");
    assert_eq!(pod["containers"][0]["image"], "keytide-runner:20260101");
    let scaled = &get(&from_file, "ScaledObject", "ado-a")["spec"];
    assert_eq!(
        (&scaled["minReplicaCount"], &scaled["maxReplicaCount"]),
        (&json!(1), &json!(30))
    );
    let trigger = &scaled["triggers"][0]["metadata"];
    assert_eq!(trigger["poolID"], "123456789");
    assert_eq!(
        (&trigger["parent"], &trigger["demands"]),
        (&json!("5"), &json!("1,2"))
    );
}

#[tokio::test]
async fn values_of_a_wrong_kind_stop_the_install() {
    let values = "
unknown: 1
pools:
  a: {poolNam: x, mode: jobs, rotate: 'yes', scale: {min: -1, max: many, demandsMatch: some}}
  b: {scale: null, terminationGracePeriodSeconds: ''}
namespaces: {b: {access: {view: [{kind: Team, name: x}]}}}
";
    let sentences = [
        "additional properties 'unknown' not allowed",
        "additional properties 'poolNam' not allowed",
        "at '/pools/a/mode': value must be one of 'deployment', 'job'",
        "at '/pools/a/rotate': got string, want boolean",
        "at '/pools/a/scale/min': minimum",
        "at '/pools/a/scale/max': 'many' does not match pattern",
        "'requireAllDemandsAndIgnoreOthers'",
        "at '/pools/b/scale': got null, want object",
        "at '/pools/b/terminationGracePeriodSeconds': '' does not match pattern",
        "at '/namespaces/b/access/view/0/kind': value must be one of 'Group'",
    ];
    is_refused(testbed().await, RUNNERS, values, &sentences).await;
}

#[tokio::test]
async fn values_that_can_not_be_right_stop_the_install_with_a_sentence_each() {
    let values = r#"
pools:
  nothing: {}
  'Team "A"': {organizationUrl: https://dev.azure.com/contoso, poolID: 1, auth: {existingSecret: s}}
  both: {organizationUrl: https://dev.azure.com/contoso/project, poolName: x, poolID: 3, auth: {existingSecret: s, pat: {vault: v, object: o}}}
  token: {organizationUrl: "https://me:CANARY@dev.azure.com/contoso", poolID: abc, auth: {pat: {vault: "https://v", object: a b}}}
  half: {organizationUrl: dev.azure.com/contoso, poolID: 12.5, auth: {pat: {vault: youradorunnerskv}}, secretName: half}
  page: {organizationUrl: "https://contoso.visualstudio.com/_settings/agentpools", poolID: 0, auth: {workloadIdentity: {clientId: me, kedaClientId: keda, projectedToken: true}}, serviceAccount: {create: false}}
  min: {name: same, organizationUrl: https://dev.azure.com/contoso, poolID: 1, auth: {existingSecret: s}, scale: {min: 30}}
  max: {name: same, organizationUrl: https://dev.azure.com/contoso, poolID: 1, auth: {existingSecret: s}, scale: {max: 0}}
  jobs:
    mode: job
    name: Jobs
    namespace: Team_A
    organizationUrl: https://dev.azure.com/contoso
    poolID: 1
    auth: {pat: {vault: youradorunnerskv, object: one}}
    scale: {enabled: false, jobsToFetch: 3, parent: p, fetchUnfinishedJobsOnly: true}
    team: two words
    env: {AZP_URL: x, "a b": 1, X: 1}
    capabilities: {X: 1}
    proxy: {httpsProxy: proxy.example.com}
    caBundle: {configMap: a, secret: b}
    work: {path: work}
    toolCache: {volume: {emptyDir: {}}, claim: {create: true}}
  one: {rotateAfter: soon, secretName: "same", organizationUrl: https://dev.azure.com/contoso, poolID: 1, auth: {pat: {vault: youradorunnerskv, object: one}}}
  two: {secretName: "same", organizationUrl: https://dev.azure.com/contoso, poolID: 1, auth: {pat: {vault: youradorunnerskv, object: two}}}
  this: {serviceAccount: {name: shared}, organizationUrl: https://dev.azure.com/contoso, poolID: 1, auth: {existingSecret: s}}
  that: {serviceAccount: {name: shared}, organizationUrl: https://dev.azure.com/contoso, poolID: 1, auth: {workloadIdentity: {clientId: 01234567-89ab-cdef-0123-456789abcdef}}}
  no-secret: {secretName: "", organizationUrl: https://dev.azure.com/contoso, poolID: 1, auth: {pat: {vault: youradorunnerskv, object: two}}}
namespaces:
  x_: {}
  empty: {limitRange: {enabled: true}, costCenter: "-"}
"#;
    let sentences = [
        "pools.one.rotateAfter is \"soon\": write a number with its unit",
        "pools.nothing.organizationUrl is missing: write the organization's URL, such as https://dev.azure.com/contoso",
        "pools.nothing has no agent pool: write its name to poolName, or its number",
        "pools.nothing.auth is missing: write auth.pat (vault and object)",
        "pools.Team \"A\": Kubernetes objects are named after it",
        "pools.both.organizationUrl is \"https://dev.azure.com/contoso/project\": write the organization's URL without a project",
        "pools.both.poolName (\"x\") and pools.both.poolID (3) are both set: write one of them",
        "pools.both.auth has pat and existingSecret: write one of them",
        "pools.token.organizationUrl has an @ in it: write the URL without a user or token",
        "pools.token.poolID is \"abc\": write the pool's number, or its name to poolName",
        "pools.token.auth.pat.vault is \"https://v\": write the vault's name or its host",
        "pools.token.auth.pat.object is \"a b\", which no vault object can be called",
        "pools.half.organizationUrl is \"dev.azure.com/contoso\": write a URL with https://",
        "pools.half.poolID is \"12.5\"",
        "pools.half.auth.pat needs both vault and object",
        "pools.page.organizationUrl is \"https://contoso.visualstudio.com/_settings/agentpools\": write the organization's URL without a project or page",
        "pools.page.poolID is \"0\"",
        "pools.page.auth.workloadIdentity.clientId is \"me\": write the identity's client ID",
        "pools.page.auth.workloadIdentity.kedaClientId is \"keda\"",
        "pools.page.auth.workloadIdentity.projectedToken needs tenantId",
        "pools.page.serviceAccount.create is false and serviceAccount.name is empty",
        "pools.min.scale.min is 30 and scale.max is 20: the least can't be more than the most",
        "pools.max.scale.max is 0: write the most agents that there may be",
        "pools.max and pools.min would both be called same in namespace values",
        "pools.jobs.name is \"Jobs\"",
        "pools.jobs.namespace is \"Team_A\", which no namespace can be called",
        "pools.jobs.scale.enabled is false in mode job, whose Pods only KEDA makes",
        "pools.jobs.scale.jobsToFetch and scale.fetchUnfinishedJobsOnly are both set",
        "pools.jobs.scale.jobsToFetch and scale.parent are both set",
        "pools.jobs.team is \"two words\", and becomes a label",
        "pools.jobs.env sets AZP_URL, which is set by a field of its own already",
        "pools.jobs.env sets X, which is set by capabilities already",
        "pools.jobs.env has \"a b\", which no environment variable can be called",
        "pools.jobs.proxy.httpsProxy is \"proxy.example.com\": write the proxy with its scheme",
        "pools.jobs.caBundle.configMap and caBundle.secret are both set",
        "pools.jobs.work.path is \"work\": write an absolute path",
        "pools.jobs.toolCache.volume and toolCache.claim.create are both set",
        "pools.one and pools.two mirror different PATs into the Secret same",
        "pools.that and pools.this have different identities or annotations for the ServiceAccount shared",
        "pools.no-secret.secretName is empty",
        "namespaces.x_: no namespace can be called so",
        "namespaces.empty: no pool has this namespace",
        "namespaces.empty.limitRange.limits is missing",
        "namespaces.empty.costCenter is \"-\", and becomes a label",
    ];
    let testbed = testbed().await;
    is_refused(testbed, RUNNERS, values, &sentences).await;
    // What may be a token is not repeated.
    let template = ["template", "ado", RUNNERS, "--values", "-"];
    let refused = testbed.helm_with(values, &template).await;
    assert!(
        !refused.success && !refused.stderr.contains("CANARY"),
        "{}",
        refused.stderr
    );
}

#[tokio::test]
async fn the_books_examples_are_taken() {
    // What the examples leave out.
    let rest = [
        "--set=defaults.organizationUrl=https://dev.azure.com/contoso",
        "--set=defaults.poolID=1",
        "--set=defaults.auth.existingSecret=s",
    ];
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src");
    let mut examples = 0;
    for page in ["runners.md", "runners-builds.md", "runners-migration.md"] {
        let text = fs::read_to_string(book.join(page)).expect("a page");
        let blocks = text.split("```yaml\n").skip(1);
        for block in blocks.filter_map(|rest| rest.split("```").next()) {
            let values = yaml(block);
            let ours = ["pools", "defaults", "namespaces"];
            if ours.iter().any(|field| values.get(field).is_some()) {
                objects(&values.to_string(), &rest).await;
                examples += 1;
            }
        }
    }
    assert!(examples >= 8, "{examples}");
}
