//! Events about nodes, with upstream's texts (`k8s.io/kubernetes/pkg/controller/util/node`).

use client::events::EventRecorder;
use k8s_openapi::api::core::v1::{Node, ObjectReference};

use crate::machinery::owner::uid;

fn reference(name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: Some(name.into()),
        uid: Some(uid.into()),
        ..Default::default()
    }
}

fn event(recorder: &EventRecorder, (name, uid): (&str, &str), reason: &str, text: &str) {
    let message = format!("Node {name} event: {text}");
    recorder.record(reference(name, uid), "Normal", reason, message);
}

/// The controller takes charge of a node.
pub fn registered(recorder: &EventRecorder, node: &Node) {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let text = format!("Registered Node {name} in Controller");
    event(recorder, (name, uid(&node.metadata)), "RegisteredNode", &text);
}

/// A node is gone.
pub fn removing(recorder: &EventRecorder, name: &str, uid: &str) {
    let text = format!("Removing Node {name} from Controller");
    event(recorder, (name, uid), "RemovingNode", &text);
}

/// The status of a node has changed to `reason`.
pub fn status_change(recorder: &EventRecorder, node: &Node, reason: &str) {
    record_status(recorder, node, "Normal", reason);
}

/// The status of a node has changed to `reason`, which needs attention.
pub fn status_warning(recorder: &EventRecorder, node: &Node, reason: &str) {
    record_status(recorder, node, "Warning", reason);
}

fn record_status(recorder: &EventRecorder, node: &Node, kind: &'static str, reason: &str) {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let message = format!("Node {name} status is now: {reason}");
    recorder.record(reference(name, uid(&node.metadata)), kind, reason, message);
}
