//! The workloads: a few whose Secret will change, and a crowd of others.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{ListParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::time::sleep;

use crate::layout::{KEY, Layout};
use crate::system::{System, in_parallel};
use crate::testbed::rollouts::is_rolled_out;
use crate::testbed::wait::within;
use crate::testbed::{Error, Result};

/// Label of those whose Secret changes.
pub const CONSUMER: &str = "bench.example/consumer";

/// How long the control plane may take to make all that belongs to them, and the daemon to write their baselines.
const DEADLINE: Duration = Duration::from_secs(300);
/// Between two lists of all.
const PAUSE: Duration = Duration::from_secs(3);

/// A Deployment that opted in.
struct Workload<'a> {
    namespace: &'a str,
    name: String,
    secret: &'a str,
    is_consumer: bool,
}

/// The first mirrors' Secrets have a consumer each, by the mirror's name. Those of the others are shared by the rest of the workloads.
fn crowd(layout: &Layout, consumers: usize, workloads: usize) -> Vec<Workload<'_>> {
    let (changing, still) = layout.mirrors.split_at(consumers);
    let consumers = changing.iter().map(|mirror| Workload {
        namespace: &mirror.namespace,
        name: mirror.name.clone(),
        secret: &mirror.name,
        is_consumer: true,
    });
    let others = (changing.len()..workloads).zip(still.iter().cycle());
    let others = others.map(|(number, mirror)| Workload {
        namespace: &mirror.namespace,
        name: format!("other-{number:05}"),
        secret: &mirror.name,
        is_consumer: false,
    });
    consumers.chain(others).collect()
}

impl Workload<'_> {
    fn deployment(&self) -> Result<Deployment> {
        let reference = json!({"secretKeyRef": {"name": self.secret, "key": KEY}});
        let variable = json!({"name": "TOKEN", "valueFrom": reference});
        let container = json!({"name": "main", "image": "none", "env": [variable]});
        Ok(serde_json::from_value(json!({
            "metadata": {
                "name": self.name,
                "labels": {CONSUMER: self.is_consumer.to_string()},
                "annotations": {"keytide.dev/rotate": "true"},
            },
            "spec": {
                "replicas": u8::from(self.is_consumer),
                "selector": {"matchLabels": {"app": self.name}},
                "template": {
                    "metadata": {"labels": {"app": self.name}},
                    "spec": {"containers": [container]},
                },
            },
        }))?)
    }
}

/// Makes them, and waits until the controllers have done all that there is to do for them.
pub async fn create(system: &System, consumers: usize, workloads: usize) -> Result<()> {
    let crowd = crowd(&system.layout, consumers, workloads);
    in_parallel(&crowd, async |workload| {
        let api: Api<Deployment> = Api::namespaced(system.client.clone(), workload.namespace);
        let deployment = workload.deployment()?;
        let created = api.create(&PostParams::default(), &deployment).await;
        created.map_err(Error::from)
    })
    .await?;
    let api: Api<Deployment> = Api::all(system.client.clone());
    within(DEADLINE, "all workloads are rolled out", async || {
        let all = api.list(&ListParams::default()).await;
        let all = all.map_err(|error| error.to_string())?.items;
        match all.iter().filter(|it| !is_rolled_out(it)).count() {
            0 => Ok(()),
            count => {
                sleep(PAUSE).await;
                Err(format!("{count} are not"))
            }
        }
    })
    .await?;
    Ok(())
}

/// Waits until the daemon has written down what all of them have.
pub async fn wait_for_baselines(system: &System, workloads: usize) -> Result<()> {
    let api: Api<Deployment> = Api::all(system.client.clone());
    within(DEADLINE, "all workloads have a baseline", async || {
        let all = api.list_metadata(&ListParams::default()).await;
        let all = all.map_err(|error| error.to_string())?.items;
        let has = |it: &&PartialObjectMeta<Deployment>| {
            it.annotations().contains_key("keytide.dev/baseline")
        };
        match all.iter().filter(has).count() {
            count if count == workloads => Ok(()),
            count => {
                sleep(PAUSE).await;
                Err(format!("{count} of {workloads} have"))
            }
        }
    })
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_consumers_use_what_changes_and_have_pods() {
        let layout = Layout::spread(5 + 2, 1, 2);
        let crowd = crowd(&layout, 5, 50);
        assert_eq!(crowd.len(), 50);
        let (consumers, others) = crowd.split_at(5);
        for (mirror, consumer) in layout.mirrors.iter().zip(consumers) {
            assert_eq!(
                (consumer.secret, consumer.namespace),
                (&*mirror.name, &*mirror.namespace)
            );
            let spec = consumer.deployment().expect("a Deployment").spec;
            assert_eq!(spec.and_then(|spec| spec.replicas), Some(1));
        }
        let still: Vec<&str> = layout.mirrors[5..].iter().map(|it| &*it.name).collect();
        for other in others {
            assert!(still.contains(&other.secret));
            let spec = other.deployment().expect("a Deployment").spec;
            assert_eq!(spec.and_then(|spec| spec.replicas), Some(0));
        }
    }
}
