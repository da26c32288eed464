//! The typed elements of the tables' maps, and their encoding.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::policy::{Direction, PolicyKey};
use crate::nft::{self, ElementData, Family, KeyEnd, Verdict};

/// A transport protocol of Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    /// The protocol with that name in an object; defaults to TCP. `None` for an unknown protocol.
    pub fn from_name(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|protocol| *protocol as u8 == number)
    }
}

/// The address and port that a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    pub ip: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

/// The address and port that a connection is directed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: IpAddr,
    pub port: u16,
}

/// The maps and sets of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Map {
    /// Frontend to load balancing chain.
    Services,
    /// Protocol and node port to load balancing chain.
    NodePorts,
    /// Like `Services` and `NodePorts`, for traffic from outside the cluster to external addresses
    /// of Services with `externalTrafficPolicy: Local`. Looked up first.
    ExternalLocal,
    ExternalLocalNodePorts,
    /// Frontends that reject connections.
    NoEndpoints,
    NoEndpointNodePorts,
    /// All cluster IPs: connections to one that match no frontend are rejected.
    ClusterIps,
    /// Frontend and slot to endpoint.
    Endpoints,
    /// Protocol, node port and slot to endpoint.
    NodePortEndpoints,
    /// The slots of clients of targets with session affinity; populated by the packet path.
    Affinity,
    NodePortAffinity,
    /// Pairs of equal addresses, one for each endpoint of this node: connections of an endpoint to
    /// itself.
    Hairpin,
    /// Frontend, or protocol and port on any of this node's addresses, to a pod of this node.
    HostPorts,
    AnyHostPorts,
    /// Frontends restricted to some sources, and those sources.
    Firewalled,
    Allowed,
    /// The addresses of all nodes.
    Nodes,
    /// The link of a pod to what its policies allow; see [`super::policy`].
    EgressLinks,
    IngressLinks,
    /// The links of isolated pods.
    IsolatedLinks,
    /// The peers of groups of pods, with the ports that they may use.
    Peers,
    PeerRanges,
    NamedPeers,
    PolicyPorts,
    /// Drops the packets of unknown pods, if there is any policy.
    Guard,
}

impl Map {
    pub const ALL: [Map; 25] = [
        Map::Services,
        Map::NodePorts,
        Map::ExternalLocal,
        Map::ExternalLocalNodePorts,
        Map::NoEndpoints,
        Map::NoEndpointNodePorts,
        Map::ClusterIps,
        Map::Endpoints,
        Map::NodePortEndpoints,
        Map::Affinity,
        Map::NodePortAffinity,
        Map::Hairpin,
        Map::HostPorts,
        Map::AnyHostPorts,
        Map::Firewalled,
        Map::Allowed,
        Map::Nodes,
        Map::EgressLinks,
        Map::IngressLinks,
        Map::IsolatedLinks,
        Map::Peers,
        Map::PeerRanges,
        Map::NamedPeers,
        Map::PolicyPorts,
        Map::Guard,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Map::Services => "services",
            Map::NodePorts => "node-ports",
            Map::ExternalLocal => "external-local",
            Map::ExternalLocalNodePorts => "external-local-node-ports",
            Map::NoEndpoints => "no-endpoints",
            Map::NoEndpointNodePorts => "no-endpoint-node-ports",
            Map::ClusterIps => "cluster-ips",
            Map::Endpoints => "endpoints",
            Map::NodePortEndpoints => "node-port-endpoints",
            Map::Affinity => "affinity",
            Map::NodePortAffinity => "node-port-affinity",
            Map::Hairpin => "hairpin",
            Map::HostPorts => "host-ports",
            Map::AnyHostPorts => "any-host-ports",
            Map::Firewalled => "firewalled",
            Map::Allowed => "allowed",
            Map::Nodes => "nodes",
            Map::EgressLinks => "egress-links",
            Map::IngressLinks => "ingress-links",
            Map::IsolatedLinks => "isolated-links",
            Map::Peers => "peers",
            Map::PeerRanges => "peer-ranges",
            Map::NamedPeers => "named-peers",
            Map::PolicyPorts => "policy-ports",
            Map::Guard => "guard",
        }
    }

    /// Whether its elements are intervals of whole keys.
    pub fn is_intervals(self) -> bool {
        matches!(self, Map::PeerRanges | Map::PolicyPorts)
    }

    /// Whether it is about NetworkPolicies.
    pub fn is_policy(self) -> bool {
        self >= Map::EgressLinks
    }

    /// Whether the packet path populates it.
    pub fn is_dynamic(self) -> bool {
        matches!(self, Map::Affinity | Map::NodePortAffinity)
    }
}

