//! What the steps about runner pools play on: the scene with KEDA, and a double of Azure DevOps that the Pods reach.

use std::net::SocketAddr;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::scene::{DEADLINE, Scene, VAULT};
use crate::testbed::Result;
use crate::testbed::azure_devops::{Access, AzureDevOps, Command, Organization};
use crate::testbed::keda::Keda;
use crate::testbed::real_node::NODE_ADDRESS;
use crate::testbed::system::CHART;
use crate::testbed::wait::within;

/// Name of every release, and of its only pool.
const RELEASE: &str = "runners";
const POOL: &str = "linux";
/// What the chart makes of the two: the name of all objects of the pool.
const NAME: &str = "runners-linux";
/// The agent pool in Azure DevOps.
const AGENT_POOL: &str = "Linux agents";
/// The agent that the chart registers where a pool can be empty.
const PLACEHOLDER: &str = "placeholder-runners-linux";

pub struct Runners {
    pub scene: Scene,
    azure_devops: AzureDevOps,
    /// From the step on that starts it.
    keda: OnceCell<Keda>,
}

impl Runners {
    pub async fn start(scene: Scene) -> Result<Self> {
        let address = SocketAddr::from((NODE_ADDRESS, 0));
        Ok(Self {
            scene,
            azure_devops: AzureDevOps::listen(address, false).await?,
            keda: OnceCell::new(),
        })
    }

    /// Installs the daemon.
    pub async fn install_daemon(&self) -> Result<()> {
        self.scene.install(&["--wait", "--timeout=3m"]).await
    }

    pub async fn start_keda(&self) -> Result<()> {
        let start = || Keda::start(&self.scene.testbed, NODE_ADDRESS);
        self.keda.get_or_try_init(start).await.map(drop)
    }

    /// A release that isn't installed yet, for an organization and a namespace of its own. `pool` is what is different
    /// from the values that all steps have in common.
    pub async fn release(&self, organization: &str, pool: Value) -> Result<Release<'_>> {
        let mut release = Release {
            runners: self,
            organization: self.scene.testbed.unique(organization),
            namespace: self.scene.namespace(organization).await,
            agent_pool: 0,
            pool,
        };
        let created = release.run(Command::AddPool {
            name: AGENT_POOL.to_owned(),
            id: None,
        })?;
        release.agent_pool = created["id"].as_u64().ok_or("a pool has an ID")?;
        release.set_token("first", Access::Manage)?;
        release.set_in_vault("first")?;
        Ok(release)
    }

    /// Prints what a person would look at besides who is to find out why a step failed.
    pub async fn tell_what_is_there(&self) {
        let kinds = "deployments,jobs,hpa,scaledobjects,scaledjobs,keyvaultmirrors";
        let pods: Api<Pod> = Api::all(self.scene.client.clone());
        let agents = ListParams::default().labels("app.kubernetes.io/name=runners");
        let agents = pods.list(&agents).await.map(|list| list.items);
        let mut commands = vec![vec![
            "get".to_owned(),
            kinds.to_owned(),
            "--all-namespaces".to_owned(),
        ]];
        for pod in agents.unwrap_or_default() {
            let namespace = format!("--namespace={}", pod.namespace().unwrap_or_default());
            commands.push(vec!["logs".to_owned(), namespace, pod.name_any()]);
        }
        for command in commands {
            println!("$ kubectl {}", command.join(" "));
            let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
            match self.scene.kubectl(&arguments).await {
                Ok(text) => println!("{text}"),
                Err(error) => println!("{error}"),
            }
        }
    }
}

/// A release of the runners' chart with one pool.
pub struct Release<'a> {
    runners: &'a Runners,
    organization: String,
    pub namespace: String,
    /// The pool's ID in Azure DevOps.
    agent_pool: u64,
    pool: Value,
}

