//! The sets and chains of a table, and their rules.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::tunnel;

use super::element::{Chain, LOCAL_SLOTS, Map, Source};
use super::policy;
use crate::nft::{BaseChain, Batch, ChainKind, Expr, Family, Hook, Reg, Set, SetData, Verdict};

/// The name of the tables.
pub const TABLE: &str = "skiff-proxy";

/// The bit of the conntrack mark that requests translation of the source to this node's address.
const MASQUERADE_BIT: u32 = 0x4000;
const CONNTRACK_NEW: u32 = 8;
const ROUTE_LOCAL: u32 = 2;
const LOOPBACK_INDEX: u32 = 1;
/// Before destination translation (-100), after conntrack (-200).
const CHECK_PRIORITY: i32 = -110;
const DESTINATION_NAT_PRIORITY: i32 = -100;
const SOURCE_NAT_PRIORITY: i32 = 100;

/// After destination translation: connections that have not been translated match no frontend.
const UNKNOWN_PRIORITY: i32 = -90;

pub(super) const FIRST: Reg = Reg(0);
/// The register for lookup keys: after the longest endpoint (an IPv6 address and a port).
pub(super) const KEY: Reg = Reg(5);

/// The parameters of a table's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub family: Family,
    /// The range of all pod addresses: connections leaving it are masqueraded. If absent, none are.
    pub cluster_cidr: Option<IpNet>,
    /// This node's address, the source of masqueraded connections to pods.
    pub node_ip: Option<IpAddr>,
}

pub(super) type Rule = Vec<Expr>;

impl Layout {
    /// The comment of the table, which changes whenever a rule or set of the layout does.
    pub fn comment(&self) -> String {
        let chains: Vec<_> = self.base_chains().into_iter().map(|(_, _, rules)| rules).collect();
        let balance = [Source::Cluster, Source::External, Source::Local]
            .map(|source| Chain::Balance { source, count: 1, affinity_s: Some(1) });
        let examples = balance.into_iter().chain(policy::EXAMPLES);
        let examples: Vec<_> = examples.map(|chain| self.rules(chain)).collect();
        let sets = Map::ALL.map(|map| self.set(map));
        let text = format!("{chains:?} {examples:?} {sets:?}");
        format!("skiff-proxy layout {:016x}", fnv1a(text.as_bytes()))
    }

    /// Writes the table with its sets and base chains, but no elements.
    pub fn write(&self, batch: &mut Batch) {
        batch.table(&self.comment());
        for map in Map::ALL {
            batch.set(&self.set(map));
        }
        let chains = self.base_chains();
        for (name, base, _) in &chains {
            batch.chain(name, *base);
        }
        for (name, _, rules) in &chains {
            for rule in rules {
                batch.rule(name, rule);
            }
        }
    }

    /// Writes a chain that elements refer to, except `reject`, which is part of the table.
    pub fn write_chain(&self, batch: &mut Batch, chain: Chain) {
        let name = chain.to_string();
        batch.chain(&name, None);
        for rule in self.rules(chain) {
            batch.rule(&name, &rule);
        }
    }

    /// The number of rules in each base chain.
    pub fn rule_counts(&self) -> Vec<(&'static str, usize)> {
        let chains = self.base_chains().into_iter();
        chains.map(|(name, _, rules)| (name, rules.len())).collect()
    }

    fn set(&self, map: Map) -> Set {
        // nft's types: ipv4_addr 7, ipv6_addr 8, inet_proto 12, inet_service 13, mark 19; 6 bits
        // each.
        let (ip, ip_len) = match self.family {
            Family::V4 => (7, 4),
            Family::V6 => (8, 16),
        };
        let join = |types: &[u32]| types.iter().fold(0, |joined, kind| joined << 6 | kind);
        let frontend = (join(&[ip, 12, 13]), ip_len + 8);
        let node_port = (join(&[12, 13]), 8);
        let endpoint = SetData::Value { kind: join(&[ip, 13]), len: ip_len + 4 };
        let ((key_type, key_len), data) = match map {
            Map::Services | Map::ExternalLocal | Map::NoEndpoints => (frontend, SetData::Verdict),
            Map::NodePorts | Map::ExternalLocalNodePorts | Map::NoEndpointNodePorts => {
                (node_port, SetData::Verdict)
            }
            Map::ClusterIps | Map::Nodes => ((ip, ip_len), SetData::None),
            Map::Endpoints => ((join(&[ip, 12, 13, 19]), ip_len + 12), endpoint),
            Map::NodePortEndpoints => ((join(&[12, 13, 19]), 12), endpoint),
            Map::Affinity => ((join(&[ip, 12, 13, 19, ip]), 2 * ip_len + 12), SetData::None),
            Map::NodePortAffinity => ((join(&[12, 13, 19, ip]), ip_len + 12), SetData::None),
            Map::Hairpin => ((join(&[ip, ip]), 2 * ip_len), SetData::None),
            Map::HostPorts => (frontend, endpoint),
            Map::AnyHostPorts => (node_port, endpoint),
            Map::Firewalled => (frontend, SetData::None),
            Map::Allowed => ((join(&[ip, 12, 13, ip]), 2 * ip_len + 8), SetData::None),
            _ => return policy::set(map, ip, ip_len),
        };
        Set {
            name: map.name(),
            key_type,
            key_len,
            data,
            dynamic: map.is_dynamic(),
            ranges: match map {
                Map::Allowed => vec![ip_len, 1, 2, ip_len],
                _ => Vec::new(),
            },
            intervals: false,
            text: false,
        }
    }

