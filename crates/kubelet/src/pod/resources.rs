//! Cgroup settings and OOM scores from requests and limits.

use std::collections::BTreeMap;

use api::pod::Side;
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::admission::is_node_critical;
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

/// Settings of a container's cgroup. What a container does not limit, the pod's own limits do.
pub fn container_cgroup(pod: &Pod, container: &Container) -> Resources {
    let own = container.resources.as_ref();
    let limit =
        |name: &str| limit(own, name).or_else(|| limit(pod.spec_ref().resources.as_ref(), name));
    let cpu = match request(own, "cpu") {
        // As the apiserver's default: a limit is a request too.
        asked if asked.is_zero() => limit("cpu").unwrap_or(asked),
        asked => asked,
    };
    let limits = own.iter().flat_map(|own| own.limits.iter().flatten());
    Resources {
        cpu_shares: Some(cpu_shares(unsigned(cpu.millis()))),
        cpu_quota_us: limit("cpu").map(|limit| cpu_quota_us(unsigned(limit.millis()))),
        memory_limit_bytes: limit("memory").map(Quantity::units),
        huge_pages: huge_pages(limits.map(|(name, text)| (name.as_str(), Quantity::of(text)))),
        ..Default::default()
    }
}

/// Settings of a pod's cgroup: its own limits, or the sums of its containers' where all have one.
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
        huge_pages: huge_pages(limits.iter().map(|(name, amount)| (name.as_str(), *amount))),
        ..Default::default()
    }
}

/// Limits of huge pages in bytes, by page size.
fn huge_pages<'a>(limits: impl Iterator<Item = (&'a str, Quantity)>) -> BTreeMap<u64, u64> {
    limits.filter_map(|(name, amount)| Some((page_size(name)?, unsigned(amount.units())))).collect()
}

/// The size in bytes of the pages of a resource `hugepages-2Mi`.
pub fn page_size(resource: &str) -> Option<u64> {
    let size: Quantity = resource.strip_prefix("hugepages-")?.parse().ok()?;
    u64::try_from(size.units()).ok().filter(|bytes| *bytes > 0)
}

/// The pod's request for a resource.
pub fn pod_request(pod: &Pod, name: &str) -> Quantity {
    api::pod::resources(pod.spec_ref(), Side::Requests).get(name).copied().unwrap_or(Quantity::ZERO)
}

/// `oom_score_adj` of a container: guaranteed pods are killed last, best-effort ones first, and
/// those in between by the memory that they request (`pkg/kubelet/qos/policy.go`). A sidecar is
/// killed no sooner than the containers that it serves.
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: u64) -> i32 {
    match qos_class(pod) {
        _ if is_node_critical(pod) => GUARANTEED,
        QosClass::Guaranteed => GUARANTEED,
        QosClass::BestEffort => BEST_EFFORT,
        QosClass::Burstable => {
            let shared = shared_memory(pod);
            let score = |requested: i64| {
                let share = i128::from(requested.saturating_add(shared)) * 1000;
                1000 - share / i128::from(node_memory_bytes.max(1))
            };
            let mut own = score(memory_request(container));
            if api::pod::is_sidecar(container) {
                let served = pod.spec_ref().containers.iter().map(memory_request).min();
                own = own.min(score(served.unwrap_or(0)));
            }
            let (lowest, highest) = (1000 + i128::from(GUARANTEED), i128::from(BEST_EFFORT) - 1);
            i32::try_from(own.clamp(lowest, highest)).expect("between the other classes")
        }
    }
}

const GUARANTEED: i32 = -997;
const BEST_EFFORT: i32 = 1000;

fn memory_request(container: &Container) -> i64 {
    request(container.resources.as_ref(), "memory").units()
}

/// Each container's part of the memory that the pod requests as a whole and no container does.
fn shared_memory(pod: &Pod) -> i64 {
    let mut spec = pod.spec_ref().clone();
    let whole = request(spec.resources.take().as_ref(), "memory").units();
    if whole == 0 {
        return 0;
    }
    spec.overhead = None;
    let containers = spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len);
    let of_containers = api::pod::resources(&spec, Side::Requests);
    let of_containers = of_containers.get("memory").map_or(0, |amount| amount.units());
    let left = whole.saturating_sub(of_containers);
    left / i64::try_from(containers.max(1)).unwrap_or(i64::MAX)
}

