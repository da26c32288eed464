//! What a Service uses, and where that is recorded. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::{Kind, ObjectMeta};
use bytes::Bytes;
use ipnet::IpNet;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference};
use serde::{Deserialize, Serialize};

use crate::kinds::service::{has_cluster_ip, has_health_check_port, has_node_ports, is_headless};
use crate::{keys, meta, scan, stored};

/// Prefix of the records of ports. Those of addresses are IPAddresses.
pub const PORTS: &str = "/registry/ranges/nodeports/";

const FAMILY: &str = "ipaddress.kubernetes.io/ip-family";
const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
/// The value of [`MANAGED_BY`] of addresses that this server allocates.
const ALLOCATOR: &str = "ipallocator.k8s.io";
/// Of an IPAddress: the uid of its Service.
const OWNER_UID: &str = "skiff.dev/service-uid";

/// A cluster IP or node port: only one Service can have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    Address(IpAddr),
    Port(u16),
}

impl Resource {
    /// The key of its record.
    pub fn key(&self) -> Bytes {
        match self {
            Self::Address(address) => keys::object(IPAddress::ROW, &address.to_string()),
            Self::Port(port) => format!("{PORTS}{port}").into(),
        }
    }

    /// The inverse of [`key`](Self::key).
    pub fn of_key(key: &[u8]) -> Option<Self> {
        if let Some(address) = key.strip_prefix(&*keys::prefix(IPAddress::ROW, "")) {
            return std::str::from_utf8(address).ok()?.parse().ok().map(Self::Address);
        }
        let port = std::str::from_utf8(key).ok()?.strip_prefix(PORTS)?;
        port.parse().ok().map(Self::Port)
    }

    /// Its record: an IPAddress, or the owner of a port.
    pub fn record(&self, owner: &Owner, now: Timestamp) -> Bytes {
        let Self::Address(address) = self else {
            return owner.encode().into();
        };
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        let labels = [(FAMILY, family), (MANAGED_BY, ALLOCATOR)];
        let (namespace, name) = owner.service.split_once('/').unwrap_or_default();
        let text = |text: &str| Some(text.to_owned());
        let mut record = IPAddress {
            spec: IPAddressSpec {
                parent_ref: ParentReference {
                    group: text(""),
                    resource: "services".to_owned(),
                    namespace: text(namespace),
                    name: name.to_owned(),
                },
            },
            ..IPAddress::default()
        };
        let metadata = &mut record.metadata;
        metadata.name = Some(address.to_string());
        metadata.labels =
            Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
        metadata.annotations = Some([(OWNER_UID.to_owned(), owner.uid.clone())].into());
        meta::fill_new(metadata, now);
        stored::encode(&mut record)
    }
}

/// The Service that owns a resource, as its record has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// `namespace/name`.
    pub service: String,
    #[serde(default)]
    pub uid: String,
}

impl Owner {
    pub fn of(metadata: &ObjectMeta) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Self {
            service: format!("{}/{}", text(&metadata.namespace), text(&metadata.name)),
            uid: text(&metadata.uid),
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an owner is plain data")
    }

    /// The owner in a record; nobody when it cannot be read.
    pub fn decode(record: &[u8]) -> Self {
        let Some(metadata) = scan::at_path(record, "metadata") else {
            return serde_json::from_slice(record).unwrap_or_default();
        };
        let text = |json: &[u8], path: &str| {
            scan::at_path(json, path).map(scan::scalar).unwrap_or_default()
        };
        let member = |parent: &str, key: &str| {
            let parent = scan::at_path(metadata, parent).unwrap_or(b"{}");
            scan::string(parent, key)
        };
        if member("labels", MANAGED_BY) != ALLOCATOR {
            return Self::default();
        }
        let parent = scan::at_path(record, "spec.parentRef").unwrap_or(b"{}");
        let service = format!("{}/{}", text(parent, "namespace"), text(parent, "name"));
        Self { service, uid: member("annotations", OWNER_UID) }
    }

