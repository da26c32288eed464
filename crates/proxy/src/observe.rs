//! Watches Services, EndpointSlices, Nodes and the Pods of this node, reduced to [`crate::model`]
//! as they arrive. An event updates the [`State`] and records what it makes stale; the consequences
//! are decided elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use client::informer::{self, InformerOptions};
use client::mirror::{self, Changed, Mirror, Name};
use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

use crate::model::{EndpointSlice, Node, Pod, Service};
use crate::plan::Owner;
use crate::policy::observe::{self as policy, Demand, Observed};

/// A change of an object; `None` stands for a slice that the proxy ignores.
pub enum Event {
    Service(informer::Event<(Name, Service)>),
    Slice(informer::Event<(Name, Option<EndpointSlice>)>),
    Node(informer::Event<(Name, Node)>),
    Pod(informer::Event<(Name, Pod)>),
    Policy(policy::Event),
}

/// All events that the proxy of `node_name` watches; the stream never ends. `demand` is the one of
/// the [`State`].
pub fn events(
    client: &client::Client,
    node_name: &str,
    demand: &Demand,
) -> BoxStream<'static, Event> {
    let all = InformerOptions::default;
    let own_pods =
        InformerOptions { field_selector: format!("spec.nodeName={node_name}"), ..all() };
    let node_name = node_name.to_owned();
    let services = mirror::events::<core::Service, _>(client, all(), Service::from_object);
    let slices = mirror::events::<discovery::EndpointSlice, _>(client, all(), move |object| {
        EndpointSlice::from_object(object, &node_name)
    });
    let nodes = mirror::events::<core::Node, _>(client, all(), Node::from_object);
    let pods = mirror::events::<core::Pod, _>(client, own_pods, Pod::from_object);
    futures::stream::select_all([
        services.map(Event::Service).boxed(),
        slices.map(Event::Slice).boxed(),
        nodes.map(Event::Node).boxed(),
        pods.map(Event::Pod).boxed(),
        policy::events(client, demand.subscribe()).map(Event::Policy).boxed(),
    ])
    .boxed()
}

/// What has changed since the last plan.
#[derive(Debug, Default)]
pub struct Stale {
    pub owners: BTreeSet<Owner>,
    pub nodes: bool,
    pub policies: bool,
}

/// The current state of the watched objects.
pub struct State {
    services: Mirror<Service>,
    /// By Service.
    slices: Mirror<EndpointSlice, Name, Name>,
    nodes: Mirror<Node>,
    pods: Mirror<Pod>,
    pub policies: Observed,
}

impl State {
    /// `demand` determines what is watched for policies.
    pub fn new(demand: Demand) -> Self {
        Self {
            services: Mirror::default(),
            slices: Mirror::new(|slice, services| services.push(slice.service.clone())),
            nodes: Mirror::default(),
            pods: Mirror::default(),
            policies: Observed::new(demand),
        }
    }

    /// Applies an event and records in `stale` what it affects.
    pub fn take(&mut self, event: Event, stale: &mut Stale) {
        match event {
            Event::Service(event) => {
                let changed = self.services.take(event);
                stale.owners.extend(changed.into_iter().map(Changed::into_key).map(Owner::Service));
            }
            Event::Pod(event) => {
                let changed = self.pods.take(event);
                stale.policies |= !changed.is_empty();
                for name in changed.into_iter().map(Changed::into_key) {
                    self.policies.plan.set_local(&name, self.pods.get(&name));
                    stale.owners.insert(Owner::Pod(name));
                }
            }
            Event::Node(event) => {
                let changed = self.nodes.take(event);
                stale.nodes |= !changed.is_empty();
                stale.owners.extend(changed.into_iter().map(Changed::into_key).map(Owner::Node));
            }
            Event::Policy(event) => {
                self.policies.take(event);
                stale.policies = true;
            }
            Event::Slice(event) => {
                let changed = self.slices.take(event);
                let services = changed.iter().flat_map(|change| self.slices.affected(change));
                stale.owners.extend(services.map(Owner::Service));
            }
        }
    }

    /// Whether all objects of all kinds have been received at least once.
    pub fn is_synced(&self) -> bool {
        self.services.is_synced()
            && self.slices.is_synced()
            && self.nodes.is_synced()
            && self.pods.is_synced()
    }

    pub fn service(&self, name: &Name) -> Option<&Service> {
        self.services.get(name)
    }

    /// The endpoint slices of a Service.
    pub fn slices(&self, service: &Name) -> Vec<&EndpointSlice> {
        self.slices.of(service).map(|(_, slice)| slice).collect()
    }

    pub fn pod(&self, name: &Name) -> Option<&Pod> {
        self.pods.get(name)
    }

    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// All nodes by name.
    pub fn nodes(&self) -> BTreeMap<&str, &Node> {
        self.nodes.iter().map(|(name, node)| (&**name, node)).collect()
    }

    /// All potential owners of elements.
    pub fn owners(&self) -> BTreeSet<Owner> {
        let services = self.services.iter().map(|(name, _)| name.clone()).map(Owner::Service);
        let pods = self.pods.iter().map(|(name, _)| name.clone()).map(Owner::Pod);
        let nodes = self.nodes.iter().map(|(name, _)| name.clone()).map(Owner::Node);
        services.chain(pods).chain(nodes).collect()
    }
}
