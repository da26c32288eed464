//! EndpointSlices of the services that select pods
//! (`k8s.io/kubernetes/pkg/controller/endpointslice`).
//!
//! Every load balancer reads these. The conditions of an endpoint change as soon as its pod becomes
//! ready, stops being ready or starts terminating.

pub mod endpoint;
pub mod pack;
#[cfg(test)]
mod tests;
pub mod trigger_time;
pub mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::labels::Selector;
use client::events::EventRecorder;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::Error;
use crate::machinery::cache::{Cache, Change, Key};
use crate::machinery::owner;
use crate::machinery::queue::{Controller, Next};
use crate::machinery::shared_informers::of_service;
use crate::wire::Wiring;
use endpoint::{address_types, is_headless, selects_pods};
use pack::{Common, Group, pack};
use trigger_time::TriggerTimes;
use write::SliceWriter;

pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const HEADLESS: &str = "service.kubernetes.io/headless";
const OURS: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";

/// Maximum number of endpoints in one slice.
pub const SLICE_MAX: usize = 100;

struct Slices {
    recorder: EventRecorder,
    services: Arc<Cache<Service>>,
    pods: Arc<Cache<Pod>>,
    nodes: Arc<Cache<Node>>,
    slices: Arc<Cache<EndpointSlice>>,
    writer: SliceWriter,
    trigger_times: TriggerTimes,
}

/// Adds the controller; its keys are services.
pub fn start(wiring: &mut Wiring) {
    let controller = Slices {
        recorder: wiring.recorder.named("endpoint-slice-controller"),
        services: wiring.cache(),
        pods: wiring.cache(),
        nodes: wiring.cache(),
        slices: wiring.cache(),
        writer: SliceWriter::new(wiring.client.clone(), wiring.cache()),
        trigger_times: TriggerTimes::default(),
    };
    let (of_pods, services) = (services_of(wiring.cache()), wiring.cache::<Service>());
    let moved = move |change: &Change<Node>| {
        let moved = change.old.as_deref().and_then(zone) != change.new.as_deref().and_then(zone);
        if moved { services.keys(|_| true) } else { Vec::new() }
    };
    wiring
        .controller(controller)
        .of::<Service>()
        .maps(of_pods)
        .maps(|change| services_of_slice(change, OURS))
        .maps(moved)
        .start();
}

/// The services that select the pod before or after a change that is visible in endpoints.
pub fn services_of(services: Arc<Cache<Service>>) -> impl Fn(&Change<Pod>) -> Vec<Key> {
    move |change| {
        if let (Some(old), Some(new)) = (&change.old, &change.new)
            && !differs(old, new)
        {
            return Vec::new();
        }
        services.keys_in(&change.key().namespace, |service| {
            let spec = service.spec.as_ref();
            let selector = spec.and_then(|spec| spec.selector.as_ref());
            selector.filter(|selector| !selector.is_empty()).is_some_and(|selector| {
                let selector = Selector::from_map(selector);
                change.sides().any(|pod| selector.matches(pod.metadata.labels.as_ref()))
            })
        })
    }
}

/// The services whose slices, managed by the controller of that name, have changed.
pub fn services_of_slice(change: &Change<EndpointSlice>, controller: &str) -> Vec<Key> {
    let slices = change.sides().filter(|slice| is_managed_by(slice, controller));
    slices.filter_map(|slice| service_of(slice)).collect()
}

/// Whether two states of a pod differ in what is visible in endpoints.
fn differs(old: &Pod, new: &Pod) -> bool {
    let visible = |pod: &Pod| {
        let status = pod.status.as_ref();
        (
            pod.metadata.uid.clone(),
            pod.metadata.labels.clone(),
            owner::is_deleting(&pod.metadata),
            crate::machinery::pod_state::is_ready(pod),
            api::pod::is_terminal(pod),
            api::pod::node_name(pod).map(str::to_owned),
            status.and_then(|status| status.pod_ips.clone()),
            status.and_then(|status| status.pod_ip.clone()),
        )
    };
    visible(old) != visible(new)
}

