//! The benchmark: Keytide as users have it, against bars.
//!
//! ```text
//! scenarios ──▶ system (control plane, chart, dev vault, mirrors) ──▶ mirrors, shared_object, throttled, rotation
//!                  meter, sightings, bare: what it costs, how long it takes ──▶ findings ──▶ bars ──▶ report
//! ```
//!
//! Every scenario has processes of its own and begins with an empty cluster. Ratios are taken within one run, never
//! between two.

mod api_server;
mod bare;
mod bars;
mod capacity;
mod finding;
mod hinted;
mod idle;
mod layout;
mod machine;
mod meter;
mod mirrors;
mod recorder;
mod report;
mod rotation;
mod scenario;
mod shared_object;
mod sightings;
mod system;
#[path = "../testbed/mod.rs"]
mod testbed;
mod throttled;
mod usage;
mod vault;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use layout::Layout;
use machine::Machine;
use recorder::Recorder;
use report::Report;
use scenario::{Extent, Scenario, Setting};
use system::System;
use testbed::Result;

/// Measures what Keytide costs and how quick it is.
#[derive(Debug, Parser)]
struct Arguments {
    /// A few minutes and at most 1,000 objects, for development
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Also what there is no bar for
    #[arg(long)]
    full: bool,
    /// Rotation among many workloads, and nothing else
    #[arg(long, conflicts_with_all = ["quick", "full"])]
    rotation: bool,
    /// How many, with `--rotation`: fewer are for development
    #[arg(long, default_value_t = 5_000)]
    workloads: usize,
    /// Only scenarios whose description contains one of these, such as `objects: 1000,`
    #[arg(long)]
    only: Vec<String>,
    /// The program that is measured; left out: the one that was built beside this program
    #[arg(long)]
    keytide: Option<PathBuf>,
    /// What the program was built from, for the report
    #[arg(long, default_value = "an unknown commit")]
    source: String,
    /// Where the findings go, as JSON
    #[arg(long)]
    json: PathBuf,
    /// Where the page goes, in Markdown
    #[arg(long)]
    page: PathBuf,
}

/// What all scenarios have in common.
pub struct Bench {
    pub program: PathBuf,
    pub scratch: PathBuf,
}

impl Bench {
    pub async fn system(&self, layout: Layout, setting: Setting) -> Result<System> {
        System::start(&self.scratch, &self.program, layout, setting).await
    }

    async fn run(&self, scenario: &Scenario, recorder: &mut Recorder) -> Result<()> {
        match *scenario {
            Scenario::Capacity { objects } => capacity::run(self, objects, recorder).await,
            Scenario::Idle => idle::run(self, recorder).await,
            Scenario::Mirrors {
                setting,
                bare,
                ref phases,
            } => mirrors::run(self, setting, bare, phases, recorder).await,
            Scenario::SharedObject {
                mirrors,
                namespaces,
                changes,
            } => shared_object::run(self, mirrors, namespaces, changes, recorder).await,
            Scenario::Throttled {
                objects,
                share,
                intervals,
            } => throttled::run(self, objects, share, intervals, recorder).await,
            Scenario::Rotation {
                workloads,
                consumers,
                namespaces,
            } => rotation::run(self, workloads, consumers, namespaces, recorder).await,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match measure(Arguments::parse()).await {
        Ok(report) => {
            print!("{}", report.page());
            if report.failures.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: Arguments) -> Result<Report> {
    let extent = match (arguments.quick, arguments.full, arguments.rotation) {
        (true, ..) => Extent::Quick,
        (_, true, _) => Extent::Full,
        (.., true) => Extent::Rotation,
        _ => Extent::Standard,
    };
    let report = Report::new(extent, arguments.source, Machine::look()?);
    let mut recorder = Recorder::begin(report, arguments.json, arguments.page);
    let bench = Bench {
        program: match arguments.keytide {
            Some(program) => program,
            None => beside_us()?,
        },
        scratch: std::env::temp_dir().join("keytide-bench"),
    };
    for scenario in extent.scenarios(arguments.workloads) {
        let description = format!("{scenario:?}");
        let wanted = |part: &String| description.contains(part.as_str());
        if !arguments.only.is_empty() && !arguments.only.iter().any(wanted) {
            continue;
        }
        recorder.say(&description);
        if let Err(error) = bench.run(&scenario, &mut recorder).await {
            recorder.failed(format!("{description}: {error}"))?;
        }
    }
    Ok(recorder.end())
}

/// Cargo puts examples one folder below the programs.
fn beside_us() -> Result<PathBuf> {
    let us = std::env::current_exe()?;
    let folder = us
        .ancestors()
        .nth(2)
        .ok_or("this program is in no folder")?;
    Ok(folder.join("keytide"))
}
