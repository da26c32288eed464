//! Why a pod that a Service selects is not among its ready endpoints.
//!
//! Follows the rules by which pods become endpoints (`k8s.io/endpointslice`). Pure: compares what
//! was read at one moment.

use std::net::IpAddr;

use serde_json::Value;

use crate::describe::text::{fields, items, or, word};

/// How many pods are listed.
const SHOWN: usize = 10;
/// In place of a port: the reason applies to all ports.
const ALL_PORTS: &str = "<all>";

/// A selected pod, a port that it is not a ready endpoint of, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    pub pod: String,
    pub port: String,
    pub why: String,
}

/// What was read of a Service.
pub struct Observed<'a> {
    pub service: &'a Value,
    /// The pods that its selector matches.
    pub pods: &'a [Value],
    /// All pods of its namespace, or at least their metadata; only read if no pod is selected.
    pub others: &'a [Value],
    /// Its EndpointSlices.
    pub slices: &'a [Value],
}

/// Whether the Service has endpoints at all: those of an ExternalName are names.
pub fn has_endpoints(service: &Value) -> bool {
    service["spec"]["type"] != "ExternalName"
}

/// All that is missing, in the order of pods and ports.
pub fn missing(observed: &Observed<'_>) -> Vec<Missing> {
    let service = observed.service;
    if !has_endpoints(service) {
        return Vec::new();
    }
    let row = |pod: &str, port: &str, why: String| Missing {
        pod: pod.to_owned(),
        port: port.to_owned(),
        why,
    };
    if fields(&service["spec"]["selector"]).next().is_none() {
        let without = observed.slices.iter().all(|slice| items(&slice["endpoints"]).count() == 0);
        let why = "the Service has no selector, and no EndpointSlice has endpoints for it";
        return without.then(|| row("<none>", ALL_PORTS, why.to_owned())).into_iter().collect();
    }
    if observed.pods.is_empty() {
        return vec![row("<none>", ALL_PORTS, no_pod(service, observed.others))];
    }
    let mut rows = Vec::new();
    for pod in observed.pods {
        let name = word(&pod["metadata"]["name"]);
        match unavailable(service, pod) {
            Some(why) => rows.push(row(&name, ALL_PORTS, why)),
            None => {
                for (port, why) in of_ports(observed, pod) {
                    rows.push(row(&name, &port, why));
                }
            }
        }
    }
    rows
}

/// The rows of a table, at most [`SHOWN`] of them.
pub fn table(missing: &[Missing]) -> Vec<[String; 3]> {
    let mut rows = vec![["Pod", "Port", "Reason"].map(str::to_owned)];
    rows.push(["---", "----", "------"].map(str::to_owned));
    let row = |one: &Missing| [one.pod.clone(), one.port.clone(), one.why.clone()];
    rows.extend(missing.iter().take(SHOWN).map(row));
    if missing.len() > SHOWN {
        rows.push([format!("+ {} more...", missing.len() - SHOWN), String::new(), String::new()]);
    }
    rows
}

/// Which label keeps pods from being selected, if it is a single one.
fn no_pod(service: &Value, others: &[Value]) -> String {
    let selector: Vec<(&String, &Value)> = fields(&service["spec"]["selector"]).collect();
    let text = |pair: &(&String, &Value)| format!("{}={}", pair.0, word(pair.1));
    let all: Vec<String> = selector.iter().map(text).collect();
    let mut why = format!("no pod is labelled {}", all.join(","));
    for (index, pair) in selector.iter().enumerate() {
        let matches = |pod: &&Value| {
            let labels = &pod["metadata"]["labels"];
            let rest = selector.iter().enumerate().filter(|(other, _)| *other != index);
            rest.map(|(_, pair)| pair).all(|(key, value)| labels[key.as_str()] == **value)
        };
        let count = if selector.len() > 1 { others.iter().filter(matches).count() } else { 0 };
        if count > 0 {
            let pods = if count == 1 { "1 pod is".to_owned() } else { format!("{count} pods are") };
            why.push_str(&format!("; but for {}, {pods}", text(pair)));
        }
    }
    why
}

/// A reason that applies to every port of the pod.
fn unavailable(service: &Value, pod: &Value) -> Option<String> {
    let status = &pod["status"];
    if let Some(phase @ ("Succeeded" | "Failed")) = status["phase"].as_str() {
        return Some(format!("the pod has terminated: {phase}"));
    }
    let ready = condition(pod, "Ready");
    let is_ready = ready.is_some_and(|ready| ready["status"] == "True");
    if !pod["metadata"]["deletionTimestamp"].is_null() {
        let serving = "the pod is terminating; it serves as long as no other endpoint is ready";
        return Some(if is_ready { serving } else { "the pod is terminating" }.to_owned());
    }
    if addresses(pod).next().is_none() {
        return Some(format!("the pod has no address: {}", waiting(pod)));
    }
    if is_ready || service["spec"]["publishNotReadyAddresses"] == true {
        return None;
    }
    let message = ready.map(|ready| or(&ready["message"], &word(&ready["reason"])));
    let message = message.filter(|message| !message.is_empty());
    let mut why = match message {
        Some(message) => format!("the pod is not ready: {message}"),
        None => "the pod is not ready".to_owned(),
    };
    for (container, reason) in waiting_containers(pod) {
        why.push_str(&format!("; {container}: {reason}"));
    }
    Some(why)
}

