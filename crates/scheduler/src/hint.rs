//! Queueing hints: which change could make a pod fit that a plugin has rejected.

use crate::filter::{fits_empty_node, term_matches, tolerated};
use crate::plugin::{Plugin, Plugins};
use crate::pod::{PodInfo, PodTerm};
use crate::prepare::affine_nodes;
use crate::profile::Profile;
use crate::snapshot::{NodeChange, NodeIndex, Snapshot};
use crate::volumes::Volumes;

/// A change of the cluster.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// A pod was placed, or a placed pod has these labels now.
    PodPlaced(&'a PodInfo),
    /// A placed pod is gone, or had these labels before.
    PodRemoved(&'a PodInfo),
    /// A placed pod requests other amounts: before, and now.
    PodResized(&'a PodInfo, &'a PodInfo),
    /// The room that was made for a pod is no longer kept for it.
    NominationEnded,
    Node(NodeIndex, NodeChange),
    NodeRemoved,
    /// A claim, by `namespace/name`.
    Claim(&'a str),
    /// A volume, by name.
    Volume(&'a str),
    /// How many volumes a node can have.
    NodeLimits,
    /// A class, by name.
    StorageClass(&'a str),
    /// The labels of a namespace.
    Namespace,
}

/// What the waiting pods are compared with.
#[derive(Clone, Copy)]
pub struct Cluster<'a> {
    pub snapshot: &'a Snapshot,
    pub volumes: &'a Volumes,
}

/// Whether the change could help a pod that these plugins have rejected. No plugin: there was no
/// node.
pub fn helps(
    change: Change<'_>,
    cluster: Cluster<'_>,
    profile: &Profile,
    pod: &PodInfo,
    plugins: Plugins,
) -> bool {
    if plugins == Plugins::default() {
        return matches!(change, Change::Node(_, change) if change.added);
    }
    plugins.iter().any(|plugin| helps_against(plugin, change, cluster, profile, pod))
}

fn helps_against(
    plugin: Plugin,
    change: Change<'_>,
    cluster: Cluster<'_>,
    profile: &Profile,
    pod: &PodInfo,
) -> bool {
    let Cluster { snapshot, volumes } = cluster;
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
        (Plugin::NodePorts, Change::PodRemoved(other)) => {
            let mut own = pod.ports.iter();
            own.any(|own| other.ports.iter().any(|port| own.conflicts_with(port)))
        }
        (Plugin::NodePorts, Change::Node(_, change)) => change.added,
        (Plugin::NodeResourcesFit, Change::PodRemoved(_) | Change::NominationEnded) => true,
        (Plugin::NodeResourcesFit, Change::PodResized(before, now)) => {
            let less = |name: &String| now.request(name) < before.request(name);
            pod.requests.iter().any(|(name, _)| less(name))
        }
        (Plugin::NodeResourcesFit, Change::Node(node, change)) => {
            change.allocatable && fits_empty_node(snapshot, pod, profile, node)
        }
        (Plugin::VolumeRestrictions, Change::PodRemoved(other)) => {
            let shares = |claim: &String| other.claims.contains(claim);
            let mut own = pod.disks.iter();
            own.any(|own| other.disks.iter().any(|disk| own.conflicts_with(disk)))
                || (other.namespace == pod.namespace && pod.claims.iter().any(shares))
        }
        (Plugin::NodeVolumeLimits, Change::NodeLimits) => true,
        (Plugin::NodeVolumeLimits, Change::Node(_, change)) => change.added,
        (Plugin::NodeVolumeLimits, Change::PodRemoved(other)) => !other.claims.is_empty(),
        (Plugin::NodeVolumeLimits, Change::Claim(claim)) => uses(pod, claim),
        (Plugin::VolumeBinding | Plugin::VolumeZone, Change::Volume(name)) => {
            volumes.may_use(pod, name)
        }
        (Plugin::VolumeBinding | Plugin::VolumeZone, Change::StorageClass(name)) => {
            volumes.waits_for_class(pod, name)
        }
        (
            Plugin::VolumeRestrictions | Plugin::VolumeBinding | Plugin::VolumeZone,
            Change::Claim(claim),
        ) => uses(pod, claim),
        (
            Plugin::VolumeRestrictions | Plugin::VolumeBinding | Plugin::VolumeZone,
            Change::Node(_, change),
        ) => change.labels,
        (Plugin::PodTopologySpread, _) => helps_to_spread(change, snapshot, profile, pod),
        (Plugin::InterPodAffinity, _) => helps_affinity(change, snapshot, pod),
        _ => false,
    }
}

fn uses(pod: &PodInfo, claim: &str) -> bool {
    let name = claim.strip_prefix(pod.namespace.as_str()).and_then(|rest| rest.strip_prefix('/'));
    name.is_some_and(|name| pod.claims.iter().any(|own| own == name))
}

fn helps_to_spread(
    change: Change<'_>,
    snapshot: &Snapshot,
    profile: &Profile,
    pod: &PodInfo,
) -> bool {
    match change {
        Change::PodPlaced(other) | Change::PodRemoved(other) => {
            let (spread, _) = profile.spread(pod, &snapshot.services);
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
        Change::Node(node, change) => {
            let has_key = |term: &PodTerm| snapshot.with_label(&term.topology_key).contains(node);
            change.labels && pod.affinity.iter().all(has_key)
        }
        Change::Namespace => {
            let mut terms = pod.affinity.iter().chain(&pod.anti_affinity);
            let placed = || snapshot.repelling.iter().map(|(term, _)| term);
            terms.any(|term| term.namespace_selector.is_some())
                || placed().any(|term| term.namespace_selector.is_some())
        }
        _ => false,
    }
}
