//! Compares the nodes' tables with what the API's objects say. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;

use super::expect::{Node, Port, ServiceFrontend, SliceEndpoint, frontends, is_external_local};
use super::tables::{self, Clients, Endpoint, Frontend, Outcome, Rule, Tables};
use crate::describe::text::{items, or, word};

/// A Service that is traced.
pub struct Traced {
    pub service: Value,
    pub slices: Vec<Value>,
    /// Its frontends of interest.
    pub frontends: Vec<ServiceFrontend>,
}

impl Traced {
    pub fn new(service: Value, slices: Vec<Value>) -> Self {
        let frontends = frontends(&service);
        Self { service, slices, frontends }
    }

    pub fn name(&self) -> String {
        let metadata = &self.service["metadata"];
        format!("{}/{}", word(&metadata["namespace"]), word(&metadata["name"]))
    }
}

/// What all nodes are compared with.
#[derive(Default)]
pub struct Observed {
    pub services: Vec<Traced>,
    /// The addresses of the pod that is traced: only endpoints with them count.
    pub pod: Option<Vec<IpAddr>>,
    /// Frontends that are traced although no Service has them.
    pub stray: Vec<Frontend>,
    /// NetworkPolicies, and the pods' objects by `namespace/name`.
    pub policies: Vec<Value>,
    pub pods: BTreeMap<String, Value>,
}

/// An endpoint of a frontend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointReport {
    pub address: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pod: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub node: String,
    pub state: String,
    pub in_table: bool,
    /// NetworkPolicies that select the pod for ingress.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
}

/// A frontend on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FrontendReport {
    pub frontend: String,
    pub kind: String,
    pub service: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub port: String,
    /// Set for the rules for clients outside the cluster.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub outside: bool,
    pub rule: String,
    pub endpoints: Vec<EndpointReport>,
    /// How the table differs from what the API says.
    pub differences: Vec<String>,
}

/// All that was asked for on a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeReport {
    pub frontends: Vec<FrontendReport>,
    /// Elements about the traced addresses that are not of Services.
    pub other_elements: Vec<String>,
    /// Whether policies let the client's connections to the endpoints pass.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<String>,
    pub differences: Vec<String>,
}

impl NodeReport {
    pub fn differs(&self) -> bool {
        let mut frontends = self.frontends.iter();
        !self.differences.is_empty() || frontends.any(|one| !one.differences.is_empty())
    }
}

/// Compares the tables of one node; rules for clients only if there are clients of interest on it.
pub fn node(observed: &Observed, node: &Node, tables: &Tables, clients: bool) -> NodeReport {
    let mut report = NodeReport::default();
    for traced in observed.services.iter().filter(|_| clients) {
        for frontend in &traced.frontends {
            report.frontends.extend(of_frontend(observed, traced, frontend, node, tables));
        }
    }
    for frontend in &observed.stray {
        let rule = tables.rule(frontend, Clients::Any);
        if rule.outcome != Outcome::Nothing {
            report.differences.push(format!(
                "{}: {}, but no Service has this frontend",
                frontend.text(),
                rule.text
            ));
        }
    }
    if let Some(addresses) = &observed.pod {
        let known = || observed.services.iter().flat_map(|traced| frontends(&traced.service));
        let known: BTreeSet<Frontend> = known().map(|one| one.frontend).collect();
        let leading = addresses.iter().flat_map(|ip| tables.leading_to(*ip));
        for frontend in leading.filter(|frontend| !known.contains(frontend)) {
            let text = frontend.text();
            report.differences.push(format!("{text} leads to the pod, but no Service does"));
        }
    }
    let mut others: Vec<String> =
        addresses(observed).iter().flat_map(|ip| tables.others(ip)).collect();
    others.sort();
    others.dedup();
    report.other_elements = others;
    report.verdicts = tables.verdicts.iter().flat_map(tables::Verdict::lines).collect();
    report.differences.extend(unenforced(observed, node, tables));
    if tables.truncated {
        report.differences.push("the proxy left out elements: there are too many".to_owned());
    }
    report
}

/// NetworkPolicies that select a pod of the node, in whose tables nothing is about the pod.
fn unenforced(observed: &Observed, node: &Node, tables: &Tables) -> Vec<String> {
    let own = observed.pods.iter().filter(|(_, pod)| pod["spec"]["nodeName"] == *node.name);
    let mut found = Vec::new();
    for (name, pod) in own {
        let mut addresses = items(&pod["status"]["podIPs"]).map(|one| word(&one["ip"]));
        if addresses.any(|ip| !tables.others(&ip).is_empty()) {
            continue;
        }
        for direction in ["Ingress", "Egress"] {
            let policies = selecting(&observed.policies, pod, direction);
            if !policies.is_empty() {
                found.push(format!(
                    "no element is about pod {name}, so nothing enforces its NetworkPolicies for {}: {}",
                    direction.to_lowercase(),
                    policies.join(", ")
                ));
            }
        }
    }
    found
}

/// The addresses whose elements in other maps are of interest.
fn addresses(observed: &Observed) -> BTreeSet<String> {
    let mut found: BTreeSet<String> = BTreeSet::new();
    for pod in observed.pods.values() {
        found.extend(items(&pod["status"]["podIPs"]).map(|one| word(&one["ip"])));
    }
    for traced in &observed.services {
        for one in &traced.frontends {
            if let Frontend::Address { ip, .. } = &one.frontend {
                found.insert(ip.to_string());
            }
        }
    }
    found
}

