//! The reduced form of NetworkPolicies.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use api::labels::Selector;
use ipnet::IpNet;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::ports::{PortRange, PortSet};
use crate::model::NamedPort;
use crate::table::{Direction, Protocol};

/// The pods that it is about, and what they may do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    pub pods: Selector,
    /// `None` if it does not isolate pods in that direction.
    pub ingress: Option<Vec<Rule>>,
    pub egress: Option<Vec<Rule>>,
}

/// Allows connections between the pods of the policy and the peers, on the ports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// `None` for all: everybody, not only pods.
    pub peers: Option<Vec<Peer>>,
    /// `None` for all ports of all protocols.
    pub ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Pods of the policy's own namespace (`None`), or of those selected.
    Pods {
        namespaces: Option<Selector>,
        pods: Selector,
    },
    Block {
        cidr: IpNet,
        except: Vec<IpNet>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Port {
    Range(PortRange),
    /// The ports of that name and protocol of the pod that is connected to.
    Named(Protocol, Box<str>),
}

/// A policy with its hash, which is the same after a restart.
#[derive(Clone, Debug)]
pub struct Hashed {
    hash: u64,
    policy: Policy,
}

impl Policy {
    pub fn from_object(object: &networking::NetworkPolicy) -> Self {
        let Some(spec) = &object.spec else {
            return Self { pods: Selector::nothing(), ingress: None, egress: None };
        };
        let types = spec.policy_types.as_deref().filter(|types| !types.is_empty());
        let has_egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
        let applies = |kind: &str, by_default| {
            types.map_or(by_default, |types| types.iter().any(|one| one == kind))
        };
        let ingress = spec.ingress.iter().flatten();
        let ingress = ingress.map(|rule| Rule::new(rule.from.as_ref(), rule.ports.as_ref()));
        let egress = spec.egress.iter().flatten();
        let egress = egress.map(|rule| Rule::new(rule.to.as_ref(), rule.ports.as_ref()));
        Self {
            pods: selector(spec.pod_selector.as_ref()).unwrap_or_else(Selector::everything),
            ingress: applies("Ingress", true).then(|| ingress.collect()),
            egress: applies("Egress", has_egress).then(|| egress.collect()),
        }
    }

    /// The rules of a direction; `None` if it does not isolate pods in that direction.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// `None` without a selector; one that cannot be read selects nothing.
fn selector(selector: Option<&LabelSelector>) -> Option<Selector> {
    selector.map(|selector| {
        Selector::from_label_selector(Some(selector)).unwrap_or_else(|_| Selector::nothing())
    })
}

impl Rule {
    fn new(
        peers: Option<&Vec<networking::NetworkPolicyPeer>>,
        ports: Option<&Vec<networking::NetworkPolicyPort>>,
    ) -> Self {
        let peers = peers.filter(|peers| !peers.is_empty());
        let ports = ports.filter(|ports| !ports.is_empty());
        Self {
            peers: peers.map(|peers| peers.iter().filter_map(peer).collect()),
            ports: ports.map(|ports| ports.iter().filter_map(port).collect()),
        }
    }

    pub fn has_named_ports(&self) -> bool {
        self.ports.iter().flatten().any(|port| matches!(port, Port::Named(..)))
    }

    /// The ports, with names resolved by the ports of the pod that is connected to.
    pub fn resolve(&self, named: &[NamedPort]) -> PortSet {
        let Some(ports) = &self.ports else {
            return PortSet::All;
        };
        PortSet::of(ports.iter().flat_map(|port| match port {
            Port::Range(range) => vec![*range],
            Port::Named(protocol, name) => named_ranges(named, *protocol, name),
        }))
    }

    /// Only the ports that have names, resolved.
    pub fn resolve_names(&self, named: &[NamedPort]) -> PortSet {
        PortSet::of(self.ports.iter().flatten().flat_map(|port| match port {
            Port::Range(_) => Vec::new(),
            Port::Named(protocol, name) => named_ranges(named, *protocol, name),
        }))
    }
}

fn named_ranges(named: &[NamedPort], protocol: Protocol, name: &str) -> Vec<PortRange> {
    let same = |port: &&NamedPort| port.protocol == protocol && *port.name == *name;
    let range = |port: &NamedPort| PortRange { protocol, first: port.port, last: port.port };
    named.iter().filter(same).map(range).collect()
}

/// `None` for a block that cannot be read: what is allowed must be known.
fn peer(object: &networking::NetworkPolicyPeer) -> Option<Peer> {
    if let Some(block) = &object.ip_block {
        let net = |text: &String| text.parse::<IpNet>().ok().map(|net| net.trunc());
        let except: Option<Vec<IpNet>> = block.except.iter().flatten().map(net).collect();
        return Some(Peer::Block { cidr: net(&block.cidr)?, except: except? });
    }
    let namespaces = selector(object.namespace_selector.as_ref());
    let pods = selector(object.pod_selector.as_ref());
    if namespaces.is_none() && pods.is_none() {
        return None;
    }
    Some(Peer::Pods { namespaces, pods: pods.unwrap_or_else(Selector::everything) })
}

fn port(object: &networking::NetworkPolicyPort) -> Option<Port> {
    let protocol = Protocol::from_name(object.protocol.as_deref())?;
    let number = |number: i32| u16::try_from(number).ok();
    Some(match &object.port {
        None => Port::Range(PortRange { protocol, first: 0, last: u16::MAX }),
        Some(IntOrString::String(name)) => Port::Named(protocol, name.as_str().into()),
        Some(IntOrString::Int(first)) => {
            let (first, last) = (number(*first)?, number(object.end_port.unwrap_or(*first))?);
            (first <= last).then_some(Port::Range(PortRange { protocol, first, last }))?
        }
    })
}

impl Peer {
    /// Whether the block contains the address.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match self {
            Peer::Pods { .. } => false,
            Peer::Block { cidr, except } => {
                cidr.contains(&ip) && !except.iter().any(|except| except.contains(&ip))
            }
        }
    }
}

