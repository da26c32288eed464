//! Whether the node admits a pod that was bound to it: pure. A rejected pod fails, with Kubernetes'
//! reasons.

pub mod preemption;
mod safety;

use std::collections::BTreeMap;

use api::pod::Side;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::pod_ext::PodExt;
use super::qos;
use crate::devices::{DeviceError, Offer};
use crate::node::pressure::Pressures;

pub use safety::permit;

/// The prefix of the message of a pod that was rejected.
pub const REJECTED: &str = "Pod was rejected: ";
/// From this priority on, a pod is critical (`system-cluster-critical`).
pub const CRITICAL_PRIORITY: i32 = 2_000_000_000;
const NODE_CRITICAL: &str = "system-node-critical";
/// Reason of a pod that is not admitted because something failed.
const UNEXPECTED: &str = "UnexpectedAdmissionError";
/// What is looked at first.
const FIRST: [&str; 4] = ["pods", "cpu", "memory", "ephemeral-storage"];
const MEMORY_PRESSURE_TAINT: &str = "node.kubernetes.io/memory-pressure";

/// Why a pod is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: String,
    pub message: String,
}

impl Rejection {
    fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }

    /// An allocation has failed.
    pub fn without_devices(error: &DeviceError) -> Self {
        if matches!(error, DeviceError::Topology) {
            return Self::new("TopologyAffinityError", error.to_string());
        }
        let message = format!("Allocate failed due to {error}, which is unexpected");
        Self::new(UNEXPECTED, message)
    }
}

/// What a pod requests and the node does not have: thousandths of cores, or units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insufficient {
    pub resource: String,
    pub requested: i64,
    pub used: i64,
    pub capacity: i64,
}

impl From<&Insufficient> for Rejection {
    fn from(one: &Insufficient) -> Self {
        let Insufficient { resource, requested, used, capacity } = one;
        Self::new(
            &format!("OutOf{resource}"),
            format!(
                "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
            ),
        )
    }
}

/// Why a pod is not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Because of what it requests, and only of that.
    Insufficient(Vec<Insufficient>),
    Rejection(Rejection),
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self::Rejection(rejection)
    }
}

/// Checks `pod` against the node, its shortages, and the pods that it has admitted. Of several
/// reasons, the first counts (`pkg/kubelet/lifecycle/predicate.go`), but for a critical pod, which
/// can get resources: for that, one of the others.
pub fn admit(node: &Node, pressures: &Pressures, taken: &[&Pod], pod: &Pod) -> Result<(), Refusal> {
    bears(pressures, pod)?;
    if pod.spec_ref().resource_claims.iter().any(|claims| !claims.is_empty()) {
        let message = "Pod was rejected: the devices of its resource claims cannot be prepared";
        return Err(Rejection::new("UnexpectedAdmissionError", message.to_owned()).into());
    }
    let missing = missing(node, taken, pod);
    let misplaced = misplaced(node, taken, pod);
    match (missing.first(), misplaced) {
        (None, None) => Ok(()),
        (Some(first), _) if !is_critical(pod) => Err(Rejection::from(first).into()),
        (_, Some(rejection)) => Err(rejection.into()),
        (Some(_), None) => Err(Refusal::Insufficient(missing)),
    }
}

/// The node with what the machine has now, without devices, and the devices that are offered now:
/// the node that was read may be a moment behind this kubelet's own report.
pub fn with_own(
    node: &Node,
    machine: &BTreeMap<String, Quantity>,
    offers: &BTreeMap<String, Offer>,
) -> Node {
    let mut node = node.clone();
    let status = node.status.get_or_insert_default();
    let allocatable = status.allocatable.get_or_insert_default();
    for (name, amount) in machine {
        allocatable.insert(name.clone(), amount.to_text());
    }
    for (name, offer) in offers {
        allocatable.insert(name.clone(), Text(offer.allocatable.to_string()));
    }
    node
}

/// Whether the pod must run: others are preempted for it. A static pod always must.
pub fn is_critical(pod: &Pod) -> bool {
    pod.is_static() || pod.spec_ref().priority.unwrap_or(0) >= CRITICAL_PRIORITY
}

