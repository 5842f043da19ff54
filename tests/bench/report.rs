//! What a run tells: everything as JSON, and a page for the book.

use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use super::bars::{Bar, Verdict, bars};
use super::finding::{Costs, Finding, Latency};
use super::machine::Machine;
use super::rotation;
use super::scenario::{Extent, Setting, Survey};

const MIB: f64 = 1024.0 * 1024.0;

/// A run so far.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub extent: Extent,
    pub date: String,
    /// What was measured: the commit.
    pub source: String,
    pub machine: Machine,
    pub minutes: f64,
    pub findings: Vec<Finding>,
    /// Scenarios that could not be measured, and why.
    pub failures: Vec<String>,
    pub bars: Vec<Bar>,
}

impl Report {
    pub fn new(extent: Extent, source: String, machine: Machine) -> Self {
        Self {
            extent,
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            source,
            machine,
            minutes: 0.0,
            findings: Vec::new(),
            failures: Vec::new(),
            bars: Vec::new(),
        }
    }

    /// Takes in what was measured, so long after the run began.
    pub fn add(&mut self, finding: Finding, after: Duration) {
        self.findings.push(finding);
        self.minutes = after.as_secs_f64() / 60.0;
        self.bars = match self.extent {
            Extent::Rotation => rotation::bars::bars(&self.findings, self.minutes),
            _ => bars(&self.findings, self.minutes),
        };
    }

    /// The page, in Markdown.
    pub fn page(&self) -> String {
        let mut page = String::new();
        // Writing to a String can't fail.
        let _ = self.write(&mut page);
        page
    }

    fn write(&self, page: &mut String) -> std::fmt::Result {
        let (title, command) = match self.extent {
            Extent::Quick => ("Benchmark", "make bench-quick"),
            Extent::Standard => ("Benchmark", "make bench"),
            Extent::Full => ("Benchmark", "make bench-full"),
            Extent::Rotation => ("Benchmark of rotation", "make bench-rotation"),
        };
        writeln!(page, "# {title}\n")?;
        writeln!(
            page,
            "Measured on {} by `{command}`, of {}, on {}.\n",
            self.date, self.source, self.machine
        )?;
        if self.machine.is_busy() {
            writeln!(
                page,
                "**Other programs ran at the same time: these figures are a hint and no result.**\n"
            )?;
        }
        page.push_str(match self.extent {
            Extent::Rotation => rotation::page::METHOD,
            _ => METHOD,
        });
        for failure in &self.failures {
            writeln!(page, "**Not measured:** {failure}\n")?;
        }
        self.write_bars(page)?;
        if self.extent == Extent::Rotation {
            return rotation::page::write(page, &self.findings);
        }
        self.write_steady(page)?;
        self.write_latencies(page)?;
        self.write_cold_starts(page)?;
        self.write_rest(page)
    }

    fn write_bars(&self, page: &mut String) -> std::fmt::Result {
        writeln!(
            page,
            "## Bars\n\n| bar | bound | found | |\n|---|---|---|---|"
        )?;
        for bar in &self.bars {
            let verdict = match bar.verdict {
                Verdict::Met => "met",
                Verdict::Missed => "**missed**",
                Verdict::NotMeasured => "not measured",
            };
            writeln!(
                page,
                "| {} | {} | {} | {verdict} |",
                bar.what, bar.bound, bar.found
            )?;
        }
        writeln!(page)
    }

