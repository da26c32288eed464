//! The plan of policies against the reference, without any packets: the elements decide as the
//! kernel would, after any sequence of changes, and are those of a proxy that starts afresh.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use client::mirror::Name;
use proptest::prelude::*;
use proxy::Family;
use proxy::model::{Pod, labels_of};
use proxy::plan::{Changes, Desired, ElementId};
use proxy::policy::model::Policy;
use proxy::policy::{Connection, Policies};
use proxy::table::{Chain, Data, Direction, Entry, Key, LinkName, Map, PolicyKey, Protocol};

use crate::reference::{Attempt, Random, World, ips};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const PROTOCOLS: [(&str, u8); 4] = [("TCP", 6), ("UDP", 17), ("SCTP", 132), ("ICMP", 1)];
const NODES: usize = 2;

pub fn family_of(ip: IpAddr) -> Family {
    if ip.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// The policies of one node, and its tables.
#[derive(Default)]
struct Node {
    policies: Policies,
    desired: Desired,
    /// As the kernel has it, by applying changes.
    actual: HashMap<ElementId, Data>,
}

impl Node {
    fn replan(&mut self) {
        let mut changes = Changes::new();
        self.policies.replan(&FAMILIES, &mut self.desired, &mut changes);
        for (id, change) in changes {
            assert_eq!(self.actual.get(&id).copied(), change.before, "{id:?}");
            match change.after {
                Some(data) => self.actual.insert(id, data),
                None => self.actual.remove(&id),
            };
        }
        assert!(self.desired.difference(&self.actual).is_empty());
    }

    fn get(&self, family: Family, map: Map, key: PolicyKey) -> Option<Data> {
        self.actual.get(&ElementId { family, map, key: Key::Policy(key) }).copied()
    }

    /// What the rules of `table::policy` do with the first packet of a connection.
    fn passes(&self, direction: Direction, link: LinkName, peer: IpAddr, at: (u8, u16)) -> bool {
        let family = family_of(peer);
        let link = self.get(family, direction.links(), PolicyKey::Link(link));
        let (id, sets) = match link {
            Some(Data::Accept) => return true,
            Some(Data::Goto(Chain::Group(found, id, sets))) if found == direction => (id, sets),
            None => return self.get(family, Map::Guard, PolicyKey::Guard(family)).is_none(),
            other => panic!("{other:?}"),
        };
        let by_set = (0..=sets).any(|ports| {
            let entry = Entry { group: id, ports };
            let pod = self.get(family, Map::Peers, PolicyKey::Peer(entry, peer)).is_some();
            let ranges = self.count(family, |key| {
                matches!(key, PolicyKey::Range(found, first, last)
                    if *found == entry && *first <= peer && peer <= *last)
            });
            assert!(ranges <= 1, "ranges overlap");
            (pod || ranges == 1) && (ports == 0 || self.has_port(family, entry, at))
        });
        let named = |protocol| {
            let key = PolicyKey::Named(id, peer, protocol, at.1);
            self.get(family, Map::NamedPeers, key).is_some()
        };
        let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let protocol = protocols.into_iter().find(|one| *one as u8 == at.0);
        by_set || (direction == Direction::Egress && protocol.is_some_and(named))
    }

    /// The number of elements with such a key.
    fn count(&self, family: Family, wanted: impl Fn(&PolicyKey) -> bool) -> usize {
        let here = self.actual.keys().filter(|id| id.family == family);
        here.filter(|id| matches!(&id.key, Key::Policy(key) if wanted(key))).count()
    }

    fn has_port(&self, family: Family, entry: Entry, (protocol, port): (u8, u16)) -> bool {
        let set = |key: &PolicyKey| matches!(key, PolicyKey::Ports(found, ..) if *found == entry);
        assert!(self.count(family, set) > 0, "a set of ports is missing");
        let found = self.count(family, |key| {
            matches!(key, PolicyKey::Ports(found, number, first, last)
                if *found == entry
                    && *number as u8 == protocol
                    && (*first..=*last).contains(&port))
        });
        assert!(found <= 1, "ports overlap");
        found == 1
    }
}

/// The index of a pod's node.
fn node_of(pod: &k8s_openapi::api::core::v1::Pod) -> usize {
    let name = pod.spec.as_ref().unwrap().node_name.as_deref().unwrap();
    name.strip_prefix("node-").unwrap().parse().unwrap()
}

/// A world, and the nodes that follow it.
struct Simulation {
    world: World,
    nodes: Vec<Node>,
    random: Random,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let nodes = (0..NODES).map(|_| Node::default()).collect();
        Self { world: World::default(), nodes, random: Random(seed) }
    }

    fn set_pod(&mut self, name: &str, pod: Option<k8s_openapi::api::core::v1::Pod>) {
        let key: Name = name.into();
        let reduced = pod.as_ref().map(Pod::from_object);
        for (index, node) in self.nodes.iter_mut().enumerate() {
            node.policies.set_pod(&key, reduced.as_ref());
            let local = reduced.as_ref().filter(|_| pod.as_ref().map(node_of) == Some(index));
            node.policies.set_local(&key, local);
        }
        match pod {
            Some(pod) => drop(self.world.pods.insert(name.into(), pod)),
            None => drop(self.world.pods.remove(name)),
        }
    }

    fn set_policy(
        &mut self,
        name: &str,
        policy: Option<k8s_openapi::api::networking::v1::NetworkPolicy>,
    ) {
        for node in &mut self.nodes {
            node.policies.set_policy(&name.into(), policy.as_ref().map(Policy::from_object));
        }
        match policy {
            Some(policy) => drop(self.world.policies.insert(name.into(), policy)),
            None => drop(self.world.policies.remove(name)),
        }
    }

    fn set_namespace(&mut self, name: &str) {
        let labels = self.random.namespace(name);
        for node in &mut self.nodes {
            node.policies.set_namespace(name, Some(labels.clone().into()));
        }
        self.world.namespaces.insert(name.into(), labels);
    }

    /// One change of any object.
    fn step(&mut self) {
        let namespace = *self.random.pick(&["x", "y", "z"]);
        let number = 1 + self.random.below(3);
        let name = format!("{namespace}/{}", ["p", "q", "r"][number - 1]);
        match self.random.below(10) {
            0 => self.set_namespace(namespace),
            1 => self.set_pod(&name, None),
            2..=5 => {
                // Pods come back on another node, with another address.
                let offset = 3 * ["x", "y", "z"].iter().position(|one| *one == namespace).unwrap();
                let node = self.random.below(NODES);
                let mut pod = self.random.pod(&name, node, offset + number);
                match self.random.below(8) {
                    0 => pod.status.as_mut().unwrap().pod_ips = None,
                    1 => pod.status.as_mut().unwrap().phase = Some("Failed".into()),
                    2 => pod.spec.as_mut().unwrap().host_network = Some(true),
                    _ => {}
                }
                let ended = pod.status.as_ref().unwrap().phase.as_deref() == Some("Failed");
                if ended {
                    // Its addresses are free for others.
                    self.set_pod(&name, Some(pod.clone()));
                    pod.status.as_mut().unwrap().pod_ips = None;
                    self.world.pods.insert(name, pod);
                } else {
                    self.set_pod(&name, Some(pod));
                }
            }
            6 => self.set_policy(&name, None),
            _ => {
                let policy = self.random.policy(&name);
                self.set_policy(&name, Some(policy));
            }
        }
    }

    fn check(&mut self) {
        self.nodes.iter_mut().for_each(Node::replan);
        let mut ends: BTreeMap<IpAddr, Option<(usize, LinkName)>> = BTreeMap::new();
        for pod in self.world.pods.values() {
            let reduced = Pod::from_object(pod);
            ends.extend(
                ips(pod).into_iter().map(|ip| (ip, reduced.link.map(|link| (node_of(pod), link)))),
            );
        }
        for ip in ["192.168.7.1", "8.8.8.8", "fd00:1::1"] {
            ends.entry(ip.parse().unwrap()).or_insert(None);
        }
        for (source, from) in &ends {
            for (destination, to) in &ends {
                if source == destination || source.is_ipv4() != destination.is_ipv4() {
                    continue;
                }
                for (protocol, number) in PROTOCOLS {
                    for port in [1, 8080, 8081] {
                        let at = (number, port);
                        let egress = from.is_none_or(|(node, link)| {
                            self.nodes[node].passes(Direction::Egress, link, *destination, at)
                        });
                        let ingress = to.is_none_or(|(node, link)| {
                            self.nodes[node].passes(Direction::Ingress, link, *source, at)
                        });
                        let (source, destination) = (*source, *destination);
                        let attempt = Attempt { source, destination, protocol, port };
                        let expected = self.world.allows(&attempt);
                        assert_eq!(egress && ingress, expected, "{attempt:?} {:#?}", self.world);
                        let connection = Connection { source, destination, protocol: number, port };
                        let both = self.nodes.iter().all(|node| node.policies.allows(&connection));
                        assert_eq!(both, expected, "an established connection: {attempt:?}");
                    }
                }
            }
        }
    }

    /// The tables of nodes that start now.
    fn afresh(&self) -> Vec<HashMap<ElementId, Data>> {
        let all = (0..NODES).map(|index| {
            let mut node = Node::default();
            for (name, policy) in &self.world.policies {
                let policy = Policy::from_object(policy);
                node.policies.set_policy(&name.as_str().into(), Some(policy));
            }
            for (name, pod) in &self.world.pods {
                let reduced = Pod::from_object(pod);
                node.policies.set_pod(&name.as_str().into(), Some(&reduced));
                if node_of(pod) == index {
                    node.policies.set_local(&name.as_str().into(), Some(&reduced));
                }
            }
            for (name, labels) in &self.world.namespaces {
                node.policies.set_namespace(name, Some(labels.clone().into()));
            }
            node.replan();
            node.actual
        });
        all.collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn tables_decide_as_documented(seed in any::<u64>()) {
        let mut simulation = Simulation::new(seed);
        for namespace in ["x", "y", "z"] {
            simulation.set_namespace(namespace);
        }
        for _ in 0..5 {
            for _ in 0..1 + simulation.random.below(12) {
                simulation.step();
            }
            simulation.check();
        }
        for (node, afresh) in simulation.nodes.iter().zip(simulation.afresh()) {
            prop_assert_eq!(&node.actual, &afresh);
        }
        for name in simulation.world.policies.keys().cloned().collect::<Vec<_>>() {
            simulation.set_policy(&name, None);
        }
        simulation.check();
        for node in &simulation.nodes {
            prop_assert!(node.actual.is_empty(), "nothing without policies");
        }
    }
}

#[test]
fn labels_are_reduced() {
    let mut random = Random(1);
    let pod = random.pod("x/p", 0, 1);
    let reduced = Pod::from_object(&pod);
    assert_eq!(reduced.labels, labels_of(&pod.metadata));
    assert_eq!(reduced.named_ports.len(), 3);
    assert!(reduced.link.is_some());
}
