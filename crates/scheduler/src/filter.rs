//! Filters: which nodes can run a pod, and why the others cannot.
//!
//! Each filter removes nodes from a bitset and records them under upstream's reason. A node is
//! rejected by the first filter that does not let it through.

mod affinity;
mod nodes;
mod resources;
mod spread;
mod volumes;

use std::collections::BTreeMap;

use roaring::RoaringBitmap;

use crate::plugin::{Plugin, Plugins};
use crate::prepare::Prepared;
use crate::snapshot::Snapshot;

pub(crate) use affinity::term_matches;
pub use nodes::tolerated;
pub use resources::Search;
pub(crate) use resources::fits_empty_node;
pub(crate) use spread::{domain_totals, eligible};

/// Nodes that a filter rejected.
#[derive(Clone, Debug)]
pub struct Rejection {
    pub plugin: Plugin,
    pub reason: String,
    pub nodes: RoaringBitmap,
    /// Whether the removal of pods could help (upstream's Unschedulable, not
    /// UnschedulableAndUnresolvable).
    pub resolvable: bool,
}

/// The nodes that remain, and why the others were rejected.
#[derive(Clone, Debug, Default)]
pub struct Filtered {
    pub nodes: RoaringBitmap,
    /// A node may be in several of the last filter that saw it: it may lack several resources.
    pub rejections: Vec<Rejection>,
    /// Whether only the nodes are wanted, not the reasons.
    quiet: bool,
}

/// How a node was rejected, as in upstream's scheduling framework.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    /// The removal of pods could help.
    Unschedulable,
    /// `UnschedulableAndUnresolvable`: it could not.
    Unresolvable,
}

impl Filtered {
    fn new(nodes: RoaringBitmap) -> Self {
        Self { nodes, ..Self::default() }
    }

    /// Keeps `allowed`; the others fail for `reason`.
    fn keep(&mut self, allowed: &RoaringBitmap, plugin: Plugin, reason: &str, code: Code) {
        let rejected = &self.nodes - allowed;
        self.nodes &= allowed;
        self.record(rejected, plugin, reason, code);
    }

    /// Removes `rejected` for `reason`.
    fn reject(&mut self, rejected: &RoaringBitmap, plugin: Plugin, reason: &str, code: Code) {
        let rejected = &self.nodes & rejected;
        self.nodes -= &rejected;
        self.record(rejected, plugin, reason, code);
    }

    fn record(&mut self, nodes: RoaringBitmap, plugin: Plugin, reason: &str, code: Code) {
        if nodes.is_empty() || self.quiet {
            return;
        }
        let resolvable = code == Code::Unschedulable;
        let same = |known: &&mut Rejection| {
            known.plugin == plugin && known.reason == reason && known.resolvable == resolvable
        };
        match self.rejections.iter_mut().find(same) {
            Some(known) => known.nodes |= nodes,
            None => {
                self.rejections.push(Rejection {
                    plugin,
                    reason: reason.to_owned(),
                    nodes,
                    resolvable,
                });
            }
        }
    }

    /// Nodes on which the removal of pods could help.
    pub fn resolvable(&self) -> RoaringBitmap {
        let mut nodes = RoaringBitmap::new();
        for rejection in self.rejections.iter().filter(|rejection| rejection.resolvable) {
            nodes |= &rejection.nodes;
        }
        for rejection in self.rejections.iter().filter(|rejection| !rejection.resolvable) {
            nodes -= &rejection.nodes;
        }
        nodes
    }

