//! The cluster in columns.
//!
//! A node is an index; resources are arrays by index, labels and taints are bitsets of indices, so
//! that a filter accesses memory sequentially and a selector is a few set operations. Everything
//! that depends on pods ([`groups`], requests, ports) is adjusted as pods come and go, never
//! recomputed; [`Snapshot::count`] adjusts it alone, for "what if".
//!
//! Hot path (one scheduling cycle): nothing here allocates but the bitsets of a pod's own
//! selectors.

mod attached;
pub mod groups;
pub mod labels;
mod node;
mod select;
mod services;
mod storage;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use roaring::RoaringBitmap;

use crate::pod::{Disk, HostPort, PodInfo};
pub use attached::{Attached, of_pod as attached_by_pod};
use groups::{GroupId, GroupKey, Groups, Namespaces, PlacedTerms};
use labels::{LabelColumn, Labels};
pub use node::{NodeChange, NodeInfo};
pub use services::Services;
pub use storage::{Storage, StorageNeeds, TOPOLOGY_LABELS};

/// A node's index in every column. Reused after the node is gone.
pub type NodeIndex = u32;

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

/// An image, by one of its names.
#[derive(Debug, Default)]
pub struct Image {
    pub size_bytes: i64,
    pub nodes: RoaringBitmap,
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
    labels: Labels,
    taints: Vec<(Taint, RoaringBitmap)>,
    images: HashMap<String, Image>,
    ports: HashMap<(String, i32), Vec<(String, NodeIndex)>>,
    pods: HashMap<String, PlacedPod>,
    on_node: Vec<Vec<Arc<PodInfo>>>,
    /// Number of placed pods of each priority.
    priorities: BTreeMap<i32, usize>,
    by_namespace: HashMap<String, HashSet<String>>,
    disks: Vec<(Disk, NodeIndex)>,
    /// Number of pods that use a claim (`namespace/name`) by node.
    claim_users: HashMap<String, groups::ByNode>,
    /// Number of pods that name a volume themselves which a CSI driver attaches, by node.
    inline_users: HashMap<Attached, groups::ByNode>,
    pub storage: Storage,
    pub services: Services,
    groups: Groups,
    /// Required anti-affinity of placed pods.
    pub repelling: PlacedTerms,
    /// Required affinity of placed pods.
    pub attracting: PlacedTerms,
    /// Preferences of placed pods; amounts are weights.
    pub preferring: PlacedTerms,
    /// Pods bound to nodes that are not known (yet), by node.
    on_unknown_nodes: HashMap<String, HashMap<String, Arc<PodInfo>>>,
    namespaces: Namespaces,
    /// How many nodes have been removed: indices that were kept from before may mean other nodes.
    removals: u64,
}

