//! What containers start with, before and after a change in the vault.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use crate::scene::{DEADLINE, RUN, Scene, container, deployment, mirror, restarts, revision};
use crate::testbed::Result;
use crate::testbed::wait::within;

pub async fn gets_the_new_token(scene: &Scene) -> Result<()> {
    let namespace = scene.namespace("token").await;
    scene.set("token", "first")?;
    scene.apply(&namespace, &mirror("token")).await?;
    scene.apply(&namespace, &deployment(1, RUN)).await?;
    scene.settled(&namespace, "d", "first").await?;
    all_started_with(scene, &namespace, 1, "first").await?;
    // And nothing else: no sync-now, no restart by hand.
    let written = scene.set("token", "second")?;
    let rolled = scene.settled(&namespace, "d", "second").await?;
    all_started_with(scene, &namespace, 1, "second").await?;
    if revision(&rolled) != "2" {
        return Err(format!("it was rolled to revision {}", revision(&rolled)).into());
    }
    let events = scene
        .kubectl(&[
            "get",
            "events",
            "--namespace",
            &namespace,
            "--field-selector=reason=RotationStarted",
        ])
        .await?;
    if !events.contains(&written.version) {
        return Err(format!("no event names version {}: {events}", written.version).into());
    }
    Ok(())
}

pub async fn waits_for_its_secret(scene: &Scene) -> Result<()> {
    let namespace = scene.namespace("missing").await;
    scene.apply(&namespace, &deployment(2, RUN)).await?;
    within(
        DEADLINE,
        "the containers wait for their Secret",
        async || {
            let pods = scene
                .pods(&namespace, "app=d")
                .await
                .map_err(|error| error.to_string())?;
            let waiting = pods
                .iter()
                .filter(|pod| waits_because(pod, "CreateContainerConfigError"));
            match waiting.count() {
                2 => Ok(()),
                other => Err(format!("{other} wait")),
            }
        },
    )
    .await?;
    scene.set("missing", "first")?;
    scene.apply(&namespace, &mirror("missing")).await?;
    let settled = scene.settled(&namespace, "d", "first").await?;
    all_started_with(scene, &namespace, 2, "first").await?;
    let pods = scene.pods(&namespace, "app=d").await?;
    if revision(&settled) != "1" || restarts(&pods) > 0 {
        return Err(format!(
            "revision {}, {} restarts of containers",
            revision(&settled),
            restarts(&pods)
        )
        .into());
    }
    Ok(())
}

pub async fn crashes_until_the_change(scene: &Scene) -> Result<()> {
    let namespace = scene.namespace("crashing").await;
    scene.set("crashing", "bad")?;
    scene.apply(&namespace, &mirror("crashing")).await?;
    let script = format!("test \"$TOKEN\" = good || exit 1; {RUN}");
    scene.apply(&namespace, &deployment(1, &script)).await?;
    // Right after a crash that the kubelet makes it wait for: so the next start is well after the change.
    let what = "the container has just crashed again";
    within(DEADLINE, what, async || {
        let pods = scene.pods(&namespace, "app=d").await;
        let pods = pods.map_err(|error| error.to_string())?;
        match pods.first().and_then(container) {
            Some(status) if status.restart_count >= 3 && has_just_crashed(status) => Ok(()),
            status => Err(format!("{status:?}")),
        }
    })
    .await?;
    scene.set("crashing", "good")?;
    scene.sync_now(&namespace, "m").await?;
    let settled = scene.settled(&namespace, "d", "good").await?;
    all_started_with(scene, &namespace, 1, "good").await?;
    if revision(&settled) != "1" {
        return Err(format!("it was rolled to revision {}", revision(&settled)).into());
    }
    Ok(())
}

pub async fn many_in_a_row(scene: &Scene) -> Result<()> {
    const PODS: u32 = 10;
    let namespace = scene.namespace("often").await;
    scene.set("often", "v0")?;
    scene.apply(&namespace, &mirror("often")).await?;
    scene.apply(&namespace, &deployment(PODS, RUN)).await?;
    scene.settled(&namespace, "d", "v0").await?;
    for round in 1..=scene.rotations {
        let value = format!("v{round}");
        scene.set("often", &value)?;
        scene.sync_now(&namespace, "m").await?;
        let rolled = scene.settled(&namespace, "d", &value).await?;
        all_started_with(scene, &namespace, PODS as usize, &value).await?;
        if revision(&rolled) != (round + 1).to_string() {
            return Err(format!("rotation {round} gave revision {}", revision(&rolled)).into());
        }
    }
    Ok(())
}

/// Waits until so many Pods are left, and looks at what each one's container printed when it last started.
async fn all_started_with(scene: &Scene, namespace: &str, count: usize, value: &str) -> Result<()> {
    let pods = within(DEADLINE, "the Pods of before are gone", async || {
        let pods = scene
            .pods(namespace, "app=d")
            .await
            .map_err(|error| error.to_string())?;
        match pods.len() {
            found if found == count => Ok(pods),
            found => Err(format!("{found} Pods")),
        }
    })
    .await?;
    for pod in pods {
        let name = pod.name_any();
        let printed = scene.printed(namespace, &name).await?;
        if printed.trim() != format!("started with {value}") {
            return Err(format!("{name} printed `{}` and not {value}", printed.trim()).into());
        }
    }
    Ok(())
}

/// Whether it ended a moment ago, so that the kubelet lets it wait before the next start.
fn has_just_crashed(status: &ContainerStatus) -> bool {
    const MOMENT: SignedDuration = SignedDuration::from_secs(10);
    let (now, before) = (status.state.as_ref(), status.last_state.as_ref());
    let ended = match now.and_then(|state| state.waiting.as_ref()) {
        Some(_) => before.and_then(|state| state.terminated.as_ref()),
        None => now.and_then(|state| state.terminated.as_ref()),
    };
    ended
        .and_then(|ended| ended.finished_at.as_ref())
        .is_some_and(|at| Timestamp::now().duration_since(at.0) < MOMENT)
}

fn waits_because(pod: &Pod, reason: &str) -> bool {
    container(pod).and_then(|container| {
        container
            .state
            .as_ref()?
            .waiting
            .as_ref()?
            .reason
            .as_deref()
    }) == Some(reason)
}
