//! The bars of rotation. Pure.

use std::collections::BTreeMap;

use crate::bars::Bar;
use crate::finding::{Finding, Rotation};

/// Workloads that the bars are for.
const WORKLOADS: usize = 5_000;
/// How long after the settle time, in seconds.
const SLACK: f64 = 1.0;
/// What a change takes beside a look at the Pods: the events are that the mirror was written and that the rotation has started and
/// finished.
const REQUESTS: [(&str, u64); 4] = [
    ("create events", 3),
    ("patch deployments", 1),
    ("patch keyvaultmirrors/status", 1),
    ("patch secrets", 1),
];
const LOOK: &str = "list pods";

/// All of them, in the order of the page.
pub fn bars(findings: &[Finding], minutes: f64) -> Vec<Bar> {
    let found = findings.iter().find_map(|finding| match finding {
        Finding::Rotation(found) if found.workloads >= WORKLOADS => Some(found),
        _ => None,
    });
    vec![
        Bar::new(
            "Requests to the API server for one changed Secret with one consumer among 5,000 Deployments",
            "a write of the Secret, of the mirror's status and of the workload, at most one list of the workload's Pods, three events",
            found.map(requests),
        ),
        Bar::new(
            "From the Secret's change to the new template, p99, at 5,000 workloads",
            "below settle + 1 s",
            found.map(|found| {
                let p99 = found.latency.p99;
                let said = format!("settle + {:.2} s", p99 - found.settle);
                (said, p99 < found.settle + SLACK)
            }),
        ),
        Bar::new(
            "Restarts of a workload per change of its Secret",
            "exactly 1",
            found.map(|found| {
                let (restarts, changes) = (found.restarts, found.changes());
                (format!("{restarts} of {changes}"), restarts == changes)
            }),
        ),
        Bar::new(
            "Time of the whole run",
            "at most 10 min",
            Some((format!("{minutes:.0} min"), minutes <= 10.0)),
        ),
    ]
}

fn requests(found: &Rotation) -> (String, bool) {
    let few = found.requests.iter().filter(|it| are_its_own(it)).count();
    let said = format!("these, in {few} of {} changes", found.requests.len());
    (said, few > 0 && few == found.requests.len())
}

/// Whether these are requests about what changed and what uses it, and no others.
fn are_its_own(requests: &BTreeMap<String, u64>) -> bool {
    let mut rest = requests.clone();
    let looks = rest.remove(LOOK).unwrap_or_default();
    let own = REQUESTS.map(|(what, count)| (what.to_owned(), count));
    looks <= 1 && rest == BTreeMap::from(own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bars::Verdict;
    use crate::finding::Latency;

    fn found(workloads: usize, p99: f64, extra: &[(&str, u64)]) -> Vec<Verdict> {
        let requests = REQUESTS.iter().chain(extra);
        let requests = requests.map(|(what, count)| ((*what).to_owned(), *count));
        let finding = Finding::Rotation(Rotation {
            workloads,
            consumers: 101,
            namespaces: 1,
            settle: 10.0,
            requests: vec![requests.collect()],
            latency: Latency {
                changes: 100,
                p50: p99,
                p99,
                max: p99,
            },
            restarts: 101,
            resident: 1,
            peak: 1,
        });
        let bars = bars(&[finding], 9.0);
        bars.iter().map(|bar| bar.verdict).collect()
    }

    #[test]
    fn what_grows_with_the_workloads_misses_the_bar() {
        use Verdict::{Met, Missed, NotMeasured};
        assert_eq!(found(5_000, 10.9, &[(LOOK, 1)]), [Met; 4]);
        assert_eq!(found(5_000, 10.9, &[(LOOK, 2)])[0], Missed);
        assert_eq!(found(5_000, 10.9, &[("list deployments", 1)])[0], Missed);
        assert_eq!(found(5_000, 10.9, &[("patch secrets", 2)])[0], Missed);
        assert_eq!(found(5_000, 11.0, &[])[1], Missed);
        assert_eq!(found(500, 10.9, &[])[..3], [NotMeasured; 3]);
    }
}