    fn base_chains(&self) -> Vec<(&'static str, Option<BaseChain>, Vec<Rule>)> {
        let base = |kind, hook, priority| Some(BaseChain { kind, hook, priority });
        let filter = |hook| base(ChainKind::Filter, hook, CHECK_PRIORITY);
        let unknown = |hook| base(ChainKind::Filter, hook, UNKNOWN_PRIORITY);
        let nat = |hook| base(ChainKind::Nat, hook, DESTINATION_NAT_PRIORITY);
        let source_nat = base(ChainKind::Nat, Hook::Postrouting, SOURCE_NAT_PRIORITY);
        let mut chains = vec![
            ("refuse", None, self.reject()),
            ("firewall", None, self.firewall()),
            ("check", None, self.check()),
            ("filter-prerouting", filter(Hook::Prerouting), self.filter_prerouting()),
            ("filter-output", filter(Hook::Output), vec![check_new()]),
            ("prerouting", nat(Hook::Prerouting), self.prerouting()),
            ("output", nat(Hook::Output), self.destinations()),
            ("unknown-prerouting", unknown(Hook::Prerouting), self.unknown()),
            ("unknown-output", unknown(Hook::Output), self.unknown()),
            ("postrouting", source_nat, self.postrouting()),
        ];
        chains.extend(self.policy_chains());
        chains
    }

    /// A reset is faster for the client than an ICMP error, and not rate-limited.
    fn reject(&self) -> Vec<Rule> {
        let tcp = vec![super::Protocol::Tcp as u8];
        vec![
            vec![Expr::Protocol(FIRST), Expr::Equal(FIRST, tcp), Expr::Reset],
            vec![Expr::Reject(self.family)],
        ]
    }

    /// A new connection to a cluster IP that was not translated matches no frontend.
    fn unknown(&self) -> Vec<Rule> {
        let mut rule = new_connection();
        rule.extend([
            Expr::DestinationAddress(self.family, FIRST),
            in_set(Map::ClusterIps, FIRST),
            Expr::Verdict(Verdict::Goto("refuse".into())),
        ]);
        vec![rule]
    }

    /// The loopback range must not be reachable from outside, although `route_localnet` allows this
    /// node's own connections to node ports on it. Nobody but a node sends from an address of
    /// another node or pod.
    fn filter_prerouting(&self) -> Vec<Rule> {
        let mut rules = match self.family {
            Family::V4 => self.forged_tunnel_packets(),
            Family::V6 => vec![forged_sources(from_pods())],
        };
        if self.family == Family::V4 {
            let mut martian = vec![
                Expr::InputInterface(FIRST),
                Expr::NotEqual(FIRST, LOOPBACK_INDEX.to_ne_bytes().to_vec()),
                Expr::DestinationAddress(self.family, FIRST),
            ];
            martian.extend(in_range(FIRST, loopback(), true));
            martian.push(Expr::Verdict(Verdict::Drop));
            rules.push(martian);
        }
        rules.push(check_new());
        rules
    }

