//! What the proxy watches: Services, EndpointSlices, Nodes, and the Pods of its own node, reduced to [`crate::model`] as
//! they arrive. An event changes the [`State`] and says what it makes stale; what follows is decided elsewhere.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use api::Kind;
use api::kind::DecodeError;
use client::informer::{InformerOptions, informer_with};
use futures::stream::{BoxStream, StreamExt};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher;
use rpc::api_v1 as pb;

use crate::model::{EndpointSlice, Name, Node, Pod, Service, name};
use crate::plan::Owner;

/// An object by name, as it is now; a slice that is nothing to the proxy is none.
type Named<T> = (Name, T);

/// Something happened to an object of one of the kinds.
pub enum Event {
    Service(watcher::Event<Named<Service>>),
    Slice(watcher::Event<Named<Option<EndpointSlice>>>),
    Node(watcher::Event<Named<Node>>),
    Pod(watcher::Event<Named<Pod>>),
}

/// All events of the kinds that the proxy of `node_name` watches; never ends.
pub fn events(client: &client::Client, node_name: &str) -> BoxStream<'static, Event> {
    let own_pods = InformerOptions {
        field_selector: format!("spec.nodeName={node_name}"),
        ..InformerOptions::default()
    };
    let node_name: Arc<str> = node_name.into();
    let services = watch::<core::Service, _>(client, InformerOptions::default(), |object| {
        (name(&object.metadata), Service::from_object(object))
    });
    let slices =
        watch::<discovery::EndpointSlice, _>(client, InformerOptions::default(), move |object| {
            (
                name(&object.metadata),
                EndpointSlice::from_object(object, &node_name),
            )
        });
    let nodes = watch::<core::Node, _>(client, InformerOptions::default(), |object| {
        (node_name_of(&object.metadata), Node::from_object(object))
    });
    let pods = watch::<core::Pod, _>(client, own_pods, |object| {
        (name(&object.metadata), Pod::from_object(object))
    });
    futures::stream::select_all([
        services.map(Event::Service).boxed(),
        slices.map(Event::Slice).boxed(),
        nodes.map(Event::Node).boxed(),
        pods.map(Event::Pod).boxed(),
    ])
    .boxed()
}

fn node_name_of(metadata: &ObjectMeta) -> Name {
    metadata.name.as_deref().unwrap_or_default().into()
}

fn watch<K: Kind, T: Send + 'static>(
    client: &client::Client,
    options: InformerOptions,
    reduce: impl Fn(&K) -> T + Send + 'static,
) -> BoxStream<'static, watcher::Event<T>> {
    let decode = move |object: &pb::Object| -> Result<T, DecodeError> {
        Ok(reduce(&K::decode(&object.json)?))
    };
    let full = pb::Representation::Full;
    let events = informer_with(client.clone(), K::ROW, options, full, decode);
    // The informer retries by itself and yields no errors.
    events
        .filter_map(|event| std::future::ready(event.ok()))
        .boxed()
}

/// The objects of one kind, by name, while they are being received and after.
struct Store<T> {
    objects: HashMap<Name, T>,
    /// The names received since the watch began anew; none once all are there.
    receiving: Option<HashSet<Name>>,
    synced: bool,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
            receiving: None,
            synced: false,
        }
    }
}

impl<T: PartialEq> Store<T> {
    /// Takes the event in. Returns each object that is not what it was, with what it was.
    fn take(&mut self, event: watcher::Event<Named<T>>) -> Vec<(Name, Option<T>)> {
        match event {
            watcher::Event::Init => {
                self.receiving = Some(HashSet::new());
                Vec::new()
            }
            watcher::Event::InitApply((name, object)) => {
                if let Some(receiving) = &mut self.receiving {
                    receiving.insert(name.clone());
                }
                self.put(name, object).into_iter().collect()
            }
            watcher::Event::Apply((name, object)) => self.put(name, object).into_iter().collect(),
            watcher::Event::Delete((name, _)) => {
                let before = self.objects.remove(&name);
                before
                    .map(|before| (name, Some(before)))
                    .into_iter()
                    .collect()
            }
            watcher::Event::InitDone => {
                self.synced = true;
                let received = self.receiving.take().unwrap_or_default();
                let gone = self.objects.extract_if(|name, _| !received.contains(name));
                gone.map(|(name, before)| (name, Some(before))).collect()
            }
        }
    }

