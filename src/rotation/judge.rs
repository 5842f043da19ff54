//! Looks at what surrounds a workload, and decides: the part of the controller that changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};

use super::baseline::{BASELINE, Baseline};
use super::decide::{
    self, Content, Decision, Hold, MirrorState, Reason, Surroundings, Wait, contents_in_use,
    decide, suspects,
};
use super::flight::{Course, Flights, PolicyName};
use super::gate::{self, Candidate, Others};
use super::memory::Memory;
use super::opt_in::{Context, OptIn, ROTATE};
use super::pods;
use super::policies::Policies;
use super::policy::{Policy, ROTATION_POLICY, Uses};
use super::reference::{Reference, SourceKey, Via};
use super::rollout::Rollout;
use super::sources::Sources;
use super::standing::Standing;
use super::trial::Trial;
use super::workload::{Workload, WorkloadId};
use super::workloads::Workloads;
use crate::api::OnFailure;
use crate::clock::ServerClock;
use crate::mirror::{Activity, AskedReverts, TargetName};

/// What there is to look at.
pub struct Judge {
    pub client: Client,
    pub clock: ServerClock,
    pub policies: Arc<Policies>,
    pub workloads: Workloads,
    pub flights: Flights,
    pub sources: Sources,
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Whether annotations of Reloader and wave opt in too.
    pub compatibility: bool,
    pub activity: Activity,
}

/// What a decision is about.
pub struct Case<'a> {
    pub id: WorkloadId,
    workload: &'a Workload,
    subject: decide::Subject,
    pub contents: BTreeMap<SourceKey, Content>,
    policy_name: PolicyName,
    policy: Policy,
    obstacle: Option<Hold>,
}

impl Case<'_> {
    pub fn suspects(&self) -> BTreeMap<&SourceKey, &Content> {
        suspects(&self.subject, &self.contents)
    }

    pub fn rotated(&self) -> Option<Timestamp> {
        self.subject.baseline.as_ref().and_then(|it| it.rotated)
    }

    /// What is on trial, where a failure has it taken back.
    fn trial(&self) -> Option<(&Baseline, &Trial)> {
        let reverts = self.policy.on_failure == OnFailure::Revert && self.obstacle.is_none();
        let baseline = self.subject.baseline.as_ref().filter(|_| reverts)?;
        let trial = baseline.trial.as_ref()?;
        trial.goes_on(&self.subject).then_some((baseline, trial))
    }

    /// What the mirrors of its Secrets are asked, where its rollout has failed.
    pub fn reverts(&self, why: &str) -> AskedReverts {
        let because = format!("the rollout of {} has failed ({why})", self.id);
        self.trial()
            .map(|(baseline, trial)| trial.reverts(baseline, &because))
            .unwrap_or_default()
    }
}

impl Judge {
    /// How a workload stands; none if it did not opt in.
    ///
    /// # Errors
    ///
    /// Its Pods, or what it uses, can't be read.
    pub async fn standing(&self, workload: &Workload) -> Result<Option<Standing>, kube::Error> {
        let Some(case) = self.case_of(workload).await? else {
            return Ok(None);
        };
        let (decision, _) = self.decision(&case, &mut Memory::default()).await?;
        Ok(Some(Standing::of(workload, &decision)))
    }

