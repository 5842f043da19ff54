//! The first user's case, from an empty cluster to a rolled Deployment, with what it really prints.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::testbed::Result;
use super::testbed::shared::Testbed;
use super::testbed::system::System;
use super::testbed::wait::within;

const DEADLINE: Duration = Duration::from_secs(120);
const NAMESPACE: &str = "runners";
const VAULT: &str = "youradorunnerskv";
/// Longest that the rotation may take: the poll interval, the settling, and two seconds.
const PROMISE: Duration = Duration::from_secs(10 + 10 + 2);

const SEED: &str = "
vaults:
  youradorunnerskv:
    secrets: {ado-pat: first-token}
";

const MANIFESTS: &str = r#"
apiVersion: keytide.dev/v1alpha1
kind: KeyVaultMirror
metadata: {name: ado-pat}
spec:
  vault: {name: youradorunnerskv}
  refreshInterval: 10s
  data:
    - key: token
      object: {kind: secret, name: ado-pat}
  target: {name: adopat}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: ado-runners
  annotations: {keytide.dev/rotate: "true"}
spec:
  replicas: 5
  selector: {matchLabels: {app: ado-runners}}
  template:
    metadata: {labels: {app: ado-runners}}
    spec:
      containers:
        - name: agent
          image: agent
          env: [{name: AZP_TOKEN, valueFrom: {secretKeyRef: {name: adopat, key: token}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: bystander}
spec:
  replicas: 1
  selector: {matchLabels: {app: bystander}}
  template:
    metadata: {labels: {app: bystander}}
    spec:
      containers:
        - name: web
          image: web
          env: [{name: AZP_TOKEN, valueFrom: {secretKeyRef: {name: adopat, key: token}}}]
"#;

/// Tells a step, with the seconds since the start.
struct Narrator(Instant);

impl Narrator {
    fn say(&self, text: &str) {
        println!("\n[{:5.1} s] {text}", self.0.elapsed().as_secs_f64());
    }
}

/// Plays the case; an error if any of it was not observed.
pub async fn play(program: &Path, keep: bool) -> Result<()> {
    let tell = Narrator(Instant::now());
    tell.say(
        "starting a control plane (etcd, kube-apiserver, controller manager, scheduler, kwok)",
    );
    let testbed = Testbed::start(&std::env::temp_dir().join("keytide-demo")).await?;
    tell.say(
        "installing the chart with a grant for vault youradorunnerskv, and starting a dev vault",
    );
    let values = [
        "--set",
        "vaults.youradorunnerskv.namespaces={runners}",
        "--set",
        "vaults.youradorunnerskv.objects[0].kind=secret,vaults.youradorunnerskv.objects[0].name=*",
    ];
    let system = System::start(&testbed, program, SEED, &values).await?;
    tell.say("starting the daemon with the token of the chart's ServiceAccount");
    let daemon = system
        .daemon(&testbed.log_file("keytide.log"), &[], &[])
        .await?;

    tell.say("applying a KeyVaultMirror, the Deployment ado-runners (opted in) and a bystander");
    testbed
        .kubectl(&["create", "namespace", NAMESPACE])
        .await
        .ok();
    print!("{}", testbed.apply(NAMESPACE, MANIFESTS).await.ok());
    value_is(&testbed, "first-token").await?;
    tell.say("the Secret has the vault's token:");
    show(&testbed, &["get", "keyvaultmirrors"]).await;
    show(&testbed, &["get", "secret", "adopat"]).await;
    for deployment in ["ado-runners", "bystander"] {
        rollout_finished(&testbed, deployment).await?;
    }
    within(DEADLINE, "the baseline is recorded", async || {
        let baseline = get(
            &testbed,
            "ado-runners",
            "{.metadata.annotations.keytide\\.dev/baseline}",
        )
        .await;
        if baseline.is_empty() {
            Err("no annotation keytide.dev/baseline".to_owned())
        } else {
            Ok(())
        }
    })
    .await?;
    let bystander = get(&testbed, "bystander", "{.metadata.generation}").await;
    if !digest(&testbed).await.is_empty() {
        return Err("the installation itself has rolled ado-runners".into());
    }
    show(&testbed, &["get", "deployments,pods"]).await;

    tell.say("rotating the secret in the vault, and doing nothing else");
    let (changed, since) = (Instant::now(), SystemTime::now());
    system
        .vault()
        .set_secret(VAULT, "ado-pat", "second-token")?;
    value_is(&testbed, "second-token").await?;
    tell.say("the Secret was written");
    let stamped = within(DEADLINE, "the Pod template has a digest", async || {
        Some(digest(&testbed).await)
            .filter(|digest| !digest.is_empty())
            .ok_or_else(|| "no digest yet".to_owned())
    })
    .await?;
    let took = changed.elapsed();
    tell.say(&format!(
        "the Pod template has the annotation keytide.dev/content-digest: {stamped}"
    ));
    rollout_finished(&testbed, "ado-runners").await?;
    tell.say("the rollout is finished:");
    show(&testbed, &["get", "deployments,replicasets,pods"]).await;
    show(
        &testbed,
        &[
            "get",
            "events",
            "--field-selector",
            "reason=RotationStarted",
        ],
    )
    .await;
    if get(&testbed, "bystander", "{.metadata.generation}").await != bystander {
        return Err("the bystander, which has not opted in, was changed".into());
    }
    tell.say("the bystander was not touched");
    println!(
        "\nFrom the vault's change to the new Pod template: {:.1} s",
        took.as_secs_f64()
    );
    if took > PROMISE {
        return Err(format!("that is more than {} s, since {since:?}", PROMISE.as_secs()).into());
    }
    if keep {
        println!(
            "\nLook around:  export KUBECONFIG={}",
            testbed.kubeconfig().display()
        );
        println!("              kubectl -n runners describe keyvaultmirror ado-pat");
        println!("              curl http://{}/metrics", daemon.address());
        println!("Press Ctrl-C to end all of it.");
        tokio::signal::ctrl_c().await?;
    }
    Ok(())
}

async fn value_is(testbed: &Testbed, expected: &str) -> Result<()> {
    let wanted = within(DEADLINE, "the Secret has the vault's token", async || {
        let arguments = [
            "get",
            "secret",
            "adopat",
            "-n",
            NAMESPACE,
            "-o",
            "go-template={{.data.token | base64decode}}",
        ];
        let said = testbed.kubectl(&arguments).await;
        if said.stdout == expected {
            Ok(())
        } else {
            Err(said.stderr)
        }
    });
    Ok(wanted.await?)
}

async fn digest(testbed: &Testbed) -> String {
    get(
        testbed,
        "ado-runners",
        "{.spec.template.metadata.annotations.keytide\\.dev/content-digest}",
    )
    .await
}

async fn get(testbed: &Testbed, deployment: &str, path: &str) -> String {
    let output = format!("jsonpath={path}");
    testbed
        .kubectl(&[
            "get",
            "deployment",
            deployment,
            "-n",
            NAMESPACE,
            "-o",
            &output,
        ])
        .await
        .stdout
}

async fn rollout_finished(testbed: &Testbed, deployment: &str) -> Result<()> {
    let name = format!("deployment/{deployment}");
    let said = testbed
        .kubectl(&[
            "rollout",
            "status",
            &name,
            "-n",
            NAMESPACE,
            "--timeout=120s",
        ])
        .await;
    if said.success {
        Ok(())
    } else {
        Err(said.stderr.into())
    }
}

async fn show(testbed: &Testbed, arguments: &[&str]) {
    println!("$ kubectl -n {NAMESPACE} {}", arguments.join(" "));
    let arguments = [&["-n", NAMESPACE], arguments].concat();
    print!("{}", testbed.kubectl(&arguments).await.stdout);
}
