//! Nominated pods: those for which room is being made on a node. Pods of lower priority do not
//! get that room, though it is free already.

use std::collections::HashMap;
use std::sync::Arc;

use crate::filter::{Rejection, filter_node, passes};
use crate::pod::PodInfo;
use crate::prepare::Prepared;
use crate::snapshot::{NodeIndex, Snapshot};

/// The nominated pods, by node.
#[derive(Debug, Default)]
pub struct Nominations {
    by_node: HashMap<String, Vec<Arc<PodInfo>>>,
    node_of: HashMap<String, String>,
}

impl Nominations {
    /// Nominates a pod, instead of what it was nominated for before.
    pub fn set(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.remove(&pod.uid);
        self.node_of.insert(pod.uid.clone(), node.to_owned());
        self.by_node.entry(node.to_owned()).or_default().push(pod);
    }

    pub fn remove(&mut self, uid: &str) {
        let Some(node) = self.node_of.remove(uid) else {
            return;
        };
        if let Some(pods) = self.by_node.get_mut(&node) {
            pods.retain(|pod| pod.uid != uid);
            if pods.is_empty() {
                self.by_node.remove(&node);
            }
        }
    }

    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.node_of.get(uid).map(String::as_str)
    }

    /// Nodes that have nominated pods.
    pub fn nodes(&self) -> impl Iterator<Item = &str> {
        self.by_node.keys().map(String::as_str)
    }

    /// Pods that are nominated for the node and that `pod` must leave room for.
    pub fn ahead_of(&self, pod: &PodInfo, node: &str) -> Vec<Arc<PodInfo>> {
        let nominated = self.by_node.get(node).into_iter().flatten();
        nominated
            .filter(|other| other.priority >= pod.priority && other.uid != pod.uid)
            .cloned()
            .collect()
    }

    /// Pods nominated for the node that have a lower priority than `pod`.
    pub fn below(&self, pod: &PodInfo, node: &str) -> Vec<Arc<PodInfo>> {
        let nominated = self.by_node.get(node).into_iter().flatten();
        nominated.filter(|other| other.priority < pod.priority).cloned().collect()
    }
}

/// Checks that the pod fits a node, both with the pods that are nominated for it and without:
/// another pod's affinity may need a nominated pod that never comes.
///
/// # Errors
/// What the first filter says that rejects it.
pub fn check(
    snapshot: &mut Snapshot,
    prepared: &Prepared,
    node: NodeIndex,
    ahead: &[Arc<PodInfo>],
) -> Result<(), Vec<Rejection>> {
    let filtered =
        with_nominated(snapshot, node, ahead, |snapshot| filter_node(snapshot, prepared, node));
    for filtered in filtered.into_iter().chain([filter_node(snapshot, prepared, node)]) {
        if filtered.nodes.is_empty() {
            return Err(filtered.rejections);
        }
    }
    Ok(())
}

/// Whether [`check`] succeeds; much faster when it does not.
pub fn fits(
    snapshot: &mut Snapshot,
    prepared: &Prepared,
    node: NodeIndex,
    ahead: &[Arc<PodInfo>],
) -> bool {
    passes(snapshot, prepared, node)
        && with_nominated(snapshot, node, ahead, |snapshot| passes(snapshot, prepared, node))
            .unwrap_or(true)
}

/// [`fits`] for a node on which the nominated pods are counted already. Filters only get stricter with
/// more pods on the node, but for required affinity and spreading: only then it is asked twice.
pub fn fits_beside(
    snapshot: &mut Snapshot,
    prepared: &Prepared,
    node: NodeIndex,
    ahead: &[Arc<PodInfo>],
) -> bool {
    let needs_pods = prepared.affinity.is_some()
        || prepared.spread.iter().any(|(constraint, _)| constraint.required);
    if !passes(snapshot, prepared, node) {
        return false;
    }
    if ahead.is_empty() || !needs_pods {
        return true;
    }
    for pod in ahead {
        snapshot.count(pod, node, -1);
    }
    let alone = passes(snapshot, prepared, node);
    for pod in ahead {
        snapshot.count(pod, node, 1);
    }
    alone
}

/// What `ask` says if the nominated pods are on the node; `None`: there are none.
fn with_nominated<T>(
    snapshot: &mut Snapshot,
    node: NodeIndex,
    ahead: &[Arc<PodInfo>],
    ask: impl FnOnce(&Snapshot) -> T,
) -> Option<T> {
    if ahead.is_empty() {
        return None;
    }
    for pod in ahead {
        snapshot.count(pod, node, 1);
    }
    let answer = ask(snapshot);
    for pod in ahead {
        snapshot.count(pod, node, -1);
    }
    Some(answer)
}
