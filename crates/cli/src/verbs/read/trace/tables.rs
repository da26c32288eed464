//! What a node's proxy reports of its tables, and look-ups in it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

/// The table of Services.
const TABLE: &str = "skiff-proxy";
/// Slots of the endpoints on the node itself begin here.
const LOCAL_SLOTS: u32 = 1 << 16;

/// The proxy's answer.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Tables {
    pub tables: Vec<Table>,
    /// Whether the proxy left elements out.
    #[serde(default)]
    pub truncated: bool,
    /// Addresses that the node has itself, without rules.
    #[serde(default)]
    pub ignored: Vec<IpAddr>,
    /// Addresses of load balancers that the node announces.
    #[serde(default)]
    pub announced: Vec<IpAddr>,
    /// The links of the node's own pods.
    #[serde(default)]
    pub links: BTreeMap<IpAddr, String>,
    /// What the policies in the tables say about the connections that were asked for.
    #[serde(default)]
    pub verdicts: Vec<Verdict>,
}

/// A connection, and whether policies let it pass: a direction is judged on its pod's node.
#[derive(Clone, Debug, Deserialize)]
pub struct Verdict {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: String,
    pub port: u16,
    #[serde(default)]
    pub egress: Option<String>,
    #[serde(default)]
    pub ingress: Option<String>,
}

impl Verdict {
    /// `10.244.1.7 to 10.244.0.1:8080/TCP  egress allowed by a policy`, a line for each direction.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let destination = SocketAddr::new(self.destination, self.port);
        let ends = format!("{} to {destination}/{}", self.source, self.protocol);
        let ways = [("egress", &self.egress), ("ingress", &self.ingress)];
        let judged = ways.into_iter().filter_map(|(way, verdict)| Some((way, verdict.clone()?)));
        judged.map(move |(way, verdict)| format!("{ends}  {way} {verdict}"))
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Table {
    pub name: String,
    pub family: String,
    pub maps: Vec<Map>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Map {
    pub name: String,
    pub elements: Vec<Element>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Element {
    pub key: Vec<String>,
    #[serde(default)]
    pub key_end: Option<Vec<String>>,
    #[serde(default)]
    pub value: Vec<String>,
    #[serde(default)]
    pub verdict: Option<String>,
}

impl Element {
    /// `10.96.0.10 . tcp . 80 : goto cluster-3`, as `nft` writes it.
    pub fn text(&self) -> String {
        let mut text = self.key.join(" . ");
        if let Some(end) = &self.key_end {
            text = format!("{text} - {}", end.join(" . "));
        }
        match (&self.verdict, self.value.is_empty()) {
            (Some(verdict), _) => format!("{text} : {verdict}"),
            (None, false) => format!("{text} : {}", self.value.join(" . ")),
            (None, true) => text,
        }
    }

    /// Whether it names the address, in its key or its value.
    pub fn is_about(&self, address: &str) -> bool {
        self.key.iter().chain(&self.value).any(|field| field == address)
    }
}

/// Where clients connect to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Frontend {
    Address {
        ip: IpAddr,
        protocol: String,
        port: u16,
    },
    /// On any address of the nodes of that family.
    NodePort {
        v6: bool,
        protocol: String,
        port: u16,
    },
}

impl Frontend {
    fn key(&self) -> Vec<String> {
        match self {
            Self::Address { ip, protocol, port } => {
                vec![ip.to_string(), protocol.to_lowercase(), port.to_string()]
            }
            Self::NodePort { protocol, port, .. } => {
                vec![protocol.to_lowercase(), port.to_string()]
            }
        }
    }

    pub fn is_v6(&self) -> bool {
        match self {
            Self::Address { ip, .. } => ip.is_ipv6(),
            Self::NodePort { v6, .. } => *v6,
        }
    }

    fn maps(&self) -> Maps {
        match self {
            Self::Address { .. } => Maps {
                balance: "services",
                refuse: "no-endpoints",
                outside: "external-local",
                endpoints: "endpoints",
            },
            Self::NodePort { .. } => Maps {
                balance: "node-ports",
                refuse: "no-endpoint-node-ports",
                outside: "external-local-node-ports",
                endpoints: "node-port-endpoints",
            },
        }
    }

    /// `10.96.0.10:80/TCP`, `*:30080/TCP`
    pub fn text(&self) -> String {
        match self {
            Self::Address { ip, protocol, port } => {
                format!("{}/{protocol}", std::net::SocketAddr::new(*ip, *port))
            }
            Self::NodePort { v6, protocol, port } => {
                format!("{}:{port}/{protocol}", if *v6 { "[::]" } else { "*" })
            }
        }
    }
}

/// The maps that decide on a frontend.
struct Maps {
    balance: &'static str,
    refuse: &'static str,
    outside: &'static str,
    endpoints: &'static str,
}

/// Maps whose elements are explained by frontends and endpoints.
const EXPLAINED: [&str; 11] = [
    "services",
    "node-ports",
    "external-local",
    "external-local-node-ports",
    "no-endpoints",
    "no-endpoint-node-ports",
    "endpoints",
    "node-port-endpoints",
    "cluster-ips",
    "hairpin",
    "nodes",
];

/// Whose connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// Everybody's, or those from inside the cluster if there is a rule for others.
    Any,
    /// Those from outside, if the Service's policy is to stay on the node.
    Outside,
}

/// An address and port that connections are directed to.
pub type Endpoint = (IpAddr, u16);

/// What happens to connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Balance(BTreeSet<Endpoint>),
    Reject,
    Drop,
    /// There is no rule.
    Nothing,
}

