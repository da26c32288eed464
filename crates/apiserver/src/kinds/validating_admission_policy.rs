//! ValidatingAdmissionPolicies and their bindings
//! (`k8s.io/kubernetes/pkg/apis/admissionregistration`).

mod expressions;

use api::names;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ParamKind, ParamRef, RuleWithOperations,
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::check::{self, Errors};
use super::path::Path;
use super::webhook_configuration::rules;
use super::{Column, Context, Strategy, columns, fill};

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

/// The strategy of policies.
pub struct Policies;

/// The strategy of bindings.
pub struct Bindings;

static POLICY_COLUMNS: &[Column] = &[
    columns::NAME,
    columns::integer("Validations", "How many rules the policy has."),
    columns::text("ParamKind", "What its parameters are."),
    columns::AGE,
];

static BINDING_COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("PolicyName", "The policy that is bound."),
    columns::text("ParamRef", "The parameters that it is bound with."),
    columns::AGE,
];

fn default_match(matched: &mut MatchResources) {
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

fn validate_policy(
    policy: &ValidatingAdmissionPolicy,
    old: Option<&ValidatingAdmissionPolicySpec>,
) -> Errors {
    let mut errors = Errors::new();
    let none = ValidatingAdmissionPolicySpec::default();
    let (spec, path) = (policy.spec.as_ref().unwrap_or(&none), Path::new("spec"));
    let failure = check::text(&spec.failure_policy);
    let at = path.child("failurePolicy");
    check::one_of(failure, &["Fail", "Ignore"], &at, &mut errors);
    if let Some(kind) = &spec.param_kind {
        param_kind(kind, &path.child("paramKind"), &mut errors);
    }
    let at = path.child("matchConstraints");
    match &spec.match_constraints {
        None => errors.push(FieldError::required(at, "")),
        Some(matched) => {
            match_resources(matched, &at, &mut errors);
            if matched.resource_rules.as_ref().is_none_or(Vec::is_empty) {
                errors.push(FieldError::required(at.child("resourceRules"), ""));
            }
        }
    }
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    expressions::validate(name, spec, old, &path, &mut errors);
    errors
}

fn validate_binding(binding: &ValidatingAdmissionPolicyBinding) -> Errors {
    let mut errors = Errors::new();
    let (spec, path) = (&binding.spec, Path::new("spec"));
    let at = path.child("policyName");
    if spec.policy_name.is_empty() {
        errors.push(FieldError::required(at, ""));
    } else {
        check::dns_subdomain(&spec.policy_name, &at, &mut errors);
    }
    if let Some(reference) = &spec.param_ref {
        param_ref(reference, &path.child("paramRef"), &mut errors);
    }
    if let Some(matched) = &spec.match_resources {
        // The path is upstream's.
        match_resources(matched, &path.child("matchResouces"), &mut errors);
    }
    let (at, actions) = (path.child("validationActions"), &spec.validation_actions);
    let mut seen = check::Unique::default();
    for (index, action) in actions.iter().enumerate() {
        let at = at.index(index);
        if !ACTIONS.contains(&action.as_str()) {
            errors.push(FieldError::not_supported(&at, action, &ACTIONS));
        }
        seen.insert(action, &at, &mut errors);
    }
    let has = |wanted: &str| actions.iter().any(|action| action == wanted);
    if has("Deny") && has("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.push(FieldError::invalid(&at, actions, why));
    }
    if actions.is_empty() {
        errors.push(FieldError::required(at, "at least one validation action is required"));
    }
    errors
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

impl Strategy for Policies {
    type Object = ValidatingAdmissionPolicy;

    fn default(&self, policy: &mut ValidatingAdmissionPolicy) {
        if let Some(spec) = &mut policy.spec {
            fill::missing(&mut spec.failure_policy, "Fail");
            spec.match_constraints.iter_mut().for_each(default_match);
        }
    }

    fn prepare_create(&self, policy: &mut ValidatingAdmissionPolicy, _: &Context<'_>) {
        policy.status = None;
    }

    fn prepare_update(
        &self,
        new: &mut ValidatingAdmissionPolicy,
        old: &ValidatingAdmissionPolicy,
        _: &Context<'_>,
    ) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status_update(
        &self,
        new: &mut ValidatingAdmissionPolicy,
        old: &ValidatingAdmissionPolicy,
        _: &Context<'_>,
    ) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_create(&self, policy: &ValidatingAdmissionPolicy) -> Errors {
        validate_policy(policy, None)
    }

    fn validate_update(
        &self,
        new: &ValidatingAdmissionPolicy,
        old: &ValidatingAdmissionPolicy,
    ) -> Errors {
        validate_policy(new, old.spec.as_ref())
    }

    fn generation_changes(
        &self,
        new: &ValidatingAdmissionPolicy,
        old: &ValidatingAdmissionPolicy,
    ) -> Option<bool> {
        Some(new.spec != old.spec)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        POLICY_COLUMNS
    }

    fn cells(&self, policy: &ValidatingAdmissionPolicy, now: Timestamp) -> Vec<Value> {
        let spec = policy.spec.clone().unwrap_or_default();
        let kind = spec.param_kind.map_or("<unset>".to_owned(), |kind| {
            format!("{}/{}", check::text(&kind.api_version), check::text(&kind.kind))
        });
        vec![
            columns::name(&policy.metadata),
            spec.validations.map_or(0, |all| all.len()).into(),
            kind.into(),
            columns::age(&policy.metadata, now),
        ]
    }
}

impl Strategy for Bindings {
    type Object = ValidatingAdmissionPolicyBinding;

    fn default(&self, binding: &mut ValidatingAdmissionPolicyBinding) {
        binding.spec.match_resources.iter_mut().for_each(default_match);
    }

    fn validate(&self, binding: &ValidatingAdmissionPolicyBinding) -> Errors {
        validate_binding(binding)
    }

    fn generation_changes(
        &self,
        new: &ValidatingAdmissionPolicyBinding,
        old: &ValidatingAdmissionPolicyBinding,
    ) -> Option<bool> {
        Some(new.spec != old.spec)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        BINDING_COLUMNS
    }

    fn cells(&self, binding: &ValidatingAdmissionPolicyBinding, now: Timestamp) -> Vec<Value> {
        let spec = binding.spec.clone();
        let reference = spec.param_ref.map_or("<unset>".to_owned(), |reference| {
            let name = match check::text(&reference.name) {
                "" => "*",
                name => name,
            };
            match check::text(&reference.namespace) {
                "" => format!("*/{name}"),
                namespace => format!("{namespace}/{name}"),
            }
        });
        vec![
            columns::name(&binding.metadata),
            spec.policy_name.into(),
            reference.into(),
            columns::age(&binding.metadata, now),
        ]
    }
}
