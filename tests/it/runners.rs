//! The chart of runner pools: what it renders.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::chart::{is_taken, yaml};
use crate::fixture::SOON;
use crate::testbed::system::CHART;
use crate::testbed::tools::tool;
use crate::testbed::{Testbed, eventually, shared};

/// The chart by itself.
pub const RUNNERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/keytide/charts/runners");

/// What the first user has: a Deployment of 5 to 20 agents, with a PAT from a Key Vault.
pub const FIRST_USER: &str = "
pools:
  agents:
    organizationUrl: https://dev.azure.com/contoso
    poolID: 12
    auth: {pat: {vault: youradorunnerskv, object: ado-pat}}
    image: {repository: registry.example.com/ado-agent, pullPolicy: Always}
    securityContext: {runAsUser: 1000, allowPrivilegeEscalation: false}
";

/// The shared cluster with KEDA's definitions, and without KEDA.
pub async fn testbed() -> &'static Testbed {
    static DEFINITIONS: OnceCell<()> = OnceCell::const_new();
    let testbed = shared().await;
    DEFINITIONS
        .get_or_init(async || {
            let definitions = tool("keda-crds").expect("KEDA's definitions");
            let definitions = definitions.display().to_string();
            let apply = ["apply", "--server-side", "--filename", &definitions];
            testbed.kubectl(&apply).await.ok();
            eventually(SOON, "KEDA's kinds are served", async || {
                let kinds = "scaledobjects,scaledjobs,triggerauthentications";
                let list = testbed.kubectl(&["get", kinds]).await.result();
                list.map_err(|error| error.to_string())
            })
            .await;
        })
        .await;
    testbed
}

/// What Helm makes of the chart for a release `ado` in this namespace.
pub async fn render(namespace: &str, values: &str, more: &[&str]) -> String {
    let arguments = ["template", "ado", RUNNERS, "--namespace", namespace];
    let arguments = [&arguments, &["--values", "-"][..], more].concat();
    testbed().await.helm_with(values, &arguments).await.ok()
}

/// The same where KEDA is said to be there, as objects by kind and name.
pub async fn objects(values: &str, more: &[&str]) -> BTreeMap<(String, String), Value> {
    let more = [more, &["--set", "keda.checkInstalled=false"]].concat();
    by_name(&render("runners", values, &more).await)
}

fn by_name(manifests: &str) -> BTreeMap<(String, String), Value> {
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let documents = manifests.split("\n---\n").map(yaml);
    documents
        .filter(|object| object.is_object())
        .map(|object| {
            (
                (text(&object["kind"]), text(&object["metadata"]["name"])),
                object,
            )
        })
        .collect()
}

pub fn get<'a>(
    objects: &'a BTreeMap<(String, String), Value>,
    kind: &str,
    name: &str,
) -> &'a Value {
    let found = objects.get(&(kind.to_owned(), name.to_owned()));
    found.unwrap_or_else(|| panic!("no {kind} {name} among {:?}", objects.keys()))
}

/// The environment of an object's agent, by name.
pub fn environment(object: &Value) -> BTreeMap<String, Value> {
    let template = match object["kind"].as_str() {
        Some("ScaledJob") => &object["spec"]["jobTargetRef"]["template"],
        _ => &object["spec"]["template"],
    };
    let variables = template["spec"]["containers"][0]["env"].as_array();
    let variables = variables.expect("an environment").iter().cloned();
    variables
        .map(|variable| {
            (
                variable["name"].as_str().expect("a name").to_owned(),
                variable,
            )
        })
        .collect()
}