fn unsigned(amount: i64) -> u64 {
    u64::try_from(amount).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;

    use super::*;

    /// Requests and limits.
    fn resources(
        requests: &[(&str, &str)],
        limits: &[(&str, &str)],
    ) -> Option<ResourceRequirements> {
        let list = |amounts: &[(&str, &str)]| {
            let read = |(name, amount): &(&str, &str)| ((*name).into(), Text((*amount).into()));
            Some(amounts.iter().map(read).collect())
        };
        Some(ResourceRequirements {
            requests: list(requests),
            limits: list(limits),
            ..Default::default()
        })
    }

    fn container(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Container {
        Container { resources: resources(requests, limits), ..Default::default() }
    }

    fn pod(of_pod: Option<ResourceRequirements>, containers: Vec<Container>) -> Pod {
        let spec = PodSpec { resources: of_pod, containers, ..Default::default() };
        Pod { spec: Some(spec), ..Default::default() }
    }

    #[test]
    fn limits_of_the_pod_hold_for_containers_without() {
        let whole = resources(&[("cpu", "1")], &[("cpu", "2"), ("memory", "1Gi")]);
        let own = container(&[], &[("cpu", "500m"), ("hugepages-2Mi", "4Mi")]);
        let without = container(&[], &[]);
        let pod = pod(whole, vec![own.clone(), without.clone()]);
        let found = container_cgroup(&pod, &own);
        assert_eq!((found.cpu_quota_us, found.cpu_shares), (Some(50_000), Some(512)));
        assert_eq!(found.memory_limit_bytes, Some(1 << 30));
        assert_eq!(found.huge_pages, BTreeMap::from([(2 << 20, 4 << 20)]));
        let found = container_cgroup(&pod, &without);
        assert_eq!((found.cpu_quota_us, found.cpu_shares), (Some(200_000), Some(2048)));
        let found = pod_cgroup(&pod);
        assert_eq!((found.cpu_quota_us, found.cpu_shares), (Some(200_000), Some(1024)));
        assert_eq!(found.memory_limit_bytes, Some(1 << 30));
        assert_eq!(found.huge_pages, BTreeMap::from([(2 << 20, 4 << 20)]));
    }

    #[test]
    fn memory_of_the_pod_and_of_served_containers_lowers_scores() {
        const NODE: u64 = 1 << 30;
        let mib = |count: u64| format!("{count}Mi");
        let asks = |count: u64| container(&[("memory", &mib(count))], &[]);
        let sidecar = Container { restart_policy: Some("Always".into()), ..asks(128) };
        let mut one = pod(None, vec![asks(512), asks(256)]);
        one.spec.as_mut().unwrap().init_containers = Some(vec![sidecar.clone()]);
        let scores = |pod: &Pod| {
            let containers = pod.spec_ref().containers.iter().chain([&sidecar]);
            containers.map(|one| oom_score_adj(pod, one, NODE)).collect::<Vec<_>>()
        };
        assert_eq!(scores(&one), [500, 750, 750]);
        // 128 Mi for each of the three, of those that nobody has asked for.
        one.spec.as_mut().unwrap().resources = resources(&[("memory", "1280Mi")], &[]);
        assert_eq!(scores(&one), [375, 625, 625]);
        let best_effort = pod(None, vec![container(&[], &[])]);
        assert_eq!(oom_score_adj(&best_effort, &best_effort.spec_ref().containers[0], NODE), 1000);
        let tiny = pod(None, vec![container(&[("cpu", "1m")], &[])]);
        assert_eq!(oom_score_adj(&tiny, &tiny.spec_ref().containers[0], NODE), 999);
        let huge = pod(None, vec![asks(4096)]);
        assert_eq!(oom_score_adj(&huge, &huge.spec_ref().containers[0], NODE), 3);
    }
}