/// Why the pod has not started.
fn waiting(pod: &Value) -> String {
    let scheduled = condition(pod, "PodScheduled").filter(|found| found["status"] == "False");
    if let Some(scheduled) = scheduled {
        return or(&scheduled["message"], &word(&scheduled["reason"]));
    }
    let found = waiting_containers(pod).next();
    found.map_or_else(|| or(&pod["status"]["phase"], "Pending"), |(_, reason)| reason)
}

/// Containers that wait, and for what.
fn waiting_containers(pod: &Value) -> impl Iterator<Item = (String, String)> + '_ {
    let status = &pod["status"];
    let all = items(&status["initContainerStatuses"]).chain(items(&status["containerStatuses"]));
    all.filter(|one| one["state"]["waiting"]["reason"].is_string())
        .map(|one| (word(&one["name"]), word(&one["state"]["waiting"]["reason"])))
}

/// Each port that an available pod is not a ready endpoint of.
fn of_ports(observed: &Observed<'_>, pod: &Value) -> Vec<(String, String)> {
    let spec = &observed.service["spec"];
    let mut rows = Vec::new();
    let families: Vec<String> = items(&spec["ipFamilies"]).map(word).collect();
    let (with, without): (Vec<_>, Vec<_>) = families
        .into_iter()
        .map(|family| (address(pod, &family), family))
        .partition(|(ip, _)| ip.is_some());
    for (_, family) in without {
        rows.push((ALL_PORTS.to_owned(), format!("the pod has no {family} address")));
    }
    for port in items(&spec["ports"]) {
        let shown = or(&port["name"], &word(&port["port"]));
        let number = match port_number(port, pod) {
            Ok(number) => number,
            Err(why) => {
                rows.push((shown, why));
                continue;
            }
        };
        for (ip, family) in &with {
            let published =
                ip.is_some_and(|ip| is_endpoint(observed.slices, family, &ip, port, number));
            if !published {
                let why =
                    format!("not in an {family} EndpointSlice yet, although the pod is ready");
                rows.push((shown.clone(), why));
            }
        }
    }
    rows
}

/// Whether a slice has the address as an endpoint of that port that is ready.
fn is_endpoint(slices: &[Value], family: &str, ip: &IpAddr, port: &Value, number: i64) -> bool {
    let protocol = |port: &Value| or(&port["protocol"], "TCP");
    slices.iter().filter(|slice| slice["addressType"] == family).any(|slice| {
        let of_port = items(&slice["ports"]).any(|one| {
            word(&one["name"]) == word(&port["name"])
                && one["port"].as_i64() == Some(number)
                && protocol(one) == protocol(port)
        });
        let mut ready = items(&slice["endpoints"])
            .filter(|endpoint| endpoint["conditions"]["ready"] != false)
            .flat_map(|endpoint| items(&endpoint["addresses"]));
        of_port && ready.any(|address| word(address).parse().ok() == Some(*ip))
    })
}

/// The pod's port for a port of the Service.
fn port_number(port: &Value, pod: &Value) -> Result<i64, String> {
    let own = port["port"].as_i64().unwrap_or_default();
    let name = match &port["targetPort"] {
        Value::String(name) => name,
        target => return Ok(target.as_i64().filter(|number| *number != 0).unwrap_or(own)),
    };
    let protocol = or(&port["protocol"], "TCP");
    let spec = &pod["spec"];
    let sidecars = items(&spec["initContainers"]).filter(|one| one["restartPolicy"] == "Always");
    let containers = items(&spec["containers"]).chain(sidecars);
    let named: Vec<&Value> = containers
        .flat_map(|container| items(&container["ports"]))
        .filter(|declared| declared["name"] == *name.as_str())
        .collect();
    let same = named.iter().find(|declared| or(&declared["protocol"], "TCP") == protocol);
    match (same, named.first()) {
        (Some(found), _) => Ok(found["containerPort"].as_i64().unwrap_or_default()),
        (None, Some(other)) => {
            let is = or(&other["protocol"], "TCP");
            Err(format!("the container port {name:?} is for {is}, not {protocol}"))
        }
        (None, None) => Err(format!("no container port is named {name:?}")),
    }
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    items(&pod["status"]["conditions"]).find(|condition| condition["type"] == kind)
}

fn addresses(pod: &Value) -> impl Iterator<Item = IpAddr> + '_ {
    let all = items(&pod["status"]["podIPs"]).map(|one| &one["ip"]);
    all.chain([&pod["status"]["podIP"]]).filter_map(|ip| word(ip).parse().ok())
}

/// The pod's address of a family: `IPv4` or `IPv6`.
fn address(pod: &Value, family: &str) -> Option<IpAddr> {
    addresses(pod).find(|ip| ip.is_ipv4() == (family == "IPv4"))
}

#[cfg(test)]
mod tests;
