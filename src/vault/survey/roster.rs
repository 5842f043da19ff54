//! Which objects there are in a collection, for who looks for some by name or tag. It comes with the list that the survey reads
//! anyway; where nothing else would be listed, the collection is listed for this.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{News, Survey};
use crate::vault::VaultError;

/// An object as the list shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listed {
    /// As it was written when the object was made.
    pub name: String,
    /// Whether it can be read.
    pub enabled: bool,
    pub tags: HashMap<String, String>,
}

/// All objects of a collection, by name.
pub type Roster = Arc<Vec<Listed>>;

/// Somebody wants to know which objects there are.
#[derive(Debug)]
pub struct Watch {
    interval: Duration,
    is_due: bool,
    /// What was last told.
    told: Option<Roster>,
}

impl Watch {
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Begins to gather what the list shows, if that is due.
    pub fn begin(&mut self) -> Option<Vec<Listed>> {
        std::mem::take(&mut self.is_due).then(Vec::new)
    }
}

impl Survey {
    /// Lists the collection from now on, at least this often, and tells what changed.
    pub fn watch(&mut self, interval: Duration) {
        match &mut self.watch {
            Some(watch) => watch.interval = interval,
            None => {
                self.watch = Some(Watch {
                    interval,
                    is_due: true,
                    told: None,
                });
            }
        }
    }

    /// Lists it no more for this.
    pub fn unwatch(&mut self) {
        self.watch = None;
    }

    /// Lists it now, if somebody wants to know what there is.
    pub fn relist(&mut self) {
        self.watch.iter_mut().for_each(|watch| watch.is_due = true);
    }

    /// Takes in that the time has moved on.
    pub(super) fn tick_watch(&mut self, before: Instant, now: Instant) {
        let Some(interval) = self.watch.as_ref().map(Watch::interval) else {
            return;
        };
        if self.tick(interval, now) > self.tick(interval, before) {
            self.relist();
        }
    }

    /// The whole list was read. A list that changes while it is read can show an object twice.
    pub(super) fn listed(&mut self, mut listed: Vec<Listed>) -> Option<News> {
        let watch = self.watch.as_mut()?;
        listed.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        listed.dedup_by(|a, b| a.name == b.name);
        if watch.told.as_deref() == Some(&listed) {
            return None;
        }
        let roster = Arc::new(listed);
        watch.told = Some(Arc::clone(&roster));
        Some(News::Roster(Ok(roster)))
    }

    /// Whether a list that was due then and is to be had no sooner than `not_before` is late.
    pub(super) fn is_overdue(&self, due: Instant, not_before: Instant) -> bool {
        let watch = self.watch.as_ref();
        watch.is_some_and(|watch| watch.told.is_none() || due + watch.interval <= not_before)
    }

    /// The list can't be read.
    pub(super) fn unlistable(&mut self, error: &VaultError) -> Option<News> {
        // So that it is told when it can be again.
        self.watch.as_mut()?.told = None;
        Some(News::Roster(Err(error.clone())))
    }
}
