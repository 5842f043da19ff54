//! What mirrors are doing right now, for the rotation: it waits for a read or a write that is under way, and for a
//! while for one that fails, so that Secrets that change together restart a workload once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::target_name::TargetName;

/// State of one mirror.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct State {
    pub target: TargetName,
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
    /// Notes that a mirror reads or writes for this target, until it says how that ended.
    pub fn begin(&self, namespace: &str, mirror: &str, target: TargetName) {
        self.update(namespace, mirror, |state| {
            state.target = target;
            state.in_flight = true;
        });
    }

    /// Notes that a vault has news for a mirror, until the mirror says how it took them.
    pub fn awaits(&self, namespace: &str, mirror: &str) {
        // One that has no state yet says itself that it begins, and one that is gone says nothing more.
        let mut states = self.lock();
        if let Some(state) = states
            .get_mut(namespace)
            .and_then(|mirrors| mirrors.get_mut(mirror))
        {
            state.in_flight = true;
        }
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
        let mut states = self.lock();
        if let Some(mirrors) = states.get_mut(namespace) {
            mirrors.remove(mirror);
            if mirrors.is_empty() {
                states.remove(namespace);
            }
        }
    }

    /// The mirrors that write the targets which `uses` accepts, with their names.
    pub fn of(&self, namespace: &str, uses: impl Fn(&TargetName) -> bool) -> Vec<(String, State)> {
        self.lock()
            .get(namespace)
            .into_iter()
            .flatten()
            .filter(|(_, state)| uses(&state.target))
            .map(|(mirror, state)| (mirror.clone(), state.clone()))
            .collect()
    }

    fn update(&self, namespace: &str, mirror: &str, change: impl FnOnce(&mut State)) {
        let mut states = self.lock();
        let mirrors = states.entry(namespace.to_owned()).or_default();
        change(mirrors.entry(mirror.to_owned()).or_default());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, HashMap<String, State>>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TargetKind;

    #[test]
    fn a_mirror_is_in_flight_until_it_ends_also_while_only_the_vault_has_news() {
        let activity = Activity::default();
        let t = TargetName::new(TargetKind::ConfigMap, "t");
        activity.begin("n", "m", t.clone());
        assert!(activity.of("n", |target| *target == t)[0].1.in_flight);
        let secret = TargetName::new(TargetKind::Secret, "t");
        assert!(activity.of("n", |target| *target == secret).is_empty());
        activity.ended("n", "m", false, Timestamp::UNIX_EPOCH);
        assert!(!activity.of("n", |_| true)[0].1.in_flight);
        activity.awaits("n", "m");
        assert!(activity.of("n", |target| *target == t)[0].1.in_flight);
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
