//! NetworkPolicies in the tables: sets, chains and rules.
//!
//! Two chains of the forward hook, which only sees the traffic of pods, after the translation of
//! destinations and before that of sources; what a pod exchanges with its own node passes other
//! hooks and is always allowed. `policy-egress` finds the pod by its link (`egress-links`); a pod
//! that is isolated in that direction has the chain of its group, the pods with the same policies.
//! For each set of ports that the rules of the group have, it looks up the other address among the
//! peers (`peers` for pods, `peer-ranges` for address ranges), and protocol and port in the set
//! (`policy-ports`). `policy-ingress` does the same for the receiving pod. While there are policies,
//! `guard` closes the links of pods that are not known yet.
//!
//! What a connection costs thus depends on the number of different sets of ports of a pod's
//! policies, not on the number of policies, rules or peers, and packets of established connections
//! pass with the first rule. Peers and ports have no verdicts: the kernel checks the whole table
//! for loops whenever an element that refers to a chain is added.

use std::fmt;
use std::net::IpAddr;

use super::element::{Chain, Map, Protocol, Reader, push_ip, push_port};
use super::layout::{FIRST, KEY, Layout, Rule, and, from_pods, in_set, verdict_map};
use crate::nft::{
    self, BaseChain, ChainKind, Expr, Family, Hook, KeyEnd, Reg, Set, SetData, Verdict,
};

const CONNTRACK_ESTABLISHED: u32 = 2;
const CONNTRACK_RELATED: u32 = 4;
const TCP_SYN: u8 = 2;
/// `NF_IP_PRI_FILTER`, and directly after it.
const EGRESS_PRIORITY: i32 = 0;
const INGRESS_PRIORITY: i32 = 1;
/// `IFNAMSIZ`.
const LINK_NAME_LEN: usize = 16;
const LINK_NAME_BYTES: u32 = 16;
/// nft's type `ifname`.
const INTERFACE_NAME: u32 = 41;

/// One chain of each kind.
pub(super) const EXAMPLES: [Chain; 2] =
    [Chain::Group(Direction::Egress, 0, 1), Chain::Group(Direction::Ingress, 0, 1)];

/// The peers of a group that may use a set of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entry {
    pub group: u32,
    /// The number of the set of ports in the group, from 1; 0 for all ports of all protocols.
    pub ports: u32,
}

/// The direction of a connection as seen by a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub const ALL: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    /// The map from the link of a pod to what it may do in this direction.
    pub fn links(self) -> Map {
        match self {
            Direction::Ingress => Map::IngressLinks,
            Direction::Egress => Map::EgressLinks,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        })
    }
}

/// The name of the node's end of a pod's link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkName([u8; LINK_NAME_LEN]);

impl LinkName {
    /// Longer names, which no link can have, are truncated.
    pub fn new(name: &str) -> Self {
        let mut bytes = [0; LINK_NAME_LEN];
        let length = name.len().min(LINK_NAME_LEN - 1);
        bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
        Self(bytes)
    }
}

impl fmt::Debug for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(String::from_utf8_lossy(&self.0).trim_end_matches('\0'))
    }
}

/// The key of an element of the sets for policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKey {
    Link(LinkName),
    /// The only element of the guard.
    Guard(Family),
    /// The address of a peer.
    Peer(Entry, IpAddr),
    /// The first and last address of a range of peers.
    Range(Entry, IpAddr, IpAddr),
    /// The group, a peer, and a port of that peer.
    Named(u32, IpAddr, Protocol, u16),
    /// A protocol, and its first and last port.
    Ports(Entry, Protocol, u16, u16),
}

