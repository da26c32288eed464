//! The finalizers and the status that a Service should have.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    LoadBalancerIngress, LoadBalancerStatus, Node, PortStatus, Service, ServiceStatus,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::request::Refusal;
use crate::machinery::owner::is_deleting;

/// Keeps a Service from being deleted while it has an address.
pub const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
/// Whether the Service has its address.
pub const CONDITION: &str = "LoadBalancerAddressAssigned";
/// Traffic from load balancers must not be sent to a node with this label.
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// The cluster autoscaler is about to delete a node with this taint.
const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

/// Whether the Service wants an address from here: one with a class wants it from another
/// implementation.
pub fn wants(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    !is_deleting(&service.metadata)
        && spec.is_some_and(|spec| {
            spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
        })
}

/// Whether the Service had an address from here, and must give it up.
pub fn needs_cleanup(service: &Service) -> bool {
    let type_ = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    has_finalizer(service) && (is_deleting(&service.metadata) || type_ != Some("LoadBalancer"))
}

/// Whether the Service was served from here, and not by another implementation, which has the same
/// finalizer.
pub fn is_ours(service: &Service) -> bool {
    let status = service.status.as_ref();
    let mut conditions = status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == CONDITION)
}

pub fn has_finalizer(service: &Service) -> bool {
    service.metadata.finalizers.iter().flatten().any(|name| name == FINALIZER)
}

/// The Service with finalizer and status for its addresses, or for why it has none.
pub fn ensured(
    service: &Service,
    outcome: &Result<Vec<IpAddr>, Refusal>,
    now: Timestamp,
) -> Service {
    let mut wanted = service.clone();
    if !has_finalizer(service) {
        wanted.metadata.finalizers.get_or_insert_default().push(FINALIZER.to_owned());
    }
    let addresses = outcome.as_deref().unwrap_or_default();
    let ingress: Vec<_> = addresses.iter().map(|ip| ingress(service, *ip)).collect();
    let status = wanted.status.get_or_insert_default();
    let balancer = LoadBalancerStatus { ingress: (!ingress.is_empty()).then_some(ingress) };
    status.load_balancer = Some(balancer);
    let condition = condition(service, outcome, now);
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|known| known.type_ == CONDITION) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
    wanted
}

/// The Service without finalizer and address.
pub fn cleaned(service: &Service) -> Service {
    let mut wanted = service.clone();
    if let Some(finalizers) = &mut wanted.metadata.finalizers {
        finalizers.retain(|name| name != FINALIZER);
    }
    let status: &mut ServiceStatus = wanted.status.get_or_insert_default();
    status.load_balancer = Some(LoadBalancerStatus::default());
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != CONDITION);
    }
    wanted
}

fn ingress(service: &Service, ip: IpAddr) -> LoadBalancerIngress {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let ports = ports.map(|port| PortStatus {
        error: None,
        port: port.port,
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
    });
    LoadBalancerIngress {
        hostname: None,
        ip: Some(ip.to_string()),
        // The proxies translate the address at whichever node its packets arrive.
        ip_mode: Some("VIP".to_owned()),
        ports: Some(ports.collect()),
    }
}

fn condition(
    service: &Service,
    outcome: &Result<Vec<IpAddr>, Refusal>,
    now: Timestamp,
) -> Condition {
    let (status, reason, message) = match outcome {
        Ok(_) => ("True", "AddressAssigned", String::new()),
        Err(refusal) => ("False", refusal.reason(), refusal.to_string()),
    };
    let conditions = service.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let same =
        conditions.into_iter().find(|known| known.type_ == CONDITION && known.status == status);
    Condition {
        last_transition_time: same.map_or(Time(now), |known| known.last_transition_time.clone()),
        message,
        observed_generation: None,
        reason: reason.to_owned(),
        status: status.to_owned(),
        type_: CONDITION.to_owned(),
    }
}

/// Whether traffic from load balancers may be sent to the node.
pub fn is_available(node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let excluded = labels.is_some_and(|labels| labels.contains_key(EXCLUDE_LABEL));
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let ending = taints.into_iter().any(|taint| taint.key == TO_BE_DELETED_TAINT);
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|one| one.type_ == "Ready" && one.status == "True");
    !excluded && !ending && ready
}

/// All addresses of a node.
pub fn own_addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    all.filter_map(|address| address.address.parse().ok())
}

/// A node's addresses for clients: the external ones, or else the internal ones.
pub fn addresses(node: &Node) -> Vec<IpAddr> {
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let of = |kind: &str| -> Vec<IpAddr> {
        let matching = all.clone().filter(|address| address.type_ == kind);
        matching.filter_map(|address| address.address.parse().ok()).collect()
    };
    let external = of("ExternalIP");
    if external.is_empty() { of("InternalIP") } else { external }
}

/// The nodes' own addresses for a Service: of all available nodes, or with
/// `externalTrafficPolicy: Local` of those with endpoints. Ordered by family, then node.
///
/// # Errors
/// If there are none.
pub fn node_addresses<'a>(
    service: &Service,
    nodes: impl Iterator<Item = &'a Node>,
    slices: &[impl AsRef<EndpointSlice>],
) -> Result<Vec<IpAddr>, Refusal> {
    let spec = service.spec.clone().unwrap_or_default();
    let local = spec.external_traffic_policy.as_deref() == Some("Local");
    let has_endpoint = |node: &Node| {
        let endpoints = slices.iter().flat_map(|slice| &slice.as_ref().endpoints).flatten();
        endpoints.into_iter().any(|endpoint| {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready);
            endpoint.node_name == node.metadata.name && ready != Some(false)
        })
    };
    let chosen = nodes.filter(|node| is_available(node) && (!local || has_endpoint(node)));
    let all: Vec<IpAddr> = chosen.flat_map(addresses).collect();
    let families = spec.ip_families.unwrap_or_default();
    let families = families.iter().map(|family| family == "IPv4");
    let of = |v4: bool| all.iter().copied().filter(move |ip| ip.is_ipv4() == v4);
    let ordered: Vec<IpAddr> = families.flat_map(of).collect();
    if ordered.is_empty() { Err(Refusal::NoNodes) } else { Ok(ordered) }
}
