//! Rules: which requests a webhook is about.

use std::collections::BTreeSet;

use api::status::FieldError;
use k8s_openapi::api::admissionregistration::v1::RuleWithOperations;

use crate::kinds::check::{self, Errors};
use crate::kinds::path::Path;

const ALL: &str = "*";
const OPERATIONS: &[&str] = &[ALL, "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &[ALL, "Cluster", "Namespaced"];

pub fn validate(rule: &RuleWithOperations, path: &Path, errors: &mut Errors) {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let operations = list(&rule.operations);
    let at = path.child("operations");
    alone(&operations, "operations", &at, errors);
    for (index, operation) in operations.iter().enumerate() {
        if !OPERATIONS.contains(&operation.as_str()) {
            errors.push(FieldError::not_supported(at.index(index), operation, OPERATIONS));
        }
    }
    alone(&list(&rule.api_groups), "API groups", &path.child("apiGroups"), errors);
    let versions = list(&rule.api_versions);
    let at = path.child("apiVersions");
    alone(&versions, "API versions", &at, errors);
    for (index, version) in versions.iter().enumerate() {
        check::required(version, &at.index(index), errors);
    }
    resources(&list(&rule.resources), &path.child("resources"), errors);
    check::one_of_or_unset(&rule.scope, SCOPES, &path.child("scope"), errors);
}

/// A list must not be empty, and its wildcard stands alone.
fn alone(list: &[String], others: &str, path: &Path, errors: &mut Errors) {
    if list.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    if list.len() > 1 && list.iter().any(|item| item == ALL) {
        let detail = format!("if '*' is present, must not specify other {others}");
        errors.push(FieldError::invalid(path, list, detail));
    }
}

/// `pods`, `pods/log`, `pods/*`, `*/scale`, `*`, `*/*`: none may be part of another.
fn resources(all: &[String], path: &Path, errors: &mut Errors) {
    if all.is_empty() {
        errors.push(FieldError::required(path, ""));
    }
    let (mut whole, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    let mut last_plain = "";
    for (index, text) in all.iter().enumerate() {
        let path = path.index(index);
        let Some((resource, subresource)) = text.split_once('/') else {
            check::required(text, &path, errors);
            if !text.is_empty() {
                last_plain = text;
            }
            continue;
        };
        let mut refuse = |pattern: String| {
            let detail = format!("if '{pattern}' is present, must not specify {text}");
            errors.push(FieldError::invalid(&path, text, detail));
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
        let detail = "if '*/*' is present, must not specify other resources";
        errors.push(FieldError::invalid(path, all, detail));
    }
    // As upstream, only the last resource without a subresource counts.
    if has(ALL) && !matches!(last_plain, "" | ALL) {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(path, all, detail));
    }
}
