//! The cluster in columns.
//!
//! A node is an index; resources are arrays by index, labels and taints are bitsets of indices, so
//! that a filter accesses memory sequentially and a selector is a few set operations. Counts are
//! updated as pods come and go, never recomputed.
//!
//! Hot path (one scheduling cycle): nothing here allocates but the bitsets of a pod's own
//! selectors.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use api::labels::Requirement;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, Taint};
use roaring::RoaringBitmap;

use crate::pod::{HostPort, NodeTerm, PodInfo};

/// A node's index in every column. Reused after the node is gone.
pub type NodeIndex = u32;

/// CPU, memory and pods come first in the columns; other resources follow as they appear.
pub const CPU: usize = 0;
pub const MEMORY: usize = 1;

/// A pod and its node.
#[derive(Clone, Debug)]
pub struct PlacedPod {
    pub node: NodeIndex,
    pub info: Arc<PodInfo>,
}

/// One resource over all nodes.
#[derive(Debug, Default)]
pub struct Column {
    pub allocatable: Vec<i64>,
    pub requested: Vec<i64>,
}

/// The parts of a node that affect scheduling, kept to detect changes.
#[derive(Clone, Debug, Default, PartialEq)]
struct NodeInfo {
    labels: BTreeMap<String, String>,
    taints: Vec<Taint>,
    unschedulable: bool,
    allocatable: Vec<(String, i64)>,
}

/// The state of the cluster, including assumed pods.
#[derive(Debug, Default)]
pub struct Snapshot {
    names: Vec<Option<Arc<str>>>,
    info: Vec<NodeInfo>,
    by_name: HashMap<Arc<str>, NodeIndex>,
    present: RoaringBitmap,
    unschedulable: RoaringBitmap,
    resource_names: HashMap<String, usize>,
    columns: Vec<Column>,
    /// Requested CPU and memory with defaults, for scores.
    pub nonzero_requested: Vec<(i64, i64)>,
    labels: HashMap<String, HashMap<String, RoaringBitmap>>,
    taints: Vec<(Taint, RoaringBitmap)>,
    ports: HashMap<(String, i32), Vec<(String, NodeIndex)>>,
    pods: HashMap<String, PlacedPod>,
    by_namespace: HashMap<String, HashSet<String>>,
    /// Number of pods of each set, by its uid and by node, without those being deleted.
    by_set: HashMap<String, HashMap<NodeIndex, i64>>,
    /// Uids of placed pods whose affinity terms affect new pods.
    anti_affine: HashSet<String>,
    preferring: HashSet<String>,
    /// Pods bound to nodes that are not known (yet), by node.
    on_unknown_nodes: HashMap<String, HashMap<String, Arc<PodInfo>>>,
    namespaces: HashMap<String, BTreeMap<String, String>>,
}

impl Snapshot {
    pub fn new() -> Self {
        let mut snapshot = Self::default();
        for name in ["cpu", "memory", "pods"] {
            snapshot.column(name);
        }
        snapshot
    }

    fn column(&mut self, name: &str) -> usize {
        if let Some(index) = self.resource_names.get(name) {
            return *index;
        }
        let index = self.columns.len();
        let size = self.names.len();
        self.columns.push(Column { allocatable: vec![0; size], requested: vec![0; size] });
        self.resource_names.insert(name.to_owned(), index);
        index
    }

    /// Adds or updates a node. Returns whether anything that affects scheduling changed.
    pub fn set_node(&mut self, node: &Node) -> bool {
        let info = read_node(node);
        let name: Arc<str> = node.metadata.name.as_deref().unwrap_or_default().into();
        let index = match self.by_name.get(&name) {
            Some(index) if self.info[*index as usize] == info => return false,
            Some(index) => {
                let index = *index;
                self.unindex(index);
                index
            }
            None => self.add_slot(name),
        };
        self.index(index, info);
        if let Some(pods) = self.on_unknown_nodes.remove(&*self.name(index)) {
            for info in pods.into_values() {
                self.place(info, index);
            }
        }
        true
    }

