//! Gives Services of type LoadBalancer their addresses: from a pool, which the proxies announce, or
//! the nodes' own (`k8s.io/cloud-provider/controllers/service`, and the provider behind it).
//!
//! Reconciliations run one at a time, and an address stays allocated until its Service is gone, so
//! that a stale cache never causes an address to be assigned twice. A Service that gets none waits
//! until another one gives up its own, or the request changes.

mod allocations;
mod change;
mod plan;
mod request;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use client::events::EventRecorder;
use client::{Api, Client, PatchKind};
use clock::SharedClock;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use parking_lot::Mutex;
use serde_json::json;

use crate::Error;
use crate::config::{AddressSource, LoadBalancerAddresses};
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::error::During;
use crate::machinery::owner::none_if_empty;
use crate::machinery::queue::{Controller, Next, Trigger, queue};
use crate::machinery::shared_informers::of_service;
use crate::wire::Wiring;
use allocations::Allocations;
use plan::{
    cleaned, ensured, has_finalizer, is_available, is_ours, needs_cleanup, node_addresses,
    own_addresses, wants,
};
use request::{Refusal, Request};

struct ServiceLoadBalancer {
    client: Client,
    recorder: EventRecorder,
    clock: SharedClock,
    services: Arc<Cache<Service>>,
    nodes: Arc<Cache<Node>>,
    slices: Arc<Cache<EndpointSlice>>,
    /// `None`: it assigns no addresses, and only takes back those that were assigned before.
    settings: Option<LoadBalancerAddresses>,
    /// Its own queue, for Services that waited for an address.
    trigger: Trigger,
    /// `None` until the addresses that Services have are known.
    state: Mutex<Option<State>>,
}

struct State {
    allocations: Allocations,
    /// Services without an address that want one.
    waiting: BTreeSet<Key>,
    /// Services with an address, as they were when it was written.
    ensured: BTreeMap<Key, Arc<Service>>,
}

/// Adds the controller; its keys are Services. Without settings it runs as well: whoever removes
/// them would otherwise be left with Services that can never be deleted.
pub fn start(wiring: &mut Wiring, settings: Option<LoadBalancerAddresses>) {
    let queue = queue();
    let recorder = wiring.recorder.named("service-controller");
    let record = settings.is_some().then(|| recorder.clone());
    let concerned = move |change: &Change<Service>| {
        if let (Some(record), Some(old), Some(new)) = (&record, &change.old, &change.new)
            && let Some((reason, message)) = change::event(old, new)
        {
            record.normal(&**new, reason, message);
        }
        change.sides().any(|service| wants(service) || has_finalizer(service))
    };
    let source = settings.as_ref().map_or(AddressSource::Pool, |settings| settings.source);
    let ranges = settings.as_ref().map(|settings| settings.ranges.clone()).unwrap_or_default();
    let services = wiring.cache::<Service>();
    let of_node = move |change: &Change<Node>| {
        let addresses = |node: &Arc<Node>| is_available(node).then(|| plan::addresses(node));
        let pooled = |node: &Arc<Node>| -> Vec<IpAddr> {
            let pooled = |ip: &IpAddr| ranges.iter().any(|range| range.contains(ip));
            own_addresses(node).filter(pooled).collect()
        };
        let [old, new] = [&change.old, &change.new].map(Option::as_ref);
        let available = old.and_then(addresses) != new.and_then(addresses);
        let reserved = old.map(pooled).unwrap_or_default() != new.map(pooled).unwrap_or_default();
        if !available && !reserved {
            return Vec::new();
        }
        services.keys(|service| (reserved && wants(service)) || uses_nodes(service, source))
    };
    let services = wiring.cache::<Service>();
    let of_slice = move |change: &Change<EndpointSlice>| {
        let keys = change.sides().filter_map(|slice| {
            let key = crate::controllers::endpointslice::service_of(slice)?;
            let service = services.get(&key)?;
            let policy = service.spec.as_ref()?.external_traffic_policy.as_deref();
            (policy == Some("Local") && uses_nodes(&service, source)).then_some(key)
        });
        keys.collect::<Vec<_>>()
    };
    let controller = ServiceLoadBalancer {
        client: wiring.client.clone(),
        recorder,
        clock: wiring.clock.clone(),
        services: wiring.cache(),
        nodes: wiring.cache(),
        slices: wiring.cache(),
        settings,
        trigger: queue.0.clone(),
        state: Mutex::new(None),
    };
    wiring
        .controller_with(queue, controller)
        .of_some(concerned)
        .maps(of_node)
        .maps(of_slice)
        .start();
}

