//! Nodes.

use super::columns;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use serde_json::Value;

use super::{Column, Context, Strategy, fill};

/// The strategy of Nodes. A kubelet registers its node with its status, so a create keeps it.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Status", "The status of the node."),
    columns::text("Roles", "The roles of the node."),
    columns::AGE,
    columns::text("Version", "Version of the kubelet."),
    columns::wide("Internal-IP", "Address inside the cluster."),
    columns::wide("External-IP", "Address outside the cluster."),
    columns::wide("OS-Image", "Operating system."),
    columns::wide("Kernel-Version", "Version of the kernel."),
    columns::wide(
        "Container-Runtime",
        "Name and version of the container runtime.",
    ),
];

impl Strategy for Rules {
    type Object = Node;

    fn default(&self, node: &mut Node) {
        node.spec.get_or_insert_default();
        let status = node.status.get_or_insert_default();
        fill::amounts(&mut status.capacity);
        fill::amounts(&mut status.allocatable);
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
    }

    fn prepare_update(&self, new: &mut Node, old: &Node, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(&self, new: &mut Node, old: &Node, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, node: &Node, now: Timestamp) -> Vec<Value> {
        let none = NodeStatus::default();
        let status = node.status.as_ref().unwrap_or(&none);
        let info = status.node_info.as_ref();
        let known = |text: Option<&String>| match text {
            Some(text) if !text.is_empty() => Value::from(text.as_str()),
            _ => "<unknown>".into(),
        };
        let address = |kind: &str| {
            let mut all = status.addresses.iter().flatten();
            columns::or_none(
                all.find(|address| address.type_ == kind)
                    .map(|address| address.address.as_str()),
            )
        };
        vec![
            columns::name(&node.metadata),
            status_text(node, status).into(),
            columns::joined(&roles(node)),
            columns::age(&node.metadata, now),
            info.map(|info| info.kubelet_version.clone())
                .unwrap_or_default()
                .into(),
            address("InternalIP"),
            address("ExternalIP"),
            known(info.map(|info| &info.os_image)),
            known(info.map(|info| &info.kernel_version)),
            known(info.map(|info| &info.container_runtime_version)),
        ]
    }
}

fn status_text(node: &Node, status: &NodeStatus) -> String {
    let ready = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "Ready");
    let ready = match ready.map(|condition| condition.status.as_str()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    format!(
        "{ready}{}",
        if unschedulable {
            ",SchedulingDisabled"
        } else {
            ""
        }
    )
}

fn roles(node: &Node) -> Vec<String> {
    let mut roles: Vec<String> = Vec::new();
    for (key, value) in node.metadata.labels.iter().flatten() {
        match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => roles.push(role.to_owned()),
            None if key == "kubernetes.io/role" && !value.is_empty() => roles.push(value.clone()),
            _ => {}
        }
    }
    roles.sort();
    roles.dedup();
    roles
}
