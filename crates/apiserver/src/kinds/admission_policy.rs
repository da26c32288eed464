//! What validating and mutating admission policies and their bindings have in common
//! (`k8s.io/kubernetes/pkg/apis/admissionregistration`).

pub mod expressions;

use api::{Kind, names};
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ParamKind, ParamRef, RuleWithOperations,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::at::At;
use super::columns::text;
use super::table::{Rows, age, name, text_at};
use super::webhook_configuration::rules;
use super::{check, fill};

impl<K: Kind> Rows<K> {
    /// Columns of bindings.
    pub const POLICY_BINDINGS: Self = Self {
        any_finalizer: true,
        unconditional: false,
        columns: &[
            name(),
            text("PolicyName", "The policy that is bound.").at("spec.policyName"),
            text("ParamRef", "The parameters that it is bound with.").json(param_ref_cell),
            age(),
        ],
        ..Self::NEW
    };
}

/// The kind of a policy's parameters as a table shows it.
pub fn param_kind_cell(policy: &Value) -> Value {
    let kind = &policy["spec"]["paramKind"];
    if kind.is_null() {
        return "<unset>".into();
    }
    format!("{}/{}", text_at(kind, "apiVersion"), text_at(kind, "kind")).into()
}

/// The parameters of a binding as a table shows them.
fn param_ref_cell(binding: &Value) -> Value {
    let reference = &binding["spec"]["paramRef"];
    if reference.is_null() {
        return "<unset>".into();
    }
    let or_any = |field| Some(text_at(reference, field)).filter(|text| !text.is_empty());
    let of = |field| or_any(field).unwrap_or("*");
    format!("{}/{}", of("namespace"), of("name")).into()
}

/// Checks `failurePolicy`, `paramKind` and `matchConstraints` of a policy.
pub fn definition(
    failure_policy: &Option<String>,
    kind: Option<&ParamKind>,
    constraints: Option<&MatchResources>,
    at: &At<'_>,
) {
    at.child("failurePolicy").one_of(check::text(failure_policy), &["Fail", "Ignore"]);
    if let Some(kind) = kind {
        param_kind(kind, &at.child("paramKind"));
    }
    let at = at.child("matchConstraints");
    match constraints {
        None => at.required(""),
        Some(matched) => {
            match_resources(matched, &at);
            if matched.resource_rules.as_ref().is_none_or(Vec::is_empty) {
                at.child("resourceRules").required("");
            }
        }
    }
}

/// Checks what a binding is about.
pub fn binding(
    policy_name: &str,
    reference: Option<&ParamRef>,
    matched: Option<&MatchResources>,
    at: &At<'_>,
) {
    at.child("policyName").required_text(names::dns_subdomain, policy_name);
    if let Some(reference) = reference {
        param_ref(reference, &at.child("paramRef"));
    }
    if let Some(matched) = matched {
        // The path is upstream's.
        match_resources(matched, &at.child("matchResouces"));
    }
}

pub fn default_match(matched: &mut MatchResources) {
    fill::missing(&mut matched.match_policy, "Equivalent");
    fill::missing(&mut matched.namespace_selector, LabelSelector::default());
    fill::missing(&mut matched.object_selector, LabelSelector::default());
    let rules = [&mut matched.resource_rules, &mut matched.exclude_resource_rules];
    for rule in rules.into_iter().flatten().flatten() {
        fill::missing(&mut rule.scope, "*");
    }
}

fn match_resources(matched: &MatchResources, at: &At<'_>) {
    let policy = check::text(&matched.match_policy);
    at.child("matchPolicy").one_of(policy, &["Equivalent", "Exact"]);
    at.child("namespaceSelector").label_selector(matched.namespace_selector.as_ref());
    at.child("objectSelector").label_selector(matched.object_selector.as_ref());
    for (list, name) in [
        (&matched.resource_rules, "resourceRules"),
        (&matched.exclude_resource_rules, "excludeResourceRules"),
    ] {
        for (index, rule) in list.iter().flatten().enumerate() {
            named_rule(rule, &at.item(name, index));
        }
    }
}

fn named_rule(rule: &NamedRuleWithOperations, at: &At<'_>) {
    let mut seen = check::Unique::default();
    for (index, name) in rule.resource_names.iter().flatten().enumerate() {
        let at = at.item("resourceNames", index);
        at.texts(names::path_segment(name), name);
        seen.add(name, &at);
    }
    let rule = rule.clone();
    let rule = RuleWithOperations {
        api_groups: rule.api_groups,
        api_versions: rule.api_versions,
        operations: rule.operations,
        resources: rule.resources,
        scope: rule.scope,
    };
    rules::validate(&rule, at);
}

fn param_kind(kind: &ParamKind, at: &At<'_>) {
    let version_at = at.child("apiVersion");
    match check::text(&kind.api_version) {
        "" => version_at.required(""),
        text if text.matches('/').count() > 1 => {
            version_at.invalid(text, format!("unexpected GroupVersion string: {text}"));
        }
        text => {
            let (group, version) = text.split_once('/').unwrap_or(("", text));
            let joined = |problems: Vec<String>, value: &str| {
                if !problems.is_empty() {
                    version_at.invalid(value, problems.join(","));
                }
            };
            if !group.is_empty() {
                joined(names::dns_subdomain(group), group);
            }
            if version.is_empty() {
                version_at.invalid(text, "version must be specified");
            } else {
                joined(names::dns_1035_label(version), version);
            }
        }
    }
    let (at, name) = (at.child("kind"), check::text(&kind.kind));
    if name.is_empty() {
        return at.required("");
    }
    let problems = names::dns_1035_label(&name.to_lowercase());
    if !problems.is_empty() {
        let why = problems.join(",");
        at.invalid(name, format!("may have mixed case, but should otherwise match: {why}"));
    }
}

fn param_ref(reference: &ParamRef, at: &At<'_>) {
    let (name, selector) = (check::text(&reference.name), reference.selector.as_ref());
    let both = !name.is_empty() && selector.is_some();
    let exclusive = "name and selector are mutually exclusive";
    if !name.is_empty() {
        at.child("name").texts(names::path_segment(name), name);
    }
    if both {
        at.child("name").forbidden(exclusive);
    }
    at.child("selector").label_selector(selector);
    if both {
        at.child("selector").forbidden(exclusive);
    }
    if name.is_empty() && selector.is_none() {
        at.required("one of name or selector must be specified");
    }
    let action = check::text(&reference.parameter_not_found_action);
    at.child("parameterNotFoundAction").one_of(action, &["Allow", "Deny"]);
}