impl PolicyKey {
    /// The key in the kernel's encoding, and its end if it is a range.
    pub(super) fn encode(&self) -> (Vec<u8>, KeyEnd) {
        let start = |entry: Entry| [entry.group.to_be_bytes(), entry.ports.to_be_bytes()].concat();
        let peer = |entry, ip| {
            let mut bytes = start(entry);
            push_ip(&mut bytes, ip);
            bytes
        };
        let push = |mut bytes: Vec<u8>, protocol: Protocol, port| {
            bytes.extend([protocol as u8, 0, 0, 0]);
            push_port(&mut bytes, port);
            bytes
        };
        match *self {
            PolicyKey::Link(name) => (name.0.to_vec(), KeyEnd::None),
            PolicyKey::Guard(family) => (ether_type(family).to_vec(), KeyEnd::None),
            PolicyKey::Peer(entry, ip) => (peer(entry, ip), KeyEnd::None),
            PolicyKey::Range(entry, first, last) => {
                (peer(entry, first), KeyEnd::After(successor(peer(entry, last))))
            }
            PolicyKey::Named(group, ip, protocol, port) => {
                let mut bytes = group.to_be_bytes().to_vec();
                push_ip(&mut bytes, ip);
                (push(bytes, protocol, port), KeyEnd::None)
            }
            PolicyKey::Ports(entry, protocol, first, last) => {
                let after = successor(push(start(entry), protocol, last));
                (push(start(entry), protocol, first), KeyEnd::After(after))
            }
        }
    }

    /// Decodes the key of an element of `map`; `None` if it does not have the format of that map.
    pub(super) fn decode(map: Map, family: Family, element: &nft::Element) -> Option<Self> {
        let last = element.key_end.clone().map(predecessor);
        let mut reader = Reader { bytes: &element.key, family };
        let mut last = last.as_deref().map(|bytes| Reader { bytes, family });
        let number = |reader: &mut Reader<'_>| Some(u32::from_be_bytes(reader.take()?));
        let entry = |reader: &mut Reader<'_>| {
            Some(Entry { group: number(reader)?, ports: number(reader)? })
        };
        let key = match map {
            Map::EgressLinks | Map::IngressLinks | Map::IsolatedLinks => {
                PolicyKey::Link(LinkName(reader.take()?))
            }
            Map::Guard => {
                (reader.take()? == ether_type(family)).then_some(PolicyKey::Guard(family))?
            }
            Map::Peers => PolicyKey::Peer(entry(&mut reader)?, reader.ip()?),
            Map::PeerRanges => {
                let last = last.as_mut()?;
                let (start, first) = (entry(&mut reader)?, reader.ip()?);
                (entry(last)? == start).then_some(PolicyKey::Range(start, first, last.ip()?))?
            }
            Map::NamedPeers => {
                let (group, ip) = (number(&mut reader)?, reader.ip()?);
                PolicyKey::Named(group, ip, reader.protocol()?, reader.port()?)
            }
            Map::PolicyPorts => {
                let last = last.as_mut()?;
                let (start, protocol) = (entry(&mut reader)?, reader.protocol()?);
                let same = entry(last)? == start && last.protocol()? == protocol;
                let (first, last) = (reader.port()?, last.port()?);
                same.then_some(PolicyKey::Ports(start, protocol, first, last))?
            }
            _ => return None,
        };
        reader.bytes.is_empty().then_some(key)
    }
}

/// The next key in byte order. There is one: ids of groups are less than `1 << 31`.
fn successor(mut bytes: Vec<u8>) -> Vec<u8> {
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    bytes
}

fn predecessor(mut bytes: Vec<u8>) -> Vec<u8> {
    for byte in bytes.iter_mut().rev() {
        *byte = byte.wrapping_sub(1);
        if *byte != u8::MAX {
            break;
        }
    }
    bytes
}

fn ether_type(family: Family) -> [u8; 2] {
    match family {
        Family::V4 => [0x08, 0x00],
        Family::V6 => [0x86, 0xdd],
    }
}

/// The definition of a set for policies. `ip` is nft's type of addresses, `ip_len` their length.
pub(super) fn set(map: Map, ip: u32, ip_len: u32) -> Set {
    // nft's types: integer 4, ethertype 10, inet_proto 12, inet_service 13, mark 19. It cannot
    // display intervals of concatenated keys.
    let (key_type, key_len) = match map {
        Map::Guard => (10, 2),
        Map::Peers => (19 << 12 | 19 << 6 | ip, 8 + ip_len),
        Map::NamedPeers => (19 << 18 | ip << 12 | 12 << 6 | 13, 12 + ip_len),
        Map::PeerRanges => (4, 8 + ip_len),
        Map::PolicyPorts => (4, 16),
        _ => (INTERFACE_NAME, LINK_NAME_BYTES),
    };
    let data = match map {
        Map::EgressLinks | Map::IngressLinks | Map::Guard => SetData::Verdict,
        _ => SetData::None,
    };
    let (ranges, intervals) = (Vec::new(), map.is_intervals());
    let text = key_type == INTERFACE_NAME;
    Set { name: map.name(), key_type, key_len, data, dynamic: false, ranges, intervals, text }
}

