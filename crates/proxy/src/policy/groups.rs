//! Groups: pods of this node that have the same policies in a direction.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::model::{Hashed, Peer, Rule};
use super::ports::{Ids, PortSet};
use super::ranges::{self, Range};
use crate::model::NamedPort;
use crate::nft::Family;
use crate::plan::family_of;
use crate::table::Direction;

/// What determines the rules of a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupKey {
    pub direction: Direction,
    /// The namespace of the pods and policies.
    pub namespace: Arc<str>,
    pub policies: Vec<Arc<Hashed>>,
    /// The ports that names in ingress rules refer to; empty if there are no such rules.
    pub named_ports: Vec<NamedPort>,
}

/// The rules of a group.
#[derive(Debug)]
pub struct Group {
    pub key: Arc<GroupKey>,
    /// The sets of ports of its rules, by number: the first one is [`PortSet::All`].
    pub port_sets: Vec<PortSet>,
    /// The number of the set of each rule; `None` without any port.
    pub rules: Vec<Option<u32>>,
    /// The address ranges that may use a set.
    pub ranges: BTreeMap<(Family, u32), Vec<Range>>,
    /// The number of pods.
    pods: usize,
}

/// All groups by id.
#[derive(Debug, Default)]
pub struct Groups {
    ids: Ids<Arc<GroupKey>>,
    groups: BTreeMap<u32, Group>,
}

impl GroupKey {
    pub fn new(
        direction: Direction,
        namespace: Arc<str>,
        policies: Vec<Arc<Hashed>>,
        named_ports: &[NamedPort],
    ) -> Self {
        let mut key = Self { direction, namespace, policies, named_ports: Vec::new() };
        let uses_names =
            direction == Direction::Ingress && key.rules().any(|rule| rule.has_named_ports());
        if uses_names {
            key.named_ports = named_ports.to_vec();
        }
        key
    }

    /// The rules of all policies.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.policies.iter().flat_map(|policy| policy.rules(self.direction).into_iter().flatten())
    }
}

impl Group {
    fn new(key: Arc<GroupKey>) -> Self {
        let mut port_sets = vec![PortSet::All];
        let mut rules = Vec::new();
        let mut allowed: BTreeMap<(Family, u32), Vec<Range>> = BTreeMap::new();
        for rule in key.rules() {
            // The names in egress rules are resolved by each peer.
            let ports = rule.resolve(&key.named_ports);
            if ports.is_none() {
                rules.push(None);
                continue;
            }
            let known = port_sets.iter().position(|set| *set == ports);
            let set = known.unwrap_or(port_sets.len());
            if known.is_none() {
                port_sets.push(ports);
            }
            let set = u32::try_from(set).expect("a group has fewer rules than that");
            rules.push(Some(set));
            match &rule.peers {
                None => {
                    for family in [Family::V4, Family::V6] {
                        allowed.entry((family, set)).or_default().push(ranges::whole(family));
                    }
                }
                Some(peers) => {
                    for peer in peers {
                        if let Peer::Block { cidr, except } = peer {
                            let here = allowed.entry((family_of(cidr.addr()), set)).or_default();
                            here.extend(ranges::without(*cidr, except));
                        }
                    }
                }
            }
        }
        let ranges = allowed.into_iter().map(|(at, ranges)| (at, ranges::merged(ranges)));
        Self { port_sets, rules, ranges: ranges.collect(), key, pods: 0 }
    }

    /// The number of sets of ports, besides the one of all ports.
    pub fn set_count(&self) -> u32 {
        u32::try_from(self.port_sets.len() - 1).expect("a group has fewer rules than that")
    }
}

impl Groups {
    pub fn get(&self, id: u32) -> Option<&Group> {
        self.groups.get(&id)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &Group)> {
        self.groups.iter().map(|(id, group)| (*id, group))
    }

    /// The id of the group for one more pod, and whether it is new.
    pub fn acquire(&mut self, key: GroupKey) -> (u32, bool) {
        let key = Arc::new(key);
        let (id, new) = self.ids.id(super::hash(&key), key.clone());
        self.groups.entry(id).or_insert_with(|| Group::new(key)).pods += 1;
        (id, new)
    }

    /// One pod less.
    pub fn release(&mut self, id: u32) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.pods -= 1;
        }
    }

    /// Removes the groups without pods; returns their ids.
    pub fn remove_unused(&mut self) -> Vec<u32> {
        let unused = self.groups.iter().filter(|(_, group)| group.pods == 0);
        let unused: Vec<u32> = unused.map(|(id, _)| *id).collect();
        for id in &unused {
            self.groups.remove(id);
            self.ids.remove(*id);
        }
        unused
    }
}
