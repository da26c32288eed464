//! InterPodAffinity: the pod's preferences, and the preferences of placed pods that select it.

use std::collections::HashMap;

use super::MAX;
use crate::filter::term_matches;
use crate::pod::PodTerm;
use crate::prepare::Prepared;
use crate::snapshot::groups::ByNode;
use crate::snapshot::labels::LabelColumn;
use crate::snapshot::{NodeIndex, Snapshot};

/// Sums of weights by domain, for each topology key.
type Sums<'a> = HashMap<&'a str, (&'a LabelColumn, Vec<i64>)>;

/// Scores; `None`: nobody prefers anything.
pub fn score(snapshot: &Snapshot, prepared: &Prepared, nodes: &[NodeIndex]) -> Option<Vec<i64>> {
    let pod = &prepared.pod;
    let arguments = &prepared.profile.arguments;
    if arguments.ignores_preferences_of_placed_pods && pod.preferred_pods.is_empty() {
        return None;
    }
    let mut sums = Sums::new();
    for ((weight, term), group) in pod.preferred_pods.iter().zip(&prepared.preferred) {
        add(&mut sums, snapshot, term, snapshot.group_counts(*group), *weight);
    }
    let placed =
        [(&snapshot.attracting, arguments.hard_pod_affinity_weight), (&snapshot.preferring, 1)];
    for (terms, weight) in placed {
        for (term, amounts) in terms.iter().filter(|(term, _)| term_matches(snapshot, term, pod)) {
            add(&mut sums, snapshot, term, amounts, weight);
        }
    }
    if sums.is_empty() {
        return None;
    }
    let raw: Vec<i64> = nodes
        .iter()
        .map(|node| {
            let of_keys = sums.values().filter_map(|(column, sums)| {
                column.domain_of(*node).map(|domain| sums[domain as usize])
            });
            of_keys.sum()
        })
        .collect();
    let high = raw.iter().copied().max().unwrap_or(0);
    let low = raw.iter().copied().min().unwrap_or(0);
    let range = (high - low) as f64;
    let normalized = raw.into_iter().map(|value| {
        if high == low { 0 } else { (MAX as f64 * ((value - low) as f64 / range)) as i64 }
    });
    Some(normalized.collect())
}

fn add<'a>(
    sums: &mut Sums<'a>,
    snapshot: &'a Snapshot,
    term: &'a PodTerm,
    amounts: &ByNode,
    weight: i64,
) {
    let Some(column) = snapshot.label(&term.topology_key) else {
        return;
    };
    if amounts.is_empty() || weight == 0 {
        return;
    }
    let (_, sums) =
        sums.entry(&term.topology_key).or_insert_with(|| (column, vec![0; column.domains().len()]));
    for (node, amount) in amounts {
        if let Some(domain) = column.domain_of(*node) {
            sums[domain as usize] += amount * weight;
        }
    }
}
