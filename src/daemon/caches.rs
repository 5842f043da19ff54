//! What the daemon knows of the cluster.

mod akv2k8s;
mod served;
mod sources;
mod targets;
mod workloads;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use futures::channel::mpsc;
use futures::future::OptionFuture;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::store::WriterDropped;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Config, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::Notify;

pub use self::sources::Versions;
use self::sources::{watch_classes, watch_versions};
use self::targets::watch_targets;
use self::workloads::watch_workloads;
use crate::api::{KeyVaultGrant, KeyVaultMirror, RotationPolicy};
use crate::mirror::akv2k8s::is_in_place;
use crate::mirror::{self, MirrorId, Target, TargetName, TargetStores, USE_LABEL, mirrors_of};
use crate::rotation::{self, Class, Flights, ROTATE, Source, Workload, WorkloadKind, Workloads};
use crate::telemetry::Metrics;
use crate::vault::Notice;
use crate::watch::{Change, Index, beside, follow, new_store};

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
    pub targets: TargetStores,
    pub workloads: Workloads,
    pub flights: Flights,
    pub policies: Store<RotationPolicy>,
    pub classes: Store<Class>,
    /// Versions of all Secrets and ConfigMaps; none where only mirrored ones are watched.
    pub versions: Option<Versions>,
    wakes: Arc<OnceLock<Wakes>>,
}

/// Where changes are told to the controllers.
struct Wakes {
    mirrors: mpsc::UnboundedSender<ObjectRef<KeyVaultMirror>>,
    mirrors_of_targets: mpsc::UnboundedSender<ObjectRef<KeyVaultMirror>>,
    grants: mpsc::UnboundedSender<()>,
    policies: mpsc::UnboundedSender<ObjectRef<RotationPolicy>>,
    /// By kind.
    workloads: [mpsc::UnboundedSender<ObjectRef<Workload>>; WorkloadKind::ALL.len()],
}

impl Wakes {
    fn workloads(&self, workloads: impl IntoIterator<Item = ObjectRef<Workload>>) {
        for workload in workloads {
            send_all(&self.workloads[workload.dyntype as usize], [workload]);
        }
    }
}

