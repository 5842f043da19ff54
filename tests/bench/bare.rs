//! The bare loop: the writes of a cold start without anything else, as fast as the API server takes them.
//!
//! It writes Secrets and statuses that look like the daemon's, in the daemon's order and with as many under way. They belong
//! to copies of the mirrors of a kind of their own, with the same schema, and carry another label: so no daemon ever sees them.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use keytide::api::KeyVaultMirror;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, CustomResourceExt, Resource, ResourceExt};
use serde_json::{Value, json};

use super::layout::{KEY, first_content};
use super::sightings::Sightings;
use super::system::{System, in_parallel};
use super::testbed::Result;
use super::testbed::wait::within;

/// Mirrors that the daemon looks after at the same moment.
const CONCURRENCY: usize = 64;

/// Most mirrors of one loop: enough to know the rate.
const MOST: usize = 5_000;

const GROUP: &str = "bench.example";
const LABEL: &str = "bench.example/mirrored";
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a loop for a part of the layout's mirrors, `name` telling it from others, and gives mirrors per second.
pub async fn rate(system: &System, name: &str) -> Result<f64> {
    let kind = kind();
    let api = |namespace: &str| -> Api<DynamicObject> {
        Api::namespaced_with(system.client.clone(), namespace, &kind)
    };
    let mirrors: Vec<_> = system.layout.mirrors.iter().take(MOST).collect();
    in_parallel(&mirrors, async |mirror| {
        let target = format!("{name}-{}", mirror.name);
        let spec = system.spec(&mirror.vault, &mirror.object, &target);
        let copy = DynamicObject::new(&target, &kind).data(json!({"spec": spec}));
        api(&mirror.namespace)
            .create(&PostParams::default(), &copy)
            .await
    })
    .await?;
    let copies = Api::<DynamicObject>::all_with(system.client.clone(), &kind)
        .list_metadata(&Default::default())
        .await?;
    let copies = copies.items.into_iter();
    let copies: Vec<_> = copies
        .filter(|copy| copy.name_any().starts_with(name))
        .collect();
    let count = copies.len();
    // The benchmark watches the daemon's targets too.
    let _sightings = Sightings::begin(system.client.clone(), LABEL);

    let began = Instant::now();
    let writes = copies.into_iter().map(|copy| {
        let (uid, target) = (copy.uid().unwrap_or_default(), copy.name_any());
        let resource_version = copy.resource_version().unwrap_or_default();
        let namespace = copy.namespace().unwrap_or_default();
        let secrets: Api<Secret> = Api::namespaced(system.client.clone(), &namespace);
        let copies = api(&namespace);
        let apply = PatchParams::apply(&format!("keytide/{uid}")).force();
        async move {
            let secret = Patch::Apply(secret(&uid, &target));
            secrets.patch_metadata(&target, &apply, &secret).await?;
            let status = Patch::Merge(status(&uid, &resource_version, &target));
            let params = PatchParams::default();
            copies.patch_status(&target, &params, &status).await
        }
    });
    let written = stream::iter(writes).buffer_unordered(CONCURRENCY);
    written.try_collect::<Vec<_>>().await?;
    Ok(count as f64 / began.elapsed().as_secs_f64())
}

/// Makes the kind of the copies, long enough before a loop that all of the control plane knows it.
pub async fn create_kind(client: &Client) -> Result<()> {
    let mut crd = KeyVaultMirror::crd();
    crd.metadata.name = Some(format!("keyvaultmirrors.{GROUP}"));
    crd.spec.group = GROUP.to_owned();
    // Two kinds with the same short names and categories would confuse kubectl.
    (crd.spec.names.short_names, crd.spec.names.categories) = (None, None);
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    crds.create(&PostParams::default(), &crd).await?;
    let copies = Api::<DynamicObject>::all_with(client.clone(), &kind());
    within(DEADLINE, "copies of mirrors are served", async || {
        let listed = copies.list_metadata(&Default::default()).await;
        listed.map(drop).map_err(|error| error.to_string())
    })
    .await?;
    Ok(())
}

fn kind() -> ApiResource {
    let kind = GroupVersionKind::gvk(GROUP, &KeyVaultMirror::version(&()), "KeyVaultMirror");
    ApiResource::from_gvk_with_plural(&kind, "keyvaultmirrors")
}

/// As large as what `mirror/apply.rs` writes.
fn secret(uid: &str, target: &str) -> Value {
    let record = json!({
        "mirror": target,
        "digestKey": "0123456789abcdef",
        "deletionPolicy": "Delete",
        "keys": {KEY: {
            "digest": "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "object": format!("bench-000.vault.azure.net/secrets/{target}"),
            "version": "0123456789abcdef0123456789abcdef",
            "updated": "2026-01-01T00:00:00Z",
            "changed": "2026-01-01T00:00:00.123456789Z",
            "first": true,
        }},
    });
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": target,
            // None is there yet, says the daemon's first write too.
            "resourceVersion": "1",
            "labels": {LABEL: "true"},
            "annotations": {format!("keytide.dev/mirror.{uid}"): record.to_string()},
            "ownerReferences": [{
                "apiVersion": format!("{GROUP}/v1alpha1"),
                "kind": "KeyVaultMirror",
                "name": target,
                "uid": uid,
            }],
        },
        "type": "Opaque",
        "data": {KEY: BASE64_STANDARD.encode(first_content(target))},
    })
}

/// As large as what `mirror/report.rs` writes.
fn status(uid: &str, resource_version: &str, target: &str) -> Value {
    json!({
        "metadata": {"uid": uid, "resourceVersion": resource_version},
        "status": {
            "observedGeneration": 1,
            "conditions": [{
                "type": "Ready",
                "status": "True",
                "reason": "Mirrored",
                "message": "1 key in the Secret as in the vault",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
            "objects": [{
                "key": KEY,
                "name": target,
                "version": "0123456789abcdef0123456789abcdef",
                "updated": "2026-01-01T00:00:00Z",
            }],
            "target": {"kind": "Secret", "name": target},
            "lastChange": "2026-01-01T00:00:00Z",
        },
    })
}