    /// What is to be decided about a workload; none if it did not opt in.
    pub(super) async fn case_of<'a>(
        &self,
        workload: &'a Workload,
    ) -> Result<Option<Case<'a>>, kube::Error> {
        let opt_in = self.opt_in(workload);
        if opt_in == OptIn::No || workload.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let id = WorkloadId::of(workload);
        let references = self.references(&id, workload, &opt_in);
        let contents = self.sources.contents(&id.namespace, &references).await?;
        Ok(Some(self.case(id, workload, references, &contents)))
    }

    /// What a workload is rolled for.
    pub fn references(
        &self,
        id: &WorkloadId,
        workload: &Workload,
        opt_in: &OptIn,
    ) -> BTreeSet<Reference> {
        let wanted = opt_in.wanted(&workload.references);
        self.sources.resolve(&id.namespace, wanted)
    }

    /// What is to be decided, given the content of what it refers to.
    pub fn case<'a>(
        &self,
        id: WorkloadId,
        workload: &'a Workload,
        references: BTreeSet<Reference>,
        contents: &BTreeMap<SourceKey, Content>,
    ) -> Case<'a> {
        let policy_name = workload.annotation(ROTATION_POLICY).map(str::to_owned);
        let (policy, obstacle) = self.policies.of(&id.namespace, &policy_name);
        let subject = subject(workload, references, policy.on);
        Case {
            contents: contents_in_use(&subject.references, contents),
            id,
            workload,
            subject,
            policy_name,
            policy,
            obstacle,
        }
    }

    /// Whether a workload wants to be rolled.
    pub fn opt_in(&self, workload: &Workload) -> OptIn {
        let namespace = ObjectRef::new(&workload.namespace().unwrap_or_default());
        let namespace = self.namespaces.get(&namespace);
        let default = namespace
            .as_ref()
            .and_then(|namespace| namespace.annotations().get(ROTATE));
        let context = Context {
            namespace: default.map(String::as_str),
            compatibility: self.compatibility,
        };
        OptIn::of(workload, context)
    }

    /// Decides, and looks at what that needs looking at. Gives the time that it was decided by.
    pub async fn decision(
        &self,
        case: &Case<'_>,
        memory: &mut Memory,
    ) -> Result<(Decision, Timestamp), kube::Error> {
        self.decision_in(SignedDuration::ZERO, case, memory).await
    }

    /// The same as it will be after a while, if nothing else happens meanwhile.
    pub(super) async fn decision_in(
        &self,
        ahead: SignedDuration,
        case: &Case<'_>,
        memory: &mut Memory,
    ) -> Result<(Decision, Timestamp), kube::Error> {
        let version = case.workload.metadata.resource_version.as_deref();
        let suspects = case.suspects();
        let mirrors = self.mirrors(&case.id.namespace, &case.subject.references);
        let mut pods = memory.pods(version, &suspects);
        loop {
            let now = self.now_in(ahead);
            let canaries = self.canaries(case, &suspects, now);
            let (name, contents) = (&case.policy_name, &case.contents);
            let decided = self
                .flights
                .consider(&case.id, name, &suspects, now, |others| {
                    let around = Surroundings {
                        contents,
                        pods: pods.as_deref(),
                        mirrors: &mirrors,
                        policy: &case.policy,
                        obstacle: case.obstacle.as_ref(),
                        others: &Others { canaries, ..others },
                    };
                    decide(&case.subject, &around, now)
                });
            match &decided {
                Decision::Look => {
                    let looked = pods::look(&self.client, case.workload).await?;
                    let looked = Arc::new(looked);
                    memory.look(version, &suspects, Arc::clone(&looked));
                    pods = Some(looked);
                }
                Decision::Wait(Wait {
                    reason: Reason::Examination { workload },
                    ..
                }) if self.examine(workload, ahead).await? => {}
                _ => {
                    if let Decision::Wait(wait) = &decided
                        && matches!(wait.reason, Reason::Settling | Reason::Rolling)
                    {
                        // Containers may yet start, and crash.
                        memory.looked = None;
                    }
                    return Ok((decided, now));
                }
            }
        }
    }

    /// How the rollout of content goes that is on trial; none where none is.
    ///
    /// # Errors
    ///
    /// Its Pods can't be listed.
    pub async fn course(&self, case: &Case<'_>) -> Result<Option<Course>, kube::Error> {
        if case.trial().is_none() {
            return Ok(None);
        }
        self.examine(&case.id, SignedDuration::ZERO).await?;
        Ok(self.flights.course(&case.id, self.clock.now()))
    }

    /// The mirrors that something is asked of.
    pub fn asked(&self, namespace: &str, reverts: &AskedReverts) -> Vec<String> {
        let is_asked = |target: &TargetName| reverts.keys().any(|(asked, _)| asked == target);
        let mirrors = self.activity.of(namespace, is_asked);
        mirrors.into_iter().map(|(name, _)| name).collect()
    }

    /// Looks at a rollout of which others, or the mirrors of its content, wait to hear. Whether there is something to hear.
    async fn examine(&self, id: &WorkloadId, ahead: SignedDuration) -> Result<bool, kube::Error> {
        let Some(rotated) = self.flights.examine(id, self.now_in(ahead)) else {
            return Ok(false);
        };
        let found = match self.workloads.of(id.kind).get(&id.reference()) {
            None => Ok(None),
            Some(workload) => pods::look(&self.client, &workload)
                .await
                .map(|pods| pods.trouble_since(rotated).map(str::to_owned)),
        };
        let now = self.now_in(ahead);
        self.flights.examined(id, rotated, found, now)?;
        Ok(true)
    }

    fn now_in(&self, ahead: SignedDuration) -> Timestamp {
        decide::later(self.clock.now(), ahead)
    }

    /// The canaries that a workload which is none waits for.
    fn canaries(
        &self,
        case: &Case<'_>,
        suspects: &BTreeMap<&SourceKey, &Content>,
        now: Timestamp,
    ) -> Vec<gate::Canary> {
        let Some(canary) = &case.policy.canary else {
            return Vec::new();
        };
        if canary.includes(case.workload.labels()) {
            return Vec::new();
        }
        let sources: BTreeSet<_> = suspects.keys().map(|key| &key.source).collect();
        let others: BTreeSet<WorkloadId> = sources
            .into_iter()
            .flat_map(|source| self.workloads.using(&case.id.namespace, source))
            .map(|reference| WorkloadId::from(&reference))
            .collect();
        others
            .into_iter()
            .filter_map(|id| {
                let other = self.workloads.of(id.kind).get(&id.reference())?;
                let policy = other.annotation(ROTATION_POLICY).map(str::to_owned);
                // One that is being deleted is given nothing any more.
                let is_canary = policy == case.policy_name
                    && other.metadata.deletion_timestamp.is_none()
                    && self.opt_in(&other) != OptIn::No
                    && canary.includes(other.labels());
                if !is_canary {
                    return None;
                }
                let workload = id.to_string();
                let Some(baseline) = other.annotation(BASELINE).and_then(Baseline::parse) else {
                    // Whether it has the content is about to be known.
                    return Some(gate::Canary {
                        workload,
                        soaks_until: None,
                    });
                };
                let candidate = Candidate {
                    workload: &workload,
                    keys: &baseline.keys,
                    rotated: baseline.rotated,
                    is_rolling: matches!(
                        other.rollout,
                        Rollout::UnderWay | Rollout::UnderWayForEver
                    ),
                };
                candidate.holds_up(suspects, canary.soak, now)
            })
            .collect()
    }

    fn mirrors(&self, namespace: &str, references: &BTreeSet<Reference>) -> Vec<MirrorState> {
        self.activity
            .of(namespace, |target| {
                references
                    .iter()
                    .any(|reference| reference.source.is(target))
            })
            .into_iter()
            .map(|(name, state)| MirrorState {
                name,
                in_flight: state.in_flight,
                failing_since: state.failing_since,
            })
            .collect()
    }
}

