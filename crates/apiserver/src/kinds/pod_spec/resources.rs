//! Requests and limits.

use std::collections::BTreeMap;

use api::pod::{is_extended_resource, is_native_resource};
use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{ContainerResizePolicy, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::kinds::at::At;
use crate::kinds::check::Unique;

/// Whose resources they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Container,
    Pod,
}

pub fn validate(resources: Option<&ResourceRequirements>, owner: Owner, at: &At<'_>) {
    let Some(resources) = resources else { return };
    let (limit_path, request_path) = (at.child("limits"), at.child("requests"));
    let limits = amounts(resources.limits.as_ref(), owner, &limit_path);
    let requests = amounts(resources.requests.as_ref(), owner, &request_path);
    for (name, (amount, text)) in &requests {
        match limits.get(name) {
            Some((limit, limit_text)) if amount != limit && !overcommittable(name) => {
                let problem = format!("must be equal to {name} limit of {limit_text}");
                request_path.invalid(text, problem);
            }
            Some((limit, limit_text)) if amount > limit => {
                let problem = format!("must be less than or equal to {name} limit of {limit_text}");
                request_path.invalid(text, problem);
            }
            None if !overcommittable(name) => {
                limit_path.required("Limit must be set for non overcommitable resources")
            }
            _ => {}
        }
    }
    let names = || limits.keys().chain(requests.keys()).map(String::as_str);
    if names().any(is_huge_page) && !names().any(|name| name == "cpu" || name == "memory") {
        at.forbidden("HugePages require cpu or memory");
    }
}

type Amounts = BTreeMap<String, (Quantity, String)>;

fn amounts(list: Option<&BTreeMap<String, Text>>, owner: Owner, at: &At<'_>) -> Amounts {
    let mut read = Amounts::new();
    for (name, text) in list.into_iter().flatten() {
        let at = at.key(name);
        match owner {
            Owner::Container => container_resource(name, &at),
            Owner::Pod if !matches!(name.as_str(), "cpu" | "memory") && !is_huge_page(name) => {
                at.not_supported(name, &["cpu", "hugepages-", "memory"])
            }
            Owner::Pod => {}
        }
        if let Some(amount) = quantity(name, text, &at) {
            read.insert(name.clone(), (amount, text.0.clone()));
        }
    }
    read
}

/// A quantity of a resource: not negative, and an integer where the resource has no fractions.
pub fn quantity(name: &str, text: &Text, at: &At<'_>) -> Option<Quantity> {
    let amount = at.amount(text)?;
    if is_integer(name) && !amount.is_whole() {
        at.invalid(&text.0, "must be an integer");
    }
    Some(amount)
}

fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Resources whose limits may exceed their requests.
fn overcommittable(name: &str) -> bool {
    is_native_resource(name) && !is_huge_page(name)
}

fn is_integer(name: &str) -> bool {
    const COUNTED: &[&str] = &[
        "pods",
        "services",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
        "services.loadbalancers",
    ];
    COUNTED.contains(&name) || is_extended_resource(name)
}

pub fn container_resource(name: &str, at: &At<'_>) {
    at.qualified_name(name);
    if name.contains('/') {
        if !is_native_resource(name) && !is_extended_resource(name) {
            at.invalid(name, "doesn't follow extended resource name standard");
        }
    } else if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(name) {
        if !is_integer(name) && name != "storage" {
            at.invalid(name, "must be a standard resource type or fully qualified");
        }
        at.invalid(name, "must be a standard resource for containers");
    }
}

pub fn resize_policy(policies: &[ContainerResizePolicy], restart_policy: &str, at: &At<'_>) {
    let mut seen = Unique::default();
    for (index, policy) in policies.iter().enumerate() {
        seen.add(&policy.resource_name, &at.index(index));
        at.one_of(&policy.resource_name, &["cpu", "memory"]);
        at.one_of(&policy.restart_policy, &["NotRequired", "RestartContainer"]);
        if restart_policy == "Never" && policy.restart_policy != "NotRequired" {
            at.invalid(
                &policy.restart_policy,
                "must be 'NotRequired' when `restartPolicy` is 'Never'",
            );
        }
    }
}
