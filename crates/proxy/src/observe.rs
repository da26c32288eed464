//! What the proxy watches: Services, EndpointSlices, Nodes, and the Pods of its own node, reduced
//! to [`crate::model`] as they arrive. An event changes the [`State`] and says what it makes stale;
//! what follows is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use client::informer::{self, InformerOptions};
use client::mirror::{self, Mirror, Name};
use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;

use crate::model::{EndpointSlice, Node, Pod, Service};
use crate::plan::Owner;

/// Something happened to an object of one of the kinds. A slice that is nothing to the proxy is
/// none.
pub enum Event {
    Service(informer::Event<(Name, Service)>),
    Slice(informer::Event<(Name, Option<EndpointSlice>)>),
    Node(informer::Event<(Name, Node)>),
    Pod(informer::Event<(Name, Pod)>),
}

/// All events of the kinds that the proxy of `node_name` watches; never ends.
pub fn events(client: &client::Client, node_name: &str) -> BoxStream<'static, Event> {
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
    ])
    .boxed()
}

/// What is stale since it was last planned for.
#[derive(Debug, Default)]
pub struct Stale {
    pub owners: BTreeSet<Owner>,
    pub nodes: bool,
}

impl Stale {
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty() && !self.nodes
    }
}

/// The present state of all that is watched.
#[derive(Default)]
pub struct State {
    services: Mirror<Service>,
    slices: Mirror<Option<EndpointSlice>>,
    nodes: Mirror<Node>,
    pods: Mirror<Pod>,
    slices_of: HashMap<Name, BTreeSet<Name>>,
}

impl State {
    /// Takes an event in and notes in `stale` what it concerns.
    pub fn take(&mut self, event: Event, stale: &mut Stale) {
        match event {
            Event::Service(event) => {
                let changed = self.services.take(event);
                stale.owners.extend(changed.into_iter().map(|(name, _)| Owner::Service(name)));
            }
            Event::Pod(event) => {
                let changed = self.pods.take(event);
                stale.owners.extend(changed.into_iter().map(|(name, _)| Owner::Pod(name)));
            }
            Event::Node(event) => stale.nodes |= !self.nodes.take(event).is_empty(),
            Event::Slice(event) => {
                for (name, before) in self.slices.take(event) {
                    let before = before.flatten().map(|slice| slice.service);
                    let after = self.slices.get(&name).and_then(Option::as_ref);
                    let after = after.map(|slice| slice.service.clone());
                    self.index(&name, before.as_ref(), after.as_ref());
                    let services = before.into_iter().chain(after);
                    stale.owners.extend(services.map(Owner::Service));
                }
            }
        }
    }

    fn index(&mut self, slice: &Name, before: Option<&Name>, after: Option<&Name>) {
        if before == after {
            return;
        }
        if let Some(service) = before
            && let Some(slices) = self.slices_of.get_mut(service)
        {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices_of.remove(service);
            }
        }
        if let Some(service) = after {
            self.slices_of.entry(service.clone()).or_default().insert(slice.clone());
        }
    }

    /// Whether all kinds have been received whole at least once.
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
        let names = self.slices_of.get(service).into_iter().flatten();
        names.filter_map(|name| self.slices.get(name)?.as_ref()).collect()
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

    /// Everything that can want elements.
    pub fn owners(&self) -> BTreeSet<Owner> {
        let services = self.services.iter().map(|(name, _)| name.clone()).map(Owner::Service);
        services.chain(self.pods.iter().map(|(name, _)| name.clone()).map(Owner::Pod)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::Family;

    fn slice(service: &str) -> Option<EndpointSlice> {
        Some(EndpointSlice {
            service: service.into(),
            family: Family::V4,
            ports: Vec::new(),
            endpoints: Vec::new(),
        })
    }

    fn taken(state: &mut State, event: Event) -> Vec<Owner> {
        let mut stale = Stale::default();
        state.take(event, &mut stale);
        stale.owners.into_iter().collect()
    }

    #[test]
    fn a_slice_makes_its_services_stale() {
        let mut state = State::default();
        let apply =
            |service| Event::Slice(informer::Event::Apply(("ns/s1".into(), slice(service))));
        let owner = |name: &str| Owner::Service(name.into());
        assert_eq!(taken(&mut state, apply("ns/a")), [owner("ns/a")]);
        assert!(taken(&mut state, apply("ns/a")).is_empty(), "nothing changed");
        assert_eq!(taken(&mut state, apply("ns/b")), [owner("ns/a"), owner("ns/b")]);
        assert!(state.slices(&"ns/a".into()).is_empty());
        assert_eq!(state.slices(&"ns/b".into()).len(), 1);
        let delete = Event::Slice(informer::Event::Delete(("ns/s1".into(), None)));
        assert_eq!(taken(&mut state, delete), [owner("ns/b")]);
        assert!(state.slices_of.is_empty());
    }
}
