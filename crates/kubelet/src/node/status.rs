//! The status of the node: pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::quantity::Quantity;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::machine_info::MachineInfo;
use super::pressure::Pressures;
use crate::devices::Offer;

/// Maximum number of images in the status, as upstream.
pub const IMAGES_MAX: usize = 50;

/// What the status is computed from.
#[derive(Clone, Debug)]
pub struct StatusInput<'a> {
    pub facts: &'a MachineInfo,
    pub hostname: &'a str,
    pub ips: &'a [IpAddr],
    pub port: u16,
    pub max_pods: u32,
    pub pressures: Pressures,
    /// Whether containerd answers.
    pub runtime_ready: bool,
    /// Whether pods can get addresses.
    pub network_ready: bool,
    /// Whether pods can have user namespaces of their own.
    pub user_namespaces: bool,
    /// Whether the kernel enforces AppArmor profiles.
    pub app_armor: bool,
    pub images: &'a [ContainerImage],
    /// Devices of plugins, by resource name.
    pub offers: &'a BTreeMap<String, Offer>,
}

/// The node's status. Resources, conditions and addresses in `before` that belong to others are
/// kept. Heartbeats are those of `before`; [`heartbeat`] renews them.
pub fn status(input: &StatusInput<'_>, before: &NodeStatus, at: Timestamp) -> NodeStatus {
    let mut addresses: Vec<NodeAddress> =
        input.ips.iter().map(|ip| address("InternalIP", &ip.to_string())).collect();
    addresses.push(address("Hostname", input.hostname));
    NodeStatus {
        addresses: Some(addresses),
        capacity: Some(with(&before.capacity, capacity(input))),
        allocatable: Some(with(&before.allocatable, allocatable(input, before))),
        conditions: Some(conditions(input, before, at)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: input.port.into() }),
        }),
        node_info: Some(input.facts.info.clone()),
        features: Some(NodeFeatures { supplemental_groups_policy: Some(true) }),
        runtime_handlers: Some(vec![handler(input.user_namespaces)]),
        images: (!input.images.is_empty()).then(|| input.images.to_vec()),
        ..before.clone()
    }
}

/// What pods may ask of the only handler, which has no name.
fn handler(user_namespaces: bool) -> NodeRuntimeHandler {
    let features = NodeRuntimeHandlerFeatures {
        recursive_read_only_mounts: Some(true),
        user_namespaces: Some(user_namespaces),
    };
    NodeRuntimeHandler { name: Some(String::new()), features: Some(features) }
}

fn capacity(input: &StatusInput<'_>) -> BTreeMap<String, Quantity> {
    let mut own = input.facts.capacity(input.max_pods);
    own.extend(devices(input, |offer| offer.capacity));
    own
}

fn devices(
    input: &StatusInput<'_>,
    of: impl Fn(&Offer) -> usize,
) -> impl Iterator<Item = (String, Quantity)> {
    let number = move |offer| Quantity::from_units(i64::try_from(of(offer)).unwrap_or(i64::MAX));
    input.offers.iter().map(move |(name, offer)| (name.clone(), number(offer)))
}

/// An extended resource in the capacity is allocatable, but for devices that are not healthy.
fn allocatable(input: &StatusInput<'_>, before: &NodeStatus) -> BTreeMap<String, Quantity> {
    let mut own = input.facts.allocatable(input.max_pods);
    own.extend(devices(input, |offer| offer.allocatable));
    for (name, amount) in before.capacity.iter().flatten() {
        own.entry(name.clone()).or_insert_with(|| Quantity::of(amount));
    }
    own
}

fn with(
    before: &Option<BTreeMap<String, Text>>,
    own: BTreeMap<String, Quantity>,
) -> BTreeMap<String, Text> {
    let mut all = before.clone().unwrap_or_default();
    all.extend(own.into_iter().map(|(name, amount)| (name, amount.to_text())));
    all
}

fn address(type_: &str, address: &str) -> NodeAddress {
    NodeAddress { type_: type_.to_owned(), address: address.to_owned() }
}