#[tokio::test]
async fn the_first_users_objects_say_what_those_written_by_hand_said() {
    let set = [
        "--set",
        "pools.agents.organizationUrl=https://dev.azure.com/contoso/",
        "--set",
        "pools.agents.poolID=12",
    ];
    let string = ["--set-string", "pools.agents.poolID= 12 "];
    let only_set = [
        &set[..],
        &["--set", "pools.agents.auth.pat.vault=youradorunnerskv"],
        &["--set", "pools.agents.auth.pat.object=ado-pat"],
        &[
            "--set",
            "pools.agents.image.repository=registry.example.com/ado-agent",
        ],
        &["--set", "pools.agents.image.pullPolicy=Always"],
        &["--set", "pools.agents.securityContext.runAsUser=1000"],
        &[
            "--set",
            "pools.agents.securityContext.allowPrivilegeEscalation=false",
        ],
    ]
    .concat();
    for (values, more) in [
        (FIRST_USER, &[][..]),
        (FIRST_USER, &set[..]),
        (FIRST_USER, &string),
        ("{}", &only_set),
    ] {
        are_the_first_users(&objects(values, more).await, "ado-agents", "runners");
    }
    // The same by Helm 3, which knows no cluster's version then.
    let template = [
        "template",
        "ado",
        RUNNERS,
        "--namespace",
        "runners",
        "--values",
        "-",
    ];
    let more = [
        "--kube-version",
        "1.37.0",
        "--set",
        "keda.checkInstalled=false",
    ];
    let template = [&template[..], &more].concat();
    let rendered = testbed().await.helm3_with(FIRST_USER, &template).await.ok();
    are_the_first_users(&by_name(&rendered), "ado-agents", "runners");
    // The same as part of Keytide's release.
    let values = json!({"runners": yaml(FIRST_USER)}).to_string();
    let template = [
        "template",
        "ado",
        CHART,
        "--namespace",
        "runners",
        "--values",
        "-",
    ];
    let more = [
        "--set",
        "runners.enabled=true",
        "--set",
        "runners.keda.checkInstalled=false",
    ];
    let rendered = testbed()
        .await
        .helm_with(&values, &[&template[..], &more].concat())
        .await
        .ok();
    are_the_first_users(&by_name(&rendered), "ado-agents", "runners");
}

fn are_the_first_users(objects: &BTreeMap<(String, String), Value>, name: &str, namespace: &str) {
    let deployment = get(objects, "Deployment", name);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let variables = environment(deployment);
    assert_eq!(
        variables["AZP_URL"]["value"],
        "https://dev.azure.com/contoso"
    );
    assert_eq!(variables["AZP_POOL"]["value"], "12");
    assert_eq!(variables["AZP_POOL_ID"]["value"], "12");
    let token = json!({"name": "AZP_TOKEN", "valueFrom": {"secretKeyRef": {"name": "adopat", "key": "token"}}});
    assert_eq!(variables["AZP_TOKEN"], token);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        container["image"],
        format!("registry.example.com/ado-agent:{version}")
    );
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(container["securityContext"]["runAsUser"], 1000);
    assert_eq!(
        container["securityContext"]["allowPrivilegeEscalation"],
        false
    );
    // KEDA counts the agents.
    assert_eq!(deployment["spec"].get("replicas"), None);
    assert_eq!(
        deployment["metadata"]["annotations"],
        json!({"keytide.dev/rotate": "true", "keytide.dev/rotation-policy": name})
    );
    let policy = get(objects, "RotationPolicy", name);
    assert_eq!(policy["spec"], json!({"settle": "2m"}));

    let mirror = get(objects, "KeyVaultMirror", "adopat");
    let wanted = json!({
        "vault": {"name": "youradorunnerskv"},
        "data": [{"key": "token", "object": {"kind": "secret", "name": "ado-pat"}}],
        "target": {"name": "adopat"},
        "deletionPolicy": "Retain",
    });
    assert_eq!(mirror["spec"], wanted);

    let authentication = get(objects, "TriggerAuthentication", name);
    let wanted = json!({"secretTargetRef": [{"parameter": "personalAccessToken", "name": "adopat", "key": "token"}]});
    assert_eq!(authentication["spec"], wanted);

    let scaled = &get(objects, "ScaledObject", name)["spec"];
    assert_eq!(scaled["scaleTargetRef"]["kind"], "Deployment");
    assert_eq!(scaled["scaleTargetRef"]["name"], name);
    assert_eq!(
        (&scaled["minReplicaCount"], &scaled["maxReplicaCount"]),
        (&json!(5), &json!(20))
    );
    let trigger = json!([{
        "type": "azure-pipelines",
        "metadata": {"organizationURLFromEnv": "AZP_URL", "poolID": "12", "scaleOnInFlight": "true"},
        "authenticationRef": {"name": name},
    }]);
    assert_eq!(scaled["triggers"], trigger);
    for object in [deployment, mirror, authentication] {
        assert_eq!(object["metadata"]["namespace"], namespace);
    }
}

