//! What objects use of a namespace's ResourceQuotas (`k8s.io/kubernetes/pkg/quota/v1/evaluator`).
//!
//! The apiserver's admission charges by it and the controller recounts by it, so that both get the
//! same sum: [`usage`] is what an object uses, [`selects`] whether a quota matches it, and
//! [`missing_requirements`] what a quota requires a pod to specify. Pure functions.

mod scope;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, PersistentVolumeClaim, Pod, ResourceQuotaSpec, ResourceRequirements, Service,
};
use k8s_openapi::api::resource::v1::ResourceClaim;

use crate::kind::{Kind, KindRow};
use crate::object::Object;
use crate::pod::{Side, is_terminal, resources};
use crate::quantity::Quantity;
use crate::storage_class;

pub use scope::{in_scope, is_in, scopes_of};

/// Amounts by resource name.
pub type Usage = BTreeMap<String, Quantity>;

/// Kinds of the core group that are counted under their plain name too.
const COUNTED: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
];
/// Suffix of a quota's resources for one storage class.
const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";
/// Suffix of a quota's resource for one device class.
const DEVICES_SUFFIX: &str = ".deviceclass.resource.k8s.io/devices";
/// How many devices can be allocated to a claim that asks for all.
const ALL_DEVICES: i64 = 32;
/// Resources that every container must specify once a quota limits them.
const REQUIRED: &[&str] =
    &["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

/// Adds an amount to a sum.
pub fn add(total: &mut Usage, name: impl Into<String>, amount: Quantity) {
    let sum = total.entry(name.into()).or_default();
    *sum = *sum + amount;
}

fn count(number: usize) -> Quantity {
    Quantity::from_units(i64::try_from(number).unwrap_or(i64::MAX))
}

/// What the number of objects of a kind uses.
pub fn of_count(row: &KindRow, number: usize) -> Usage {
    let mut usage = Usage::new();
    let number = count(number);
    add(&mut usage, format!("count/{}", row.qualified_resource()), number);
    if row.group.is_empty() && COUNTED.contains(&&*row.plural) {
        add(&mut usage, &*row.plural, number);
    }
    usage
}

/// What an object uses, its count included.
pub fn usage(object: &dyn Object) -> Usage {
    let mut usage = of_count(&object.row(), 1);
    let own = if let Some(pod) = object.downcast_ref() {
        of_pod(pod)
    } else if let Some(service) = object.downcast_ref() {
        of_service(service)
    } else if let Some(claim) = object.downcast_ref() {
        of_claim(claim)
    } else if let Some(claim) = object.downcast_ref() {
        of_device_claim(claim)
    } else {
        Usage::new()
    };
    usage.extend(own);
    usage
}

/// What a pod uses besides its count. Nothing, once it has terminated.
pub fn of_pod(pod: &Pod) -> Usage {
    let mut usage = Usage::new();
    if is_terminal(pod) {
        return usage;
    }
    add(&mut usage, "pods", count(1));
    let Some(spec) = &pod.spec else {
        return usage;
    };
    for (name, amount) in resources(spec, Side::Requests) {
        // The plain name of a basic resource means its requests.
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage")
            || name.starts_with("hugepages-")
        {
            add(&mut usage, name.clone(), amount);
        }
        add(&mut usage, format!("requests.{name}"), amount);
    }
    for (name, amount) in resources(spec, Side::Limits) {
        add(&mut usage, format!("limits.{name}"), amount);
    }
    usage
}

/// What a Service uses besides its count. Ports count whether or not they have been allocated,
/// since admission comes first.
pub fn of_service(service: &Service) -> Usage {
    let mut usage = Usage::from([
        ("services.loadbalancers".to_owned(), Quantity::ZERO),
        ("services.nodeports".to_owned(), Quantity::ZERO),
    ]);
    let Some(spec) = &service.spec else {
        return usage;
    };
    let ports = spec.ports.iter().flatten();
    let all = count(ports.clone().count());
    let asked = count(ports.filter(|port| port.node_port.is_some_and(|port| port != 0)).count());
    match spec.type_.as_deref() {
        Some("NodePort") => add(&mut usage, "services.nodeports", all),
        Some("LoadBalancer") => {
            let none_given = spec.allocate_load_balancer_node_ports == Some(false);
            let ports = if none_given { asked } else { all };
            add(&mut usage, "services.nodeports", ports);
            add(&mut usage, "services.loadbalancers", count(1));
        }
        _ => {}
    }
    usage
}

/// What a claim uses besides its count: its storage in whole bytes, in total and in its class.
fn of_claim(claim: &PersistentVolumeClaim) -> Usage {
    let mut usage = Usage::new();
    let Some(spec) = &claim.spec else {
        return usage;
    };
    let requests = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    let allocated = claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref());
    let storage = requests.and_then(|requests| requests.get("storage")).map(|asked| {
        let granted = allocated.and_then(|allocated| allocated.get("storage"));
        let most = granted
            .map(Quantity::of)
            .map_or(Quantity::of(asked), |granted| granted.max(Quantity::of(asked)));
        most.rounded_to_units()
    });
    if let Some(storage) = storage {
        add(&mut usage, "requests.storage", storage);
    }
    let class = storage_class::of_claim(claim);
    if !class.is_empty() {
        let name = |resource: &str| format!("{class}{CLASS_SUFFIX}{resource}");
        add(&mut usage, name("persistentvolumeclaims"), count(1));
        if let Some(storage) = storage {
            add(&mut usage, name("requests.storage"), storage);
        }
    }
    usage
}

