//! The reduced form of watched objects: only what affects the routing of packets. Objects are
//! reduced as they arrive, so that ten thousand Services take a few megabytes.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use client::mirror::Name;
use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::nft::Family;
use crate::table::{LinkName, Protocol};

/// The default of `spec.sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_DEFAULT_S: u32 = 10_800;
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// A Service with this label is handled by another proxy.
const PROXY_NAME_LABEL: &str = "service.kubernetes.io/service-proxy-name";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// The cluster autoscaler is about to delete a node with this taint.
const TO_BE_DELETED_TAINT: &str = "ToBeDeletedByClusterAutoscaler";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub cluster_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    pub load_balancer_ips: Vec<IpAddr>,
    /// The uid, if it is of type LoadBalancer and leaves the implementation to this cluster.
    pub load_balancer_uid: Option<Box<str>>,
    /// The sources that may use the load balancer's addresses; empty for all.
    pub source_ranges: Vec<IpNet>,
    pub ports: Vec<ServicePort>,
    /// The timeout of session affinity, if enabled.
    pub affinity_s: Option<u32>,
    /// `internalTrafficPolicy: Local`.
    pub internal_local: bool,
    /// `externalTrafficPolicy: Local`.
    pub external_local: bool,
    /// The port on which load balancers check whether this node has endpoints.
    pub health_check_port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub name: Box<str>,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    pub service: Name,
    pub family: Family,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<SliceEndpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    pub name: Box<str>,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    pub ip: IpAddr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    /// On this node.
    pub local: bool,
    /// Whether hints assign it to this node; `None` without hints for nodes.
    pub for_this_node: Option<bool>,
    /// The zones that hints assign it to.
    pub for_zones: Box<[Box<str>]>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub pod_cidrs: Vec<IpNet>,
    pub internal_ips: Vec<IpAddr>,
    pub zone: Option<Box<str>>,
    /// Load balancers must not send it traffic.
    pub excluded_from_balancers: bool,
}

/// The labels of an object; shared, since those of many pods are the same.
pub type Labels = Arc<BTreeMap<String, String>>;

/// A pod with a network of its own. One that has terminated or uses its node's network has neither
/// link nor addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// The link to its node, known before it exists.
    pub link: Option<LinkName>,
    pub ips: Vec<IpAddr>,
    pub labels: Labels,
    pub host_ports: Vec<HostPort>,
    pub named_ports: Vec<NamedPort>,
}

/// A port of a container that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamedPort {
    pub name: Box<str>,
    pub protocol: Protocol,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The only address it is reachable on; `None` for all.
    pub host_ip: Option<IpAddr>,
    pub protocol: Protocol,
    pub host_port: u16,
    pub container_port: u16,
}

pub fn labels_of(metadata: &ObjectMeta) -> Labels {
    metadata.labels.clone().unwrap_or_default().into()
}

fn label<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(key).map(String::as_str)
}

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

fn parse_all<T: std::str::FromStr>(texts: Option<&Vec<String>>) -> Vec<T> {
    let texts = texts.into_iter().flatten();
    texts.filter_map(|text| text.trim().parse().ok()).collect()
}

impl Service {
    /// A Service that the proxy ignores (headless, ExternalName, another proxy's) has no ports.
    pub fn from_object(object: &core::Service) -> Self {
        let mut service = Service {
            namespace: object.metadata.namespace.as_deref().unwrap_or_default().into(),
            name: object.metadata.name.as_deref().unwrap_or_default().into(),
            ..Service::default()
        };
        let Some(spec) = &object.spec else {
            return service;
        };
        let cluster_ips = match &spec.cluster_ips {
            Some(ips) => parse_all(Some(ips)),
            None => spec.cluster_ip.iter().filter_map(|ip| ip.parse().ok()).collect(),
        };
        let other_proxy = label(&object.metadata, PROXY_NAME_LABEL).is_some();
        let external_name = spec.type_.as_deref() == Some("ExternalName");
        if cluster_ips.is_empty() || other_proxy || external_name {
            return service;
        }
        service.cluster_ips = cluster_ips;
        service.external_ips = parse_all(spec.external_ips.as_ref());
        service.source_ranges = parse_all(spec.load_balancer_source_ranges.as_ref());
        service.load_balancer_ips = load_balancer_ips(object);
        let balanced = spec.type_.as_deref() == Some("LoadBalancer");
        let uid = object.metadata.uid.as_deref().filter(|_| balanced);
        service.load_balancer_uid =
            uid.filter(|_| spec.load_balancer_class.is_none()).map(Into::into);
        service.ports = spec.ports.iter().flatten().filter_map(service_port).collect();
        service.affinity_s = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let config = spec.session_affinity_config.as_ref();
            let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
            seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(AFFINITY_DEFAULT_S)
        });
        service.internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
        service.health_check_port = spec.health_check_node_port.and_then(port);
        service.external_local = spec.external_traffic_policy.as_deref() == Some("Local");
        service
    }
}

/// The addresses whose packets the load balancer delivers to nodes unchanged; with `ipMode: Proxy`
/// it rewrites them.
fn load_balancer_ips(object: &core::Service) -> Vec<IpAddr> {
    let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_ref());
    let direct =
        ingress.into_iter().flatten().filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    direct.filter_map(|ingress| ingress.ip.as_ref()?.parse().ok()).collect()
}

