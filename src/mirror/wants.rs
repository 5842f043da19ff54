//! What mirrors want of their vaults, and may have.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;

use super::account::{self, UnusableAccount};
use super::akv2k8s;
use super::controller::{Mirrors, SYNC_NOW};
use super::grant::{self, Applicant, Refusal};
use super::matching::{self, Found};
use super::memory::{Memory, MirrorId};
use super::plan::Existing;
use super::schedule::interval;
use super::status::{Failure, Unfilled};
use super::target_name::TargetName;
use crate::api::{KeyVaultGrantSpec, KeyVaultMirror, KeyVaultMirrorSpec, MissingPolicy};
use crate::render::{self, Source, sources};
use crate::vault::{self, IfMissing, ReadKey, VaultErrorKind};
use crate::watch;

/// What a mirror wants of its vault.
pub(super) struct Wants<'a> {
    /// The mirror's spec, with an entry of `data` for each secret that it looks for by name or tag.
    pub spec: Cow<'a, KeyVaultMirrorSpec>,
    pub sources: Vec<Source>,
    /// One for each source.
    pub reads: Vec<ReadKey>,
    pub interval: Duration,
}

impl Mirrors {
    /// Wants the objects of all mirrors at once, so that mirrors of one object share its first read too. They are looked after
    /// when there is content; those that may not have any are given, to be told so.
    pub(super) fn want_all(&self) -> Vec<ObjectRef<KeyVaultMirror>> {
        let mut refused = Vec::new();
        for mirror in self.mirrors.state() {
            if mirror.metadata.deletion_timestamp.is_some() {
                continue;
            }
            let id = MirrorId::of(&mirror);
            let target = TargetName::of(&mirror.spec.target);
            let watched = self.watched(id.namespace(), &target);
            let wants = match self.wants(&mirror, &id, watched.as_ref()) {
                Ok(Some(wants)) if wants.reads.is_empty() => Err(()),
                Ok(wants) => Ok(wants),
                Err(_) => Err(()),
            };
            let Ok(wants) = wants else {
                refused.push(id.reference());
                continue;
            };
            // Kept also so that it is forgotten should it go before it is looked at.
            let memory = Memory {
                looked: Some(watched.map(|existing| existing.resource_version)),
                sync_now: Some(mirror.annotations().get(SYNC_NOW).cloned()),
                ..Memory::default()
            };
            self.memories.keep(id.clone(), memory);
            self.activity.begin(id.namespace(), id.name(), target);
            // Where it isn't known yet which objects that are, it is told when it is.
            if let Some(Wants {
                reads, interval, ..
            }) = wants
            {
                let if_missing = if_missing(&mirror);
                self.vaults.want(&id, &reads, interval, if_missing);
            }
        }
        refused
    }

