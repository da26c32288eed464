//! The list of controllers, and how they are started together.
//!
//! The informers, the events and the Lease are the process' own; what a controller reads and writes
//! besides, it does as its ServiceAccount, whose rights are in the apiserver's bootstrap roles
//! (`bootstrap/controller_roles.rs`).

use std::sync::Arc;

use client::Client;
use client::events::EventRecorder;
use client::service_account::ServiceAccountClients;
use clock::SharedClock;
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::config::Settings;
use crate::controllers;
use crate::controllers::garbage_collector::feed::Feed;
use crate::controllers::garbage_collector::graph::Graph;
use crate::machinery::cache::{Cache, Key};
use crate::machinery::error::During;
use crate::machinery::informer::Synced;
use crate::machinery::kinds::Kinds;
use crate::machinery::pod_control::PodControl;
use crate::machinery::queue::{self, Controller, Requests, Trigger};
use crate::machinery::shared_informers::{Shared, SharedInformers};

mod builder;

use builder::Builder;

/// The metadata graph, and the queues that it triggers, until their controllers take them.
struct SharedGraph {
    graph: Arc<Mutex<Graph>>,
    collector: Option<(Trigger, Requests)>,
    namespaces: Option<(Trigger, Requests)>,
    quotas: Option<(Trigger, Requests)>,
}

/// What the controllers are started with.
pub(crate) struct Wiring {
    /// Acts as the controller that is being started.
    pub client: Client,
    own: Client,
    pub recorder: EventRecorder,
    pub clock: SharedClock,
    pub informers: SharedInformers,
    kinds: Arc<Kinds>,
    /// Whether they are kept up to date: once a controller needs them.
    follows_kinds: bool,
    graph: Option<SharedGraph>,
    stop: CancellationToken,
    ready: watch::Sender<bool>,
    loops: Vec<BoxFuture<'static, ()>>,
    caches: Vec<Synced>,
}

impl Wiring {
    pub fn new(client: Client, clock: SharedClock, stop: CancellationToken) -> Self {
        Self {
            recorder: EventRecorder::new(client.clone(), "controller-manager", ""),
            own: client.clone(),
            client,
            clock,
            informers: SharedInformers::default(),
            kinds: Arc::default(),
            follows_kinds: false,
            graph: None,
            stop,
            ready: watch::Sender::new(false),
            loops: Vec::new(),
            caches: Vec::new(),
        }
    }

    /// Adds a controller; it starts once all caches are filled.
    pub fn run<C: Controller>(&mut self, controller: C, requests: Requests) {
        let stop = self.stop.clone();
        self.loops.push(Box::pin(queue::run(
            Arc::new(controller),
            requests,
            self.ready.subscribe(),
            stop,
        )));
    }

