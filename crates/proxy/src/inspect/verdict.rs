//! What the policies in this node's tables say about a connection, judged by the elements that the
//! kernel has, in the order of the rules ([`crate::table`], `policy`).

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde::Serialize;

use crate::nft::{self, Family, NftError, Socket};
use crate::table::{Chain, Data, Direction, Entry, Key, LinkName, Map, PolicyKey, Protocol, TABLE};

/// A connection as the policies see it: after the translation of its destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

/// What happens to it here; a direction is judged on the node of that pod.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    source: IpAddr,
    destination: IpAddr,
    protocol: String,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    egress: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<&'static str>,
}

const OPEN: &str = "allowed: no policy isolates the pod";
const ITSELF: &str = "allowed: a pod may always connect to itself";
const ALLOWED: &str = "allowed by a policy";
const DENIED: &str = "denied: no policy allows it";
const UNKNOWN: &str = "denied: the proxy does not know the pod yet";

impl Connection {
    /// Parses `10.244.1.7-10.244.0.1-TCP-8080`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut next = || parts.next();
        let (source, destination) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let protocol = Protocol::from_name(Some(next()?))?;
        let connection = Self { source, destination, protocol, port: next()?.parse().ok()? };
        (next().is_none() && connection.source.is_ipv4() == connection.destination.is_ipv4())
            .then_some(connection)
    }
}

/// The maps of policies of one family.
struct Policies(HashMap<(Map, PolicyKey), Data>);

/// Judges connections of one family. `links`: those of this node's pods.
///
/// # Errors
/// When the kernel does not list the elements.
pub(super) fn judge(
    socket: &mut Socket,
    family: Family,
    connections: &[Connection],
    links: &BTreeMap<IpAddr, String>,
) -> Result<Vec<Verdict>, NftError> {
    if connections.is_empty() {
        return Ok(Vec::new());
    }
    let policies = Policies::read(socket, family)?;
    let judged = connections.iter().map(|connection| {
        let way = |direction, own: &IpAddr, other: &IpAddr| {
            let link = LinkName::new(links.get(own)?);
            Some(policies.way(family, direction, link, *other, connection))
        };
        let (source, destination) = (&connection.source, &connection.destination);
        Verdict {
            source: *source,
            destination: *destination,
            protocol: format!("{:?}", connection.protocol).to_uppercase(),
            port: connection.port,
            egress: way(Direction::Egress, source, destination),
            ingress: way(Direction::Ingress, destination, source),
        }
    });
    Ok(judged.collect())
}

impl Policies {
    fn read(socket: &mut Socket, family: Family) -> Result<Self, NftError> {
        let mut all = HashMap::new();
        for map in Map::ALL.into_iter().filter(|map| map.is_policy()) {
            let found = match map.is_intervals() {
                false => nft::elements(socket, family, TABLE, map.name())?,
                true => nft::intervals(socket, family, TABLE, map.name())?.unwrap_or_default(),
            };
            for element in found {
                let key = Key::decode(map, family, &element);
                let data = Data::decode(family, &element.data);
                if let (Some(Key::Policy(key)), Some(data)) = (key, data) {
                    all.insert((map, key), data);
                }
            }
        }
        Ok(Self(all))
    }

