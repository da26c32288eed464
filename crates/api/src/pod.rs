//! Rules about pods that several components share.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use sha2::{Digest, Sha256};

use crate::names;
use crate::quantity::Quantity;

/// Amounts by resource name.
pub type Resources = BTreeMap<String, Quantity>;

/// Whether to add up requests or limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Requests,
    Limits,
}

/// The resources of a pod as a whole: the larger of what runs together (containers and sidecars)
/// and what each step of initialization needs, plus overhead; pod-level resources take precedence
/// (`k8s.io/component-helpers/resource`).
pub fn resources(spec: &PodSpec, side: Side) -> Resources {
    let mut running = Resources::new();
    for container in &spec.containers {
        add(&mut running, &of(container, side));
    }
    let (mut sidecars, mut peak) = (Resources::new(), Resources::new());
    for container in spec.init_containers.iter().flatten() {
        let own = of(container, side);
        let mut step = sidecars.clone();
        add(&mut step, &own);
        if is_sidecar(container) {
            add(&mut running, &own);
            sidecars.clone_from(&step);
        }
        raise(&mut peak, &step);
    }
    raise(&mut running, &peak);
    for (name, amount) in side_of(spec.resources.as_ref(), side) {
        running.insert(name, amount);
    }
    if let Some(overhead) = &spec.overhead {
        let overhead = read(overhead);
        if side == Side::Requests {
            add(&mut running, &overhead);
        } else {
            // A limit that is not set stays unlimited.
            for (name, amount) in overhead {
                running.entry(name).and_modify(|total| *total = *total + amount);
            }
        }
    }
    running
}

/// Annotation of the mirror of a static pod: the uid that the pod has on its node.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// Whether this is the mirror of a static pod, which a kubelet runs from a file.
pub fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR))
}

/// The uid by which the pod's kubelet knows it: that of the object, unless it is a mirror. No mirror
/// can pass for another pod of the apiserver's.
pub fn uid_on_node(pod: &Pod) -> Option<&str> {
    let mirrored = pod.metadata.annotations.as_ref().and_then(|all| all.get(MIRROR));
    let mirrored = mirrored.filter(|uid| !is_object_uid(uid));
    mirrored.or(pod.metadata.uid.as_ref()).map(String::as_str)
}

/// Whether a uid has the form of those that the apiserver gives: a static pod has none of them.
pub fn is_object_uid(uid: &str) -> bool {
    const LENGTHS: [usize; 5] = [8, 4, 4, 4, 12];
    uid.split('-').map(str::len).eq(LENGTHS)
}

/// The name of the node's end of the link of a pod with a network of its own: 4 + 11 characters, the
/// maximum length of an interface name. The kubelet creates the link, and the proxy recognizes the
/// pod's packets by it.
pub fn link_name(uid: &str) -> String {
    let hash = Sha256::digest(uid.as_bytes());
    let hex: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("veth{}", &hex[..11])
}

/// Whether this is the name of an extended resource: of a domain that is not Kubernetes'
/// (`IsExtendedResourceName` in `pkg/apis/core/helper`).
pub fn is_extended_resource(name: &str) -> bool {
    !is_native_resource(name)
        && !name.starts_with("requests.")
        && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether a resource's name is without a domain, or in Kubernetes' own.
pub fn is_native_resource(name: &str) -> bool {
    name.split_once('/')
        .is_none_or(|(domain, _)| domain == "kubernetes.io" || domain.ends_with(".kubernetes.io"))
}

/// Whether an init container is a sidecar: it keeps running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether the pod's phase is final.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// `status.phase`, empty when unset.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The node the pod is bound to, if any.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|name| !name.is_empty())
}

/// Whether the condition of this type is `True`.
pub fn condition_is_true(pod: &Pod, type_: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == type_ && condition.status == "True")
}

/// `Guaranteed`, `Burstable` or `BestEffort`: by the cpu and memory of the pod as a whole if they
/// are set, or else of every container (`pkg/apis/core/helper/qos`).
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let of_interest = |amounts: &Option<BTreeMap<String, Text>>| -> Resources {
        let mut read = amounts.as_ref().map(read).unwrap_or_default();
        read.retain(|name, amount| matches!(name.as_str(), "cpu" | "memory") && !amount.is_zero());
        read
    };
    let sides = |resources: &ResourceRequirements| {
        (of_interest(&resources.requests), of_interest(&resources.limits))
    };
    let own = spec.resources.as_ref().map(sides);
    let all: Vec<_> = match own
        .filter(|(requests, limits)| !requests.is_empty() || !limits.is_empty())
    {
        Some(own) => vec![own],
        None => {
            let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
            containers
                .map(|container| container.resources.as_ref().map(sides).unwrap_or_default())
                .collect()
        }
    };
    if all.iter().all(|(requests, limits)| requests.is_empty() && limits.is_empty()) {
        return "BestEffort";
    }
    let guaranteed = all.iter().all(|(requests, limits)| {
        limits.len() == 2 && requests.iter().all(|(name, amount)| limits.get(name) == Some(amount))
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

fn of(container: &Container, side: Side) -> Resources {
    side_of(container.resources.as_ref(), side)
}

fn side_of(requirements: Option<&ResourceRequirements>, side: Side) -> Resources {
    let Some(requirements) = requirements else {
        return Resources::new();
    };
    let limits = requirements.limits.as_ref().map(read).unwrap_or_default();
    match side {
        Side::Limits => limits,
        // An unset request equals the limit: defaulting sets it, but legacy objects may lack it.
        Side::Requests => {
            let mut all = limits;
            all.extend(requirements.requests.as_ref().map(read).unwrap_or_default());
            all
        }
    }
}

fn read(amounts: &BTreeMap<String, Text>) -> Resources {
    amounts.iter().map(|(name, amount)| (name.clone(), Quantity::of(amount))).collect()
}

fn add(total: &mut Resources, amounts: &Resources) {
    for (name, amount) in amounts {
        let sum = total.entry(name.clone()).or_default();
        *sum = *sum + *amount;
    }
}

fn raise(total: &mut Resources, amounts: &Resources) {
    for (name, amount) in amounts {
        let most = total.entry(name.clone()).or_default();
        *most = (*most).max(*amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(cpu: &str, sidecar: bool) -> Container {
        Container {
            restart_policy: sidecar.then(|| "Always".to_owned()),
            resources: Some(ResourceRequirements {
                requests: Some([("cpu".to_owned(), Text(cpu.to_owned()))].into()),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn cpu(spec: &PodSpec) -> String {
        resources(spec, Side::Requests)["cpu"].to_string()
    }

    #[test]
    fn the_larger_of_running_and_initializing() {
        let mut spec = PodSpec {
            containers: vec![container("100m", false), container("200m", false)],
            ..Default::default()
        };
        assert_eq!(cpu(&spec), "300m");
        spec.init_containers = Some(vec![container("1", false)]);
        assert_eq!(cpu(&spec), "1");
        spec.init_containers = Some(vec![container("50m", true), container("1", false)]);
        assert_eq!(cpu(&spec), "1050m");
        spec.init_containers = Some(vec![container("1", false), container("800m", true)]);
        assert_eq!(cpu(&spec), "1100m");
        spec.overhead = Some([("cpu".to_owned(), Text("10m".to_owned()))].into());
        assert_eq!(cpu(&spec), "1110m");
    }
}
