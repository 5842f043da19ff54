//! What the daemon would know, as if the manifests were applied.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::ListParams;
use kube::{Api, Resource};

use super::manifests::Wishes;
use crate::api::{KeyVaultGrant, KeyVaultMirror};
use crate::cli::Result;
use crate::cli::status::snapshot::{Here, Targets, stores};
use crate::cli::vaults::VaultFlags;
use crate::clock::ServerClock;
use crate::daemon::TokenRequests;
use crate::digest::DigestKey;
use crate::mirror::{Activity, Memories, MirrorId, Mirrors, RevertRequests, TargetName, USE_LABEL};
use crate::telemetry::{Events, Metrics};
use crate::vault::{self, Notice, SurveyMode, SurveySettings, Transport, Vaults};
use crate::watch::{Change, Index, filled};

/// Nothing is read so often that this would matter.
const SELDOM: Duration = Duration::from_secs(86_400);

/// What there is, as if the manifests were applied.
pub struct World {
    pub mirrors: Vec<KeyVaultMirror>,
    pub grants: Vec<KeyVaultGrant>,
    pub targets: Targets,
    /// The mirrors to plan.
    pub planned: Vec<KeyVaultMirror>,
}

impl World {
    /// Lists what there is, and puts the wishes in their places.
    pub async fn of(here: &Here<'_>, wishes: Option<Wishes>) -> Result<Self> {
        let mut mirrors = here.mirrors().await?;
        let grants = Api::<KeyVaultGrant>::all(here.client.clone());
        let mut grants = grants.list(&ListParams::default()).await?.items;
        let targets = here.targets().await?;
        let planned = match wishes {
            None => mirrors.clone(),
            Some(wishes) => {
                put(&mut mirrors, &wishes.mirrors);
                put(&mut grants, &wishes.grants);
                wishes.mirrors
            }
        };
        Ok(Self {
            mirrors,
            grants,
            targets,
            planned,
        })
    }

    /// The controller of mirrors with what it would know, to be asked what it would do.
    pub async fn controller(
        &self,
        here: &Here<'_>,
        clock: &ServerClock,
        flags: &VaultFlags,
        digest_key: DigestKey,
        notices: mpsc::UnboundedSender<Notice<MirrorId>>,
    ) -> Result<Mirrors> {
        let accounts = if flags.service_accounts() {
            let labelled = ListParams::default().labels(&format!("{USE_LABEL}=true"));
            let accounts = here
                .api::<ServiceAccount>()
                .list_metadata(&labelled)
                .await?;
            Some(filled(accounts.items))
        } else {
            None
        };
        let metrics = Arc::new(Metrics::default());
        let limits = flags.limits();
        let vaults = vault::Config {
            transport: Transport::new(flags.ca_bundle().as_deref())?,
            credential: flags.credential(),
            accounts: Arc::new(TokenRequests(here.client.clone())),
            settings: SurveySettings {
                mode: SurveyMode::Never,
                full_sweep: SELDOM,
                per_second: limits.per_second,
            },
            limits,
            metrics: Arc::clone(&metrics),
        };
        let mirrors = filled(self.mirrors.clone());
        let mirrors_by_target = Index::new((), |mirror: &KeyVaultMirror| {
            HashSet::from([TargetName::of(&mirror.spec.target).to_string()])
        });
        mirrors_by_target.follow(&Change::Listed(&mirrors.state()));
        Ok(Mirrors {
            client: here.client.clone(),
            vaults: Vaults::new(vaults, notices),
            clock: clock.clone(),
            digest_key,
            suffixes: flags.suffixes(),
            min_refresh_interval: Duration::ZERO,
            mirrors,
            // They are no KeyVaultMirrors of the cluster.
            akv2k8s: false,
            mirrors_by_target,
            grants: filled(self.grants.clone()),
            namespaces: filled(here.namespaces().await?),
            accounts,
            targets: stores(self.targets.clone()),
            activity: Activity::default(),
            // What failed rollouts ask for is known to the daemon alone.
            reverts: RevertRequests::new().0,
            events: Events::new(here.client.clone(), "keytide-plan".to_owned()),
            metrics,
            memories: Memories::default(),
            mirrors_touched: Arc::default(),
        })
    }
}

/// Puts objects in the place of those of the same name.
fn put<K: Resource + Clone>(there: &mut Vec<K>, wished: &[K]) {
    for object in wished {
        let place = |object: &K| (object.meta().namespace.clone(), object.meta().name.clone());
        there.retain(|other| place(other) != place(object));
        there.push(object.clone());
    }
}
