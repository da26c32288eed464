//! The reduced form of watched objects.

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use client::mirror::Name;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// What a Service's name resolves to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Service {
    ClusterIp {
        ips: Vec<IpAddr>,
        ports: Vec<Port>,
    },
    /// The addresses of the endpoints.
    Headless,
    /// An alias of another name.
    ExternalName(Box<str>),
}

/// A named port, for SRV records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub name: Box<str>,
    /// In lower case, as in DNS names.
    pub protocol: Box<str>,
    pub port: u16,
}

/// The ready endpoints of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    pub service: Name,
    pub ports: Vec<Port>,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: IpAddr,
    /// `spec.hostname` of its pod, if the pod's `spec.subdomain` names the Service.
    pub hostname: Option<Box<str>>,
}

fn port(name: Option<&str>, protocol: Option<&str>, port: i32) -> Option<Port> {
    Some(Port {
        name: name.unwrap_or_default().to_ascii_lowercase().into(),
        protocol: protocol.unwrap_or("TCP").to_ascii_lowercase().into(),
        port: u16::try_from(port).ok()?,
    })
}

impl Service {
    /// `None` for a Service that has no address yet.
    pub fn from_object(object: &core::Service) -> Option<Self> {
        let spec = object.spec.as_ref()?;
        if spec.type_.as_deref() == Some("ExternalName") {
            let name = spec.external_name.as_deref()?.trim_end_matches('.');
            return Some(Service::ExternalName(name.into()));
        }
        if spec.cluster_ip.as_deref() == Some("None") {
            return Some(Service::Headless);
        }
        let texts = spec.cluster_ips.clone().or_else(|| Some(vec![spec.cluster_ip.clone()?]))?;
        let ips: Vec<IpAddr> = texts.iter().filter_map(|ip| ip.parse().ok()).collect();
        let ports = spec.ports.iter().flatten();
        let ports = ports.filter_map(|object| {
            port(object.name.as_deref(), object.protocol.as_deref(), object.port)
        });
        (!ips.is_empty()).then(|| Service::ClusterIp { ips, ports: ports.collect() })
    }
}

impl Slice {
    /// `None` for a slice that belongs to no Service.
    pub fn from_object(object: &discovery::EndpointSlice) -> Option<Self> {
        let metadata: &ObjectMeta = &object.metadata;
        let service = metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let ports = object.ports.iter().flatten();
        let ports = ports.filter_map(|object| {
            port(object.name.as_deref(), object.protocol.as_deref(), object.port?)
        });
        // Missing conditions mean ready, as in Kubernetes.
        let is_ready = |endpoint: &&discovery::Endpoint| {
            let conditions = endpoint.conditions.as_ref();
            conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
        };
        let endpoints = object.endpoints.iter().flatten().filter(is_ready).flat_map(|endpoint| {
            let hostname =
                endpoint.hostname.as_deref().map(|name| name.to_ascii_lowercase().into());
            let ips = endpoint.addresses.iter().filter_map(|ip| ip.parse().ok());
            ips.map(move |ip| Endpoint { ip, hostname: hostname.clone() })
        });
        Some(Self {
            service: format!("{namespace}/{service}").into(),
            ports: ports.collect(),
            endpoints: endpoints.collect(),
        })
    }
}
