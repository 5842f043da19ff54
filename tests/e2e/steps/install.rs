//! How the daemon gets into a cluster, and up to date.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;

use kube::ResourceExt;
use serde_json::json;

use crate::scene::{DEADLINE, RUN, Scene, container, deployment, mirror, restarts, revision};
use crate::testbed::Result;
use crate::testbed::daemon::get;
use crate::testbed::system::{CHART, RELEASE};
use crate::testbed::wait::within;

/// Ends a release's daemon, and leaves the cluster as one that never had it.
async fn uninstall(scene: &Scene) -> Result<()> {
    scene
        .helm(&["uninstall", RELEASE, "--namespace", RELEASE, "--wait"])
        .await?;
    let crds = ["keyvaultmirrors.keytide.dev", "keyvaultgrants.keytide.dev"];
    scene
        .kubectl(&[&["delete", "crd"], &crds[..]].concat())
        .await?;
    let gone = within(DEADLINE, "the daemon's Pods are gone", async || {
        let pods = scene.pods(RELEASE, "app.kubernetes.io/name=keytide").await;
        match pods.map_err(|error| error.to_string())?.len() {
            0 => Ok(()),
            left => Err(format!("{left} are left")),
        }
    });
    Ok(gone.await?)
}

pub async fn without_crds(scene: &Scene) -> Result<()> {
    scene
        .install(&["--skip-crds", "--set-json", "vaults={}"])
        .await?;
    within(DEADLINE, "/readyz says what it waits for", async || {
        let daemons = scene.daemons().await.map_err(|error| error.to_string())?;
        let pod = daemons.first().ok_or("no Pod yet")?;
        let address = pod
            .status
            .as_ref()
            .and_then(|status| status.pod_ip.as_ref());
        let address: IpAddr = address
            .and_then(|address| address.parse().ok())
            .ok_or("no address yet")?;
        match get(SocketAddr::from((address, 8080)), "/readyz").await {
            Ok((503, body)) if body.contains("KeyVaultMirror") && body.contains("keytide crd") => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let crds = Path::new(CHART).join("crds").display().to_string();
    scene
        .kubectl(&["apply", "--server-side", "--filename", &crds])
        .await?;
    let ready = within(DEADLINE, "the daemon gets ready", async || {
        let daemons = scene.daemons().await.map_err(|error| error.to_string())?;
        let all = !daemons.is_empty()
            && daemons
                .iter()
                .all(|pod| container(pod).is_some_and(|container| container.ready));
        if all {
            Ok(daemons)
        } else {
            Err("it isn't".to_owned())
        }
    })
    .await?;
    if restarts(&ready) > 0 {
        return Err("the daemon was restarted instead of waiting".into());
    }
    uninstall(scene).await
}

pub async fn in_one_release(scene: &Scene) -> Result<()> {
    scene.set("one-release", "first")?;
    let chart = scene.folder().join("umbrella");
    fs::create_dir_all(chart.join("templates"))?;
    fs::create_dir_all(chart.join("charts"))?;
    fs::write(
        chart.join("Chart.yaml"),
        "{apiVersion: v2, name: umbrella, version: 1.0.0, dependencies: [{name: keytide, version: '*'}]}\n",
    )?;
    let copied = Command::new("cp")
        .args(["-r", CHART])
        .arg(chart.join("charts"))
        .status()?;
    if !copied.success() {
        return Err("the chart can't be copied".into());
    }
    for (name, manifest) in [
        ("mirror", mirror("one-release")),
        ("deployment", deployment(3, RUN)),
    ] {
        let file = chart.join("templates").join(format!("{name}.yaml"));
        fs::write(file, manifest.to_string())?;
    }
    let values = scene.folder().join("umbrella.json");
    fs::write(&values, json!({"keytide": scene.values()}).to_string())?;
    scene
        .helm(&[
            "install",
            RELEASE,
            &chart.display().to_string(),
            "--namespace",
            RELEASE,
            "--values",
            &values.display().to_string(),
            "--wait",
            "--timeout=3m",
        ])
        .await?;
    let settled = scene.settled(RELEASE, "d", "first").await?;
    let pods = scene.pods(RELEASE, "app=d").await?;
    if revision(&settled) != "1" || restarts(&pods) > 0 || pods.len() != 3 {
        let names: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
        return Err(format!(
            "something was restarted: revision {}, Pods {names:?}",
            revision(&settled)
        )
        .into());
    }
    uninstall(scene).await
}

pub async fn by_chart(scene: &Scene) -> Result<()> {
    scene.install(&["--wait", "--timeout=3m"]).await?;
    let daemons = scene.daemons().await?;
    let pod = daemons.first().ok_or("no daemon's Pod")?;
    if restarts(&daemons) > 0 {
        return Err("it was restarted".into());
    }
    let version = scene
        .kubectl(&[
            "exec",
            "--namespace",
            RELEASE,
            &pod.name_any(),
            "--",
            "/keytide",
            "--version",
        ])
        .await?;
    println!("e2e: {}", version.trim());
    Ok(())
}

pub async fn upgrade(scene: &Scene) -> Result<()> {
    const COLUMNS: &str = "jsonpath={.spec.versions[0].additionalPrinterColumns[*].name}";
    let crd = "keyvaultmirrors.keytide.dev";
    let columns = async || {
        scene
            .kubectl(&["get", "crd", crd, "--output", COLUMNS])
            .await
    };
    let before = columns().await?;
    let remove = r#"[{"op": "remove", "path": "/spec/versions/0/additionalPrinterColumns"}]"#;
    scene
        .kubectl(&["patch", "crd", crd, "--type=json", "--patch", remove])
        .await?;
    if columns().await? == before {
        return Err("the patch had no effect".into());
    }
    // Helm itself never changes a CRD that is there.
    scene.install(&["--wait", "--timeout=3m"]).await?;
    let after = columns().await?;
    if after != before {
        return Err(format!("the columns were `{before}` and are `{after}`").into());
    }
    Ok(())
}
