//! InterPodAffinity: pods that must, or must not, run near other pods.

use roaring::RoaringBitmap;

use super::Filtered;
use crate::pod::{PodInfo, PodTerm};
use crate::snapshot::{PlacedPod, Snapshot};

/// Whether the term selects `pod`.
pub fn term_matches(snapshot: &Snapshot, term: &PodTerm, pod: &PodInfo) -> bool {
    let in_namespace = term.namespaces.contains(&pod.namespace)
        || term
            .namespace_selector
            .as_ref()
            .is_some_and(|selector| selector.matches(snapshot.namespace_labels(&pod.namespace)));
    in_namespace && term.selector.matches(Some(&pod.labels))
}

/// Placed pods that the term selects.
fn matching_pods<'a>(
    snapshot: &'a Snapshot,
    term: &'a PodTerm,
) -> Box<dyn Iterator<Item = &'a PlacedPod> + 'a> {
    if term.namespace_selector.is_some() {
        return Box::new(
            snapshot.pods().filter(move |placed| term_matches(snapshot, term, &placed.info)),
        );
    }
    let named = term.namespaces.iter().flat_map(move |namespace| snapshot.pods_in(namespace));
    Box::new(named.filter(move |placed| term.selector.matches(Some(&placed.info.labels))))
}

/// Nodes that share the term's topology with `node`.
pub(crate) fn domain_of(snapshot: &Snapshot, term: &PodTerm, node: u32) -> RoaringBitmap {
    snapshot
        .label(node, &term.topology_key)
        .and_then(|value| snapshot.labelled(&term.topology_key, value))
        .cloned()
        .unwrap_or_default()
}

fn domains(snapshot: &Snapshot, term: &PodTerm) -> RoaringBitmap {
    matching_pods(snapshot, term)
        .fold(RoaringBitmap::new(), |all, placed| all | domain_of(snapshot, term, placed.node))
}

pub(super) fn filter(snapshot: &Snapshot, pod: &PodInfo, filtered: &mut Filtered) {
    if !pod.affinity.is_empty() {
        let mut allowed = snapshot.nodes().clone();
        let mut no_match = true;
        let mut labelled = snapshot.nodes().clone();
        for term in &pod.affinity {
            let near = domains(snapshot, term);
            no_match &= near.is_empty();
            labelled &= snapshot.with_label(&term.topology_key);
            allowed &= near;
        }
        // The first pod of a group with affinity to itself may start anywhere.
        if no_match && pod.affinity.iter().all(|term| term_matches(snapshot, term, pod)) {
            allowed = labelled;
        }
        filtered.keep(&allowed, "node(s) didn't match pod affinity rules");
    }
    for term in &pod.anti_affinity {
        let rejected = domains(snapshot, term);
        filtered.reject(&rejected, "node(s) didn't match pod anti-affinity rules");
    }
    for placed in snapshot.anti_affine_pods() {
        for term in &placed.info.anti_affinity {
            if term_matches(snapshot, term, pod) {
                let rejected = domain_of(snapshot, term, placed.node);
                filtered
                    .reject(&rejected, "node(s) didn't satisfy existing pods anti-affinity rules");
            }
        }
    }
}