/// Whether the node cannot do without the pod (`IsNodeCriticalPod`).
pub fn is_node_critical(pod: &Pod) -> bool {
    is_critical(pod) && pod.spec_ref().priority_class_name.as_deref() == Some(NODE_CRITICAL)
}

/// The node is not one of those that the pod can run on, or has its ports in use.
fn misplaced(node: &Node, taken: &[&Pod], pod: &Pod) -> Option<Rejection> {
    if !selected(node, pod) {
        let text =
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Some(Rejection::new("NodeAffinity", text));
    }
    let used: Vec<HostPort> = taken.iter().flat_map(|other| host_ports(other)).collect();
    let conflict = host_ports(pod).iter().any(|port| used.iter().any(|one| port.conflicts(one)));
    let text =
        "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
    conflict.then(|| Rejection::new("NodePorts", text))
}

/// A node under pressure admits critical pods only; if only memory is short, also those that
/// request some or tolerate the taint (`k8s.io/kubernetes/pkg/kubelet/eviction`, `Admit`).
fn bears(pressures: &Pressures, pod: &Pod) -> Result<(), Rejection> {
    let conditions = pressures.conditions();
    if conditions.is_empty() || is_critical(pod) {
        return Ok(());
    }
    let mut tolerations = pod.spec_ref().tolerations.iter().flatten();
    let tolerated = tolerations.any(|one| {
        let of_effect =
            one.effect.as_deref().is_none_or(|effect| effect.is_empty() || effect == "NoSchedule");
        let key = one.key.as_deref().unwrap_or_default();
        of_effect && (key.is_empty() || key == MEMORY_PRESSURE_TAINT)
    });
    if conditions == ["MemoryPressure"] && (qos::name(pod) != "BestEffort" || tolerated) {
        return Ok(());
    }
    let text = format!("The node had condition: [{}]. ", conditions.join(" "));
    Err(Rejection::new("Evicted", text))
}

/// The resources that the pod requests and that are not free, in upstream's order. Extended resources
/// that the node does not have at all are ignored.
fn missing(node: &Node, taken: &[&Pod], pod: &Pod) -> Vec<Insufficient> {
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let capacity = |name: &str| allocatable.and_then(|all| all.get(name)).map(Quantity::of);
    let requests = |pod: &Pod| {
        let mut all = api::pod::resources(pod.spec_ref(), Side::Requests);
        all.insert("pods".to_owned(), Quantity::from_units(1));
        all
    };
    let others: Vec<BTreeMap<String, Quantity>> =
        taken.iter().map(|other| requests(other)).collect();
    let mut wanted: Vec<(String, Quantity)> = requests(pod).into_iter().collect();
    wanted.sort_by_key(|(name, _)| {
        FIRST.iter().position(|first| first == name).unwrap_or(usize::MAX)
    });
    let mut missing = Vec::new();
    for (resource, asked) in wanted {
        let capacity = capacity(&resource);
        let foreign = capacity.is_none() && api::pod::is_extended_resource(&resource);
        if asked.is_zero() || foreign {
            continue;
        }
        let capacity = capacity.unwrap_or(Quantity::ZERO);
        let used = others.iter().filter_map(|other| other.get(&resource).copied());
        let used = used.fold(Quantity::ZERO, |sum, one| sum + one);
        if used + asked > capacity {
            missing.push(Insufficient {
                requested: number(&resource, asked),
                used: number(&resource, used),
                capacity: number(&resource, capacity),
                resource,
            });
        }
    }
    missing
}

/// Thousandths of cores, or units.
fn number(resource: &str, amount: Quantity) -> i64 {
    if resource == "cpu" { amount.millis() } else { amount.units() }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct HostPort {
    ip: String,
    port: i32,
    protocol: String,
}

impl HostPort {
    fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| ip == "0.0.0.0" || ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let ports =
        pod.spec_ref().containers.iter().flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(HostPort {
                ip: port
                    .host_ip
                    .clone()
                    .filter(|ip| !ip.is_empty())
                    .unwrap_or_else(|| "0.0.0.0".to_owned()),
                port: port.host_port.filter(|port| *port > 0)?,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            })
        })
        .collect()
}

