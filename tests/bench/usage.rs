//! What a process uses of the machine, as the kernel counts it.

use std::fs;
use std::time::Duration;

use super::testbed::Result;

/// Ticks per second of the times in `/proc/PID/stat`: 100 on every architecture that Kubernetes runs on.
const TICKS: u64 = 100;

/// CPU time and resident memory of a process.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub cpu: Duration,
    /// Bytes now.
    pub resident: u64,
    /// Most bytes since the start.
    pub peak: u64,
}

impl Usage {
    pub fn of(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let bytes = |field| bytes(&status, field).ok_or_else(|| format!("no {field} of {pid}"));
        Ok(Self {
            cpu: cpu(&stat).ok_or("/proc/PID/stat can't be read")?,
            resident: bytes("VmRSS")?,
            peak: bytes("VmHWM")?,
        })
    }
}

/// User and system time, fields 14 and 15 of proc_pid_stat(5).
fn cpu(stat: &str) -> Option<Duration> {
    // The name, in parentheses, can itself hold spaces.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(14 - 3);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 1000 / TICKS))
}

/// A field of proc_pid_status(5) that is in kB.
fn bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: u64 = line
        .strip_prefix(':')?
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_user_and_system_time() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0";
        assert_eq!(cpu(stat), Some(Duration::from_secs(3)));
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(
            bytes("VmHWM:\t  12 kB\nVmRSS:\t   8 kB\n", "VmRSS"),
            Some(8192)
        );
        assert_eq!(bytes("VmHWM:\t  12 kB\n", "VmRSS"), None);
    }

    #[test]
    fn the_kernel_tells_of_this_process() {
        let usage = Usage::of(std::process::id()).expect("usage");
        assert!(usage.resident > 0 && usage.peak >= usage.resident);
    }
}