    fn add_slot(&mut self, name: Arc<str>) -> NodeIndex {
        let index = self.names.iter().position(Option::is_none).unwrap_or_else(|| {
            self.names.push(None);
            self.info.push(NodeInfo::default());
            self.nonzero_requested.push((0, 0));
            for column in &mut self.columns {
                column.allocatable.push(0);
                column.requested.push(0);
            }
            self.names.len() - 1
        });
        self.names[index] = Some(name.clone());
        let index = NodeIndex::try_from(index).expect("fewer than 2^32 nodes");
        self.by_name.insert(name, index);
        self.present.insert(index);
        index
    }

    fn index(&mut self, index: NodeIndex, info: NodeInfo) {
        let slot = index as usize;
        for (key, value) in &info.labels {
            self.labels
                .entry(key.clone())
                .or_default()
                .entry(value.clone())
                .or_default()
                .insert(index);
        }
        for taint in &info.taints {
            match self.taints.iter_mut().find(|(known, _)| same_taint(known, taint)) {
                Some((_, nodes)) => {
                    nodes.insert(index);
                }
                None => self.taints.push((taint.clone(), [index].into())),
            }
        }
        if info.unschedulable {
            self.unschedulable.insert(index);
        }
        for (name, amount) in &info.allocatable {
            let column = self.column(name);
            self.columns[column].allocatable[slot] = *amount;
        }
        self.info[slot] = info;
    }

    fn unindex(&mut self, index: NodeIndex) {
        let info = std::mem::take(&mut self.info[index as usize]);
        for (key, value) in &info.labels {
            if let Some(values) = self.labels.get_mut(key) {
                if let Some(nodes) = values.get_mut(value) {
                    nodes.remove(index);
                    if nodes.is_empty() {
                        values.remove(value);
                    }
                }
                if values.is_empty() {
                    self.labels.remove(key);
                }
            }
        }
        for (_, nodes) in &mut self.taints {
            nodes.remove(index);
        }
        self.taints.retain(|(_, nodes)| !nodes.is_empty());
        self.unschedulable.remove(index);
        for column in &mut self.columns {
            column.allocatable[index as usize] = 0;
        }
    }

    /// Removes a node; its pods are kept until it is added again or they are deleted.
    pub fn remove_node(&mut self, name: &str) {
        let Some(index) = self.by_name.remove(name) else {
            return;
        };
        self.unindex(index);
        let placed: Vec<Arc<PodInfo>> = self
            .pods
            .values()
            .filter(|placed| placed.node == index)
            .map(|placed| placed.info.clone())
            .collect();
        for info in placed {
            self.remove_pod(&info.uid);
            self.on_unknown_nodes
                .entry(name.to_owned())
                .or_default()
                .insert(info.uid.clone(), info);
        }
        self.names[index as usize] = None;
        self.present.remove(index);
    }

    /// Adds a bound or assumed pod to a node. Idempotent.
    pub fn add_pod(&mut self, info: Arc<PodInfo>, node: &str) {
        self.remove_pod(&info.uid);
        match self.by_name.get(node) {
            Some(index) => self.place(info, *index),
            None => {
                self.on_unknown_nodes
                    .entry(node.to_owned())
                    .or_default()
                    .insert(info.uid.clone(), info);
            }
        }
    }

    fn place(&mut self, info: Arc<PodInfo>, node: NodeIndex) {
        self.count(&info, node, 1);
        for port in &info.ports {
            self.ports
                .entry((port.protocol.clone(), port.port))
                .or_default()
                .push((port.ip.clone(), node));
        }
        self.by_namespace.entry(info.namespace.clone()).or_default().insert(info.uid.clone());
        if !info.anti_affinity.is_empty() {
            self.anti_affine.insert(info.uid.clone());
        }
        if !info.preferred_pods.is_empty() || !info.affinity.is_empty() {
            self.preferring.insert(info.uid.clone());
        }
        self.pods.insert(info.uid.clone(), PlacedPod { node, info });
    }

