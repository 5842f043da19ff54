//! The end-to-end run: the image in real containers, installed by the chart as users install it.
//!
//! ```text
//! needs ──▶ image, sandbox (mounts, network and processes of its own) ──▶ scene (cluster, dev vault) ──▶ steps
//! ```
//!
//! Exits 0 when every step passed and nothing was left behind, 77 with what is missing where it can't run.

mod image;
mod needs;
mod runners;
mod sandbox;
mod scene;
mod steps;
#[path = "../testbed/mod.rs"]
mod testbed;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use runners::Runners;
use scene::Scene;
use steps::Step;
use testbed::Result;
use testbed::tools::{keda_tool, node_tool};

/// The exit code by which test drivers know a test that couldn't run (automake's convention).
const SKIPPED: u8 = 77;

/// Runs Keytide in real containers.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The program for the daemon's image; left out: the one that was built beside this one
    #[arg(long, global = true)]
    program: Option<PathBuf>,
    /// Run only the steps whose name contains this, and the one that installs the daemon
    #[arg(long, global = true)]
    only: Option<String>,
    /// How many rotations in a row are shown
    #[arg(long, global = true, default_value_t = 3)]
    rotations: u32,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the figures that the docs have instead of running the steps
    Figures,
    /// Run the steps in which KEDA scales runner pools, instead of the others
    Keda,
    /// What runs in the sandbox
    #[command(hide = true)]
    Inside {
        #[command(flatten)]
        place: sandbox::Place,
        #[arg(long)]
        play: Play,
    },
}

/// What is done in the sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Play {
    Steps,
    Figures,
    Keda,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(arguments)),
        Err(error) => Err(error.into()),
    };
    result.unwrap_or_else(|error| {
        eprintln!("e2e: {error}");
        ExitCode::FAILURE
    })
}

async fn run(arguments: Arguments) -> Result<ExitCode> {
    let play = match &arguments.command {
        Some(Command::Inside { place, play }) => {
            let only = arguments.only.as_deref();
            return inside(place, *play, only, arguments.rotations).await;
        }
        Some(Command::Figures) => Play::Figures,
        Some(Command::Keda) => Play::Keda,
        None => Play::Steps,
    };
    let missing = needs::missing(play);
    if !missing.is_empty() {
        println!("e2e: skipped (this machine lacks {})", missing.join("; "));
        return Ok(ExitCode::from(SKIPPED));
    }
    // Here, since the sandbox has no network to have modules from.
    match play {
        Play::Keda => keda_tool("keda-operator")?,
        Play::Steps | Play::Figures => node_tool("kubelet")?,
    };
    let mut more = vec![format!("--rotations={}", arguments.rotations)];
    if let Some(only) = arguments.only {
        more.extend(["--only".to_owned(), only]);
    }
    sandbox::run(arguments.program.as_deref(), play, &more).await
}

async fn inside(
    place: &sandbox::Place,
    play: Play,
    only: Option<&str>,
    rotations: u32,
) -> Result<ExitCode> {
    sandbox::settle_in()?;
    let scene = Scene::start(place, rotations).await?;
    match play {
        Play::Figures => {
            let printed = steps::figures::print(&scene).await;
            if printed.is_err() {
                scene.tell_what_is_there().await;
            }
            printed.map(|()| ExitCode::SUCCESS)
        }
        Play::Steps => play_all(&scene, &scene, &steps::ALL, only).await,
        Play::Keda => {
            let runners = Runners::start(scene).await?;
            let played = play_all(&runners.scene, &runners, &steps::runners::ALL, only).await?;
            if played != ExitCode::SUCCESS {
                runners.tell_what_is_there().await;
            }
            Ok(played)
        }
    }
}

/// Plays the steps one after another, up to the first that fails: those after it take for granted what it was to show.
async fn play_all<S>(
    scene: &Scene,
    stage: &S,
    steps: &[(&str, Step<S>)],
    only: Option<&str>,
) -> Result<ExitCode> {
    let steps = steps.iter().filter(|(name, _)| {
        only.is_none_or(|only| name.contains(only)) || steps::INSTALLS.contains(name)
    });
    let mut passed = 0;
    for (name, step) in steps {
        let begin = std::time::Instant::now();
        let result = step(stage).await;
        let seconds = begin.elapsed().as_secs_f64();
        if let Err(error) = result {
            println!("e2e: FAILED  {name} ({seconds:.1} s): {error}");
            scene.tell_what_is_there().await;
            println!("{passed} passed, 1 failed");
            return Ok(ExitCode::FAILURE);
        }
        passed += 1;
        println!("e2e: ok      {name} ({seconds:.1} s)");
    }
    println!("{passed} passed, 0 failed");
    Ok(if passed > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
