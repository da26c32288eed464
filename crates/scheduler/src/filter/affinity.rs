//! InterPodAffinity: pods that must, or must not, run near other pods.

use roaring::RoaringBitmap;

use super::{Code, Filtered};
use crate::plugin::Plugin;
use crate::pod::{PodInfo, PodTerm};
use crate::prepare::Prepared;
use crate::snapshot::Snapshot;
use crate::snapshot::groups::ByNode;

/// Whether the term selects `pod`.
pub fn term_matches(snapshot: &Snapshot, term: &PodTerm, pod: &PodInfo) -> bool {
    let in_namespace = term.namespaces.contains(&pod.namespace)
        || term
            .namespace_selector
            .as_ref()
            .is_some_and(|selector| selector.matches(snapshot.namespace_labels(&pod.namespace)));
    in_namespace && term.selector.matches(Some(&pod.labels))
}

/// Nodes that share a topology with one of the counted nodes.
pub fn domains_of(snapshot: &Snapshot, topology_key: &str, counts: &ByNode) -> RoaringBitmap {
    let Some(column) = snapshot.label(topology_key) else {
        return RoaringBitmap::new();
    };
    let mut seen = vec![false; column.domains().len()];
    let mut nodes = RoaringBitmap::new();
    for domain in counts.keys().filter_map(|node| column.domain_of(*node)) {
        if !std::mem::replace(&mut seen[domain as usize], true) {
            nodes |= column.nodes(domain);
        }
    }
    nodes
}

pub fn filter(snapshot: &Snapshot, prepared: &Prepared, filtered: &mut Filtered) {
    let pod = &prepared.pod;
    if let Some(group) = prepared.affinity {
        let counts = snapshot.group_counts(group);
        let mut allowed = snapshot.nodes().clone();
        let mut labelled = snapshot.nodes().clone();
        let mut no_match = true;
        for term in &pod.affinity {
            let near = domains_of(snapshot, &term.topology_key, counts);
            no_match &= near.is_empty();
            labelled &= snapshot.with_label(&term.topology_key);
            allowed &= near;
        }
        // The first pod of a group with affinity to itself may start anywhere.
        if no_match && pod.affinity.iter().all(|term| term_matches(snapshot, term, pod)) {
            allowed = labelled;
        }
        let reason = "node(s) didn't match pod affinity rules";
        filtered.keep(&allowed, Plugin::InterPodAffinity, reason, Code::Unresolvable);
    }
    for (term, group) in pod.anti_affinity.iter().zip(&prepared.anti_affinity) {
        let near = domains_of(snapshot, &term.topology_key, snapshot.group_counts(*group));
        let reason = "node(s) didn't match pod anti-affinity rules";
        filtered.reject(&near, Plugin::InterPodAffinity, reason, Code::Unschedulable);
    }
    for (term, counts) in snapshot.repelling.iter() {
        if term_matches(snapshot, term, pod) {
            let near = domains_of(snapshot, &term.topology_key, counts);
            let reason = "node(s) didn't satisfy existing pods anti-affinity rules";
            filtered.reject(&near, Plugin::InterPodAffinity, reason, Code::Unschedulable);
        }
    }
}