/// Whether the Service gets the nodes' own addresses.
fn uses_nodes(service: &Service, default: AddressSource) -> bool {
    let request = Request::of(service, default);
    wants(service) && request.is_ok_and(|request| request.source == AddressSource::Nodes)
}

/// The addresses in the status.
fn status_addresses(service: &Service) -> Vec<IpAddr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.into_iter().flat_map(|balancer| balancer.ingress.iter().flatten());
    ingress.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}

impl State {
    /// Of two Services that have the same address, the older one keeps it.
    fn new(
        ranges: &[ipnet::IpNet],
        source: AddressSource,
        mut services: Vec<Arc<Service>>,
    ) -> Self {
        services.sort_by(|one, other| {
            let age = |service: &Service| {
                let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
                (created, service.metadata.uid.clone())
            };
            age(one).cmp(&age(other))
        });
        let mut allocations = Allocations::new(ranges.to_vec());
        for service in services.iter().filter(|service| wants(service)) {
            if let Ok(request) = Request::of(service, source) {
                allocations.adopt(&Key::of(&**service), &request, &status_addresses(service));
            }
        }
        Self { allocations, waiting: BTreeSet::new(), ensured: BTreeMap::new() }
    }
}

impl ServiceLoadBalancer {
    /// The addresses of the Service at `key`, and whether others may now get what it had. `None`:
    /// it does not want any.
    fn allocate(
        &self,
        settings: &LoadBalancerAddresses,
        key: &Key,
        service: Option<&Service>,
    ) -> (Option<Result<Vec<IpAddr>, Refusal>>, bool) {
        let mut state = self.state.lock();
        let state = state.get_or_insert_with(|| {
            State::new(&settings.ranges, settings.source, self.services.list())
        });
        state.waiting.remove(key);
        let nodes = self.nodes.list();
        state.allocations.reserve(nodes.iter().flat_map(|node| own_addresses(node)));
        let before = state.allocations.occupied(key);
        let outcome = service.filter(|service| wants(service)).map(|service| {
            let request = Request::of(service, settings.source);
            request.and_then(|request| {
                let addresses = state.allocations.allocate(key, &request)?;
                match request.source {
                    AddressSource::Pool => Ok(addresses),
                    AddressSource::Nodes => self.of_nodes(key, service),
                }
            })
        });
        match &outcome {
            None | Some(Err(Refusal::Invalid(..))) => {
                state.allocations.release(key);
                state.ensured.remove(key);
            }
            Some(Err(_)) => {
                state.waiting.insert(key.clone());
            }
            Some(Ok(_)) => {}
        }
        (outcome, before.is_some() && before != state.allocations.occupied(key))
    }

    fn of_nodes(&self, key: &Key, service: &Service) -> Result<Vec<IpAddr>, Refusal> {
        let nodes = self.nodes.list();
        let slices = self.slices.indexed(&of_service(&key.namespace, &key.name));
        node_addresses(service, nodes.iter().map(|node| &**node), &slices)
    }

    /// Reconciles the Services that wait for an address, the oldest first.
    async fn wake_waiting(&self) {
        let waiting = match &mut *self.state.lock() {
            Some(state) => std::mem::take(&mut state.waiting),
            None => return,
        };
        let services = waiting.iter().filter_map(|key| self.services.get(key));
        let mut services: Vec<Arc<Service>> = services.collect();
        services.sort_by_key(|service| service.metadata.creation_timestamp.clone());
        for service in services {
            self.trigger.send(Key::of(&*service)).await;
        }
    }

