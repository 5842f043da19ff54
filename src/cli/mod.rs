//! The command line: one file per subcommand.

mod crd;
#[cfg(feature = "dev-vault")]
mod dev_vault;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Mirrors Azure Key Vault objects into Kubernetes Secrets and rolls the workloads that use them.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// How a subcommand ends: an error is a sentence for the person at the terminal.
type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?)
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon: mirror vaults into Secrets and roll workloads
    Run(Box<run::Run>),
    /// Print the CustomResourceDefinitions, or apply them
    Crd(crd::Crd),
    /// Serve a Key Vault, Entra and IMDS double on loopback, for tests and demos
    #[cfg(feature = "dev-vault")]
    DevVault(dev_vault::DevVault),
}

impl Cli {
    /// Runs the chosen subcommand; an error is printed as one sentence and gives a non-zero exit code.
    pub fn execute(self) -> ExitCode {
        let result = match self.command {
            Command::Run(command) => command.execute(),
            Command::Crd(command) => command.execute(),
            #[cfg(feature = "dev-vault")]
            Command::DevVault(command) => command.execute(),
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("keytide: {error}");
                ExitCode::FAILURE
            }
        }
    }
}
