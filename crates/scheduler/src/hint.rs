//! Queueing hints: which change could make a pod fit that a plugin has rejected.

use api::labels::Requirement;
use k8s_openapi::api::core::v1::Taint;

use crate::filter::{fits_empty_node, term_matches, tolerated};
use crate::plugin::{Plugin, Plugins};
use crate::pod::{NodeTerm, PodInfo, PodTerm, SpreadConstraint};
use crate::profile::Profile;
use crate::snapshot::{NodeChange, NodeIndex, NodeInfo, Snapshot};
use crate::volumes::Volumes;

/// A change of the cluster.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// A pod was placed.
    PodPlaced(&'a PodInfo),
    /// A placed pod is gone.
    PodRemoved(&'a PodInfo),
    /// A placed pod: before, and now.
    PodUpdated(&'a PodInfo, &'a PodInfo),
    /// The room that was made for a pod is no longer kept for it.
    NominationEnded,
    Node(NodeIndex, &'a NodeChange),
    NodeRemoved(&'a NodeInfo),
    /// A claim, by `namespace/name`.
    Claim(&'a str),
    /// A volume, by name.
    Volume(&'a str),
    /// A node says how many volumes it can have, or can have more of them.
    NodeLimits,
    /// A driver has detached a volume.
    Detached(&'a str),
    /// A class, by name.
    StorageClass(&'a str),
    /// A driver says what room it has for volumes of a class.
    StorageCapacity(&'a str),
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
        return matches!(change, Change::Node(_, change) if change.added());
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
        (Plugin::NodePorts | Plugin::VolumeRestrictions, Change::Node(_, change)) => change.added(),
        (Plugin::VolumeBinding | Plugin::VolumeZone, Change::Node(node, change)) => {
            change.changed(snapshot.info(node), |node| &node.labels)
        }
        (Plugin::InterPodAffinity, Change::Node(node, change)) => {
            node_helps_affinity(snapshot.info(node), change, pod)
        }
        (_, Change::Node(node, change)) => node_helps(plugin, snapshot, profile, pod, node, change),
        (Plugin::NodePorts, Change::PodRemoved(other)) => {
            let mut own = pod.ports.iter();
            own.any(|own| other.ports.iter().any(|port| own.conflicts_with(port)))
        }
        (Plugin::NodeResourcesFit, Change::PodRemoved(_) | Change::NominationEnded) => true,
        (Plugin::NodeResourcesFit, Change::PodUpdated(before, now)) => {
            let less = |name: &String| now.request(name) < before.request(name);
            pod.requests.iter().any(|(name, _)| less(name))
        }
        (Plugin::VolumeRestrictions, Change::PodRemoved(other)) => {
            let shares = |claim: &String| other.claims.contains(claim);
            let mut own = pod.disks.iter();
            own.any(|own| other.disks.iter().any(|disk| own.conflicts_with(disk)))
                || (other.namespace == pod.namespace && pod.claims.iter().any(shares))
        }
        (Plugin::NodeVolumeLimits, Change::NodeLimits) => true,
        (Plugin::NodeVolumeLimits, Change::PodRemoved(other)) => {
            !other.claims.is_empty() || !other.inline.is_empty()
        }
        (Plugin::NodeVolumeLimits, Change::Detached(driver)) => {
            !pod.claims.is_empty() || pod.inline.iter().any(|own| own.driver == driver)
        }
        (Plugin::NodeVolumeLimits, Change::Claim(claim)) => uses(pod, claim),
        (Plugin::VolumeBinding | Plugin::VolumeZone, Change::Volume(name)) => {
            volumes.may_use(pod, name)
        }
        (Plugin::VolumeBinding | Plugin::VolumeZone, Change::StorageClass(name)) => {
            volumes.waits_for_class(pod, name)
        }
        (Plugin::VolumeBinding, Change::StorageCapacity(class)) => {
            volumes.waits_for_class(pod, class)
        }
        (
            Plugin::VolumeRestrictions | Plugin::VolumeBinding | Plugin::VolumeZone,
            Change::Claim(claim),
        ) => uses(pod, claim),
        (Plugin::PodTopologySpread, _) => helps_to_spread(change, snapshot, profile, pod),
        (Plugin::InterPodAffinity, _) => helps_affinity(change, snapshot, pod),
        _ => false,
    }
}

/// Whether the node passes a filter of nodes now, and is new or did not before.
fn node_helps(
    plugin: Plugin,
    snapshot: &Snapshot,
    profile: &Profile,
    pod: &PodInfo,
    node: NodeIndex,
    change: &NodeChange,
) -> bool {
    let now = snapshot.info(node);
    match plugin {
        Plugin::NodeUnschedulable => {
            !now.unschedulable && change.was_not(|before| !before.unschedulable)
        }
        Plugin::TaintToleration => {
            let tolerates = |node: &NodeInfo| {
                let hard = |taint: &&Taint| taint.effect != "PreferNoSchedule";
                node.taints.iter().filter(hard).all(|taint| tolerated(&pod.tolerations, taint))
            };
            tolerates(now) && change.was_not(tolerates)
        }
        Plugin::NodeAffinity => {
            let name = snapshot.name(node);
            let suits = |node: &NodeInfo| {
                let label = |requirement: &Requirement| {
                    requirement.matches(|key| node.labels.get(key).cloned())
                };
                let named =
                    |requirement: &Requirement| requirement.matches(|_| Some(name.to_string()));
                let term = |term: &NodeTerm| {
                    let empty = term.labels.is_empty() && term.names.is_empty();
                    !empty && term.labels.iter().all(label) && term.names.iter().all(named)
                };
                let terms = pod.node_terms.as_deref();
                pod.node_selector.iter().all(label)
                    && terms.is_none_or(|terms| terms.iter().any(term))
            };
            suits(now) && change.was_not(suits)
        }
        Plugin::NodeResourcesFit => {
            let more = |before: &NodeInfo| {
                let mut names = pod.requests.iter().filter(|(_, amount)| *amount > 0);
                names.any(|(name, _)| now.allocatable(name) > before.allocatable(name))
            };
            fits_empty_node(snapshot, pod, profile, node) && change.was_not(|before| !more(before))
        }
        Plugin::PodTopologySpread => {
            let keys = spread_keys(snapshot, profile, pod);
            let counts = |node: &NodeInfo| keys.iter().all(|key| node.labels.contains_key(key));
            match &change.0 {
                None => counts(now),
                Some(before) => {
                    let moved =
                        || keys.iter().any(|key| before.labels.get(key) != now.labels.get(key));
                    counts(before) != counts(now)
                        || counts(now) && (moved() || before.taints != now.taints)
                }
            }
        }
        _ => false,
    }
}

fn uses(pod: &PodInfo, claim: &str) -> bool {
    let name = claim.strip_prefix(pod.namespace.as_str()).and_then(|rest| rest.strip_prefix('/'));
    name.is_some_and(|name| pod.claims.iter().any(|own| own == name))
}

fn hard_constraints(
    snapshot: &Snapshot,
    profile: &Profile,
    pod: &PodInfo,
) -> Vec<SpreadConstraint> {
    let (mut spread, _) = profile.spread(pod, &snapshot.services);
    spread.retain(|constraint| constraint.required);
    spread
}

fn spread_keys(snapshot: &Snapshot, profile: &Profile, pod: &PodInfo) -> Vec<String> {
    let constraints = hard_constraints(snapshot, profile, pod);
    constraints.into_iter().map(|constraint| constraint.topology_key).collect()
}

fn helps_to_spread(
    change: Change<'_>,
    snapshot: &Snapshot,
    profile: &Profile,
    pod: &PodInfo,
) -> bool {
    let constraints = || hard_constraints(snapshot, profile, pod);
    match change {
        Change::PodPlaced(other) | Change::PodRemoved(other) => {
            other.namespace == pod.namespace
                && constraints().iter().any(|constraint| constraint.peers.matches(other))
        }
        // A pod that is being deleted no longer counts.
        Change::PodUpdated(before, now) => {
            let same = before.labels == now.labels && before.deleting == now.deleting;
            let counts = |constraint: &SpreadConstraint, pod: &PodInfo| {
                !pod.deleting && constraint.peers.matches(pod)
            };
            let differs = |one: &SpreadConstraint| counts(one, before) != counts(one, now);
            !same && now.namespace == pod.namespace && constraints().iter().any(differs)
        }
        // A domain may be gone.
        Change::NodeRemoved(node) => {
            let keys = spread_keys(snapshot, profile, pod);
            keys.iter().all(|key| node.labels.contains_key(key))
        }
        _ => false,
    }
}

fn helps_affinity(change: Change<'_>, snapshot: &Snapshot, pod: &PodInfo) -> bool {
    let selects = |terms: &[PodTerm], other: &PodInfo| {
        terms.iter().any(|term| term_matches(snapshot, term, other))
    };
    // Affinity looks for one pod that all of its terms select.
    let attracts = |other: &PodInfo| {
        let mut terms = pod.affinity.iter();
        !pod.affinity.is_empty() && terms.all(|term| term_matches(snapshot, term, other))
    };
    match change {
        Change::PodPlaced(other) => attracts(other),
        Change::PodRemoved(other) => {
            selects(&pod.anti_affinity, other) || selects(&other.anti_affinity, pod)
                // With the last of them gone, the pod may be the first of its group.
                || (attracts(other) && attracts(pod))
        }
        Change::PodUpdated(before, now) => {
            let repels = |term: &PodTerm, other: &PodInfo| term_matches(snapshot, term, other);
            let mut anti = pod.anti_affinity.iter();
            before.labels != now.labels
                && (attracts(now) && !attracts(before)
                    || anti.any(|term| repels(term, before) && !repels(term, now))
                    || attracts(before) && !attracts(now) && attracts(pod))
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

/// A node comes into a topology that has what attracts the pod, or leaves one that has what
/// repels it.
fn node_helps_affinity(now: &NodeInfo, change: &NodeChange, pod: &PodInfo) -> bool {
    let Some(before) = &change.0 else {
        let has_key = |term: &PodTerm| now.labels.contains_key(&term.topology_key);
        return !pod.anti_affinity.is_empty() || pod.affinity.iter().any(has_key);
    };
    let value = |node: &NodeInfo, term: &PodTerm| node.labels.get(&term.topology_key).cloned();
    let moved = |term: &PodTerm| value(before, term) != value(now, term);
    pod.affinity.iter().any(|term| moved(term) && value(now, term).is_some())
        || pod.anti_affinity.iter().any(|term| moved(term) && value(before, term).is_some())
}
