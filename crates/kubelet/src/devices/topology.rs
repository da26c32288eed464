//! From which NUMA nodes a container gets its devices: pure (`pkg/kubelet/cm/topologymanager`).
//!
//! Each resource gives hints: the sets of nodes that have enough devices of it. Sets that are as small
//! as they can be on an idle machine are preferred. The best set that suits all resources is chosen; the
//! policy says whether that is good enough.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::ValueEnum;

use super::state::{Device, Resource};

/// More make too many sets, as upstream.
const MAX_NODES: usize = 8;

/// `--topology-manager-policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// Devices come from anywhere.
    #[default]
    None,
    /// From as few nodes as possible.
    BestEffort,
    /// A pod that would get them from more nodes than an idle machine needs is rejected.
    Restricted,
    /// A pod that would get them from more than one node is rejected.
    SingleNumaNode,
}

/// `--topology-manager-scope`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// Each container has its own nodes.
    #[default]
    Container,
    /// All containers of a pod have the same ones.
    Pod,
}

/// A set of NUMA nodes: bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nodes(u64);

impl Nodes {
    fn of(ids: impl IntoIterator<Item = i64>) -> Self {
        let bit = |id: i64| u32::try_from(id).ok().and_then(|id| 1_u64.checked_shl(id));
        Self(ids.into_iter().filter_map(bit).fold(0, |all, bit| all | bit))
    }

    fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// Fewer nodes, or of as many the lower ones.
    fn is_narrower(self, than: Self) -> bool {
        (self.count(), self.0) < (than.count(), than.0)
    }

    pub(super) fn has(self, device: &Device) -> bool {
        self.0 & Self::of(device.numa_nodes.iter().copied()).0 != 0
    }

    /// Every set of some of these nodes.
    fn subsets(self) -> impl Iterator<Item = Self> {
        let mut next = Some(self.0);
        std::iter::from_fn(move || {
            let set = next.filter(|set| *set != 0)?;
            next = Some((set - 1) & self.0);
            Some(Self(set))
        })
    }
}

/// Nodes that a resource can be given from; `None`: any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Hint {
    nodes: Option<Nodes>,
    preferred: bool,
}

/// The devices of a resource that a container could get.
pub(super) struct Wanted<'a> {
    pub(super) resource: &'a Resource,
    pub(super) number: usize,
    /// That nobody has.
    pub(super) available: BTreeSet<String>,
    /// That it gets before others.
    pub(super) reusable: BTreeSet<String>,
}

/// The machine's NUMA nodes, and how much they count.
#[derive(Clone, Copy, Debug)]
pub struct Topology {
    policy: Policy,
    pub(super) scope: Scope,
    all: Nodes,
}

impl Topology {
    /// Reads the machine's nodes.
    ///
    /// # Errors
    /// There are more than a policy can be followed for.
    pub fn read(policy: Policy, scope: Scope) -> Result<Self, String> {
        let online = fs::read_to_string(Path::new("/sys/devices/system/node/online"));
        Self::new(policy, scope, &numbers(&online.unwrap_or_else(|_| "0".to_owned())))
    }

    pub(super) fn new(policy: Policy, scope: Scope, nodes: &[i64]) -> Result<Self, String> {
        let all = Nodes::of(nodes.iter().copied());
        let countable = all.count() as usize == nodes.len();
        if policy != Policy::None && (nodes.len() > MAX_NODES || !countable) {
            return Err(format!(
                "unsupported on machines with more than {MAX_NODES} NUMA Nodes: there are {}",
                nodes.len()
            ));
        }
        Ok(Self { policy, scope, all })
    }

    pub(super) fn is_followed(&self) -> bool {
        self.policy != Policy::None
    }

