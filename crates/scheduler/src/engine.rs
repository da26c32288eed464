//! The scheduler without I/O: the state of the cluster goes in, decisions come out.
//!
//! One scheduling cycle is [`Engine::next`]: pop a pod, filter, score, and assume it on its node,
//! so that the next pod is scheduled on the future state. The caller sends the binding and reports
//! the outcome with [`Engine::bound`] or [`Engine::bind_failed`]. If nothing fits, the decision names
//! victims; the caller deletes them and reports [`Engine::preempted`].

mod observe;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use rpc::scheduler_v1::Explanation;

use crate::budgets::Budgets;
use crate::decide::{Verdict, decide};
use crate::explain::{Record, Records};
use crate::hint::{self, Change};
use crate::nominate::Nominations;
use crate::pod::PodInfo;
use crate::preempt::{CycleState, Refusal};
use crate::profile::Profile;
use crate::queue::{Backoff, Queue};
use crate::snapshot::{NodeIndex, Snapshot};
use crate::volumes::Volumes;

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
        nomination: Nomination,
    },
}

/// What becomes of the `nominatedNodeName` of an unschedulable pod.
#[derive(Debug)]
pub enum Nomination {
    Keep,
    Clear,
    Preempt(Preemption),
}

/// Room to be made on a node.
#[derive(Debug)]
pub struct Preemption {
    pub node: Arc<str>,
    /// Pods to delete; those that are being deleted already are not among them.
    pub victims: Vec<Arc<PodInfo>>,
    /// Pods of lower priority whose nomination for the node ends.
    pub outranked: Vec<Arc<PodInfo>>,
}

/// A pod that is being bound.
#[derive(Debug)]
struct Assumed {
    info: Arc<PodInfo>,
    attempts: u32,
}

/// The state of the scheduler.
#[derive(Debug)]
pub struct Engine {
    pub snapshot: Snapshot,
    pub volumes: Volumes,
    pub budgets: Budgets,
    profiles: HashMap<&'static str, Arc<Profile>>,
    queue: Queue,
    nominations: Nominations,
    /// Pods whose victims are being deleted: they are not scheduled meanwhile. With the pod, if its
    /// turn has come.
    preempting: HashMap<String, Option<Arc<PodInfo>>>,
    assumed: HashMap<String, Assumed>,
    records: Records,
    turn: u64,
    /// Where the next search for nodes begins.
    from: NodeIndex,
}

impl Engine {
    /// Schedules pods whose `schedulerName` is that of one of the profiles.
    pub fn new(profiles: Vec<Profile>, backoff: Backoff) -> Self {
        Self {
            snapshot: Snapshot::new(),
            volumes: Volumes::default(),
            budgets: Budgets::default(),
            profiles: profiles
                .into_iter()
                .map(|profile| (profile.scheduler_name, Arc::new(profile)))
                .collect(),
            queue: Queue::new(backoff),
            nominations: Nominations::default(),
            preempting: HashMap::new(),
            assumed: HashMap::new(),
            records: Records::default(),
            turn: 0,
            from: 0,
        }
    }

    /// Schedules the next pod, if one is due.
    pub fn next(&mut self, now: Timestamp) -> Option<Decision> {
        let (pod, attempts) = loop {
            let (pod, attempts) = self.queue.pop(now)?;
            match self.preempting.get_mut(&pod.uid) {
                Some(waiting) => *waiting = Some(pod),
                None => break (pod, attempts),
            }
        };
        let verdict = self.decide(&pod)?;
        let decision = match verdict.chosen {
            Some(node) => self.assume(&pod, node, attempts, &verdict),
            None => {
                self.queue.park(pod.clone(), attempts, verdict.plugins(), now);
                let nomination = self.nominate(&pod, &verdict);
                Decision::Unschedulable { pod: pod.clone(), message: verdict.message(), nomination }
            }
        };
        self.records.keep(Record::new(&self.snapshot, pod, now, attempts + 1, verdict));
        Some(decision)
    }

