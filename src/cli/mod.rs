//! The command line: one file per subcommand.

mod akv2k8s;
mod crd;
#[cfg(feature = "dev-vault")]
mod dev_vault;
mod migrate;
mod plan;
mod rotation;
mod run;
mod status;
mod table;
mod vaults;

use std::process::ExitCode;
use std::sync::LazyLock;

use clap::{Parser, Subcommand};

/// What this program was built from. The commit is known to builds that are told it, as those of images are.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{} (commit {}, features: {})",
        env!("CARGO_PKG_VERSION"),
        option_env!("KEYTIDE_COMMIT").unwrap_or("unknown"),
        if cfg!(feature = "dev-vault") {
            "dev-vault"
        } else {
            "none"
        }
    )
});

/// Mirrors Azure Key Vault objects into Kubernetes Secrets and rolls the workloads that use them.
#[derive(Debug, Parser)]
#[command(version = VERSION.as_str())]
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
    /// Tell how mirrors and workloads stand
    Status(Box<status::Status>),
    /// Tell what would be written, and which workloads would restart
    Plan(Box<plan::Plan>),
    /// Print the mirrors and grants that take the place of akv2k8s, External Secrets or the CSI driver
    Migrate(migrate::Migrate),
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
            Command::Status(command) => command.execute(),
            Command::Plan(command) => return command.execute(),
            Command::Migrate(command) => command.execute(),
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