impl Caches {
    /// Empty caches, and the watches that fill them for as long as they are polled. Of rotations, at most `max_rotations` are to be under way at once.
    /// With `akv2k8s`, its resources are mirrors too, and those that are none are counted there.
    pub fn new(
        client: &Client,
        service_accounts: bool,
        config_maps: bool,
        watch_all: bool,
        max_rotations: usize,
        akv2k8s: Option<Arc<Metrics>>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (mirrors, mirrors_writer) = new_store();
        let (grants, grants_writer) = new_store();
        let (namespaces, namespaces_writer) = new_store();
        let (accounts, accounts_writer) = new_store();
        let (targets, target_writers) = TargetStores::new(config_maps);
        let (policies, policies_writer) = new_store();
        let (workloads, workload_writers) = Workloads::new();
        let (classes, classes_writer) = new_store();
        let (versions, version_writers) = Versions::new();
        let caches = Self {
            mirrors,
            mirrors_by_target: Index::new((), |mirror: &KeyVaultMirror| {
                HashSet::from([TargetName::of(&mirror.spec.target).to_string()])
            }),
            mirrors_touched: Arc::default(),
            grants,
            namespaces,
            accounts: service_accounts.then_some(accounts),
            targets,
            workloads,
            flights: Flights::new(max_rotations),
            policies,
            classes,
            versions: watch_all.then_some(versions),
            wakes: Arc::default(),
        };

        let (wakes, index, touched) = (
            Arc::clone(&caches.wakes),
            caches.mirrors_by_target.clone(),
            Arc::clone(&caches.mirrors_touched),
        );
        let (in_place, read_in_place) = mpsc::unbounded();
        let watch_in_place =
            akv2k8s.map(|metrics| akv2k8s::watch(client.clone(), metrics, in_place));
        let watch_in_place = OptionFuture::from(watch_in_place);
        let watch_mirrors = follow(
            beside(
                watcher(
                    Api::<KeyVaultMirror>::all(client.clone()),
                    Config::default().page_size(PAGE),
                )
                .modify(trim_mirror),
                read_in_place,
                caches.mirrors.clone(),
                is_in_place,
            ),
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
        let workloads = caches.workloads.clone();
        let watch_namespaces = follow(
            watcher(
                Api::<PartialObjectMeta<Namespace>>::all(client.clone()),
                Config::default(),
            )
            .modify(trim_namespace),
            namespaces_writer,
            move |change| {
                let names = change.objects().map(ResourceExt::name_any).collect();
                wake_mirrors_in(&wakes, &mirrors, &names);
                wake_workloads_in(&wakes, &workloads, &names);
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
        let (wakes, workloads) = (Arc::clone(&caches.wakes), caches.workloads.clone());
        let classes = caches.classes.clone();
        let used = move |namespace: &str, source: &Source| {
            let Some(wakes) = wakes.get() else { return };
            wakes.workloads(workloads.using(namespace, source));
            for class in sources::classes_of(&classes, namespace, source) {
                wakes.workloads(workloads.using(namespace, &class));
            }
        };
        let (wakes, used_target) = (Arc::clone(&caches.wakes), used.clone());
        let (by_target, mirrors) = (caches.mirrors_by_target.clone(), caches.mirrors.clone());
        let watch_targets = watch_targets(
            client.clone(),
            target_writers,
            move |kind, change: Change<'_, Target>| {
                let Some(wakes) = wakes.get() else { return };
                if matches!(change, Change::Listed(_)) {
                    // Those whose target went meanwhile are not told of otherwise.
                    let all = mirrors.state();
                    let all = all.iter().map(|mirror| ObjectRef::from_obj(&**mirror));
                    send_all(&wakes.mirrors_of_targets, all);
                }
                for target in change.objects() {
                    // One that has no part in it yet may wait for what others put there.
                    let name = TargetName::new(kind, &target.name).to_string();
                    let mut mirrors = by_target.get(&target.namespace, &name);
                    mirrors.extend(mirrors_of(target));
                    send_all(&wakes.mirrors_of_targets, mirrors);
                    used_target(&target.namespace, &Source::of_target(kind, &target.name));
                }
            },
        );
        let (wakes, workloads) = (Arc::clone(&caches.wakes), caches.workloads.clone());
        let flights = caches.flights.clone();
        let watch_workloads =
            watch_workloads(client.clone(), workload_writers, move |kind, change| {
                workloads.follow(kind, &change);
                let next = flights.follow(kind, &change);
                if let Some(wakes) = wakes.get() {
                    wakes.workloads(change.objects().map(Workload::reference));
                    wakes.workloads(next.iter().map(|id| id.reference()));
                }
            });
        let (wakes, workloads) = (Arc::clone(&caches.wakes), caches.workloads.clone());
        let watch_policies = follow(
            watcher(
                Api::<RotationPolicy>::all(client.clone()),
                Config::default(),
            )
            .modify(trim),
            policies_writer,
            move |change: Change<'_, RotationPolicy>| {
                let Some(wakes) = wakes.get() else { return };
                for policy in change.objects().map(ObjectRef::from_obj) {
                    let namespace = policy.namespace.clone().unwrap_or_default();
                    wakes.workloads(workloads.under(&namespace, &policy.name));
                    send_all(&wakes.policies, [policy]);
                }
            },
            warn_of("RotationPolicies"),
        );
        let watch_classes = watch_classes(client.clone(), classes_writer, used.clone());
        let watch_versions =
            watch_all.then(|| watch_versions(client.clone(), version_writers, used));
        let watch_versions = OptionFuture::from(watch_versions);
        let watches = async move {
            futures::join!(
                watch_mirrors,
                watch_in_place,
                watch_grants,
                watch_namespaces,
                watch_accounts,
                watch_targets,
                watch_workloads,
                watch_classes,
                watch_versions,
                watch_policies
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
            self.workloads.wait_until_ready(),
            self.policies.wait_until_ready(),
            self.classes.wait_until_ready(),
            async {
                match &self.versions {
                    Some(versions) => versions.wait_until_ready().await,
                    None => Ok(()),
                }
            }
        )
        .map(drop)
    }

    /// From here on changes are told to the controllers, after all workloads that are there now. Until then they are told to
    /// nobody, so that a daemon may wait for months.
    pub fn wake(
        &self,
        vaults: mpsc::UnboundedReceiver<Notice<MirrorId>>,
        reverts: mpsc::UnboundedReceiver<(String, TargetName)>,
    ) -> (mirror::Triggers, rotation::Triggers) {
        let (mirrors, mirror_triggers) = mpsc::unbounded();
        let (mirrors_of_targets, mirrors_of_target_triggers) = mpsc::unbounded();
        let (grants, grant_triggers) = mpsc::unbounded();
        let (policies, policy_triggers) = mpsc::unbounded();
        let mut workload_triggers = Vec::new();
        let workloads = WorkloadKind::ALL.map(|kind| {
            let (sender, receiver) = mpsc::unbounded();
            workload_triggers.push((kind, receiver));
            sender
        });
        let wakes = self.wakes.get_or_init(|| Wakes {
            mirrors,
            mirrors_of_targets,
            grants,
            policies,
            workloads,
        });
        wakes.workloads(self.workloads.all().map(|it| it.reference()));
        let all = self.policies.state();
        send_all(
            &wakes.policies,
            all.iter()
                .map(|policy| ObjectRef::from_obj(policy.as_ref())),
        );
        (
            mirror::Triggers {
                mirrors: mirror_triggers,
                targets: mirrors_of_target_triggers,
                grants: grant_triggers,
                vaults,
                reverts,
            },
            rotation::Triggers {
                workloads: workload_triggers,
                policies: policy_triggers,
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

/// Drops the same of a mirror, and the room that reading it took and nothing fills.
fn trim_mirror(mirror: &mut KeyVaultMirror) {
    trim(mirror);
    mirror.spec.data.shrink_to_fit();
    if let Some(status) = &mut mirror.status {
        status.conditions.shrink_to_fit();
        status.objects.shrink_to_fit();
    }
}

/// Drops all but what is asked of a Namespace: whether it is being deleted, labels for grants, and the default of its workloads.
fn trim_namespace(namespace: &mut PartialObjectMeta<Namespace>) {
    namespace.metadata = ObjectMeta {
        name: namespace.metadata.name.take(),
        deletion_timestamp: namespace.metadata.deletion_timestamp.take(),
        labels: namespace.metadata.labels.take(),
        annotations: namespace
            .metadata
            .annotations
            .take()
            .map(|mut annotations| {
                annotations.retain(|name, _| name == ROTATE);
                annotations
            }),
        ..ObjectMeta::default()
    };
}

/// Has the mirrors of some namespaces looked at, whose rights may have changed.
fn wake_mirrors_in(
    wakes: &OnceLock<Wakes>,
    mirrors: &Store<KeyVaultMirror>,
    namespaces: &HashSet<String>,
) {
    let Some(wakes) = wakes.get() else { return };
    let all = mirrors.state();
    let mirrors = all.iter().filter(|it| is_in(&it.metadata, namespaces));
    send_all(
        &wakes.mirrors,
        mirrors.map(|mirror| ObjectRef::from_obj(mirror.as_ref())),
    );
}

/// Has the workloads of some namespaces looked at, which may have opted in.
fn wake_workloads_in(wakes: &OnceLock<Wakes>, workloads: &Workloads, namespaces: &HashSet<String>) {
    let Some(wakes) = wakes.get() else { return };
    let workloads = workloads.all().filter(|it| is_in(&it.metadata, namespaces));
    wakes.workloads(workloads.map(|it| it.reference()));
}

fn is_in(metadata: &ObjectMeta, namespaces: &HashSet<String>) -> bool {
    let namespace = metadata.namespace.as_ref();
    namespace.is_some_and(|namespace| namespaces.contains(namespace))
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