    /// Whether the record is not one of this server's: an IPAddress that somebody else has made.
    pub fn is_nobody(&self) -> bool {
        self.service.is_empty()
    }

    /// Whether a record is of this very Service, and not of another one with its name. Records
    /// without a uid are of a version that wrote none.
    pub fn has_written(&self, record: &[u8]) -> bool {
        let other = Self::decode(record);
        other.service == self.service && (other.uid.is_empty() || other.uid == self.uid)
    }
}

/// Addresses and ports that the spec names.
pub fn wanted(spec: &ServiceSpec) -> Vec<Resource> {
    let mut all = Vec::new();
    if has_cluster_ip(spec) && !is_headless(spec) {
        let addresses = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
        for address in addresses.filter_map(|address| address.parse().ok()) {
            push_new(&mut all, Resource::Address(address));
        }
    }
    let mut ports: Vec<i32> = Vec::new();
    if has_node_ports(spec) {
        ports.extend(spec.ports.iter().flatten().filter_map(|port| port.node_port));
    }
    if has_health_check_port(spec) {
        ports.extend(spec.health_check_node_port);
    }
    for port in
        ports.into_iter().filter_map(|port| u16::try_from(port).ok()).filter(|port| *port > 0)
    {
        push_new(&mut all, Resource::Port(port));
    }
    all
}

fn push_new(all: &mut Vec<Resource>, resource: Resource) {
    if !all.contains(&resource) {
        all.push(resource);
    }
}

/// What a stored Service has been allocated.
pub fn held(service: &Service) -> Vec<Resource> {
    service.spec.as_ref().map(wanted).unwrap_or_default()
}

/// Whether the Service needs an address and names none.
pub fn lacks_address(spec: &ServiceSpec) -> bool {
    has_cluster_ip(spec)
        && !is_headless(spec)
        && spec.cluster_ip.as_deref().unwrap_or_default().is_empty()
}

/// A port of the spec that needs a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortSlot {
    Port(usize),
    HealthCheck,
}

/// The ports that need a number.
pub fn ports_to_fill(spec: &ServiceSpec) -> Vec<PortSlot> {
    let mut slots = Vec::new();
    let allocates = spec.type_.as_deref() != Some("LoadBalancer")
        || spec.allocate_load_balancer_node_ports != Some(false);
    if has_node_ports(spec) && allocates {
        let ports = spec.ports.iter().flatten().enumerate();
        slots.extend(
            ports
                .filter(|(_, port)| port.node_port.unwrap_or_default() == 0)
                .map(|(index, _)| PortSlot::Port(index)),
        );
    }
    if has_health_check_port(spec) && spec.health_check_node_port.unwrap_or_default() == 0 {
        slots.push(PortSlot::HealthCheck);
    }
    slots
}

/// The number that the port shares with another of the spec which has the same port number, as of
/// TCP and UDP (upstream's `findRequestedNodePort` and `svcPortToNodePort`).
pub fn shared_port(spec: &ServiceSpec, slot: PortSlot) -> Option<u16> {
    let PortSlot::Port(index) = slot else {
        return None;
    };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let own = ports.get(index)?;
    let alike = ports.iter().filter(|port| port.port == own.port && port.protocol != own.protocol);
    alike.filter_map(|port| u16::try_from(port.node_port?).ok()).find(|number| *number > 0)
}

pub fn set_port(spec: &mut ServiceSpec, slot: PortSlot, number: u16) {
    match slot {
        PortSlot::HealthCheck => spec.health_check_node_port = Some(number.into()),
        PortSlot::Port(index) => {
            if let Some(port) = spec.ports.as_mut().and_then(|ports| ports.get_mut(index)) {
                port.node_port = Some(number.into());
            }
        }
    }
}