fn selected(node: &Node, pod: &Pod) -> bool {
    let spec = pod.spec_ref();
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let simple =
        spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let required =
        spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()).and_then(
            |affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref(),
        );
    simple
        && required.is_none_or(|required| {
            required.node_selector_terms.iter().any(|term| matches_term(node, &labels, term))
        })
}

fn matches_term(node: &Node, labels: &BTreeMap<String, String>, term: &NodeSelectorTerm) -> bool {
    let name: BTreeMap<String, String> =
        [("metadata.name".to_owned(), node.metadata.name.clone().unwrap_or_default())].into();
    let (by_label, by_field) = (&term.match_expressions, &term.match_fields);
    let empty = by_label.iter().flatten().count() + by_field.iter().flatten().count() == 0;
    !empty
        && by_label.iter().flatten().all(|one| matches(labels, one))
        && by_field.iter().flatten().all(|one| matches(&name, one))
}

fn matches(labels: &BTreeMap<String, String>, one: &NodeSelectorRequirement) -> bool {
    let value = labels.get(&one.key);
    let values = || one.values.iter().flatten();
    let number = |text: &String| text.parse::<i64>().ok();
    let compare = |than: fn(i64, i64) -> bool| match (
        value.and_then(number),
        values().next().and_then(number),
    ) {
        (Some(have), Some(bound)) => than(have, bound),
        _ => false,
    };
    match one.operator.as_str() {
        "In" => value.is_some_and(|value| values().any(|other| other == value)),
        "NotIn" => value.is_none_or(|value| values().all(|other| other != value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|have, bound| have > bound),
        "Lt" => compare(|have, bound| have < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{
        Container, ContainerPort, NodeStatus, PodSpec, ResourceRequirements,
    };

    fn node() -> Node {
        let mut node = Node {
            status: Some(NodeStatus {
                allocatable: Some(
                    [("cpu".into(), Text("2".into())), ("pods".into(), Text("2".into()))].into(),
                ),
                ..Default::default()
            }),
            ..Default::default()
        };
        node.metadata.name = Some("n1".into());
        node.metadata.labels = Some([("disk".into(), "ssd".into())].into());
        node
    }

    fn pod(cpu: &str, port: i32, selector: Option<(&str, &str)>) -> Pod {
        Pod {
            spec: Some(PodSpec {
                containers: vec![Container {
                    ports: Some(vec![ContainerPort {
                        host_port: Some(port),
                        container_port: 80,
                        ..Default::default()
                    }]),
                    resources: Some(ResourceRequirements {
                        requests: Some([("cpu".into(), Text(cpu.into()))].into()),
                        ..Default::default()
                    }),
                    ..Default::default()
                }],
                node_selector: selector
                    .map(|(key, value)| [(key.to_owned(), value.to_owned())].into()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn reasons() {
        let there = pod("1500m", 80, None);
        let cases = [
            (pod("500m", 0, None), Ok(())),
            (pod("501m", 0, None), Err("OutOfcpu")),
            (pod("0", 80, None), Err("NodePorts")),
            (pod("0", 81, Some(("disk", "ssd"))), Ok(())),
            (pod("0", 81, Some(("disk", "hdd"))), Err("NodeAffinity")),
        ];
        for (pod, expected) in cases {
            let found = admit(&node(), &Pressures::default(), &[&there], &pod).map_err(reason);
            assert_eq!(found, expected.map_err(str::to_owned));
        }
        let full = admit(&node(), &Pressures::default(), &[&there, &there], &pod("9", 0, None));
        assert_eq!(reason(full.unwrap_err()), "OutOfpods");
    }

    fn rejection(refusal: Refusal) -> Rejection {
        match refusal {
            Refusal::Rejection(rejection) => rejection,
            Refusal::Insufficient(missing) => panic!("{missing:?}"),
        }
    }

    fn reason(refusal: Refusal) -> String {
        rejection(refusal).reason
    }

    #[test]
    fn extended_resources_count_where_the_node_has_them() {
        let mut node = node();
        let allocatable = node.status.as_mut().unwrap().allocatable.as_mut().unwrap();
        allocatable.insert("example.com/gpu".into(), Text("1".into()));
        let wants = |name: &str, amount: &str| {
            let mut pod = pod("0", 0, None);
            let resources = pod.spec.as_mut().unwrap().containers[0].resources.as_mut().unwrap();
            let requests = resources.requests.as_mut().unwrap();
            requests.insert(name.into(), Text(amount.into()));
            pod
        };
        let there = wants("example.com/gpu", "1");
        let admit = |taken: &[&Pod], pod: &Pod| {
            let admitted = admit(&node, &Pressures::default(), taken, pod);
            admitted.map_err(|refusal| rejection(refusal).message)
        };
        assert_eq!(admit(&[], &there), Ok(()));
        assert_eq!(admit(&[], &wants("example.com/of-the-cluster", "9")), Ok(()));
        let text =
            "Node didn't have enough resource: example.com/gpu, requested: 1, used: 1, capacity: 1";
        assert_eq!(admit(&[&there], &there), Err(text.into()));
        let offers = [("example.com/gpu".to_owned(), Offer { capacity: 3, allocatable: 2 })].into();
        let more = with_own(&node, &BTreeMap::new(), &offers);
        let both = super::admit(&more, &Pressures::default(), &[&there], &there);
        assert_eq!(both, Ok(()), "it knows of a device before the API does");
        let text = "Node didn't have enough resource: hugepages-2Mi, requested: 2097152, used: 0, capacity: 0";
        let pages = wants("hugepages-2Mi", "2Mi");
        assert_eq!(admit(&[], &pages), Err(text.into()));
        let machine = [("hugepages-2Mi".to_owned(), Quantity::from_units(2 << 20))].into();
        let more = with_own(&node, &machine, &BTreeMap::new());
        let admitted = super::admit(&more, &Pressures::default(), &[], &pages);
        assert_eq!(admitted, Ok(()), "it knows of pages before the API does");
    }

    #[test]
    fn a_critical_pod_is_told_what_is_missing_if_that_is_all() {
        let there = pod("1500m", 80, None);
        let critical = |port, selector| {
            let mut pod = pod("900m", port, selector);
            pod.spec.as_mut().unwrap().priority = Some(CRITICAL_PRIORITY);
            pod
        };
        let admit = |pod: &Pod| admit(&node(), &Pressures::default(), &[&there], pod).unwrap_err();
        let missing =
            Insufficient { resource: "cpu".into(), requested: 900, used: 1500, capacity: 2000 };
        assert_eq!(admit(&critical(0, None)), Refusal::Insufficient(vec![missing]));
        assert_eq!(reason(admit(&critical(80, None))), "NodePorts");
        assert_eq!(reason(admit(&critical(0, Some(("disk", "hdd"))))), "NodeAffinity");
    }

    #[test]
    fn what_a_node_under_pressure_admits() {
        use crate::node::pressure::Shortage;
        let refused = |short: &[Shortage], pod: &Pod| {
            let pressures = Pressures::default().next(short, jiff::Timestamp::UNIX_EPOCH);
            admit(&node(), &pressures, &[], pod).err().map(rejection)
        };
        let (best_effort, burstable) = (pod("0", 0, None), pod("100m", 0, None));
        let mut critical = best_effort.clone();
        critical.spec.as_mut().unwrap().priority = Some(CRITICAL_PRIORITY);
        let mut tolerant = best_effort.clone();
        tolerant.spec.as_mut().unwrap().tolerations =
            Some(vec![k8s_openapi::api::core::v1::Toleration {
                key: Some(MEMORY_PRESSURE_TAINT.into()),
                operator: Some("Exists".into()),
                effect: Some("NoSchedule".into()),
                ..Default::default()
            }]);
        let memory = [Shortage::Memory];
        let both = [Shortage::Memory, Shortage::Disk];
        assert_eq!(
            refused(&memory, &best_effort).unwrap().message,
            "The node had condition: [MemoryPressure]. "
        );
        assert_eq!(refused(&memory, &burstable), None);
        assert_eq!(refused(&memory, &tolerant), None);
        assert_eq!(refused(&both, &critical), None);
        for pod in [&best_effort, &burstable, &tolerant] {
            let rejection = refused(&both, pod).unwrap();
            assert_eq!(rejection.reason, "Evicted");
            assert_eq!(
                rejection.message,
                "The node had condition: [MemoryPressure DiskPressure]. "
            );
        }
    }
}
