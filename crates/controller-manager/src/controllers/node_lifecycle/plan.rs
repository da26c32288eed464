//! The conditions and taints of a node that may have stopped reporting: a pure function.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

pub const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
const NO_SCHEDULE: &str = "NoSchedule";
pub const NO_EXECUTE: &str = "NoExecute";

/// Conditions that the kubelet maintains.
const KUBELET_CONDITIONS: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Conditions besides Ready, and the taint that keeps new pods away while each is true.
const PRESSURE: &[(&str, &str)] = &[
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// Whether the node's pods may be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    Allowed,
    /// Not yet: too many other nodes fail. What has begun goes on.
    Held,
    /// Not at all: no node is ready.
    Withdrawn,
}

#[derive(Debug)]
pub struct Observed<'a> {
    pub node: &'a Node,
    pub silent_for: Duration,
    pub grace: Duration,
    pub eviction: Eviction,
}

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// Set the kubelet's conditions to Unknown.
    pub mark_unknown: bool,
    /// The node's taints, if they must change.
    pub taints: Option<Vec<Taint>>,
    /// The taints begin the eviction of the node's pods.
    pub evicts: bool,
    /// Remove the node's pods from their services.
    pub pods_not_ready: bool,
    /// When the grace period ends.
    pub requeue_after: Option<Duration>,
}

pub fn plan(observed: &Observed<'_>, now: Timestamp) -> Plan {
    let node = observed.node;
    let silent = observed.silent_for >= observed.grace;
    let ready = condition(node, "Ready").map(|condition| condition.status.as_str());
    let mark_unknown = silent && ready != Some("Unknown");
    // The change of the status triggers the next reconciliation, which handles taints and pods.
    let settled = !mark_unknown;
    let taints = settled.then(|| changed_taints(observed, now)).flatten();
    Plan {
        mark_unknown,
        evicts: !is_evicted(&taints_of(node)) && taints.as_deref().is_some_and(is_evicted),
        taints,
        pods_not_ready: settled && matches!(ready, Some("False" | "Unknown")),
        requeue_after: (!silent)
            .then(|| observed.grace - observed.silent_for + Duration::from_millis(10)),
    }
}

pub fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

pub fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|condition| condition.status == "True")
}

fn taints_of(node: &Node) -> Vec<Taint> {
    node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default()
}

/// Whether the taints evict the node's pods because it is not ready.
fn is_evicted(taints: &[Taint]) -> bool {
    let ours = |taint: &Taint| taint.key == NOT_READY || taint.key == UNREACHABLE;
    taints.iter().any(|taint| taint.effect == NO_EXECUTE && ours(taint))
}

