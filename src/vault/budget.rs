//! How many requests all vaults together may have under way: memory, connections and CPU are one daemon's.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests under way to all vaults together.
const TOTAL: usize = 128;

/// The budget that all vaults share. Each stands in line for one permit at a time, and the semaphore serves in the order of coming, so a
/// vault with many requests waiting gets no more than its turn. A vault's only request needs no permit at all: so however
/// many are held by vaults that don't answer, every other goes on.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Semaphore>);

/// Held for as long as a request is under way.
pub type Permit = OwnedSemaphorePermit;

impl Default for Budget {
    fn default() -> Self {
        Self::new(TOTAL)
    }
}

impl Budget {
    pub fn new(total: usize) -> Self {
        Self(Arc::new(Semaphore::new(total)))
    }

    /// Takes a permit if nobody has to wait for one.
    pub fn try_take(&self) -> Option<Permit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }

    /// Stands in line for a permit. None only if the daemon ends.
    pub async fn take(&self) -> Option<Permit> {
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_vault_with_many_requests_gets_no_more_than_its_turn() {
        let budget = Budget::new(2);
        let served = Arc::new(std::sync::Mutex::new(Vec::new()));
        let vault = |name: &'static str, requests: usize| {
            let (budget, served) = (budget.clone(), Arc::clone(&served));
            async move {
                let mut under_way = Vec::new();
                for _ in 0..requests {
                    let permit = budget.take().await.expect("open");
                    served.lock().expect("not poisoned").push(name);
                    under_way.push(tokio::spawn(async move {
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                        drop(permit);
                    }));
                }
            }
        };
        tokio::join!(vault("large", 50), vault("small", 5));
        let served = served.lock().expect("not poisoned");
        let last_small = served.iter().rposition(|name| *name == "small");
        assert!(last_small.is_some_and(|at| at <= 10), "{served:?}");
    }
}
