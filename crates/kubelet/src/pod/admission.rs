//! Whether the node admits a pod that was bound to it: pure. A rejected pod fails, with Kubernetes'
//! reasons.

mod safety;

use std::collections::BTreeMap;

use api::pod::Side;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod};

use super::pod_ext::PodExt;
use super::qos;
use crate::node::pressure::Pressures;

pub use safety::permit;

/// The prefix of every rejection message.
pub const REJECTED: &str = "Pod was rejected: ";
/// From this priority on, a pod is critical (`system-cluster-critical`).
pub const CRITICAL_PRIORITY: i32 = 2_000_000_000;
const MEMORY_PRESSURE_TAINT: &str = "node.kubernetes.io/memory-pressure";

/// Why a pod is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: String,
    pub message: String,
}

/// Checks `pod` against the node, its shortages, and the pods that it has admitted.
pub fn admit(
    node: &Node,
    pressures: &Pressures,
    taken: &[&Pod],
    pod: &Pod,
) -> Result<(), Rejection> {
    bears(pressures, pod)?;
    fits(node, taken, pod)?;
    if !selected(node, pod) {
        return Err(Rejection {
            reason: "NodeAffinity".to_owned(),
            message: "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector".to_owned(),
        });
    }
    let used: Vec<HostPort> = taken.iter().flat_map(|other| host_ports(other)).collect();
    if host_ports(pod).iter().any(|port| used.iter().any(|other| port.conflicts(other))) {
        return Err(Rejection {
            reason: "NodePorts".to_owned(),
            message: "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports".to_owned(),
        });
    }
    Ok(())
}

/// A node under pressure admits critical pods only; if only memory is short, also those that
/// request some or tolerate the taint (`k8s.io/kubernetes/pkg/kubelet/eviction`, `Admit`).
fn bears(pressures: &Pressures, pod: &Pod) -> Result<(), Rejection> {
    let conditions = pressures.conditions();
    if conditions.is_empty() || pod.spec_ref().priority.unwrap_or(0) >= CRITICAL_PRIORITY {
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
    Err(Rejection {
        reason: "Evicted".to_owned(),
        message: format!("{REJECTED}The node had condition: [{}]. ", conditions.join(" ")),
    })
}

fn fits(node: &Node, taken: &[&Pod], pod: &Pod) -> Result<(), Rejection> {
    let status = node.status.clone().unwrap_or_default();
    let allocatable = status.allocatable.unwrap_or_default();
    let amount = |name: &str| allocatable.get(name).map_or(Quantity::ZERO, Quantity::of);
    let mut wanted: BTreeMap<String, Quantity> =
        api::pod::resources(pod.spec_ref(), Side::Requests);
    wanted.insert("pods".to_owned(), Quantity::from_units(1));
    let others: Vec<BTreeMap<String, Quantity>> =
        taken.iter().map(|other| api::pod::resources(other.spec_ref(), Side::Requests)).collect();
    for (name, asked) in wanted {
        if asked.is_zero() {
            continue;
        }
        let used = if name == "pods" {
            Quantity::from_units(i64::try_from(taken.len()).unwrap_or(i64::MAX))
        } else {
            others
                .iter()
                .filter_map(|other| other.get(&name).copied())
                .fold(Quantity::ZERO, |sum, one| sum + one)
        };
        let capacity = amount(&name);
        if used + asked > capacity {
            let number = |quantity: Quantity| {
                if name == "cpu" { quantity.millis() } else { quantity.units() }
            };
            return Err(Rejection {
                reason: format!("OutOf{name}"),
                message: format!(
                    "Pod was rejected: Node didn't have enough resource: {name}, requested: {}, used: {}, capacity: {}",
                    number(asked),
                    number(used),
                    number(capacity)
                ),
            });
        }
    }
    Ok(())
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
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

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
            let found = admit(&node(), &Pressures::default(), &[&there], &pod)
                .map_err(|rejection| rejection.reason);
            assert_eq!(found, expected.map_err(str::to_owned));
        }
        let full = admit(&node(), &Pressures::default(), &[&there, &there], &pod("0", 0, None));
        assert_eq!(full.unwrap_err().reason, "OutOfpods");
    }

    #[test]
    fn what_a_node_under_pressure_admits() {
        use crate::node::pressure::Shortage;
        let refused = |short: &[Shortage], pod: &Pod| {
            let pressures = Pressures::default().next(short, jiff::Timestamp::UNIX_EPOCH);
            admit(&node(), &pressures, &[], pod).err()
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
            "Pod was rejected: The node had condition: [MemoryPressure]. "
        );
        assert_eq!(refused(&memory, &burstable), None);
        assert_eq!(refused(&memory, &tolerant), None);
        assert_eq!(refused(&both, &critical), None);
        for pod in [&best_effort, &burstable, &tolerant] {
            let rejection = refused(&both, pod).unwrap();
            assert_eq!(rejection.reason, "Evicted");
            assert_eq!(
                rejection.message,
                "Pod was rejected: The node had condition: [MemoryPressure DiskPressure]. "
            );
        }
    }
}
