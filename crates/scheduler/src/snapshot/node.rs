//! What the scheduler needs to know about a node, read once, and what changes of it mean.

use std::collections::BTreeMap;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, Taint};

/// The parts of a node that affect scheduling, kept to detect changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeInfo {
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Vec<(String, i64)>,
    /// Size in bytes by every name of an image.
    pub images: Vec<(String, i64)>,
}

/// Which parts of a node have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeChange {
    pub added: bool,
    pub labels: bool,
    pub taints: bool,
    pub allocatable: bool,
    pub unschedulable: bool,
}

impl NodeChange {
    pub const ADDED: Self =
        Self { added: true, labels: true, taints: true, allocatable: true, unschedulable: true };

    pub fn any(self) -> bool {
        self != Self::default()
    }
}

impl NodeInfo {
    pub fn read(node: &Node) -> Self {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        Self {
            labels: node.metadata.labels.clone().unwrap_or_default(),
            // When a taint was added is irrelevant here and must not count as a change.
            taints: spec
                .and_then(|spec| spec.taints.as_ref())
                .into_iter()
                .flatten()
                .map(|taint| Taint { time_added: None, ..taint.clone() })
                .collect(),
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            allocatable: status
                .and_then(|status| status.allocatable.as_ref())
                .into_iter()
                .flatten()
                .map(|(name, amount)| {
                    let amount = Quantity::of(amount);
                    (name.clone(), if name == "cpu" { amount.millis() } else { amount.units() })
                })
                .collect(),
            images: status
                .and_then(|status| status.images.as_ref())
                .into_iter()
                .flatten()
                .flat_map(|image| {
                    let size = image.size_bytes.unwrap_or(0);
                    image.names.iter().flatten().map(move |name| (name.clone(), size))
                })
                .collect(),
        }
    }

    pub fn change_to(&self, new: &Self) -> NodeChange {
        NodeChange {
            added: false,
            labels: self.labels != new.labels,
            taints: self.taints != new.taints,
            allocatable: self.allocatable != new.allocatable,
            unschedulable: self.unschedulable != new.unschedulable,
        }
    }
}

pub fn same_taint(left: &Taint, right: &Taint) -> bool {
    (&left.key, &left.effect, &left.value) == (&right.key, &right.effect, &right.value)
}
