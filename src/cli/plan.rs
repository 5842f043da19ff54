//! `keytide plan`: what the daemon would do, told and not done. It reads vaults as the daemon does and decides by the daemon's own
//! functions, with the rights of who asks. It must never write, nor print what is in a vault.

mod manifests;
mod report;
mod world;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use futures::channel::mpsc;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use self::manifests::Wishes;
use self::report::{Problem, Report, WorkloadRow};
use self::world::World;
use super::Result;
use super::rotation::RotationFlags;
use super::status::snapshot::Here;
use super::vaults::VaultFlags;
use crate::api::KeyVaultMirror;
use crate::clock::ServerClock;
use crate::daemon::{Clients, known_digest_key};
use crate::digest::{DigestKey, KEY_LENGTH};
use crate::mirror::{KeyChange, Preview, Terms};
use crate::rotation::{Judge, Source, SourceKey, Workload, WorkloadKind};

/// Exit codes, as `kubectl diff` has them.
const DIFFERENCES: u8 = 1;
const FAILED: u8 = 2;

#[derive(Debug, Args)]
pub struct Plan {
    /// File of mirrors to plan, as if they were applied, or `-` for standard input; may be given several times
    #[arg(short, long = "filename")]
    filename: Vec<PathBuf>,
    /// The namespace to plan, and that of manifests that name none; left out, that of the current context
    #[arg(long, short)]
    namespace: Option<String>,
    /// Plan all namespaces
    #[arg(long, short = 'A', conflicts_with_all = ["namespace", "filename"])]
    all_namespaces: bool,
    /// How it is printed
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    /// Read vaults as the identity of the environment, whichever the grants name
    #[arg(long)]
    own_identity: bool,
    /// Namespace of the daemon: that of the digest key's Secret
    #[arg(long, env = "KEYTIDE_NAMESPACE", default_value = "keytide")]
    keytide_namespace: String,
    /// Secret that holds the key of the digests; without it, content is known by its version
    #[arg(
        long,
        env = "KEYTIDE_DIGEST_KEY_SECRET",
        default_value = "keytide-digest-key"
    )]
    digest_key_secret: String,
    #[command(flatten)]
    vaults: VaultFlags,
    #[command(flatten)]
    rotation: RotationFlags,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
}

