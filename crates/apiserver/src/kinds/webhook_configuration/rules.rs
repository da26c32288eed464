//! Rules: which requests a webhook is about.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::RuleWithOperations;

use crate::kinds::at::At;

const ALL: &str = "*";
const OPERATIONS: &[&str] = &[ALL, "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &[ALL, "Cluster", "Namespaced"];

pub fn validate(rule: &RuleWithOperations, at: &At<'_>) {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let operations = list(&rule.operations);
    alone(&operations, "operations", &at.child("operations"));
    for (index, operation) in operations.iter().enumerate() {
        if !OPERATIONS.contains(&operation.as_str()) {
            at.item("operations", index).not_supported(operation, OPERATIONS);
        }
    }
    alone(&list(&rule.api_groups), "API groups", &at.child("apiGroups"));
    let versions = list(&rule.api_versions);
    alone(&versions, "API versions", &at.child("apiVersions"));
    for (index, version) in versions.iter().enumerate() {
        at.item("apiVersions", index).not_empty(version);
    }
    resources(&list(&rule.resources), &at.child("resources"));
    at.child("scope").one_of_or_unset(&rule.scope, SCOPES);
}

/// A list must not be empty, and its wildcard stands alone.
fn alone(list: &[String], others: &str, at: &At<'_>) {
    if list.is_empty() {
        at.required("");
    }
    if list.len() > 1 && list.iter().any(|item| item == ALL) {
        at.invalid(list, format!("if '*' is present, must not specify other {others}"));
    }
}

/// `pods`, `pods/log`, `pods/*`, `*/scale`, `*`, `*/*`: none may be part of another.
fn resources(all: &[String], at: &At<'_>) {
    if all.is_empty() {
        at.required("");
    }
    let (mut whole, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    let mut last_plain = "";
    for (index, text) in all.iter().enumerate() {
        let at = at.index(index);
        let Some((resource, subresource)) = text.split_once('/') else {
            at.not_empty(text);
            if !text.is_empty() {
                last_plain = text;
            }
            continue;
        };
        let refuse = |pattern: String| {
            at.invalid(text, format!("if '{pattern}' is present, must not specify {text}"));
        };
        if whole.contains(resource) {
            refuse(format!("{resource}/*"));
        }
        if everywhere.contains(subresource) {
            refuse(format!("*/{subresource}"));
        }
        if subresource == ALL {
            whole.insert(resource);
        }
        if resource == ALL {
            everywhere.insert(subresource);
        }
    }
    let has = |wanted: &str| all.iter().any(|text| text == wanted);
    if all.len() > 1 && has("*/*") {
        at.invalid(all, "if '*/*' is present, must not specify other resources");
    }
    // As upstream, only the last resource without a subresource counts.
    if has(ALL) && !matches!(last_plain, "" | ALL) {
        let detail = "if '*' is present, must not specify other resources without subresources";
        at.invalid(all, detail);
    }
}
