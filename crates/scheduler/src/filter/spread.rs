//! PodTopologySpread: no domain may have more than `maxSkew` matching pods above the emptiest.

use roaring::RoaringBitmap;

use super::{Filtered, affine_nodes, tolerated};
use crate::pod::{PodInfo, Spread};
use crate::snapshot::Snapshot;

/// Matching pods per domain, over the nodes that count for the constraint.
pub(crate) fn counts(
    snapshot: &Snapshot,
    pod: &PodInfo,
    spread: &Spread,
) -> Vec<(RoaringBitmap, i64)> {
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
    // Only nodes with the keys of all constraints of the same strictness are compared.
    for other in pod
        .spread
        .iter()
        .filter(|other| other.required == spread.required)
    {
        eligible &= snapshot.with_label(&other.topology_key);
    }
    snapshot
        .domains(&spread.topology_key)
        .filter_map(|(_, nodes)| {
            let counted = nodes & &eligible;
            if counted.is_empty() {
                return None;
            }
            let matching = snapshot
                .pods_in(&pod.namespace)
                .filter(|placed| {
                    counted.contains(placed.node)
                        && spread.selector.matches(Some(&placed.info.labels))
                })
                .count();
            Some((counted, i64::try_from(matching).unwrap_or(i64::MAX)))
        })
        .collect()
}

pub(super) fn filter(snapshot: &Snapshot, pod: &PodInfo, filtered: &mut Filtered) {
    for spread in pod.spread.iter().filter(|spread| spread.required) {
        let keyed = snapshot.with_label(&spread.topology_key);
        filtered.keep(
            &keyed,
            "node(s) didn't match pod topology spread constraints (missing required label)",
        );
        let counts = counts(snapshot, pod, spread);
        let fewest = if i64::try_from(counts.len()).unwrap_or(i64::MAX) < spread.min_domains {
            0
        } else {
            counts.iter().map(|(_, count)| *count).min().unwrap_or(0)
        };
        let own = i64::from(spread.selector.matches(Some(&pod.labels)));
        for (nodes, count) in &counts {
            if count + own - fewest > spread.max_skew {
                filtered.refuse(
                    nodes,
                    "node(s) didn't match pod topology spread constraints",
                );
            }
        }
    }
}