fn of_frontend(
    observed: &Observed,
    traced: &Traced,
    one: &ServiceFrontend,
    node: &Node,
    tables: &Tables,
) -> Vec<FrontendReport> {
    let service = &traced.service;
    let port = Port::new(service, &one.port, &traced.slices, one.frontend.is_v6());
    let external = one.kind != super::expect::FrontendKind::ClusterIp;
    let clients: &[Clients] = match external && is_external_local(service) {
        true => &[Clients::Any, Clients::Outside],
        false => &[Clients::Any],
    };
    let mut reports = Vec::new();
    for clients in clients.iter().copied() {
        let mut report = FrontendReport {
            frontend: one.frontend.text(),
            kind: one.kind.name().to_owned(),
            service: traced.name(),
            port: or(&one.port["name"], ""),
            outside: clients == Clients::Outside,
            rule: String::new(),
            endpoints: Vec::new(),
            differences: Vec::new(),
        };
        let is_ignored = matches!(
            &one.frontend, Frontend::Address { ip, .. } if tables.ignored.contains(ip));
        if is_ignored {
            report.rule = "none: the node's own DNS server has this address".to_owned();
            reports.push(report);
            continue;
        }
        let rule = tables.rule(&one.frontend, clients);
        let expected = port.outcome(one, clients, node);
        report.differences = differences(&port, &expected, &rule);
        report.rule.clone_from(&rule.text);
        let namespace = word(&service["metadata"]["namespace"]);
        report.endpoints = endpoints(observed, &namespace, &port, &expected, &rule.outcome);
        reports.push(report);
    }
    reports
}

fn set(outcome: &Outcome) -> BTreeSet<Endpoint> {
    match outcome {
        Outcome::Balance(endpoints) => endpoints.clone(),
        _ => BTreeSet::new(),
    }
}

fn address(endpoint: &Endpoint) -> String {
    std::net::SocketAddr::new(endpoint.0, endpoint.1).to_string()
}

fn endpoints(
    observed: &Observed,
    namespace: &str,
    port: &Port<'_>,
    expected: &Outcome,
    actual: &Outcome,
) -> Vec<EndpointReport> {
    let (expected, actual) = (set(expected), set(actual));
    let of_pod = |endpoint: &&Endpoint| {
        observed.pod.as_ref().is_none_or(|addresses| addresses.contains(&endpoint.0))
    };
    let all: BTreeSet<&Endpoint> = expected.union(&actual).filter(of_pod).collect();
    let nothing = SliceEndpoint::default();
    let report = |endpoint: &Endpoint| {
        let known = port.endpoints.get(endpoint);
        let found = known.unwrap_or(&nothing);
        let pod = observed.pods.get(&format!("{namespace}/{}", found.pod));
        EndpointReport {
            address: address(endpoint),
            pod: found.pod.clone(),
            node: found.node.clone(),
            state: known.map_or("not in the API", SliceEndpoint::state).to_owned(),
            in_table: actual.contains(endpoint),
            policies: pod
                .map(|pod| selecting(&observed.policies, pod, "Ingress"))
                .unwrap_or_default(),
        }
    };
    all.into_iter().map(report).collect()
}

/// The NetworkPolicies of its namespace that select a pod, for a direction.
pub fn selecting(policies: &[Value], pod: &Value, direction: &str) -> Vec<String> {
    let labels: BTreeMap<String, String> = pod["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), word(value)))
        .collect();
    let selects = |policy: &&Value| {
        let text = serde_json::to_vec(&policy["spec"]["podSelector"]).unwrap_or_default();
        let selector = api::labels::decode_label_selector(&text).ok();
        let selector =
            selector.and_then(|one| api::labels::Selector::from_label_selector(Some(&one)).ok());
        policy["metadata"]["namespace"] == pod["metadata"]["namespace"]
            && items(&policy["spec"]["policyTypes"]).any(|kind| kind == direction)
            && selector.is_some_and(|selector| selector.matches(Some(&labels)))
    };
    policies.iter().filter(selects).map(|policy| word(&policy["metadata"]["name"])).collect()
}

fn differences(port: &Port<'_>, expected: &Outcome, rule: &Rule) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let actual = &rule.outcome;
    match (expected, actual) {
        (Outcome::Balance(expected), Outcome::Balance(actual)) => {
            for endpoint in expected.difference(actual) {
                let state = port.endpoints.get(endpoint).map_or("", SliceEndpoint::state);
                found.push(format!("{} ({state}) is not in the table", address(endpoint)));
            }
            for endpoint in actual.difference(expected) {
                let why = match port.endpoints.get(endpoint) {
                    None => "no EndpointSlice has it".to_owned(),
                    Some(found) if found.ready => "this node should not use it".to_owned(),
                    Some(found) => format!("it is {}", found.state()),
                };
                found.push(format!("{} is in the table, but {why}", address(endpoint)));
            }
        }
        (expected, actual) if expected == actual => {}
        (expected, actual) => {
            found.push(format!(
                "connections are {}, but should be {}",
                verb(actual),
                verb(expected)
            ));
        }
    }
    for slot in &rule.empty_slots {
        found.push(format!("slot {slot} has no endpoint: connections that get it fail"));
    }
    found
}

fn verb(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Balance(endpoints) if endpoints.len() == 1 => "directed to an endpoint".to_owned(),
        Outcome::Balance(endpoints) => format!("directed to {} endpoints", endpoints.len()),
        Outcome::Reject => "rejected".to_owned(),
        Outcome::Drop => "dropped".to_owned(),
        Outcome::Nothing => "left alone".to_owned(),
    }
}
