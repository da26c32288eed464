//! Nodes.

use k8s_openapi::api::core::v1::Node;

use super::{Context, Strategy, fill};

/// The strategy of Nodes. A kubelet registers its node with its status, so a create keeps it.
pub struct Rules;

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
}