/// A frontend or node port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Frontend(Frontend),
    NodePort(Protocol, u16),
}

/// The key of an element, without its map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    Target(Target),
    /// The slot of an endpoint among the endpoints of a target.
    Slot(Target, u32),
    /// A client of a target, and its slot.
    Client(Target, u32, IpAddr),
    Address(IpAddr),
    Pair(IpAddr),
    Range(Frontend, IpNet),
    Policy(PolicyKey),
}

/// The data of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    None,
    Endpoint(Endpoint),
    Goto(Chain),
    Accept,
    Drop,
}

/// The source of the traffic of a load balancing chain, which determines its endpoints and
/// masquerading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// All endpoints; traffic from outside the cluster is masqueraded.
    Cluster,
    /// All endpoints; all traffic is masqueraded, since replies must return through this node.
    External,
    /// This node's endpoints; the client's address is kept.
    Local,
}

/// The chains that elements refer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Chain {
    Reject,
    Balance {
        source: Source,
        /// The number of endpoints, at least one.
        count: u32,
        /// The timeout of the session affinity.
        affinity_s: Option<u32>,
    },
    /// What a group of pods may do in a direction, with its id and number of port sets.
    Group(Direction, u32, u32),
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (source, count, affinity_s) = match self {
            Chain::Reject => return f.write_str("refuse"),
            Chain::Group(direction, id, sets) => return write!(f, "{direction}-{id:08x}-{sets}"),
            Chain::Balance { source, count, affinity_s } => (source, count, affinity_s),
        };
        let source = match source {
            Source::Cluster => "cluster",
            Source::External => "external",
            Source::Local => "local",
        };
        write!(f, "{source}-{count}")?;
        match affinity_s {
            Some(seconds) => write!(f, "-affinity-{seconds}"),
            None => Ok(()),
        }
    }
}

impl std::str::FromStr for Chain {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        if name == "refuse" {
            return Ok(Chain::Reject);
        }
        let mut parts = name.splitn(3, '-');
        let group = Direction::ALL.into_iter().find(|direction| {
            name.strip_prefix(&direction.to_string()).is_some_and(|rest| rest.starts_with('-'))
        });
        if let Some(direction) = group {
            let (id, sets) = (parts.nth(1).unwrap_or_default(), parts.next().unwrap_or_default());
            let id = u32::from_str_radix(id, 16).map_err(drop)?;
            return Ok(Chain::Group(direction, id, sets.parse().map_err(drop)?));
        }
        let source = match parts.next() {
            Some("cluster") => Source::Cluster,
            Some("external") => Source::External,
            Some("local") => Source::Local,
            _ => return Err(()),
        };
        let count = parts.next().and_then(|count| count.parse().ok()).ok_or(())?;
        let affinity_s = match parts.next() {
            Some(rest) => {
                let seconds = rest.strip_prefix("affinity-").ok_or(())?;
                Some(seconds.parse().map_err(drop)?)
            }
            None => None,
        };
        Ok(Chain::Balance { source, count, affinity_s })
    }
}

/// The first slot of the endpoints on this node, which are stored in addition to those of all
/// nodes.
pub const LOCAL_SLOTS: u32 = 1 << 16;

pub(super) fn push_ip(bytes: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => bytes.extend(ip.octets()),
        IpAddr::V6(ip) => bytes.extend(ip.octets()),
    }
}

/// Fields shorter than a register are padded.
pub(super) fn push_port(bytes: &mut Vec<u8>, port: u16) {
    bytes.extend(port.to_be_bytes());
    bytes.extend([0, 0]);
}

fn push_frontend(bytes: &mut Vec<u8>, frontend: &Frontend) {
    push_ip(bytes, frontend.ip);
    bytes.extend([frontend.protocol as u8, 0, 0, 0]);
    push_port(bytes, frontend.port);
}

fn push_target(bytes: &mut Vec<u8>, target: &Target) {
    match target {
        Target::Frontend(frontend) => push_frontend(bytes, frontend),
        Target::NodePort(protocol, port) => {
            bytes.extend([*protocol as u8, 0, 0, 0]);
            push_port(bytes, *port);
        }
    }
}

impl Key {
    /// The key in the kernel's encoding, and its end if it is a range.
    pub fn encode(&self) -> (Vec<u8>, KeyEnd) {
        let mut bytes = Vec::with_capacity(32);
        match self {
            Key::Target(target) => push_target(&mut bytes, target),
            Key::Slot(target, slot) => {
                push_target(&mut bytes, target);
                bytes.extend(slot.to_ne_bytes());
            }
            Key::Client(target, slot, ip) => {
                push_target(&mut bytes, target);
                bytes.extend(slot.to_ne_bytes());
                push_ip(&mut bytes, *ip);
            }
            Key::Address(ip) => push_ip(&mut bytes, *ip),
            Key::Pair(ip) => {
                push_ip(&mut bytes, *ip);
                push_ip(&mut bytes, *ip);
            }
            Key::Range(frontend, range) => {
                push_frontend(&mut bytes, frontend);
                let mut end = bytes.clone();
                push_ip(&mut bytes, range.network());
                push_ip(&mut end, range.broadcast());
                return (bytes, KeyEnd::Last(end));
            }
            Key::Policy(key) => return key.encode(),
        }
        (bytes, KeyEnd::None)
    }

