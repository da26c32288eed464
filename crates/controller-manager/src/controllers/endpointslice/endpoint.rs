//! A pod as an endpoint of a service (`k8s.io/endpointslice`).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::machinery::owner::is_deleting;
use crate::machinery::pod_state::is_ready;

/// Whether a service's clients resolve its name to the pods themselves.
pub fn is_headless(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Whether this controller manages the endpoints of a service: the service selects pods.
pub fn selects_pods(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        spec.type_.as_deref() != Some("ExternalName")
            && spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())
    })
}

/// The address types of a service's slices: `IPv4`, `IPv6`.
pub fn address_types(service: &Service) -> Vec<String> {
    let families = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.clone())
        .filter(|families| !families.is_empty());
    families.unwrap_or_else(|| vec!["IPv4".into()])
}

/// The pod's address of the given type.
pub fn address<'a>(pod: &'a Pod, address_type: &str) -> Option<&'a str> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut all = all.chain(status.pod_ip.as_deref());
    all.find(|text| is_of_type(text, address_type))
}

/// Whether the text is an address of the given type.
pub fn is_of_type(text: &str, address_type: &str) -> bool {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => address_type == "IPv4",
        Ok(IpAddr::V6(_)) => address_type == "IPv6",
        Err(_) => false,
    }
}

/// The pod's port numbers for the service's ports, without named ports that the pod lacks.
pub fn ports(service: &Service, pod: &Pod) -> Vec<EndpointPort> {
    let all = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut ports: Vec<EndpointPort> = all
        .filter_map(|port| {
            Some(EndpointPort {
                name: Some(port.name.clone().unwrap_or_default()),
                port: Some(number(port, pod)?),
                protocol: Some(protocol(port.protocol.as_ref()).to_owned()),
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    ports.sort_by(|one, other| (&one.name, one.port).cmp(&(&other.name, other.port)));
    ports
}

fn protocol(text: Option<&String>) -> &str {
    text.map_or("TCP", String::as_str)
}

fn number(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|container| api::pod::is_sidecar(container));
            let mut named = spec.containers.iter().chain(sidecars).flat_map(declared);
            named
                .find(|declared| {
                    declared.name.as_ref() == Some(name)
                        && protocol(declared.protocol.as_ref()) == protocol(port.protocol.as_ref())
                })
                .map(|declared| declared.container_port)
        }
    }
}

fn declared(
    container: &Container,
) -> impl Iterator<Item = &k8s_openapi::api::core::v1::ContainerPort> {
    container.ports.iter().flatten()
}

/// The pod as an endpoint, if it has an address of the type and has not terminated.
pub fn endpoint(
    service: &Service,
    pod: &Pod,
    address_type: &str,
    zone: Option<&str>,
) -> Option<Endpoint> {
    if api::pod::is_terminal(pod) {
        return None;
    }
    let address = address(pod, address_type)?;
    let spec = service.spec.as_ref();
    let publish_all = spec.and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    let serving = is_ready(pod);
    let terminating = is_deleting(&pod.metadata);
    let node = api::pod::node_name(pod).map(str::to_owned);
    Some(Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(publish_all || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        hints: hints(service, zone, node.as_deref()),
        node_name: node,
        target_ref: Some(reference(pod)),
        zone: zone.map(str::to_owned),
        ..Default::default()
    })
}

/// The reference by which an endpoint names its pod.
pub fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    }
}

/// The pod's hostname, if the service is its subdomain.
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let under = spec.subdomain.is_some()
        && spec.subdomain == service.metadata.name
        && pod.metadata.namespace == service.metadata.namespace;
    spec.hostname.clone().filter(|hostname| under && !hostname.is_empty())
}

fn hints(service: &Service, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let spec = service.spec.as_ref()?;
    let zones = |zone: Option<&str>| zone.map(|zone| vec![ForZone { name: zone.into() }]);
    let (for_zones, for_nodes) = match spec.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => (zones(zone), None),
        "PreferSameNode" => (zones(zone), node.map(|node| vec![ForNode { name: node.into() }])),
        _ => return None,
    };
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_zones, for_nodes })
}
