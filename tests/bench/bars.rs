//! The bars, and whether what was found meets them. Pure. A bar that is missed is said to be missed: none is ever moved.

use std::time::Duration;

use serde::Serialize;

use super::finding::{Costs, Finding, Latency, SharedChange};
use super::scenario::{Setting, Survey};

const MIB: f64 = 1024.0 * 1024.0;

/// Growth that is within what CPU time and memory can be measured to.
const NO_GROWTH: f64 = 1.05;

/// A bar, in words, and what was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bar {
    pub what: &'static str,
    pub bound: String,
    pub found: String,
    pub verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    Met,
    Missed,
    /// This run doesn't have the scenario.
    NotMeasured,
}

impl Bar {
    pub fn new(
        what: &'static str,
        bound: impl Into<String>,
        found: Option<(String, bool)>,
    ) -> Self {
        let (found, verdict) = match found {
            Some((found, true)) => (found, Verdict::Met),
            Some((found, false)) => (found, Verdict::Missed),
            None => (String::new(), Verdict::NotMeasured),
        };
        Self {
            what,
            bound: bound.into(),
            found,
            verdict,
        }
    }
}

/// All bars, in the order of the page.
pub fn bars(findings: &[Finding], minutes: f64) -> Vec<Bar> {
    let found = Found(findings);
    vec![
        found.requests_in_steady_state(),
        found.gets_of_a_shared_object(),
        found.latency_at_10_000(),
        found.latency_with_hints(),
        found.rate_of_cold_start(),
        found.writes_of_cold_start(),
        found.idle_memory(),
        found.memory_at_10_000(),
        found.cpu_in_steady_state(),
        found.requests_per_object(),
        found.cpu_per_object(),
        found.memory_per_object(),
        found.throttled_neighbour(),
        found.capacity(),
        Bar::new(
            "Time of the whole run",
            "at most 40 min",
            Some((format!("{minutes:.0} min"), minutes <= 40.0)),
        ),
    ]
}

struct Found<'a>(&'a [Finding]);