    /// The nodes to take devices from, `None` for any; `Err(())` if the policy forbids it.
    pub(super) fn choose(&self, wanted: &[Wanted<'_>]) -> Result<Option<Nodes>, ()> {
        let mut hints: Vec<Vec<Hint>> = wanted.iter().map(|wanted| self.hints(wanted)).collect();
        if self.policy == Policy::SingleNumaNode {
            let single =
                |hint: &Hint| hint.preferred && hint.nodes.is_none_or(|nodes| nodes.count() == 1);
            hints.iter_mut().for_each(|hints| hints.retain(single));
        }
        let best = self.merge(&hints);
        let nodes = best.nodes.filter(|nodes| *nodes != self.all);
        match self.policy {
            Policy::None => Ok(None),
            Policy::BestEffort => Ok(nodes),
            Policy::Restricted | Policy::SingleNumaNode if best.preferred => Ok(nodes),
            Policy::Restricted | Policy::SingleNumaNode => Err(()),
        }
    }

    fn hints(&self, wanted: &Wanted<'_>) -> Vec<Hint> {
        let devices = &wanted.resource.devices;
        if devices.values().all(|device| device.numa_nodes.is_empty()) {
            return vec![Hint { nodes: None, preferred: true }];
        }
        let within = |set: Nodes, ids: &BTreeSet<String>| {
            ids.iter().filter_map(|id| devices.get(id)).filter(|device| set.has(device)).count()
        };
        let placed: BTreeSet<String> = wanted
            .reusable
            .iter()
            .filter(|id| devices.get(*id).is_some_and(|device| !device.numa_nodes.is_empty()))
            .cloned()
            .collect();
        let mut smallest = self.all.count();
        let mut sets = Vec::new();
        for set in self.all.subsets() {
            let has = devices.values().filter(|device| set.has(device)).count();
            if has >= wanted.number {
                smallest = smallest.min(set.count());
            }
            let reused = within(set, &placed);
            if reused == placed.len() && reused + within(set, &wanted.available) >= wanted.number {
                sets.push(set);
            }
        }
        if sets.is_empty() {
            return vec![Hint { nodes: None, preferred: false }];
        }
        let hint = |set: Nodes| Hint { nodes: Some(set), preferred: set.count() == smallest };
        sets.into_iter().map(hint).collect()
    }

    /// The best of what suits one hint of each resource.
    fn merge(&self, hints: &[Vec<Hint>]) -> Hint {
        // What all resources so far have in common, the first one's nodes, and whether all prefer it.
        let mut merged: BTreeSet<(Nodes, Option<Nodes>, bool)> = [(self.all, None, true)].into();
        for hints in hints {
            merged = merged
                .into_iter()
                .flat_map(|(common, first, preferred)| {
                    hints.iter().map(move |hint| {
                        let nodes = hint.nodes.unwrap_or(common);
                        let first = first.or(hint.nodes);
                        let same = hint.nodes.is_none() || hint.nodes == first;
                        (Nodes(common.0 & nodes.0), first, preferred && hint.preferred && same)
                    })
                })
                .collect();
        }
        let fewest =
            |hints: &Vec<Hint>| hints.iter().filter_map(|hint| hint.nodes).map(Nodes::count).min();
        let needed = hints.iter().filter_map(fewest).max().unwrap_or(0);
        let mut best: Option<(Nodes, bool)> = None;
        for (common, _, preferred) in merged {
            if common.count() > 0
                && best.is_none_or(|best| is_better((common, preferred), best, needed))
            {
                best = Some((common, preferred));
            }
        }
        let (nodes, preferred) = best.unwrap_or((self.all, false));
        Hint { nodes: Some(nodes), preferred }
    }
}

/// Whether a set is better than another one. Of those that are not preferred, the one with as many
/// nodes as the resources need is best, or else the one that is closest to that.
fn is_better(one: (Nodes, bool), than: (Nodes, bool), needed: u32) -> bool {
    let ((nodes, preferred), (other, other_preferred)) = (one, than);
    if preferred != other_preferred {
        return preferred;
    }
    if preferred {
        return nodes.is_narrower(other);
    }
    // Too few nodes are worse than too many; of too few, more are better.
    let rank = |nodes: Nodes| match nodes.count() {
        count if count >= needed => (0, count, nodes.0),
        count => (1, needed - count, nodes.0),
    };
    rank(nodes) < rank(other)
}

/// `0-1,3`.
fn numbers(text: &str) -> Vec<i64> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.parse::<i64>().ok()?..=to.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Devices by node, of which those whose names begin with `x` are in use.
    fn resource(devices: &[(&str, &[i64])]) -> (Resource, BTreeSet<String>) {
        let of = |numa_nodes: &[i64]| Device { healthy: true, numa_nodes: numa_nodes.to_vec() };
        let all = devices.iter().map(|(id, nodes)| ((*id).to_owned(), of(nodes))).collect();
        let free = devices.iter().map(|(id, _)| (*id).to_owned());
        let free = free.filter(|id| !id.starts_with('x')).collect();
        (Resource { devices: all, ..Default::default() }, free)
    }

