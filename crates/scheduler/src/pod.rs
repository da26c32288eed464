//! What the scheduler needs to know about a pod, read once.

mod volumes;

use std::collections::BTreeMap;

use api::labels::{Requirement, Selector};
use api::pod::{Side, resources};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Affinity, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodAffinityTerm, PodSpec, Toleration,
    TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::snapshot::{Attached, attached_by_pod};

/// What scores assume for a container without a CPU or memory request, as upstream does.
const DEFAULT_CPU_MILLI: i64 = 100;
const DEFAULT_MEMORY_BYTES: i64 = 200 << 20;

/// Reason of the condition `DisruptionTarget` of a victim.
pub const PREEMPTION_BY_SCHEDULER: &str = "PreemptionByScheduler";

/// A pod as the scheduler sees it.
#[derive(Clone, Debug, Default)]
pub struct PodInfo {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub scheduler_name: String,
    pub priority: i32,
    /// `preemptionPolicy: Never`.
    pub never_preempts: bool,
    /// `status.nominatedNodeName`: where room is being made for the pod.
    pub nominated_node: Option<String>,
    /// `status.startTime`.
    pub started: Option<Timestamp>,
    /// Message of the condition `PodScheduled` if it is `False` for `Unschedulable`.
    pub unschedulable: Option<String>,
    /// `metadata.generation`.
    pub generation: i64,
    pub created: Option<Timestamp>,
    /// Amounts by resource: CPU in millicores, everything else in units. Includes `pods: 1`.
    pub requests: Vec<(String, i64)>,
    /// CPU (millicores) and memory (bytes) with defaults for containers without requests.
    pub nonzero_requests: (i64, i64),
    pub node_selector: Vec<Requirement>,
    /// `None`: no requirement; otherwise one of the terms must match.
    pub node_terms: Option<Vec<NodeTerm>>,
    pub preferred_nodes: Vec<(i64, NodeTerm)>,
    pub tolerations: Vec<Toleration>,
    pub ports: Vec<HostPort>,
    pub affinity: Vec<PodTerm>,
    pub anti_affinity: Vec<PodTerm>,
    /// Positive weights attract, negative ones repel.
    pub preferred_pods: Vec<(i64, PodTerm)>,
    pub spread: Vec<SpreadConstraint>,
    pub claims: Vec<String>,
    /// Whether the pod has claims to devices.
    pub claims_devices: bool,
    /// Uid of the set that controls the pod.
    pub set: Option<String>,
    /// Whether the pod is being deleted: it does not count for spreading.
    pub deleting: bool,
    /// Whether it is being deleted because the scheduler preempted it.
    pub preempted: bool,
    /// Normalized names of the images of all containers.
    pub images: Vec<String>,
    /// Disks that the pod uses directly, not through claims.
    pub disks: Vec<Disk>,
    /// Of those, and of others like them, what CSI drivers attach.
    pub inline: Vec<Attached>,
}

/// One term of a node selector: all its requirements must match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeTerm {
    pub labels: Vec<Requirement>,
    /// Requirements on `metadata.name`.
    pub names: Vec<Requirement>,
}

/// A host port of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

impl HostPort {
    /// Whether two pods on one node cannot have these.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let shared = self.ip == other.ip || self.ip == "0.0.0.0" || other.ip == "0.0.0.0";
        (&self.protocol, self.port) == (&other.protocol, other.port) && shared
    }
}

/// A disk that several pods of a node may use only if all of them read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The kind of disk, and what identifies it.
    pub id: (&'static str, String),
    /// Ceph: disks are the same only if they share a monitor.
    pub monitors: Vec<String>,
    pub read_only: bool,
}

impl Disk {
    /// Whether two pods on one node cannot use these.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        let shared = self.monitors.is_empty()
            || self.monitors.iter().any(|monitor| other.monitors.contains(monitor));
        self.id == other.id && shared && !(self.read_only && other.read_only)
    }
}

