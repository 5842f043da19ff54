//! The machine that is measured on.

use std::fmt;
use std::fs;

use serde::Serialize;

use super::testbed::Result;

/// What figures depend on.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub memory_gib: u64,
    pub kernel: String,
    /// Mean number of threads that wanted to run in the minute before, when nothing had begun yet.
    pub load: f64,
}

impl Machine {
    pub fn look() -> Result<Self> {
        let cpus = fs::read_to_string("/proc/cpuinfo")?;
        let memory = fs::read_to_string("/proc/meminfo")?;
        let load = fs::read_to_string("/proc/loadavg")?;
        let kilobytes = field(&memory, "MemTotal").and_then(|memory| {
            let number = memory.split_whitespace().next()?;
            number.parse::<u64>().ok()
        });
        Ok(Self {
            processor: field(&cpus, "model name").unwrap_or("unknown").to_owned(),
            cores: std::thread::available_parallelism()?.get(),
            memory_gib: kilobytes.unwrap_or_default() / (1024 * 1024),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?
                .trim()
                .to_owned(),
            load: load
                .split_whitespace()
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or_default(),
        })
    }

    /// Whether others used it when the run began.
    pub fn is_busy(&self) -> bool {
        self.load > 0.25 * self.cores as f64
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} cores of {} with {} GiB, Linux {}, load {:.1} at the start",
            self.cores, self.processor, self.memory_gib, self.kernel, self.load
        )
    }
}

/// The value of `name: value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_what_stands_after_its_colon() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n";
        assert_eq!(field(text, "model name"), Some("Some CPU @ 2 GHz"));
        assert_eq!(field(text, "flags"), None);
    }
}
