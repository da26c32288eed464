//! The elements of the table's maps: typed, with their form in the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::nft::{self, ElementData, Family, Verdict};

/// A transport protocol that Services can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    /// The protocol of that name in an object; missing means TCP. None if there is no such
    /// protocol.
    pub fn from_name(name: Option<&str>) -> Option<Self> {
        match name.unwrap_or("TCP") {
            "TCP" => Some(Protocol::Tcp),
            "UDP" => Some(Protocol::Udp),
            "SCTP" => Some(Protocol::Sctp),
            _ => None,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|protocol| *protocol as u8 == number)
    }
}

/// What a client connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frontend {
    pub ip: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

/// Where a connection ends up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    pub ip: IpAddr,
    pub port: u16,
}

/// The maps and sets of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Map {
    /// Frontend to balancing chain.
    Services,
    /// Protocol and node port to balancing chain.
    NodePorts,
    /// The same as `Services` and `NodePorts`, for traffic from outside the cluster to external
    /// addresses of Services with `externalTrafficPolicy: Local`. Asked first.
    ExternalLocal,
    ExternalLocalNodePorts,
    /// Frontends that refuse connections.
    NoEndpoints,
    NoEndpointNodePorts,
    /// All cluster IPs: what is addressed to one and is no frontend is refused.
    ClusterIps,
    /// Frontend and slot to endpoint.
    Endpoints,
    /// Protocol, node port and slot to endpoint.
    NodePortEndpoints,
    /// Which slots the clients of targets with session affinity talk to; filled by the packet path.
    Affinity,
    NodePortAffinity,
    /// Addresses of this node's endpoints, twice: a connection of one to itself.
    Hairpin,
    /// Frontend, or protocol and port at any of this node's addresses, to a pod of this node.
    HostPorts,
    AnyHostPorts,
    /// Frontends that only some sources may use, and those sources.
    Firewalled,
    Allowed,
}

impl Map {
    pub const ALL: [Map; 16] = [
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
        }
    }

    /// Whether the packet path fills it.
    pub fn is_dynamic(self) -> bool {
        matches!(self, Map::Affinity | Map::NodePortAffinity)
    }
}

/// What a client connects to, as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Frontend(Frontend),
    NodePort(Protocol, u16),
}

/// The key of an element, without its map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    Target(Target),
    /// An endpoint's id among the endpoints of a target.
    Slot(Target, u32),
    /// A client of a target, and its slot.
    Client(Target, u32, IpAddr),
    Address(IpAddr),
    Pair(IpAddr),
    Range(Frontend, IpNet),
}

/// The data of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    None,
    Endpoint(Endpoint),
    Goto(Chain),
    Drop,
}

/// Where the traffic of a balancing chain comes from, which decides what is masqueraded and which
/// endpoints it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// All endpoints; what comes from outside the cluster is masqueraded.
    Cluster,
    /// All endpoints; everything is masqueraded, since the answer must come back through this node.
    External,
    /// This node's endpoints; the client's address is kept.
    Local,
}

/// The chains that elements lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Chain {
    Reject,
    Balance {
        source: Source,
        /// How many endpoints there are, at least one.
        count: u32,
        /// The session affinity's timeout.
        affinity_s: Option<u32>,
    },
}

impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Chain::Balance { source, count, affinity_s } = self else {
            return f.write_str("refuse");
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

/// The first slot of the endpoints on this node, which are kept beside those of all nodes.
pub const LOCAL_SLOTS: u32 = 1 << 16;

fn push_ip(bytes: &mut Vec<u8>, ip: IpAddr) {
    match ip {
        IpAddr::V4(ip) => bytes.extend(ip.octets()),
        IpAddr::V6(ip) => bytes.extend(ip.octets()),
    }
}

/// Fields shorter than a register are padded to it.
fn push_port(bytes: &mut Vec<u8>, port: u16) {
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
    /// The key as the kernel has it, and the end of its range if it is one.
    pub fn encode(&self) -> (Vec<u8>, Option<Vec<u8>>) {
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
                return (bytes, Some(end));
            }
        }
        (bytes, None)
    }

    /// The key of an element that was found in `map`; none if it is not of that map's form.
    pub fn decode(map: Map, family: Family, element: &nft::Element) -> Option<Self> {
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
            Map::ClusterIps => Key::Address(reader.ip()?),
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
        };
        reader.bytes.is_empty().then_some(key)
    }
}

/// The one network that starts and ends there.
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
    /// As the kernel has it.
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
            Data::Drop => ElementData::Verdict(Verdict::Drop),
        }
    }

    /// The data of an element that was found; none if it is not ours.
    pub fn decode(family: Family, data: &nft::Data) -> Option<Self> {
        const GOTO: i32 = -4;
        const DROP: i32 = 0;
        match data {
            nft::Data::Value(bytes) => Some(Data::Endpoint(Reader { bytes, family }.endpoint()?)),
            nft::Data::Verdict(GOTO, Some(chain)) => Some(Data::Goto(chain.parse().ok()?)),
            nft::Data::Verdict(DROP, None) => Some(Data::Drop),
            nft::Data::None => Some(Data::None),
            _ => None,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    family: Family,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.bytes.split_first_chunk::<N>()?;
        self.bytes = rest;
        Some(*first)
    }

    fn ip(&mut self) -> Option<IpAddr> {
        Some(match self.family {
            Family::V4 => Ipv4Addr::from(self.take::<4>()?).into(),
            Family::V6 => Ipv6Addr::from(self.take::<16>()?).into(),
        })
    }

    fn protocol(&mut self) -> Option<Protocol> {
        let [number, _, _, _] = self.take()?;
        Protocol::from_number(number)
    }

    /// The padding is there in keys, but the kernel leaves it off at the end of data.
    fn port(&mut self) -> Option<u16> {
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
    use super::*;

    #[test]
    fn keys_and_chains_survive_the_kernel() {
        let frontend =
            Frontend { ip: "10.96.0.1".parse().unwrap(), protocol: Protocol::Udp, port: 53 };
        let endpoint = "10.244.0.2".parse().unwrap();
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
            (Map::Hairpin, Key::Pair(endpoint)),
            (Map::Allowed, Key::Range(frontend, "10.0.0.0/9".parse().unwrap())),
            (Map::Allowed, Key::Range(frontend, "10.0.0.1/32".parse().unwrap())),
            (Map::Allowed, Key::Range(frontend, "0.0.0.0/0".parse().unwrap())),
        ];
        for (map, key) in keys {
            let (bytes, key_end) = key.encode();
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
        assert_eq!("prerouting".parse::<Chain>(), Err(()));
    }
}