/// One term of pod affinity: which pods, and the topology to share with them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodTerm {
    pub selector: Selector,
    pub namespaces: Vec<String>,
    /// Namespaces by label, besides the named ones.
    pub namespace_selector: Option<Selector>,
    pub topology_key: String,
}

/// A topology spread constraint.
#[derive(Clone, Debug)]
pub struct SpreadConstraint {
    pub peers: Peers,
    pub topology_key: String,
    pub max_skew: i64,
    pub min_domains: i64,
    /// Whether it is a filter (`DoNotSchedule`) or only a score.
    pub required: bool,
    /// Consider only nodes that match the pod's node selector and affinity.
    pub honor_node_affinity: bool,
    /// Consider only nodes whose taints the pod tolerates.
    pub honor_taints: bool,
}

/// The pods that a constraint spreads.
#[derive(Clone, Debug)]
pub enum Peers {
    Selected(Selector),
    /// Those of the same set: the default for pods without constraints.
    OfSet(String),
}

impl Peers {
    pub fn matches(&self, pod: &PodInfo) -> bool {
        match self {
            Self::Selected(selector) => selector.matches(Some(&pod.labels)),
            Self::OfSet(set) => pod.set.as_ref() == Some(set),
        }
    }
}

impl PodInfo {
    pub fn read(pod: &Pod) -> Self {
        let metadata = &pod.metadata;
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let labels = metadata.labels.clone().unwrap_or_default();
        let affinity = spec.affinity.as_ref();
        let status = pod.status.as_ref();
        let deleting = metadata.deletion_timestamp.is_some();
        let mut info = Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            scheduler_name: spec
                .scheduler_name
                .clone()
                .unwrap_or_else(|| "default-scheduler".to_owned()),
            priority: spec.priority.unwrap_or(0),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            unschedulable: unschedulable(pod),
            nominated_node: status
                .and_then(|status| status.nominated_node_name.clone())
                .filter(|name| !name.is_empty()),
            started: status.and_then(|status| status.start_time.as_ref()).map(|time| time.0),
            generation: metadata.generation.unwrap_or(0),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            requests: requests(spec),
            nonzero_requests: nonzero_requests(spec),
            node_selector: spec
                .node_selector
                .iter()
                .flatten()
                .map(|(key, value)| Requirement::In(key.clone(), vec![value.clone()]))
                .collect(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            ports: ports(spec),
            spread: spec
                .topology_spread_constraints
                .iter()
                .flatten()
                .map(|constraint| spread(constraint, &labels))
                .collect(),
            claims: volumes::claims(spec, metadata.name.as_deref().unwrap_or_default()),
            set: set_of(pod),
            deleting,
            preempted: deleting && is_preempted(pod),
            images: images(spec),
            disks: volumes::disks(spec),
            claims_devices: spec.resource_claims.as_ref().is_some_and(|all| !all.is_empty()),
            inline: spec.volumes.iter().flatten().filter_map(attached_by_pod).collect(),
            ..Self::default()
        };
        info.read_affinity(affinity, &namespace, &labels);
        info.namespace = namespace;
        info.labels = labels;
        info
    }

    fn read_affinity(
        &mut self,
        affinity: Option<&Affinity>,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) {
        if let Some(node) = affinity.and_then(|affinity| affinity.node_affinity.as_ref()) {
            self.node_terms = node
                .required_during_scheduling_ignored_during_execution
                .as_ref()
                .map(|selector| selector.node_selector_terms.iter().map(node_term).collect());
            for preferred in
                node.preferred_during_scheduling_ignored_during_execution.iter().flatten()
            {
                self.preferred_nodes
                    .push((preferred.weight.into(), node_term(&preferred.preference)));
            }
        }
        let read = |term: &PodAffinityTerm| pod_term(term, namespace, labels);
        if let Some(pods) = affinity.and_then(|affinity| affinity.pod_affinity.as_ref()) {
            self.affinity = pods
                .required_during_scheduling_ignored_during_execution
                .iter()
                .flatten()
                .map(read)
                .collect();
            for preferred in
                pods.preferred_during_scheduling_ignored_during_execution.iter().flatten()
            {
                self.preferred_pods
                    .push((preferred.weight.into(), read(&preferred.pod_affinity_term)));
            }
        }
        if let Some(pods) = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref()) {
            self.anti_affinity = pods
                .required_during_scheduling_ignored_during_execution
                .iter()
                .flatten()
                .map(read)
                .collect();
            for preferred in
                pods.preferred_during_scheduling_ignored_during_execution.iter().flatten()
            {
                self.preferred_pods
                    .push((-i64::from(preferred.weight), read(&preferred.pod_affinity_term)));
            }
        }
    }

    /// How much of a resource the pod requests.
    pub fn request(&self, name: &str) -> i64 {
        self.requests.iter().find(|(known, _)| known == name).map_or(0, |(_, amount)| *amount)
    }
}

