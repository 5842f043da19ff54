//! What mirrors are doing right now, for the rotation: it waits for a read or a write that is under way, and for a
//! while for one that fails, so that Secrets that change together restart a workload once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

/// State of one mirror.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct State {
    pub target: String,
    pub in_flight: bool,
    /// Since when it has been failing.
    pub failing_since: Option<Timestamp>,
}

/// The states of all mirrors, by namespace and name. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Activity {
    states: Arc<Mutex<HashMap<String, HashMap<String, State>>>>,
}

impl Activity {
    /// Notes that a mirror reads or writes, until the answer is dropped.
    pub fn begin(&self, namespace: &str, mirror: &str, target: &str) -> InFlight {
        let id = (namespace.to_owned(), mirror.to_owned());
        self.update(&id, |state| {
            state.target = target.to_owned();
            state.in_flight = true;
        });
        InFlight {
            activity: self.clone(),
            id,
        }
    }

    /// Notes how a mirror's last attempt ended.
    pub fn ended(&self, namespace: &str, mirror: &str, failed: bool, now: Timestamp) {
        self.update(&(namespace.to_owned(), mirror.to_owned()), |state| {
            state.failing_since = failed.then(|| state.failing_since.unwrap_or(now));
        });
    }

    /// Forgets a mirror that is gone.
    pub fn forget(&self, namespace: &str, mirror: &str) {
        let mut states = self.lock();
        if let Some(mirrors) = states.get_mut(namespace) {
            mirrors.remove(mirror);
            if mirrors.is_empty() {
                states.remove(namespace);
            }
        }
    }

    /// The mirrors that write the targets which `uses` accepts, with their names.
    pub fn of(&self, namespace: &str, uses: impl Fn(&str) -> bool) -> Vec<(String, State)> {
        self.lock()
            .get(namespace)
            .into_iter()
            .flatten()
            .filter(|(_, state)| uses(&state.target))
            .map(|(mirror, state)| (mirror.clone(), state.clone()))
            .collect()
    }

    fn update(&self, (namespace, mirror): &(String, String), change: impl FnOnce(&mut State)) {
        let mut states = self.lock();
        let mirrors = states.entry(namespace.clone()).or_default();
        change(mirrors.entry(mirror.clone()).or_default());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, HashMap<String, State>>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A mirror that reads or writes; dropping it ends that.
#[derive(Debug)]
pub struct InFlight {
    activity: Activity,
    id: (String, String),
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.activity
            .update(&self.id, |state| state.in_flight = false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_is_in_flight_until_it_is_dropped() {
        let activity = Activity::default();
        let reading = activity.begin("n", "m", "t");
        assert!(activity.of("n", |target| target == "t")[0].1.in_flight);
        drop(reading);
        assert!(!activity.of("n", |_| true)[0].1.in_flight);
        assert!(activity.of("other", |_| true).is_empty());
    }

    #[test]
    fn failing_is_reckoned_from_the_first_failure() {
        let (activity, at) = (Activity::default(), |s| {
            Timestamp::from_second(s).expect("in range")
        });
        activity.ended("n", "m", true, at(1));
        activity.ended("n", "m", true, at(2));
        assert_eq!(activity.of("n", |_| true)[0].1.failing_since, Some(at(1)));
        activity.ended("n", "m", false, at(3));
        assert_eq!(activity.of("n", |_| true)[0].1.failing_since, None);
    }
}
