//! The integration tests: one program, so that all of them share one cluster.

#[path = "../testbed/mod.rs"]
mod testbed;

mod alone;
mod chart;
mod control_plane;
mod docs;
mod faults;
mod fixture;
mod gitops;
mod grants;
mod hinting;
mod identities;
mod leading;
mod leaks;
mod mirroring;
mod policies;
mod processes;
mod regressions;
mod release;
mod rotating;
mod schema;
mod status;
mod surveying;
mod unmirrored;
mod workloads;