impl Hashed {
    pub fn new(policy: Policy) -> Self {
        let mut hasher = super::Fnv::default();
        policy.hash(&mut hasher);
        Self { hash: hasher.finish(), policy }
    }
}

impl std::ops::Deref for Hashed {
    type Target = Policy;

    fn deref(&self) -> &Policy {
        &self.policy
    }
}

impl PartialEq for Hashed {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && self.policy == other.policy
    }
}

impl Eq for Hashed {}

impl Hash for Hashed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use api::Kind;

    use super::*;

    fn policy(spec: &str) -> Policy {
        let json = format!(r#"{{"metadata":{{"name":"p"}},"spec":{spec}}}"#);
        Policy::from_object(&networking::NetworkPolicy::decode(json.as_bytes()).unwrap())
    }

    #[test]
    fn types_default_to_ingress_and_what_has_rules() {
        let isolates = |spec: &str| {
            let policy = policy(spec);
            (policy.ingress.is_some(), policy.egress.is_some())
        };
        assert_eq!(isolates(r#"{"podSelector":{}}"#), (true, false));
        assert_eq!(isolates(r#"{"podSelector":{},"egress":[{}]}"#), (true, true));
        assert_eq!(isolates(r#"{"podSelector":{},"policyTypes":["Egress"]}"#), (false, true));
        assert_eq!(
            isolates(r#"{"podSelector":{},"policyTypes":["Ingress"],"egress":[{}]}"#),
            (true, false)
        );
    }

    #[test]
    fn rules() {
        let read = policy(
            r#"{"podSelector":{"matchLabels":{"a":"b"}},"ingress":[{},{
                "from":[
                    {"podSelector":{}}, {"namespaceSelector":{}},
                    {"ipBlock":{"cidr":"10.0.0.1/8","except":["10.1.0.0/16"]}},
                    {"ipBlock":{"cidr":"10.0.0.0/8","except":["odd"]}}
                ],
                "ports":[
                    {"port":80}, {"port":90,"endPort":99,"protocol":"UDP"}, {"protocol":"SCTP"},
                    {"port":"http"}, {"port":7,"protocol":"QUIC"}
                ]
            }]}"#,
        );
        let range = |protocol, first, last| Port::Range(PortRange { protocol, first, last });
        let everything = Selector::everything;
        let rules = [
            Rule { peers: None, ports: None },
            Rule {
                peers: Some(vec![
                    Peer::Pods { namespaces: None, pods: everything() },
                    Peer::Pods { namespaces: Some(everything()), pods: everything() },
                    Peer::Block {
                        cidr: "10.0.0.0/8".parse().unwrap(),
                        except: vec!["10.1.0.0/16".parse().unwrap()],
                    },
                ]),
                ports: Some(vec![
                    range(Protocol::Tcp, 80, 80),
                    range(Protocol::Udp, 90, 99),
                    range(Protocol::Sctp, 0, u16::MAX),
                    Port::Named(Protocol::Tcp, "http".into()),
                ]),
            },
        ];
        assert_eq!(read.rules(Direction::Ingress), Some(&rules[..]));
        let named = |protocol, port| NamedPort { name: "http".into(), protocol, port };
        let named = [named(Protocol::Tcp, 8080), named(Protocol::Udp, 8081)];
        let names = PortSet::of([PortRange { protocol: Protocol::Tcp, first: 8080, last: 8080 }]);
        assert_eq!(rules[1].resolve_names(&named), names);
        let all = rules[1].resolve(&named);
        assert!(all.contains(6, 8080) && all.contains(6, 80) && !all.contains(17, 8081));
        assert!(all.contains(132, 0) && !all.contains(6, 81) && all.contains(17, 99));
        assert_eq!(rules[0].resolve(&named), PortSet::All);
    }
}
