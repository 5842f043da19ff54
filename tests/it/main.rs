//! The integration tests: one program, so that all of them share one cluster.

#[path = "../testbed/mod.rs"]
mod testbed;

mod control_plane;
mod fixture;
mod hinting;
mod leaks;
mod mirroring;
mod processes;
mod rotating;
