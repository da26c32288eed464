//! NetworkPolicies: which connections the pods of this node may make and accept.
//!
//! [`Policies`] takes policies, namespaces and pods as they change, and keeps track of which
//! elements of the tables (see [`crate::table`]) that makes stale; [`Policies::replan`] computes
//! those again. Pure, and incremental at each step:
//! - The pods of this node with the same policies are a *group* ([`groups`]). Only groups have rules
//!   in the tables, so that policies without pods on this node cost nothing.
//! - All pods of the cluster with the same labels are a *class* ([`peers`]), which is matched with the
//!   rules of the groups once. A change of a pod affects one element per group that selects it.
//! - A group numbers the sets of ports ([`ports`]) of its rules. What may use a set are peers and
//!   address ranges ([`ranges`]); overlapping blocks are merged.
//!
//! `observe` watches what is needed, and the pods of other nodes only while there are policies;
//! [`cut`] ends connections that are no longer allowed.

pub mod cut;
mod groups;
pub mod model;
pub mod observe;
mod peers;
pub mod ports;
mod ranges;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use client::mirror::Name;

use self::groups::{Group, GroupKey, Groups};
use self::model::{Hashed, Policy};
use self::peers::{Allowed, Peers};
use self::ports::PortSet;
use crate::model::{Labels, NamedPort, Pod};
use crate::nft::Family;
use crate::plan::{Changes, Desired, ElementId, Elements, Owner, family_of};
use crate::table::{Chain, Data, Direction, Entry, Key, LinkName, Map, PolicyKey};

/// A part of the tables that is computed at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    Guard,
    /// The link of a pod of this node.
    Link(Name),
    /// A peer of a group.
    Peer(u32, IpAddr),
    /// The address ranges and sets of ports of a group.
    Rules(u32),
}

/// A connection between two addresses, after translation of the destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// As in an IP header.
    pub protocol: u8,
    pub port: u16,
}

/// A pod of this node.
#[derive(Debug)]
struct Local {
    namespace: Arc<str>,
    labels: Labels,
    named_ports: Vec<NamedPort>,
    link: LinkName,
    ips: Vec<IpAddr>,
    /// In the order of [`Direction::ALL`]; `None` if it is not isolated in that direction.
    groups: [Option<u32>; 2],
}

/// All policies, applied to the pods of this node.
#[derive(Debug, Default)]
pub struct Policies {
    /// By namespace and name.
    policies: HashMap<Arc<str>, BTreeMap<Name, Arc<Hashed>>>,
    locals: HashMap<Name, Local>,
    locals_by_ip: HashMap<IpAddr, Name>,
    groups: Groups,
    peers: Peers,
    stale_locals: BTreeSet<Name>,
    stale: BTreeSet<Part>,
}

/// The namespace of a name.
pub(crate) fn namespace_of(name: &str) -> Arc<str> {
    name.split_once('/').map_or("", |(namespace, _)| namespace).into()
}

impl Policies {
    /// Whether there are no policies at all.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// The number of policies.
    pub fn count(&self) -> usize {
        self.policies.values().map(BTreeMap::len).sum()
    }

    /// The number of pods of this node that are isolated in some direction.
    pub fn isolated_count(&self) -> usize {
        self.locals.values().filter(|local| local.is_isolated()).count()
    }

    pub fn set_policy(&mut self, name: &Name, policy: Option<Policy>) {
        let was_empty = self.is_empty();
        let namespace = namespace_of(name);
        let here = self.policies.entry(namespace.clone()).or_default();
        match policy {
            Some(policy) => drop(here.insert(name.clone(), Arc::new(Hashed::new(policy)))),
            None => drop(here.remove(name)),
        }
        if here.is_empty() {
            self.policies.remove(&namespace);
        }
        let affected = self.locals.iter().filter(|(_, local)| local.namespace == namespace);
        self.stale_locals.extend(affected.map(|(name, _)| name.clone()));
        if was_empty != self.is_empty() {
            self.stale.insert(Part::Guard);
            self.stale.extend(self.locals.keys().cloned().map(Part::Link));
        }
    }

    pub fn set_namespace(&mut self, name: &str, labels: Option<Labels>) {
        let affected = self.peers.set_namespace(name, labels, &self.groups);
        self.stale_peers(affected);
    }

