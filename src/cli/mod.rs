//! The command line: one file per subcommand.

#[cfg(feature = "dev-vault")]
mod dev_vault;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Mirrors Azure Key Vault objects into Kubernetes Secrets and rolls the workloads that use them.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a Key Vault, Entra and IMDS double on loopback, for tests and demos
    #[cfg(feature = "dev-vault")]
    DevVault(dev_vault::DevVault),
}

impl Cli {
    /// Runs the chosen subcommand; an error is printed as one sentence and gives a non-zero exit code.
    pub fn execute(self) -> ExitCode {
        let result: Result<(), Box<dyn std::error::Error>> = match self.command {
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
