//! The queue of pods that wait for a node.
//!
//! A pod is active (ordered by priority, then by age), backing off after a failed try, or parked
//! until something changes that could make it fit. Every pod is in exactly one of these states.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::pod::PodInfo;

/// First and longest pause after a failed try, as upstream.
const BACKOFF_MIN: SignedDuration = SignedDuration::from_secs(1);
const BACKOFF_MAX: SignedDuration = SignedDuration::from_secs(10);
/// Parked pods are tried again after this long even if nothing seems to have changed.
const PARKED_MAX: SignedDuration = SignedDuration::from_mins(5);

/// Order of the active queue: PrioritySort.
type Rank = (i64, Timestamp, u64);

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Active(Rank),
    /// Tried again at this time.
    Backoff(Timestamp),
    /// Waits for a change; not before the first time, and at the second at the latest.
    Parked(Timestamp, Timestamp),
}

#[derive(Debug)]
struct Entry {
    info: Arc<PodInfo>,
    attempts: u32,
    state: State,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<String, Entry>,
    active: BTreeMap<Rank, String>,
    /// Backing-off and parked pods by the time at which they become active on their own.
    timers: BTreeSet<(Timestamp, String)>,
    next: u64,
}

impl Queue {
    /// Adds a pod, or takes its changed form. A pod whose spec changed is tried at once.
    pub fn upsert(&mut self, info: Arc<PodInfo>, now: Timestamp) {
        let attempts = self.detach(&info.uid).map_or(0, |entry| entry.attempts);
        self.insert(info, attempts, None, now);
    }

    /// A waiting pod, as it was read.
    pub fn get(&self, uid: &str) -> Option<&PodInfo> {
        self.pods.get(uid).map(|entry| &*entry.info)
    }

    /// Forgets a pod. Returns whether it was there.
    pub fn remove(&mut self, uid: &str) -> bool {
        self.detach(uid).is_some()
    }

    /// The next pod to try. It has left the queue; [`park`](Self::park) or
    /// [`retry`](Self::retry) bring it back.
    pub fn pop(&mut self, now: Timestamp) -> Option<(Arc<PodInfo>, u32)> {
        self.fire(now);
        let (_, uid) = self.active.pop_first()?;
        self.pods.remove(&uid).map(|entry| (entry.info, entry.attempts))
    }

    /// The pod fits nowhere now: it waits for a change.
    pub fn park(&mut self, info: Arc<PodInfo>, attempts: u32, now: Timestamp) {
        let state = State::Parked(now + backoff(attempts), now + PARKED_MAX);
        self.insert(info, attempts + 1, Some(state), now);
    }

    /// Something went wrong on the way: it is tried again after a pause.
    pub fn retry(&mut self, info: Arc<PodInfo>, attempts: u32, now: Timestamp) {
        let state = State::Backoff(now + backoff(attempts));
        self.insert(info, attempts + 1, Some(state), now);
    }

    /// Something changed: parked pods that `concerns` accepts are tried again, as soon as their
    /// back-off is over.
    pub fn wake(&mut self, now: Timestamp, concerns: impl Fn(&PodInfo) -> bool) {
        let woken: Vec<(String, Timestamp)> = self
            .pods
            .iter()
            .filter_map(|(uid, entry)| match entry.state {
                State::Parked(from, _) if concerns(&entry.info) => Some((uid.clone(), from)),
                _ => None,
            })
            .collect();
        for (uid, from) in woken {
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
    fn parked_pods_wait_for_a_change_and_for_their_back_off() {
        let mut queue = Queue::default();
        queue.park(pod("a", 0), 0, at(0));
        assert!(queue.pop(at(60)).is_none());
        queue.wake(at(60), |_| false);
        assert!(queue.pop(at(60)).is_none());
        queue.wake(at(60), |_| true);
        let (info, attempts) = queue.pop(at(60)).unwrap();
        queue.park(info, attempts, at(60));
        queue.wake(at(60), |_| true);
        assert!(queue.pop(at(61)).is_none(), "the second try waits two seconds");
        assert_eq!(queue.next_timer(), Some(at(62)));
        assert!(queue.pop(at(62)).is_some());
        assert!(queue.next_timer().is_none());
    }

    #[test]
    fn nothing_is_parked_for_ever_and_removal_forgets() {
        let mut queue = Queue::default();
        queue.park(pod("a", 0), 0, at(0));
        assert!(queue.pop(at(300)).is_some());
        queue.retry(pod("b", 0), 9, at(0));
        assert!(queue.remove("b") && !queue.remove("b"));
        assert!(queue.pop(at(999)).is_none() && queue.next_timer().is_none());
    }
}