    /// Sets a pod of the cluster.
    pub fn set_pod(&mut self, name: &Name, pod: Option<&Pod>) {
        let affected = self.peers.set_pod(name, pod, &self.groups);
        self.stale_peers(affected);
    }

    /// Forgets all pods and namespaces that policies refer to.
    pub fn clear_peers(&mut self) {
        let affected = self.peers.clear();
        self.stale_peers(affected);
    }

    /// Sets a pod of this node.
    pub fn set_local(&mut self, name: &Name, pod: Option<&Pod>) {
        let before = self.locals.remove(name);
        let groups = before.as_ref().map_or([None; 2], |local| local.groups);
        for ip in before.into_iter().flat_map(|local| local.ips) {
            if self.locals_by_ip.get(&ip) == Some(name) {
                self.locals_by_ip.remove(&ip);
            }
        }
        if let Some((pod, link)) = pod.and_then(|pod| Some((pod, pod.link?))) {
            self.locals_by_ip.extend(pod.ips.iter().map(|ip| (*ip, name.clone())));
            let local = Local {
                namespace: namespace_of(name),
                labels: pod.labels.clone(),
                named_ports: pod.named_ports.clone(),
                link,
                ips: pod.ips.clone(),
                groups,
            };
            self.locals.insert(name.clone(), local);
            self.stale_locals.insert(name.clone());
        } else {
            groups.into_iter().flatten().for_each(|id| self.groups.release(id));
        }
        self.stale.insert(Part::Link(name.clone()));
    }

    fn stale_peers(&mut self, affected: impl IntoIterator<Item = (u32, IpAddr)>) {
        self.stale.extend(affected.into_iter().map(|(group, ip)| Part::Peer(group, ip)));
    }

    /// Computes all stale elements, and adds the resulting changes to `changes`.
    pub fn replan(&mut self, families: &[Family], desired: &mut Desired, changes: &mut Changes) {
        for name in std::mem::take(&mut self.stale_locals) {
            self.regroup(&name);
        }
        for id in self.groups.remove_unused() {
            let affected = self.peers.remove_group(id);
            self.stale_peers(affected);
            self.stale.insert(Part::Rules(id));
        }
        for part in std::mem::take(&mut self.stale) {
            let elements = self.elements(families, &part);
            desired.replace(&Owner::Policy(part), elements, changes);
        }
    }

    /// Finds the groups of a pod of this node.
    fn regroup(&mut self, name: &Name) {
        let Some(local) = self.locals.get(name) else {
            return;
        };
        let before = local.groups;
        let keys = Direction::ALL.map(|direction| self.group_key(local, direction));
        let groups = keys.map(|key| {
            let (id, new) = self.groups.acquire(key?);
            if new {
                let affected = self.peers.add_group(id, &self.groups);
                self.stale_peers(affected);
                self.stale.insert(Part::Rules(id));
            }
            Some(id)
        });
        before.into_iter().flatten().for_each(|id| self.groups.release(id));
        if let Some(local) = self.locals.get_mut(name)
            && local.groups != groups
        {
            local.groups = groups;
            self.stale.insert(Part::Link(name.clone()));
        }
    }

    fn group_key(&self, local: &Local, direction: Direction) -> Option<GroupKey> {
        let here = self.policies.get(&local.namespace)?.values();
        let policies: Vec<Arc<Hashed>> = here
            .filter(|policy| policy.rules(direction).is_some())
            .filter(|policy| policy.pods.matches(Some(&local.labels)))
            .cloned()
            .collect();
        let key = GroupKey::new(direction, local.namespace.clone(), policies, &local.named_ports);
        (!key.policies.is_empty()).then_some(key)
    }

    fn elements(&self, families: &[Family], part: &Part) -> Elements {
        let all = |map, key: &dyn Fn(Family) -> PolicyKey, data| {
            let id = |family| ElementId { family, map, key: Key::Policy(key(family)) };
            families.iter().map(|family| (id(*family), data)).collect::<Elements>()
        };
        match part {
            Part::Guard if self.is_empty() => Elements::new(),
            Part::Guard => all(Map::Guard, &PolicyKey::Guard, Data::Drop),
            Part::Link(name) => match self.locals.get(name).filter(|_| !self.is_empty()) {
                None => Elements::new(),
                Some(local) => {
                    let link = |_| PolicyKey::Link(local.link);
                    let mut elements = Elements::new();
                    for (direction, group) in Direction::ALL.into_iter().zip(local.groups) {
                        let data = group.and_then(|id| self.chain(direction, id));
                        elements.extend(all(
                            direction.links(),
                            &link,
                            data.unwrap_or(Data::Accept),
                        ));
                    }
                    if local.is_isolated() {
                        elements.extend(all(Map::IsolatedLinks, &link, Data::None));
                    }
                    elements
                }
            },
            Part::Peer(group, ip) => {
                let family = family_of(*ip);
                let found = self.groups.get(*group).filter(|_| families.contains(&family));
                let allowed = found.map(|found| self.peers.allowed(*group, found, *ip));
                allowed.map_or_else(Elements::new, |allowed| {
                    allowed.elements(*group, *ip, family).collect()
                })
            }
            Part::Rules(group) => match self.groups.get(*group) {
                Some(found) => rule_elements(families, *group, found),
                None => Elements::new(),
            },
        }
    }

