//! Answers queries for the cluster's names from a snapshot of its records. Pure.
//!
//! The rules are those of Kubernetes' DNS specification, version 1.1.0, and CoreDNS' behaviour
//! where it is silent (names of pods, SRV records of a whole Service).

#[cfg(test)]
mod tests;

use std::net::IpAddr;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::model::Port;
use crate::records::{AddressOwner, Backend, Entry, Records};

/// The time to live of answers, as in CoreDNS; short, so that clients see changes soon.
const TTL_S: u32 = 5;
const SPECIFICATION: &str = "1.1.0";
const SRV_PRIORITY: u16 = 0;
const SRV_WEIGHT_TOTAL: usize = 100;

/// The static properties of the zone.
#[derive(Clone, Debug)]
pub struct Zone {
    /// The cluster's domain.
    origin: Name,
    /// The addresses of this server, which is the name server of the zone.
    server_ips: Vec<IpAddr>,
}

/// The answer to a query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub code: ResponseCode,
    pub answers: Vec<Record>,
    pub additionals: Vec<Record>,
    /// The target of the last alias in `answers`, if it is outside the zone and has to be resolved
    /// upstream.
    pub external_alias: Option<Name>,
}

/// The maximum length of an alias chain.
const ALIASES_MAX: usize = 8;

/// The kind of a name in the zone.
enum Subject<'a> {
    Apex,
    Version,
    Server,
    /// An empty non-terminal: only names below it have records.
    Node,
    Service(&'a str, &'a str),
    Endpoint(&'a str, &'a str, &'a str),
    /// Service, then port and protocol without their underscores.
    Port(&'a str, &'a str, &'a str, &'a str),
    Pod(IpAddr),
    None,
}

impl Zone {
    /// # Errors
    /// If the domain is not a valid name.
    pub fn new(domain: &str, server_ips: Vec<IpAddr>) -> Result<Self, hickory_proto::ProtoError> {
        let mut origin = Name::from_ascii(domain)?.to_lowercase();
        origin.set_fqdn(true);
        Ok(Self { origin, server_ips })
    }

    /// Whether the name is in the zone.
    pub fn contains(&self, name: &Name) -> bool {
        self.origin.zone_of(name)
    }

    /// Answers a query for a name in the zone.
    pub fn answer(&self, records: &Records, name: &Name, kind: RecordType) -> Answer {
        let mut answer = Answer::default();
        let mut name = name.clone();
        for _ in 0..ALIASES_MAX {
            let Some(alias) = self.add(records, &name, kind, &mut answer) else {
                return answer;
            };
            if !self.contains(&alias) {
                answer.external_alias = Some(alias);
                return answer;
            }
            name = alias;
        }
        answer.code = ResponseCode::ServFail;
        answer
    }

    /// Answers a reverse query; `None` if the name is not a reverse name or no one in the cluster
    /// owns the address.
    pub fn reverse(&self, records: &Records, name: &Name, kind: RecordType) -> Option<Answer> {
        let network = name.parse_arpa_name().ok()?;
        if network.prefix_len() != network.max_prefix_len() {
            return None;
        }
        let owners = records.owners(network.addr());
        let targets = owners.filter_map(|owner| self.owner_name(owner));
        let answers: Vec<Record> =
            targets.map(|target| record(name, RData::PTR(PTR(target)))).collect();
        if answers.is_empty() {
            return None;
        }
        let asked = matches!(kind, RecordType::PTR | RecordType::ANY);
        Some(Answer { answers: if asked { answers } else { Vec::new() }, ..Answer::default() })
    }

    /// The SOA record, which tells clients how long to cache negative answers.
    pub fn soa(&self, records: &Records) -> Record {
        let server = self.below(&["ns", "dns"]).unwrap_or_else(|| self.origin.clone());
        let mailbox = self.below(&["hostmaster"]).unwrap_or_else(|| self.origin.clone());
        let minimum = TTL_S;
        let soa = SOA::new(server, mailbox, records.serial, 7200, 1800, 86_400, minimum);
        record(&self.origin, RData::SOA(soa))
    }