    fn write_steady(&self, page: &mut String) -> std::fmt::Result {
        writeln!(
            page,
            "## Once all is mirrored\n\n\
             | what changes | objects | vaults | latency | interval | `--survey` | GET | LIST | token | requests/min \
             | per 1,000 objects and interval | API reads | API writes | CPU | CPU per object and interval | resident | peak |\n\
             |---|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
        )?;
        for finding in &self.findings {
            let (what, setting, costs) = match finding {
                Finding::Steady { setting, costs } => ("nothing".to_owned(), setting, costs),
                Finding::Changing {
                    setting,
                    costs,
                    share,
                    ..
                } => (format!("{} %", share * 100.0), setting, costs),
                Finding::Restart { setting, costs } => {
                    ("nothing, after a restart".to_owned(), setting, costs)
                }
                _ => continue,
            };
            write_row(page, &what, setting, costs)?;
        }
        writeln!(
            page,
            "\nGET, LIST and token are vault requests per interval; API reads and writes are requests to the API server \
             per interval. CPU is the share of one core.\n"
        )?;
        if let Some(ratio) = self.naive_ratio() {
            writeln!(
                page,
                "Reading every object of 1,000 in every interval (`--survey=never`) takes {ratio:.1} times the requests.\n"
            )?;
        }
        Ok(())
    }

    fn naive_ratio(&self) -> Option<f64> {
        let requests = |survey| {
            self.findings.iter().find_map(|finding| match finding {
                Finding::Steady { setting, costs }
                    if setting.objects == 1_000 && setting.survey == survey =>
                {
                    Some(costs.requests_per_interval(setting))
                }
                _ => None,
            })
        };
        Some(requests(Survey::Never)? / requests(Survey::Auto)?)
    }

    fn write_latencies(&self, page: &mut String) -> std::fmt::Result {
        writeln!(
            page,
            "## From the vault's change to the written Secret\n\n\
             | what changes | objects | latency | interval | one survey | changes | p50 | p99 | max |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|"
        )?;
        for finding in &self.findings {
            match finding {
                Finding::Changing {
                    setting,
                    costs,
                    share,
                    latency,
                } => write_latency(
                    page,
                    &format!("{} % in an interval", share * 100.0),
                    setting,
                    costs.survey,
                    latency,
                )?,
                Finding::Hinted { setting, latency } => {
                    let what = "1 % in an interval, with hints";
                    write_latency(page, what, setting, None, latency)?;
                }
                Finding::Throttled {
                    setting,
                    undisturbed,
                    beside,
                    recovery,
                } => {
                    let what = "10 %, two vaults that answer";
                    write_latency(page, what, setting, None, undisturbed)?;
                    let what = format!(
                        "10 %, beside a vault that throttles (which was caught up with {recovery:.1} s after its end)"
                    );
                    write_latency(page, &what, setting, None, beside)?;
                }
                _ => {}
            }
        }
        writeln!(page)
    }

    fn write_cold_starts(&self, page: &mut String) -> std::fmt::Result {
        writeln!(
            page,
            "## Cold start\n\n\
             | objects | vaults | latency | time | mirrors/s | bare loop before, after | of it | GET | LIST | token \
             | API reads per mirror | API writes per mirror | CPU | CPU per mirror | peak |\n\
             |--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
        )?;
        for finding in &self.findings {
            let Finding::ColdStart {
                setting,
                costs,
                mirrors_per_second,
                bare,
            } = finding
            else {
                continue;
            };
            let objects = setting.objects as f64;
            let (rates, ratio) = match bare {
                Some([before, after]) => (
                    format!("{before:.0}, {after:.0}"),
                    format!(
                        "{:.0} %",
                        mirrors_per_second / before.midpoint(*after) * 100.0
                    ),
                ),
                None => (String::new(), String::new()),
            };
            writeln!(
                page,
                "| {} | {} | {} ms | {:.1} s | {mirrors_per_second:.0} | {rates} | {ratio} | {} | {} | {} | {:.2} | {:.2} | {:.1} s | {:.2} ms | {:.1} MiB |",
                setting.objects,
                setting.vaults,
                setting.latency.as_millis(),
                costs.seconds,
                costs.vault.get,
                costs.vault.list,
                costs.vault.token,
                costs.api_server.reads() as f64 / objects,
                costs.api_server.writes() as f64 / objects,
                costs.cpu_seconds,
                costs.cpu_seconds * 1000.0 / objects,
                costs.peak as f64 / MIB,
            )?;
        }
        writeln!(page)
    }

