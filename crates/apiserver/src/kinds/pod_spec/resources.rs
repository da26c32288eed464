//! Requests and limits.

use std::collections::BTreeMap;

use api::pod::{is_extended_resource, is_native_resource};
use api::quantity::Quantity;
use api::status::FieldError;
use k8s_openapi::api::core::v1::{ContainerResizePolicy, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::kinds::check::{self, Errors, Unique};
use crate::kinds::path::Path;

/// Whose resources they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Container,
    Pod,
}

pub fn validate(
    resources: Option<&ResourceRequirements>,
    owner: Owner,
    path: &Path,
    errors: &mut Errors,
) {
    let Some(resources) = resources else { return };
    let (limit_path, request_path) = (path.child("limits"), path.child("requests"));
    let limits = amounts(resources.limits.as_ref(), owner, &limit_path, errors);
    let requests = amounts(resources.requests.as_ref(), owner, &request_path, errors);
    for (name, (amount, text)) in &requests {
        match limits.get(name) {
            Some((limit, limit_text)) if amount != limit && !overcommittable(name) => {
                let problem = format!("must be equal to {name} limit of {limit_text}");
                errors.push(FieldError::invalid(&request_path, text, problem));
            }
            Some((limit, limit_text)) if amount > limit => {
                let problem = format!("must be less than or equal to {name} limit of {limit_text}");
                errors.push(FieldError::invalid(&request_path, text, problem));
            }
            None if !overcommittable(name) => {
                let problem = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(&limit_path, problem));
            }
            _ => {}
        }
    }
    let names = || limits.keys().chain(requests.keys()).map(String::as_str);
    if names().any(is_huge_page) && !names().any(|name| name == "cpu" || name == "memory") {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
}

type Amounts = BTreeMap<String, (Quantity, String)>;

fn amounts(
    list: Option<&BTreeMap<String, Text>>,
    owner: Owner,
    path: &Path,
    errors: &mut Errors,
) -> Amounts {
    let mut read = Amounts::new();
    for (name, text) in list.into_iter().flatten() {
        let path = path.key(name);
        match owner {
            Owner::Container => container_resource(name, &path, errors),
            Owner::Pod if !matches!(name.as_str(), "cpu" | "memory") && !is_huge_page(name) => {
                errors.push(FieldError::not_supported(
                    &path,
                    name,
                    &["cpu", "hugepages-", "memory"],
                ));
            }
            Owner::Pod => {}
        }
        if let Some(amount) = quantity(name, text, &path, errors) {
            read.insert(name.clone(), (amount, text.0.clone()));
        }
    }
    read
}

/// A quantity of a resource: not negative, and an integer where the resource has no fractions.
pub fn quantity(name: &str, text: &Text, path: &Path, errors: &mut Errors) -> Option<Quantity> {
    let amount = check::amount(text, path, errors)?;
    if is_integer(name) && !amount.is_whole() {
        errors.push(FieldError::invalid(path, &text.0, "must be an integer"));
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

pub fn container_resource(name: &str, path: &Path, errors: &mut Errors) {
    check::qualified_name(name, path, errors);
    if name.contains('/') {
        if !is_native_resource(name) && !is_extended_resource(name) {
            errors.push(FieldError::invalid(
                path,
                name,
                "doesn't follow extended resource name standard",
            ));
        }
    } else if !matches!(name, "cpu" | "memory" | "ephemeral-storage") && !is_huge_page(name) {
        if !is_integer(name) && name != "storage" {
            let problem = "must be a standard resource type or fully qualified";
            errors.push(FieldError::invalid(path, name, problem));
        }
        errors.push(FieldError::invalid(path, name, "must be a standard resource for containers"));
    }
}

pub fn resize_policy(
    policies: &[ContainerResizePolicy],
    restart_policy: &str,
    path: &Path,
    errors: &mut Errors,
) {
    let mut seen = Unique::default();
    for (index, policy) in policies.iter().enumerate() {
        seen.insert(&policy.resource_name, &path.index(index), errors);
        check::one_of(&policy.resource_name, &["cpu", "memory"], path, errors);
        check::one_of(&policy.restart_policy, &["NotRequired", "RestartContainer"], path, errors);
        if restart_policy == "Never" && policy.restart_policy != "NotRequired" {
            let problem = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(path, &policy.restart_policy, problem));
        }
    }
}