fn requests(spec: &PodSpec) -> Vec<(String, i64)> {
    let mut requests: Vec<(String, i64)> = resources(spec, Side::Requests)
        .into_iter()
        .map(|(name, amount)| {
            let amount = if name == "cpu" { amount.millis() } else { amount.units() };
            (name, amount)
        })
        .filter(|(_, amount)| *amount > 0)
        .collect();
    requests.push(("pods".to_owned(), 1));
    requests
}

fn nonzero_requests(spec: &PodSpec) -> (i64, i64) {
    let total = resources(spec, Side::Requests);
    let has_own = |name: &str| {
        let whole = spec.resources.as_ref();
        let given = |side: Option<&BTreeMap<String, _>>| {
            side.is_some_and(|amounts| amounts.contains_key(name))
        };
        given(whole.and_then(|resources| resources.requests.as_ref()))
            || given(whole.and_then(|resources| resources.limits.as_ref()))
    };
    let without = |name: &str| {
        if has_own(name) {
            return 0;
        }
        let has = |container: &&k8s_openapi::api::core::v1::Container| {
            let resources = container.resources.as_ref();
            let given = |side: Option<&BTreeMap<String, _>>| {
                side.is_some_and(|amounts| amounts.contains_key(name))
            };
            given(resources.and_then(|resources| resources.requests.as_ref()))
                || given(resources.and_then(|resources| resources.limits.as_ref()))
        };
        i64::try_from(spec.containers.iter().filter(|container| !has(container)).count())
            .unwrap_or(i64::MAX)
    };
    let cpu = total.get("cpu").map_or(0, |amount| amount.millis());
    let memory = total.get("memory").map_or(0, |amount| amount.units());
    (
        cpu.saturating_add(without("cpu").saturating_mul(DEFAULT_CPU_MILLI)),
        memory.saturating_add(without("memory").saturating_mul(DEFAULT_MEMORY_BYTES)),
    )
}

fn ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars =
        spec.init_containers.iter().flatten().filter(|container| api::pod::is_sidecar(container));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            Some(HostPort {
                ip: port
                    .host_ip
                    .clone()
                    .filter(|ip| !ip.is_empty())
                    .unwrap_or_else(|| "0.0.0.0".to_owned()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        })
        .collect()
}

fn unschedulable(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let scheduled =
        conditions.into_iter().flatten().find(|condition| condition.type_ == "PodScheduled")?;
    let unschedulable =
        scheduled.status == "False" && scheduled.reason.as_deref() == Some("Unschedulable");
    unschedulable.then(|| scheduled.message.clone().unwrap_or_default())
}

/// Whether the pod is a victim of the scheduler.
fn is_preempted(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| {
        condition.type_ == "DisruptionTarget"
            && condition.status == "True"
            && condition.reason.as_deref() == Some(PREEMPTION_BY_SCHEDULER)
    })
}

/// Images of all containers; without a tag or digest, the latest is meant.
fn images(spec: &PodSpec) -> Vec<String> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    containers
        .filter_map(|container| container.image.as_deref())
        .map(|image| {
            let name = image.rsplit('/').next().unwrap_or_default();
            if name.contains(':') { image.to_owned() } else { format!("{image}:latest") }
        })
        .collect()
}