    /// The verdict of the chain of one direction about the pod at `link`.
    fn way(
        &self,
        family: Family,
        direction: Direction,
        link: LinkName,
        other: IpAddr,
        connection: &Connection,
    ) -> &'static str {
        if connection.source == connection.destination {
            return ITSELF;
        }
        match self.0.get(&(direction.links(), PolicyKey::Link(link))) {
            Some(Data::Goto(Chain::Group(_, id, sets))) => {
                match self.group(direction, *id, *sets, other, connection) {
                    true => ALLOWED,
                    false => DENIED,
                }
            }
            Some(_) => OPEN,
            None if self.0.contains_key(&(Map::Guard, PolicyKey::Guard(family))) => UNKNOWN,
            None => OPEN,
        }
    }

    fn group(
        &self,
        direction: Direction,
        id: u32,
        sets: u32,
        other: IpAddr,
        connection: &Connection,
    ) -> bool {
        let named = PolicyKey::Named(id, other, connection.protocol, connection.port);
        let by_name =
            direction == Direction::Egress && self.0.contains_key(&(Map::NamedPeers, named));
        by_name
            || (0..=sets).any(|ports| {
                let entry = Entry { group: id, ports };
                self.has_peer(entry, other) && (ports == 0 || self.has_port(entry, connection))
            })
    }

    fn has_peer(&self, entry: Entry, ip: IpAddr) -> bool {
        let within = |key: &PolicyKey| {
            matches!(key, PolicyKey::Range(of, first, last)
                if *of == entry && *first <= ip && ip <= *last)
        };
        self.0.contains_key(&(Map::Peers, PolicyKey::Peer(entry, ip)))
            || self.0.keys().any(|(map, key)| *map == Map::PeerRanges && within(key))
    }

    fn has_port(&self, entry: Entry, connection: &Connection) -> bool {
        let Connection { protocol, port, .. } = *connection;
        self.0.keys().any(|(_, key)| {
            matches!(key, PolicyKey::Ports(of, own, first, last)
                if *of == entry && *own == protocol && (*first..=*last).contains(&port))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(text: &str) -> Connection {
        Connection::parse(text).unwrap()
    }

    #[test]
    fn connections_are_parsed_whole() {
        let found = connection("10.244.1.7-10.244.0.1-UDP-53");
        assert_eq!((found.protocol, found.port), (Protocol::Udp, 53));
        assert!(Connection::parse("fd00::1-fd00::2-TCP-80").is_some());
        for bad in [
            "",
            "10.0.0.1",
            "10.0.0.1-fd00::1-TCP-80",
            "10.0.0.1-10.0.0.2-ICMP-1",
            "10.0.0.1-10.0.0.2-TCP-80-x",
        ] {
            assert!(Connection::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_connection_passes_as_the_rules_would_let_it() {
        let (own, other, range) = (LinkName::new("veth1"), "10.244.0.1", "10.1.0.0");
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let entry = |ports| Entry { group: 7, ports };
        let mut policies = Policies(HashMap::new());
        let way = |policies: &Policies, direction, peer: &str, text: &str| {
            policies.way(Family::V4, direction, own, ip(peer), &connection(text))
        };
        let tcp = |port: u16| format!("10.244.0.9-10.244.0.1-TCP-{port}");
        assert_eq!(way(&policies, Direction::Egress, other, &tcp(80)), OPEN);
        policies.0.insert((Map::Guard, PolicyKey::Guard(Family::V4)), Data::Drop);
        assert_eq!(way(&policies, Direction::Egress, other, &tcp(80)), UNKNOWN);
        let chain = |direction| Data::Goto(Chain::Group(direction, 7, 1));
        for direction in Direction::ALL {
            policies.0.insert((direction.links(), PolicyKey::Link(own)), chain(direction));
        }
        assert_eq!(way(&policies, Direction::Egress, other, &tcp(80)), DENIED);
        policies.0.insert((Map::Peers, PolicyKey::Peer(entry(1), ip(other))), Data::None);
        assert_eq!(way(&policies, Direction::Egress, other, &tcp(80)), DENIED, "no port");
        let ports = PolicyKey::Ports(entry(1), Protocol::Tcp, 80, 90);
        policies.0.insert((Map::PolicyPorts, ports), Data::None);
        assert_eq!(way(&policies, Direction::Egress, other, &tcp(90)), ALLOWED);
        assert_eq!(way(&policies, Direction::Egress, other, &tcp(91)), DENIED);
        let block = PolicyKey::Range(entry(0), ip(range), ip("10.1.0.255"));
        policies.0.insert((Map::PeerRanges, block), Data::None);
        assert_eq!(way(&policies, Direction::Ingress, "10.1.0.7", &tcp(1)), ALLOWED);
        assert_eq!(way(&policies, Direction::Ingress, "10.1.1.0", &tcp(1)), DENIED);
        let named = PolicyKey::Named(7, ip(range), Protocol::Tcp, 5);
        policies.0.insert((Map::NamedPeers, named), Data::None);
        assert_eq!(way(&policies, Direction::Egress, range, &tcp(5)), ALLOWED);
        let itself = "10.244.0.9-10.244.0.9-TCP-1";
        assert_eq!(way(&policies, Direction::Egress, "10.244.0.9", itself), ITSELF);
    }
}
