//! Since when nodes have their NoExecute taints, by the monotonic clock.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use tokio::time::Instant;

use crate::machinery::cache::{Change, Key};

pub const NO_EXECUTE: &str = "NoExecute";

/// A taint that evicts.
#[derive(Clone, Debug, PartialEq)]
pub struct NoExecute {
    pub taint: Taint,
    pub since: Instant,
}

pub fn no_execute(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == NO_EXECUTE)
}

/// The NoExecute taints of all nodes that have any.
#[derive(Debug, Default)]
pub struct Taints(HashMap<String, Vec<NoExecute>>);

impl Taints {
    /// Records the taints of a changed node. Returns whether they are others than before. A taint
    /// that is seen for the first time is as old as it says.
    pub fn apply(&mut self, change: &Change<Node>, now: Timestamp, instant: Instant) -> bool {
        let name = Key::of(&**change.last()).name;
        let before = self.0.remove(&name).unwrap_or_default();
        let since = |taint: &Taint| {
            let known = before.iter().find(|known| known.taint == *taint);
            known.map_or_else(|| first_seen(taint, now, instant), |known| known.since)
        };
        let taints = change.new.iter().flat_map(|node| no_execute(node));
        let taints: Vec<NoExecute> =
            taints.map(|taint| NoExecute { taint: taint.clone(), since: since(taint) }).collect();
        let changed = taints != before;
        if !taints.is_empty() {
            self.0.insert(name, taints);
        }
        changed
    }

    /// The taints of a node.
    pub fn of(&self, node: &str) -> Vec<NoExecute> {
        self.0.get(node).cloned().unwrap_or_default()
    }
}

fn first_seen(taint: &Taint, now: Timestamp, instant: Instant) -> Instant {
    let added = taint.time_added.as_ref().map_or(now, |time| time.0);
    // A time in the future says that the clocks disagree, not that the taint does not count yet.
    let age = std::time::Duration::try_from(now.duration_since(added)).unwrap_or_default();
    instant.checked_sub(age).unwrap_or(instant)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;
    use crate::machinery::testing::at;

    fn node(keys: &[&str]) -> Arc<Node> {
        let mut node = Node::default();
        node.metadata.name = Some("n".into());
        let taint = |key: &&str| Taint {
            key: (*key).into(),
            effect: NO_EXECUTE.into(),
            time_added: Some(Time(at(100))),
            value: None,
        };
        let mut taints: Vec<Taint> = keys.iter().map(taint).collect();
        taints.push(Taint { key: "x".into(), effect: "NoSchedule".into(), ..Default::default() });
        node.spec.get_or_insert_default().taints = Some(taints);
        Arc::new(node)
    }

    #[test]
    fn a_taint_ages_by_the_monotonic_clock_once_it_was_seen() {
        // Far enough from the boot of the machine to look back.
        let start = clock::instant() + Duration::from_secs(1000);
        let mut taints = Taints::default();
        let mut apply = |old: Option<&[&str]>, new: Option<&[&str]>, wall, later| {
            let change = Change { old: old.map(node), new: new.map(node) };
            let changed = taints.apply(&change, at(wall), start + Duration::from_secs(later));
            let since = taints.of("n").iter().map(|one| one.since).collect::<Vec<_>>();
            (changed, since)
        };
        let ago = |seconds| start - Duration::from_secs(seconds);
        assert_eq!(apply(None, Some(&["down"]), 110, 0), (true, vec![ago(10)]));
        // The wall clock jumps by an hour; nothing else changes.
        assert_eq!(apply(Some(&["down"]), Some(&["down"]), 3710, 1), (false, vec![ago(10)]));
        // It jumps back before the taint was added: the new taint is of now.
        let later = start + Duration::from_secs(2);
        let both = apply(Some(&["down"]), Some(&["down", "lost"]), 50, 2);
        assert_eq!(both, (true, vec![ago(10), later]));
        assert_eq!(apply(Some(&["down", "lost"]), Some(&[]), 60, 3), (true, vec![]));
        assert_eq!(apply(Some(&[]), None, 60, 4), (false, vec![]));
    }
}
