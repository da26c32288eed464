//! Which nodes announce the addresses of load balancers on their links, as the proxies say. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::compare::{Observed, Traced};
use super::expect::{FrontendKind, Node, Port, is_external_local};
use super::tables::{Frontend, Tables};
use crate::describe::text::items;

/// The condition of a Service whose address this cluster has given.
const ASSIGNED: &str = "LoadBalancerAddressAssigned";

/// An address, and the nodes that announce it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Announcement {
    pub address: IpAddr,
    pub nodes: Vec<String>,
    /// What is wrong about that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<String>,
}

impl Announcement {
    pub fn text(&self) -> String {
        let Self { address, nodes, .. } = self;
        match nodes.as_slice() {
            [] => format!("{address} is announced by no node"),
            nodes => format!("{address} is announced by {}", nodes.join(" and ")),
        }
    }
}

/// The addresses of load balancers among what is traced. `answers` are those of all nodes, unless
/// some have not answered.
pub fn announcements(
    observed: &Observed,
    nodes: &[Node],
    answers: &[(&str, &Tables)],
    complete: bool,
) -> Vec<Announcement> {
    let mut expected: BTreeMap<IpAddr, bool> = BTreeMap::new();
    for traced in &observed.services {
        for ip in addresses(traced) {
            *expected.entry(ip).or_default() |= is_expected(traced, ip, nodes);
        }
    }
    let announcement = |(address, expected): (IpAddr, bool)| {
        let on = answers.iter().filter(|(_, tables)| tables.announced.contains(&address));
        let nodes: Vec<String> = on.map(|(node, _)| (*node).to_owned()).collect();
        let difference = match nodes.len() {
            0 if expected && complete => "machines on the nodes' link cannot find it",
            0 if !expected => return None,
            0 | 1 => "",
            _ => "machines on the nodes' link find either, until one of them yields",
        };
        let difference = (!difference.is_empty()).then(|| difference.to_owned());
        Some(Announcement { address, nodes, difference })
    };
    expected.into_iter().filter_map(announcement).collect()
}

fn addresses(traced: &Traced) -> impl Iterator<Item = IpAddr> {
    let balanced = traced.frontends.iter().filter(|one| one.kind == FrontendKind::LoadBalancer);
    balanced.filter_map(|one| match one.frontend {
        Frontend::Address { ip, .. } => Some(ip),
        Frontend::NodePort { .. } => None,
    })
}

/// Whether a node should announce the address: not those of nodes, nor of other implementations,
/// nor where only nodes with endpoints may.
fn is_expected(traced: &Traced, ip: IpAddr, nodes: &[Node]) -> bool {
    let service = &traced.service;
    let assigned = items(&service["status"]["conditions"])
        .any(|one| one["type"] == ASSIGNED && one["status"] == "True");
    let has_endpoints = || {
        items(&service["spec"]["ports"]).any(|port| {
            let port = Port::new(service, port, &traced.slices, ip.is_ipv6());
            port.endpoints.values().any(|endpoint| endpoint.serving)
        })
    };
    assigned
        && !nodes.iter().any(|node| node.addresses.contains(&ip))
        && (!is_external_local(service) || has_endpoints())
}