impl Release<'_> {
    /// Does something in the organization.
    fn run(&self, command: Command) -> Result<Value> {
        Ok(self.runners.azure_devops.run(&self.organization, command)?)
    }

    pub fn set_token(&self, token: &str, access: Access) -> Result<()> {
        let token = token.to_owned();
        self.run(Command::SetToken { token, access }).map(drop)
    }

    pub fn set_in_vault(&self, token: &str) -> Result<()> {
        self.runners.scene.set(&self.organization, token).map(drop)
    }

    /// Queues jobs that run until they are told to finish.
    pub fn queue_jobs(&self, count: u32) -> Result<()> {
        self.run(Command::QueueJobs {
            pool: self.agent_pool,
            count,
            seconds: None,
            demands: Vec::new(),
        })
        .map(drop)
    }

    pub fn finish_jobs(&self) -> Result<()> {
        let pool = self.agent_pool;
        self.run(Command::FinishJobs { pool }).map(drop)
    }

    pub fn look<T>(&self, look: impl FnOnce(&Organization) -> T) -> T {
        self.runners.azure_devops.look(&self.organization, look)
    }

    /// Installs or upgrades the release; `more` is different from the pool's values.
    pub async fn install(&self, more: Value) -> Result<()> {
        let url = format!("{}/{}/", self.runners.azure_devops.url(), self.organization);
        let mut pool = json!({
            "organizationUrl": url,
            "poolName": AGENT_POOL,
            "auth": {"pat": {"vault": VAULT, "object": self.organization, "refreshInterval": "10s"}},
            "scale": {
                "pollingInterval": 1,
                "cooldownPeriod": 1,
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
            },
            "image": {"repository": "runner", "tag": "e2e", "pullPolicy": "Never"},
            // Forty agents on a machine that has other things to do.
            "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
            "minReadySeconds": 1,
            "env": {"AZP_DRAIN_INTERVAL_SECONDS": 1},
        });
        merge(&mut pool, &self.pool);
        merge(&mut pool, &more);
        let values = json!({"pools": {POOL: pool}}).to_string();
        let chart = format!("{CHART}/charts/runners");
        let arguments = [
            "upgrade",
            "--install",
            RELEASE,
            &chart,
            "--namespace",
            &self.namespace,
            "--values",
            "-",
        ];
        let testbed = &self.runners.scene.testbed;
        testbed
            .helm_with(&values, &arguments)
            .await
            .result()
            .map(drop)
    }

    /// Removes the release; what it had in the organization stays.
    pub async fn uninstall(&self) -> Result<()> {
        let arguments = ["uninstall", RELEASE, "--namespace", &self.namespace];
        self.runners.scene.helm(&arguments).await.map(drop)
    }

    /// The Pods with an agent that hasn't ended.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let selector = format!("keytide.dev/pool={POOL}");
        let mut pods = self.runners.scene.pods(&self.namespace, &selector).await?;
        pods.retain(|pod| {
            let phase = pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref());
            !matches!(phase, Some("Succeeded" | "Failed"))
        });
        Ok(pods)
    }

    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let namespace = ["--namespace", &self.namespace];
        self.runners
            .scene
            .kubectl(&[arguments, &namespace].concat())
            .await
    }

    /// All that the release has in the cluster, and what comes of it, with the versions that they are at.
    pub async fn objects(&self) -> Result<String> {
        let kinds = "deployments,triggerauthentications,hpa,keyvaultmirrors,secrets,serviceaccounts,networkpolicies,\
                     poddisruptionbudgets,replicasets,pods";
        let objects = self.versions(kinds, "resourceVersion").await?;
        // In its status KEDA notes, at every look, when the pool was last active.
        Ok(objects + &self.versions("scaledobjects", "generation").await?)
    }

    async fn versions(&self, kinds: &str, version: &str) -> Result<String> {
        let columns = format!(
            "jsonpath={{range .items[*]}}{{.kind}}/{{.metadata.name}} {{.metadata.{version}}}{{\"\\n\"}}{{end}}"
        );
        self.kubectl(&["get", kinds, "--output", &columns]).await
    }

    /// Waits until every agent is one of the newest Pod template.
    pub async fn rolls_out(&self) -> Result<()> {
        let deployment = format!("deployment/{NAME}");
        let wait = ["rollout", "status", &deployment, "--timeout=3m"];
        self.kubectl(&wait).await.map(drop)
    }

    /// Waits until KEDA says this in an event.
    pub async fn keda_says(&self, text: &str) -> Result<()> {
        let select = "--field-selector=reason=KEDAScalerFailed";
        self.says(
            text,
            &[
                "get",
                "events",
                select,
                "--output",
                "jsonpath={.items[*].message}",
            ],
        )
        .await
    }

    /// Waits until a container that registers the placeholder says this.
    pub async fn placeholder_says(&self, text: &str) -> Result<()> {
        let select = format!("--selector=keytide.dev/placeholder-of={POOL}");
        self.says(text, &["logs", &select, "--tail=-1"]).await
    }

    async fn says(&self, text: &str, arguments: &[&str]) -> Result<()> {
        let said = within(DEADLINE, text, async || {
            let said = self.kubectl(arguments).await;
            let said = said.map_err(|error| error.to_string())?;
            if said.contains(text) {
                Ok(())
            } else {
                Err(format!("what is said is: {said}"))
            }
        });
        Ok(said.await?)
    }

    /// Waits until the organization is as `condition` wants it.
    pub async fn until(
        &self,
        what: &str,
        condition: impl Fn(&Organization) -> Result<(), String>,
    ) -> Result<()> {
        Ok(within(DEADLINE, what, async || self.look(&condition)).await?)
    }

    /// Waits until the placeholder is registered and disabled.
    pub async fn has_placeholder(&self) -> Result<()> {
        self.until(
            "the placeholder is registered",
            |organization| match organization.agents(AGENT_POOL).get(PLACEHOLDER) {
                Some(agent) if !agent.enabled => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )
        .await
    }

    /// Waits until so many jobs run on agents.
    pub async fn run_jobs(&self, count: usize) -> Result<()> {
        self.until(&format!("{count} jobs run"), |organization| {
            let running = organization
                .jobs()
                .filter(|job| job.received.is_some() && job.is_unfinished())
                .count();
            if running == count {
                Ok(())
            } else {
                Err(format!("{running} do"))
            }
        })
        .await
    }

    /// Waits until all jobs have succeeded. One that was cut off never does.
    pub async fn all_jobs_succeed(&self) -> Result<()> {
        self.until("all jobs have succeeded", |organization| {
            let others: Vec<_> = organization
                .jobs()
                .filter(|job| job.result.as_deref() != Some("succeeded"))
                .map(|job| format!("{}: {:?}", job.id, job.result))
                .collect();
            if others.is_empty() {
                Ok(())
            } else {
                Err(others.join(", "))
            }
        })
        .await
    }

    /// Waits until there are so many Pods, and of agents those and the placeholder.
    pub async fn scales_back_to(&self, count: usize) -> Result<()> {
        let what = format!("{count} Pods and agents are left");
        let scaled = within(DEADLINE, &what, async || {
            let pods = self.pods().await.map_err(|error| error.to_string())?;
            let mut left: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
            left.sort();
            let registered: Vec<String> = self.look(|organization| {
                let agents = organization.agents(AGENT_POOL).into_keys();
                agents
                    .filter(|name| *name != PLACEHOLDER)
                    .map(str::to_owned)
                    .collect()
            });
            if left.len() == count && left == registered {
                Ok(())
            } else {
                Err(format!("Pods {left:?}, agents {registered:?}"))
            }
        });
        Ok(scaled.await?)
    }
}

/// Puts the fields of `more` into `values`, maps into maps.
fn merge(values: &mut Value, more: &Value) {
    match (values, more) {
        (Value::Object(values), Value::Object(more)) => {
            for (name, value) in more {
                merge(values.entry(name).or_insert(Value::Null), value);
            }
        }
        (values, more) => *values = more.clone(),
    }
}
