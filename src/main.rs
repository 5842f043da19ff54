//! The `keytide` program. Everything it does is in the library.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// The C library's allocator keeps two fifths more memory than the daemon has in use: small objects of watches, by several threads.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // A huge page is 2 MiB of memory for whatever bit of it is used, and the allocator asks for them. Where this can't be had, memory is
    // all that is lost.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    keytide::cli::Cli::parse().execute()
}