#[tokio::test]
async fn every_form_of_an_organizations_url_becomes_the_one_that_keda_understands() {
    let forms = [
        (
            "https://dev.azure.com/contoso",
            "https://dev.azure.com/contoso",
        ),
        (
            " https://dev.azure.com/contoso// ",
            "https://dev.azure.com/contoso",
        ),
        (
            "HTTP://Dev.Azure.com/Contoso",
            "https://dev.azure.com/Contoso",
        ),
        (
            "https://contoso.visualstudio.com",
            "https://dev.azure.com/contoso",
        ),
        (
            "https://contoso.visualstudio.com/DefaultCollection/",
            "https://dev.azure.com/contoso",
        ),
        (
            "https://devops.example.com/tfs/Default%20Collection/",
            "https://devops.example.com/tfs/Default%20Collection",
        ),
        (
            "http://devops.example.com:8080/DefaultCollection",
            "http://devops.example.com:8080/DefaultCollection",
        ),
    ];
    let pools: serde_json::Map<String, Value> = forms
        .iter()
        .enumerate()
        .map(|(i, (given, _))| (format!("p{i}"), json!({"organizationUrl": given})))
        .collect();
    let values =
        json!({"pools": pools, "defaults": {"poolID": 1, "auth": {"existingSecret": "s"}}});
    let objects = objects(&values.to_string(), &[]).await;
    for (i, (given, wanted)) in forms.iter().enumerate() {
        let variables = environment(get(&objects, "Deployment", &format!("ado-p{i}")));
        assert_eq!(variables["AZP_URL"]["value"], *wanted, "{given}");
    }
}

#[tokio::test]
async fn a_pool_of_mode_job_is_a_scaled_job_that_kills_no_job() {
    let values = r#"
pools:
  jobs:
    mode: job
    organizationUrl: https://dev.azure.com/contoso
    poolName: ' Team "A" pool '
    auth: {workloadIdentity: {clientId: 01234567-89ab-cdef-0123-456789abcdef}}
    sidecars: [{name: database, image: postgres}]
    buildkit: {enabled: true}
"#;
    let objects = objects(values, &[]).await;
    let kinds: BTreeSet<&str> = objects.keys().map(|(kind, _)| kind.as_str()).collect();
    let wanted = [
        "Job",
        "NetworkPolicy",
        "ScaledJob",
        "ServiceAccount",
        "TriggerAuthentication",
    ];
    assert_eq!(kinds, BTreeSet::from(wanted));

    let job = get(&objects, "ScaledJob", "ado-jobs");
    assert_eq!(job["spec"]["minReplicaCount"], 0);
    // "immediate" would delete running Jobs at an upgrade.
    assert_eq!(job["spec"]["rollout"]["strategy"], "gradual");
    assert_eq!(job["spec"]["jobTargetRef"]["backoffLimit"], 0);
    let trigger = &job["spec"]["triggers"][0]["metadata"];
    assert_eq!(trigger["scaleOnInFlight"], "false");
    assert_eq!(trigger["poolName"], "Team \"A\" pool");
    // The next Pod has the new PAT anyway.
    assert_eq!(job["metadata"].get("annotations"), None);

    let variables = environment(job);
    assert_eq!(variables["AZP_POOL"]["value"], "Team \"A\" pool");
    assert_eq!(variables["AZP_ONCE"]["value"], "true");
    assert_eq!(variables["AZP_AUTH"]["value"], "workload-identity");
    assert!(!variables.contains_key("AZP_TOKEN"), "no PAT anywhere");
    let template = &job["spec"]["jobTargetRef"]["template"];
    assert_eq!(
        template["metadata"]["labels"]["azure.workload.identity/use"],
        "true"
    );
    let account = get(&objects, "ServiceAccount", "ado-jobs");
    let client = &account["metadata"]["annotations"]["azure.workload.identity/client-id"];
    assert_eq!(client, "01234567-89ab-cdef-0123-456789abcdef");
    let identity =
        json!({"provider": "azure-workload", "identityId": "01234567-89ab-cdef-0123-456789abcdef"});
    let authentication = get(&objects, "TriggerAuthentication", "ado-jobs");
    assert_eq!(authentication["spec"]["podIdentity"], identity);

    // What outlives the agent while it finishes its job, and still lets the Job be complete.
    let beside = template["spec"]["initContainers"]
        .as_array()
        .expect("containers");
    for container in beside {
        assert_eq!(container["restartPolicy"], "Always", "{container}");
    }
    assert_eq!(beside.len(), 2);
}

