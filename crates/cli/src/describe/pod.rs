//! Pods and pod templates.

use serde_json::Value;

use crate::describe::container::containers;
use crate::describe::text::{self, Description, items, moment, or, time, word};
use crate::describe::{controller, heading, labels, volume};
use crate::output::event::ago;

pub fn describe(pod: &Value, out: &mut Description) {
    let (metadata, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    heading(pod, out);
    out.line_or("Priority", &spec["priority"], "0");
    out.line_if("Priority Class Name", &spec["priorityClassName"]);
    out.line_if("Runtime Class Name", &spec["runtimeClassName"]);
    out.line_or("Service Account", &spec["serviceAccountName"], "default");
    match spec["nodeName"].as_str() {
        Some(node) => out.line("Node", format!("{node}/{}", word(&status["hostIP"]))),
        None => out.line("Node", "<none>"),
    }
    let started = moment(&status["startTime"]);
    if !started.is_empty() {
        out.line("Start Time", started);
    }
    labels(pod, out);
    match time(&metadata["deletionTimestamp"]) {
        Some(deleted) => {
            let seconds = or(&metadata["deletionGracePeriodSeconds"], "0");
            out.line("Status", format!("Terminating (lasts {})", ago(Some(deleted))));
            out.line("Termination Grace Period", format!("{seconds}s"));
        }
        None => out.line("Status", word(&status["phase"])),
    }
    out.line_if("Reason", &status["reason"]);
    out.line_if("Message", &status["message"]);
    out.line("IP", word(&status["podIP"]));
    if items(&status["podIPs"]).next().is_none() {
        out.line("IPs", "<none>");
    } else {
        out.section("IPs", |out| {
            items(&status["podIPs"]).for_each(|ip| out.line("IP", word(&ip["ip"])));
        });
    }
    controller(pod, out);
    out.line_if("NominatedNodeName", &status["nominatedNodeName"]);
    for (title, list, states) in [
        ("Init Containers", "initContainers", "initContainerStatuses"),
        ("Containers", "containers", "containerStatuses"),
        ("Ephemeral Containers", "ephemeralContainers", "ephemeralContainerStatuses"),
    ] {
        containers(title, &spec[list], &status[states], Some(pod), out);
    }
    if items(&spec["readinessGates"]).next().is_some() {
        out.section("Readiness Gates", |out| {
            out.cells(&["Type", "Status"]);
            for gate in items(&spec["readinessGates"]) {
                let kind = word(&gate["conditionType"]);
                let found = items(&status["conditions"]).find(|one| one["type"] == kind.as_str());
                let status = found.map_or("<none>".to_owned(), |one| word(&one["status"]));
                out.cells(&[&format!("{kind} "), &format!("{status} ")]);
            }
        });
    }
    conditions(&status["conditions"], out);
    volumes(&spec["volumes"], false, out);
    out.line("QoS Class", word(&status["qosClass"]));
    placement(spec, "", out);
}

/// Type and status of every condition.
fn conditions(conditions: &Value, out: &mut Description) {
    if items(conditions).next().is_none() {
        return;
    }
    out.section("Conditions", |out| {
        out.cells(&["Type", "Status"]);
        for condition in items(conditions) {
            let (kind, status) = (word(&condition["type"]), word(&condition["status"]));
            out.cells(&[&format!("{kind} "), &format!("{status} ")]);
        }
    });
}

/// What restricts where the pods may run.
fn placement(spec: &Value, space: &str, out: &mut Description) {
    out.map(&format!("{space}Node-Selectors"), &spec["nodeSelector"], "=");
    let mut keyed: Vec<&Value> = items(&spec["tolerations"]).collect();
    keyed.sort_by_key(|toleration| word(&toleration["key"]));
    let tolerations: Vec<String> = keyed.into_iter().map(toleration).collect();
    out.list(&format!("{space}Tolerations"), &tolerations);
    let spread: Vec<String> = items(&spec["topologySpreadConstraints"])
        .map(|one| {
            format!(
                "{}:{} when max skew {} is exceeded for selector {}",
                word(&one["topologyKey"]),
                word(&one["whenUnsatisfiable"]),
                word(&one["maxSkew"]),
                text::selector(&one["labelSelector"], "<none>"),
            )
        })
        .collect();
    if !spread.is_empty() {
        out.list(&format!("{space}Topology Spread Constraints"), &spread);
    }
}

/// The pod template of a workload.
pub fn template(template: &Value, out: &mut Description) {
    out.raw("Pod Template:");
    out.map("  Labels", &template["metadata"]["labels"], "=");
    let annotations: Vec<String> = text::fields(&template["metadata"]["annotations"])
        .map(|(key, value)| format!("{key}: {}", word(value)))
        .collect();
    if !annotations.is_empty() {
        out.list("  Annotations", &annotations);
    }
    let spec = &template["spec"];
    out.line_if("  Service Account", &spec["serviceAccountName"]);
    let none = Value::Null;
    containers("Init Containers", &spec["initContainers"], &none, None, out);
    containers("Containers", &spec["containers"], &none, None, out);
    volumes(&spec["volumes"], true, out);
    out.line_if("  Priority Class Name", &spec["priorityClassName"]);
    placement(spec, "  ", out);
}

fn volumes(volumes: &Value, template: bool, out: &mut Description) {
    let (space, inner) = if template { ("  ", " ") } else { ("", "") };
    if items(volumes).next().is_none() {
        return out.line(&format!("{space}Volumes"), "<none>");
    }
    out.raw(&format!("{space}Volumes:"));
    for one in items(volumes) {
        out.nested(|out| out.raw(&format!("{inner}{}:", word(&one["name"]))));
        out.deeper(2, |out| volume::source(one, &["name"], out));
    }
}

fn toleration(toleration: &Value) -> String {
    let mut text = word(&toleration["key"]);
    for (field, before) in [("value", "="), ("effect", ":")] {
        let value = word(&toleration[field]);
        if !value.is_empty() {
            text.push_str(&format!("{before}{value}"));
        }
    }
    if toleration["operator"] == "Exists" {
        text.push_str(if text.is_empty() { "op=Exists" } else { " op=Exists" });
    }
    if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
        text.push_str(&format!(" for {seconds}s"));
    }
    text
}
