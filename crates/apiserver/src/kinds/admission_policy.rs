//! What validating and mutating admission policies and their bindings have in common
//! (`k8s.io/kubernetes/pkg/apis/admissionregistration`).

pub mod expressions;

use api::names;
use api::status::FieldError;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ParamKind, ParamRef, RuleWithOperations,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::check::{self, Errors};
use super::path::Path;
use super::webhook_configuration::rules;
use super::{Column, columns, fill};

pub static BINDING_COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("PolicyName", "The policy that is bound."),
    columns::text("ParamRef", "The parameters that it is bound with."),
    columns::AGE,
];

/// The kind of a policy's parameters as a table shows it.
pub fn param_kind_cell(kind: Option<&ParamKind>) -> Value {
    let shown = |kind: &ParamKind| {
        format!("{}/{}", check::text(&kind.api_version), check::text(&kind.kind))
    };
    kind.map_or("<unset>".to_owned(), shown).into()
}

/// The parameters of a binding as a table shows them.
pub fn param_ref_cell(reference: Option<&ParamRef>) -> Value {
    let shown = |reference: &ParamRef| {
        let name = match check::text(&reference.name) {
            "" => "*",
            name => name,
        };
        match check::text(&reference.namespace) {
            "" => format!("*/{name}"),
            namespace => format!("{namespace}/{name}"),
        }
    };
    reference.map_or("<unset>".to_owned(), shown).into()
}

/// Checks `failurePolicy`, `paramKind` and `matchConstraints` of a policy.
pub fn definition(
    failure_policy: &Option<String>,
    kind: Option<&ParamKind>,
    constraints: Option<&MatchResources>,
    path: &Path,
    errors: &mut Errors,
) {
    let failure = check::text(failure_policy);
    let at = path.child("failurePolicy");
    check::one_of(failure, &["Fail", "Ignore"], &at, errors);
    if let Some(kind) = kind {
        param_kind(kind, &path.child("paramKind"), errors);
    }
    let at = path.child("matchConstraints");
    match constraints {
        None => errors.push(FieldError::required(at, "")),
        Some(matched) => {
            match_resources(matched, &at, errors);
            if matched.resource_rules.as_ref().is_none_or(Vec::is_empty) {
                errors.push(FieldError::required(at.child("resourceRules"), ""));
            }
        }
    }
}

/// Checks what a binding is about.
pub fn binding(
    policy_name: &str,
    reference: Option<&ParamRef>,
    matched: Option<&MatchResources>,
    path: &Path,
    errors: &mut Errors,
) {
    let at = path.child("policyName");
    if policy_name.is_empty() {
        errors.push(FieldError::required(at, ""));
    } else {
        check::dns_subdomain(policy_name, &at, errors);
    }
    if let Some(reference) = reference {
        param_ref(reference, &path.child("paramRef"), errors);
    }
    if let Some(matched) = matched {
        // The path is upstream's.
        match_resources(matched, &path.child("matchResouces"), errors);
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

fn match_resources(matched: &MatchResources, path: &Path, errors: &mut Errors) {
    let policy = check::text(&matched.match_policy);
    check::one_of(policy, &["Equivalent", "Exact"], &path.child("matchPolicy"), errors);
    for (selector, name) in [
        (&matched.namespace_selector, "namespaceSelector"),
        (&matched.object_selector, "objectSelector"),
    ] {
        check::label_selector(selector.as_ref(), &path.child(name), errors);
    }
    for (list, name) in [
        (&matched.resource_rules, "resourceRules"),
        (&matched.exclude_resource_rules, "excludeResourceRules"),
    ] {
        for (index, rule) in list.iter().flatten().enumerate() {
            named_rule(rule, &path.child(name).index(index), errors);
        }
    }
}

fn named_rule(rule: &NamedRuleWithOperations, path: &Path, errors: &mut Errors) {
    let mut names = check::Unique::default();
    for (index, name) in rule.resource_names.iter().flatten().enumerate() {
        let path = path.child("resourceNames").index(index);
        check::invalid(names::path_segment(name), name, &path, errors);
        names.insert(name, &path, errors);
    }
    let rule = rule.clone();
    let rule = RuleWithOperations {
        api_groups: rule.api_groups,
        api_versions: rule.api_versions,
        operations: rule.operations,
        resources: rule.resources,
        scope: rule.scope,
    };
    rules::validate(&rule, path, errors);
}

fn param_kind(kind: &ParamKind, path: &Path, errors: &mut Errors) {
    let at = path.child("apiVersion");
    match check::text(&kind.api_version) {
        "" => errors.push(FieldError::required(&at, "")),
        text if text.matches('/').count() > 1 => {
            let why = format!("unexpected GroupVersion string: {text}");
            errors.push(FieldError::invalid(&at, text, why));
        }
        text => {
            let (group, version) = text.split_once('/').unwrap_or(("", text));
            let joined = |problems: Vec<String>, value: &str, errors: &mut Errors| {
                if !problems.is_empty() {
                    errors.push(FieldError::invalid(&at, value, problems.join(",")));
                }
            };
            if !group.is_empty() {
                joined(names::dns_subdomain(group), group, errors);
            }
            if version.is_empty() {
                errors.push(FieldError::invalid(&at, text, "version must be specified"));
            } else {
                joined(names::dns_1035_label(version), version, errors);
            }
        }
    }
    let at = path.child("kind");
    let name = check::text(&kind.kind);
    if name.is_empty() {
        return errors.push(FieldError::required(at, ""));
    }
    let problems = names::dns_1035_label(&name.to_lowercase());
    if !problems.is_empty() {
        let why = problems.join(",");
        let why = format!("may have mixed case, but should otherwise match: {why}");
        errors.push(FieldError::invalid(at, name, why));
    }
}

fn param_ref(reference: &ParamRef, path: &Path, errors: &mut Errors) {
    let name = check::text(&reference.name);
    let exclusive = "name and selector are mutually exclusive";
    if !name.is_empty() {
        check::invalid(names::path_segment(name), name, &path.child("name"), errors);
        if reference.selector.is_some() {
            errors.push(FieldError::forbidden(path.child("name"), exclusive));
        }
    }
    check::label_selector(reference.selector.as_ref(), &path.child("selector"), errors);
    if !name.is_empty() && reference.selector.is_some() {
        errors.push(FieldError::forbidden(path.child("selector"), exclusive));
    }
    if name.is_empty() && reference.selector.is_none() {
        errors.push(FieldError::required(path, "one of name or selector must be specified"));
    }
    let action = check::text(&reference.parameter_not_found_action);
    let at = path.child("parameterNotFoundAction");
    check::one_of(action, &["Allow", "Deny"], &at, errors);
}
