//! Groups: pods of this node that have the same policies in a direction.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::model::{Hashed, Peer, Rule};
use super::ports::{Ids, PortSet};
use super::ranges::{self, Range, Segment};
use crate::model::NamedPort;
use crate::nft::Family;
use crate::table::Direction;

/// The families, in the order of [`Group::segments`].
const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

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
    /// What is allowed with address ranges of each family.
    pub segments: [Vec<Segment>; 2],
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

    /// The ports of a rule for any peer, or a peer with these named ports.
    pub fn ports(&self, rule: &Rule, peer: &[NamedPort]) -> PortSet {
        match self.direction {
            Direction::Ingress => rule.resolve(&self.named_ports),
            Direction::Egress => rule.resolve(peer),
        }
    }

    fn segments(&self, family: Family) -> Vec<Segment> {
        let mut allowed: Vec<(Range, PortSet)> = Vec::new();
        for rule in self.rules() {
            let ports = self.ports(rule, &[]);
            let Some(peers) = &rule.peers else {
                allowed.push((ranges::whole(family), ports));
                continue;
            };
            for peer in peers {
                let Peer::Block { cidr, except } = peer else {
                    continue;
                };
                if crate::plan::family_of(cidr.addr()) == family {
                    let parts = ranges::without(*cidr, except).into_iter();
                    allowed.extend(parts.map(|range| (range, ports.clone())));
                }
            }
        }
        ranges::segments(family, &allowed)
    }
}

impl Group {
    pub fn segments_of(&self, family: Family) -> Option<&Vec<Segment>> {
        FAMILIES.iter().zip(&self.segments).find(|(one, _)| **one == family).map(|(_, found)| found)
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
        let group = self.groups.entry(id).or_insert_with(|| {
            let segments = FAMILIES.map(|family| key.segments(family));
            Group { key, segments, pods: 0 }
        });
        group.pods += 1;
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
