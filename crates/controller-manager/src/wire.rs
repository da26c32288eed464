//! The list of controllers, and how they are started together.

use std::sync::Arc;

use client::Client;
use client::events::EventRecorder;
use clock::SharedClock;
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::config::Settings;
use crate::controllers;
use crate::controllers::garbage_collector::feed::Feed;
use crate::machinery::informer::Synced;
use crate::machinery::queue::{self, Controller, Requests};
use crate::machinery::shared_informers::SharedInformers;

/// What the controllers are started with.
pub(crate) struct Wiring {
    pub client: Client,
    pub recorder: EventRecorder,
    pub clock: SharedClock,
    pub informers: SharedInformers,
    stop: CancellationToken,
    ready: watch::Sender<bool>,
    loops: Vec<BoxFuture<'static, ()>>,
    caches: Vec<Synced>,
}

impl Wiring {
    pub fn new(client: Client, clock: SharedClock, stop: CancellationToken) -> Self {
        Self {
            recorder: EventRecorder::new(client.clone(), "controller-manager", ""),
            client,
            clock,
            informers: SharedInformers::default(),
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

    /// Adds caches besides the shared informers; controllers wait for them too.
    pub fn keep(&mut self, caches: Vec<Synced>) {
        self.caches.extend(caches);
    }

    /// Runs everything until `stop`, then finishes the running reconciliations.
    async fn finish(self) -> Result<(), Error> {
        let mut caches = JoinSet::new();
        let mut synced = Vec::new();
        let informers = self.informers.start(&self.client);
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

/// Runs every controller until `stop`.
///
/// # Errors
/// When an informer or a controller's loop ends unexpectedly.
pub async fn run(
    client: Client,
    settings: Settings,
    clock: SharedClock,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut wiring = Wiring::new(client, clock, stop);
    controllers::service_account::start(&mut wiring);
    if let Some(pem) = settings.root_ca_pem.clone() {
        controllers::root_ca::start(&mut wiring, pem);
    }
    if !settings.cluster_cidrs.is_empty() {
        controllers::nodeipam::start(&mut wiring, settings.cluster_cidrs.clone());
    }
    controllers::replicaset::start::<ReplicaSet>(&mut wiring);
    controllers::replicaset::start::<ReplicationController>(&mut wiring);
    controllers::deployment::start(&mut wiring);
    controllers::daemonset::start(&mut wiring);
    controllers::job::start(&mut wiring);
    controllers::statefulset::start(&mut wiring);
    controllers::cronjob::start(&mut wiring);
    controllers::ttl_after_finished::start(&mut wiring);
    controllers::disruption::start(&mut wiring);
    controllers::storage_protection::start(&mut wiring);
    controllers::persistent_volume::start(&mut wiring);
    controllers::ephemeral_volume::start(&mut wiring);
    controllers::clusterrole_aggregation::start(&mut wiring);
    controllers::endpointslice::start(&mut wiring);
    controllers::endpoints::start(&mut wiring);
    controllers::endpointslice_mirroring::start(&mut wiring);
    controllers::node_lifecycle::start(&mut wiring, settings.node_monitor_grace_period);
    controllers::taint_eviction::start(&mut wiring);
    controllers::pod_gc::start(&mut wiring, settings.terminated_pod_gc_threshold);
    start_collection(&mut wiring);
    wiring.finish().await
}

/// Starts the controllers that share the metadata graph.
fn start_collection(wiring: &mut Wiring) {
    let (collector, namespaces, quotas) = (queue::queue(), queue::queue(), queue::queue());
    let feed = Feed::new(collector.0.clone(), namespaces.0.clone(), quotas.0.clone());
    wiring.keep(feed.start(&wiring.client));
    controllers::resource_quota::start(wiring, feed.graph.clone(), quotas);
    controllers::garbage_collector::start(wiring, feed.graph, collector);
    controllers::namespace::start(wiring, namespaces);
}