impl Plan {
    /// Runs it. The exit code is 0 if nothing would be done, 1 if something would, and 2 if not all of it can be told.
    pub fn execute(self) -> ExitCode {
        let told = super::runtime().and_then(|runtime| runtime.block_on(self.report()));
        match told.and_then(|report| self.print(&report)) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("keytide: {}", sentence(&*error));
                ExitCode::from(FAILED)
            }
        }
    }

    fn print(&self, report: &Report) -> Result<ExitCode> {
        match self.output {
            Output::Json => println!("{}", serde_json::to_string_pretty(report)?),
            Output::Text => {
                let text = report.text();
                if !text.is_empty() {
                    println!("{text}");
                }
                for problem in &report.errors {
                    eprintln!("keytide: {}", problem.sentence());
                }
            }
        }
        Ok(if !report.errors.is_empty() {
            ExitCode::from(FAILED)
        } else if report.differences {
            ExitCode::from(DIFFERENCES)
        } else {
            ExitCode::SUCCESS
        })
    }

    async fn report(&self) -> Result<Report> {
        let clock = ServerClock::default();
        let clients = Clients::new(&clock, None).await?;
        let client = clients.watching.clone();
        let context = &clients.config.default_namespace;
        let namespace = self.namespace.as_ref().unwrap_or(context);
        let (wishes, scope) = if self.filename.is_empty() {
            let scope = (!self.all_namespaces).then(|| namespace.clone());
            (None, scope)
        } else {
            let wishes = Wishes::of(&self.filename, &client, namespace).await?;
            let scope = wishes.namespace();
            (Some(wishes), scope)
        };
        let by_files = wishes.is_some();
        let mut wishes = wishes.unwrap_or_default();
        let mut errors = std::mem::take(&mut wishes.refused);
        if by_files && wishes.mirrors.is_empty() {
            return Ok(Report::new(Vec::new(), Vec::new(), errors));
        }
        let here = Here {
            client,
            namespace: scope.as_deref(),
        };
        let world = World::of(&here, by_files.then_some(wishes)).await?;
        let (mut previews, failed) = self.previews(&here, &clock, &world, by_files).await?;
        errors.extend(failed);
        previews.sort_by(|a, b| (&a.namespace, &a.target).cmp(&(&b.namespace, &b.target)));
        let workloads = self.outlooks(&here, &clock, world, &previews).await?;
        Ok(Report::new(previews, workloads, errors))
    }

    /// What would become of targets, and what can't be told.
    async fn previews(
        &self,
        here: &Here<'_>,
        clock: &ServerClock,
        world: &World,
        by_files: bool,
    ) -> Result<(Vec<Preview>, Vec<Problem>)> {
        let (namespace, name) = (&self.keytide_namespace, &self.digest_key_secret);
        let known = known_digest_key(&here.client, namespace, name).await?;
        if known.is_none() {
            eprintln!(
                "keytide: Secret {name} of namespace {namespace} is not there or may not be read, so content is known by its version, and there are no digests"
            );
        }
        let terms = Terms {
            knows_digest_key: known.is_some(),
            own_identity: self.own_identity,
        };
        let digest_key = known.map_or_else(unknown_digest_key, Ok)?;
        let (notices, told) = mpsc::unbounded();
        let mirrors = world
            .controller(here, clock, &self.vaults, digest_key, notices)
            .await?;
        let is_there = |mirror: &&KeyVaultMirror| mirror.metadata.deletion_timestamp.is_none();
        let planned = world.planned.iter().filter(is_there).cloned();
        let planned: Vec<_> = planned.map(Arc::new).collect();
        let names: HashSet<(String, String)> = planned
            .iter()
            .map(|it| (it.namespace().unwrap_or_default(), it.name_any()))
            .collect();
        let mut previews = mirrors.preview_leftovers(|namespace, mirror| {
            !by_files || names.contains(&(namespace.to_owned(), mirror.to_owned()))
        });
        let mut problems = Vec::new();
        for (mirror, preview) in mirrors.preview(planned, told, terms).await {
            match preview {
                Ok(preview) => previews.push(preview),
                Err(failure) => problems.push(Problem {
                    namespace: mirror.namespace(),
                    kind: KeyVaultMirror::kind(&()).into_owned(),
                    name: mirror.name_any(),
                    reason: failure.reason().to_owned(),
                    message: failure.to_string(),
                }),
            }
        }
        problems.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok((previews, problems))
    }

    /// What would become of the workloads that use the targets.
    async fn outlooks(
        &self,
        here: &Here<'_>,
        clock: &ServerClock,
        world: World,
        previews: &[Preview],
    ) -> Result<Vec<WorkloadRow>> {
        if previews.is_empty() {
            return Ok(Vec::new());
        }
        let mut targets = world.targets;
        for preview in previews {
            preview.carry_out(&mut targets);
        }
        let judge = here
            .judge(clock, &self.rotation, targets, &world.mirrors)
            .await?;
        let (none, changed) = (BTreeSet::new(), changed(previews));
        let mut rows = Vec::new();
        for ((namespace, kind, name), reference) in using(&judge, previews) {
            let Some(workload) = judge.workloads.of(kind).get(&reference) else {
                continue;
            };
            let changed = changed.get(&namespace).unwrap_or(&none);
            if let Some(outlook) = judge.outlook(&workload, changed).await? {
                rows.push(WorkloadRow {
                    namespace,
                    kind: kind.name(),
                    name,
                    outlook,
                });
            }
        }
        Ok(rows)
    }
}

/// A key that makes digests unlike all others.
fn unknown_digest_key() -> Result<DigestKey> {
    let mut bytes = vec![0; KEY_LENGTH];
    getrandom::fill(&mut bytes)?;
    Ok(DigestKey::new(bytes)?)
}

/// The keys whose content would change, by namespace.
fn changed(previews: &[Preview]) -> BTreeMap<String, BTreeSet<SourceKey>> {
    let mut changed: BTreeMap<String, BTreeSet<SourceKey>> = BTreeMap::new();
    for preview in previews {
        let keys = preview.keys.iter();
        let keys = keys.filter(|key| key.change != KeyChange::Unchanged);
        let keys = keys.map(|key| SourceKey {
            source: Source::of_target(preview.target.kind, &preview.target.name),
            key: key.key.clone(),
        });
        let of_namespace = changed.entry(preview.namespace.clone()).or_default();
        of_namespace.extend(keys);
    }
    changed
}

type Place = (String, WorkloadKind, String);

/// The workloads that use the targets, in order.
fn using(judge: &Judge, previews: &[Preview]) -> BTreeMap<Place, ObjectRef<Workload>> {
    let mut using = BTreeMap::new();
    for preview in previews {
        let source = Source::of_target(preview.target.kind, &preview.target.name);
        for reference in judge.workloads.using(&preview.namespace, &source) {
            let (kind, name) = (reference.dyntype, reference.name.clone());
            using.insert((preview.namespace.clone(), kind, name), reference);
        }
    }
    using
}

/// What an error says to people: of the API server's answer the message alone.
fn sentence(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => status.message.clone(),
        _ => error.to_string(),
    }
}