/// The taints that the node should have, if they differ from those it has.
fn changed_taints(observed: &Observed<'_>, now: Timestamp) -> Option<Vec<Taint>> {
    let node = observed.node;
    let present = taints_of(node);
    let mut wanted = wanted(node);
    let evict = match observed.eviction {
        Eviction::Allowed => true,
        Eviction::Held => is_evicted(&present),
        Eviction::Withdrawn => false,
    };
    wanted.retain(|(_, effect)| evict || *effect != NO_EXECUTE);
    let ours = |taint: &Taint| {
        let pressure = PRESSURE.iter().any(|(_, key)| *key == taint.key);
        let by_schedule = taint.effect == NO_SCHEDULE && (pressure || taint.key == UNSCHEDULABLE);
        by_schedule || taint.key == NOT_READY || taint.key == UNREACHABLE
    };
    let same =
        |taint: &Taint, (key, effect): &(&str, &str)| taint.key == *key && taint.effect == *effect;
    let mut taints: Vec<Taint> = present
        .iter()
        .filter(|taint| !ours(taint) || wanted.iter().any(|wanted| same(taint, wanted)))
        .cloned()
        .collect();
    for (key, effect) in &wanted {
        if !taints.iter().any(|taint| same(taint, &(key, effect))) {
            taints.push(Taint {
                key: (*key).into(),
                effect: (*effect).into(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    (taints != present).then_some(taints)
}

/// Keys and effects of the controller's taints that the node should have.
fn wanted(node: &Node) -> Vec<(&'static str, &'static str)> {
    let mut wanted = Vec::new();
    let ready = condition(node, "Ready").map(|condition| condition.status.as_str());
    match ready {
        Some("True") => {}
        Some("Unknown") => wanted.extend([(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)]),
        Some(_) => wanted.extend([(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)]),
        // It has not reported yet: nothing runs there, and nothing should start.
        None => wanted.push((NOT_READY, NO_SCHEDULE)),
    }
    for (type_, key) in PRESSURE {
        if condition(node, type_).is_some_and(|condition| condition.status == "True") {
            wanted.push((key, NO_SCHEDULE));
        }
    }
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    wanted
}

/// Sets the kubelet's conditions to Unknown.
pub fn set_unknown(node: &mut Node, now: Timestamp) {
    let created = node.metadata.creation_timestamp.clone();
    let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
    for type_ in KUBELET_CONDITIONS {
        match conditions.iter_mut().find(|condition| condition.type_ == *type_) {
            None => conditions.push(NodeCondition {
                type_: (*type_).into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: created.clone(),
                last_transition_time: Some(Time(now)),
            }),
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(Time(now));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::testing::at;

    fn node(ready: Option<&str>) -> Node {
        let mut node = Node::default();
        node.metadata.name = Some("n".into());
        if let Some(ready) = ready {
            node.status.get_or_insert_default().conditions = Some(vec![NodeCondition {
                type_: "Ready".into(),
                status: ready.into(),
                ..Default::default()
            }]);
        }
        node
    }

    fn after(node: &Node, seconds: u64) -> Plan {
        let observed = Observed {
            node,
            silent_for: Duration::from_secs(seconds),
            grace: Duration::from_secs(40),
            eviction: Eviction::Allowed,
        };
        plan(&observed, at(9))
    }

    #[test]
    fn evictions_are_held_back_and_withdrawn() {
        use Eviction::{Allowed, Held, Withdrawn};
        let mut node = node(Some("Unknown"));
        let planned = |node: &Node, eviction| {
            let silent_for = Duration::ZERO;
            plan(&Observed { node, silent_for, grace: Duration::from_secs(40), eviction }, at(9))
        };
        let only_cordoned = ["node.kubernetes.io/unreachable:NoSchedule"];
        for eviction in [Held, Withdrawn] {
            let plan = planned(&node, eviction);
            assert_eq!((taints(&plan), plan.evicts), (vec![only_cordoned[0].into()], false));
        }
        let begun = planned(&node, Allowed);
        assert!(begun.evicts);
        node.spec.get_or_insert_default().taints = begun.taints;
        assert_eq!(planned(&node, Held).taints, None, "what has begun goes on");
        assert_eq!(taints(&planned(&node, Withdrawn)), only_cordoned);
        // Another reason to evict does not cause a second eviction.
        node.status = self::node(Some("False")).status;
        let swapped = planned(&node, Held);
        assert!(taints(&swapped).contains(&"node.kubernetes.io/not-ready:NoExecute".into()));
        assert!(!swapped.evicts);
    }

    fn taints(plan: &Plan) -> Vec<String> {
        let taints = plan.taints.iter().flatten();
        taints.map(|taint| format!("{}:{}", taint.key, taint.effect)).collect()
    }

    #[test]
    fn a_healthy_node_needs_only_a_requeue() {
        let plan = after(&node(Some("True")), 10);
        assert_eq!(
            plan,
            Plan { requeue_after: Some(Duration::from_millis(30_010)), ..Default::default() }
        );
    }

    #[test]
    fn a_silent_node_is_marked_then_tainted() {
        let mut node = node(Some("True"));
        assert!(after(&node, 40).mark_unknown);
        set_unknown(&mut node, at(5));
        assert_eq!(condition(&node, "Ready").unwrap().status, "Unknown");
        assert_eq!(
            condition(&node, "DiskPressure").unwrap().reason.as_deref(),
            Some("NodeStatusNeverUpdated")
        );
        let plan = after(&node, 41);
        assert!(!plan.mark_unknown && plan.pods_not_ready);
        assert_eq!(
            taints(&plan),
            [
                "node.kubernetes.io/unreachable:NoSchedule",
                "node.kubernetes.io/unreachable:NoExecute"
            ]
        );
        node.spec.get_or_insert_default().taints = plan.taints;
        assert_eq!(after(&node, 42).taints, None);
    }

    #[test]
    fn recovery_removes_only_the_controllers_taints() {
        let mut node = node(Some("False"));
        let foreign = Taint { key: "gpu".into(), effect: NO_EXECUTE.into(), ..Default::default() };
        node.spec.get_or_insert_default().taints = Some(vec![foreign.clone()]);
        let plan = after(&node, 0);
        assert_eq!(
            taints(&plan),
            [
                "gpu:NoExecute",
                "node.kubernetes.io/not-ready:NoSchedule",
                "node.kubernetes.io/not-ready:NoExecute"
            ]
        );
        node.spec.as_mut().unwrap().taints = plan.taints;
        node.status = self::node(Some("True")).status;
        assert_eq!(after(&node, 0).taints, Some(vec![foreign]));
    }

    #[test]
    fn pressure_cordons_and_missing_reports_keep_pods_away() {
        let mut node = node(None);
        node.spec.get_or_insert_default().unschedulable = Some(true);
        node.status.get_or_insert_default().conditions = Some(vec![NodeCondition {
            type_: "DiskPressure".into(),
            status: "True".into(),
            ..Default::default()
        }]);
        assert_eq!(
            taints(&after(&node, 0)),
            [
                "node.kubernetes.io/not-ready:NoSchedule",
                "node.kubernetes.io/disk-pressure:NoSchedule",
                "node.kubernetes.io/unschedulable:NoSchedule"
            ]
        );
    }
}
