//! Scopes of quotas: which exist, which exclude each other, and which resources they apply to.

use std::collections::BTreeSet;

use api::status::FieldError;
use k8s_openapi::api::core::v1::{ResourceQuotaSpec, ScopedResourceSelectorRequirement};

use super::is_quota_resource;
use crate::kinds::check::Errors;
use crate::kinds::path::Path;

const COMPUTE: &[&str] =
    &["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"];
const CLAIMS: &[&str] = &["persistentvolumeclaims", "requests.storage"];
/// Scopes without values.
const PLAIN: &[&str] =
    &["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];
const CONFLICTING: &[[&str; 2]] =
    &[["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

fn is_known(scope: &str) -> bool {
    PLAIN.contains(&scope) || matches!(scope, "PriorityClass" | "VolumeAttributesClass")
}

/// Whether a scope applies to a resource.
fn narrows(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => CLAIMS.contains(&resource),
        scope if is_known(scope) => resource == "pods" || COMPUTE.contains(&resource),
        _ => true,
    }
}

/// Validates the scopes of a quota.
pub fn validate(spec: &ResourceQuotaSpec, errors: &mut Errors) {
    let path = Path::new("spec");
    let limited: BTreeSet<&str> = spec
        .hard
        .iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .filter(|name| is_quota_resource(name))
        .collect();
    let misfits = |scope: &str| limited.iter().filter(|name| !narrows(scope, name)).count();
    let scopes = spec.scopes.as_deref().unwrap_or_default();
    let own = path.child("scopes");
    for scope in scopes {
        if !is_known(scope) {
            errors.push(FieldError::invalid(&own, scopes, "unsupported scope"));
        }
        for _ in 0..misfits(scope) {
            let problem = "unsupported scope applied to resource";
            errors.push(FieldError::invalid(&own, scopes, problem));
        }
    }
    for pair in CONFLICTING {
        if pair.iter().all(|scope| scopes.iter().any(|own| own == scope)) {
            errors.push(FieldError::invalid(&own, scopes, "conflicting scopes"));
        }
    }
    let selector = spec.scope_selector.as_ref();
    let expressions = selector.and_then(|selector| selector.match_expressions.as_deref());
    let own = path.child("scopeSelector").child("matchExpressions");
    let expressions = expressions.unwrap_or_default();
    for expression in expressions {
        let scope = expression.scope_name.as_str();
        if !is_known(scope) {
            let problem = "unsupported scope";
            errors.push(FieldError::invalid(own.child("scopeName"), scope, problem));
        }
        for _ in 0..misfits(scope) {
            let problem = "unsupported scope applied to resource";
            errors.push(FieldError::invalid(&own, &spec.scope_selector, problem));
        }
        operator(expression, &own, errors);
    }
    for pair in CONFLICTING {
        let has = |scope: &&str| expressions.iter().any(|own| own.scope_name == *scope);
        if pair.iter().all(has) {
            let problem = "conflicting scopes";
            errors.push(FieldError::invalid(&own, &spec.scope_selector, problem));
        }
    }
}

fn operator(expression: &ScopedResourceSelectorRequirement, path: &Path, errors: &mut Errors) {
    let operator = expression.operator.as_str();
    if PLAIN.contains(&expression.scope_name.as_str()) && operator != "Exists" {
        let problem = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(FieldError::invalid(path.child("operator"), operator, problem));
    }
    let values = expression.values.as_deref().unwrap_or_default();
    match operator {
        "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
            path.child("values"),
            "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
        )),
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::invalid(
            path.child("values"),
            values,
            "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            let problem = "not a valid selector operator";
            errors.push(FieldError::invalid(path.child("operator"), other, problem));
        }
    }
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use k8s_openapi::api::core::v1::ResourceQuota;
    use serde_json::{Value, json};

    #[test]
    fn scopes_go_together_and_with_limits() {
        let errors = |spec: Value| -> Vec<String> {
            let json = json!({"spec": spec}).to_string();
            let quota = ResourceQuota::decode(json.as_bytes()).unwrap();
            let mut errors = Vec::new();
            super::validate(&quota.spec.unwrap(), &mut errors);
            errors.iter().map(ToString::to_string).collect()
        };
        let expression = |scope: &str, operator: &str, values: Value| json!({"matchExpressions": [{"scopeName": scope, "operator": operator, "values": values}]});
        for (spec, expected) in [
            (json!({"hard": {"pods": "1"}, "scopes": ["BestEffort", "Terminating"]}), vec![]),
            (
                json!({"hard": {"requests.cpu": "1", "count/pods": "1"}, "scopes": ["NotBestEffort"]}),
                vec![],
            ),
            (
                json!({"hard": {"pods": "1"}, "scopes": ["Sometimes"]}),
                vec!["spec.scopes: Invalid value: [\"Sometimes\"]: unsupported scope"],
            ),
            (
                json!({"hard": {"requests.cpu": "1"}, "scopes": ["BestEffort"]}),
                vec![
                    "spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource",
                ],
            ),
            (
                json!({"hard": {"services": "1"}, "scopes": ["Terminating"]}),
                vec![
                    "spec.scopes: Invalid value: [\"Terminating\"]: unsupported scope applied to resource",
                ],
            ),
            (
                json!({"hard": {"pods": "1"}, "scopes": ["Terminating", "NotTerminating"]}),
                vec![
                    "spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes",
                ],
            ),
            (
                json!({"hard": {"pods": "1"}, "scopeSelector": expression("PriorityClass", "In", json!(["a"]))}),
                vec![],
            ),
            (
                json!({"hard": {"pods": "1"}, "scopeSelector": expression("PriorityClass", "In", json!([]))}),
                vec![
                    "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
                ],
            ),
            (
                json!({"hard": {"pods": "1"}, "scopeSelector": expression("PriorityClass", "Near", json!([]))}),
                vec![
                    "spec.scopeSelector.matchExpressions.operator: Invalid value: \"Near\": not a valid selector operator",
                ],
            ),
        ] {
            assert_eq!(errors(spec), expected);
        }
        let plain = errors(
            json!({"hard": {"pods": "1"}, "scopeSelector": expression("BestEffort", "In", json!(["a"]))}),
        );
        assert!(plain[0].starts_with("spec.scopeSelector.matchExpressions.operator: Invalid value: \"In\": must be 'Exist' when scope"));
    }
}
