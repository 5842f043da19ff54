//! The `keytide` program. Everything it does is in the library.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// The C library's allocator keeps two fifths more memory than the daemon has in use: small objects of watches, by several threads.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    keytide::cli::Cli::parse().execute()
}
