//! PodTopologySpread: the fewer matching pods in a node's domains the better. A key with many
//! domains weighs more.

use super::MAX;
use crate::filter::{domain_totals, eligible};
use crate::prepare::Prepared;
use crate::snapshot::{NodeIndex, Snapshot};

/// The topology whose domains are single nodes.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Scores by the soft constraints; `None`: there are none.
pub fn score(snapshot: &Snapshot, prepared: &Prepared, nodes: &[NodeIndex]) -> Option<Vec<i64>> {
    let soft = || prepared.spread.iter().filter(|(constraint, _)| !constraint.required);
    soft().next()?;
    let has_every_key = |node: NodeIndex| {
        soft().all(|(constraint, _)| {
            let column = snapshot.label(&constraint.topology_key);
            column.is_some_and(|column| column.domain_of(node).is_some())
        })
    };
    // A node that lacks a topology key of the pod's own constraints is not scored.
    let considered: Vec<bool> =
        nodes.iter().map(|node| !prepared.every_key || has_every_key(*node)).collect();
    let mut raw = vec![0.0; nodes.len()];
    for (constraint, group) in soft() {
        let Some(column) = snapshot.label(&constraint.topology_key) else {
            continue;
        };
        let mut seen = vec![false; column.domains().len()];
        let of_considered = nodes.iter().zip(&considered).filter(|(_, considered)| **considered);
        for domain in of_considered.filter_map(|(node, _)| column.domain_of(*node)) {
            seen[domain as usize] = true;
        }
        let by_host = constraint.topology_key == HOSTNAME;
        let domains =
            if by_host { &considered } else { &seen }.iter().filter(|seen| **seen).count();
        let weight = (domains as f64 + 2.0).ln();
        let eligible = eligible(snapshot, prepared, constraint);
        let counts = snapshot.group_counts(*group);
        let totals = match by_host {
            true => Vec::new(),
            false => domain_totals(snapshot, column, *group, eligible.as_ref()),
        };
        let counted = |node: NodeIndex| eligible.as_ref().is_none_or(|nodes| nodes.contains(node));
        for (value, node) in raw.iter_mut().zip(nodes) {
            if let Some(domain) = column.domain_of(*node) {
                let count = match by_host {
                    true if counted(*node) => counts.get(node).copied().unwrap_or(0),
                    true => 0,
                    false => totals[domain as usize].unwrap_or(0),
                };
                *value += count as f64 * weight + (constraint.max_skew - 1) as f64;
            }
        }
    }
    let raw: Vec<i64> = raw.into_iter().map(|value| value.round() as i64).collect();
    let of_considered = || raw.iter().zip(&considered).filter(|(_, seen)| **seen);
    let high = of_considered().map(|(value, _)| *value).max().unwrap_or(0);
    let low = of_considered().map(|(value, _)| *value).min().unwrap_or(0);
    let normalized = raw.iter().zip(&considered).map(|(value, considered)| match considered {
        false => 0,
        true if high == 0 => MAX,
        true => MAX * (high + low - value) / high,
    });
    Some(normalized.collect())
}