    /// Decodes the key of an element of `map`; `None` if it does not have the format of that map.
    pub fn decode(map: Map, family: Family, element: &nft::Element) -> Option<Self> {
        if map.is_policy() {
            return PolicyKey::decode(map, family, element).map(Key::Policy);
        }
        let mut reader = Reader { bytes: &element.key, family };
        let key = match map {
            Map::Services
            | Map::ExternalLocal
            | Map::NoEndpoints
            | Map::HostPorts
            | Map::Firewalled => Key::Target(Target::Frontend(reader.frontend()?)),
            Map::NodePorts
            | Map::ExternalLocalNodePorts
            | Map::NoEndpointNodePorts
            | Map::AnyHostPorts => Key::Target(reader.node_port()?),
            Map::Endpoints => Key::Slot(Target::Frontend(reader.frontend()?), reader.slot()?),
            Map::NodePortEndpoints => Key::Slot(reader.node_port()?, reader.slot()?),
            Map::Affinity => {
                let target = Target::Frontend(reader.frontend()?);
                Key::Client(target, reader.slot()?, reader.ip()?)
            }
            Map::NodePortAffinity => Key::Client(reader.node_port()?, reader.slot()?, reader.ip()?),
            Map::ClusterIps | Map::Nodes => Key::Address(reader.ip()?),
            Map::Hairpin => {
                let ip = reader.ip()?;
                (reader.ip()? == ip).then_some(Key::Pair(ip))?
            }
            Map::Allowed => {
                let frontend = reader.frontend()?;
                let start = reader.ip()?;
                let bytes = element.key_end.as_deref()?;
                let mut end = Reader { bytes, family };
                (end.frontend()? == frontend).then_some(())?;
                let end = end.ip()?;
                Key::Range(frontend, range(start, end)?)
            }
            _ => return None,
        };
        reader.bytes.is_empty().then_some(key)
    }
}

/// The network that spans exactly this range.
fn range(start: IpAddr, end: IpAddr) -> Option<IpNet> {
    let bits = |ip| match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let ((start_bits, width), (end_bits, _)) = (bits(start), bits(end));
    let host_bits = 128 - (start_bits ^ end_bits).leading_zeros();
    let prefix_len = u8::try_from(width - host_bits).ok()?;
    IpNet::new(start, prefix_len).ok()
}

impl Data {
    /// The data in the kernel's encoding.
    pub fn encode(&self) -> ElementData {
        match self {
            Data::None => ElementData::None,
            Data::Endpoint(endpoint) => {
                let mut bytes = Vec::with_capacity(20);
                push_ip(&mut bytes, endpoint.ip);
                push_port(&mut bytes, endpoint.port);
                ElementData::Value(bytes)
            }
            Data::Goto(chain) => ElementData::Verdict(Verdict::Goto(chain.to_string())),
            Data::Accept => ElementData::Verdict(Verdict::Accept),
            Data::Drop => ElementData::Verdict(Verdict::Drop),
        }
    }

    /// The chain that it refers to.
    pub fn chain(&self) -> Option<Chain> {
        match self {
            Data::Goto(chain) => Some(*chain),
            _ => None,
        }
    }

    /// Decodes the data of an element; `None` if it is not ours.
    pub fn decode(family: Family, data: &nft::Data) -> Option<Self> {
        const GOTO: i32 = -4;
        const DROP: i32 = 0;
        const ACCEPT: i32 = 1;
        match data {
            nft::Data::Value(bytes) => Some(Data::Endpoint(Reader { bytes, family }.endpoint()?)),
            nft::Data::Verdict(GOTO, Some(chain)) => Some(Data::Goto(chain.parse().ok()?)),
            nft::Data::Verdict(DROP, None) => Some(Data::Drop),
            nft::Data::Verdict(ACCEPT, None) => Some(Data::Accept),
            nft::Data::None => Some(Data::None),
            _ => None,
        }
    }
}

pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) family: Family,
}