fn conditions(input: &StatusInput<'_>, before: &NodeStatus, at: Timestamp) -> Vec<NodeCondition> {
    let pressures = input.pressures;
    let ready = match (input.runtime_ready, input.network_ready) {
        (true, true) if input.app_armor => {
            (true, "KubeletReady", "kubelet is posting ready status. AppArmor enabled")
        }
        (true, true) => (true, "KubeletReady", "kubelet is posting ready status"),
        (false, _) => (false, "KubeletNotReady", "container runtime is down"),
        (true, false) => (
            false,
            "KubeletNotReady",
            "container runtime network not ready: the node has no pod address range",
        ),
    };
    let own = [
        (
            "NetworkUnavailable",
            if input.network_ready {
                (false, "PodNetworkReady", "the pod network is set up")
            } else {
                (true, "NoPodAddressRange", "the node has no pod address range")
            },
        ),
        (
            "MemoryPressure",
            if pressures.memory {
                (true, "KubeletHasInsufficientMemory", "kubelet has insufficient memory available")
            } else {
                (false, "KubeletHasSufficientMemory", "kubelet has sufficient memory available")
            },
        ),
        (
            "DiskPressure",
            if pressures.disk {
                (true, "KubeletHasDiskPressure", "kubelet has disk pressure")
            } else {
                (false, "KubeletHasNoDiskPressure", "kubelet has no disk pressure")
            },
        ),
        (
            "PIDPressure",
            if pressures.pids {
                (true, "KubeletHasInsufficientPID", "kubelet has insufficient PID available")
            } else {
                (false, "KubeletHasSufficientPID", "kubelet has sufficient PID available")
            },
        ),
        ("Ready", ready),
    ];
    let old = || before.conditions.iter().flatten();
    let mut conditions: Vec<NodeCondition> = old()
        .filter(|condition| own.iter().all(|(type_, _)| *type_ != condition.type_))
        .cloned()
        .collect();
    for (type_, (holds, reason, message)) in own {
        let status = if holds { "True" } else { "False" };
        let known = old().find(|condition| condition.type_ == type_);
        let same = known.filter(|condition| condition.status == status);
        conditions.push(NodeCondition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: same
                .and_then(|condition| condition.last_transition_time.clone())
                .or(Some(whole(at))),
            last_heartbeat_time: known
                .and_then(|condition| condition.last_heartbeat_time.clone())
                .or(Some(whole(at))),
        });
    }
    conditions
}

/// Renews the heartbeats of the kubelet's own conditions.
pub fn heartbeat(status: &mut NodeStatus, at: Timestamp) {
    const OWN: [&str; 5] =
        ["NetworkUnavailable", "MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
    for condition in status.conditions.iter_mut().flatten() {
        if OWN.contains(&condition.type_.as_str()) {
            condition.last_heartbeat_time = Some(whole(at));
        }
    }
}

fn whole(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    static NO_OFFERS: BTreeMap<String, Offer> = BTreeMap::new();

    fn input(facts: &MachineInfo) -> StatusInput<'_> {
        StatusInput {
            facts,
            hostname: "n1",
            ips: &[],
            port: 10250,
            max_pods: 110,
            pressures: Pressures::default(),
            runtime_ready: true,
            network_ready: true,
            user_namespaces: true,
            app_armor: false,
            images: &[],
            offers: &NO_OFFERS,
        }
    }

    #[test]
    fn unhealthy_devices_are_capacity_and_gone_ones_count_zero() {
        let offers: BTreeMap<String, Offer> = [
            ("example.com/gpu".into(), Offer { capacity: 3, allocatable: 2 }),
            ("example.com/gone".into(), Offer::default()),
        ]
        .into();
        let facts = MachineInfo::default();
        let mut before = NodeStatus::default();
        for list in [&mut before.capacity, &mut before.allocatable] {
            list.get_or_insert_default().insert("example.com/gone".into(), Text("4".into()));
        }
        let input = StatusInput { offers: &offers, ..input(&facts) };
        let found = status(&input, &before, Timestamp::UNIX_EPOCH);
        let (capacity, allocatable) = (found.capacity.unwrap(), found.allocatable.unwrap());
        for (name, all, usable) in [("example.com/gpu", "3", "2"), ("example.com/gone", "0", "0")] {
            assert_eq!((capacity[name].0.as_str(), allocatable[name].0.as_str()), (all, usable));
        }
    }

    #[test]
    fn others_entries_are_kept_and_times_change_only_with_the_status() {
        let facts = MachineInfo {
            cpus: 4,
            memory_bytes: 1 << 30,
            disk_bytes: 1 << 30,
            ..Default::default()
        };
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let mut first = status(&input(&facts), &NodeStatus::default(), at(1));
        first.capacity.get_or_insert_default().insert("example.com/gpu".into(), Text("2".into()));
        first.conditions.get_or_insert_default().push(NodeCondition {
            type_: "Other".into(),
            status: "True".into(),
            ..Default::default()
        });
        let second = status(&input(&facts), &first, at(9));
        assert_eq!(second.allocatable.as_ref().unwrap()["example.com/gpu"].0, "2");
        assert_eq!(second.allocatable.as_ref().unwrap()["cpu"].0, "4");
        assert!(second.conditions.as_ref().unwrap().iter().any(|one| one.type_ == "Other"));
        let third = status(&input(&facts), &second, at(20));
        assert_eq!(second, third, "nothing has changed");
        let down = status(&StatusInput { runtime_ready: false, ..input(&facts) }, &third, at(30));
        let ready = down.conditions.unwrap().into_iter().find(|one| one.type_ == "Ready").unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.last_transition_time),
            ("False", Some(Time(at(30))))
        );
    }
}
