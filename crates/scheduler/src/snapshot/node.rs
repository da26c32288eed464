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

/// A node before a change; `None`: it is new.
#[derive(Debug)]
pub struct NodeChange(pub Option<NodeInfo>);

impl NodeChange {
    pub fn added(&self) -> bool {
        self.0.is_none()
    }

    /// Whether it is new, or `part` of it is another one now.
    pub fn changed<T: PartialEq>(&self, now: &NodeInfo, part: impl Fn(&NodeInfo) -> &T) -> bool {
        self.0.as_ref().is_none_or(|before| part(before) != part(now))
    }

    /// Whether it is new, or was not so before.
    pub fn was_not(&self, so: impl Fn(&NodeInfo) -> bool) -> bool {
        self.0.as_ref().is_none_or(|before| !so(before))
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

    /// Whether both are the same but for their images.
    pub fn schedules_alike(&self, other: &Self) -> bool {
        (&self.labels, &self.taints, &self.allocatable, self.unschedulable)
            == (&other.labels, &other.taints, &other.allocatable, other.unschedulable)
    }

    pub fn allocatable(&self, name: &str) -> i64 {
        let mut all = self.allocatable.iter();
        all.find(|(known, _)| known == name).map_or(0, |(_, amount)| *amount)
    }
}

pub fn same_taint(left: &Taint, right: &Taint) -> bool {
    (&left.key, &left.effect, &left.value) == (&right.key, &right.effect, &right.value)
}