impl Reader<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*first)
    }

    pub(super) fn ip(&mut self) -> Option<IpAddr> {
        Some(match self.family {
            Family::V4 => Ipv4Addr::from(self.take::<4>()?).into(),
            Family::V6 => Ipv6Addr::from(self.take::<16>()?).into(),
        })
    }

    pub(super) fn protocol(&mut self) -> Option<Protocol> {
        let [number, _, _, _] = self.take()?;
        Protocol::from_number(number)
    }

    /// Keys include the padding, but the kernel omits it at the end of data.
    pub(super) fn port(&mut self) -> Option<u16> {
        let port = u16::from_be_bytes(self.take()?);
        self.bytes = self.bytes.get(2..).unwrap_or_default();
        Some(port)
    }

    fn slot(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.take()?))
    }

    fn node_port(&mut self) -> Option<Target> {
        Some(Target::NodePort(self.protocol()?, self.port()?))
    }

    fn frontend(&mut self) -> Option<Frontend> {
        Some(Frontend { ip: self.ip()?, protocol: self.protocol()?, port: self.port()? })
    }

    fn endpoint(&mut self) -> Option<Endpoint> {
        Some(Endpoint { ip: self.ip()?, port: self.port()? })
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::{Entry, LinkName};
    use super::*;

    #[test]
    fn keys_and_chains_survive_the_round_trip() {
        let frontend =
            Frontend { ip: "10.96.0.1".parse().unwrap(), protocol: Protocol::Udp, port: 53 };
        let endpoint = "10.244.0.2".parse().unwrap();
        let entry = Entry { group: 0x7fff_ffff, ports: 0xff };
        let (first, last) = ("0.0.0.0".parse().unwrap(), "255.255.255.255".parse().unwrap());
        let target = Target::Frontend(frontend);
        let node_port = Target::NodePort(Protocol::Sctp, 30_000);
        let keys = [
            (Map::Services, Key::Target(target)),
            (Map::NodePorts, Key::Target(node_port)),
            (Map::Endpoints, Key::Slot(target, 9)),
            (Map::NodePortEndpoints, Key::Slot(node_port, LOCAL_SLOTS)),
            (Map::Affinity, Key::Client(target, 7, endpoint)),
            (Map::NodePortAffinity, Key::Client(node_port, 7, endpoint)),
            (Map::ClusterIps, Key::Address(endpoint)),
            (Map::Nodes, Key::Address(endpoint)),
            (Map::Hairpin, Key::Pair(endpoint)),
            (Map::Allowed, Key::Range(frontend, "10.0.0.0/9".parse().unwrap())),
            (Map::Allowed, Key::Range(frontend, "10.0.0.1/32".parse().unwrap())),
            (Map::Allowed, Key::Range(frontend, "0.0.0.0/0".parse().unwrap())),
            (Map::EgressLinks, Key::Policy(PolicyKey::Link(LinkName::new("veth0123456789a")))),
            (Map::Guard, Key::Policy(PolicyKey::Guard(Family::V4))),
            (Map::Peers, Key::Policy(PolicyKey::Peer(entry, endpoint))),
            (Map::PeerRanges, Key::Policy(PolicyKey::Range(entry, endpoint, endpoint))),
            (Map::PeerRanges, Key::Policy(PolicyKey::Range(entry, first, last))),
            (Map::NamedPeers, Key::Policy(PolicyKey::Named(7, endpoint, Protocol::Udp, 53))),
            (Map::PolicyPorts, Key::Policy(PolicyKey::Ports(entry, Protocol::Tcp, 1, 65_535))),
            (Map::PolicyPorts, Key::Policy(PolicyKey::Ports(entry, Protocol::Sctp, 255, 256))),
        ];
        for (map, key) in keys {
            let (bytes, key_end) = key.encode();
            let key_end = match key_end {
                KeyEnd::None => None,
                KeyEnd::Last(end) | KeyEnd::After(end) => Some(end),
            };
            let element = nft::Element {
                key: bytes,
                key_end,
                data: nft::Data::None,
                timing: Default::default(),
            };
            assert_eq!(Key::decode(map, Family::V4, &element), Some(key), "{map:?}");
        }
        for affinity_s in [None, Some(10_800)] {
            for source in [Source::Cluster, Source::External, Source::Local] {
                let chain = Chain::Balance { source, count: 3, affinity_s };
                assert_eq!(chain.to_string().parse(), Ok(chain));
            }
        }
        for chain in [
            Chain::Group(Direction::Egress, 7, 0),
            Chain::Group(Direction::Ingress, 0x7fff_ffff, 12),
        ] {
            assert_eq!(chain.to_string().parse(), Ok(chain));
        }
        for name in ["prerouting", "policy-ingress", "ingress-x-1", "egress-7", "egress-7-"] {
            assert_eq!(name.parse::<Chain>(), Err(()));
        }
    }
}