/// What a claim of devices uses besides its count: of each class as many devices as it may get. Of
/// alternatives that is the largest one.
pub fn of_device_claim(claim: &ResourceClaim) -> Usage {
    let mut usage = Usage::new();
    let devices = |mode: Option<&str>, count: Option<i64>| match mode {
        Some("ExactCount") => count.unwrap_or(1),
        Some("All") => ALL_DEVICES,
        _ => 0,
    };
    let asked = claim.spec.as_ref().and_then(|spec| spec.devices.as_ref());
    for request in asked.iter().flat_map(|devices| devices.requests.iter().flatten()) {
        let mut most: BTreeMap<&str, i64> = BTreeMap::new();
        let alternatives = request.first_available.iter().flatten().map(|one| {
            (&one.device_class_name, devices(one.allocation_mode.as_deref(), one.count))
        });
        let exactly = request.exactly.iter().map(|one| {
            (&one.device_class_name, devices(one.allocation_mode.as_deref(), one.count))
        });
        for (class, number) in alternatives.chain(exactly) {
            let known = most.entry(class).or_default();
            *known = number.max(*known);
        }
        for (class, number) in most {
            add(&mut usage, format!("{class}{DEVICES_SUFFIX}"), Quantity::from_units(number));
        }
    }
    usage
}

/// The resources of a quota that objects of a kind can use.
pub fn relevant<'a>(
    row: &KindRow,
    hard: impl IntoIterator<Item = &'a String>,
) -> BTreeSet<&'a str> {
    let places = of_count(row, 1);
    hard.into_iter()
        .map(String::as_str)
        .filter(|name| places.contains_key(*name) || is_used_by(row, name))
        .collect()
}

fn is_used_by(row: &KindRow, name: &str) -> bool {
    if row == Pod::ROW {
        let plain =
            name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
        return name == "pods"
            || matches!(plain, "cpu" | "memory" | "ephemeral-storage")
            || plain.starts_with("hugepages-") && !name.starts_with("limits.")
            || name.starts_with("requests.") && plain.contains('/');
    }
    if row == PersistentVolumeClaim::ROW {
        return name == "requests.storage" || name.contains(CLASS_SUFFIX);
    }
    if row == ResourceClaim::ROW {
        return name.ends_with(DEVICES_SUFFIX);
    }
    row == Service::ROW && matches!(name, "services.loadbalancers" | "services.nodeports")
}

/// Whether a quota with these limits matches an object: it limits something that the kind uses, and
/// the object is in all its scopes.
pub fn selects<'a>(
    spec: &ResourceQuotaSpec,
    hard: impl IntoIterator<Item = &'a String>,
    object: &dyn Object,
) -> bool {
    !relevant(&object.row(), hard).is_empty() && in_scope(spec, object)
}

/// What a pod's containers leave out that a quota on `limited` resources requires of them: resource
/// names to the containers that lack them.
pub fn missing_requirements<'a>(
    pod: &'a Pod,
    limited: &BTreeSet<&'a str>,
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let Some(spec) = &pod.spec else {
        return missing;
    };
    let containers: Vec<&Container> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).collect();
    for name in limited.iter().copied().filter(|name| REQUIRED.contains(name)) {
        // Pod-level resources cover all containers.
        if names(spec.resources.as_ref(), name) {
            continue;
        }
        for container in &containers {
            if !names(container.resources.as_ref(), name) {
                missing.entry(name).or_default().insert(&container.name);
            }
        }
    }
    missing
}

fn names(requirements: Option<&ResourceRequirements>, name: &str) -> bool {
    let Some(requirements) = requirements else {
        return false;
    };
    let (amounts, plain) = match name.strip_prefix("limits.") {
        Some(plain) => (&requirements.limits, plain),
        None => (&requirements.requests, name.strip_prefix("requests.").unwrap_or(name)),
    };
    amounts.as_ref().is_some_and(|amounts| amounts.contains_key(plain))
}
