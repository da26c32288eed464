//! The events that a changed node status calls for: pure.

use k8s_openapi::api::core::v1::NodeStatus;

/// An event's type, reason and message.
pub type NodeEvent = (&'static str, &'static str, String);

/// Reasons by condition type, for `True` and for `False`, as in upstream's kubelet.
const REASONS: [(&str, &str, &str); 4] = [
    ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
    ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
    ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
    ("Ready", "NodeReady", "NodeNotReady"),
];

/// The events for what has changed from one status to the next.
pub fn condition_events(node: &str, before: &NodeStatus, after: &NodeStatus) -> Vec<NodeEvent> {
    let state = |status: &NodeStatus, type_: &str| {
        let mut all = status.conditions.iter().flatten();
        all.find(|condition| condition.type_ == type_).map(|condition| condition.status == "True")
    };
    let boot = |status: &NodeStatus| status.node_info.as_ref().map(|info| info.boot_id.clone());
    let mut events = Vec::new();
    if let (Some(old), Some(new)) = (boot(before), boot(after))
        && old != new
        && !old.is_empty()
    {
        let text = format!("Node {node} has been rebooted, boot id: {new}");
        events.push(("Warning", "Rebooted", text));
    }
    for (type_, if_true, if_false) in REASONS {
        let now = state(after, type_);
        let Some(is) = now.filter(|_| now != state(before, type_)) else {
            continue;
        };
        let reason = if is { if_true } else { if_false };
        let text = format!("Node {node} status is now: {reason}");
        events.push(("Normal", reason, text));
    }
    events
}

/// The event for a node that was cordoned or uncordoned.
pub fn schedulable_event(node: &str, before: bool, unschedulable: bool) -> Option<NodeEvent> {
    let reason = if unschedulable { "NodeNotSchedulable" } else { "NodeSchedulable" };
    (before != unschedulable)
        .then(|| ("Normal", reason, format!("Node {node} status is now: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{NodeCondition, NodeSystemInfo};

    fn status(boot: &str, ready: &str) -> NodeStatus {
        let condition = |type_: &str, status: &str| NodeCondition {
            type_: type_.into(),
            status: status.into(),
            ..Default::default()
        };
        NodeStatus {
            conditions: Some(vec![condition("DiskPressure", "False"), condition("Ready", ready)]),
            node_info: Some(NodeSystemInfo { boot_id: boot.into(), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn changes_are_reported() {
        let reasons_of = |before: &NodeStatus, after: &NodeStatus| {
            let reasons = condition_events("n", before, after).into_iter();
            reasons.map(|(_, reason, _)| reason).collect::<Vec<_>>()
        };
        let (up, down, again) = (status("1", "True"), status("1", "False"), status("2", "True"));
        assert_eq!(reasons_of(&NodeStatus::default(), &up), ["NodeHasNoDiskPressure", "NodeReady"]);
        assert!(reasons_of(&up, &up).is_empty());
        assert_eq!(reasons_of(&up, &down), ["NodeNotReady"]);
        assert_eq!(reasons_of(&down, &again), ["Rebooted", "NodeReady"]);
        let text = &condition_events("n", &up, &down)[0].2;
        assert_eq!(text, "Node n status is now: NodeNotReady");
    }

    #[test]
    fn cordoning_is_reported_once() {
        let event = |before, unschedulable| schedulable_event("n", before, unschedulable);
        assert_eq!(event(false, false), None);
        assert_eq!(event(true, true), None);
        for (before, reason) in [(false, "NodeNotSchedulable"), (true, "NodeSchedulable")] {
            let text = format!("Node n status is now: {reason}");
            assert_eq!(event(before, !before), Some(("Normal", reason, text)));
        }
    }
}