    /// The plugins that rejected nodes.
    pub fn plugins(&self) -> Plugins {
        self.rejections.iter().map(|rejection| rejection.plugin).collect()
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
pub fn message(total: u64, counts: impl IntoIterator<Item = (String, u64)>) -> String {
    let mut by_reason: BTreeMap<String, u64> = BTreeMap::new();
    for (reason, count) in counts {
        *by_reason.entry(reason).or_default() += count;
    }
    let mut parts: Vec<String> = by_reason
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    parts.sort();
    if parts.is_empty() {
        return format!("0/{total} nodes are available:");
    }
    format!("0/{total} nodes are available: {}.", parts.join(", "))
}

/// Counts by reason, for [`message`].
pub fn reasons(rejections: &[Rejection]) -> impl Iterator<Item = (String, u64)> {
    rejections.iter().map(|rejection| (rejection.reason.clone(), rejection.nodes.len()))
}

/// Runs every filter of the profile in its order.
pub fn filter(snapshot: &Snapshot, prepared: &Prepared) -> Filtered {
    let mut filtered = begin(snapshot, prepared);
    for plugin in &prepared.profile.filters {
        run(*plugin, snapshot, prepared, &mut filtered);
    }
    filtered
}

/// Finds nodes among `candidates`, as many as `search` asks for. The resources, which are looked
/// at node by node, come last.
pub fn find(
    snapshot: &Snapshot,
    prepared: &Prepared,
    without: &RoaringBitmap,
    search: &mut Search,
) -> Filtered {
    let mut filtered = begin(snapshot, prepared);
    filtered.nodes -= without;
    let filters = &prepared.profile.filters;
    for plugin in filters.iter().filter(|plugin| **plugin != Plugin::NodeResourcesFit) {
        run(*plugin, snapshot, prepared, &mut filtered);
    }
    if filters.contains(&Plugin::NodeResourcesFit) {
        resources::filter(snapshot, prepared, &mut filtered, Some(search));
    } else {
        search.examined = filtered.nodes.len();
    }
    filtered
}

/// Runs the filters that do not depend on pods over `nodes`.
pub fn filter_lasting(snapshot: &Snapshot, prepared: &Prepared, nodes: RoaringBitmap) -> Filtered {
    let mut filtered = Filtered::new(nodes);
    let filters = prepared.profile.filters.iter();
    for plugin in filters.filter(|plugin| !plugin.row().depends_on_pods) {
        run(*plugin, snapshot, prepared, &mut filtered);
    }
    filtered
}

/// Runs the filters that depend on pods over one node; see [`filter_lasting`].
pub fn filter_node(snapshot: &Snapshot, prepared: &Prepared, node: u32) -> Filtered {
    filter_one(snapshot, prepared, Filtered::new([node].into()))
}

/// Whether the node passes the filters that depend on pods.
pub fn passes(snapshot: &Snapshot, prepared: &Prepared, node: u32) -> bool {
    let quiet = Filtered { quiet: true, ..Filtered::new([node].into()) };
    !filter_one(snapshot, prepared, quiet).nodes.is_empty()
}

fn filter_one(snapshot: &Snapshot, prepared: &Prepared, mut filtered: Filtered) -> Filtered {
    let filters = prepared.profile.filters.iter();
    for plugin in filters.filter(|plugin| plugin.row().depends_on_pods) {
        if filtered.nodes.is_empty() {
            break;
        }
        run(*plugin, snapshot, prepared, &mut filtered);
    }
    filtered
}

fn begin(snapshot: &Snapshot, prepared: &Prepared) -> Filtered {
    let mut filtered = Filtered::new(snapshot.nodes().clone());
    if let Some(named) = &prepared.named
        && prepared.profile.filters.contains(&Plugin::NodeAffinity)
    {
        let reason = if named.is_empty() && prepared.pod.node_terms.iter().flatten().count() > 1 {
            "pod affinity terms conflict"
        } else {
            "node(s) didn't satisfy plugin(s) [NodeAffinity]"
        };
        filtered.keep(named, Plugin::NodeAffinity, reason, Code::Unresolvable);
    }
    filtered
}

fn run(plugin: Plugin, snapshot: &Snapshot, prepared: &Prepared, filtered: &mut Filtered) {
    match plugin {
        Plugin::NodeUnschedulable => nodes::unschedulable(snapshot, prepared, filtered),
        Plugin::TaintToleration => nodes::taints(snapshot, prepared, filtered),
        Plugin::NodeAffinity => nodes::affinity(snapshot, prepared, filtered),
        Plugin::NodePorts => nodes::ports(snapshot, prepared, filtered),
        Plugin::NodeResourcesFit => resources::filter(snapshot, prepared, filtered, None),
        Plugin::VolumeRestrictions => volumes::restrictions(snapshot, prepared, filtered),
        Plugin::VolumeBinding => volumes::binding(snapshot, prepared, filtered),
        Plugin::VolumeZone => volumes::zone(snapshot, prepared, filtered),
        Plugin::PodTopologySpread => spread::filter(snapshot, prepared, filtered),
        Plugin::InterPodAffinity => affinity::filter(snapshot, prepared, filtered),
        Plugin::NodeVolumeLimits => volumes::limits(snapshot, prepared, filtered),
        Plugin::DynamicResources if prepared.pod.claims_devices => {
            // Nothing allocates devices: the pod waits rather than run without them.
            let reason = "cannot allocate all claims";
            filtered.reject(snapshot.nodes(), plugin, reason, Code::Unresolvable);
        }
        // A pod that names its node is not the scheduler's (NodeName); the others do not filter.
        Plugin::NodeName
        | Plugin::SchedulingGates
        | Plugin::PrioritySort
        | Plugin::DynamicResources
        | Plugin::DefaultPreemption
        | Plugin::NodeResourcesBalancedAllocation
        | Plugin::ImageLocality
        | Plugin::DefaultBinder => {}
    }
}