impl Snapshot {
    pub fn new() -> Self {
        Self::default()
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

    /// Adds or updates a node. Returns what has changed that affects scheduling.
    pub fn set_node(&mut self, node: &Node) -> Option<(NodeIndex, NodeChange)> {
        let info = NodeInfo::read(node);
        let name: Arc<str> = node.metadata.name.as_deref().unwrap_or_default().into();
        let (index, before) = match self.by_name.get(&name).copied() {
            Some(index) => {
                if self.info[index as usize] == info {
                    return None;
                }
                (index, Some(self.unindex(index)))
            }
            None => (self.add_slot(name), None),
        };
        let only_images = before.as_ref().is_some_and(|before| before.schedules_alike(&info));
        self.index(index, info);
        if let Some(pods) = self.on_unknown_nodes.remove(&*self.name(index)) {
            for info in pods.into_values() {
                self.place(info, index);
            }
        }
        (!only_images).then_some((index, NodeChange(before)))
    }

    fn add_slot(&mut self, name: Arc<str>) -> NodeIndex {
        let index = self.names.iter().position(Option::is_none).unwrap_or_else(|| {
            self.names.push(None);
            self.info.push(NodeInfo::default());
            self.nonzero_requested.push((0, 0));
            self.on_node.push(Vec::new());
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
        self.labels.insert(index, &info.labels);
        for taint in &info.taints {
            match self.taints.iter_mut().find(|(known, _)| node::same_taint(known, taint)) {
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
        for (name, size_bytes) in &info.images {
            let image = self.images.entry(name.clone()).or_default();
            image.size_bytes = *size_bytes;
            image.nodes.insert(index);
        }
        self.info[slot] = info;
    }

    fn unindex(&mut self, index: NodeIndex) -> NodeInfo {
        let info = std::mem::take(&mut self.info[index as usize]);
        self.labels.remove(index, &info.labels);
        for (_, nodes) in &mut self.taints {
            nodes.remove(index);
        }
        self.taints.retain(|(_, nodes)| !nodes.is_empty());
        self.unschedulable.remove(index);
        for column in &mut self.columns {
            column.allocatable[index as usize] = 0;
        }
        for (name, _) in &info.images {
            if let Some(image) = self.images.get_mut(name) {
                image.nodes.remove(index);
                if image.nodes.is_empty() {
                    self.images.remove(name);
                }
            }
        }
        info
    }

    /// Removes a node, and returns what it was; its pods are kept until it is added again or they
    /// are deleted.
    pub fn remove_node(&mut self, name: &str) -> Option<NodeInfo> {
        let index = self.by_name.remove(name)?;
        let removed = self.unindex(index);
        for info in self.on_node[index as usize].clone() {
            self.remove_pod(&info.uid);
            self.on_unknown_nodes
                .entry(name.to_owned())
                .or_default()
                .insert(info.uid.clone(), info);
        }
        self.names[index as usize] = None;
        self.present.remove(index);
        self.removals += 1;
        Some(removed)
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
        self.by_namespace.entry(info.namespace.clone()).or_default().insert(info.uid.clone());
        *self.priorities.entry(info.priority).or_default() += 1;
        self.on_node[node as usize].push(info.clone());
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
        if let Some(uids) = self.by_namespace.get_mut(&info.namespace) {
            uids.remove(uid);
            if uids.is_empty() {
                self.by_namespace.remove(&info.namespace);
            }
        }
        if let Some(count) = self.priorities.get_mut(&info.priority) {
            *count -= 1;
            if *count == 0 {
                self.priorities.remove(&info.priority);
            }
        }
        self.on_node[node as usize].retain(|placed| placed.uid != uid);
    }

    /// Adjusts everything that filters and scores read by a pod on a node: `sign` 1 or -1. Whoever
    /// asks "what if" calls it, and then again with the opposite sign; the pod itself is not added.
    pub fn count(&mut self, info: &PodInfo, node: NodeIndex, sign: i64) {
        let slot = node as usize;
        for (name, amount) in &info.requests {
            let column = self.column(name);
            let requested = &mut self.columns[column].requested[slot];
            *requested = requested.saturating_add(sign * amount);
        }
        let requested = &mut self.nonzero_requested[slot];
        *requested = (
            requested.0.saturating_add(sign * info.nonzero_requests.0),
            requested.1.saturating_add(sign * info.nonzero_requests.1),
        );
        for port in &info.ports {
            self.count_port(port, node, sign);
        }
        self.count_volumes(info, node, sign);
        self.groups.count(info, node, sign, &self.namespaces);
        for term in &info.anti_affinity {
            self.repelling.add(term, node, sign);
        }
        for term in &info.affinity {
            self.attracting.add(term, node, sign);
        }
        for (weight, term) in &info.preferred_pods {
            self.preferring.add(term, node, sign * weight);
        }
    }

    fn count_port(&mut self, port: &HostPort, node: NodeIndex, sign: i64) {
        let key = (port.protocol.clone(), port.port);
        let users = self.ports.entry(key.clone()).or_default();
        if sign > 0 {
            users.push((port.ip.clone(), node));
            return;
        }
        if let Some(at) = users.iter().position(|(ip, user)| *user == node && *ip == port.ip) {
            users.swap_remove(at);
        }
        if users.is_empty() {
            self.ports.remove(&key);
        }
    }

    fn count_volumes(&mut self, info: &PodInfo, node: NodeIndex, sign: i64) {
        for disk in &info.disks {
            if sign > 0 {
                self.disks.push((disk.clone(), node));
            } else if let Some(at) =
                self.disks.iter().position(|(known, on)| *on == node && known == disk)
            {
                self.disks.swap_remove(at);
            }
        }
        for claim in &info.claims {
            let key = format!("{}/{claim}", info.namespace);
            let users = self.claim_users.entry(key.clone()).or_default();
            groups::add(users, node, sign);
            if users.is_empty() {
                self.claim_users.remove(&key);
            }
        }
        for volume in &info.inline {
            let users = self.inline_users.entry(volume.clone()).or_default();
            groups::add(users, node, sign);
            if users.is_empty() {
                self.inline_users.remove(volume);
            }
        }
    }

    /// Begins a cycle; see [`Groups::begin`].
    pub fn begin(&mut self) {
        self.groups.begin();
    }

    /// The group of pods with this key, for this cycle.
    pub fn group(&mut self, key: GroupKey) -> GroupId {
        let Self { groups, namespaces, pods, by_namespace, .. } = self;
        groups.ask(key, namespaces, |named| match named {
            None => pods.values().map(|placed| (placed.node, &*placed.info)).collect(),
            Some(named) => {
                let names: HashSet<&String> = named.iter().collect();
                let uids = names.into_iter().filter_map(|name| by_namespace.get(name)).flatten();
                uids.filter_map(|uid| pods.get(uid))
                    .map(|placed| (placed.node, &*placed.info))
                    .collect()
            }
        })
    }

    /// How many pods of the group each node has.
    pub fn group_counts(&self, id: GroupId) -> &groups::ByNode {
        self.groups.counts(id)
    }

    /// Returns whether its labels have changed.
    pub fn set_namespace(&mut self, name: &str, labels: BTreeMap<String, String>) -> bool {
        let before = self.namespaces.insert(name.to_owned(), labels);
        let changed = before.as_ref() != self.namespaces.get(name);
        if changed {
            self.groups.namespaces_changed();
        }
        changed
    }

    pub fn remove_namespace(&mut self, name: &str) {
        if self.namespaces.remove(name).is_some() {
            self.groups.namespaces_changed();
        }
    }

    pub fn namespace_labels(&self, name: &str) -> Option<&BTreeMap<String, String>> {
        self.namespaces.get(name)
    }

    pub fn nodes(&self) -> &RoaringBitmap {
        &self.present
    }

    pub fn removals(&self) -> u64 {
        self.removals
    }

    pub fn unschedulable(&self) -> &RoaringBitmap {
        &self.unschedulable
    }

    pub fn taints(&self) -> &[(Taint, RoaringBitmap)] {
        &self.taints
    }

    /// What is known of one node by itself.
    pub fn info(&self, node: NodeIndex) -> &NodeInfo {
        &self.info[node as usize]
    }

    /// The name of a node that exists.
    pub fn name(&self, node: NodeIndex) -> Arc<str> {
        self.names[node as usize].clone().expect("bitsets contain only indices of nodes that exist")
    }

    pub fn node(&self, name: &str) -> Option<NodeIndex> {
        self.by_name.get(name).copied()
    }

    /// `None` if no node and no pod has ever had the resource.
    pub fn resource(&self, name: &str) -> Option<&Column> {
        self.resource_names.get(name).map(|index| &self.columns[*index])
    }

    /// An image that some node has, by its normalized name.
    pub fn image(&self, name: &str) -> Option<&Image> {
        self.images.get(name)
    }

    pub fn placed(&self, uid: &str) -> Option<&PlacedPod> {
        self.pods.get(uid)
    }

    /// The lowest priority of a placed pod.
    pub fn lowest_priority(&self) -> Option<i32> {
        self.priorities.keys().next().copied()
    }

    /// Placed pods of one node.
    pub fn pods_on(&self, node: NodeIndex) -> &[Arc<PodInfo>] {
        &self.on_node[node as usize]
    }

    /// Disks that placed pods use directly.
    pub fn disks(&self) -> &[(Disk, NodeIndex)] {
        &self.disks
    }

    /// Number of pods that use a claim (`namespace/name`) by node.
    pub fn claim_users(&self) -> &HashMap<String, groups::ByNode> {
        &self.claim_users
    }

    /// Number of pods that name a volume themselves which a CSI driver attaches, by node.
    pub fn inline_users(&self) -> &HashMap<Attached, groups::ByNode> {
        &self.inline_users
    }

    /// The column of a label key; `None` if no node has it.
    pub fn label(&self, key: &str) -> Option<&LabelColumn> {
        self.labels.column(key)
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
