//! What the daemon knows of the cluster.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use futures::TryStreamExt;
use futures::channel::mpsc;
use futures::future::OptionFuture;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::store::WriterDropped;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Config, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::Notify;

use crate::api::{KeyVaultGrant, KeyVaultMirror};
use crate::mirror::{self, MIRRORED_LABEL, MirrorId, Target, USE_LABEL, mirrors_of};
use crate::rotation;
use crate::vault::Notice;
use crate::watch::{Change, Index, follow, keep, new_store};

/// Objects on a page of a first list. A page is read with all that is then trimmed, and decoded it is ten times as large as what
/// is kept of it: pages of five hundred would be most of the daemon's memory, for good.
const PAGE: u32 = 50;

/// What the daemon knows of the cluster, kept up to date whether it leads or not.
pub struct Caches {
    pub mirrors: Store<KeyVaultMirror>,
    pub mirrors_by_target: Index<KeyVaultMirror>,
    pub mirrors_touched: Arc<Notify>,
    pub grants: Store<KeyVaultGrant>,
    pub namespaces: Store<PartialObjectMeta<Namespace>>,
    /// Those that mirrors may read as; none where that is off.
    pub accounts: Option<Store<PartialObjectMeta<ServiceAccount>>>,
    pub targets: Store<Target>,
    pub workloads: Store<Deployment>,
    wakes: Arc<OnceLock<Wakes>>,
}

/// Where changes are told to the controllers.
struct Wakes {
    mirrors: mpsc::UnboundedSender<ObjectRef<KeyVaultMirror>>,
    mirrors_of_targets: mpsc::UnboundedSender<ObjectRef<KeyVaultMirror>>,
    grants: mpsc::UnboundedSender<()>,
    workloads: mpsc::UnboundedSender<ObjectRef<Deployment>>,
    workloads_of_targets: mpsc::UnboundedSender<ObjectRef<Deployment>>,
}

impl Caches {
    /// Empty caches, and the watches that fill them for as long as they are polled.
    pub fn new(
        client: &Client,
        service_accounts: bool,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (mirrors, mirrors_writer) = new_store();
        let (grants, grants_writer) = new_store();
        let (namespaces, namespaces_writer) = new_store();
        let (accounts, accounts_writer) = new_store();
        let (targets, targets_writer) = new_store();
        let (workloads, workloads_writer) = new_store();
        let caches = Self {
            mirrors,
            mirrors_by_target: Index::new(|mirror: &KeyVaultMirror| {
                HashSet::from([mirror.spec.target.name.clone()])
            }),
            mirrors_touched: Arc::default(),
            grants,
            namespaces,
            accounts: service_accounts.then_some(accounts),
            targets,
            workloads,
            wakes: Arc::default(),
        };
        let workloads_by_secret = Index::new(rotation::secrets_of);

        let (wakes, index, touched) = (
            Arc::clone(&caches.wakes),
            caches.mirrors_by_target.clone(),
            Arc::clone(&caches.mirrors_touched),
        );
        let watch_mirrors = follow(
            watcher(
                Api::<KeyVaultMirror>::all(client.clone()),
                Config::default().page_size(PAGE),
            )
            .modify(trim_mirror),
            mirrors_writer,
            move |change: Change<'_, KeyVaultMirror>| {
                // Whoever wakes from here on finds in the store what this tells.
                let wakes = wakes.get();
                // A status leaves nothing over.
                if index.follow(&change) {
                    touched.notify_one();
                }
                if let Some(wakes) = wakes {
                    send_all(&wakes.mirrors, change.objects().map(ObjectRef::from_obj));
                }
            },
            warn_of("KeyVaultMirrors"),
        );
        let wakes = Arc::clone(&caches.wakes);
        let watch_grants = follow(
            watcher(Api::<KeyVaultGrant>::all(client.clone()), Config::default()).modify(trim),
            grants_writer,
            move |_| {
                if let Some(wakes) = wakes.get() {
                    send_all(&wakes.grants, [()]);
                }
            },
            warn_of("KeyVaultGrants"),
        );
        let (wakes, mirrors) = (Arc::clone(&caches.wakes), caches.mirrors.clone());
        let watch_namespaces = follow(
            watcher(
                Api::<PartialObjectMeta<Namespace>>::all(client.clone()),
                Config::default(),
            )
            .modify(trim_to_labels),
            namespaces_writer,
            move |change| {
                let names = change.objects().map(ResourceExt::name_any).collect();
                wake_mirrors_in(&wakes, &mirrors, &names);
            },
            warn_of("Namespaces"),
        );
        let (wakes, mirrors) = (Arc::clone(&caches.wakes), caches.mirrors.clone());
        let watch_accounts = follow(
            watcher(
                Api::<PartialObjectMeta<ServiceAccount>>::all(client.clone()),
                Config::default().labels(&format!("{USE_LABEL}=true")),
            )
            .modify(trim),
            accounts_writer,
            move |change| {
                let names = change
                    .objects()
                    .filter_map(ResourceExt::namespace)
                    .collect();
                wake_mirrors_in(&wakes, &mirrors, &names);
            },
            warn_of("ServiceAccounts"),
        );
        let watch_accounts = OptionFuture::from(service_accounts.then_some(watch_accounts));
        let (wakes, index) = (Arc::clone(&caches.wakes), workloads_by_secret.clone());
        let watch_targets = follow(
            watcher(
                Api::<PartialObjectMeta<Secret>>::all(client.clone()),
                Config::default()
                    .page_size(PAGE)
                    .labels(&format!("{MIRRORED_LABEL}=true")),
            )
            .map_ok(|event| keep(event, Target::of)),
            targets_writer,
            move |change: Change<'_, Target>| {
                let Some(wakes) = wakes.get() else { return };
                for target in change.objects() {
                    send_all(&wakes.mirrors_of_targets, mirrors_of(target));
                    let workloads = index.get(&target.namespace, &target.name);
                    send_all(&wakes.workloads_of_targets, workloads);
                }
            },
            warn_of("Secrets"),
        );
        let (wakes, index) = (Arc::clone(&caches.wakes), workloads_by_secret);
        let watch_workloads = follow(
            watcher(
                Api::<Deployment>::all(client.clone()),
                Config::default().page_size(PAGE),
            )
            .modify(rotation::trim),
            workloads_writer,
            move |change: Change<'_, Deployment>| {
                index.follow(&change);
                if let Some(wakes) = wakes.get() {
                    send_all(&wakes.workloads, change.objects().map(ObjectRef::from_obj));
                }
            },
            warn_of("Deployments"),
        );
        let watches = async {
            futures::join!(
                watch_mirrors,
                watch_grants,
                watch_namespaces,
                watch_accounts,
                watch_targets,
                watch_workloads
            );
        };
        (caches, watches)
    }

    pub async fn wait_until_filled(&self) -> std::result::Result<(), WriterDropped> {
        futures::try_join!(
            self.mirrors.wait_until_ready(),
            self.grants.wait_until_ready(),
            self.namespaces.wait_until_ready(),
            async {
                match &self.accounts {
                    Some(accounts) => accounts.wait_until_ready().await,
                    None => Ok(()),
                }
            },
            self.targets.wait_until_ready(),
            self.workloads.wait_until_ready()
        )
        .map(drop)
    }

    /// From here on changes are told to the controllers, after all workloads that are there now. Until then they are told to
    /// nobody, so that a daemon may wait for months.
    pub fn wake(
        &self,
        vaults: mpsc::UnboundedReceiver<Notice<MirrorId>>,
    ) -> (mirror::Triggers, rotation::Triggers) {
        let (mirrors, mirror_triggers) = mpsc::unbounded();
        let (mirrors_of_targets, mirrors_of_target_triggers) = mpsc::unbounded();
        let (grants, grant_triggers) = mpsc::unbounded();
        let (workloads, workload_triggers) = mpsc::unbounded();
        let (workloads_of_targets, workloads_of_target_triggers) = mpsc::unbounded();
        let wakes = self.wakes.get_or_init(|| Wakes {
            mirrors,
            mirrors_of_targets,
            grants,
            workloads,
            workloads_of_targets,
        });
        let all = self.workloads.state();
        send_all(
            &wakes.workloads,
            all.iter()
                .map(|workload| ObjectRef::from_obj(workload.as_ref())),
        );
        (
            mirror::Triggers {
                mirrors: mirror_triggers,
                targets: mirrors_of_target_triggers,
                grants: grant_triggers,
                vaults,
            },
            rotation::Triggers {
                workloads: workload_triggers,
                targets: workloads_of_target_triggers,
            },
        )
    }
}

