//! `keytide migrate`: reads the resources of other tools, prints mirrors and grants. Manifests go to standard output, what there
//! is to say beside them to standard error.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use kube::api::{DynamicObject, ListParams};
use kube::discovery::Discovery;
use kube::{Api, Client};
use serde_json::Value;

use super::Result;
use crate::migrate::{Conversion, Finding, TOOLS, WORKLOADS, Weight};

#[derive(Debug, Args)]
pub struct Migrate {
    /// File of manifests to read instead of the cluster, or `-` for standard input; may be given several times
    #[arg(short, long = "filename")]
    filename: Vec<PathBuf>,
    /// Namespace of manifests in files that name none
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// Exit with an error if anything is lost
    #[arg(long)]
    strict: bool,
}

impl Migrate {
    pub fn execute(self) -> Result {
        let documents = if self.filename.is_empty() {
            super::runtime()?.block_on(read_cluster())?
        } else {
            self.filename
                .iter()
                .map(|path| read_file(path))
                .collect::<Result<Vec<_>>>()?
                .concat()
        };
        let conversion = Conversion::of(documents, &self.namespace);
        for grant in &conversion.grants {
            print!("---\n{}", serde_saphyr::to_string(grant)?);
        }
        for mirror in &conversion.mirrors {
            print!("---\n{}", serde_saphyr::to_string(mirror)?);
        }
        eprint!("{}", report(&conversion));
        let losses = conversion
            .findings
            .iter()
            .filter(|finding| finding.weight.is_loss());
        match losses.count() {
            0 => Ok(()),
            _ if !self.strict => Ok(()),
            losses => Err(format!("--strict: {losses} of what is said above is lost").into()),
        }
    }
}

fn report(conversion: &Conversion) -> String {
    let mut report = format!(
        "# {} KeyVaultMirrors and {} KeyVaultGrants\n",
        conversion.mirrors.len(),
        conversion.grants.len()
    );
    let mut last = None;
    for Finding {
        subject,
        weight,
        text,
    } in &conversion.findings
    {
        if last.replace(*weight) != Some(*weight) {
            report.push_str(match weight {
                Weight::NotConverted => "\n# Not converted\n",
                Weight::Differs => "\n# Converted, and different\n",
                Weight::ByHand => "\n# To be done by hand\n",
            });
        }
        report.push_str(&format!("{subject}: {text}\n"));
    }
    report
}

/// The documents of a file of manifests, or of standard input if it is called `-`.
pub(super) fn read_file(path: &Path) -> Result<Vec<Value>> {
    let standard_input = path == Path::new("-");
    let name = if standard_input {
        "standard input".to_owned()
    } else {
        path.display().to_string()
    };
    let text = if standard_input {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| format!("can't read {name}: {error}"))?;
    // There may be Secrets among the manifests, of which an error must not show a piece.
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_multiple_with_options(&text, options)
        .map_err(|error| format!("{name} is not YAML or JSON: {error}").into())
}

/// All resources that matter, of all namespaces.
async fn read_cluster() -> Result<Vec<Value>> {
    let client = Client::try_default().await?;
    let groups = TOOLS.iter().chain(&WORKLOADS).map(|(group, _)| *group);
    let groups: Vec<&str> = groups.collect();
    let discovery = Discovery::new(client.clone()).filter(&groups).run().await?;
    let resource = |(group, kind): &(&str, &str)| {
        let (resource, _) = discovery.get(group)?.recommended_kind(kind)?;
        Some(resource)
    };
    let tools: Vec<_> = TOOLS.iter().filter_map(resource).collect();
    if tools.is_empty() {
        let kinds: Vec<&str> = TOOLS.iter().map(|(_, kind)| *kind).collect();
        return Err(format!(
            "there is nothing to migrate: the cluster knows none of {}; give files by --filename, or another cluster by KUBECONFIG",
            kinds.join(", ")
        )
        .into());
    }
    let mut found = Vec::new();
    for resource in tools
        .into_iter()
        .chain(WORKLOADS.iter().filter_map(resource))
    {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let mut page = ListParams::default().limit(500);
        loop {
            let list = api.list(&page).await.map_err(|error| {
                format!(
                    "can't list {}: {error}; what you may read can be given by --filename",
                    resource.plural
                )
            })?;
            page.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
            for mut object in list.items {
                // A list doesn't say it of its items.
                object.types.get_or_insert_with(|| kube::api::TypeMeta {
                    api_version: resource.api_version.clone(),
                    kind: resource.kind.clone(),
                });
                found.push(serde_json::to_value(object)?);
            }
            if page.continue_token.is_none() {
                break;
            }
        }
    }
    Ok(found)
}
