//! PodTopologySpread: no domain may have more than `maxSkew` matching pods above the
//! domain with the fewest.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use super::{Filtered, affine_nodes, tolerated};
use crate::pod::{Peers, PodInfo, SpreadConstraint};
use crate::snapshot::{NodeIndex, Snapshot};

/// The nodes that the constraint considers.
fn eligible(snapshot: &Snapshot, pod: &PodInfo, spread: &SpreadConstraint) -> RoaringBitmap {
    let mut eligible = snapshot.nodes().clone();
    if spread.honor_node_affinity
        && let Some(allowed) = affine_nodes(snapshot, pod)
    {
        eligible &= allowed;
    }
    if spread.honor_taints {
        for (taint, nodes) in snapshot.taints() {
            if taint.effect != "PreferNoSchedule" && !tolerated(&pod.tolerations, taint) {
                eligible -= nodes;
            }
        }
    }
    // Only nodes with the topology keys of all hard (or all soft) constraints are considered.
    if let Peers::Selected(_) = spread.peers {
        for other in pod.spread.iter().filter(|other| other.required == spread.required) {
            eligible &= snapshot.with_label(&other.topology_key);
        }
    }
    eligible
}

/// Matching pods per domain, by the domain's value.
fn totals<'a>(
    snapshot: &'a Snapshot,
    pod: &PodInfo,
    spread: &SpreadConstraint,
    eligible: &RoaringBitmap,
) -> HashMap<&'a str, i64> {
    let mut totals = HashMap::new();
    let mut add = |node: NodeIndex, count: i64| {
        if eligible.contains(node)
            && let Some(value) = snapshot.label(node, &spread.topology_key)
        {
            *totals.entry(value).or_default() += count;
        }
    };
    match &spread.peers {
        Peers::OfSet(set) => snapshot.of_set(set).for_each(|(node, count)| add(node, count)),
        peers @ Peers::Selected(_) => snapshot
            .pods_in(&pod.namespace)
            .filter(|placed| !placed.info.deleting && peers.matches(&placed.info))
            .for_each(|placed| add(placed.node, 1)),
    }
    totals
}

pub(super) fn filter(snapshot: &Snapshot, pod: &PodInfo, filtered: &mut Filtered) {
    for spread in pod.spread.iter().filter(|spread| spread.required) {
        let labelled = snapshot.with_label(&spread.topology_key);
        filtered.keep(
            &labelled,
            "node(s) didn't match pod topology spread constraints (missing required label)",
        );
        let eligible = eligible(snapshot, pod, spread);
        let totals = totals(snapshot, pod, spread, &eligible);
        let counts: Vec<(RoaringBitmap, i64)> = snapshot
            .domains(&spread.topology_key)
            .map(|(value, nodes)| (nodes & &eligible, value))
            .filter(|(counted, _)| !counted.is_empty())
            .map(|(counted, value)| (counted, totals.get(value.as_str()).copied().unwrap_or(0)))
            .collect();
        let fewest = if i64::try_from(counts.len()).unwrap_or(i64::MAX) < spread.min_domains {
            0
        } else {
            counts.iter().map(|(_, count)| *count).min().unwrap_or(0)
        };
        let own = i64::from(spread.peers.matches(pod));
        for (nodes, count) in &counts {
            if count + own - fewest > spread.max_skew {
                filtered.reject(nodes, "node(s) didn't match pod topology spread constraints");
            }
        }
    }
}

/// The candidates' scores by the soft constraints, 0 to 100: the fewer matching pods in a node's
/// domains the better, and a key with many domains weighs more. `None`: there are no such
/// constraints.
pub(crate) fn scores(
    snapshot: &Snapshot,
    pod: &PodInfo,
    candidates: &RoaringBitmap,
) -> Option<HashMap<NodeIndex, f64>> {
    let soft = || pod.spread.iter().filter(|spread| !spread.required);
    soft().next()?;
    // A node that lacks a topology key of the pod's own constraints is not scored.
    let considered = |spread: &SpreadConstraint| match spread.peers {
        Peers::OfSet(_) => candidates.clone(),
        Peers::Selected(_) => soft().fold(candidates.clone(), |nodes, other| {
            nodes & snapshot.with_label(&other.topology_key)
        }),
    };
    let mut raw: HashMap<NodeIndex, f64> = HashMap::new();
    for spread in soft() {
        let totals = totals(snapshot, pod, spread, &eligible(snapshot, pod, spread));
        let nodes = considered(spread);
        let values: HashMap<NodeIndex, &str> = nodes
            .iter()
            .filter_map(|node| Some((node, snapshot.label(node, &spread.topology_key)?)))
            .collect();
        let domains: std::collections::HashSet<&str> = values.values().copied().collect();
        let weight = (domains.len() as f64 + 2.0).ln();
        for node in &nodes {
            let score = raw.entry(node).or_default();
            if let Some(value) = values.get(&node) {
                let count = totals.get(value).copied().unwrap_or(0);
                *score += count as f64 * weight + (spread.max_skew - 1) as f64;
            }
        }
    }
    let high = raw.values().copied().fold(0.0, f64::max);
    let low = raw.values().copied().fold(f64::MAX, f64::min);
    for score in raw.values_mut() {
        *score = if high > 0.0 { (high + low - *score) / high * 100.0 } else { 100.0 };
    }
    Some(raw)
}
