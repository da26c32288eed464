//! Nodes.

use super::check::{self, Errors};
use super::columns;
use super::path::Path;
use super::pod_spec;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, Taint};
use serde_json::Value;

use super::{Column, Context, Strategy, fill};

/// The strategy of Nodes. A kubelet registers its node with its status, so a create keeps it.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Status", "The status of the node."),
    columns::text("Roles", "The roles of the node."),
    columns::AGE,
    columns::text("Version", "Version of the kubelet."),
    columns::wide("Internal-IP", "Address inside the cluster."),
    columns::wide("External-IP", "Address outside the cluster."),
    columns::wide("OS-Image", "Operating system."),
    columns::wide("Kernel-Version", "Version of the kernel."),
    columns::wide("Container-Runtime", "Name and version of the container runtime."),
];

impl Strategy for Rules {
    type Object = Node;

    fn default(&self, node: &mut Node) {
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
    }

    fn prepare_update(&self, new: &mut Node, old: &Node, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(&self, new: &mut Node, old: &Node, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
    }

    fn validate(&self, node: &Node) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (none, spec) = (NodeSpec::default(), node.spec.as_ref());
        let spec = spec.unwrap_or(&none);
        // Upstream reports metadata here.
        validate_taints(
            spec.taints.as_deref().unwrap_or_default(),
            &Path::new("metadata").child("taints"),
            &mut errors,
        );
        for (index, cidr) in spec.pod_cidrs.iter().flatten().enumerate() {
            check::cidr(cidr, &Path::new("spec").child("podCIDRs").index(index), &mut errors);
        }
        let status = node.status.iter();
        for (field, list) in status.flat_map(|status| {
            [("capacity", &status.capacity), ("allocatable", &status.allocatable)]
        }) {
            for (name, amount) in list.iter().flatten() {
                let path = Path::new("status").child(field).child(name);
                pod_spec::resources::quantity(name, amount, &path, &mut errors);
            }
        }
        errors
    }

    fn validate_update(&self, new: &Node, old: &Node) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (Some(spec), Some(was)) = (&new.spec, &old.spec) else {
            return errors;
        };
        let had = was.pod_cidrs.iter().flatten().next().is_some();
        if had && spec.pod_cidrs != was.pod_cidrs {
            let problem = "node updates may not change podCIDR except from \"\" to valid";
            errors.push(FieldError::forbidden("spec.podCIDRs", problem));
        }
        if !check::text(&was.provider_id).is_empty() && spec.provider_id != was.provider_id {
            let problem = "node updates may not change providerID except from \"\" to valid";
            errors.push(FieldError::forbidden("spec.providerID", problem));
        }
        errors
    }

    fn validate_status_update(&self, new: &Node, _: &Node) -> Vec<FieldError> {
        Strategy::validate(self, new)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, node: &Node, now: Timestamp) -> Vec<Value> {
        let none = NodeStatus::default();
        let status = node.status.as_ref().unwrap_or(&none);
        let info = status.node_info.as_ref();
        let known = |text: Option<&String>| match text {
            Some(text) if !text.is_empty() => Value::from(text.as_str()),
            _ => "<unknown>".into(),
        };
        let address = |kind: &str| {
            let mut all = status.addresses.iter().flatten();
            columns::or_none(
                all.find(|address| address.type_ == kind).map(|address| address.address.as_str()),
            )
        };
        vec![
            columns::name(&node.metadata),
            status_text(node, status).into(),
            columns::joined(&roles(node)),
            columns::age(&node.metadata, now),
            info.map(|info| info.kubelet_version.clone()).unwrap_or_default().into(),
            address("InternalIP"),
            address("ExternalIP"),
            known(info.map(|info| &info.os_image)),
            known(info.map(|info| &info.kernel_version)),
            known(info.map(|info| &info.container_runtime_version)),
        ]
    }
}

fn status_text(node: &Node, status: &NodeStatus) -> String {
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let ready = match ready.map(|condition| condition.status.as_str()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    format!("{ready}{}", if unschedulable { ",SchedulingDisabled" } else { "" })
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

fn validate_taints(taints: &[Taint], path: &Path, errors: &mut Errors) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        check::qualified_name(&taint.key, &path.child("key"), errors);
        let value = check::text(&taint.value);
        let problems = api::names::label_value(value);
        if !problems.is_empty() {
            errors.push(FieldError::invalid(path.child("value"), value, problems.join(";")));
        }
        check::one_of(&taint.effect, pod_spec::TAINT_EFFECTS, &path.child("effect"), errors);
        if seen.contains(&(&taint.key, &taint.effect)) {
            let mut error = FieldError::duplicate(&path, &taint.key);
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.push(error);
        }
        seen.push((&taint.key, &taint.effect));
    }
}
