//! The queue of pods that wait to be scheduled.
//!
//! A pod is active (ordered by priority, then by age), backing off after a failed attempt, or
//! parked as unschedulable until a change could make it fit. Every pod is in exactly one of these
//! states.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::pod::PodInfo;

/// Minimum and maximum backoff after a failed attempt, as upstream.
const BACKOFF_MIN: SignedDuration = SignedDuration::from_secs(1);
const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(10);
/// Parked pods are retried after this long even if nothing has changed.
const PARKED_MAX: SignedDuration = SignedDuration::from_mins(5);

/// Order of the active queue: PrioritySort.
type Rank = (i64, Timestamp, u64);

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Active(Rank),
    /// Retried at this time.
    Backoff(Timestamp),
    /// Waits for a change; retried not before the first time, and at the second at the latest.
    Parked(Timestamp, Timestamp),
}

#[derive(Debug)]
struct Entry {
    info: Arc<PodInfo>,
    attempts: u32,
    state: State,
}

#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<String, Entry>,
    active: BTreeMap<Rank, String>,
    /// Backing-off and parked pods by the time at which they become active by themselves.
    timers: BTreeSet<(Timestamp, String)>,
    next: u64,
}

impl Queue {
    /// Adds or updates a pod. A pod whose spec changed is retried at once.
    pub fn upsert(&mut self, info: Arc<PodInfo>, now: Timestamp) {
        let attempts = self.detach(&info.uid).map_or(0, |entry| entry.attempts);
        self.insert(info, attempts, None, now);
    }

    /// A waiting pod.
    pub fn get(&self, uid: &str) -> Option<&PodInfo> {
        self.pods.get(uid).map(|entry| &*entry.info)
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

    /// The pod is unschedulable: it waits for a change.
    pub fn park(&mut self, info: Arc<PodInfo>, attempts: u32, now: Timestamp) {
        let state = State::Parked(now + backoff(attempts), now + PARKED_MAX);
        self.insert(info, attempts + 1, Some(state), now);
    }

    /// The attempt failed: the pod is retried after its backoff.
    pub fn retry(&mut self, info: Arc<PodInfo>, attempts: u32, now: Timestamp) {
        let state = State::Backoff(now + backoff(attempts));
        self.insert(info, attempts + 1, Some(state), now);
    }

    /// After a change: retries the parked pods that it `affects`, as soon as their backoff is over.
    pub fn reactivate(&mut self, now: Timestamp, affects: impl Fn(&PodInfo) -> bool) {
        let reactivated: Vec<(String, Timestamp)> = self
            .pods
            .iter()
            .filter_map(|(uid, entry)| match entry.state {
                State::Parked(from, _) if affects(&entry.info) => Some((uid.clone(), from)),
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
            State::Backoff(at) | State::Parked(_, at) => {
                self.timers.insert((at, uid.clone()));
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
            State::Backoff(at) | State::Parked(_, at) => {
                self.timers.remove(&(at, uid.to_owned()));
            }
        }
        Some(entry)
    }
}

fn backoff(attempts: u32) -> SignedDuration {
    BACKOFF_MIN.checked_mul(1 << attempts.min(8)).unwrap_or(BACKOFF_MAX).min(BACKOFF_MAX)
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
        queue.park(pod("a", 0), 0, at(0));
        assert!(queue.pop(at(60)).is_none());
        queue.reactivate(at(60), |_| false);
        assert!(queue.pop(at(60)).is_none());
        queue.reactivate(at(60), |_| true);
        let (info, attempts) = queue.pop(at(60)).unwrap();
        queue.park(info, attempts, at(60));
        queue.reactivate(at(60), |_| true);
        assert!(queue.pop(at(61)).is_none(), "the second attempt waits two seconds");
        assert_eq!(queue.next_timer(), Some(at(62)));
        assert!(queue.pop(at(62)).is_some());
        assert!(queue.next_timer().is_none());
    }

    #[test]
    fn parked_pods_are_retried_in_the_end_and_removed_pods_are_not() {
        let mut queue = Queue::default();
        queue.park(pod("a", 0), 0, at(0));
        assert!(queue.pop(at(300)).is_some());
        queue.retry(pod("b", 0), 9, at(0));
        assert!(queue.remove("b") && !queue.remove("b"));
        assert!(queue.pop(at(999)).is_none() && queue.next_timer().is_none());
    }
}
