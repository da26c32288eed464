//! Scores: which of the nodes that can run a pod is best.
//!
//! Every plugin scores 0 to 100 and has upstream's weight; the highest sum wins. Among equal nodes
//! the caller's `turn` decides, so that they take turns.

use std::collections::HashMap;

use roaring::RoaringBitmap;

use crate::filter::{spread_scores, term_domain, term_matches, tolerated};
use crate::pod::PodInfo;
use crate::snapshot::{CPU, MEMORY, NodeIndex, Snapshot};

const MAX: f64 = 100.0;
const WEIGHT_FIT: f64 = 1.0;
const WEIGHT_BALANCED: f64 = 1.0;
const WEIGHT_TAINTS: f64 = 3.0;
const WEIGHT_NODE_AFFINITY: f64 = 2.0;
const WEIGHT_POD_AFFINITY: f64 = 2.0;
const WEIGHT_SPREAD: f64 = 2.0;

/// The best of `nodes`; `None` only if there are none.
pub fn best(
    snapshot: &Snapshot,
    pod: &PodInfo,
    nodes: &RoaringBitmap,
    turn: u64,
) -> Option<NodeIndex> {
    if nodes.len() <= 1 {
        return nodes.min();
    }
    let mut scores: Vec<(NodeIndex, f64)> =
        nodes.iter().map(|node| (node, resources(snapshot, pod, node as usize))).collect();
    add(&mut scores, WEIGHT_TAINTS, Order::LowFirst, prefer_no_schedule(snapshot, pod));
    add(&mut scores, WEIGHT_NODE_AFFINITY, Order::HighFirst, preferred_nodes(snapshot, pod));
    add(&mut scores, WEIGHT_POD_AFFINITY, Order::Range, preferred_pods(snapshot, pod));
    if let Some(spread) = spread_scores(snapshot, pod, nodes) {
        for (node, score) in &mut scores {
            *score += spread.get(node).copied().unwrap_or(0.0) * WEIGHT_SPREAD;
        }
    }
    let top = scores.iter().map(|(_, score)| *score).fold(f64::MIN, f64::max);
    let equals: Vec<NodeIndex> = scores
        .iter()
        .filter(|(_, score)| (top - score).abs() < 1e-9)
        .map(|(node, _)| *node)
        .collect();
    let pick = usize::try_from(turn % equals.len().max(1) as u64).unwrap_or(0);
    equals.get(pick).copied()
}

/// NodeResourcesFit (LeastAllocated) and NodeResourcesBalancedAllocation.
fn resources(snapshot: &Snapshot, pod: &PodInfo, slot: usize) -> f64 {
    let fraction = |column: usize, asked: i64| {
        let allocatable = snapshot.columns()[column].allocatable[slot];
        if allocatable <= 0 { 1.0 } else { (asked as f64 / allocatable as f64).min(1.0) }
    };
    let (cpu, memory) = snapshot.nonzero_requested[slot];
    let cpu = fraction(CPU, cpu.saturating_add(pod.nonzero_requests.0));
    let memory = fraction(MEMORY, memory.saturating_add(pod.nonzero_requests.1));
    let least = (2.0 - cpu - memory) / 2.0 * MAX;
    let balanced = (1.0 - (cpu - memory).abs() / 2.0) * MAX;
    least * WEIGHT_FIT + balanced * WEIGHT_BALANCED
}

/// How raw values are normalized to 0 to 100.
#[derive(Clone, Copy)]
enum Order {
    HighFirst,
    LowFirst,
    Range,
}

/// Adds a plugin's raw values, normalized over the candidates; an empty map adds nothing.
fn add(scores: &mut [(NodeIndex, f64)], weight: f64, order: Order, raw: HashMap<NodeIndex, f64>) {
    if raw.is_empty() {
        return;
    }
    let value = |node: NodeIndex| raw.get(&node).copied().unwrap_or(0.0);
    let high = scores.iter().map(|(node, _)| value(*node)).fold(f64::MIN, f64::max);
    let low = scores.iter().map(|(node, _)| value(*node)).fold(f64::MAX, f64::min);
    for (node, score) in scores {
        let value = value(*node);
        let normalized = match order {
            Order::HighFirst if high > 0.0 => value / high,
            Order::LowFirst if high > 0.0 => 1.0 - value / high,
            Order::Range if high > low => (value - low) / (high - low),
            Order::HighFirst | Order::LowFirst | Order::Range => 0.0,
        };
        *score += normalized * MAX * weight;
    }
}

/// TaintToleration: untolerated PreferNoSchedule taints per node.
fn prefer_no_schedule(snapshot: &Snapshot, pod: &PodInfo) -> HashMap<NodeIndex, f64> {
    let mut raw = HashMap::new();
    for (taint, nodes) in snapshot.taints() {
        if taint.effect == "PreferNoSchedule" && !tolerated(&pod.tolerations, taint) {
            add_to(&mut raw, nodes, 1.0);
        }
    }
    raw
}

/// NodeAffinity: weights of the preferred terms that a node matches.
fn preferred_nodes(snapshot: &Snapshot, pod: &PodInfo) -> HashMap<NodeIndex, f64> {
    let mut raw = HashMap::new();
    for (weight, term) in &pod.preferred_nodes {
        // A preference without requirements matches every node.
        let all = term.labels.is_empty() && term.names.is_empty();
        let nodes = if all { snapshot.nodes().clone() } else { snapshot.matching_term(term) };
        add_to(&mut raw, &nodes, *weight as f64);
    }
    raw
}

/// InterPodAffinity: the pod's preferences, and the preferences of placed pods that select it.
fn preferred_pods(snapshot: &Snapshot, pod: &PodInfo) -> HashMap<NodeIndex, f64> {
    let mut raw = HashMap::new();
    for (weight, term) in &pod.preferred_pods {
        for placed in snapshot.pods().filter(|placed| term_matches(snapshot, term, &placed.info)) {
            add_to(&mut raw, &term_domain(snapshot, term, placed.node), *weight as f64);
        }
    }
    for placed in snapshot.preferring_pods() {
        for (weight, term) in &placed.info.preferred_pods {
            if term_matches(snapshot, term, pod) {
                add_to(&mut raw, &term_domain(snapshot, term, placed.node), *weight as f64);
            }
        }
        for term in placed.info.affinity.iter().filter(|term| term_matches(snapshot, term, pod)) {
            add_to(&mut raw, &term_domain(snapshot, term, placed.node), 1.0);
        }
    }
    raw
}

fn add_to(raw: &mut HashMap<NodeIndex, f64>, nodes: &RoaringBitmap, amount: f64) {
    for node in nodes {
        *raw.entry(node).or_default() += amount;
    }
}