    /// Adds the records of `name`. Returns the target if it is an alias.
    fn add(
        &self,
        records: &Records,
        name: &Name,
        kind: RecordType,
        answer: &mut Answer,
    ) -> Option<Name> {
        let labels = self.labels(name);
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let add = |data: RData, answer: &mut Answer| answer.answers.push(record(name, data));
        match subject(&labels) {
            Subject::Apex => match kind {
                RecordType::SOA => answer.answers.push(self.soa(records)),
                RecordType::NS => {
                    let server = self.below(&["ns", "dns"])?;
                    let ips = self.server_ips.iter();
                    answer.additionals.extend(ips.map(|ip| record(&server, address(*ip))));
                    add(RData::NS(NS(server)), answer);
                }
                _ => {}
            },
            Subject::Version if kind == RecordType::TXT => {
                add(RData::TXT(TXT::new(vec![SPECIFICATION.to_owned()])), answer);
            }
            Subject::Server => add_addresses(name, kind, self.server_ips.iter().copied(), answer),
            Subject::Node
                if labels.len() == 2 && labels[1] == "svc" && !records.has_namespace(labels[0]) =>
            {
                answer.code = ResponseCode::NXDomain;
            }
            Subject::Version | Subject::Node => {}
            Subject::Pod(ip) => add_addresses(name, kind, [ip].into_iter(), answer),
            Subject::None => answer.code = ResponseCode::NXDomain,
            Subject::Service(service, namespace) => {
                return self.add_service(records, name, kind, (service, namespace), answer);
            }
            Subject::Endpoint(label, service, namespace) => {
                self.add_endpoint(records, name, kind, (label, service, namespace), answer);
            }
            Subject::Port(port, protocol, service, namespace) => {
                let matches =
                    |candidate: &Port| *candidate.name == *port && *candidate.protocol == *protocol;
                let found = self.ports(records, service, namespace, matches);
                match found.is_empty() {
                    true => answer.code = ResponseCode::NXDomain,
                    false if kind == RecordType::SRV => add_srv(name, found, answer),
                    false => {}
                }
            }
        }
        None
    }

    fn add_service(
        &self,
        records: &Records,
        name: &Name,
        kind: RecordType,
        (service, namespace): (&str, &str),
        answer: &mut Answer,
    ) -> Option<Name> {
        let Some(entry) = records.service(&format!("{namespace}/{service}")) else {
            answer.code = ResponseCode::NXDomain;
            return None;
        };
        match entry {
            Entry::ExternalName(target) => {
                let mut target = Name::from_ascii(&**target).ok()?;
                target.set_fqdn(true);
                answer.answers.push(record(name, RData::CNAME(CNAME(target.clone()))));
                return (kind != RecordType::CNAME).then_some(target);
            }
            _ if kind == RecordType::SRV => {
                add_srv(name, self.ports(records, service, namespace, |_| true), answer);
            }
            Entry::ClusterIp { ips, .. } => add_addresses(name, kind, ips.iter().copied(), answer),
            // The specification says that the name does not exist without ready endpoints.
            Entry::Headless(backends) if backends.is_empty() => {
                answer.code = ResponseCode::NXDomain;
            }
            Entry::Headless(backends) => {
                add_addresses(name, kind, backends.iter().map(|backend| backend.ip), answer);
            }
        }
        None
    }

    fn add_endpoint(
        &self,
        records: &Records,
        name: &Name,
        kind: RecordType,
        (label, service, namespace): (&str, &str, &str),
        answer: &mut Answer,
    ) {
        let entry = records.service(&format!("{namespace}/{service}"));
        // `_tcp` is an empty non-terminal if the Service has TCP ports.
        if let Some(protocol) = label.strip_prefix('_') {
            let matches = |port: &Port| *port.protocol == *protocol;
            if self.ports(records, service, namespace, matches).is_empty() {
                answer.code = ResponseCode::NXDomain;
            }
            return;
        }
        let ips: Vec<IpAddr> = match entry {
            Some(Entry::Headless(backends)) => {
                let same = backends.iter().filter(|backend| *backend.label == *label);
                same.map(|backend| backend.ip).collect()
            }
            _ => Vec::new(),
        };
        match ips.is_empty() {
            true => answer.code = ResponseCode::NXDomain,
            false => add_addresses(name, kind, ips.into_iter(), answer),
        }
    }

