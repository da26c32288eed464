//! Which devices a container gets: pure.

use std::collections::{BTreeMap, BTreeSet};

use super::error::DeviceError;
use super::state::{Device, State};
use super::topology::Nodes;

/// Devices to choose from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Candidates {
    /// Devices that the container gets in any case: init containers before it are done with them, or
    /// there are not enough on its NUMA nodes to choose from.
    pub(super) reused: BTreeSet<String>,
    /// Healthy ones that nobody has, best first.
    pub(super) free: Vec<String>,
    /// How many of those it needs.
    pub(super) needed: usize,
}

/// Fails if there are not enough.
pub(super) fn candidates(
    state: &State,
    resource: &str,
    wanted: usize,
    reusable: &BTreeSet<String>,
    nodes: Option<Nodes>,
) -> Result<Candidates, DeviceError> {
    let name = || resource.to_owned();
    let known = state.resources.get(resource).ok_or_else(|| DeviceError::Unregistered(name()))?;
    if !known.devices.values().any(|device| device.healthy) {
        return Err(DeviceError::NoneHealthy(name()));
    }
    let reused: BTreeSet<String> = reusable.iter().take(wanted).cloned().collect();
    let needed = wanted - reused.len();
    let in_use = state.in_use(resource);
    let free: BTreeMap<&String, &Device> = known
        .devices
        .iter()
        .filter(|(id, device)| device.healthy && !in_use.contains(*id) && !reused.contains(*id))
        .collect();
    if free.len() < needed {
        let (requested, available) = (needed, free.len());
        return Err(DeviceError::TooFew { resource: name(), requested, available });
    }
    let Some(nodes) = nodes else {
        return Ok(Candidates { reused, free: in_order(&free, needed), needed });
    };
    let (aligned, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        free.into_iter().partition(|(_, device)| nodes.has(device));
    if aligned.len() >= needed {
        return Ok(Candidates { reused, free: in_order(&aligned, needed), needed });
    }
    let needed = needed - aligned.len();
    let reused = reused.into_iter().chain(aligned.into_keys().cloned()).collect();
    Ok(Candidates { reused, free: in_order(&others, needed), needed })
}

/// The devices of one NUMA node first: of the fullest that suffices, so that larger groups stay
/// whole, or else of the largest.
fn in_order(free: &BTreeMap<&String, &Device>, needed: usize) -> Vec<String> {
    let mut nodes: BTreeMap<i64, Vec<&String>> = BTreeMap::new();
    for (id, device) in free {
        for node in &device.numa_nodes {
            nodes.entry(*node).or_default().push(id);
        }
    }
    let mut groups: Vec<Vec<&String>> = nodes.into_values().collect();
    groups.sort_by_key(|group| match group.len() {
        enough if enough >= needed => (0, enough),
        few => (1, usize::MAX - few),
    });
    let mut order: Vec<String> = Vec::new();
    for id in groups.into_iter().flatten().chain(free.keys().copied()) {
        if !order.contains(id) {
            order.push(id.clone());
        }
    }
    order
}

impl Candidates {
    /// Chooses: those that the plugin prefers first.
    pub(super) fn choose(&self, preferred: &[String]) -> BTreeSet<String> {
        let preferred = preferred.iter().filter(|id| self.free.contains(id));
        let mut chosen: Vec<&String> = Vec::new();
        for id in preferred.chain(&self.free) {
            if chosen.len() < self.needed && !chosen.contains(&id) {
                chosen.push(id);
            }
        }
        self.reused.iter().chain(chosen).cloned().collect()
    }

    /// What a plugin is asked to choose from.
    pub(super) fn available(&self) -> Vec<String> {
        self.reused.iter().chain(&self.free).cloned().collect()
    }
}