fn service_port(object: &core::ServicePort) -> Option<ServicePort> {
    Some(ServicePort {
        name: object.name.as_deref().unwrap_or_default().into(),
        protocol: Protocol::from_name(object.protocol.as_deref())?,
        port: port(object.port)?,
        node_port: object.node_port.and_then(port),
    })
}

impl EndpointSlice {
    /// `None` for a slice that belongs to no Service or contains names instead of addresses.
    pub fn from_object(object: &discovery::EndpointSlice, node_name: &str) -> Option<Self> {
        let service = label(&object.metadata, SERVICE_NAME_LABEL)?;
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let family = match object.address_type.as_str() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            _ => return None,
        };
        let slice_port = |object: &discovery::EndpointPort| {
            Some(SlicePort {
                name: object.name.as_deref().unwrap_or_default().into(),
                protocol: Protocol::from_name(object.protocol.as_deref())?,
                port: object.port.and_then(port)?,
            })
        };
        let endpoints = object.endpoints.iter().flatten();
        Some(Self {
            service: format!("{namespace}/{service}").into(),
            family,
            ports: object.ports.iter().flatten().filter_map(slice_port).collect(),
            endpoints: endpoints.filter_map(|object| endpoint(object, node_name)).collect(),
        })
    }
}

/// All addresses of an endpoint are the same backend; the first is used. A missing condition means
/// true for ready, the value of ready for serving, and false for terminating.
fn endpoint(object: &discovery::Endpoint, node_name: &str) -> Option<SliceEndpoint> {
    let conditions = object.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let hints = object.hints.as_ref();
    let nodes = hints.and_then(|hints| hints.for_nodes.as_ref()).filter(|nodes| !nodes.is_empty());
    let zones = hints.and_then(|hints| hints.for_zones.as_ref());
    Some(SliceEndpoint {
        ip: object.addresses.first()?.parse().ok()?,
        ready,
        serving: conditions.and_then(|conditions| conditions.serving).unwrap_or(ready),
        terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        local: object.node_name.as_deref() == Some(node_name),
        for_this_node: nodes.map(|nodes| nodes.iter().any(|node| node.name == node_name)),
        for_zones: zones.into_iter().flatten().map(|zone| zone.name.as_str().into()).collect(),
    })
}

impl Node {
    pub fn from_object(object: &core::Node) -> Self {
        let spec = object.spec.as_ref();
        let mut pod_cidrs: Vec<IpNet> = parse_all(spec.and_then(|spec| spec.pod_cidrs.as_ref()));
        if pod_cidrs.is_empty() {
            let one: Option<IpNet> = spec.and_then(|spec| spec.pod_cidr.as_ref()?.parse().ok());
            pod_cidrs.extend(one);
        }
        let addresses = object.status.as_ref().and_then(|status| status.addresses.as_ref());
        let internal =
            addresses.into_iter().flatten().filter(|address| address.type_ == "InternalIP");
        let taints = spec.into_iter().flat_map(|spec| spec.taints.iter().flatten());
        let ending = taints.into_iter().any(|taint| taint.key == TO_BE_DELETED_TAINT);
        Self {
            pod_cidrs,
            excluded_from_balancers: ending || label(&object.metadata, EXCLUDE_LABEL).is_some(),
            internal_ips: internal.filter_map(|address| address.address.parse().ok()).collect(),
            zone: label(&object.metadata, ZONE_LABEL).map(Into::into),
        }
    }
}

impl Pod {
    /// A pod that has terminated or uses the host network has no host ports to map, and is nothing
    /// to policies.
    pub fn from_object(object: &core::Pod) -> Self {
        let Some(spec) = &object.spec else {
            return Self::default();
        };
        let status = object.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        let ended = matches!(phase, Some("Succeeded" | "Failed"));
        if ended || spec.host_network == Some(true) {
            return Self::default();
        }
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars =
            sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        let ports = spec
            .containers
            .iter()
            .chain(sidecars)
            .flat_map(|container| container.ports.iter().flatten());
        let ips = status.into_iter().flat_map(|status| status.pod_ips.iter().flatten());
        let uid = api::pod::uid_on_node(object);
        Self {
            link: uid.map(|uid| LinkName::new(&api::pod::link_name(uid))),
            ips: ips.filter_map(|ip| ip.ip.parse().ok()).collect(),
            labels: labels_of(&object.metadata),
            host_ports: ports.clone().filter_map(host_port).collect(),
            named_ports: ports.filter_map(named_port).collect(),
        }
    }
}

fn named_port(object: &core::ContainerPort) -> Option<NamedPort> {
    Some(NamedPort {
        name: object.name.as_deref().filter(|name| !name.is_empty())?.into(),
        protocol: Protocol::from_name(object.protocol.as_deref())?,
        port: port(object.container_port)?,
    })
}

fn host_port(object: &core::ContainerPort) -> Option<HostPort> {
    let host_ip = object.host_ip.as_deref().filter(|ip| !ip.is_empty());
    let host_ip: Option<IpAddr> = host_ip.map(str::parse).transpose().ok()?;
    Some(HostPort {
        host_ip: host_ip.filter(|ip| !ip.is_unspecified()),
        protocol: Protocol::from_name(object.protocol.as_deref())?,
        host_port: object.host_port.and_then(port)?,
        container_port: port(object.container_port)?,
    })
}
