//! Which content failed rollouts ask to have taken back, for the mirrors that put it there. The rotation says it at each look at a workload,
//! and takes it back when the workload asks no more. Losing it loses nothing: a rollout that has failed is found so again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::channel::mpsc;

use super::target_name::TargetName;

/// What a failed rollout asks of one key of a target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RevertRequest {
    /// ID of the key that the digests are made with.
    pub digest_key: String,
    /// Digest of the content whose rollout has failed.
    pub failed: String,
    /// Digest of the content that the Pods had before; none where that isn't known.
    pub before: Option<String>,
    /// Such as `the rollout of Deployment web has failed (its progress deadline has passed)`.
    pub because: String,
}

/// All that one workload asks, by target and key.
pub type AskedReverts = BTreeMap<(TargetName, String), RevertRequest>;

/// What all workloads ask. Clones share it.
#[derive(Clone, Debug)]
pub struct RevertRequests {
    /// By namespace and workload.
    requests: Arc<Mutex<BTreeMap<(String, String), AskedReverts>>>,
    /// By namespace.
    wake: mpsc::UnboundedSender<(String, TargetName)>,
}

impl RevertRequests {
    /// Nothing is asked yet. Gives also where the targets are told of which something new is asked.
    pub fn new() -> (Self, mpsc::UnboundedReceiver<(String, TargetName)>) {
        let (wake, woken) = mpsc::unbounded();
        let reverts = Self {
            requests: Arc::default(),
            wake,
        };
        (reverts, woken)
    }

    /// What a workload asks from now on, in place of what it has asked before.
    pub fn put(&self, namespace: &str, workload: &str, requests: AskedReverts) {
        let name = (namespace.to_owned(), workload.to_owned());
        let mut all = self.lock();
        if requests.is_empty() {
            all.remove(&name);
        } else if all.get(&name) != Some(&requests) {
            for (target, _) in requests.keys() {
                // A receiver that is gone means that the daemon ends.
                let _ = self
                    .wake
                    .unbounded_send((namespace.to_owned(), target.clone()));
            }
            all.insert(name, requests);
        }
    }

    /// What is asked of the keys of a target.
    pub fn of(&self, namespace: &str, target: &TargetName) -> Vec<(String, RevertRequest)> {
        let all = self.lock();
        all.range((namespace.to_owned(), String::new())..)
            .take_while(|((of, _), _)| of == namespace)
            .flat_map(|(_, requests)| requests)
            .filter(|((of, _), _)| of == target)
            .map(|((_, key), request)| (key.clone(), request.clone()))
            .collect()
    }

    /// A panic elsewhere leaves the map whole, so its poison means nothing.
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, String), AskedReverts>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::TargetKind;

    fn secret(name: &str) -> TargetName {
        TargetName::new(TargetKind::Secret, name)
    }

    fn requests(target: &str, failed: &str) -> AskedReverts {
        let request = RevertRequest {
            digest_key: "k".into(),
            failed: failed.into(),
            before: None,
            because: "it failed".into(),
        };
        AskedReverts::from([((secret(target), "token".to_owned()), request)])
    }

    #[test]
    fn a_target_is_told_once_of_what_is_asked_and_not_when_that_is_over() {
        let (reverts, mut woken) = RevertRequests::new();
        let mut told = || woken.try_recv().ok();
        reverts.put("n", "Deployment a", requests("t", "b"));
        assert_eq!(told(), Some(("n".into(), secret("t"))));
        reverts.put("n", "Deployment a", requests("t", "b"));
        assert_eq!(told(), None);
        reverts.put("n", "Deployment a", requests("t", "c"));
        assert!(told().is_some());
        assert_eq!(reverts.of("n", &secret("t"))[0].1.failed, "c");
        reverts.put("n", "Deployment a", AskedReverts::new());
        assert_eq!(told(), None);
        assert!(reverts.of("n", &secret("t")).is_empty());
    }

    #[test]
    fn what_is_asked_of_others_is_not_asked_of_a_target() {
        let (reverts, _woken) = RevertRequests::new();
        reverts.put("n", "Deployment a", requests("t", "b"));
        reverts.put("n", "Deployment b", requests("t", "b"));
        reverts.put("n", "Deployment c", requests("u", "b"));
        reverts.put("nn", "Deployment a", requests("t", "b"));
        assert_eq!(reverts.of("n", &secret("t")).len(), 2);
        assert!(reverts.of("m", &secret("t")).is_empty());
    }
}
