//! The integration tests: one program, so that all of them share one cluster.

#[path = "../testbed/mod.rs"]
mod testbed;

mod agent_access;
mod agent_pools;
mod agents;
mod alone;
mod azure_devops;
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
mod migrating;
mod mirroring;
mod objects;
mod policies;
mod processes;
mod regressions;
mod release;
mod rotating;
mod runner;
mod runner_releases;
mod runner_values;
mod runners;
mod schema;
mod status;
mod storms;
mod surveying;
mod unmirrored;
mod workloads;
