//! Writes the node's status when it differs.

use std::sync::Arc;

use api::Kind;
use client::{Api, PatchKind};
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use serde_json::{Value, json};

use super::{Agent, WRITE_AT_LEAST};
use crate::node::events::condition_events;
use crate::node::status::{StatusInput, heartbeat, status};

impl Agent {
    pub(super) async fn write_status(&mut self) {
        let now = self.parts.clock.now();
        let object = self.parts.node.borrow().clone();
        let before = object.status.clone().unwrap_or_default();
        let pressures = *self.parts.pressures.borrow();
        let network_ready = self.parts.network.borrow().is_some();
        let offers = self.parts.devices.offers();
        let input = StatusInput {
            facts: &self.parts.facts,
            hostname: &self.parts.flags.node_name,
            ips: &self.ips,
            port: self.parts.port,
            max_pods: self.parts.flags.max_pods,
            pressures,
            runtime_ready: self.runtime_ready,
            network_ready,
            user_namespaces: self.parts.runtime.supports_user_namespaces(),
            app_armor: self.parts.runtime.supports_app_armor(),
            images: &self.images,
            offers: &offers,
        };
        let mut wanted = status(&input, &before, now);
        let due = self.written_at.is_none_or(|at| now.duration_since(at) >= WRITE_AT_LEAST);
        if wanted == before && !due {
            return;
        }
        heartbeat(&mut wanted, now);
        let difference = api::strategic::two_way(&encoded(&before), &encoded(&wanted), None);
        if difference == json!({}) {
            self.written_at = Some(now);
            return;
        }
        let patch = json!({
            "metadata": {"resourceVersion": object.metadata.resource_version},
            "status": difference,
        });
        let nodes: Api<Node> = Api::all(&self.parts.client);
        let name = &self.parts.flags.node_name;
        match nodes.patch_status(name, PatchKind::Merge, &patch).await {
            Ok(node) => {
                self.written_at = Some(now);
                for event in condition_events(name, &before, &wanted) {
                    self.parts.recorder.node(&node, event);
                }
                self.parts.node.send_replace(Arc::new(node));
            }
            // Someone else was first: compute the status again from the newer version.
            Err(error) if error.is_conflict() => {
                if let Ok(node) = nodes.get(name).await {
                    self.parts.node.send_replace(Arc::new(node));
                }
            }
            Err(error) => tracing::warn!(%error, "cannot write the node's status"),
        }
    }
}

fn encoded(status: &NodeStatus) -> Value {
    let node = Node { status: Some(status.clone()), ..Default::default() };
    let value: Value = serde_json::from_slice(&node.encode()).expect("it was encoded just now");
    value.get("status").cloned().unwrap_or_else(|| json!({}))
}
