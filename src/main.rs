//! The `keytide` program. Everything it does is in the library.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    keytide::cli::Cli::parse().execute()
}