/// What is decided on.
fn subject(workload: &Workload, mut references: BTreeSet<Reference>, on: Uses) -> decide::Subject {
    references.retain(|reference| match reference.via {
        // Files of a subPath stay as they were when the container started, as variables do.
        Via::Environment | Via::SubPath => on.env,
        Via::Volume => on.volume,
        // Asked for by name.
        Via::ImagePull | Via::Named => true,
    });
    decide::Subject {
        references,
        baseline: workload.annotation(BASELINE).and_then(Baseline::parse),
        paused: workload.paused,
        rollout: workload.rollout,
        template: workload.template,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;

    use super::super::reference::Source;
    use super::*;

    #[test]
    fn a_policy_says_which_uses_count_and_what_was_asked_for_by_name_always_does() {
        let by = |via| Reference {
            via,
            ..Reference::to_whole(Source::secret("s"))
        };
        let workload = Workload::from(Deployment::default());
        let counted = |env, volume| -> Vec<Via> {
            let references = [
                Via::Environment,
                Via::SubPath,
                Via::Volume,
                Via::ImagePull,
                Via::Named,
            ];
            let references = references.into_iter().map(by).collect();
            let subject = subject(&workload, references, Uses { env, volume });
            subject.references.iter().map(|it| it.via).collect()
        };
        let env = counted(true, false);
        assert!(env.contains(&Via::Environment) && env.contains(&Via::SubPath));
        assert!(
            !env.contains(&Via::Volume),
            "the application reads it again"
        );
        let volume = counted(false, true);
        assert!(volume.contains(&Via::Volume));
        assert!(!volume.contains(&Via::Environment) && !volume.contains(&Via::SubPath));
        for all in [env, volume] {
            assert!(all.contains(&Via::ImagePull) && all.contains(&Via::Named));
        }
    }
}
