//! Nodes.

use api::status::FieldError;
use k8s_openapi::api::core::v1::{Node, Taint};
use serde_json::Value;

use super::at::At;
use super::columns::{self, text, wide};
use super::table::{Parts, Rows, age, items, name, status_apart, text_at};
use super::{check, fill, pod_spec};

pub static RULES: Rows<Node> = Rows {
    default: |node| {
        let spec = node.spec.get_or_insert_default();
        // One field under two names; the older one takes precedence.
        let first = spec.pod_cidrs.iter().flatten().next();
        match spec.pod_cidr.as_ref().filter(|cidr| !cidr.is_empty()) {
            Some(cidr) if first != Some(cidr) => spec.pod_cidrs = Some(vec![cidr.clone()]),
            Some(_) => {}
            None => spec.pod_cidr = first.cloned(),
        }
        let status = node.status.get_or_insert_default();
        fill::amounts(&mut status.capacity);
        fill::amounts(&mut status.allocatable);
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
    },
    parts: Parts {
        create: |_, _| {},
        status: |new, old, _| new.spec.clone_from(&old.spec),
        ..status_apart!()
    },
    judge: |node, at| judge(node, at),
    update: |new, old, at| {
        let (Some(spec), Some(was)) = (&new.spec, &old.spec) else {
            return;
        };
        let had = was.pod_cidrs.iter().flatten().next().is_some();
        if had && spec.pod_cidrs != was.pod_cidrs {
            at.child("spec.podCIDRs")
                .forbidden("node updates may not change podCIDR except from \"\" to valid");
        }
        if !check::text(&was.provider_id).is_empty() && spec.provider_id != was.provider_id {
            at.child("spec.providerID")
                .forbidden("node updates may not change providerID except from \"\" to valid");
        }
    },
    status_update: |new, _, _, at| judge(new, at),
    columns: &[
        name(),
        text("Status", "The status of the node.").json(status_text),
        text("Roles", "The roles of the node.").of(|node| columns::joined(&roles(node))),
        age(),
        text("Version", "Version of the kubelet.").at("status.nodeInfo.kubeletVersion"),
        wide("Internal-IP", "Address inside the cluster.").json(|node| address(node, "InternalIP")),
        wide("External-IP", "Address outside the cluster.")
            .json(|node| address(node, "ExternalIP")),
        wide("OS-Image", "Operating system.").or("status.nodeInfo.osImage", "<unknown>"),
        wide("Kernel-Version", "Version of the kernel.")
            .or("status.nodeInfo.kernelVersion", "<unknown>"),
        wide("Container-Runtime", "Name and version of the container runtime.")
            .or("status.nodeInfo.containerRuntimeVersion", "<unknown>"),
    ],
    ..Rows::NEW
};

fn judge(node: &Node, at: &At<'_>) {
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    // Upstream reports metadata here.
    validate_taints(taints, &at.child("metadata.taints"));
    let ranges = spec.iter().flat_map(|spec| spec.pod_cidrs.iter().flatten());
    for (index, cidr) in ranges.enumerate() {
        at.item("spec.podCIDRs", index).cidr(cidr);
    }
    let Some(status) = &node.status else { return };
    let lists =
        [("status.capacity", &status.capacity), ("status.allocatable", &status.allocatable)];
    for (field, list) in lists {
        for (name, amount) in list.iter().flatten() {
            pod_spec::resources::quantity(name, amount, &at.child(field).child(name));
        }
    }
}

fn status_text(node: &Value) -> Value {
    let mut conditions = items(&node["status"]["conditions"]).iter();
    let ready = conditions.find(|condition| condition["type"] == "Ready");
    let ready = match ready.map(|condition| text_at(condition, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let unschedulable = node["spec"]["unschedulable"] == true;
    format!("{ready}{}", if unschedulable { ",SchedulingDisabled" } else { "" }).into()
}

fn address(node: &Value, sort: &str) -> Value {
    let mut all = items(&node["status"]["addresses"]).iter();
    let found = all.find(|address| address["type"] == sort);
    columns::or_none(found.map(|address| text_at(address, "address")))
}

fn roles(node: &Node) -> Vec<String> {
    let mut roles: Vec<String> = Vec::new();
    for (key, value) in node.metadata.labels.iter().flatten() {
        match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) if !role.is_empty() => roles.push(role.to_owned()),
            None if key == "kubernetes.io/role" && !value.is_empty() => roles.push(value.clone()),
            _ => {}
        }
    }
    roles.sort();
    roles.dedup();
    roles
}

fn validate_taints(taints: &[Taint], at: &At<'_>) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (index, taint) in taints.iter().enumerate() {
        let at = at.index(index);
        at.child("key").qualified_name(&taint.key);
        let value = check::text(&taint.value);
        let problems = api::names::label_value(value);
        if !problems.is_empty() {
            at.child("value").invalid(value, problems.join(";"));
        }
        at.child("effect").one_of(&taint.effect, pod_spec::TAINT_EFFECTS);
        if seen.contains(&(&taint.key, &taint.effect)) {
            let mut error = FieldError::duplicate(at.to_string(), &taint.key);
            error.detail = "taints must be unique by key and effect pair".to_owned();
            at.error(error);
        }
        seen.push((&taint.key, &taint.effect));
    }
}
