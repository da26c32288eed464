//! PreBind of VolumeBinding: pods that have a node, and are bound to it once their claims are.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Binding, Volumes};
use crate::pod::PodInfo;

/// How long claims may take to be bound; then their pod is scheduled again. Upstream's
/// `bindTimeoutSeconds`.
const TIMEOUT: SignedDuration = SignedDuration::from_mins(10);

/// A pod whose claims have been annotated with its node.
#[derive(Debug)]
pub struct Waiter {
    pub pod: Arc<PodInfo>,
    pub node: Arc<str>,
    /// Keys of the claims, and the revisions since which they know the node.
    pub claims: Vec<(String, u64)>,
}

/// A pod that waits no more.
#[derive(Debug)]
pub struct Ended {
    pub pod: Arc<PodInfo>,
    pub node: Arc<str>,
    /// Or why it cannot be bound to the node.
    pub bound: Result<(), String>,
}

/// The pods that wait. There are no more than pods without a node.
#[derive(Debug, Default)]
pub struct Waiting {
    /// By uid, with the time when they are given up.
    pods: HashMap<String, (Waiter, Timestamp)>,
    ended: VecDeque<Ended>,
}

impl Waiting {
    pub fn add(&mut self, waiter: Waiter, volumes: &Volumes, now: Timestamp) {
        let uid = waiter.pod.uid.clone();
        self.pods.insert(uid.clone(), (waiter, now + TIMEOUT));
        self.look(&uid, volumes);
    }

    /// The pod is gone, or somebody has bound it.
    pub fn remove(&mut self, uid: &str) {
        self.pods.remove(uid);
        self.ended.retain(|ended| ended.pod.uid != uid);
    }

    pub fn claim_changed(&mut self, key: &str, volumes: &Volumes) {
        let has = |waiter: &Waiter| waiter.claims.iter().any(|(own, _)| own == key);
        let affected = self.pods.iter().filter(|(_, (waiter, _))| has(waiter));
        let affected: Vec<String> = affected.map(|(uid, _)| uid.clone()).collect();
        affected.iter().for_each(|uid| self.look(uid, volumes));
    }

    pub fn node_removed(&mut self, node: &str) {
        self.end_if(|waiter, _| *waiter.node == *node, &format!("node {node:?} not found"));
    }

    /// Gives up those that have waited too long.
    pub fn expire(&mut self, now: Timestamp) {
        self.end_if(|_, deadline| deadline <= now, "timed out waiting for the condition");
    }

    /// When a pod waits no more, at the latest.
    pub fn next_timer(&self, now: Timestamp) -> Option<Timestamp> {
        if !self.ended.is_empty() {
            return Some(now);
        }
        self.pods.values().map(|(_, deadline)| *deadline).min()
    }

    /// The next pod that waits no more.
    pub fn next(&mut self) -> Option<Ended> {
        self.ended.pop_front()
    }

    fn look(&mut self, uid: &str, volumes: &Volumes) {
        let Some((waiter, _)) = self.pods.get(uid) else {
            return;
        };
        let each = waiter.claims.iter();
        let each = each.map(|(key, since)| volumes.binding(key, &waiter.node, *since));
        let mut outcome = Binding::Bound;
        for one in each {
            match one {
                Binding::Bound => {}
                Binding::Pending if outcome == Binding::Bound => outcome = Binding::Pending,
                Binding::Pending => {}
                failed @ Binding::Failed(_) => outcome = failed,
            }
        }
        match outcome {
            Binding::Pending => {}
            Binding::Bound => self.end(uid, Ok(())),
            Binding::Failed(why) => self.end(uid, Err(why)),
        }
    }

    fn end_if(&mut self, ends: impl Fn(&Waiter, Timestamp) -> bool, why: &str) {
        let ending = self.pods.iter().filter(|(_, (waiter, deadline))| ends(waiter, *deadline));
        let ending: Vec<String> = ending.map(|(uid, _)| uid.clone()).collect();
        ending.iter().for_each(|uid| self.end(uid, Err(why.to_owned())));
    }

    fn end(&mut self, uid: &str, bound: Result<(), String>) {
        if let Some((Waiter { pod, node, .. }, _)) = self.pods.remove(uid) {
            self.ended.push_back(Ended { pod, node, bound });
        }
    }
}