/// Loads a constant.
fn number(reg: u8, value: u32) -> Expr {
    Expr::Value(Reg(reg), value.to_be_bytes().to_vec())
}

impl Layout {
    pub(super) fn policy_chains(&self) -> [(&'static str, Option<BaseChain>, Vec<Rule>); 2] {
        let base =
            |priority| Some(BaseChain { kind: ChainKind::Filter, hook: Hook::Forward, priority });
        let rules = |direction| self.policy(direction);
        [
            ("policy-egress", base(EGRESS_PRIORITY), rules(Direction::Egress)),
            ("policy-ingress", base(INGRESS_PRIORITY), rules(Direction::Ingress)),
        ]
    }

    fn policy(&self, direction: Direction) -> Vec<Rule> {
        let accept = || Expr::Verdict(Verdict::Accept);
        let (link, from_or_to_pods) = match direction {
            Direction::Egress => (Expr::InputInterfaceName(FIRST), from_pods()),
            Direction::Ingress => (
                Expr::OutputInterfaceName(FIRST),
                vec![Expr::OutputInterfaceName(FIRST), Expr::Equal(FIRST, b"veth".to_vec())],
            ),
        };
        let reply = and(FIRST, CONNTRACK_ESTABLISHED | CONNTRACK_RELATED);
        // A connection that was cut must not be resumed by either end.
        let resumed = vec![
            link.clone(),
            in_set(Map::IsolatedLinks, FIRST),
            Expr::Protocol(FIRST),
            Expr::Equal(FIRST, vec![Protocol::Tcp as u8]),
            Expr::TcpFlags(FIRST),
            Expr::Bitwise { reg: FIRST, mask: vec![TCP_SYN], xor: vec![0] },
            Expr::Equal(FIRST, vec![0]),
            Expr::Verdict(Verdict::Drop),
        ];
        // A pod cannot be denied access to itself, not even through a Service.
        let to_itself = vec![
            Expr::SourceAddress(self.family, FIRST),
            Expr::DestinationAddress(self.family, self.after(FIRST)),
            in_set(Map::Hairpin, FIRST),
            accept(),
        ];
        let guard = vec![Expr::NetworkProtocol(FIRST), verdict_map(Map::Guard, FIRST)];
        vec![
            vec![Expr::ConntrackState(FIRST), reply, Expr::NotEqual(FIRST, vec![0; 4]), accept()],
            resumed,
            to_itself,
            vec![link, verdict_map(direction.links(), FIRST)],
            [from_or_to_pods, guard].concat(),
        ]
    }

    /// What the pods of a group may do: anything that no rule accepts is dropped.
    pub(super) fn group_rules(&self, direction: Direction, id: u32, sets: u32) -> Vec<Rule> {
        let peer = |reg| match direction {
            Direction::Egress => Expr::DestinationAddress(self.family, Reg(reg)),
            Direction::Ingress => Expr::SourceAddress(self.family, Reg(reg)),
        };
        let first = KEY.0;
        let accept = || Expr::Verdict(Verdict::Accept);
        let port = |reg| vec![Expr::Protocol(Reg(reg)), Expr::DestinationPort(Reg(reg + 1))];
        let mut rules = Vec::new();
        for set in 0..=sets {
            let entry = || vec![number(first, id), number(first + 1, set)];
            for peers in [Map::Peers, Map::PeerRanges] {
                let mut rule = [entry(), vec![peer(first + 2), in_set(peers, KEY)]].concat();
                if set > 0 {
                    rule.extend([entry(), port(first + 2)].concat());
                    rule.push(in_set(Map::PolicyPorts, KEY));
                }
                rule.push(accept());
                rules.push(rule);
            }
        }
        if direction == Direction::Egress {
            let after = self.after(Reg(first + 1)).0;
            let key = [vec![number(first, id), peer(first + 1)], port(after)].concat();
            rules.push([key, vec![in_set(Map::NamedPeers, KEY), accept()]].concat());
        }
        rules.push(vec![Expr::Verdict(Verdict::Drop)]);
        rules
    }
}