    /// The tunnel trusts the addresses of packets inside, so only nodes may send into it: not their
    /// pods, whose packets leave the node with its address, and no other machine.
    fn forged_tunnel_packets(&self) -> Vec<Rule> {
        let mut tunnel = vec![Expr::Protocol(FIRST)];
        tunnel.push(Expr::Equal(FIRST, vec![super::Protocol::Udp as u8]));
        tunnel.push(Expr::DestinationPort(FIRST));
        tunnel.push(Expr::Equal(FIRST, tunnel::PORT.to_be_bytes().to_vec()));
        tunnel.push(Expr::VxlanNetwork(FIRST));
        tunnel.push(Expr::Equal(FIRST, tunnel::NETWORK_ID.to_be_bytes()[1..].to_vec()));
        let drop = || vec![Expr::Verdict(Verdict::Drop)];
        let to_node = vec![Expr::DestinationAddress(self.family, FIRST), in_set(Map::Nodes, FIRST)];
        let from_other =
            vec![Expr::SourceAddress(self.family, FIRST), not_in_set(Map::Nodes, FIRST)];
        vec![
            [tunnel.clone(), from_pods(), to_node, drop()].concat(),
            [tunnel, to_this_node(), from_other, drop()].concat(),
            forged_sources(vec![Expr::InputInterfaceName(FIRST), tunnel_link()]),
        ]
    }

    /// Rejects or drops new connections that are firewalled or have no endpoints.
    fn check(&self) -> Vec<Rule> {
        let firewalled =
            vec![in_set(Map::Firewalled, KEY), Expr::Verdict(Verdict::Jump("firewall".into()))];
        let node_port = [to_this_node(), node_port()].concat();
        vec![
            [self.frontend(), firewalled].concat(),
            [self.frontend(), vec![verdict_map(Map::NoEndpoints, KEY)]].concat(),
            [node_port, vec![verdict_map(Map::NoEndpointNodePorts, KEY)]].concat(),
        ]
    }

    /// Only reached for frontends with a list of allowed sources.
    fn firewall(&self) -> Vec<Rule> {
        let source = Expr::SourceAddress(self.family, self.after_frontend());
        vec![
            [
                self.frontend(),
                vec![source, in_set(Map::Allowed, KEY), Expr::Verdict(Verdict::Return)],
            ]
            .concat(),
            vec![Expr::Verdict(Verdict::Drop)],
        ]
    }

    fn prerouting(&self) -> Vec<Rule> {
        let outside = self.source_outside_cluster(KEY);
        let mut rules = vec![
            [outside.clone(), self.frontend(), vec![verdict_map(Map::ExternalLocal, KEY)]].concat(),
            [
                outside,
                to_this_node(),
                node_port(),
                vec![verdict_map(Map::ExternalLocalNodePorts, KEY)],
            ]
            .concat(),
        ];
        rules.extend(self.destinations());
        rules
    }

    /// Services, then host ports (on one address, then on any), then node ports.
    fn destinations(&self) -> Vec<Rule> {
        let then = |target: Rule, action: Vec<Expr>| [target, action].concat();
        let host_port = |ports| vec![map(ports, KEY, FIRST), self.destination_nat()];
        let at_this_node = [to_this_node(), self.frontend()].concat();
        let node_port = [to_this_node(), node_port()].concat();
        vec![
            then(self.frontend(), vec![verdict_map(Map::Services, KEY)]),
            then(at_this_node, host_port(Map::HostPorts)),
            then(node_port.clone(), host_port(Map::AnyHostPorts)),
            then(node_port, vec![verdict_map(Map::NodePorts, KEY)]),
        ]
    }

    fn postrouting(&self) -> Vec<Rule> {
        let second = self.after(FIRST);
        let marked = vec![
            Expr::ConntrackMark(FIRST),
            and(FIRST, MASQUERADE_BIT),
            Expr::NotEqual(FIRST, vec![0; 4]),
        ];
        let hairpin = vec![
            Expr::SourceAddress(self.family, FIRST),
            Expr::DestinationAddress(self.family, second),
            in_set(Map::Hairpin, FIRST),
        ];
        let mut rules = self.tunnelled(&marked);
        rules.extend([[marked, self.source_nat()].concat(), [hairpin, self.source_nat()].concat()]);
        if self.family == Family::V4 {
            let mut from_loopback = vec![
                Expr::OutputInterface(FIRST),
                Expr::NotEqual(FIRST, LOOPBACK_INDEX.to_ne_bytes().to_vec()),
                Expr::SourceAddress(self.family, FIRST),
            ];
            from_loopback.extend(in_range(FIRST, loopback(), true));
            rules.push([from_loopback, self.source_nat()].concat());
        }
        if let Some(cidr) = self.cluster_cidr {
            let multicast = match self.family {
                Family::V4 => "224.0.0.0/4".parse(),
                Family::V6 => "ff00::/8".parse(),
            };
            let multicast = multicast.expect("a literal network");
            let mut leaving = vec![Expr::SourceAddress(self.family, FIRST)];
            leaving.extend(in_range(FIRST, cidr, true));
            for range in [cidr, multicast] {
                leaving.push(Expr::DestinationAddress(self.family, FIRST));
                leaving.extend(in_range(FIRST, range, false));
            }
            leaving.push(Expr::Masquerade);
            rules.push(leaving);
        }
        rules
    }

