//! `keytide crd`: prints or applies the CustomResourceDefinitions.

use clap::Args;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, CustomResourceExt, ResourceExt};

use super::Result;
use crate::api::{KeyVaultGrant, KeyVaultMirror, RotationPolicy, azure_key_vault_secret};

#[derive(Debug, Args)]
pub struct Crd {
    /// Apply them to the cluster instead of printing them
    #[arg(long)]
    apply: bool,
    /// Print that of akv2k8s' AzureKeyVaultSecret instead, for clusters that have none
    // Not to be applied by force: where there is one, it is akv2k8s' own.
    #[arg(long, conflicts_with = "apply")]
    akv2k8s: bool,
}

impl Crd {
    pub fn execute(self) -> Result {
        let crds = if self.akv2k8s {
            vec![azure_key_vault_secret::definition()?]
        } else {
            vec![
                KeyVaultMirror::crd(),
                KeyVaultGrant::crd(),
                RotationPolicy::crd(),
            ]
        };
        if self.apply {
            return super::runtime()?.block_on(apply(&crds));
        }
        for crd in crds {
            print!("---\n{}", serde_saphyr::to_string(&crd)?);
        }
        Ok(())
    }
}

async fn apply(crds: &[CustomResourceDefinition]) -> Result {
    let client = Client::try_default().await?;
    let api: Api<CustomResourceDefinition> = Api::all(client);
    for crd in crds {
        // Helm made them, under its own name; this takes them over.
        let params = PatchParams::apply("keytide-crd").force();
        api.patch(&crd.name_any(), &params, &Patch::Apply(crd))
            .await?;
        println!("{} applied", crd.name_any());
    }
    Ok(())
}