    fn choose(
        policy: Policy,
        resources: &[(&(Resource, BTreeSet<String>), usize)],
        reusable: &[&str],
    ) -> Result<Vec<u32>, ()> {
        let topology = Topology::new(policy, Scope::Container, &[0, 1, 2, 3]).unwrap();
        let wanted: Vec<Wanted<'_>> = resources
            .iter()
            .map(|((resource, free), number)| Wanted {
                resource,
                number: *number,
                available: free.clone(),
                reusable: reusable.iter().map(ToString::to_string).collect(),
            })
            .collect();
        let nodes = topology.choose(&wanted)?;
        Ok((0..4).filter(|node| nodes.is_some_and(|nodes| nodes.0 & 1 << node != 0)).collect())
    }

    #[test]
    fn policies_choose_nodes_and_refuse() {
        use Policy::{BestEffort, None, Restricted, SingleNumaNode};
        let gpus = resource(&[("a", &[0]), ("b", &[1]), ("c", &[1]), ("d", &[2]), ("e", &[2])]);
        let nics = resource(&[("n", &[2]), ("o", &[3])]);
        let busy = resource(&[("a", &[0]), ("x1", &[0]), ("b", &[1]), ("x2", &[1])]);
        let anywhere = resource(&[("p", &[]), ("q", &[])]);
        let any = Ok(vec![]);
        let on = |nodes: &[u32]| Ok(nodes.to_vec());
        for (what, resources, policies) in [
            (
                "one",
                vec![(&gpus, 1)],
                [(BestEffort, on(&[0])), (Restricted, on(&[0])), (SingleNumaNode, on(&[0]))],
            ),
            (
                "two of one node",
                vec![(&gpus, 2)],
                [(BestEffort, on(&[1])), (Restricted, on(&[1])), (SingleNumaNode, on(&[1]))],
            ),
            (
                "three need two nodes, on any machine",
                vec![(&gpus, 3)],
                [(BestEffort, on(&[0, 1])), (Restricted, on(&[0, 1])), (SingleNumaNode, Err(()))],
            ),
            (
                "near the network",
                vec![(&gpus, 2), (&nics, 1)],
                [(BestEffort, on(&[2])), (Restricted, on(&[2])), (SingleNumaNode, on(&[2]))],
            ),
            (
                "two would fit on one node if they were free",
                vec![(&busy, 2)],
                [(BestEffort, on(&[0, 1])), (Restricted, Err(())), (SingleNumaNode, Err(()))],
            ),
            (
                "more than there are",
                vec![(&busy, 3)],
                [(BestEffort, any.clone()), (Restricted, Err(())), (SingleNumaNode, Err(()))],
            ),
            (
                "from anywhere",
                vec![(&anywhere, 2)],
                [
                    (BestEffort, any.clone()),
                    (Restricted, any.clone()),
                    (SingleNumaNode, any.clone()),
                ],
            ),
            (
                "one of them from anywhere",
                vec![(&anywhere, 2), (&nics, 1)],
                [(BestEffort, on(&[2])), (Restricted, on(&[2])), (SingleNumaNode, on(&[2]))],
            ),
            (
                "nothing",
                vec![],
                [(BestEffort, any.clone()), (Restricted, any.clone()), (None, any.clone())],
            ),
        ] {
            for (policy, expected) in policies {
                assert_eq!(choose(policy, &resources, &[]), expected, "{what}: {policy:?}");
            }
        }
    }

    #[test]
    fn devices_that_are_reused_are_on_the_nodes() {
        let gpus = resource(&[("xr", &[3]), ("a", &[0]), ("b", &[3])]);
        assert_eq!(choose(Policy::Restricted, &[(&gpus, 2)], &["xr"]), Ok(vec![3]));
        assert_eq!(choose(Policy::BestEffort, &[(&gpus, 3)], &["xr"]), Ok(vec![0, 3]));
    }

    #[test]
    fn nodes_of_the_machine() {
        assert_eq!(numbers("0-1,3\n"), [0, 1, 3]);
        assert_eq!(numbers("0\n"), [0]);
        let many: Vec<i64> = (0..9).collect();
        assert!(Topology::new(Policy::Restricted, Scope::Pod, &many).is_err());
        assert!(Topology::new(Policy::None, Scope::Pod, &many).is_ok());
        let all = Nodes::of([0, 2]);
        let subsets: Vec<u64> = all.subsets().map(|set| set.0).collect();
        assert_eq!(subsets, [0b101, 0b100, 0b001]);
    }
}
