//! Records Kubernetes Events about pods, their containers and the node.

use client::events::{self, reference};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::node::events::NodeEvent;
use crate::pod::declared::Declared;

/// Records events. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder(events::EventRecorder);

impl EventRecorder {
    pub fn new(recorder: events::EventRecorder) -> Self {
        Self(recorder)
    }

    pub fn node(&self, node: &Node, (kind, reason, message): NodeEvent) {
        self.0.record(reference(node), kind, reason, message);
    }

    pub fn pod_warning(&self, pod: &Pod, reason: &str, message: impl Into<String>) {
        self.0.warning(pod, reason, message);
    }

    pub fn pod_normal(&self, pod: &Pod, reason: &str, message: &str) {
        self.0.normal(pod, reason, message);
    }

    pub fn normal(&self, pod: &Pod, declared: &Declared, reason: &str, message: impl Into<String>) {
        self.record(pod, declared, "Normal", reason, message.into());
    }

    pub fn warning(
        &self,
        pod: &Pod,
        declared: &Declared,
        reason: &str,
        message: impl Into<String>,
    ) {
        self.record(pod, declared, "Warning", reason, message.into());
    }

    fn record(
        &self,
        pod: &Pod,
        declared: &Declared,
        kind: &'static str,
        reason: &str,
        message: String,
    ) {
        let mut about = reference(pod);
        about.field_path = Some(declared.field_path());
        self.0.record(about, kind, reason, message);
    }
}