    fn put(&mut self, name: Name, object: T) -> Option<(Name, Option<T>)> {
        if self.objects.get(&name) == Some(&object) {
            return None;
        }
        let before = self.objects.insert(name.clone(), object);
        Some((name, before))
    }
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
    services: Store<Service>,
    slices: Store<Option<EndpointSlice>>,
    nodes: Store<Node>,
    pods: Store<Pod>,
    slices_of: HashMap<Name, BTreeSet<Name>>,
}

impl State {
    /// Takes an event in and notes in `stale` what it concerns.
    pub fn take(&mut self, event: Event, stale: &mut Stale) {
        match event {
            Event::Service(event) => {
                let changed = self.services.take(event);
                stale
                    .owners
                    .extend(changed.into_iter().map(|(name, _)| Owner::Service(name)));
            }
            Event::Pod(event) => {
                let changed = self.pods.take(event);
                stale
                    .owners
                    .extend(changed.into_iter().map(|(name, _)| Owner::Pod(name)));
            }
            Event::Node(event) => stale.nodes |= !self.nodes.take(event).is_empty(),
            Event::Slice(event) => {
                for (name, before) in self.slices.take(event) {
                    let before = before.flatten().map(|slice| slice.service);
                    let after = self.slices.objects.get(&name).and_then(Option::as_ref);
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
            self.slices_of
                .entry(service.clone())
                .or_default()
                .insert(slice.clone());
        }
    }

    /// Whether all kinds have been received whole at least once.
    pub fn is_synced(&self) -> bool {
        self.services.synced && self.slices.synced && self.nodes.synced && self.pods.synced
    }

    pub fn service(&self, name: &Name) -> Option<&Service> {
        self.services.objects.get(name)
    }

    /// The endpoint slices of a Service.
    pub fn slices(&self, service: &Name) -> Vec<&EndpointSlice> {
        let names = self.slices_of.get(service).into_iter().flatten();
        names
            .filter_map(|name| self.slices.objects.get(name)?.as_ref())
            .collect()
    }

    pub fn pod(&self, name: &Name) -> Option<&Pod> {
        self.pods.objects.get(name)
    }

    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.objects.get(name)
    }

    /// All nodes by name.
    pub fn nodes(&self) -> BTreeMap<&str, &Node> {
        self.nodes
            .objects
            .iter()
            .map(|(name, node)| (&**name, node))
            .collect()
    }

    /// Everything that can want elements.
    pub fn owners(&self) -> BTreeSet<Owner> {
        let services = self.services.objects.keys().cloned().map(Owner::Service);
        services
            .chain(self.pods.objects.keys().cloned().map(Owner::Pod))
            .collect()
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
        let apply = |service| Event::Slice(watcher::Event::Apply(("ns/s1".into(), slice(service))));
        let owner = |name: &str| Owner::Service(name.into());
        assert_eq!(taken(&mut state, apply("ns/a")), [owner("ns/a")]);
        assert!(
            taken(&mut state, apply("ns/a")).is_empty(),
            "nothing changed"
        );
        assert_eq!(
            taken(&mut state, apply("ns/b")),
            [owner("ns/a"), owner("ns/b")]
        );
        assert!(state.slices(&"ns/a".into()).is_empty());
        assert_eq!(state.slices(&"ns/b".into()).len(), 1);
        let delete = Event::Slice(watcher::Event::Delete(("ns/s1".into(), None)));
        assert_eq!(taken(&mut state, delete), [owner("ns/b")]);
        assert!(state.slices_of.is_empty());
    }

    #[test]
    fn what_a_new_watch_does_not_bring_is_gone() {
        let mut state = State::default();
        let service = |name: &str| {
            (
                Name::from(name),
                Service {
                    name: name.into(),
                    ..Service::default()
                },
            )
        };
        for event in [
            watcher::Event::Init,
            watcher::Event::InitApply(service("ns/a")),
            watcher::Event::InitApply(service("ns/b")),
            watcher::Event::InitDone,
            watcher::Event::Init,
            watcher::Event::InitApply(service("ns/b")),
        ] {
            taken(&mut state, Event::Service(event));
        }
        assert_eq!(
            taken(&mut state, Event::Service(watcher::Event::InitDone)),
            [Owner::Service("ns/a".into())]
        );
        assert!(state.service(&"ns/a".into()).is_none() && !state.is_synced());
    }
}
