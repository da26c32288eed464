//! Scopes of quotas: which exist, which exclude each other, and which resources they apply to.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ResourceQuotaSpec, ScopedResourceSelectorRequirement};

use super::is_quota_resource;
use crate::kinds::at::At;

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
pub fn validate(spec: &ResourceQuotaSpec, at: &At<'_>) {
    let limited: BTreeSet<&str> = spec
        .hard
        .iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .filter(|name| is_quota_resource(name))
        .collect();
    let misfits = |scope: &str| limited.iter().filter(|name| !narrows(scope, name)).count();
    let scopes = spec.scopes.as_deref().unwrap_or_default();
    let own = at.child("scopes");
    for scope in scopes {
        if !is_known(scope) {
            own.invalid(scopes, "unsupported scope");
        }
        for _ in 0..misfits(scope) {
            own.invalid(scopes, "unsupported scope applied to resource");
        }
    }
    for pair in CONFLICTING {
        if pair.iter().all(|scope| scopes.iter().any(|own| own == scope)) {
            own.invalid(scopes, "conflicting scopes");
        }
    }
    let selector = spec.scope_selector.as_ref();
    let expressions = selector.and_then(|selector| selector.match_expressions.as_deref());
    let expressions = expressions.unwrap_or_default();
    let own = at.child("scopeSelector.matchExpressions");
    for expression in expressions {
        let scope = expression.scope_name.as_str();
        if !is_known(scope) {
            own.child("scopeName").invalid(scope, "unsupported scope");
        }
        for _ in 0..misfits(scope) {
            own.invalid(&spec.scope_selector, "unsupported scope applied to resource");
        }
        operator(expression, &own);
    }
    for pair in CONFLICTING {
        let has = |scope: &&str| expressions.iter().any(|own| own.scope_name == *scope);
        if pair.iter().all(has) {
            own.invalid(&spec.scope_selector, "conflicting scopes");
        }
    }
}

fn operator(expression: &ScopedResourceSelectorRequirement, at: &At<'_>) {
    let operator = expression.operator.as_str();
    if PLAIN.contains(&expression.scope_name.as_str()) && operator != "Exists" {
        let problem = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        at.child("operator").invalid(operator, problem);
    }
    let values = expression.values.as_deref().unwrap_or_default();
    match operator {
        "In" | "NotIn" if values.is_empty() => at.child("values").required(
            "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
        ),
        "Exists" | "DoesNotExist" if !values.is_empty() => at.child("values").invalid(
            values,
            "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
        ),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => at.child("operator").invalid(other, "not a valid selector operator"),
    }
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use k8s_openapi::api::core::v1::ResourceQuota;
    use serde_json::{Value, json};

    use crate::kinds::at::At;

    #[test]
    fn scopes_go_together_and_with_limits() {
        let errors = |spec: Value| -> Vec<String> {
            let json = json!({"spec": spec}).to_string();
            let quota = ResourceQuota::decode(json.as_bytes()).unwrap();
            let spec = quota.spec.unwrap();
            let errors = At::object(|at| super::validate(&spec, &at.child("spec")));
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