    /// Removes a pod from its node. Idempotent.
    pub fn remove_pod(&mut self, uid: &str) {
        let Some(PlacedPod { node, info }) = self.pods.remove(uid) else {
            self.on_unknown_nodes.retain(|_, pods| {
                pods.remove(uid);
                !pods.is_empty()
            });
            return;
        };
        self.count(&info, node, -1);
        for port in &info.ports {
            let key = (port.protocol.clone(), port.port);
            if let Some(users) = self.ports.get_mut(&key) {
                if let Some(at) =
                    users.iter().position(|(ip, user)| *user == node && *ip == port.ip)
                {
                    users.swap_remove(at);
                }
                if users.is_empty() {
                    self.ports.remove(&key);
                }
            }
        }
        if let Some(uids) = self.by_namespace.get_mut(&info.namespace) {
            uids.remove(uid);
            if uids.is_empty() {
                self.by_namespace.remove(&info.namespace);
            }
        }
        self.anti_affine.remove(uid);
        self.preferring.remove(uid);
    }

    fn count(&mut self, info: &PodInfo, node: NodeIndex, sign: i64) {
        let slot = node as usize;
        for (name, amount) in &info.requests {
            let column = self.column(name);
            let requested = &mut self.columns[column].requested[slot];
            *requested = requested.saturating_add(sign * amount);
        }
        if let Some(set) = info.set.as_ref().filter(|_| !info.deleting) {
            let nodes = self.by_set.entry(set.clone()).or_default();
            *nodes.entry(node).or_default() += sign;
            nodes.retain(|_, count| *count > 0);
            if nodes.is_empty() {
                self.by_set.remove(set);
            }
        }
        let requested = &mut self.nonzero_requested[slot];
        *requested = (
            requested.0.saturating_add(sign * info.nonzero_requests.0),
            requested.1.saturating_add(sign * info.nonzero_requests.1),
        );
    }

    pub fn set_namespace(&mut self, name: &str, labels: BTreeMap<String, String>) {
        self.namespaces.insert(name.to_owned(), labels);
    }

    pub fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    pub fn namespace_labels(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(name)
    }

    pub fn nodes(&self) -> &RoaringBitmap {
        &self.present
    }

    pub fn unschedulable(&self) -> &RoaringBitmap {
        &self.unschedulable
    }

    pub fn taints(&self) -> &[(Taint, RoaringBitmap)] {
        &self.taints
    }

    /// The name of a node that exists.
    pub fn name(&self, node: NodeIndex) -> Arc<str> {
        self.names[node as usize].clone().expect("bitsets contain only indices of nodes that exist")
    }

    /// `None` if no node and no pod has ever had the resource.
    pub fn resource(&self, name: &str) -> Option<&Column> {
        self.resource_names.get(name).map(|index| &self.columns[*index])
    }

    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    pub fn placed(&self, uid: &str) -> Option<&PlacedPod> {
        self.pods.get(uid)
    }

    pub fn pods(&self) -> impl Iterator<Item = &PlacedPod> {
        self.pods.values()
    }

