//! The scheduler without I/O: the state of the cluster goes in, decisions come out.
//!
//! One scheduling cycle is [`Engine::next`]: pop a pod, filter, score, and assume it on its node,
//! so that the next pod is scheduled on the future state. The caller sends the binding and reports
//! the outcome with [`Engine::bound`] or [`Engine::bind_failed`].

use std::collections::HashMap;
use std::sync::Arc;

use api::pod::{is_terminal, node_name};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::filter::{Reasons, filter};
use crate::pod::PodInfo;
use crate::queue::Queue;
use crate::score;
use crate::snapshot::Snapshot;
use crate::volumes::{VolumeNeeds, Volumes};

/// What to do about one pod.
#[derive(Debug)]
pub enum Decision {
    Bind {
        pod: Arc<PodInfo>,
        node: Arc<str>,
        /// Claims on which the node must be recorded first.
        unbound_claims: Vec<String>,
    },
    Unschedulable {
        pod: Arc<PodInfo>,
        message: String,
    },
}

/// A pod that is being bound.
#[derive(Debug)]
struct Assumed {
    info: Arc<PodInfo>,
    attempts: u32,
}

#[derive(Debug)]
pub struct Engine {
    pub snapshot: Snapshot,
    pub volumes: Volumes,
    queue: Queue,
    assumed: HashMap<String, Assumed>,
    scheduler_name: String,
    turn: u64,
}

impl Engine {
    /// Schedules pods whose `schedulerName` is `scheduler_name`.
    pub fn new(scheduler_name: &str) -> Self {
        Self {
            snapshot: Snapshot::new(),
            volumes: Volumes::default(),
            queue: Queue::default(),
            assumed: HashMap::new(),
            scheduler_name: scheduler_name.to_owned(),
            turn: 0,
        }
    }

    /// Adds or updates a pod.
    pub fn set_pod(&mut self, pod: &Pod, now: Timestamp) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if is_terminal(pod) {
            return self.remove_pod(uid, now);
        }
        if let Some(node) = node_name(pod) {
            self.assumed.remove(uid);
            self.queue.remove(uid);
            let placed = self.snapshot.placed(uid);
            let before = placed
                .filter(|placed| *self.snapshot.name(placed.node) == *node)
                .map(|placed| placed.info.clone());
            let info = Arc::new(PodInfo::read(pod));
            self.snapshot.add_pod(info.clone(), node);
            match before {
                Some(before) if before.requests != info.requests => {
                    self.queue.reactivate(now, |_| true)
                }
                Some(before)
                    if before.labels == info.labels && before.deleting == info.deleting => {}
                _ => self.queue.reactivate(now, PodInfo::depends_on_other_pods),
            }
            return;
        }
        if !self.is_responsible_for(pod) {
            self.queue.remove(uid);
        } else if !self.assumed.contains_key(uid) && !self.is_unchanged(pod) {
            self.queue.upsert(Arc::new(PodInfo::read(pod)), now);
        }
    }

    fn is_responsible_for(&self, pod: &Pod) -> bool {
        let spec = pod.spec.as_ref();
        let gated = spec
            .and_then(|spec| spec.scheduling_gates.as_ref())
            .is_some_and(|gates| !gates.is_empty());
        let ours =
            spec.and_then(|spec| spec.scheduler_name.as_deref()).unwrap_or("default-scheduler")
                == self.scheduler_name;
        ours && !gated && pod.metadata.deletion_timestamp.is_none()
    }

    /// Whether the spec and the labels of a waiting pod are unchanged (its update may have been our
    /// own condition); it keeps its place in the queue then.
    fn is_unchanged(&self, pod: &Pod) -> bool {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.queue.get(uid).is_some_and(|known| {
            known.generation == pod.metadata.generation.unwrap_or(0)
                && pod
                    .metadata
                    .labels
                    .as_ref()
                    .map_or(known.labels.is_empty(), |labels| *labels == known.labels)
        })
    }

    pub fn remove_pod(&mut self, uid: &str, now: Timestamp) {
        self.queue.remove(uid);
        self.assumed.remove(uid);
        if self.snapshot.placed(uid).is_some() {
            self.snapshot.remove_pod(uid);
            self.queue.reactivate(now, |_| true);
        }
    }

    pub fn set_node(&mut self, node: &Node, now: Timestamp) {
        if self.snapshot.set_node(node) {
            self.queue.reactivate(now, |_| true);
        }
    }

    pub fn remove_node(&mut self, name: &str, now: Timestamp) {
        self.snapshot.remove_node(name);
        // A topology domain may be gone, which affects spreading.
        self.queue.reactivate(now, PodInfo::depends_on_other_pods);
    }

    /// Reactivates the pods that depend on volumes or namespaces.
    pub fn volumes_or_namespaces_changed(&mut self, now: Timestamp) {
        self.queue.reactivate(now, |pod| !pod.claims.is_empty() || pod.depends_on_other_pods());
    }

    /// Schedules the next pod, if one is due.
    pub fn next(&mut self, now: Timestamp) -> Option<Decision> {
        let (pod, attempts) = self.queue.pop(now)?;
        match self.decide(&pod) {
            Ok((node, needs)) => {
                self.snapshot.add_pod(pod.clone(), &node);
                self.assumed.insert(pod.uid.clone(), Assumed { info: pod.clone(), attempts });
                Some(Decision::Bind { pod, node, unbound_claims: needs.unbound })
            }
            Err(message) => {
                self.queue.park(pod.clone(), attempts, now);
                Some(Decision::Unschedulable { pod, message })
            }
        }
    }

    fn decide(&mut self, pod: &PodInfo) -> Result<(Arc<str>, VolumeNeeds), String> {
        let total = self.snapshot.nodes().len();
        if total == 0 {
            return Err("no nodes available to schedule pods".to_owned());
        }
        let needs = self
            .volumes
            .needs(pod, &self.snapshot)
            .map_err(|reason| format!("0/{total} nodes are available: {reason}."))?;
        let filtered = filter(&self.snapshot, pod, &needs);
        self.turn = self.turn.wrapping_add(1);
        match score::best(&self.snapshot, pod, &filtered.nodes, self.turn) {
            Some(node) => Ok((self.snapshot.name(node), needs)),
            None => Err(unschedulable_message(total, &filtered.reasons)),
        }
    }

    /// The binding succeeded. The informer confirms it later.
    pub fn bound(&mut self, uid: &str) {
        self.assumed.remove(uid);
    }

    /// The binding failed, or its outcome is unknown: the pod is retried after its backoff, unless
    /// the informer reports it bound or deleted in the meantime.
    pub fn bind_failed(&mut self, uid: &str, now: Timestamp) {
        let Some(Assumed { info, attempts }) = self.assumed.remove(uid) else {
            return;
        };
        self.snapshot.remove_pod(uid);
        self.queue.retry(info, attempts, now);
        self.queue.reactivate(now, |_| true);
    }

    /// When [`next`](Self::next) has something to do without any further change.
    pub fn next_timer(&self, now: Timestamp) -> Option<Timestamp> {
        if self.queue.has_active() { Some(now) } else { self.queue.next_timer() }
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
fn unschedulable_message(total: u64, reasons: &Reasons) -> String {
    let mut parts: Vec<String> =
        reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{total} nodes are available: {}.", parts.join(", "))
}

#[cfg(test)]
mod tests;