    /// The matching ports of a Service, each with its target name and that name's addresses.
    fn ports(
        &self,
        records: &Records,
        service: &str,
        namespace: &str,
        matches: impl Fn(&Port) -> bool,
    ) -> Vec<(u16, Name, Vec<IpAddr>)> {
        match records.service(&format!("{namespace}/{service}")) {
            Some(Entry::ClusterIp { ips, ports }) => {
                let Some(target) = self.below(&[service, namespace, "svc"]) else {
                    return Vec::new();
                };
                let ports = ports.iter().filter(|port| matches(port));
                ports.map(|port| (port.port, target.clone(), ips.clone())).collect()
            }
            Some(Entry::Headless(backends)) => {
                let of = |backend: &Backend| {
                    let target = self.below(&[&backend.label, service, namespace, "svc"]);
                    let ports = backend.ports.iter().filter(|port| matches(port));
                    let found = ports
                        .filter_map(|port| Some((port.port, target.clone()?, vec![backend.ip])));
                    found.collect::<Vec<_>>()
                };
                backends.iter().flat_map(of).collect()
            }
            _ => Vec::new(),
        }
    }

    fn owner_name(&self, owner: &AddressOwner) -> Option<Name> {
        let (namespace, service) = owner.service.split_once('/')?;
        match &owner.label {
            Some(label) => self.below(&[label, service, namespace, "svc"]),
            None => self.below(&[service, namespace, "svc"]),
        }
    }

    /// The name with these labels prepended to the zone's; `None` if a label is invalid.
    fn below(&self, labels: &[&str]) -> Option<Name> {
        let labels = labels.iter().map(|label| label.as_bytes());
        Name::from_labels(labels).ok()?.append_domain(&self.origin).ok()
    }

    /// The labels before the zone's, in lower case.
    fn labels(&self, name: &Name) -> Vec<String> {
        let count =
            usize::from(name.num_labels()).saturating_sub(usize::from(self.origin.num_labels()));
        let labels = name.iter().take(count);
        labels.map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
    }
}

/// Classifies a name by its labels before the zone's.
fn subject<'a>(labels: &[&'a str]) -> Subject<'a> {
    match *labels {
        [] => Subject::Apex,
        ["dns-version"] => Subject::Version,
        ["ns", "dns"] => Subject::Server,
        ["svc" | "pod" | "dns"] | [_, "svc" | "pod"] => Subject::Node,
        [service, namespace, "svc"] => Subject::Service(service, namespace),
        [label, service, namespace, "svc"] => Subject::Endpoint(label, service, namespace),
        [port, protocol, service, namespace, "svc"] => {
            match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(port), Some(protocol)) => Subject::Port(port, protocol, service, namespace),
                _ => Subject::None,
            }
        }
        [ip, _, "pod"] => match dashed(ip) {
            Some(ip) => Subject::Pod(ip),
            None => Subject::None,
        },
        _ => Subject::None,
    }
}

/// Parses an address written with dashes.
fn dashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse().ok().map(IpAddr::V4);
    v4.or_else(|| label.replace('-', ":").parse().ok().map(IpAddr::V6))
}

fn record(name: &Name, data: RData) -> Record {
    Record::from_rdata(name.clone(), TTL_S, data)
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

fn add_addresses(
    name: &Name,
    kind: RecordType,
    ips: impl Iterator<Item = IpAddr>,
    answer: &mut Answer,
) {
    let asked = |ip: &IpAddr| match kind {
        RecordType::A => ip.is_ipv4(),
        RecordType::AAAA => ip.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    };
    answer.answers.extend(ips.filter(asked).map(|ip| record(name, address(ip))));
}

/// All targets get an equal share of a total weight, as in CoreDNS.
fn add_srv(name: &Name, targets: Vec<(u16, Name, Vec<IpAddr>)>, answer: &mut Answer) {
    let weight = (SRV_WEIGHT_TOTAL / targets.len().max(1)).max(1);
    let weight = u16::try_from(weight).expect("at most the total");
    for (port, target, ips) in targets {
        for ip in ips {
            let address = record(&target, address(ip));
            if !answer.additionals.contains(&address) {
                answer.additionals.push(address);
            }
        }
        let srv = SRV::new(SRV_PRIORITY, weight, port, target);
        answer.answers.push(record(name, RData::SRV(srv)));
    }
}
