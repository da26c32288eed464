//! NetworkPolicies: which connections the pods of this node may make and accept.
//!
//! [`Policies`] takes policies, namespaces and pods as they change, and keeps track of which
//! elements of the tables (see [`crate::table`]) that makes stale; [`Policies::replan`] computes
//! those again. Pure, and incremental at each step:
//! - The pods of this node with the same policies are a *group* ([`groups`]). Only groups have rules
//!   in the tables, so that policies without pods on this node cost nothing.
//! - All pods of the cluster with the same labels are a *class* ([`peers`]), which is matched with the
//!   rules of the groups once. A change of a pod affects one element per group that selects it.
//! - The address blocks of a group are split into disjoint ranges ([`ranges`]); what a peer may use is
//!   a set of ports ([`ports`]).
//!
//! `observe` watches what is needed, and the pods of other nodes only while there are policies;
//! [`cut`] ends connections that are no longer allowed.

pub mod cut;
mod groups;
pub mod model;
pub mod observe;
mod peers;
pub mod ports;
pub mod ranges;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use client::mirror::Name;

use self::groups::{GroupKey, Groups};
use self::model::{Hashed, Policy};
use self::peers::Peers;
use self::ports::{Ids, PortSet};
use crate::model::{Labels, NamedPort, Pod};
use crate::nft::Family;
use crate::plan::{Changes, Desired, ElementId, Elements, Owner, family_of};
use crate::table::{Chain, Data, Direction, Key, LinkName, Map, PolicyKey};

/// A part of the tables that is computed at once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    Guard,
    /// The link of a pod of this node.
    Link(Name),
    /// A peer of a group.
    Peer(u32, IpAddr),
    /// The address ranges of a group.
    Ranges(u32),
    /// A set of ports.
    Ports(u32),
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
    ports: Ids<PortSet>,
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
            self.stale.insert(Part::Ranges(id));
        }
        let mut new_ports = BTreeSet::new();
        for part in std::mem::take(&mut self.stale) {
            let elements = self.elements(families, &part, &mut new_ports);
            desired.replace(&Owner::Policy(part), elements, changes);
        }
        for id in new_ports {
            let elements = self.elements(families, &Part::Ports(id), &mut BTreeSet::new());
            desired.replace(&Owner::Policy(Part::Ports(id)), elements, changes);
        }
        let used = |id| families.iter().any(|family| desired.uses(*family, Chain::Ports(id)));
        let unused: Vec<u32> =
            self.ports.iter().map(|(id, _)| id).filter(|id| !used(*id)).collect();
        for id in unused {
            self.ports.remove(id);
            desired.replace(&Owner::Policy(Part::Ports(id)), Elements::new(), changes);
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
                self.stale.insert(Part::Ranges(id));
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

    fn elements(
        &mut self,
        families: &[Family],
        part: &Part,
        new_ports: &mut BTreeSet<u32>,
    ) -> Elements {
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
                        let chain = group.map(|id| Data::Goto(Chain::Group(direction, id)));
                        elements.extend(all(
                            direction.links(),
                            &link,
                            chain.unwrap_or(Data::Accept),
                        ));
                    }
                    if local.is_isolated() {
                        elements.extend(all(Map::IsolatedLinks, &link, Data::None));
                    }
                    elements
                }
            },
            Part::Peer(group, ip) => {
                let ports = match self.groups.get(*group) {
                    Some(found) => self.peers.ports(*group, found, *ip),
                    None => PortSet::none(),
                };
                let key = PolicyKey::Peer(*group, *ip);
                self.allow(families, Map::Peers, key, *ip, ports, new_ports).into_iter().collect()
            }
            Part::Ranges(group) => {
                let segments = self.groups.get(*group).map(|group| group.segments.clone());
                let segments = segments.into_iter().flatten().flatten();
                let element = |segment: ranges::Segment| {
                    let key = PolicyKey::Range(*group, segment.first, segment.last);
                    let ports = segment.ports;
                    self.allow(families, Map::PeerRanges, key, segment.first, ports, new_ports)
                };
                segments.filter_map(element).collect()
            }
            Part::Ports(id) => match self.ports.get(*id) {
                Some(PortSet::Ranges(ranges)) => {
                    let key = |range: &ports::PortRange| {
                        PolicyKey::Ports(*id, range.protocol, range.first, range.last)
                    };
                    let elements = ranges.iter().map(key);
                    elements.flat_map(|key| all(Map::PolicyPorts, &|_| key, Data::None)).collect()
                }
                _ => Elements::new(),
            },
        }
    }

    /// The element that allows these ports; `None` without any.
    fn allow(
        &mut self,
        families: &[Family],
        map: Map,
        key: PolicyKey,
        ip: IpAddr,
        ports: PortSet,
        new_ports: &mut BTreeSet<u32>,
    ) -> Option<(ElementId, Data)> {
        let family = family_of(ip);
        if ports.is_none() || !families.contains(&family) {
            return None;
        }
        let data = match &ports {
            PortSet::All => Data::Accept,
            PortSet::Ranges(_) => {
                let (id, new) = self.ports.id(hash(&ports), ports);
                if new {
                    new_ports.insert(id);
                }
                Data::Jump(Chain::Ports(id))
            }
        };
        Some((ElementId { family, map, key: Key::Policy(key) }, data))
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
            let in_ranges = |segments: &Vec<ranges::Segment>| {
                ranges::find(segments, peer).is_some_and(|ports| ports.contains(protocol, port))
            };
            self.peers.ports(id, group, peer).contains(protocol, port)
                || group.segments_of(family_of(peer)).is_some_and(in_ranges)
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