    fn chain(&self, direction: Direction, id: u32) -> Option<Data> {
        let group = self.groups.get(id)?;
        Some(Data::Goto(Chain::Group(direction, id, group.set_count())))
    }

    /// Whether the policies of this node's pods allow the connection.
    pub fn allows(&self, connection: &Connection) -> bool {
        let Connection { source, destination, protocol, port } = *connection;
        let allowed = |own: IpAddr, direction: usize, peer: IpAddr| {
            let local = self.locals_by_ip.get(&own).and_then(|name| self.locals.get(name));
            let Some(id) = local.and_then(|local| local.groups[direction]) else {
                return true;
            };
            let Some(group) = self.groups.get(id) else {
                return true;
            };
            let peer_may = self.peers.allowed(id, group, peer);
            let family = family_of(peer);
            let in_range = |set: u32| {
                let ranges = group.ranges.get(&(family, set));
                ranges.is_some_and(|ranges| ranges::contain(ranges, peer))
            };
            peer_may.named.contains(protocol, port)
                || (0..).zip(&group.port_sets).any(|(set, ports)| {
                    ports.contains(protocol, port)
                        && (peer_may.sets.contains(&set) || in_range(set))
                })
        };
        source == destination
            || (allowed(destination, 0, source) && allowed(source, 1, destination))
    }
}

impl Local {
    fn is_isolated(&self) -> bool {
        self.groups.iter().any(Option::is_some)
    }
}

impl Allowed {
    fn elements(
        self,
        group: u32,
        ip: IpAddr,
        family: Family,
    ) -> impl Iterator<Item = (ElementId, Data)> {
        let element =
            move |map, key| (ElementId { family, map, key: Key::Policy(key) }, Data::None);
        let sets = self.sets.into_iter();
        let peers = sets.map(move |ports| PolicyKey::Peer(Entry { group, ports }, ip));
        let named = match self.named {
            PortSet::All => Vec::new(),
            PortSet::Ranges(ranges) => ranges,
        };
        let named = named.into_iter().flat_map(move |range| {
            let ports = range.first..=range.last;
            ports.map(move |port| PolicyKey::Named(group, ip, range.protocol, port))
        });
        let peers = peers.map(move |key| element(Map::Peers, key));
        peers.chain(named.map(move |key| element(Map::NamedPeers, key)))
    }
}

/// The address ranges and sets of ports of a group.
fn rule_elements(families: &[Family], id: u32, group: &Group) -> Elements {
    let element = |family, map, key| (ElementId { family, map, key: Key::Policy(key) }, Data::None);
    let mut elements = Elements::new();
    for ((family, ports), ranges) in &group.ranges {
        if families.contains(family) {
            let entry = Entry { group: id, ports: *ports };
            elements.extend(ranges.iter().map(|(first, last)| {
                let address = |number| ranges::address(*family, number);
                let key = PolicyKey::Range(entry, address(*first), address(*last));
                element(*family, Map::PeerRanges, key)
            }));
        }
    }
    for (ports, set) in (0..).zip(&group.port_sets) {
        let PortSet::Ranges(ranges) = set else {
            continue;
        };
        let entry = Entry { group: id, ports };
        for range in ranges {
            let key = PolicyKey::Ports(entry, range.protocol, range.first, range.last);
            elements.extend(families.iter().map(|family| element(*family, Map::PolicyPorts, key)));
        }
    }
    elements
}

/// A hash that is the same in every process: FNV-1a.
#[derive(Debug)]
pub(crate) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = Fnv::default();
    value.hash(&mut hasher);
    hasher.finish()
}
