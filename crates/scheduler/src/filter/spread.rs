//! PodTopologySpread: no domain may have more than `maxSkew` matching pods above the
//! domain with the fewest.

use roaring::RoaringBitmap;

use super::{Code, Filtered, tolerated};
use crate::plugin::Plugin;
use crate::pod::SpreadConstraint;
use crate::prepare::Prepared;
use crate::snapshot::Snapshot;
use crate::snapshot::groups::GroupId;
use crate::snapshot::labels::LabelColumn;

/// The nodes that the constraint considers; `None`: all that have the key.
pub fn eligible(
    snapshot: &Snapshot,
    prepared: &Prepared,
    constraint: &SpreadConstraint,
) -> Option<RoaringBitmap> {
    let mut eligible: Option<RoaringBitmap> = None;
    let mut narrow = |nodes: &RoaringBitmap| match &mut eligible {
        Some(eligible) => *eligible &= nodes,
        None => eligible = Some(nodes.clone()),
    };
    if constraint.honor_node_affinity
        && let Some(allowed) = &prepared.affine
    {
        narrow(allowed);
    }
    if constraint.honor_taints {
        for (taint, nodes) in snapshot.taints() {
            if taint.effect != "PreferNoSchedule" && !tolerated(&prepared.pod.tolerations, taint) {
                narrow(&(snapshot.nodes() - nodes));
            }
        }
    }
    // Only nodes with the topology keys of all hard (or all soft) constraints are considered.
    if prepared.every_key {
        let others = prepared.spread.iter().map(|(other, _)| other).filter(|other| {
            other.required == constraint.required && other.topology_key != constraint.topology_key
        });
        for other in others {
            narrow(&snapshot.with_label(&other.topology_key));
        }
    }
    eligible
}

/// Matching pods on eligible nodes by domain; `None` for domains without eligible nodes.
pub fn domain_totals(
    snapshot: &Snapshot,
    column: &LabelColumn,
    group: GroupId,
    eligible: Option<&RoaringBitmap>,
) -> Vec<Option<i64>> {
    let mut totals: Vec<Option<i64>> = match eligible {
        None => {
            column.domains().iter().map(|domain| (!domain.nodes.is_empty()).then_some(0)).collect()
        }
        Some(eligible) => {
            let mut totals = vec![None; column.domains().len()];
            for domain in eligible.iter().filter_map(|node| column.domain_of(node)) {
                totals[domain as usize] = Some(0);
            }
            totals
        }
    };
    for (node, count) in snapshot.group_counts(group) {
        if let Some(domain) = column.domain_of(*node)
            && let Some(total) = &mut totals[domain as usize]
            && eligible.is_none_or(|eligible| eligible.contains(*node))
        {
            *total += count;
        }
    }
    totals
}

pub fn filter(snapshot: &Snapshot, prepared: &Prepared, filtered: &mut Filtered) {
    for (constraint, group) in prepared.spread.iter().filter(|(spread, _)| spread.required) {
        let reason =
            "node(s) didn't match pod topology spread constraints (missing required label)";
        let labelled = snapshot.with_label(&constraint.topology_key);
        filtered.keep(&labelled, Plugin::PodTopologySpread, reason, Code::Unresolvable);
        let Some(column) = snapshot.label(&constraint.topology_key) else {
            return;
        };
        let eligible = eligible(snapshot, prepared, constraint);
        let totals = domain_totals(snapshot, column, *group, eligible.as_ref());
        let counted = || totals.iter().flatten().copied();
        let few = i64::try_from(counted().count()).unwrap_or(i64::MAX) < constraint.min_domains;
        let fewest = if few { 0 } else { counted().min().unwrap_or(0) };
        let own = i64::from(constraint.peers.matches(&prepared.pod));
        let uneven: RoaringBitmap = filtered
            .nodes
            .iter()
            .filter(|node| {
                let total = column.domain_of(*node).and_then(|domain| totals[domain as usize]);
                total.unwrap_or(0) + own - fewest > constraint.max_skew
            })
            .collect();
        let reason = "node(s) didn't match pod topology spread constraints";
        filtered.reject(&uneven, Plugin::PodTopologySpread, reason, Code::Unschedulable);
    }
}