/// Drops from a cached object what nobody asks of it.
fn trim(object: &mut impl Resource) {
    let metadata = object.meta_mut();
    metadata.managed_fields = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

/// Drops all but what is asked of a Namespace.
fn trim_to_labels(namespace: &mut PartialObjectMeta<Namespace>) {
    namespace.metadata = ObjectMeta {
        name: namespace.metadata.name.take(),
        labels: namespace.metadata.labels.take(),
        ..ObjectMeta::default()
    };
}

/// Drops the same of a mirror, and the room that reading it took and nothing fills.
fn trim_mirror(mirror: &mut KeyVaultMirror) {
    trim(mirror);
    mirror.spec.data.shrink_to_fit();
    if let Some(status) = &mut mirror.status {
        status.conditions.shrink_to_fit();
        status.objects.shrink_to_fit();
    }
}

/// Has the mirrors of some namespaces looked at, whose rights may have changed.
fn wake_mirrors_in(
    wakes: &OnceLock<Wakes>,
    mirrors: &Store<KeyVaultMirror>,
    namespaces: &HashSet<String>,
) {
    let Some(wakes) = wakes.get() else { return };
    let all = mirrors.state();
    let of_them = |mirror: &&Arc<KeyVaultMirror>| {
        let namespace = mirror.metadata.namespace.as_ref();
        namespace.is_some_and(|namespace| namespaces.contains(namespace))
    };
    let mirrors = all.iter().filter(of_them);
    send_all(
        &wakes.mirrors,
        mirrors.map(|mirror| ObjectRef::from_obj(mirror.as_ref())),
    );
}

/// A receiver that is gone means that the daemon ends.
fn send_all<T>(sender: &mpsc::UnboundedSender<T>, items: impl IntoIterator<Item = T>) {
    for item in items {
        let _ = sender.unbounded_send(item);
    }
}

fn warn_of(what: &'static str) -> impl Fn(&watcher::Error) + Send {
    move |error| tracing::warn!(%error, "{what} can't be watched; that is tried again")
}
