//! Tells the owner of an AzureKeyVaultSecret how it is doing, and whether akv2k8s' controller still looks after it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::Value;

use crate::api::KeyVaultMirror;
use crate::mirror::controller::Mirrors;
use crate::mirror::memory::Memory;
use crate::mirror::target_name::TargetName;
use crate::telemetry::Kind;

impl Mirrors {
    /// Writes a status on a resource of akv2k8s, of whichever definition it is.
    pub(in crate::mirror) async fn write_status_in_place(
        &self,
        namespace: &str,
        resource: &OwnerReference,
        patch: &Value,
    ) -> Result<(), kube::Error> {
        let kind = super::kind_of(resource);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind);
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let written = match api.patch_status(&resource.name, &params, &patch).await {
            // Not every definition of akv2k8s' has the status apart.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                api.patch(&resource.name, &params, &patch).await
            }
            written => written,
        };
        match written {
            // It is gone, or another one of its name; or its definition wants a hash also of what has none yet.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => Ok(()),
            written => written.map(drop),
        }
    }

    /// Says so if akv2k8s' controller was at a resource after Keytide: its hash stands where Keytide's stood. That is said once for
    /// each time, and nothing else is done: both write what the vault has, and a hash that is left alone is no reason for akv2k8s to
    /// write again.
    pub(in crate::mirror) async fn notice_akv2k8s(
        &self,
        mirror: &KeyVaultMirror,
        memory: &mut Memory,
    ) {
        if !super::has_status_of_akv2k8s(mirror) {
            memory.status_seen |= memory.status.is_some();
            return;
        }
        if std::mem::take(&mut memory.status_seen) {
            let note = format!(
                "akv2k8s' controller still runs: it wrote this resource's status after Keytide had; stop it, since each undoes a part of \
                 what the other writes on {}",
                TargetName::of(&mirror.spec.target)
            );
            tracing::warn!("{note}");
            self.metrics.overwritten_by_akv2k8s();
            let about = super::reference(mirror);
            self.events
                .publish(about, Kind::Warning, "Akv2k8sRuns", "Mirror", note)
                .await;
        }
    }
}