/// Whether a slice is managed by the controller of that name.
pub fn is_managed_by(slice: &EndpointSlice, controller: &str) -> bool {
    let labels = slice.metadata.labels.as_ref();
    labels
        .and_then(|labels| labels.get(MANAGED_BY))
        .is_some_and(|managed_by| managed_by == controller)
}

/// The key of the service that a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    Some(Key::new(slice.metadata.namespace.clone().unwrap_or_default(), labels.get(SERVICE_NAME)?))
}

fn zone(node: &Node) -> Option<&str> {
    let labels = node.metadata.labels.as_ref()?;
    labels.get(ZONE).map(String::as_str)
}

impl Controller for Slices {
    const NAME: &'static str = "endpointslice";

    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let expectations_met = self.writer.expectations.satisfied(key);
        let Some(service) = self.services.get(key) else {
            // The slices are garbage collected with their owner.
            self.writer.expectations.forget(key);
            self.trigger_times.forget(key);
            return Ok(Next::Change);
        };
        if !expectations_met || !selects_pods(&service) || owner::is_deleting(&service.metadata) {
            return Ok(Next::Change);
        }
        let existing = self.slices.indexed(&of_service(&key.namespace, &key.name));
        let existing: Vec<_> = existing
            .into_iter()
            .filter(|slice| is_managed_by(slice, OURS) && !owner::is_deleting(&slice.metadata))
            .collect();
        let pods = select(&self.pods, &service);
        let (trigger_time, times) = self.trigger_times.next(key, &service, &pods);
        let groups = groups(&service, &pods, |node| {
            let node = self.nodes.get(&Key::cluster(node))?;
            zone(&node).map(str::to_owned)
        });
        let common = Common { trigger_time, ..common(&service) };
        let plan = pack(&existing, &groups, &common, SLICE_MAX);
        let written = self.writer.apply(key, plan).await;
        if let Err(error) = &written
            && !error.is_race()
        {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            let message = format!(
                "Error updating Endpoint Slices for Service {}/{}: {error}: {}",
                key.namespace,
                key.name,
                cause.unwrap_or_default()
            );
            self.recorder.warning(&*service, "FailedToUpdateEndpointSlices", message);
        }
        written?;
        self.trigger_times.record(key, times);
        Ok(Next::Change)
    }
}

/// The pods that a service selects.
pub fn select(pods: &Cache<Pod>, service: &Service) -> Vec<Arc<Pod>> {
    let Some(labels) = service.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else {
        return Vec::new();
    };
    let selector = Selector::from_map(labels);
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let mut selected = pods.namespace(namespace);
    selected.retain(|pod| selector.matches(pod.metadata.labels.as_ref()));
    selected
}

/// The endpoints that a service's slices should hold.
fn groups(
    service: &Service,
    pods: &[Arc<Pod>],
    zone_of: impl Fn(&str) -> Option<String>,
) -> Vec<Group> {
    let mut groups = Vec::new();
    for address_type in address_types(service) {
        let before = groups.len();
        for pod in pods {
            let zone = api::pod::node_name(pod).and_then(&zone_of);
            let endpoint = endpoint::endpoint(service, pod, &address_type, zone.as_deref());
            if let Some(endpoint) = endpoint {
                let ports = endpoint::ports(service, pod);
                pack::add(&mut groups, &address_type, ports, endpoint);
            }
        }
        if groups.len() == before {
            groups.push(Group { address_type, ports: Vec::new(), endpoints: Vec::new() });
        }
    }
    groups
}

fn common(service: &Service) -> Common {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    let name = service.metadata.name.clone().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), name.clone());
    labels.insert(MANAGED_BY.into(), OURS.into());
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    Common {
        namespace: service.metadata.namespace.clone().unwrap_or_default(),
        prefix: name,
        labels,
        annotations: BTreeMap::new(),
        trigger_time: None,
        owner: owner::reference(service),
    }
}