impl<'a> Found<'a> {
    fn first<T>(&self, pick: impl FnMut(&'a Finding) -> Option<T>) -> Option<T> {
        self.0.iter().find_map(pick)
    }

    fn steady(&self, objects: usize) -> Option<(&'a Setting, &'a Costs)> {
        self.first(|finding| match finding {
            Finding::Steady { setting, costs }
                if setting.objects == objects
                    && setting.survey == Survey::Auto
                    && setting.latency > Duration::ZERO =>
            {
                Some((setting, costs))
            }
            _ => None,
        })
    }

    fn cold_starts_of_10_000(&self) -> Vec<(&'a Costs, f64, Option<[f64; 2]>)> {
        let cold = self.0.iter().filter_map(|finding| match finding {
            Finding::ColdStart {
                setting,
                costs,
                mirrors_per_second,
                bare,
            } if setting.objects == 10_000 => Some((costs, *mirrors_per_second, *bare)),
            _ => None,
        });
        cold.collect()
    }

    fn requests_in_steady_state(&self) -> Bar {
        let found = self.steady(1_000).map(|(setting, costs)| {
            let requests = costs.requests_per_interval(setting);
            (format!("{requests:.1}"), requests <= 41.0)
        });
        Bar::new(
            "Requests per interval, steady state, 1,000 objects of a vault mirrored",
            "at most 41",
            found,
        )
    }

    fn gets_of_a_shared_object(&self) -> Bar {
        let found = self.first(|finding| match finding {
            Finding::SharedObject { changes, .. } => Some(changes),
            _ => None,
        });
        let found = found.map(|changes| {
            let said = |change: &SharedChange| format!("{}", change.gets);
            let said: Vec<String> = changes.iter().map(said).collect();
            let in_bound =
                |change: &SharedChange| change.gets <= if change.read_after <= 2 { 2 } else { 1 };
            (said.join(", "), changes.iter().all(in_bound))
        });
        Bar::new(
            "GETs per change of an object that all mirrors want",
            "1; 2 where it was read within two seconds of `updated`",
            found,
        )
    }

    fn latency_at_10_000(&self) -> Bar {
        let found = self.first(|finding| match finding {
            Finding::Changing {
                setting,
                costs,
                latency,
                ..
            } if setting.objects == 10_000 => Some((setting, costs.survey?, latency)),
            _ => None,
        });
        let bound = found.map_or("interval + one survey + 1 s".to_owned(), |found| {
            let (setting, survey, _) = found;
            let interval = setting.interval.as_secs_f64();
            let bound = interval + survey + 1.0;
            format!("below {interval:.0} s + {survey:.1} s (one survey) + 1 s = {bound:.1} s")
        });
        let found = found.map(|(setting, survey, latency)| {
            let bound = setting.interval.as_secs_f64() + survey + 1.0;
            (format!("{:.1} s", latency.p99), latency.p99 < bound)
        });
        Bar::new(
            "`updated` to Secret written, p99, 1 % of 10,000 objects changing, 50 ms",
            bound,
            found,
        )
    }

    fn latency_with_hints(&self) -> Bar {
        let found = self.first(|finding| match finding {
            Finding::Hinted { setting, latency } if setting.objects == 10_000 => Some(latency),
            _ => None,
        });
        let found = found.map(|latency| (format!("{:.2} s", latency.p99), latency.p99 < 2.0));
        Bar::new("The same with hints", "below 2 s", found)
    }

    fn rate_of_cold_start(&self) -> Bar {
        let ratios = self.cold_starts_of_10_000().into_iter().filter_map(|cold| {
            let (_, rate, [before, after]) = (cold.0, cold.1, cold.2?);
            Some(rate / before.midpoint(after))
        });
        let ratios: Vec<f64> = ratios.collect();
        let least = ratios.iter().copied().min_by(f64::total_cmp);
        let found = least.map(|least| {
            let said: Vec<String> = ratios.iter().map(|ratio| percent(*ratio)).collect();
            (said.join(", "), least >= 0.8)
        });
        Bar::new(
            "Rate of a cold start of 10,000 mirrors, of the bare loop's",
            "at least 80 %",
            found,
        )
    }

    fn writes_of_cold_start(&self) -> Bar {
        let cold = self.cold_starts_of_10_000();
        // One more write is the daemon's own: the Secret with the key of its digests.
        let writes = cold
            .iter()
            .map(|(costs, ..)| costs.api_server.of("APPLY secrets") + costs.api_server.statuses());
        let found = writes.max().map(|writes| {
            let writes = writes as f64 / 10_000.0;
            (format!("{writes:.3}"), writes <= 2.0)
        });
        Bar::new("Writes per mirror of that cold start", "at most 2", found)
    }

    fn idle_memory(&self) -> Bar {
        let found = self.first(|finding| match finding {
            Finding::Idle { peak, .. } => Some(*peak as f64 / MIB),
            _ => None,
        });
        let found = found.map(|peak| (format!("{peak:.1} MiB at the peak"), peak < 20.0));
        Bar::new("Resident memory, idle", "below 20 MiB", found)
    }

    fn memory_at_10_000(&self) -> Bar {
        let peaks = self.0.iter().filter_map(|finding| match finding {
            Finding::ColdStart { setting, costs, .. }
            | Finding::Steady { setting, costs }
            | Finding::Changing { setting, costs, .. }
                if setting.objects == 10_000 =>
            {
                Some(costs.peak)
            }
            _ => None,
        });
        let found = peaks.max().map(|peak| {
            let peak = peak as f64 / MIB;
            (format!("{peak:.1} MiB at the peak"), peak < 64.0)
        });
        Bar::new("Resident memory with 10,000 mirrors", "below 64 MiB", found)
    }

    fn cpu_in_steady_state(&self) -> Bar {
        let shares = self.0.iter().filter_map(|finding| match finding {
            Finding::Steady { setting, costs } if setting.objects == 10_000 => {
                Some(costs.cpu_share())
            }
            _ => None,
        });
        let most = shares.max_by(f64::total_cmp);
        let found = most.map(|share| (percent(share), share < 0.02));
        Bar::new(
            "CPU in steady state, 10,000 objects, 60 s interval",
            "below 2 % of one core",
            found,
        )
    }

    fn requests_per_object(&self) -> Bar {
        self.growth(
            "Vault requests per object and interval, from 1,000 to 10,000",
            Costs::requests_per_object,
        )
    }

    fn cpu_per_object(&self) -> Bar {
        self.growth(
            "CPU per object and interval, from 1,000 to 10,000",
            Costs::cpu_per_object,
        )
    }

    fn memory_per_object(&self) -> Bar {
        let idle = self.first(|finding| match finding {
            Finding::Idle { resident, .. } => Some(*resident as f64),
            _ => None,
        });
        let idle = idle.unwrap_or_default();
        self.growth(
            "Resident memory per object above idle, from 1,000 to 10,000",
            |costs, setting| (costs.resident as f64 - idle) / setting.objects as f64,
        )
    }

    fn growth(&self, what: &'static str, cost: impl Fn(&Costs, &Setting) -> f64) -> Bar {
        let of = |objects| {
            let (setting, costs) = self.steady(objects)?;
            Some(cost(costs, setting))
        };
        let found = of(1_000).zip(of(10_000)).map(|(small, large)| {
            let growth = large / small;
            (format!("{growth:.2} times"), growth <= NO_GROWTH)
        });
        Bar::new(what, "doesn't grow", found)
    }

    fn throttled_neighbour(&self) -> Bar {
        let found = self.first(|finding| match finding {
            Finding::Throttled {
                undisturbed,
                beside,
                ..
            } => Some((undisturbed, beside)),
            _ => None,
        });
        let found = found.map(|(undisturbed, beside): (&Latency, &Latency)| {
            let ratio = beside.p99 / undisturbed.p99;
            let said = format!("{:.1} s and {:.1} s", undisturbed.p99, beside.p99);
            (said, ratio <= 1.2)
        });
        Bar::new(
            "p99 of a vault's changes, undisturbed and beside a throttled vault",
            "within 20 %",
            found,
        )
    }

    fn capacity(&self) -> Bar {
        let found = self.first(|finding| match finding {
            Finding::Capacity {
                requests_per_second,
            } => Some(*requests_per_second),
            _ => None,
        });
        let found = found.map(|rate| (format!("{rate:.0}"), rate >= 5_000.0));
        Bar::new(
            "Requests per second that the dev vault answers",
            "at least 5,000",
            found,
        )
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::Requests;

    fn setting(objects: usize, interval: u64) -> Setting {
        Setting {
            objects,
            vaults: 1,
            namespaces: 10,
            latency: Duration::from_millis(50),
            interval: Duration::from_secs(interval),
            survey: Survey::Auto,
        }
    }

    fn costs(requests: u64, cpu_seconds: f64) -> Costs {
        Costs {
            seconds: 60.0,
            vault: Requests {
                list: requests,
                ..Requests::default()
            },
            api_server: Default::default(),
            cpu_seconds,
            resident: 1024 * 1024 * 30,
            peak: 1024 * 1024 * 40,
            survey: Some(20.0),
        }
    }

    fn verdict(findings: &[Finding], what: &str) -> Verdict {
        let bars = bars(findings, 1.0);
        let bar = bars.iter().find(|bar| bar.what.contains(what));
        bar.expect("a bar").verdict
    }

    fn steady(objects: usize, interval: u64, costs: Costs) -> Finding {
        Finding::Steady {
            setting: setting(objects, interval),
            costs,
        }
    }

    #[test]
    fn without_findings_nothing_is_met_but_the_time() {
        let bars = bars(&[], 39.0);
        let not_measured = |bar: &&Bar| bar.verdict == Verdict::NotMeasured;
        assert_eq!(bars.iter().filter(not_measured).count(), bars.len() - 1);
    }

    #[test]
    fn requests_are_counted_per_interval() {
        let bar = "Requests per interval";
        let six_intervals = |requests| steady(1_000, 10, costs(requests, 0.1));
        assert_eq!(verdict(&[six_intervals(6 * 41)], bar), Verdict::Met);
        assert_eq!(verdict(&[six_intervals(6 * 41 + 1)], bar), Verdict::Missed);
    }

    #[test]
    fn a_cost_may_not_grow_with_the_number_of_objects() {
        let small = || steady(1_000, 10, costs(6 * 40, 0.6));
        let large = |cpu| steady(10_000, 60, costs(400, cpu));
        let bar = "CPU per object";
        assert_eq!(verdict(&[small(), large(1.0)], bar), Verdict::Met);
        assert_eq!(verdict(&[small(), large(1.2)], bar), Verdict::Missed);
        assert_eq!(
            verdict(&[small(), large(1.0)], "Vault requests per object"),
            Verdict::Met
        );
    }

    #[test]
    fn a_shared_object_may_be_read_twice_only_just_after_its_change() {
        let change = |gets, read_after| {
            let last = 1.0;
            let changes = vec![SharedChange {
                gets,
                read_after,
                last,
            }];
            [Finding::SharedObject {
                mirrors: 10,
                namespaces: 1,
                changes,
            }]
        };
        let bar = "GETs per change";
        assert_eq!(verdict(&change(2, 2), bar), Verdict::Met);
        assert_eq!(verdict(&change(2, 3), bar), Verdict::Missed);
        assert_eq!(verdict(&change(1, 9), bar), Verdict::Met);
    }

    #[test]
    fn a_cold_start_is_held_against_the_bare_loop_before_and_after_it() {
        let cold = |mirrors_per_second| {
            [Finding::ColdStart {
                setting: setting(10_000, 60),
                costs: costs(0, 1.0),
                mirrors_per_second,
                bare: Some([90.0, 110.0]),
            }]
        };
        assert_eq!(verdict(&cold(80.0), "Rate of a cold start"), Verdict::Met);
        assert_eq!(
            verdict(&cold(79.0), "Rate of a cold start"),
            Verdict::Missed
        );
    }

    #[test]
    fn the_latency_bar_is_an_interval_a_survey_and_a_second() {
        let changing = |p99| {
            let latency = Latency {
                changes: 300,
                p50: 1.0,
                p99,
                max: p99,
            };
            [Finding::Changing {
                setting: setting(10_000, 60),
                costs: costs(0, 1.0),
                share: 0.01,
                latency,
            }]
        };
        assert_eq!(verdict(&changing(80.9), "p99, 1 %"), Verdict::Met);
        assert_eq!(verdict(&changing(81.0), "p99, 1 %"), Verdict::Missed);
    }
}