fn node_requirement(requirement: &NodeSelectorRequirement) -> Requirement {
    let key = requirement.key.clone();
    let values = requirement.values.clone().unwrap_or_default();
    let number = || values.first().and_then(|value| value.parse().ok());
    match requirement.operator.as_str() {
        "NotIn" => Requirement::NotIn(key, values),
        "Exists" => Requirement::Exists(key),
        "DoesNotExist" => Requirement::NotExists(key),
        "Gt" => number().map_or(Requirement::In(key.clone(), Vec::new()), |bound| {
            Requirement::Greater(key, bound)
        }),
        "Lt" => number().map_or(Requirement::In(key.clone(), Vec::new()), |bound| {
            Requirement::Less(key, bound)
        }),
        "In" => Requirement::In(key, values),
        // Validation rejects other operators; an empty set matches nothing.
        _ => Requirement::In(key, Vec::new()),
    }
}

/// Reads a node selector term; also used for the node affinity of volumes.
pub fn node_term(term: &NodeSelectorTerm) -> NodeTerm {
    NodeTerm {
        labels: term.match_expressions.iter().flatten().map(node_requirement).collect(),
        names: term.match_fields.iter().flatten().map(node_requirement).collect(),
    }
}

fn pod_term(
    term: &PodAffinityTerm,
    own_namespace: &str,
    labels: &BTreeMap<String, String>,
) -> PodTerm {
    let named = term.namespaces.clone().unwrap_or_default();
    let namespaces = if named.is_empty() && term.namespace_selector.is_none() {
        vec![own_namespace.to_owned()]
    } else {
        named
    };
    let own = |keys: &Option<Vec<String>>| -> Vec<(String, Vec<String>)> {
        let values = keys.iter().flatten().filter_map(|key| {
            let value = labels.get(key)?;
            Some((key.clone(), vec![value.clone()]))
        });
        values.collect()
    };
    let alike = own(&term.match_label_keys).into_iter();
    let unlike = own(&term.mismatch_label_keys).into_iter();
    let own = alike
        .map(|(key, values)| Requirement::In(key, values))
        .chain(unlike.map(|(key, values)| Requirement::NotIn(key, values)));
    PodTerm {
        selector: narrowed(term.label_selector.as_ref(), own),
        namespaces,
        namespace_selector: term.namespace_selector.as_ref().map(|selector| {
            Selector::from_label_selector(Some(selector)).unwrap_or_else(|_| Selector::nothing())
        }),
        topology_key: term.topology_key.clone(),
    }
}

/// Reads a constraint of a pod with these labels, or a default one.
pub fn spread(
    constraint: &TopologySpreadConstraint,
    labels: &BTreeMap<String, String>,
) -> SpreadConstraint {
    let own = constraint.match_label_keys.iter().flatten();
    let own = own.filter_map(|key| {
        let value = labels.get(key)?;
        Some(Requirement::In(key.clone(), vec![value.clone()]))
    });
    SpreadConstraint {
        peers: Peers::Selected(narrowed(constraint.label_selector.as_ref(), own)),
        topology_key: constraint.topology_key.clone(),
        max_skew: constraint.max_skew.into(),
        min_domains: constraint.min_domains.unwrap_or(1).into(),
        required: constraint.when_unsatisfiable == "DoNotSchedule",
        honor_node_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
    }
}

/// A selector with further requirements; a missing selector still selects nothing.
fn narrowed(
    selector: Option<&LabelSelector>,
    further: impl Iterator<Item = Requirement>,
) -> Selector {
    let read = Selector::from_label_selector(selector);
    let (Some(_), Ok(read)) = (selector, read) else {
        return Selector::nothing();
    };
    Selector::new(read.requirements().iter().cloned().chain(further).collect())
}

/// The set whose pods are spread by default.
fn set_of(pod: &Pod) -> Option<String> {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let controller = owners.find(|owner| owner.controller == Some(true))?;
    let sets = ["ReplicaSet", "ReplicationController", "StatefulSet"];
    sets.contains(&controller.kind.as_str()).then(|| controller.uid.clone())
}
