//! What a Service asks for, and why it does not get it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;

use crate::config::AddressSource;
use crate::machinery::cache::Key;
use crate::machinery::owner::uid;

/// Whose addresses a Service gets: `pool` or `nodes`; the default is a flag.
pub const SOURCE_ANNOTATION: &str = "skiff.dev/load-balancer-addresses";
/// The addresses that a Service asks for, separated by commas, at most one of each family. It
/// takes precedence over `spec.loadBalancerIP`, which has room for one.
pub const ADDRESSES_ANNOTATION: &str = "skiff.dev/load-balancer-ips";
/// Services with the same value may share an address, if their ports differ.
pub const SHARING_ANNOTATION: &str = "skiff.dev/allow-shared-ip";

/// What a Service asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub uid: String,
    pub source: AddressSource,
    /// Its families in order; true for IPv4.
    pub families_v4: Vec<bool>,
    /// The addresses that it wants, if it cares.
    pub requested: Vec<IpAddr>,
    pub terms: Terms,
}

/// What decides whether two Services can have the same address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Protocol and port.
    pub ports: Vec<(String, i32)>,
    /// The value of the annotation.
    pub sharing: Option<String>,
    /// The selector with `externalTrafficPolicy: Local`. One node announces an address, so the
    /// Services behind it must have their endpoints on the same nodes.
    pub local_selector: Option<BTreeMap<String, String>>,
}

impl Terms {
    /// A port that both have.
    pub fn common_port(&self, other: &Self) -> Option<(String, i32)> {
        self.ports.iter().find(|port| other.ports.contains(port)).cloned()
    }

    pub fn may_share(&self, other: &Self) -> bool {
        self.sharing.is_some()
            && self.sharing == other.sharing
            && self.local_selector == other.local_selector
            && self.common_port(other).is_none()
    }
}

/// Why a Service gets no address. Displayed in its events and its condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no address is left in {0}")]
    Exhausted(String),
    #[error("the pool has no addresses of the Service's IP families")]
    NoRange,
    #[error("the requested address {0} is not in the pool")]
    NotInPool(IpAddr),
    #[error("the address {0} is in use by Service {1}")]
    InUse(IpAddr, Key),
    #[error("the address {0} is a node's own")]
    OfNode(IpAddr),
    #[error("port {1}/{0} of the nodes is in use by Service {2}")]
    PortInUse(String, i32, Key),
    #[error("there are no available nodes")]
    NoNodes,
    #[error("{0}: {1:?} {2}")]
    Invalid(&'static str, String, &'static str),
}

impl Refusal {
    /// The reason of the condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Exhausted(_) => "AddressPoolExhausted",
            Self::NoRange | Self::NotInPool(_) => "AddressNotInPool",
            Self::InUse(..) | Self::OfNode(_) | Self::PortInUse(..) => "AddressInUse",
            Self::NoNodes => "NoAvailableNodes",
            Self::Invalid(..) => "InvalidRequest",
        }
    }
}

impl Request {
    /// # Errors
    /// If an annotation or the address is invalid.
    pub fn of(service: &Service, default: AddressSource) -> Result<Self, Refusal> {
        let source = match annotation(service, SOURCE_ANNOTATION) {
            None => default,
            Some("pool") => AddressSource::Pool,
            Some("nodes") => AddressSource::Nodes,
            Some(other) => {
                let valid = "must be \"pool\" or \"nodes\"";
                return Err(Refusal::Invalid(SOURCE_ANNOTATION, other.to_owned(), valid));
            }
        };
        let spec = service.spec.clone().unwrap_or_default();
        let families = spec.ip_families.unwrap_or_default();
        let ports = spec.ports.iter().flatten();
        let port = |port: &k8s_openapi::api::core::v1::ServicePort| {
            (port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), port.port)
        };
        let sharing = annotation(service, SHARING_ANNOTATION);
        let local = spec.external_traffic_policy.as_deref() == Some("Local");
        Ok(Self {
            uid: uid(&service.metadata).to_owned(),
            source,
            families_v4: families.iter().map(|family| family == "IPv4").collect(),
            requested: requested(service)?,
            terms: Terms {
                ports: ports.map(port).collect(),
                sharing: sharing.map(str::to_owned),
                local_selector: local.then(|| spec.selector.unwrap_or_default()),
            },
        })
    }
}

fn requested(service: &Service) -> Result<Vec<IpAddr>, Refusal> {
    let field = service.spec.as_ref().and_then(|spec| spec.load_balancer_ip.as_deref());
    let (name, text) = match annotation(service, ADDRESSES_ANNOTATION) {
        Some(text) => (ADDRESSES_ANNOTATION, text),
        None => ("spec.loadBalancerIP", field.unwrap_or_default()),
    };
    let invalid = |text: &str, why| Refusal::Invalid(name, text.to_owned(), why);
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let parse = |part: &str| part.parse().map_err(|_| invalid(part, "is not an IP address"));
    let addresses: Vec<IpAddr> = parts.map(parse).collect::<Result<_, _>>()?;
    for v4 in [true, false] {
        if addresses.iter().filter(|ip| ip.is_ipv4() == v4).count() > 1 {
            return Err(invalid(text, "has more than one address of a family"));
        }
    }
    Ok(addresses)
}

fn annotation<'a>(service: &'a Service, name: &str) -> Option<&'a str> {
    let value = service.metadata.annotations.as_ref()?.get(name)?;
    Some(value.as_str()).filter(|value| !value.is_empty())
}
