//! The testbed for people: `make cluster`, `make cluster-down` and `make demo`.

mod demo;
#[path = "mod.rs"]
mod testbed;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use testbed::azure_devops;
use testbed::standing::Standing;

/// Runs the cluster that the tests run on, to look at and to try things out.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a cluster that stays, and print how kubectl finds it
    Up {
        /// Where it keeps its data, its logs and its kubeconfig
        #[arg(long)]
        dir: PathBuf,
    },
    /// End the cluster that `up` started
    Down {
        /// The folder that `up` was given
        #[arg(long)]
        dir: PathBuf,
    },
    /// Run a double of Azure DevOps until Ctrl-C, and print its URL; /_control/ORGANIZATION takes commands as JSON
    AzureDevops {
        /// An address and a port; 0 is a free one
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Speak HTTPS, and write the certificate to trust to this file
        #[arg(long)]
        ca_file: Option<PathBuf>,
    },
    /// Show a rotation, from a vault to a rolled Deployment
    Demo {
        /// Leave all of it running until Ctrl-C
        #[arg(long)]
        keep: bool,
        /// The daemon; left out: the one that was built beside this program
        #[arg(long)]
        keytide: Option<PathBuf>,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Up { dir } => up(dir).await,
        Command::Down { dir } => down(dir).await,
        Command::AzureDevops { listen, ca_file } => azure_devops::stand(listen, ca_file).await,
        Command::Demo { keep, keytide } => play(keep, keytide).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("testbed: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn up(dir: PathBuf) -> testbed::Result<()> {
    let standing = Standing::open(&dir)?;
    if !standing.up().await? {
        eprintln!("The cluster is up already.");
    }
    println!("export KUBECONFIG={}", standing.kubeconfig().display());
    Ok(())
}

async fn down(dir: PathBuf) -> testbed::Result<()> {
    match Standing::open(&dir)?.down().await?.as_slice() {
        [] => eprintln!("There is no cluster to end."),
        ended => eprintln!("Ended {}.", ended.join(", ")),
    }
    Ok(())
}

async fn play(keep: bool, keytide: Option<PathBuf>) -> testbed::Result<()> {
    let program = match keytide {
        Some(program) => program,
        // Cargo puts examples one folder below the programs.
        None => std::env::current_exe()?
            .ancestors()
            .nth(2)
            .ok_or("this program is in no folder")?
            .join("keytide"),
    };
    demo::play(&program, keep).await
}
