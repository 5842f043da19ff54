//! Who wants to know which secrets there are, and what each vault was last seen to have. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use super::survey::Roster;
use super::vaults::Account;
use super::{VaultError, VaultErrorKind};

/// What is to be done after a change.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect<S> {
    /// The secrets of a vault are to be listed this often.
    Watch(Arc<Account>, Duration),
    /// Nobody wants the list any more.
    Unwatch(Arc<Account>),
    /// A watcher has something else to look at.
    Ready(S),
}

/// All watchers, and the lists that they watch.
#[derive(Debug)]
pub struct Rosters<S> {
    watchers: HashMap<S, Watched>,
    lists: HashMap<Arc<Account>, List<S>>,
}

#[derive(Debug)]
struct Watched {
    accounts: Vec<Arc<Account>>,
    interval: Duration,
}

#[derive(Debug)]
struct List<S> {
    watchers: Vec<S>,
    interval: Duration,
    roster: Option<Roster>,
    /// Why there is no newer one.
    error: Option<VaultError>,
}

impl<S> Default for Rosters<S> {
    fn default() -> Self {
        Self {
            watchers: HashMap::new(),
            lists: HashMap::new(),
        }
    }
}

impl<S: Clone + Eq + Hash> Rosters<S> {
    /// Takes in which lists a watcher wants to be told of; none if it wants none any more.
    pub fn want(
        &mut self,
        watcher: &S,
        accounts: &[Account],
        interval: Duration,
    ) -> Vec<Effect<S>> {
        let is_same = self
            .watchers
            .get(watcher)
            .map_or(accounts.is_empty(), |watched| {
                watched.interval == interval
                    && watched.accounts.iter().map(AsRef::as_ref).eq(accounts)
            });
        if is_same {
            return Vec::new();
        }
        let mut touched = self.remove(watcher);
        if !accounts.is_empty() {
            let accounts: Vec<_> = accounts
                .iter()
                .map(|account| self.join(watcher, account))
                .collect();
            touched.extend(accounts.iter().cloned());
            self.watchers
                .insert(watcher.clone(), Watched { accounts, interval });
        }
        touched
            .iter()
            .filter_map(|account| self.reckon(account))
            .collect()
    }

    /// A vault was listed, or can't be.
    pub fn listed(
        &mut self,
        account: &Account,
        result: Result<Roster, VaultError>,
    ) -> Vec<Effect<S>> {
        let Some(list) = self.lists.get_mut(account) else {
            return Vec::new();
        };
        let before = list.error.take();
        let is_news = match result {
            Ok(roster) => {
                let known = list.roster.replace(Arc::clone(&roster));
                before.is_some() || known != Some(roster)
            }
            Err(error) => {
                let is_news = before.as_ref() != Some(&error);
                if error.kind == VaultErrorKind::Forbidden {
                    list.roster = None;
                }
                list.error = Some(error);
                is_news
            }
        };
        let told = list.watchers.iter().filter(|_| is_news);
        told.cloned().map(Effect::Ready).collect()
    }

    /// What a vault has, as far as it is known. While a vault can't be asked, what it had last counts; not if it may not be.
    pub fn of(&self, account: &Account) -> Option<Result<Roster, VaultError>> {
        let list = self.lists.get(account)?;
        match (&list.roster, &list.error) {
            (None, None) => None,
            (Some(roster), _) => Some(Ok(Arc::clone(roster))),
            (None, Some(error)) => Some(Err(error.clone())),
        }
    }

    /// The lists that a watcher is told of.
    pub fn watched(&self, watcher: &S) -> Vec<Arc<Account>> {
        let watched = self.watchers.get(watcher);
        watched.map_or_else(Vec::new, |watched| watched.accounts.clone())
    }

    fn join(&mut self, watcher: &S, account: &Account) -> Arc<Account> {
        let known = self.lists.get_key_value(account);
        let account =
            known.map_or_else(|| Arc::new(account.clone()), |(known, _)| Arc::clone(known));
        let list = self
            .lists
            .entry(Arc::clone(&account))
            .or_insert_with(|| List {
                watchers: Vec::new(),
                interval: Duration::MAX,
                roster: None,
                error: None,
            });
        list.watchers.push(watcher.clone());
        account
    }

    /// Takes a watcher out, and gives the lists that it had.
    fn remove(&mut self, watcher: &S) -> Vec<Arc<Account>> {
        let Some(watched) = self.watchers.remove(watcher) else {
            return Vec::new();
        };
        for account in &watched.accounts {
            if let Some(list) = self.lists.get_mut(account) {
                list.watchers.retain(|other| other != watcher);
            }
        }
        watched.accounts
    }