    fn decide(&mut self, pod: &Arc<PodInfo>) -> Option<Verdict> {
        self.turn = self.turn.wrapping_add(1);
        let profile = self.profiles.get(pod.scheduler_name.as_str())?;
        let cycle =
            CycleState { nominations: &self.nominations, budgets: &self.budgets, turn: self.turn };
        let Self { snapshot, volumes, .. } = self;
        let verdict = decide(snapshot, volumes, pod, profile, cycle, self.from);
        self.from = verdict.next;
        Some(verdict)
    }

    fn assume(
        &mut self,
        pod: &Arc<PodInfo>,
        node: NodeIndex,
        attempts: u32,
        verdict: &Verdict,
    ) -> Decision {
        let node = self.snapshot.name(node);
        self.nominations.remove(&pod.uid);
        self.snapshot.add_pod(pod.clone(), &node);
        self.assumed.insert(pod.uid.clone(), Assumed { info: pod.clone(), attempts });
        let unbound_claims = verdict.volumes.unbound.clone();
        Decision::Bind { pod: pod.clone(), node, unbound_claims }
    }

    fn nominate(&mut self, pod: &Arc<PodInfo>, verdict: &Verdict) -> Nomination {
        match &verdict.preemption {
            Some(Ok(candidate)) => {
                let node = self.snapshot.name(candidate.node);
                let outranked = self.nominations.below(pod, &node);
                for other in &outranked {
                    self.nominations.remove(&other.uid);
                }
                self.nominations.set(pod.clone(), &node);
                let victims: Vec<_> =
                    candidate.victims.iter().filter(|victim| !victim.deleting).cloned().collect();
                if !victims.is_empty() {
                    self.preempting.insert(pod.uid.clone(), None);
                }
                Nomination::Preempt(Preemption { node, victims, outranked })
            }
            Some(Err(Refusal::NotEligible(_))) => Nomination::Keep,
            Some(Err(Refusal::NotHelpful(_))) | None => {
                let nominated = self.nominations.node_of(&pod.uid).is_some();
                self.nominations.remove(&pod.uid);
                if nominated || pod.nominated_node.is_some() {
                    Nomination::Clear
                } else {
                    Nomination::Keep
                }
            }
        }
    }

    /// The victims of a pod are being deleted, or could not be (`failed`), and then it is tried
    /// again at once.
    pub fn preempted(&mut self, uid: &str, failed: bool, now: Timestamp) {
        let Some(waiting) = self.preempting.remove(uid) else {
            return;
        };
        if failed {
            self.nominations.remove(uid);
        }
        let queued = || failed.then(|| self.queue.get(uid).cloned()).flatten();
        if let Some(pod) = waiting.or_else(queued) {
            self.queue.upsert(pod, now);
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
        self.queue.retry(info.clone(), attempts, now);
        self.changed(Change::PodRemoved(&info), now);
    }

    /// When [`next`](Self::next) has something to do without any further change.
    pub fn next_timer(&self, now: Timestamp) -> Option<Timestamp> {
        if self.queue.has_active() { Some(now) } else { self.queue.next_timer() }
    }

    /// What was decided about a pod; about one that waits, also what would be decided now.
    pub fn explain(&mut self, uid: &str, now: Timestamp) -> Vec<Explanation> {
        let record = self.records.get(uid);
        let mut all: Vec<_> =
            record.map(|record| record.explain(&self.snapshot, false)).into_iter().collect();
        if let Some(pod) = self.queue.get(uid).cloned()
            && let Some(verdict) = self.decide(&pod)
        {
            let record = Record::new(&self.snapshot, pod, now, 0, verdict);
            all.push(record.explain(&self.snapshot, true));
        }
        all
    }

    /// Retries the parked pods that the change could help.
    fn changed(&mut self, change: Change<'_>, now: Timestamp) {
        let Self { snapshot, volumes, profiles, queue, .. } = self;
        let cluster = hint::Cluster { snapshot, volumes };
        queue.reactivate(now, |pod, plugins| {
            let profile = profiles.get(pod.scheduler_name.as_str());
            profile.is_some_and(|profile| hint::helps(change, cluster, profile, pod, plugins))
        });
    }
}

#[cfg(test)]
mod tests;
