//! The queue of pods that wait to be scheduled.
//!
//! A pod is active (ordered by priority, then by age), backing off after a failed attempt, or
//! parked as unschedulable until a change could make it fit. Every pod is in exactly one of these
//! states.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::plugin::Plugins;
use crate::pod::PodInfo;

/// Parked pods are retried after this long even if nothing has changed.
const PARKED_MAX: SignedDuration = SignedDuration::from_mins(5);

/// How long a pod waits after a failed attempt: doubled with each, within limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub initial: SignedDuration,
    pub max: SignedDuration,
}

impl Default for Backoff {
    /// As upstream.
    fn default() -> Self {
        Self { initial: SignedDuration::from_secs(1), max: SignedDuration::from_secs(10) }
    }
}

impl Backoff {
    fn after(&self, attempts: u32) -> SignedDuration {
        let doubled = 2_i32.checked_pow(attempts).and_then(|times| self.initial.checked_mul(times));
        doubled.unwrap_or(self.max).min(self.max)
    }
}

/// Order of the active queue: PrioritySort.
type Rank = (i64, Timestamp, u64);

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Active(Rank),
    /// Retried at this time.
    Backoff(Timestamp),
    /// Waits for a change that helps against these plugins; retried not before the first time, and
    /// at the second at the latest.
    Parked(Plugins, Timestamp, Timestamp),
}

#[derive(Debug)]
struct Entry {
    info: Arc<PodInfo>,
    attempts: u32,
    state: State,
}

#[derive(Debug, Default)]
pub struct Queue {
    backoff: Backoff,
    pods: HashMap<String, Entry>,
    active: BTreeMap<Rank, String>,
    /// Uids of parked pods.
    parked: BTreeSet<String>,
    /// Backing-off and parked pods by the time at which they become active by themselves.
    timers: BTreeSet<(Timestamp, String)>,
    next: u64,
}