#[tokio::test]
async fn a_pool_that_can_be_empty_has_a_placeholder_that_is_none_of_its_agents() {
    let values = |more: Value| {
        let mut pool = json!({
            "organizationUrl": "https://dev.azure.com/contoso",
            "poolID": 12,
            "auth": {"existingSecret": "s"},
            "capabilities": {"java": 17},
        });
        pool.as_object_mut()
            .expect("a map")
            .extend(more.as_object().expect("a map").clone());
        json!({"pools": {"a": pool}}).to_string()
    };
    let placeholder = |objects: &BTreeMap<(String, String), Value>| {
        objects
            .iter()
            .find(|((kind, _), _)| kind == "Job")
            .map(|(_, job)| job.clone())
    };
    let empty = objects(&values(json!({"scale": {"min": 0}})), &[]).await;
    let job = placeholder(&empty).expect("a placeholder");
    let (own, agents) = (
        environment(&job),
        environment(get(&empty, "Deployment", "ado-a")),
    );
    assert_eq!(own["AZP_PLACEHOLDER"]["value"], "true");
    // Azure DevOps queues a job only if some agent has what it demands.
    assert_eq!(own["java"], agents["java"]);
    let name = own["AZP_AGENT_NAME"]["value"].as_str().expect("a name");
    let prefix = own["AZP_CLEANUP_PREFIX"]["value"]
        .as_str()
        .expect("a prefix");
    assert!(
        !name.starts_with(prefix),
        "{name} would be cleaned up by {prefix}"
    );
    let labels = job["spec"]["template"]["metadata"]["labels"]
        .as_object()
        .expect("labels")
        .clone();
    let selector = get(&empty, "Deployment", "ado-a")["spec"]["selector"]["matchLabels"].clone();
    let selects = |(name, value): (&String, &Value)| labels.get(name) == Some(value);
    assert!(
        !selector.as_object().expect("labels").iter().all(selects),
        "{labels:?}"
    );

    // What differs is another Job, since a Job can't be changed.
    let changed = objects(
        &values(json!({"scale": {"min": 0}, "capabilities": {"java": 21}})),
        &[],
    )
    .await;
    assert_ne!(
        placeholder(&changed).expect("one")["metadata"]["name"],
        job["metadata"]["name"]
    );
    assert_eq!(placeholder(&objects(&values(json!({})), &[]).await), None);
    let never = json!({"scale": {"min": 0}, "placeholder": {"enabled": false}});
    assert_eq!(placeholder(&objects(&values(never), &[]).await), None);
}

#[tokio::test]
async fn a_pool_keeps_what_the_defaults_say_unless_it_says_otherwise() {
    let values = r#"
defaults:
  organizationUrl: https://dev.azure.com/contoso
  poolName: shared
  auth: {pat: {vault: youradorunnerskv, object: ado-pat}}
  rotate: true
  resources: {limits: {cpu: 4}}
  nodeSelector: {pool: agents}
pools:
  own:
    poolID: 7
    auth: {existingSecret: mine}
    rotate: false
    resources: {requests: {cpu: 2}, limits: {memory: null}}
    nodeSelector: null
  same: {}
  other-object: {secretName: other, auth: {pat: {object: other-pat}}}
  gone: {}
"#;
    let objects = objects(values, &["--set", "pools.gone=null"]).await;
    let own = get(&objects, "Deployment", "ado-own");
    let pod = &own["spec"]["template"]["spec"];
    assert_eq!(environment(own)["AZP_POOL_ID"]["value"], "7");
    assert_eq!(
        environment(own)["AZP_TOKEN"]["valueFrom"]["secretKeyRef"]["name"],
        "mine"
    );
    assert_eq!(own["metadata"].get("annotations"), None);
    let resources = json!({"requests": {"cpu": 2, "memory": "1Gi"}, "limits": {"cpu": 4}});
    assert_eq!(pod["containers"][0]["resources"], resources);
    assert_eq!(pod.get("nodeSelector"), None);

    let same = get(&objects, "Deployment", "ado-same");
    assert_eq!(environment(same)["AZP_POOL"]["value"], "shared");
    assert_eq!(
        same["spec"]["template"]["spec"]["nodeSelector"]["pool"],
        "agents"
    );
    let other = get(&objects, "KeyVaultMirror", "other");
    assert_eq!(other["spec"]["vault"]["name"], "youradorunnerskv");
    assert_eq!(other["spec"]["data"][0]["object"]["name"], "other-pat");
    assert!(!objects.keys().any(|(_, name)| name == "ado-gone"));
}