    /// How often a vault is to be listed now, if that has changed: as often as the most impatient watcher wants.
    fn reckon(&mut self, account: &Arc<Account>) -> Option<Effect<S>> {
        let list = self.lists.get_mut(account)?;
        let watched = list
            .watchers
            .iter()
            .filter_map(|watcher| self.watchers.get(watcher));
        match watched.map(|watched| watched.interval).min() {
            None => {
                self.lists.remove(account);
                Some(Effect::Unwatch(Arc::clone(account)))
            }
            Some(interval) if interval == list.interval => None,
            Some(interval) => {
                list.interval = interval;
                Some(Effect::Watch(Arc::clone(account), interval))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::Identity;
    use crate::vault::survey::Listed;
    use crate::vault::survey::tests::host;

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);

    fn account() -> Account {
        Account {
            vault: host(),
            identity: Identity::Daemon,
        }
    }

    fn roster(names: &[&str]) -> Roster {
        let listed = names.iter().map(|name| Listed {
            name: (*name).to_owned(),
            enabled: true,
            tags: HashMap::new(),
        });
        Arc::new(listed.collect())
    }

    fn error(kind: VaultErrorKind) -> VaultError {
        VaultError::new(kind, &host(), "the list of secrets", "")
    }

    #[test]
    fn a_list_is_had_as_often_as_the_most_impatient_wants() {
        let mut rosters: Rosters<&str> = Rosters::default();
        let shared = Arc::new(account());
        let watch = |interval| vec![Effect::Watch(Arc::clone(&shared), interval)];
        let one = [account()];
        assert_eq!(rosters.want(&"a", &one, HOUR), watch(HOUR));
        assert_eq!(rosters.want(&"a", &one, HOUR), vec![]);
        assert_eq!(rosters.want(&"b", &one, MINUTE), watch(MINUTE));
        assert_eq!(rosters.want(&"b", &[], MINUTE), watch(HOUR));
        assert_eq!(
            rosters.want(&"a", &[], HOUR),
            vec![Effect::Unwatch(Arc::clone(&shared))]
        );
        assert_eq!(rosters.want(&"a", &[], HOUR), vec![]);
    }

    #[test]
    fn watchers_are_told_what_is_new() {
        let mut rosters: Rosters<&str> = Rosters::default();
        rosters.want(&"a", &[account()], MINUTE);
        assert_eq!(rosters.of(&account()), None);
        let ready = vec![Effect::Ready("a")];
        assert_eq!(rosters.listed(&account(), Ok(roster(&["x"]))), ready);
        assert_eq!(rosters.listed(&account(), Ok(roster(&["x"]))), vec![]);
        assert_eq!(rosters.listed(&account(), Ok(roster(&["x", "y"]))), ready);
        rosters.want(&"b", &[account()], MINUTE);
        assert_eq!(rosters.of(&account()), Some(Ok(roster(&["x", "y"]))));
    }

    #[test]
    fn what_was_there_counts_while_the_vault_is_down_and_not_once_it_may_not_be_listed() {
        let mut rosters: Rosters<&str> = Rosters::default();
        rosters.want(&"a", &[account()], MINUTE);
        let ready = vec![Effect::Ready("a")];
        let (down, forbidden) = (
            error(VaultErrorKind::Unreachable),
            error(VaultErrorKind::Forbidden),
        );
        assert_eq!(rosters.listed(&account(), Err(down.clone())), ready);
        assert_eq!(rosters.of(&account()), Some(Err(down.clone())));
        rosters.listed(&account(), Ok(roster(&["x"])));
        rosters.listed(&account(), Err(down));
        assert_eq!(rosters.of(&account()), Some(Ok(roster(&["x"]))));
        assert_eq!(rosters.listed(&account(), Err(forbidden.clone())), ready);
        assert_eq!(rosters.listed(&account(), Err(forbidden.clone())), vec![]);
        assert_eq!(rosters.of(&account()), Some(Err(forbidden)));
        // Nor does what was there come back with another error.
        let down = error(VaultErrorKind::Unreachable);
        rosters.listed(&account(), Err(down.clone()));
        assert_eq!(rosters.of(&account()), Some(Err(down)));
        assert_eq!(rosters.listed(&account(), Ok(roster(&["x"]))), ready);
    }
}
