//! Filters: which nodes can run a pod, and why the others cannot.
//!
//! Each filter removes nodes from a bitset and counts them under upstream's reason. A node is
//! counted by the first filter that rejects it.

mod affinity;
mod spread;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Taint, Toleration};
use roaring::RoaringBitmap;

use crate::pod::PodInfo;
use crate::snapshot::Snapshot;
use crate::volumes::VolumeNeeds;

pub(crate) use affinity::{domain_of as term_domain, term_matches};
pub(crate) use spread::scores as spread_scores;

/// How many nodes were rejected for which reason.
pub type Reasons = BTreeMap<String, u64>;

/// The nodes that remain, and why the others were rejected.
#[derive(Debug, Default)]
pub struct Filtered {
    pub nodes: RoaringBitmap,
    pub reasons: Reasons,
}

impl Filtered {
    /// Keeps `allowed`; the others fail for `reason`.
    fn keep(&mut self, allowed: &RoaringBitmap, reason: &str) {
        let before = self.nodes.len();
        self.nodes &= allowed;
        self.count(reason, before - self.nodes.len());
    }

    /// Removes `rejected` for `reason`.
    fn reject(&mut self, rejected: &RoaringBitmap, reason: &str) {
        let before = self.nodes.len();
        self.nodes -= rejected;
        self.count(reason, before - self.nodes.len());
    }

    fn count(&mut self, reason: &str, nodes: u64) {
        if nodes > 0 {
            *self.reasons.entry(reason.to_owned()).or_default() += nodes;
        }
    }
}

/// Runs every filter in upstream's order.
pub fn filter(snapshot: &Snapshot, pod: &PodInfo, volumes: &VolumeNeeds) -> Filtered {
    let mut filtered = Filtered { nodes: snapshot.nodes().clone(), reasons: Reasons::new() };
    node_unschedulable(snapshot, pod, &mut filtered);
    taint_toleration(snapshot, pod, &mut filtered);
    node_affinity(snapshot, pod, &mut filtered);
    if !pod.ports.is_empty() {
        let taken = snapshot.port_conflicts(&pod.ports);
        filtered.reject(&taken, "node(s) didn't have free ports for the requested pod ports");
    }
    node_resources_fit(snapshot, pod, &mut filtered);
    for terms in &volumes.node_terms {
        let allowed = any_term(snapshot, terms);
        filtered.keep(&allowed, "node(s) didn't match PersistentVolume's node affinity");
    }
    for claim in &volumes.unbound_nodes {
        let (found, large) = claim.filter(snapshot);
        filtered.keep(&found, "node(s) didn't find available persistent volumes to bind");
        filtered.keep(&large, "node(s) did not have enough free storage");
    }
    spread::filter(snapshot, pod, &mut filtered);
    affinity::filter(snapshot, pod, &mut filtered);
    filtered
}

/// NodeUnschedulable: cordoned nodes, unless the pod tolerates the corresponding taint.
fn node_unschedulable(snapshot: &Snapshot, pod: &PodInfo, filtered: &mut Filtered) {
    if snapshot.unschedulable().is_empty() {
        return;
    }
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Default::default()
    };
    if !tolerated(&pod.tolerations, &taint) {
        filtered.reject(snapshot.unschedulable(), "node(s) were unschedulable");
    }
}

/// TaintToleration: taints NoSchedule and NoExecute.
fn taint_toleration(snapshot: &Snapshot, pod: &PodInfo, filtered: &mut Filtered) {
    for (taint, nodes) in snapshot.taints() {
        if taint.effect == "PreferNoSchedule" || tolerated(&pod.tolerations, taint) {
            continue;
        }
        let value = taint.value.as_deref().unwrap_or_default();
        filtered
            .reject(nodes, &format!("node(s) had untolerated taint {{{}: {value}}}", taint.key));
    }
}

/// Whether one of the tolerations tolerates the taint (`k8s.io/component-helpers/scheduling`).
pub fn tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let (effect, key, operator) =
            (text(&toleration.effect), text(&toleration.key), text(&toleration.operator));
        if !effect.is_empty() && effect != taint.effect {
            return false;
        }
        if !key.is_empty() && key != taint.key {
            return false;
        }
        match operator.as_str() {
            "Exists" => true,
            "" | "Equal" => !key.is_empty() && text(&toleration.value) == text(&taint.value),
            _ => false,
        }
    })
}

/// NodeAffinity: `nodeSelector` and required node affinity.
fn node_affinity(snapshot: &Snapshot, pod: &PodInfo, filtered: &mut Filtered) {
    if let Some(allowed) = affine_nodes(snapshot, pod) {
        filtered.keep(&allowed, "node(s) didn't match Pod's node affinity/selector");
    }
}

/// The nodes that match the pod's node selector and required node affinity; `None`: all.
pub(crate) fn affine_nodes(snapshot: &Snapshot, pod: &PodInfo) -> Option<RoaringBitmap> {
    if pod.node_selector.is_empty() && pod.node_terms.is_none() {
        return None;
    }
    let mut allowed = match &pod.node_terms {
        Some(terms) => any_term(snapshot, terms),
        None => snapshot.nodes().clone(),
    };
    for requirement in &pod.node_selector {
        allowed &= snapshot.matching(requirement);
    }
    Some(allowed)
}

fn any_term(snapshot: &Snapshot, terms: &[crate::pod::NodeTerm]) -> RoaringBitmap {
    terms.iter().fold(RoaringBitmap::new(), |all, term| all | snapshot.matching_term(term))
}

/// NodeResourcesFit: the requested resources are free. A node may lack several resources.
fn node_resources_fit(snapshot: &Snapshot, pod: &PodInfo, filtered: &mut Filtered) {
    let mut short = RoaringBitmap::new();
    for (name, amount) in &pod.requests {
        let reason = || {
            if name == "pods" { "Too many pods".to_owned() } else { format!("Insufficient {name}") }
        };
        let Some(column) = snapshot.resource(name) else {
            filtered.count(&reason(), filtered.nodes.len());
            short |= &filtered.nodes;
            continue;
        };
        let lacking: RoaringBitmap = filtered
            .nodes
            .iter()
            .filter(|node| {
                let slot = *node as usize;
                column.requested[slot].saturating_add(*amount) > column.allocatable[slot]
            })
            .collect();
        filtered.count(&reason(), lacking.len());
        short |= lacking;
    }
    filtered.nodes -= short;
}
