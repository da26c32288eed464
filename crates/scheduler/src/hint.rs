//! Queueing hints: which change could make a pod fit that a plugin has rejected.

use crate::filter::{fits_empty_node, term_matches, tolerated};
use crate::plugin::{Plugin, Plugins};
use crate::pod::{PodInfo, PodTerm};
use crate::prepare::affine_nodes;
use crate::profile::Profile;
use crate::snapshot::{NodeChange, NodeIndex, Snapshot};

/// A change of the cluster.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// A pod was placed, or a placed pod has these labels now.
    PodPlaced(&'a PodInfo),
    /// A placed pod is gone, or had these labels before.
    PodRemoved(&'a PodInfo),
    /// A placed pod requests less.
    PodShrunk,
    Node(NodeIndex, NodeChange),
    NodeRemoved,
    /// A claim, by `namespace/name`.
    Claim(&'a str),
    Volume,
    StorageClass,
    Namespace,
}

/// Whether the change could help a pod that these plugins have rejected. No plugin: there was no
/// node.
pub fn helps(
    change: Change<'_>,
    snapshot: &Snapshot,
    profile: &Profile,
    pod: &PodInfo,
    plugins: Plugins,
) -> bool {
    if plugins == Plugins::default() {
        return matches!(change, Change::Node(_, change) if change.added);
    }
    plugins.iter().any(|plugin| helps_against(plugin, change, snapshot, profile, pod))
}

fn helps_against(
    plugin: Plugin,
    change: Change<'_>,
    snapshot: &Snapshot,
    profile: &Profile,
    pod: &PodInfo,
) -> bool {
    match (plugin, change) {
        (Plugin::NodeUnschedulable, Change::Node(node, change)) => {
            change.unschedulable && !snapshot.unschedulable().contains(node)
        }
        (Plugin::TaintToleration, Change::Node(node, change)) => {
            let mut taints = snapshot.taints_of(node).iter();
            change.taints
                && taints.all(|taint| {
                    taint.effect == "PreferNoSchedule" || tolerated(&pod.tolerations, taint)
                })
        }
        (Plugin::NodeAffinity, Change::Node(node, change)) => {
            let affine = || affine_nodes(snapshot, pod);
            change.labels && affine().is_none_or(|nodes| nodes.contains(node))
        }
        (Plugin::NodePorts, Change::PodRemoved(other)) => !other.ports.is_empty(),
        (Plugin::NodePorts, Change::Node(_, change)) => change.added,
        (Plugin::NodeResourcesFit, Change::PodRemoved(_) | Change::PodShrunk) => true,
        (Plugin::NodeResourcesFit, Change::Node(node, change)) => {
            change.allocatable && fits_empty_node(snapshot, pod, profile, node)
        }
        (Plugin::VolumeRestrictions, Change::PodRemoved(other)) => {
            !other.disks.is_empty() || !other.claims.is_empty()
        }
        (Plugin::VolumeBinding | Plugin::VolumeZone, Change::Volume | Change::StorageClass) => true,
        (
            Plugin::VolumeRestrictions | Plugin::VolumeBinding | Plugin::VolumeZone,
            Change::Claim(claim),
        ) => uses(pod, claim),
        (
            Plugin::VolumeRestrictions | Plugin::VolumeBinding | Plugin::VolumeZone,
            Change::Node(_, change),
        ) => change.labels,
        (Plugin::PodTopologySpread, _) => helps_to_spread(change, profile, pod),
        (Plugin::InterPodAffinity, _) => helps_affinity(change, snapshot, pod),
        _ => false,
    }
}

fn uses(pod: &PodInfo, claim: &str) -> bool {
    let name = claim.strip_prefix(pod.namespace.as_str()).and_then(|rest| rest.strip_prefix('/'));
    name.is_some_and(|name| pod.claims.iter().any(|own| own == name))
}

fn helps_to_spread(change: Change<'_>, profile: &Profile, pod: &PodInfo) -> bool {
    match change {
        Change::PodPlaced(other) | Change::PodRemoved(other) => {
            let (spread, _) = profile.spread(pod);
            other.namespace == pod.namespace
                && spread.iter().any(|constraint| constraint.peers.matches(other))
        }
        Change::Node(_, change) => change.labels || change.taints,
        Change::NodeRemoved => true,
        _ => false,
    }
}

fn helps_affinity(change: Change<'_>, snapshot: &Snapshot, pod: &PodInfo) -> bool {
    let selects = |terms: &[PodTerm], other: &PodInfo| {
        terms.iter().any(|term| term_matches(snapshot, term, other))
    };
    match change {
        Change::PodPlaced(other) => selects(&pod.affinity, other),
        Change::PodRemoved(other) => {
            selects(&pod.anti_affinity, other) || selects(&other.anti_affinity, pod)
                // With the last of them gone, the pod may be the first of its group.
                || selects(&pod.affinity, other)
        }
        Change::Node(_, change) => change.labels,
        Change::Namespace => true,
        _ => false,
    }
}