    /// Sends keys to a controller at the start, and whenever `source` changes.
    fn trigger_by<T: Send + Sync + 'static>(
        &mut self,
        mut source: watch::Receiver<T>,
        trigger: Trigger,
        keys: impl Fn() -> Vec<Key> + Send + 'static,
    ) {
        let (stop, mut ready) = (self.stop.clone(), self.ready.subscribe());
        self.loops.push(Box::pin(
            stop.run_until_cancelled_owned(async move {
                if ready.wait_for(|ready| *ready).await.is_err() {
                    return;
                }
                loop {
                    for key in keys() {
                        trigger.send(key).await;
                    }
                    if source.changed().await.is_err() {
                        // Nobody will change it any more.
                        std::future::pending::<()>().await;
                    }
                }
            })
            .map(|_| ()),
        ));
    }

    /// Declares a controller with a queue of its own.
    pub fn controller<C: Controller>(&mut self, controller: C) -> Builder<'_, C> {
        self.controller_with(queue::queue(), controller)
    }

    /// Declares a controller with a queue that something else triggers too.
    pub fn controller_with<C: Controller>(
        &mut self,
        (trigger, requests): (Trigger, Requests),
        controller: C,
    ) -> Builder<'_, C> {
        Builder { wiring: self, controller, trigger, requests }
    }

    /// The objects of a kind.
    pub fn cache<K: Shared>(&self) -> Arc<Cache<K>> {
        K::informer(&self.informers).cache()
    }

    /// What creates and deletes the pods of a controller with events of this component.
    pub fn pod_control(&self, component: &'static str) -> PodControl {
        PodControl::new(self.client.clone(), self.recorder.named(component), self.cache())
    }

    /// The kinds that there are.
    pub fn kinds(&mut self) -> Arc<Kinds> {
        if !std::mem::replace(&mut self.follows_kinds, true) {
            self.caches.push(self.kinds.start(&self.own));
        }
        self.kinds.clone()
    }

    /// The metadata graph, which is filled as soon as one controller needs it.
    fn graph(&mut self) -> &mut SharedGraph {
        let kinds = self.kinds();
        let (own, caches) = (&self.own, &mut self.caches);
        self.graph.get_or_insert_with(|| {
            let (collector, namespaces, quotas) = (queue::queue(), queue::queue(), queue::queue());
            let feed = Feed::new(collector.0.clone(), namespaces.0.clone(), quotas.0.clone());
            caches.extend(feed.start(own, &kinds));
            caches.push(kinds.start_remote(own));
            SharedGraph {
                graph: feed.graph,
                collector: Some(collector),
                namespaces: Some(namespaces),
                quotas: Some(quotas),
            }
        })
    }

    /// Runs everything until `stop`, then finishes the running reconciliations.
    async fn finish(mut self) -> Result<(), Error> {
        // The queues of controllers that do not run must not fill up.
        self.graph = None;
        let mut caches = JoinSet::new();
        let mut synced = Vec::new();
        let informers = self.informers.start(&self.own);
        for (informer, is_synced) in informers.into_iter().chain(self.caches) {
            caches.spawn(informer);
            synced.push(is_synced);
        }
        let mut loops: JoinSet<()> = JoinSet::new();
        for task in self.loops {
            loops.spawn(task);
        }
        if all_synced(synced, &self.stop).await {
            tracing::info!("caches are filled; starting the controllers");
            self.ready.send_replace(true);
        }
        // Neither ends before `stop` unless it panics; the others must not continue with stale
        // caches then.
        let died = tokio::select! {
            Some(_) = caches.join_next() => Some(Error::Died("an informer")),
            Some(_) = loops.join_next() => Some(Error::Died("a controller's loop")),
            () = self.stop.cancelled() => None,
        };
        let died = died.filter(|_| !self.stop.is_cancelled());
        self.stop.cancel();
        while loops.join_next().await.is_some() {}
        died.map_or(Ok(()), Err)
    }
}

/// Returns false if `stop` was cancelled first or an informer has ended.
async fn all_synced(synced: Vec<watch::Receiver<bool>>, stop: &CancellationToken) -> bool {
    for mut one in synced {
        let synced = tokio::select! {
            () = stop.cancelled() => false,
            waited = one.wait_for(|synced| *synced) => waited.is_ok(),
        };
        if !synced {
            return false;
        }
    }
    true
}

/// One controller: its name for `--controllers`, its ServiceAccount, and how it is started.
struct Row {
    name: &'static str,
    account: &'static str,
    start: fn(&mut Wiring, &Settings),
}

const fn row(name: &'static str, account: &'static str, start: fn(&mut Wiring, &Settings)) -> Row {
    Row { name, account, start }
}

