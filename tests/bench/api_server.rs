//! What the API server was asked, by its own count: reads and writes of the kinds that a daemon works with.
//!
//! While the benchmark measures, nobody but the daemon reads or writes those; watches, which others hold too, don't count.

use std::collections::BTreeMap;

use kube::Client;
use serde::Serialize;

use super::testbed::Result;

const READS: [&str; 2] = ["GET", "LIST"];
const WRITES: [&str; 5] = ["POST", "PUT", "PATCH", "APPLY", "DELETE"];
const RESOURCES: [&str; 5] = [
    "secrets",
    "keyvaultmirrors",
    "keyvaultgrants",
    "deployments",
    "events",
];

/// Counts by verb and resource, such as `APPLY secrets` or `PATCH keyvaultmirrors/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Asked(pub BTreeMap<String, u64>);

impl Asked {
    /// All since the API server's start.
    pub async fn until_now(client: &Client) -> Result<Self> {
        let request = http::Request::get("/metrics").body(Vec::new())?;
        Ok(Self::parse(&client.request_text(request).await?))
    }

    fn parse(text: &str) -> Self {
        let mut asked = BTreeMap::<String, u64>::new();
        for line in text.lines() {
            let Some((labels, count)) = line
                .strip_prefix("apiserver_request_total{")
                .and_then(|line| line.rsplit_once("} "))
            else {
                continue;
            };
            let label = |name: &str| {
                let start = labels.find(&format!("{name}=\""))? + name.len() + 2;
                labels[start..].split('"').next()
            };
            let (Some(verb), Some(resource)) = (label("verb"), label("resource")) else {
                continue;
            };
            let counts = READS.contains(&verb) || WRITES.contains(&verb);
            if !counts || !RESOURCES.contains(&resource) {
                continue;
            }
            let subresource = label("subresource").filter(|name| !name.is_empty());
            let subresource = subresource.map_or(String::new(), |name| format!("/{name}"));
            // Numbers above a million are written as 1e+06.
            let count = count.trim().parse::<f64>().unwrap_or_default() as u64;
            *asked
                .entry(format!("{verb} {resource}{subresource}"))
                .or_default() += count;
        }
        Self(asked)
    }

    /// What has been asked since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let more = self.0.iter().filter_map(|(what, count)| {
            let more = count - before.of(what);
            (more > 0).then(|| (what.clone(), more))
        });
        Self(more.collect())
    }

    pub fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or_default()
    }

    pub fn reads(&self) -> u64 {
        self.sum(&READS)
    }

    pub fn writes(&self) -> u64 {
        self.sum(&WRITES)
    }

    /// Writes of statuses of mirrors, by whatever kind of patch.
    pub fn statuses(&self) -> u64 {
        let statuses = |what: &&String| what.ends_with(" keyvaultmirrors/status");
        self.0
            .keys()
            .filter(statuses)
            .map(|what| self.of(what))
            .sum()
    }

    fn sum(&self, verbs: &[&str]) -> u64 {
        let counts = |what: &&String| {
            let verb = what.split(' ').next();
            verb.is_some_and(|verb| verbs.contains(&verb))
        };
        self.0.keys().filter(counts).map(|what| self.of(what)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
# TYPE apiserver_request_total counter
apiserver_request_total{code="200",component="apiserver",group="",resource="secrets",subresource="",verb="APPLY",version="v1"} 1.5e+06
apiserver_request_total{code="201",component="apiserver",group="",resource="secrets",subresource="",verb="APPLY",version="v1"} 5
apiserver_request_total{code="200",component="apiserver",group="",resource="secrets",subresource="",verb="WATCH",version="v1"} 9
apiserver_request_total{code="200",component="apiserver",group="",resource="secrets",subresource="",verb="GET",version="v1"} 3
apiserver_request_total{code="200",component="apiserver",group="",resource="pods",subresource="",verb="GET",version="v1"} 7
apiserver_request_total{code="200",component="apiserver",group="keytide.dev",resource="keyvaultmirrors",subresource="status",verb="PATCH",version="v1alpha1"} 4
"#;

    #[test]
    fn requests_are_counted_by_verb_and_resource_whatever_the_answer() {
        let asked = Asked::parse(TEXT);
        assert_eq!(asked.of("APPLY secrets"), 1_500_005);
        assert_eq!((asked.reads(), asked.writes()), (3, 1_500_009));
        assert_eq!(asked.statuses(), 4);
    }

    #[test]
    fn what_was_asked_before_does_not_count() {
        let (mut before, after) = (Asked::parse(TEXT), Asked::parse(TEXT));
        before.0.insert("GET secrets".to_owned(), 1);
        assert_eq!(
            after.since(&before),
            Asked([("GET secrets".to_owned(), 2)].into())
        );
    }
}
