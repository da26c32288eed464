//! Cgroup settings and OOM scores from requests and limits.

use std::collections::BTreeMap;

use api::pod::Side;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::pod_ext::PodExt;
use super::qos::qos_class;
use crate::cgroup::{QosClass, Resources, cpu_quota_us, cpu_shares};

/// Annotation of a container: the [`fingerprint`] it was created with.
pub const ANNOTATION: &str = "skiff.dev/resources";

/// Changes when the limits of a running container have to change.
pub fn fingerprint(container: &Container) -> String {
    let part = |list: Option<&BTreeMap<String, Text>>| {
        ["cpu", "memory"].map(|name| {
            list.and_then(|list| list.get(name))
                .map_or_else(String::new, |text| Quantity::of(text).to_string())
        })
    };
    let resources = container.resources.as_ref();
    let requests = part(resources.and_then(|one| one.requests.as_ref()));
    let limits = part(resources.and_then(|one| one.limits.as_ref()));
    format!("{}/{}", requests.join(","), limits.join(","))
}

/// Whether a change from the resources of `in_force` (a [`fingerprint`]) to those of `container`
/// needs a restart, according to the container's `resizePolicy`.
pub fn resize_restarts(container: &Container, in_force: &str) -> bool {
    let parts = |fingerprint: &str| -> Vec<String> {
        fingerprint.split(['/', ',']).map(str::to_owned).collect()
    };
    let (before, after) = (parts(in_force), parts(&fingerprint(container)));
    // Request and limit of CPU, then of memory, are at the same positions in both.
    let changed =
        |place: usize| [place, place + 2].iter().any(|at| before.get(*at) != after.get(*at));
    container.resize_policy.iter().flatten().any(|policy| {
        let place = usize::from(policy.resource_name == "memory");
        policy.restart_policy == "RestartContainer" && changed(place)
    })
}

/// The request for a resource; the limit if there is no request, zero if there is neither.
pub fn request(resources: Option<&ResourceRequirements>, name: &str) -> Quantity {
    let of = |list: Option<&BTreeMap<String, Text>>| list.and_then(|list| list.get(name)).cloned();
    resources
        .and_then(|one| of(one.requests.as_ref()).or_else(|| of(one.limits.as_ref())))
        .map_or(Quantity::ZERO, |text| Quantity::of(&text))
}

/// The limit of a resource, if it has one.
pub fn limit(resources: Option<&ResourceRequirements>, name: &str) -> Option<Quantity> {
    let text = resources?.limits.as_ref()?.get(name)?;
    Some(Quantity::of(text)).filter(|amount| !amount.is_zero())
}

/// Settings of a container's cgroup.
pub fn container_cgroup(resources: Option<&ResourceRequirements>) -> Resources {
    Resources {
        cpu_shares: Some(cpu_shares(unsigned(request(resources, "cpu").millis()))),
        cpu_quota_us: limit(resources, "cpu").map(|limit| cpu_quota_us(unsigned(limit.millis()))),
        memory_limit_bytes: limit(resources, "memory").map(Quantity::units),
        ..Default::default()
    }
}

/// Settings of a pod's cgroup: the sums of its containers; a limit only where all have one.
pub fn pod_cgroup(pod: &Pod) -> Resources {
    let spec = pod.spec_ref();
    let limits = api::pod::resources(spec, Side::Limits);
    let whole = |name: &str| limit(spec.resources.as_ref(), name).is_some();
    let all = |name: &str| {
        let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let mut each = containers.map(|one| limit(one.resources.as_ref(), name).is_some());
        (whole(name) || each.all(|limited| limited)).then(|| limits.get(name).copied()).flatten()
    };
    Resources {
        cpu_shares: Some(match qos_class(pod) {
            QosClass::BestEffort => cpu_shares(0),
            _ => cpu_shares(unsigned(pod_request(pod, "cpu").millis())),
        }),
        cpu_quota_us: all("cpu").map(|limit| cpu_quota_us(unsigned(limit.millis()))),
        memory_limit_bytes: all("memory").map(Quantity::units),
        ..Default::default()
    }
}

/// The pod's request for a resource.
pub fn pod_request(pod: &Pod, name: &str) -> Quantity {
    api::pod::resources(pod.spec_ref(), Side::Requests).get(name).copied().unwrap_or(Quantity::ZERO)
}

/// `oom_score_adj` of a container: guaranteed pods are killed last, best-effort ones first.
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: u64) -> i32 {
    let critical = pod.spec_ref().priority.unwrap_or(0) >= 2_000_000_000;
    match qos_class(pod) {
        _ if critical => -997,
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let bytes = unsigned(request(container.resources.as_ref(), "memory").units());
            let share = bytes.saturating_mul(1000) / node_memory_bytes.max(1);
            i32::try_from(1000_u64.saturating_sub(share).clamp(3, 999)).unwrap_or(999)
        }
    }
}

fn unsigned(amount: i64) -> u64 {
    u64::try_from(amount).unwrap_or(0)
}