    /// Writes finalizers and status of `changed`, a copy of the Service. Both are in one write, so
    /// that a Service never has an address without the finalizer.
    async fn write(&self, service: &Service, changed: &Service) -> Result<(), Error> {
        let key = Key::of(service);
        let status = changed.status.clone().unwrap_or_default();
        let balancer = status.load_balancer.unwrap_or_default();
        let patch = json!({
            "metadata": {
                "uid": service.metadata.uid,
                "resourceVersion": service.metadata.resource_version,
                "finalizers": changed.metadata.finalizers.clone().and_then(none_if_empty),
            },
            "status": {
                "loadBalancer": {"ingress": balancer.ingress},
                "conditions": status.conditions.and_then(none_if_empty),
            },
        });
        let services = Api::<Service>::namespaced(&self.client, &key.namespace);
        let written = services.patch_status(&key.name, PatchKind::Merge, &patch).await;
        written.during(|| format!("write the status of service {key}")).map(drop)
    }

    /// Whether the Service is as it was when its addresses were written, so that they can change
    /// only because of the nodes.
    fn is_unchanged(&self, service: &Service) -> bool {
        let state = self.state.lock();
        let last = state.as_ref().and_then(|state| state.ensured.get(&Key::of(service)));
        last.is_some_and(|last| {
            last.spec == service.spec && last.metadata.annotations == service.metadata.annotations
        })
    }

    fn remember(&self, service: &Arc<Service>, has_addresses: bool) {
        if let Some(state) = &mut *self.state.lock() {
            let key = Key::of(&**service);
            if has_addresses {
                state.ensured.insert(key, service.clone());
            } else {
                state.ensured.remove(&key);
            }
        }
    }

    async fn ensure(
        &self,
        service: &Arc<Service>,
        outcome: Result<Vec<IpAddr>, Refusal>,
    ) -> Result<(), Error> {
        let wanted = ensured(service, &outcome, self.clock.now());
        if wanted == **service {
            self.remember(service, outcome.is_ok());
            return Ok(());
        }
        if outcome.is_ok() && self.is_unchanged(service) {
            self.write(service, &wanted).await?;
            let message = "Updated load balancer with new hosts";
            self.recorder.normal(&**service, "UpdatedLoadBalancer", message);
            return Ok(());
        }
        self.recorder.normal(&**service, "EnsuringLoadBalancer", "Ensuring load balancer");
        if !self.nodes.list().iter().any(|node| is_available(node)) {
            let message = "There are no available nodes for LoadBalancer";
            self.recorder.warning(&**service, "UnAvailableLoadBalancer", message);
        }
        self.write(service, &wanted).await?;
        self.remember(service, outcome.is_ok());
        match outcome {
            Ok(addresses) => {
                tracing::info!(service = %Key::of(&**service), ?addresses, "assigned addresses");
                self.recorder.normal(&**service, "EnsuredLoadBalancer", "Ensured load balancer");
            }
            Err(refusal) => {
                let message = format!(
                    "Error syncing load balancer: failed to ensure load balancer: {refusal}"
                );
                self.recorder.warning(&**service, "SyncLoadBalancerFailed", message);
            }
        }
        Ok(())
    }

    async fn clean_up(&self, service: &Service) -> Result<(), Error> {
        self.recorder.normal(service, "DeletingLoadBalancer", "Deleting load balancer");
        self.write(service, &cleaned(service)).await?;
        self.recorder.normal(service, "DeletedLoadBalancer", "Deleted load balancer");
        Ok(())
    }
}

impl Controller for ServiceLoadBalancer {
    const NAME: &'static str = "service-lb";
    const CONCURRENCY: usize = 1;

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let service = self.services.get(key);
        // The address is free for others once nobody reads it in this Service's status.
        let cleanup = |service: &&Service| {
            needs_cleanup(service) && (self.settings.is_some() || is_ours(service))
        };
        if let Some(service) = service.as_deref().filter(cleanup) {
            self.clean_up(service).await?;
        }
        let Some(settings) = &self.settings else { return Ok(Next::Change) };
        let (outcome, freed) = self.allocate(settings, key, service.as_deref());
        if let Some((service, outcome)) = service.zip(outcome) {
            self.ensure(&service, outcome).await?;
        }
        if freed {
            self.wake_waiting().await;
        }
        Ok(Next::Change)
    }
}
