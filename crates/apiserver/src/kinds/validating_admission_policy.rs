//! ValidatingAdmissionPolicies and their bindings
//! (`k8s.io/kubernetes/pkg/apis/admissionregistration`).

mod expressions;

use api::jsonpath::Template;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use serde_json::Value;

use super::admission_policy::{self, default_match, param_kind_cell};
use super::at::At;
use super::columns::{integer, text};
use super::table::{Check, Parts, Rows, age, items, name};
use super::{check, fill};

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

pub static POLICIES: Rows<ValidatingAdmissionPolicy> = Rows {
    any_finalizer: true,
    default: |policy| {
        if let Some(spec) = &mut policy.spec {
            fill::missing(&mut spec.failure_policy, "Fail");
            spec.match_constraints.iter_mut().for_each(default_match);
        }
    },
    parts: Parts {
        create: |policy, _| policy.status = None,
        update: |new, old, _| new.status.clone_from(&old.status),
        status: |new, old, _| new.spec.clone_from(&old.spec),
    },
    create: |policy, at| validate(policy, None, &at.child("spec")),
    update: |new, old, at| validate(new, Some(old), &at.child("spec")),
    status: &[(
        "status.typeChecking.expressionWarnings",
        Check::Each(&[
            ("warning", Check::Required("")),
            ("fieldRef", Check::Relation(field_reference)),
        ]),
    )],
    generation: |new, old| Some(new.spec != old.spec),
    unconditional: false,
    columns: &[
        name(),
        integer("Validations", "How many rules the policy has.")
            .json(|policy| items(&policy["spec"]["validations"]).len().into()),
        text("ParamKind", "What its parameters are.").json(param_kind_cell),
        age(),
    ],
    ..Rows::NEW
};

pub static BINDINGS: Rows<ValidatingAdmissionPolicyBinding> = Rows {
    default: |binding| binding.spec.match_resources.iter_mut().for_each(default_match),
    judge: |binding, at| {
        let (spec, at) = (&binding.spec, at.child("spec"));
        let (reference, matched) = (spec.param_ref.as_ref(), spec.match_resources.as_ref());
        admission_policy::binding(&spec.policy_name, reference, matched, &at);
        actions(&spec.validation_actions, &at.child("validationActions"));
    },
    generation: |new, old| Some(new.spec != old.spec),
    ..Rows::POLICY_BINDINGS
};

fn validate(
    policy: &ValidatingAdmissionPolicy,
    old: Option<&ValidatingAdmissionPolicy>,
    at: &At<'_>,
) {
    let spec = policy.spec.clone().unwrap_or_default();
    let (params, constraints) = (spec.param_kind.as_ref(), spec.match_constraints.as_ref());
    admission_policy::definition(&spec.failure_policy, params, constraints, at);
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    expressions::validate(name, &spec, old.and_then(|old| old.spec.as_ref()), at);
}

fn actions(actions: &[String], at: &At<'_>) {
    let mut seen = check::Unique::default();
    for (index, action) in actions.iter().enumerate() {
        let at = at.index(index);
        if !ACTIONS.contains(&action.as_str()) {
            at.not_supported(action, &ACTIONS);
        }
        seen.add(action, &at);
    }
    let has = |wanted: &str| actions.iter().any(|action| action == wanted);
    if has("Deny") && has("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        at.invalid(actions, why);
    }
    if actions.is_empty() {
        at.required("at least one validation action is required");
    }
}

fn field_reference(field: &Value, at: &At<'_>) {
    let field = field.as_str().unwrap_or_default().trim();
    if field.is_empty() {
        at.required("");
    } else if let Err(why) = Template::parse(&format!("{{{field}}}")) {
        at.invalid(field, format!("invalid JSONPath: {why}"));
    }
}