    fn write_rest(&self, page: &mut String) -> std::fmt::Result {
        writeln!(page, "## And\n")?;
        for finding in &self.findings {
            match finding {
                Finding::Capacity {
                    requests_per_second,
                } => writeln!(
                    page,
                    "- The dev vault answers {requests_per_second:.0} GETs a second when nothing else is done."
                )?,
                Finding::Idle { resident, peak } => writeln!(
                    page,
                    "- A daemon without mirrors: {:.1} MiB resident, {:.1} MiB at the peak.",
                    *resident as f64 / MIB,
                    *peak as f64 / MIB
                )?,
                Finding::SharedObject {
                    mirrors,
                    namespaces,
                    changes,
                } => {
                    let changes = changes.iter().map(|change| {
                        format!(
                            "{} GET{} ({} s after `updated`), {:.1} s until the last Secret",
                            change.gets,
                            if change.gets == 1 { "" } else { "s" },
                            change.read_after,
                            change.last
                        )
                    });
                    let changes: Vec<String> = changes.collect();
                    writeln!(
                        page,
                        "- {mirrors} mirrors in {namespaces} namespaces want the same object. Per change: {}.",
                        changes.join("; ")
                    )?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

const METHOD: &str = "\
A real control plane, the dev vault in a process of its own and the daemon in the release profile, with the chart's
ServiceAccount and its own defaults, share the machine; each row has a new one of each. Vault requests are counted by the dev
vault and requests to the API server by the API server; CPU time and memory are the kernel's. A change counts from the moment
before the dev vault is told of it until a watch of the Secrets' metadata shows it; hints are events that are put into a queue at
Azurite as soon as the dev vault has the change. The bare loop sends the writes of a cold start as the daemon does, Secrets by
server-side apply and statuses by merge patch, 64 at a time, and does nothing else; it runs on the same API server before and
after the cold start, as administrator, and its Secrets are watched as the daemon's are. A cold start lasts from the daemon's
start to the last status. Resident memory is `VmRSS`, its peak `VmHWM`.

";

fn write_row(page: &mut String, what: &str, setting: &Setting, costs: &Costs) -> std::fmt::Result {
    let intervals = costs.seconds / setting.interval.as_secs_f64();
    let per_interval = |count: u64| count as f64 / intervals;
    let survey = match setting.survey {
        Survey::Auto => "auto",
        Survey::Never => "never",
    };
    writeln!(
        page,
        "| {what} | {} | {} | {} ms | {} s | {survey} | {:.1} | {:.1} | {:.1} | {:.1} | {:.2} | {:.1} | {:.1} | {:.2} % | {:.1} µs | {:.1} MiB | {:.1} MiB |",
        setting.objects,
        setting.vaults,
        setting.latency.as_millis(),
        setting.interval.as_secs(),
        per_interval(costs.vault.get),
        per_interval(costs.vault.list),
        per_interval(costs.vault.token),
        costs.vault.total() as f64 / costs.seconds * 60.0,
        costs.requests_per_object(setting) * 1000.0,
        per_interval(costs.api_server.reads()),
        per_interval(costs.api_server.writes()),
        costs.cpu_share() * 100.0,
        costs.cpu_per_object(setting) * 1e6,
        costs.resident as f64 / MIB,
        costs.peak as f64 / MIB,
    )
}

fn write_latency(
    page: &mut String,
    what: &str,
    setting: &Setting,
    survey: Option<f64>,
    latency: &Latency,
) -> std::fmt::Result {
    let survey = survey.map_or(String::new(), |survey| format!("{survey:.1} s"));
    writeln!(
        page,
        "| {what} | {} | {} ms | {} s | {survey} | {} | {:.2} s | {:.2} s | {:.2} s |",
        setting.objects,
        setting.latency.as_millis(),
        setting.interval.as_secs(),
        latency.changes,
        latency.p50,
        latency.p99,
        latency.max,
    )
}