/// The path of the field with this node port.
pub fn port_field(spec: &ServiceSpec, number: u16) -> String {
    let index = spec.ports.iter().flatten().position(|port| port.node_port == Some(number.into()));
    match index {
        Some(index) => format!("spec.ports[{index}].nodePort"),
        None => "spec.healthCheckNodePort".to_owned(),
    }
}

/// Number of allocatable offsets: without the network and broadcast addresses.
pub fn size(range: &IpNet) -> u128 {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len()).min(64);
    (1_u128 << bits).saturating_sub(1)
}

/// The `offset`th address of a range.
pub fn nth(range: &IpNet, offset: u128) -> IpAddr {
    match range.network() {
        IpAddr::V4(start) => {
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            Ipv4Addr::from(u32::from(start).wrapping_add(offset)).into()
        }
        IpAddr::V6(start) => Ipv6Addr::from(u128::from(start).wrapping_add(offset)).into(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ServicePort;

    use super::*;

    #[test]
    fn ranges_are_counted_without_their_ends() {
        let range: IpNet = "10.96.0.0/12".parse().unwrap();
        assert_eq!(size(&range), (1 << 20) - 1);
        assert_eq!(nth(&range, 1).to_string(), "10.96.0.1");
        assert_eq!(size(&"10.0.0.0/30".parse().unwrap()), 3);
    }

    #[test]
    fn allocated_and_missing_resources_of_a_service() {
        let port =
            |number, node_port| ServicePort { port: number, node_port, ..Default::default() };
        let mut spec = ServiceSpec {
            type_: Some("NodePort".to_owned()),
            ports: Some(vec![port(80, Some(30_080)), port(443, None)]),
            ..ServiceSpec::default()
        };
        assert_eq!(wanted(&spec), [Resource::Port(30_080)]);
        assert!(lacks_address(&spec));
        assert_eq!(ports_to_fill(&spec), [PortSlot::Port(1)]);
        set_port(&mut spec, PortSlot::Port(1), 31_000);
        assert!(ports_to_fill(&spec).is_empty());
        spec.ports
            .as_mut()
            .unwrap()
            .push(ServicePort { protocol: Some("UDP".to_owned()), ..port(443, None) });
        assert_eq!(ports_to_fill(&spec), [PortSlot::Port(2)]);
        assert_eq!(shared_port(&spec, PortSlot::Port(2)), Some(31_000));
        set_port(&mut spec, PortSlot::Port(2), 31_000);
        assert_eq!(wanted(&spec), [Resource::Port(30_080), Resource::Port(31_000)]);
        spec.cluster_ip = Some("None".to_owned());
        assert!(!lacks_address(&spec));
        spec.type_ = Some("ExternalName".to_owned());
        assert!(wanted(&spec).is_empty());
        for resource in [Resource::Port(1), Resource::Address("::1".parse().unwrap())] {
            assert_eq!(Resource::of_key(&resource.key()), Some(resource));
        }
    }

    #[test]
    fn a_record_belongs_to_one_incarnation_of_a_service() {
        let owner = |uid: &str| Owner { service: "ns/name".to_owned(), uid: uid.to_owned() };
        assert!(owner("a").has_written(&owner("a").encode()));
        assert!(!owner("a").has_written(&owner("b").encode()));
        assert!(owner("a").has_written(br#"{"service":"ns/name","since":1}"#));
        assert!(!owner("a").has_written(br#"{"service":"ns/other","since":1}"#));
        assert!(!owner("a").has_written(b"?"));
        let address = Resource::Address("10.0.0.1".parse().unwrap());
        let record = address.record(&owner("a"), "2026-01-02T03:04:05Z".parse().unwrap());
        assert_eq!(Owner::decode(&record), owner("a"));
        let others = br#"{"metadata":{"name":"10.0.0.1"},"spec":{"parentRef":{"name":"n"}}}"#;
        assert!(Owner::decode(others).is_nobody());
    }
}