    /// Replies to traffic through the tunnel must return through it, so its source has to be a pod,
    /// or this node's tunnel address.
    fn tunnelled(&self, marked: &Rule) -> Vec<Rule> {
        if self.family != Family::V4 {
            return Vec::new();
        }
        let through = vec![Expr::OutputInterfaceName(FIRST), tunnel_link()];
        let mut rules = vec![[through.clone(), marked.clone(), vec![Expr::Masquerade]].concat()];
        if self.cluster_cidr.is_some() {
            let outside = self.source_outside_cluster(FIRST);
            rules.push([through, outside, vec![Expr::Masquerade]].concat());
        }
        rules
    }

    /// The rules of a chain that elements refer to.
    pub fn rules(&self, chain: Chain) -> Vec<Rule> {
        let (source, count, affinity_s) = match chain {
            Chain::Reject => return self.reject(),
            Chain::Group(direction, id, sets) => return self.group_rules(direction, id, sets),
            Chain::Balance { source, count, affinity_s } => (source, count, affinity_s),
        };
        let targets = [
            (self.frontend(), self.after_frontend(), Map::Endpoints, Map::Affinity),
            (node_port(), Reg(KEY.0 + 2), Map::NodePortEndpoints, Map::NodePortAffinity),
        ];
        let offset = if source == Source::Local { LOCAL_SLOTS } else { 0 };
        let mut rules = self.mark(source);
        let mut rule = |start: Vec<Expr>, end: Vec<Expr>| rules.push([start, end].concat());
        for slot in (offset..offset + count).filter(|_| affinity_s.is_some()) {
            for (key, tail, endpoints, affinity) in &targets {
                let slot = Expr::Value(*tail, slot.to_ne_bytes().to_vec());
                let mut known = self.remember(*tail, *affinity, affinity_s);
                known.insert(1, in_set(*affinity, KEY));
                known.extend(self.to_endpoint(*endpoints));
                rule([key.clone(), vec![slot]].concat(), known);
            }
        }
        for (key, tail, endpoints, affinity) in targets {
            let slot = Expr::Random { reg: tail, modulus: count, offset };
            let mut chosen = self.remember(tail, affinity, affinity_s);
            chosen.extend(self.to_endpoint(endpoints));
            rule([key, vec![slot]].concat(), chosen);
        }
        rules
    }

    /// Loads the client after target and slot, and records its affinity to that slot.
    fn remember(&self, slot: Reg, affinity: Map, affinity_s: Option<u32>) -> Rule {
        let remember = |seconds| Expr::Remember {
            set: affinity.name(),
            key: KEY,
            timeout_ms: u64::from(seconds) * 1000,
        };
        let client = Expr::SourceAddress(self.family, Reg(slot.0 + 1));
        affinity_s.map_or_else(Vec::new, |seconds| vec![client, remember(seconds)])
    }

    /// Translates the destination to the endpoint of the target and slot at [`KEY`].
    fn to_endpoint(&self, endpoints: Map) -> Rule {
        vec![map(endpoints, KEY, FIRST), self.destination_nat()]
    }

    /// Marks connections for masquerading.
    fn mark(&self, source: Source) -> Vec<Rule> {
        let condition = match source {
            Source::Local => return Vec::new(),
            Source::Cluster if self.cluster_cidr.is_none() => return Vec::new(),
            Source::Cluster => self.source_outside_cluster(FIRST),
            Source::External => Vec::new(),
        };
        let mark = vec![
            Expr::ConntrackMark(FIRST),
            Expr::Bitwise {
                reg: FIRST,
                mask: (!MASQUERADE_BIT).to_ne_bytes().to_vec(),
                xor: MASQUERADE_BIT.to_ne_bytes().to_vec(),
            },
            Expr::SetConntrackMark(FIRST),
        ];
        vec![[condition, mark].concat()]
    }

    /// Destination address, protocol and port at [`KEY`].
    fn frontend(&self) -> Rule {
        let protocol = self.after(KEY);
        vec![
            Expr::DestinationAddress(self.family, KEY),
            Expr::Protocol(protocol),
            Expr::DestinationPort(Reg(protocol.0 + 1)),
        ]
    }

