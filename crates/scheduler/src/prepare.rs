//! What is found out about a pod once per cycle, before any node is looked at (PreFilter).

use std::sync::Arc;

use roaring::RoaringBitmap;

use crate::pod::{NodeTerm, PodInfo, SpreadConstraint};
use crate::profile::Profile;
use crate::snapshot::groups::{GroupId, GroupKey};
use crate::snapshot::{Snapshot, StorageNeeds};
use crate::volumes::VolumeNeeds;

/// A pod in its cycle. It stays true while pods are counted in and out of the snapshot.
#[derive(Debug)]
pub struct Prepared {
    pub pod: Arc<PodInfo>,
    pub profile: Arc<Profile>,
    pub volumes: VolumeNeeds,
    pub storage: StorageNeeds,
    /// Nodes that match the pod's node selector and required node affinity; `None`: all.
    pub affine: Option<RoaringBitmap>,
    /// Nodes that the pod names; no other is looked at.
    pub named: Option<RoaringBitmap>,
    /// Spread constraints, each with the pods that it counts.
    pub spread: Vec<(SpreadConstraint, GroupId)>,
    /// Whether only nodes with the topology keys of all constraints count.
    pub every_key: bool,
    /// Pods that all of the pod's affinity terms select.
    pub affinity: Option<GroupId>,
    /// By anti-affinity term.
    pub anti_affinity: Vec<GroupId>,
    /// By preferred term.
    pub preferred: Vec<GroupId>,
}

impl Prepared {
    pub fn new(
        snapshot: &mut Snapshot,
        pod: Arc<PodInfo>,
        profile: Arc<Profile>,
        volumes: VolumeNeeds,
    ) -> Self {
        snapshot.begin();
        let (spread, every_key) = profile.spread(&pod, &snapshot.services);
        let spread = spread
            .into_iter()
            .map(|constraint| {
                let key = GroupKey::of_constraint(&constraint, &pod.namespace);
                (constraint, snapshot.group(key))
            })
            .collect();
        let of = |snapshot: &mut Snapshot, term: &crate::pod::PodTerm| {
            snapshot.group(GroupKey::of_terms(std::slice::from_ref(term)))
        };
        let affinity =
            (!pod.affinity.is_empty()).then(|| snapshot.group(GroupKey::of_terms(&pod.affinity)));
        let anti_affinity = pod.anti_affinity.iter().map(|term| of(snapshot, term)).collect();
        let preferred = pod.preferred_pods.iter().map(|(_, term)| of(snapshot, term)).collect();
        let named = pod
            .node_terms
            .as_deref()
            .and_then(named_nodes)
            .map(|names| names.iter().filter_map(|name| snapshot.node(name)).collect());
        Self {
            storage: snapshot.storage.needs(&pod),
            affine: affine_nodes(snapshot, &pod),
            named,
            spread,
            every_key,
            affinity,
            anti_affinity,
            preferred,
            pod,
            profile,
            volumes,
        }
    }
}

/// The nodes that match the pod's node selector and required node affinity; `None`: all.
pub fn affine_nodes(snapshot: &Snapshot, pod: &PodInfo) -> Option<RoaringBitmap> {
    if pod.node_selector.is_empty() && pod.node_terms.is_none() {
        return None;
    }
    let mut allowed = match &pod.node_terms {
        Some(terms) => snapshot.matching_any(terms),
        None => snapshot.nodes().clone(),
    };
    for requirement in &pod.node_selector {
        allowed &= snapshot.matching(requirement);
    }
    Some(allowed)
}

/// The names of nodes to which the terms confine the pod; `None` unless each of them names some.
fn named_nodes(terms: &[NodeTerm]) -> Option<Vec<&String>> {
    let mut all = Vec::new();
    for term in terms {
        let mut of_term: Option<Vec<&String>> = None;
        for requirement in &term.names {
            if let api::labels::Requirement::In(_, names) = requirement {
                of_term = Some(match of_term {
                    None => names.iter().collect(),
                    Some(before) => {
                        before.into_iter().filter(|name| names.contains(name)).collect()
                    }
                });
            }
        }
        all.extend(of_term?);
    }
    Some(all)
}