/// All controllers, with Kubernetes' names (`k8s.io/kubernetes/cmd/kube-controller-manager/names`); it
/// has the local-path provisioner and the approver of serving certificates beside it.
#[rustfmt::skip]
const CONTROLLERS: &[Row] = &[
    row("serviceaccount-controller", "service-account-controller", |wiring, _| controllers::service_account::start(wiring)),
    row("root-ca-certificate-publisher-controller", "root-ca-cert-publisher", start_root_ca),
    row("kube-apiserver-serving-clustertrustbundle-publisher-controller", "kube-apiserver-serving-clustertrustbundle-publisher", start_trust_bundle),
    row("certificatesigningrequest-signing-controller", "certificate-controller", start_signing),
    row("certificatesigningrequest-approving-controller", "certificate-controller", |wiring, _| controllers::certificates::approve::start(wiring)),
    row("certificatesigningrequest-cleaner-controller", "certificate-controller", |wiring, settings| controllers::certificates::clean::start(wiring, settings.approve_kubelet_serving_certificates)),
    row("podcertificaterequest-cleaner-controller", "podcertificaterequestcleaner", |wiring, _| controllers::certificates::clean_pods::start(wiring)),
    row("kubelet-serving-certificate-approver-controller", "kubelet-serving-certificate-approver", start_serving_approval),
    row("token-cleaner-controller", "token-cleaner", |wiring, _| controllers::bootstrap::start_cleaner(wiring)),
    row("bootstrap-signer-controller", "bootstrap-signer", |wiring, _| controllers::bootstrap::start_signer(wiring)),
    row("node-ipam-controller", "node-controller", start_node_ipam),
    row("replicaset-controller", "replicaset-controller", |wiring, _| controllers::replicaset::start::<ReplicaSet>(wiring)),
    row("replicationcontroller-controller", "replication-controller", |wiring, _| controllers::replicaset::start::<ReplicationController>(wiring)),
    row("deployment-controller", "deployment-controller", |wiring, _| controllers::deployment::start(wiring)),
    row("daemonset-controller", "daemon-set-controller", |wiring, _| controllers::daemonset::start(wiring)),
    row("job-controller", "job-controller", |wiring, _| controllers::job::start(wiring)),
    row("statefulset-controller", "statefulset-controller", |wiring, _| controllers::statefulset::start(wiring)),
    row("cronjob-controller", "cronjob-controller", |wiring, _| controllers::cronjob::start(wiring)),
    row("ttl-after-finished-controller", "ttl-after-finished-controller", |wiring, _| controllers::ttl_after_finished::start(wiring)),
    row("horizontal-pod-autoscaler-controller", "horizontal-pod-autoscaler", |wiring, _| controllers::horizontal_pod_autoscaler::start(wiring)),
    row("disruption-controller", "disruption-controller", |wiring, _| controllers::disruption::start(wiring)),
    row("persistentvolumeclaim-protection-controller", "pvc-protection-controller", |wiring, _| controllers::storage_protection::start_claims(wiring)),
    row("persistentvolume-protection-controller", "pv-protection-controller", |wiring, _| controllers::storage_protection::start_volumes(wiring)),
    row("persistentvolume-binder-controller", "persistent-volume-binder", |wiring, _| controllers::persistent_volume::start(wiring)),
    row("persistentvolume-expander-controller", "expand-controller", |wiring, _| controllers::volume_expand::start(wiring)),
    row("local-path-provisioner-controller", "local-path-provisioner", |wiring, _| controllers::local_path::start(wiring)),
    row("ephemeral-volume-controller", "ephemeral-volume-controller", |wiring, _| controllers::ephemeral_volume::start(wiring)),
    row("service-cidr-controller", "service-cidrs-controller", |wiring, _| controllers::service_cidr::start(wiring)),
    row("resourceclaim-controller", "resource-claim-controller", |wiring, _| controllers::resource_claim::start(wiring)),
    row("storage-version-migrator-controller", "storage-version-migrator-controller", |wiring, _| controllers::storage_version_migrator::start(wiring)),
    row("validatingadmissionpolicy-status-controller", "validatingadmissionpolicy-status-controller", |wiring, _| controllers::validating_admission_policy_status::start(wiring)),
    row("clusterrole-aggregation-controller", "clusterrole-aggregation-controller", |wiring, _| controllers::clusterrole_aggregation::start(wiring)),
    row("endpointslice-controller", "endpointslice-controller", |wiring, _| controllers::endpointslice::start(wiring)),
    row("endpoints-controller", "endpoint-controller", |wiring, _| controllers::endpoints::start(wiring)),
    row("endpointslice-mirroring-controller", "endpointslicemirroring-controller", |wiring, _| controllers::endpointslice_mirroring::start(wiring)),
    row("node-lifecycle-controller", "node-controller", |wiring, settings| controllers::node_lifecycle::start(wiring, settings.node_monitor)),
    row("taint-eviction-controller", "node-controller", |wiring, _| controllers::taint_eviction::start(wiring)),
    row("pod-garbage-collector-controller", "pod-garbage-collector", |wiring, settings| controllers::pod_gc::start(wiring, settings.terminated_pod_gc_threshold)),
    row("service-lb-controller", "service-controller", |wiring, settings| controllers::service_load_balancer::start(wiring, settings.load_balancer.clone())),
    row("resourcequota-controller", "resourcequota-controller", start_quotas),
    row("garbage-collector-controller", "generic-garbage-collector", start_garbage_collector),
    row("namespace-controller", "namespace-controller", start_namespaces),
];

