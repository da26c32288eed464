//! NetworkPolicies in the tables: sets, chains and rules.
//!
//! Two chains of the forward hook, which only sees the traffic of pods, after the translation of
//! destinations and before that of sources; what a pod exchanges with its own node passes other
//! hooks and is always allowed. `policy-egress` finds the pod by its link (`egress-links`); a pod
//! that is isolated in that direction has the chain of its group, the pods with the same policies.
//! There group and other address map to the ports that are allowed (`peers` for pods,
//! `peer-ranges` for address ranges): all, or a chain that looks up protocol and port
//! (`policy-ports`). `policy-ingress` does the same for the receiving pod. While there are policies,
//! `guard` closes the links of pods that are not known yet.
//!
//! The number of lookups for a connection does not depend on the number of policies, and packets of
//! established connections pass with the first rule.

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
pub(super) const EXAMPLES: [Chain; 3] =
    [Chain::Group(Direction::Egress, 0), Chain::Group(Direction::Ingress, 0), Chain::Ports(0)];

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
    /// The group, and the address of a peer.
    Peer(u32, IpAddr),
    /// The group, and the first and last address of a range of peers.
    Range(u32, IpAddr, IpAddr),
    /// The set of ports, a protocol, and its first and last port.
    Ports(u32, Protocol, u16, u16),
}

impl PolicyKey {
    /// The key in the kernel's encoding, and its end if it is a range.
    pub(super) fn encode(&self) -> (Vec<u8>, KeyEnd) {
        let peer = |group: u32, ip| {
            let mut bytes = group.to_be_bytes().to_vec();
            push_ip(&mut bytes, ip);
            bytes
        };
        let ports = |set: u32, protocol: Protocol, port| {
            let mut bytes = set.to_be_bytes().to_vec();
            bytes.extend([protocol as u8, 0, 0, 0]);
            push_port(&mut bytes, port);
            bytes
        };
        match *self {
            PolicyKey::Link(name) => (name.0.to_vec(), KeyEnd::None),
            PolicyKey::Guard(family) => (ether_type(family).to_vec(), KeyEnd::None),
            PolicyKey::Peer(group, ip) => (peer(group, ip), KeyEnd::None),
            PolicyKey::Range(group, first, last) => {
                (peer(group, first), KeyEnd::After(successor(peer(group, last))))
            }
            PolicyKey::Ports(set, protocol, first, last) => {
                let after = successor(ports(set, protocol, last));
                (ports(set, protocol, first), KeyEnd::After(after))
            }
        }
    }

    /// Decodes the key of an element of `map`; `None` if it does not have the format of that map.
    pub(super) fn decode(map: Map, family: Family, element: &nft::Element) -> Option<Self> {
        let last = element.key_end.clone().map(predecessor);
        let mut reader = Reader { bytes: &element.key, family };
        let mut last = last.as_deref().map(|bytes| Reader { bytes, family });
        let number = |reader: &mut Reader<'_>| Some(u32::from_be_bytes(reader.take()?));
        let key = match map {
            Map::EgressLinks | Map::IngressLinks | Map::IsolatedLinks => {
                PolicyKey::Link(LinkName(reader.take()?))
            }
            Map::Guard => {
                (reader.take()? == ether_type(family)).then_some(PolicyKey::Guard(family))?
            }
            Map::Peers => PolicyKey::Peer(number(&mut reader)?, reader.ip()?),
            Map::PeerRanges => {
                let last = last.as_mut()?;
                let (group, first) = (number(&mut reader)?, reader.ip()?);
                (number(last)? == group).then_some(PolicyKey::Range(group, first, last.ip()?))?
            }
            Map::PolicyPorts => {
                let last = last.as_mut()?;
                let (set, protocol) = (number(&mut reader)?, reader.protocol()?);
                let same = number(last)? == set && last.protocol()? == protocol;
                let (first, last) = (reader.port()?, last.port()?);
                same.then_some(PolicyKey::Ports(set, protocol, first, last))?
            }
            _ => return None,
        };
        reader.bytes.is_empty().then_some(key)
    }
}

/// The next key in byte order. There is one: ids of groups and sets are less than `1 << 31`.
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
    // nft's types: integer 4, ethertype 10, mark 19. It cannot display intervals of
    // concatenated keys.
    let (key_type, key_len) = match map {
        Map::Guard => (10, 2),
        Map::Peers => (19 << 6 | ip, 4 + ip_len),
        Map::PeerRanges => (4, 4 + ip_len),
        Map::PolicyPorts => (4, 12),
        _ => (INTERFACE_NAME, LINK_NAME_BYTES),
    };
    let data = match map {
        Map::IsolatedLinks | Map::PolicyPorts => SetData::None,
        _ => SetData::Verdict,
    };
    let (ranges, intervals) = (Vec::new(), map.is_intervals());
    let text = key_type == INTERFACE_NAME;
    Set { name: map.name(), key_type, key_len, data, dynamic: false, ranges, intervals, text }
}

/// Accepts the protocols and ports of a set of ports.
pub(super) fn ports_rules(id: u32) -> Vec<Rule> {
    vec![vec![
        Expr::Value(KEY, id.to_be_bytes().to_vec()),
        Expr::Protocol(Reg(KEY.0 + 1)),
        Expr::DestinationPort(Reg(KEY.0 + 2)),
        in_set(Map::PolicyPorts, KEY),
        Expr::Verdict(Verdict::Accept),
    ]]
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
    pub(super) fn group_rules(&self, direction: Direction, id: u32) -> Vec<Rule> {
        let peer = Reg(KEY.0 + 1);
        let peer = match direction {
            Direction::Egress => Expr::DestinationAddress(self.family, peer),
            Direction::Ingress => Expr::SourceAddress(self.family, peer),
        };
        let lookup = |map| {
            let group = Expr::Value(KEY, id.to_be_bytes().to_vec());
            vec![group, peer.clone(), verdict_map(map, KEY)]
        };
        vec![lookup(Map::Peers), lookup(Map::PeerRanges), vec![Expr::Verdict(Verdict::Drop)]]
    }
}