impl Queue {
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, ..Self::default() }
    }

    /// Adds or updates a pod. A pod whose spec changed is retried at once.
    pub fn upsert(&mut self, info: Arc<PodInfo>, now: Timestamp) {
        let attempts = self.detach(&info.uid).map_or(0, |entry| entry.attempts);
        self.insert(info, attempts, None, now);
    }

    /// Updates a waiting pod, which keeps its place.
    pub fn refresh(&mut self, info: Arc<PodInfo>) {
        if let Some(entry) = self.pods.get_mut(&info.uid) {
            entry.info = info;
        }
    }

    /// A waiting pod.
    pub fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.pods.get(uid).map(|entry| &entry.info)
    }

    /// Removes a pod. Returns whether it was queued.
    pub fn remove(&mut self, uid: &str) -> bool {
        self.detach(uid).is_some()
    }

    /// The next pod to schedule. It is no longer queued; [`park`](Self::park) or
    /// [`retry`](Self::retry) queue it again.
    pub fn pop(&mut self, now: Timestamp) -> Option<(Arc<PodInfo>, u32)> {
        self.fire(now);
        let (_, uid) = self.active.pop_first()?;
        self.pods.remove(&uid).map(|entry| (entry.info, entry.attempts))
    }

    /// The pod was rejected by `plugins` on all nodes: it waits for a change. No plugin: there was
    /// no node.
    pub fn park(&mut self, info: Arc<PodInfo>, attempts: u32, plugins: Plugins, now: Timestamp) {
        let state = State::Parked(plugins, now + self.backoff.after(attempts), now + PARKED_MAX);
        self.insert(info, attempts + 1, Some(state), now);
    }

    /// The attempt failed: the pod is retried after its backoff.
    pub fn retry(&mut self, info: Arc<PodInfo>, attempts: u32, now: Timestamp) {
        let state = State::Backoff(now + self.backoff.after(attempts));
        self.insert(info, attempts + 1, Some(state), now);
    }

    /// After a change: retries the parked pods that it `helps`, as soon as their backoff is over.
    pub fn reactivate(&mut self, now: Timestamp, helps: impl Fn(&PodInfo, Plugins) -> bool) {
        let reactivated: Vec<(String, Timestamp)> = self
            .parked
            .iter()
            .filter_map(|uid| match self.pods.get(uid) {
                Some(Entry { info, state: State::Parked(plugins, from, _), .. })
                    if helps(info, *plugins) =>
                {
                    Some((uid.clone(), *from))
                }
                _ => None,
            })
            .collect();
        for (uid, from) in reactivated {
            if let Some(entry) = self.detach(&uid) {
                let state = (from > now).then_some(State::Backoff(from));
                self.insert(entry.info, entry.attempts, state, now);
            }
        }
    }

    /// When the next pod becomes active by itself.
    pub fn next_timer(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    pub fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// Moves pods whose time has come to the active queue.
    fn fire(&mut self, now: Timestamp) {
        while let Some((at, uid)) = self.timers.first().cloned() {
            if at > now {
                break;
            }
            if let Some(entry) = self.detach(&uid) {
                self.insert(entry.info, entry.attempts, None, now);
            }
        }
    }

    fn insert(&mut self, info: Arc<PodInfo>, attempts: u32, state: Option<State>, now: Timestamp) {
        let uid = info.uid.clone();
        self.next += 1;
        let since = info.created.unwrap_or(now);
        let state = state.unwrap_or(State::Active((-i64::from(info.priority), since, self.next)));
        match state {
            State::Active(rank) => {
                self.active.insert(rank, uid.clone());
            }
            State::Backoff(at) => {
                self.timers.insert((at, uid.clone()));
            }
            State::Parked(_, _, at) => {
                self.timers.insert((at, uid.clone()));
                self.parked.insert(uid.clone());
            }
        }
        self.pods.insert(uid, Entry { info, attempts, state });
    }

    fn detach(&mut self, uid: &str) -> Option<Entry> {
        let entry = self.pods.remove(uid)?;
        match entry.state {
            State::Active(rank) => {
                self.active.remove(&rank);
            }
            State::Backoff(at) => {
                self.timers.remove(&(at, uid.to_owned()));
            }
            State::Parked(_, _, at) => {
                self.timers.remove(&(at, uid.to_owned()));
                self.parked.remove(uid);
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str, priority: i32) -> Arc<PodInfo> {
        Arc::new(PodInfo { uid: uid.into(), priority, ..Default::default() })
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn higher_priority_goes_first_then_age() {
        let mut queue = Queue::default();
        for (uid, priority) in [("a", 0), ("b", 5), ("c", 5)] {
            queue.upsert(pod(uid, priority), at(0));
        }
        let order: Vec<String> =
            std::iter::from_fn(|| queue.pop(at(0))).map(|(info, _)| info.uid.clone()).collect();
        assert_eq!(order, ["b", "c", "a"]);
    }

    #[test]
    fn parked_pods_wait_for_a_change_and_their_backoff() {
        let mut queue = Queue::default();
        queue.park(pod("a", 0), 0, Plugins::default(), at(0));
        assert!(queue.pop(at(60)).is_none());
        queue.reactivate(at(60), |_, _| false);
        assert!(queue.pop(at(60)).is_none());
        queue.reactivate(at(60), |_, _| true);
        let (info, attempts) = queue.pop(at(60)).unwrap();
        queue.park(info, attempts, Plugins::default(), at(60));
        queue.reactivate(at(60), |_, _| true);
        assert!(queue.pop(at(61)).is_none(), "the second attempt waits two seconds");
        assert_eq!(queue.next_timer(), Some(at(62)));
        assert!(queue.pop(at(62)).is_some());
        assert!(queue.next_timer().is_none());
    }

    #[test]
    fn the_backoff_doubles_up_to_its_maximum() {
        let seconds = |attempts| Backoff::default().after(attempts).as_secs();
        assert_eq!([0, 1, 3, 4, 31, 32, 99].map(seconds), [1, 2, 8, 10, 10, 10, 10]);
    }

    #[test]
    fn parked_pods_are_retried_in_the_end_and_removed_pods_are_not() {
        let mut queue = Queue::default();
        queue.park(pod("a", 0), 0, Plugins::default(), at(0));
        assert!(queue.pop(at(300)).is_some());
        queue.retry(pod("b", 0), 9, at(0));
        assert!(queue.remove("b") && !queue.remove("b"));
        assert!(queue.pop(at(999)).is_none() && queue.next_timer().is_none());
    }
}