    /// The register after a frontend at [`KEY`].
    fn after_frontend(&self) -> Reg {
        Reg(self.after(KEY).0 + 2)
    }

    /// The register after an address at `reg`.
    pub(super) fn after(&self, reg: Reg) -> Reg {
        match self.family {
            Family::V4 => Reg(reg.0 + 1),
            Family::V6 => Reg(reg.0 + 4),
        }
    }

    fn source_outside_cluster(&self, reg: Reg) -> Rule {
        let Some(cidr) = self.cluster_cidr else {
            return Vec::new();
        };
        let mut rule = vec![Expr::SourceAddress(self.family, reg)];
        rule.extend(in_range(reg, cidr, false));
        rule
    }

    /// Translates the destination to the endpoint at [`FIRST`].
    fn destination_nat(&self) -> Expr {
        Expr::DestinationNat { family: self.family, address: FIRST, port: self.after(FIRST) }
    }

    /// Translates the source to this node's address, or to that of the output interface.
    fn source_nat(&self) -> Rule {
        let bytes = match self.node_ip {
            Some(IpAddr::V4(ip)) => ip.octets().to_vec(),
            Some(IpAddr::V6(ip)) => ip.octets().to_vec(),
            None => return vec![Expr::Masquerade],
        };
        let source_nat = Expr::SourceNat { family: self.family, address: FIRST };
        vec![Expr::Value(FIRST, bytes), source_nat]
    }
}

fn loopback() -> IpNet {
    "127.0.0.0/8".parse().expect("a literal network")
}

fn new_connection() -> Rule {
    vec![Expr::ConntrackState(FIRST), and(FIRST, CONNTRACK_NEW), Expr::NotEqual(FIRST, vec![0; 4])]
}

fn check_new() -> Rule {
    let mut rule = new_connection();
    rule.push(Expr::Verdict(Verdict::Jump("check".into())));
    rule
}

/// A hash that is stable across processes.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Matches packets to this node's own addresses.
fn to_this_node() -> Rule {
    vec![Expr::DestinationType(FIRST), Expr::Equal(FIRST, ROUTE_LOCAL.to_ne_bytes().to_vec())]
}

/// Continues only if the interface name in the register is that of the tunnel.
fn tunnel_link() -> Expr {
    let mut name = tunnel::LINK.as_bytes().to_vec();
    name.resize(16, 0);
    Expr::Equal(FIRST, name)
}

/// Drops packets whose source is not reached through the interface that they came from. For the
/// IPv4 links of pods, a sysctl that the kubelet sets does the same.
fn forged_sources(from: Rule) -> Rule {
    let mut rule = from;
    rule.extend([Expr::ReversePath(FIRST), Expr::Equal(FIRST, vec![0; 4])]);
    rule.push(Expr::Verdict(Verdict::Drop));
    rule
}

/// Matches packets from pods: the kubelet names their links `veth...`.
pub(super) fn from_pods() -> Rule {
    vec![Expr::InputInterfaceName(FIRST), Expr::Equal(FIRST, b"veth".to_vec())]
}

/// Protocol and destination port at [`KEY`].
fn node_port() -> Rule {
    vec![Expr::Protocol(KEY), Expr::DestinationPort(Reg(KEY.0 + 1))]
}

pub(super) fn and(reg: Reg, bits: u32) -> Expr {
    Expr::Bitwise { reg, mask: bits.to_ne_bytes().to_vec(), xor: vec![0; 4] }
}

pub(super) fn in_set(map: Map, key: Reg) -> Expr {
    Expr::InSet { set: map.name(), key }
}

fn not_in_set(map: Map, key: Reg) -> Expr {
    Expr::NotInSet { set: map.name(), key }
}

fn map(map: Map, key: Reg, data: Reg) -> Expr {
    Expr::Map { set: map.name(), key, data }
}

pub(super) fn verdict_map(map: Map, key: Reg) -> Expr {
    Expr::VerdictMap { set: map.name(), key }
}

/// Continues only if the address in the register is (or is not) in the range.
fn in_range(reg: Reg, range: IpNet, inside: bool) -> Rule {
    let bytes = |ip| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (mask, network) = (bytes(range.netmask()), bytes(range.network()));
    let mask = Expr::Bitwise { reg, xor: vec![0; mask.len()], mask };
    let compare = match inside {
        true => Expr::Equal(reg, network),
        false => Expr::NotEqual(reg, network),
    };
    vec![mask, compare]
}