#[tokio::test]
async fn a_teams_namespace_has_room_for_twice_its_agents() {
    let values = "
namespaces:
  payments: {create: true, team: payments, costCenter: 4711, resourceQuota: {enabled: true, hard: {pods: '999', services: 0}}}
  shop: {resourceQuota: {enabled: true}}
defaults:
  organizationUrl: https://dev.azure.com/contoso
  poolID: 12
  auth: {existingSecret: s}
  resources: {requests: {cpu: 500m, memory: 1.5Gi}, limits: {cpu: '2', memory: 2G}}
pools:
  a: {namespace: payments}
  b: {namespace: shop, scale: {max: 10}}
  c: {namespace: shop, mode: job, scale: {max: 3}, buildkit: {enabled: true, resources: {requests: {cpu: 0.25, memory: 512Mi}}}}
  d: {namespace: shop, replicas: 2, scale: {enabled: false}}
";
    let objects = objects(values, &[]).await;
    let quotas: Vec<&Value> = objects
        .iter()
        .filter(|((kind, _), _)| kind == "ResourceQuota")
        .map(|(_, quota)| quota)
        .collect();
    // Both are called alike, so the map has the last.
    let [shop] = quotas.as_slice() else {
        panic!("{quotas:?}")
    };
    assert_eq!(shop["metadata"]["namespace"], "shop");
    // Twice 10, 3 and 2 agents, and the placeholder of c; no container of c says its most CPU.
    let agents = 2 * (10 + 3 + 2) + 1;
    let beside = 2 * 3 + 1;
    let wanted = json!({
        "pods": agents.to_string(),
        "requests.cpu": format!("{}m", agents * 500 + beside * 250),
        "requests.memory": format!("{}Mi", agents * 1536 + beside * 512),
        "limits.memory": format!("{}Mi", (agents * 2_000_000_000_u64 + beside * 4 * 1024 * 1024 * 1024).div_ceil(1024 * 1024)),
    });
    assert_eq!(shop["spec"]["hard"], wanted);

    let namespace = get(&objects, "Namespace", "payments");
    assert_eq!(namespace["metadata"]["labels"]["cost-center"], "4711");
    // The PAT is in it.
    assert_eq!(
        namespace["metadata"]["annotations"]["helm.sh/resource-policy"],
        "keep"
    );
    let agents = get(&objects, "Deployment", "ado-a");
    assert_eq!(
        agents["spec"]["template"]["metadata"]["labels"]["team"],
        "payments"
    );
}

#[tokio::test]
async fn long_names_are_cut_and_never_meet() {
    let long = "a".repeat(70);
    let pools = json!({
        format!("{long}1"): {"scale": {"min": 0}, "toolCache": {"claim": {"create": true}}},
        format!("{long}2"): {"mode": "job"},
        format!("{}", "b".repeat(63)): {},
    });
    let defaults = json!({"organizationUrl": "https://dev.azure.com/contoso", "poolID": 1, "auth": {"existingSecret": "s"}});
    let values = json!({"pools": pools, "defaults": defaults}).to_string();
    let release = "r".repeat(53);
    let testbed = testbed().await;
    let namespace = testbed.namespace("long").await;
    let template = [
        "template",
        &release,
        RUNNERS,
        "--namespace",
        &namespace,
        "--values",
        "-",
    ];
    let template = [&template[..], &["--set", "keda.checkInstalled=false"]].concat();
    let rendered = testbed.helm_with(&values, &template).await.ok();
    is_taken(testbed, &rendered).await;
    let objects = by_name(&rendered);
    let scaled = ["ScaledObject", "ScaledJob", "Deployment"]
        .map(|wanted| objects.keys().filter(|(kind, _)| kind == wanted).count());
    assert_eq!(scaled, [2, 1, 2]);
    for (kind, name) in objects.keys() {
        // KEDA makes labels of them, and Kubernetes cuts the names of Pods at 63.
        let most = if kind == "Deployment" || kind.starts_with("Scaled") {
            42
        } else {
            63
        };
        assert!(name.len() <= most, "{kind} {name}");
    }
}
