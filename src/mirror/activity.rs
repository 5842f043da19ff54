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
    states: Arc<Mutex<HashMap<(String, String), State>>>,
}

impl Activity {
    /// Notes that a mirror reads or writes for this target, until it says how that ended.
    pub fn begin(&self, namespace: &str, mirror: &str, target: &str) {
        self.update(namespace, mirror, |state| {
            state.target = target.to_owned();
            state.in_flight = true;
        });
    }

    /// Notes that a vault has news for a mirror, until the mirror says how it took them.
    pub fn awaits(&self, namespace: &str, mirror: &str) {
        self.update(namespace, mirror, |state| state.in_flight = true);
    }

    /// Notes how a mirror's last attempt ended.
    pub fn ended(&self, namespace: &str, mirror: &str, failed: bool, now: Timestamp) {
        self.update(namespace, mirror, |state| {
            state.in_flight = false;
            state.failing_since = failed.then(|| state.failing_since.unwrap_or(now));
        });
    }

    /// Forgets a mirror that is gone.
    pub fn forget(&self, namespace: &str, mirror: &str) {
        self.lock()
            .remove(&(namespace.to_owned(), mirror.to_owned()));
    }

    /// The mirrors that write the targets which `uses` accepts, with their names.
    pub fn of(&self, namespace: &str, uses: impl Fn(&str) -> bool) -> Vec<(String, State)> {
        self.lock()
            .iter()
            .filter(|((mirror_namespace, _), state)| {
                mirror_namespace == namespace && uses(&state.target)
            })
            .map(|((_, mirror), state)| (mirror.clone(), state.clone()))
            .collect()
    }

    fn update(&self, namespace: &str, mirror: &str, change: impl FnOnce(&mut State)) {
        let id = (namespace.to_owned(), mirror.to_owned());
        change(self.lock().entry(id).or_default());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_in_flight_until_it_ends_also_while_only_the_vault_has_news() {
        let activity = Activity::default();
        activity.begin("n", "m", "t");
        assert!(activity.of("n", |target| target == "t")[0].1.in_flight);
        activity.ended("n", "m", false, Timestamp::UNIX_EPOCH);
        assert!(!activity.of("n", |_| true)[0].1.in_flight);
        activity.awaits("n", "m");
        assert!(activity.of("n", |target| target == "t")[0].1.in_flight);
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
