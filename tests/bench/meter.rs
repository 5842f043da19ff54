//! Reads all counters at two moments, and says what the daemon cost in between.

use std::time::Duration;

use tokio::time::Instant;

use super::api_server::Asked;
use super::finding::Costs;
use super::system::System;
use super::testbed::Result;
use super::testbed::daemon::Daemon;
use super::usage::Usage;
use super::vault::Requests;

/// All counters at one moment.
pub struct Reading {
    at: Instant,
    vault: Requests,
    api_server: Asked,
    usage: Option<Usage>,
    listings: Listings,
}

/// The daemon's histogram of the times that listings took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Listings {
    seconds: f64,
    count: f64,
}

impl Reading {
    /// Before there is a daemon.
    pub async fn before(system: &System) -> Result<Self> {
        Ok(Self {
            api_server: Asked::until_now(&system.client).await?,
            vault: system.vault.requests().await?,
            usage: None,
            listings: Listings::default(),
            at: Instant::now(),
        })
    }

    pub async fn of(system: &System, daemon: &Daemon) -> Result<Self> {
        // Together, and before what takes longer.
        let vault = system.vault.requests().await?;
        let at = Instant::now();
        let usage = Some(Usage::of(daemon.pid()?)?);
        let (_, metrics) = daemon.get("/metrics").await?;
        Ok(Self {
            at,
            vault,
            usage,
            listings: Listings::parse(&metrics),
            api_server: Asked::until_now(&system.client).await?,
        })
    }

    /// The moment of the count of the vaults' requests.
    pub fn at(&self) -> Instant {
        self.at
    }

    /// What the API server had been asked.
    pub fn asked(&self) -> &Asked {
        &self.api_server
    }

    /// What the daemon cost from `before` until this.
    pub fn since(&self, before: &Self) -> Result<Costs> {
        let usage = self.usage.ok_or("there is no daemon to measure")?;
        let cpu = before.usage.map_or(Duration::ZERO, |before| before.cpu);
        let listed = self.listings.count - before.listings.count;
        Ok(Costs {
            seconds: (self.at - before.at).as_secs_f64(),
            vault: self.vault - before.vault,
            api_server: self.api_server.since(&before.api_server),
            cpu_seconds: (usage.cpu - cpu).as_secs_f64(),
            resident: usage.resident,
            peak: usage.peak,
            survey: (listed > 0.0)
                .then(|| (self.listings.seconds - before.listings.seconds) / listed),
        })
    }
}

impl Listings {
    fn parse(metrics: &str) -> Self {
        let value = |name: &str| {
            let line = metrics.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse().ok())
                .unwrap_or_default()
        };
        Self {
            seconds: value("keytide_vault_listing_seconds_sum "),
            count: value("keytide_vault_listing_seconds_count "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_read_from_the_histogram() {
        let text = "keytide_vault_listing_seconds_sum 2.5\nkeytide_vault_listing_seconds_count 5\n";
        let expected = Listings {
            seconds: 2.5,
            count: 5.0,
        };
        assert_eq!(Listings::parse(text), expected);
        assert_eq!(Listings::parse(""), Listings::default());
    }
}