/// Controllers that `*` does not select, as upstream.
pub const ONLY_BY_NAME: &[&str] = &["token-cleaner-controller", "bootstrap-signer-controller"];

/// Namespace of the controllers' ServiceAccounts.
const ACCOUNTS: &str = "kube-system";

/// The names of all controllers.
pub fn names() -> impl Iterator<Item = &'static str> {
    CONTROLLERS.iter().map(|row| row.name)
}

/// Runs every selected controller until `stop`.
///
/// # Errors
/// When the server's address is invalid, or an informer or a controller's loop ends unexpectedly.
pub async fn run(
    client: Client,
    settings: Settings,
    clock: SharedClock,
    stop: CancellationToken,
) -> Result<(), Error> {
    let accounts = settings
        .use_service_account_credentials
        .then(|| ServiceAccountClients::new(&client, ACCOUNTS))
        .transpose()
        .during(|| "connect for the ServiceAccounts of the controllers".into())?;
    let mut wiring = Wiring::new(client.clone(), clock, stop);
    for row in CONTROLLERS.iter().filter(|row| settings.runs(row.name)) {
        if let Some(accounts) = &accounts {
            wiring.client = accounts.client(row.account);
        }
        (row.start)(&mut wiring, &settings);
    }
    wiring.finish().await
}

fn start_root_ca(wiring: &mut Wiring, settings: &Settings) {
    if let Some(pem) = settings.root_ca.clone() {
        controllers::root_ca::start(wiring, pem);
    }
}

fn start_trust_bundle(wiring: &mut Wiring, settings: &Settings) {
    if let Some(pem) = settings.root_ca.clone() {
        controllers::trust_bundle::start(wiring, pem);
    }
}

fn start_signing(wiring: &mut Wiring, settings: &Settings) {
    if !settings.signing.signers.is_empty() {
        controllers::certificates::sign::start(wiring, settings.signing.clone());
    }
}

fn start_serving_approval(wiring: &mut Wiring, settings: &Settings) {
    if settings.approve_kubelet_serving_certificates {
        controllers::certificates::serving::start(wiring);
    }
}

fn start_node_ipam(wiring: &mut Wiring, settings: &Settings) {
    if !settings.cluster_cidrs.is_empty() {
        controllers::nodeipam::start(wiring, settings.cluster_cidrs.clone());
    }
}

fn start_quotas(wiring: &mut Wiring, _: &Settings) {
    let shared = wiring.graph();
    if let (graph, Some(queue)) = (shared.graph.clone(), shared.quotas.take()) {
        controllers::resource_quota::start(wiring, graph, queue);
    }
}

fn start_garbage_collector(wiring: &mut Wiring, _: &Settings) {
    let shared = wiring.graph();
    if let (graph, Some(queue)) = (shared.graph.clone(), shared.collector.take()) {
        controllers::garbage_collector::start(wiring, graph, queue);
    }
}

fn start_namespaces(wiring: &mut Wiring, _: &Settings) {
    if let Some(queue) = wiring.graph().namespaces.take() {
        controllers::namespace::start(wiring, queue);
    }
}

#[cfg(test)]
mod tests;
