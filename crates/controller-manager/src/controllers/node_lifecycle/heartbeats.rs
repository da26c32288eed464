//! When nodes were last heard from.
//!
//! Silence is measured by the monotonic clock from when a heartbeat was observed: neither a step of
//! the wall clock nor a difference between the clocks of two machines is mistaken for silence.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::plan::condition;
use crate::machinery::owner::uid;

/// The parts of a node's Lease and status that change with every report.
#[derive(Clone, Debug, PartialEq)]
pub struct Heartbeat {
    lease: Option<MicroTime>,
    status: Option<Time>,
}

impl Heartbeat {
    pub fn of(node: &Node, lease: Option<&Lease>) -> Self {
        let spec = lease.and_then(|lease| lease.spec.as_ref());
        Self {
            lease: spec.and_then(|spec| spec.renew_time.clone()),
            status: condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.clone()),
        }
    }
}

#[derive(Debug)]
struct LastHeartbeat {
    uid: String,
    heartbeat: Heartbeat,
    at: Instant,
}

/// What was observed of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// How long ago its last heartbeat was observed.
    pub lasts: Duration,
    /// Whether it is the first time that this node is looked at.
    pub is_new: bool,
}

/// The last heartbeats, by node. After a restart every node gets the full grace period.
#[derive(Debug, Default)]
pub struct Heartbeats(Mutex<HashMap<String, LastHeartbeat>>);

impl Heartbeats {
    /// Records what the cache or the server says about a node.
    pub fn observe(&self, node: &Node, heartbeat: Heartbeat, now: Instant) -> Silence {
        let name = node.metadata.name.clone().unwrap_or_default();
        let uid = uid(&node.metadata);
        let mut all = self.0.lock();
        let is_new = all.get(&name).is_none_or(|last| last.uid != uid);
        let last = match all.get_mut(&name) {
            Some(last) if last.uid == uid && last.heartbeat == heartbeat => last,
            _ => {
                let last = LastHeartbeat { uid: uid.to_owned(), heartbeat, at: now };
                all.entry(name).insert_entry(last).into_mut()
            }
        };
        Silence { lasts: now.saturating_duration_since(last.at), is_new }
    }

    /// Forgets a node that is gone, and returns its uid if it was known.
    pub fn forget(&self, name: &str) -> Option<String> {
        self.0.lock().remove(name).map(|last| last.uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::at;

    fn beat(second: i64) -> Heartbeat {
        Heartbeat { lease: Some(MicroTime(at(second))), status: None }
    }

    fn node(uid: &str) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some("n".into());
        node.metadata.uid = Some(uid.into());
        node
    }

    #[test]
    fn silence_ends_with_a_heartbeat_of_any_time() {
        let (heartbeats, start) = (Heartbeats::default(), clock::instant());
        let after = |seconds| start + Duration::from_secs(seconds);
        let lasts = |beat, now| heartbeats.observe(&node("a"), beat, now).lasts.as_secs();
        assert_eq!(lasts(beat(100), start), 0);
        assert_eq!(lasts(beat(100), after(39)), 39);
        // The node's clock was set back: a heartbeat all the same.
        assert_eq!(lasts(beat(50), after(45)), 0);
        assert_eq!(lasts(beat(50), after(50)), 5);
    }

    #[test]
    fn a_node_that_was_created_again_has_not_been_silent() {
        let (heartbeats, start) = (Heartbeats::default(), clock::instant());
        assert!(heartbeats.observe(&node("a"), beat(1), start).is_new);
        let later = start + Duration::from_secs(99);
        let again = heartbeats.observe(&node("b"), beat(1), later);
        assert_eq!(again, Silence { lasts: Duration::ZERO, is_new: true });
        assert_eq!(heartbeats.forget("n").as_deref(), Some("b"));
        assert_eq!(heartbeats.forget("n"), None);
    }
}