    /// Placed pods of one namespace.
    pub fn pods_in<'a>(&'a self, namespace: &str) -> impl Iterator<Item = &'a PlacedPod> {
        self.by_namespace.get(namespace).into_iter().flatten().filter_map(|uid| self.pods.get(uid))
    }

    /// The number of pods of a set on each of their nodes.
    pub fn of_set(&self, set: &str) -> impl Iterator<Item = (NodeIndex, i64)> {
        let nodes = self.by_set.get(set).into_iter().flatten();
        nodes.map(|(node, count)| (*node, *count))
    }

    pub fn anti_affine_pods(&self) -> impl Iterator<Item = &PlacedPod> {
        self.anti_affine.iter().filter_map(|uid| self.pods.get(uid))
    }

    pub fn preferring_pods(&self) -> impl Iterator<Item = &PlacedPod> {
        self.preferring.iter().filter_map(|uid| self.pods.get(uid))
    }

    /// The value of a node's label.
    pub fn label(&self, node: NodeIndex, key: &str) -> Option<&str> {
        self.info[node as usize].labels.get(key).map(String::as_str)
    }

    /// Nodes with the label.
    pub fn labelled(&self, key: &str, value: &str) -> Option<&RoaringBitmap> {
        self.labels.get(key)?.get(value)
    }

    /// Every value of a label key, with the nodes that have it.
    pub fn domains(&self, key: &str) -> impl Iterator<Item = (&String, &RoaringBitmap)> {
        self.labels.get(key).into_iter().flatten()
    }

    /// Nodes that have the label key.
    pub fn with_label(&self, key: &str) -> RoaringBitmap {
        self.domains(key).fold(RoaringBitmap::new(), |all, (_, nodes)| all | nodes)
    }

    /// Nodes whose labels satisfy one requirement.
    pub fn matching(&self, requirement: &Requirement) -> RoaringBitmap {
        let of_values = |key: &str, wanted: &dyn Fn(&str) -> bool| {
            self.domains(key)
                .filter(|(value, _)| wanted(value))
                .fold(RoaringBitmap::new(), |all, (_, nodes)| all | nodes)
        };
        let number = |value: &str| value.parse::<i64>().ok();
        match requirement {
            Requirement::In(key, values) => {
                of_values(key, &|value| values.iter().any(|wanted| wanted == value))
            }
            Requirement::NotIn(key, values) => {
                &self.present - of_values(key, &|value| values.iter().any(|wanted| wanted == value))
            }
            Requirement::Exists(key) => self.with_label(key),
            Requirement::NotExists(key) => &self.present - self.with_label(key),
            Requirement::Greater(key, bound) => {
                of_values(key, &|value| number(value).is_some_and(|value| value > *bound))
            }
            Requirement::Less(key, bound) => {
                of_values(key, &|value| number(value).is_some_and(|value| value < *bound))
            }
        }
    }

    /// Nodes that match a term; an empty term matches none.
    pub fn matching_term(&self, term: &NodeTerm) -> RoaringBitmap {
        if term.labels.is_empty() && term.names.is_empty() {
            return RoaringBitmap::new();
        }
        let mut nodes = self.present.clone();
        for requirement in &term.labels {
            nodes &= self.matching(requirement);
        }
        for requirement in &term.names {
            nodes &= self.named(requirement);
        }
        nodes
    }

    fn named(&self, requirement: &Requirement) -> RoaringBitmap {
        let by_names = |names: &[String]| {
            names.iter().filter_map(|name| self.by_name.get(name.as_str()).copied()).collect()
        };
        match requirement {
            Requirement::In(_, names) => by_names(names),
            Requirement::NotIn(_, names) => &self.present - &by_names(names),
            _ => RoaringBitmap::new(),
        }
    }

    /// Nodes on which one of `ports` is taken: same protocol and port, and the same address or the
    /// wildcard on either side.
    pub fn port_conflicts(&self, ports: &[HostPort]) -> RoaringBitmap {
        let mut nodes = RoaringBitmap::new();
        for port in ports {
            let users = self.ports.get(&(port.protocol.clone(), port.port)).into_iter().flatten();
            nodes.extend(
                users
                    .filter(|(ip, _)| *ip == port.ip || ip == "0.0.0.0" || port.ip == "0.0.0.0")
                    .map(|(_, node)| *node),
            );
        }
        nodes
    }
}

fn same_taint(left: &Taint, right: &Taint) -> bool {
    (&left.key, &left.effect, &left.value) == (&right.key, &right.effect, &right.value)
}

fn read_node(node: &Node) -> NodeInfo {
    let spec = node.spec.as_ref();
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    NodeInfo {
        labels: node.metadata.labels.clone().unwrap_or_default(),
        // When a taint was added is irrelevant here and must not count as a change.
        taints: spec
            .and_then(|spec| spec.taints.as_ref())
            .into_iter()
            .flatten()
            .map(|taint| Taint { time_added: None, ..taint.clone() })
            .collect(),
        unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
        allocatable: allocatable
            .into_iter()
            .flatten()
            .map(|(name, amount)| {
                let amount = Quantity::of(amount);
                (name.clone(), if name == "cpu" { amount.millis() } else { amount.units() })
            })
            .collect(),
    }
}
