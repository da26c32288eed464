//! ValidatingAdmissionPolicies and their bindings
//! (`k8s.io/kubernetes/pkg/apis/admissionregistration`).

mod expressions;

use api::jsonpath::Template;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicySpec,
};
use serde_json::Value;

use super::admission_policy::{self, BINDING_COLUMNS, default_match};
use super::check::{self, Errors};
use super::path::Path;
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

fn validate_policy(
    policy: &ValidatingAdmissionPolicy,
    old: Option<&ValidatingAdmissionPolicySpec>,
) -> Errors {
    let mut errors = Errors::new();
    let none = ValidatingAdmissionPolicySpec::default();
    let (spec, path) = (policy.spec.as_ref().unwrap_or(&none), Path::new("spec"));
    admission_policy::definition(
        &spec.failure_policy,
        spec.param_kind.as_ref(),
        spec.match_constraints.as_ref(),
        &path,
        &mut errors,
    );
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    expressions::validate(name, spec, old, &path, &mut errors);
    errors
}

fn validate_binding(binding: &ValidatingAdmissionPolicyBinding) -> Errors {
    let mut errors = Errors::new();
    let (spec, path) = (&binding.spec, Path::new("spec"));
    admission_policy::binding(
        &spec.policy_name,
        spec.param_ref.as_ref(),
        spec.match_resources.as_ref(),
        &path,
        &mut errors,
    );
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

    fn validate_status_update(
        &self,
        new: &ValidatingAdmissionPolicy,
        _: &ValidatingAdmissionPolicy,
    ) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("status"));
        let checked = new.status.as_ref().and_then(|status| status.type_checking.as_ref());
        let warnings = checked.and_then(|checked| checked.expression_warnings.as_ref());
        let path = path.child("typeChecking").child("expressionWarnings");
        for (index, warning) in warnings.into_iter().flatten().enumerate() {
            let path = path.index(index);
            if warning.warning.is_empty() {
                errors.push(FieldError::required(path.child("warning"), ""));
            }
            let (at, field) = (path.child("fieldRef"), warning.field_ref.trim());
            if field.is_empty() {
                errors.push(FieldError::required(at, ""));
            } else if let Err(why) = Template::parse(&format!("{{{field}}}")) {
                let why = format!("invalid JSONPath: {why}");
                errors.push(FieldError::invalid(at, field, why));
            }
        }
        errors
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
        vec![
            columns::name(&policy.metadata),
            spec.validations.map_or(0, |all| all.len()).into(),
            admission_policy::param_kind_cell(spec.param_kind.as_ref()),
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
        let spec = &binding.spec;
        vec![
            columns::name(&binding.metadata),
            spec.policy_name.as_str().into(),
            admission_policy::param_ref_cell(spec.param_ref.as_ref()),
            columns::age(&binding.metadata, now),
        ]
    }
}
