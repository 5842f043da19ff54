//! The rest of the page of rotation. Pure.

use std::fmt::Write;

use crate::finding::{Finding, Rotation};

const MIB: f64 = 1024.0 * 1024.0;

pub const METHOD: &str = "\
A real control plane whose nodes run nothing, the dev vault in a process of its own and the daemon in the release profile, with the
chart's ServiceAccount and its own defaults, share the machine. All Deployments opted in. Some use a Secret of their own and have one
Pod; the others use one that never changes, a Secret for each namespace, and have none. Requests are those of the daemon in the API
server's audit log, from a change in the vault until nothing has followed for an interval, without those that keep the Lease. The time
is from when a watch of the Secrets shows the change to when a watch of the Deployments shows the new Pod template, of changes that come
two seconds apart.

";

/// Writes what was found.
pub fn write(page: &mut String, findings: &[Finding]) -> std::fmt::Result {
    for finding in findings {
        if let Finding::Rotation(found) = finding {
            write_latency(page, found)?;
            write_requests(page, found)?;
        }
    }
    Ok(())
}

fn write_latency(page: &mut String, found: &Rotation) -> std::fmt::Result {
    let latency = &found.latency;
    writeln!(
        page,
        "## From the Secret to the new template\n\n\
         | workloads | with a changed Secret | namespaces | settle | changes | p50 | p99 | max | resident | peak |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n\
         | {} | {} | {} | {:.0} s | {} | {:.2} s | {:.2} s | {:.2} s | {:.1} MiB | {:.1} MiB |\n",
        found.workloads,
        found.consumers,
        found.namespaces,
        found.settle,
        latency.changes,
        latency.p50,
        latency.p99,
        latency.max,
        found.resident as f64 / MIB,
        found.peak as f64 / MIB,
    )
}

fn write_requests(page: &mut String, found: &Rotation) -> std::fmt::Result {
    writeln!(
        page,
        "## What a change asks of the API server\n\n| change | requests |\n|--:|---|"
    )?;
    for (number, requests) in found.requests.iter().enumerate() {
        let requests = requests
            .iter()
            .map(|(what, count)| format!("{count} {what}"));
        let requests: Vec<String> = requests.collect();
        writeln!(page, "| {} | {} |", number + 1, requests.join(", "))?;
    }
    Ok(())
}