    /// What a mirror may read, and how often that is looked at; nothing as long as it isn't known which secrets there are that it
    /// looks for by name or tag. Of those, it keeps what its target has.
    pub(super) fn wants<'a>(
        &self,
        mirror: &'a KeyVaultMirror,
        id: &MirrorId,
        existing: Option<&Existing>,
    ) -> Result<Option<Wants<'a>>, Failure> {
        if let Some(problem) = akv2k8s::problem(mirror) {
            return Err(Failure::InvalidSpec(problem.to_owned()));
        }
        let mut keys = BTreeSet::new();
        if let Some(twice) = render::inputs(&mirror.spec)
            .into_iter()
            .find(|key| !keys.insert(*key))
        {
            return Err(Failure::InvalidSpec(format!(
                "key {twice} is given twice by spec.data and spec.dataFrom; leave one of them"
            )));
        }
        if let Some(template) = &mirror.spec.template {
            let unfilled = |problem| Unfilled {
                problem,
                missing: Vec::new(),
            };
            render::check_template(template).map_err(unfilled)?;
        }
        if !self.targets.has(mirror.spec.target.kind) {
            return Err(Refusal::ConfigMapsOff.into());
        }
        let interval = interval(&mirror.spec.refresh_interval, self.min_refresh_interval)
            .map_err(Failure::InvalidSpec)?;
        let grants = self.grants.state();
        let grants = grants.iter().map(|grant| &grant.spec);
        let namespace = mirror.namespace().unwrap_or_default();
        let metadata = self.namespaces.get(&ObjectRef::new(&namespace));
        let none = BTreeMap::new();
        let applicant = Applicant {
            namespace: &namespace,
            labels: metadata
                .as_ref()
                .map_or(&none, |metadata| metadata.labels()),
            account: self.account(mirror)?,
        };
        let looks = matching::is_in(&mirror.spec);
        let spec = if looks {
            match self.resolved(mirror, id, existing, &applicant, grants.clone(), interval)? {
                Some(spec) => Cow::Owned(spec),
                None => return Ok(None),
            }
        } else {
            self.vaults.rosters(id, &[], interval);
            Cow::Borrowed(&mirror.spec)
        };
        let sources = sources(&spec);
        let reads = grant::reads(&applicant, &spec, &sources, grants, &self.suffixes)?;
        if reads.is_empty() && !looks {
            return Err(Failure::InvalidSpec(
                "spec.data and spec.dataFrom are empty; name at least one object".to_owned(),
            ));
        }
        Ok(Some(Wants {
            spec,
            sources,
            reads,
            interval,
        }))
    }

    /// The spec of a mirror that looks for secrets by name or tag, with those that there are.
    fn resolved<'a>(
        &self,
        mirror: &KeyVaultMirror,
        id: &MirrorId,
        existing: Option<&Existing>,
        applicant: &Applicant<'_>,
        grants: impl Iterator<Item = &'a KeyVaultGrantSpec> + Clone,
        interval: Duration,
    ) -> Result<Option<KeyVaultMirrorSpec>, Failure> {
        let accounts = grant::listers(applicant, &mirror.spec, grants.clone(), &self.suffixes)?;
        let known = self.vaults.rosters(id, &accounts, interval);
        let mut lists = Vec::new();
        for (account, known) in accounts.into_iter().zip(known) {
            match known {
                Some(Ok(roster)) => lists.push((account, roster)),
                Some(Err(error)) if error.kind == VaultErrorKind::Forbidden => {
                    return Err(Failure::Unlisted(account.vault));
                }
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(None),
            }
        }
        let uid = mirror.uid().unwrap_or_default();
        let record = existing.and_then(|existing| existing.record_of(&uid, id.name()));
        let vault = self.suffixes.host(&mirror.spec.vault);
        let vault = vault.map_err(Refusal::from)?;
        let secrets = grant::visible(applicant, grants, &self.suffixes, &lists);
        let found = Found {
            vault: &vault,
            secrets: &secrets,
            record,
            keeps_missing: mirror.spec.missing_policy == MissingPolicy::Keep,
        };
        Ok(Some(matching::resolve(&mirror.spec, &found)?))
    }

    /// The ServiceAccount that the mirror names, if it names one.
    fn account(&self, mirror: &KeyVaultMirror) -> Result<Option<vault::ServiceAccount>, Refusal> {
        let Some(identity) = &mirror.spec.identity else {
            return Ok(None);
        };
        let name = &identity.service_account_name;
        let Some(accounts) = &self.accounts else {
            return Err(UnusableAccount::Off(name.clone()).into());
        };
        let namespace = mirror.namespace().unwrap_or_default();
        let metadata = accounts.get(&watch::reference(&namespace, name));
        Ok(Some(account::usable(name, metadata.as_deref())?))
    }
}

/// What a mirror is to be given where an object of its is not there, by its `missingPolicy`. Of a failure the target keeps its keys.
/// What is left out is not in the data either ([`render::without`]), and a write takes out the keys that the data lack.
pub(super) fn if_missing(mirror: &KeyVaultMirror) -> IfMissing {
    match mirror.spec.missing_policy {
        MissingPolicy::Keep => IfMissing::Fail,
        MissingPolicy::Remove => IfMissing::LeaveOut,
    }
}