/// A rule of the tables: where it was found, what it does, and slots without an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `services: goto cluster-3`
    pub text: String,
    pub outcome: Outcome,
    pub empty_slots: Vec<u32>,
}

impl Tables {
    fn elements<'a>(&'a self, map: &'a str, v6: bool) -> impl Iterator<Item = &'a Element> {
        let family = if v6 { "ip6" } else { "ip" };
        let tables = self.tables.iter();
        let tables = tables.filter(move |table| table.name == TABLE && table.family == family);
        let maps = tables.flat_map(|table| &table.maps);
        maps.filter(move |found| found.name == map).flat_map(|map| &map.elements)
    }

    /// The rule for connections to the frontend.
    pub fn rule(&self, frontend: &Frontend, clients: Clients) -> Rule {
        let maps = frontend.maps();
        let names = match clients {
            Clients::Any => vec![maps.balance, maps.refuse],
            Clients::Outside => vec![maps.outside],
        };
        let key = frontend.key();
        let found = names.into_iter().find_map(|map| {
            let mut elements = self.elements(map, frontend.is_v6());
            let element = elements.find(|element| element.key == key)?;
            Some((map, element.verdict.as_deref().unwrap_or_default()))
        });
        let Some((map, verdict)) = found else {
            return Rule {
                text: "no rule".to_owned(),
                outcome: Outcome::Nothing,
                empty_slots: Vec::new(),
            };
        };
        let (outcome, empty_slots) = match (verdict, verdict.strip_prefix("goto ")) {
            ("goto refuse", _) => (Outcome::Reject, Vec::new()),
            ("drop", _) => (Outcome::Drop, Vec::new()),
            (_, Some(chain)) => self.balanced(frontend, chain),
            _ => (Outcome::Nothing, Vec::new()),
        };
        Rule { text: format!("{map}: {verdict}"), outcome, empty_slots }
    }

    /// The endpoints in the slots that a chain such as `cluster-3` or `local-1-affinity-60` chooses
    /// from, and the slots that have none.
    fn balanced(&self, frontend: &Frontend, chain: &str) -> (Outcome, Vec<u32>) {
        let mut parts = chain.split('-');
        let first = if parts.next() == Some("local") { LOCAL_SLOTS } else { 0 };
        let count: u32 = parts.next().and_then(|count| count.parse().ok()).unwrap_or(0);
        let slots = self.slots(frontend);
        let wanted = first..first.saturating_add(count);
        let empty: Vec<u32> = wanted.clone().filter(|slot| !slots.contains_key(slot)).collect();
        let endpoints = slots.into_iter().filter(|(slot, _)| wanted.contains(slot));
        let endpoints = endpoints.map(|(_, endpoint)| endpoint).collect();
        (Outcome::Balance(endpoints), empty.into_iter().map(|slot| slot - first).collect())
    }

    fn slots(&self, frontend: &Frontend) -> BTreeMap<u32, Endpoint> {
        let key = frontend.key();
        let endpoints = self.elements(frontend.maps().endpoints, frontend.is_v6());
        endpoints
            .filter_map(|element| {
                let (slot, of) = element.key.split_last()?;
                let [ip, port] = element.value.as_slice() else {
                    return None;
                };
                let endpoint = (ip.parse().ok()?, port.parse().ok()?);
                (of == key.as_slice()).then_some((slot.parse().ok()?, endpoint))
            })
            .collect()
    }

    /// The frontends that lead to an address, with those of host ports.
    pub fn leading_to(&self, address: IpAddr) -> BTreeSet<Frontend> {
        let text = address.to_string();
        let v6 = address.is_ipv6();
        let port = |port: &String| port.parse().ok();
        let mut found = BTreeSet::new();
        for map in ["endpoints", "node-port-endpoints"] {
            let elements = self.elements(map, v6);
            for element in elements.filter(|element| element.value.first() == Some(&text)) {
                let frontend = match element.key.as_slice() {
                    [ip, protocol, number, _] => {
                        ip.parse().ok().zip(port(number)).map(|(ip, port)| Frontend::Address {
                            ip,
                            protocol: upper(protocol),
                            port,
                        })
                    }
                    [protocol, number, _] => port(number).map(|port| Frontend::NodePort {
                        v6,
                        protocol: upper(protocol),
                        port,
                    }),
                    _ => None,
                };
                found.extend(frontend);
            }
        }
        found
    }

    /// Elements about an address, or its link, in maps that are not about Services: `map: element`.
    pub fn others(&self, address: &str) -> Vec<String> {
        let link = address.parse().ok().and_then(|ip: IpAddr| self.links.get(&ip));
        let is_about = |element: &&Element| {
            element.is_about(address) || link.is_some_and(|link| element.is_about(link))
        };
        let mut found = Vec::new();
        for table in &self.tables {
            for map in &table.maps {
                if table.name == TABLE && EXPLAINED.contains(&map.name.as_str()) {
                    continue;
                }
                let of_table =
                    if table.name == TABLE { String::new() } else { format!("{} ", table.name) };
                let elements = map.elements.iter().filter(is_about);
                found.extend(
                    elements.map(|element| format!("{of_table}{}: {}", map.name, element.text())),
                );
            }
        }
        found
    }
}

fn upper(protocol: &str) -> String {
    protocol.to_uppercase()
}
