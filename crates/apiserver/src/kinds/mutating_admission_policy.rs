//! MutatingAdmissionPolicies and their bindings
//! (`k8s.io/kubernetes/pkg/apis/admissionregistration`).

use api::cel::{Environment, Expression};
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding,
    MutatingAdmissionPolicySpec, Mutation,
};
use serde_json::Value;

use super::admission_policy::expressions::environment;
use super::admission_policy::{self, BINDING_COLUMNS, default_match};
use super::check::{self, Errors};
use super::path::Path;
use super::{Column, Strategy, columns, fill};

/// What a mutating policy may be about: there is nothing to change in what is deleted.
const OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const REINVOCATION: [&str; 2] = ["IfNeeded", "Never"];

/// The strategy of policies.
pub struct Policies;

/// The strategy of bindings.
pub struct Bindings;

static POLICY_COLUMNS: &[Column] = &[
    columns::NAME,
    columns::integer("Mutations", "How many mutations the policy has."),
    columns::text("ParamKind", "What its parameters are."),
    columns::AGE,
];

fn validate_policy(
    policy: &MutatingAdmissionPolicy,
    old: Option<&MutatingAdmissionPolicySpec>,
) -> Errors {
    let mut errors = Errors::new();
    let none = MutatingAdmissionPolicySpec::default();
    let (spec, path) = (policy.spec.as_ref().unwrap_or(&none), Path::new("spec"));
    admission_policy::definition(
        &spec.failure_policy,
        spec.param_kind.as_ref(),
        spec.match_constraints.as_ref(),
        &path,
        &mut errors,
    );
    operations(spec.match_constraints.as_ref(), &path.child("matchConstraints"), &mut errors);
    let is_same = old.is_some_and(|old| {
        old.match_conditions == spec.match_conditions && old.param_kind == spec.param_kind
    });
    let conditions = spec.match_conditions.as_deref().filter(|_| !is_same);
    let variables = spec.variables.as_deref().unwrap_or_default();
    let environment =
        environment(spec.param_kind.is_some(), conditions, variables, &path, &mut errors);
    let environment = environment.with_patches();
    let (at, mutations) = (path.child("mutations"), spec.mutations.as_deref().unwrap_or_default());
    if mutations.is_empty() {
        let why = "mutations must contain at least one item";
        errors.push(FieldError::required(&at, why));
    }
    for (index, mutation) in mutations.iter().enumerate() {
        validate_mutation(mutation, &environment, &at.index(index), &mut errors);
    }
    let reinvocation = check::text(&spec.reinvocation_policy);
    check::one_of(reinvocation, &REINVOCATION, &path.child("reinvocationPolicy"), &mut errors);
    errors
}

fn operations(matched: Option<&MatchResources>, path: &Path, errors: &mut Errors) {
    let rules = matched.and_then(|matched| matched.resource_rules.as_ref());
    let named = rules.into_iter().flatten().flat_map(|rule| rule.operations.iter().flatten());
    // The path is upstream's: without the index of the rule.
    let at = path.child("resourceRules").child("operations");
    for operation in named.filter(|operation| !OPERATIONS.contains(&operation.as_str())) {
        errors.push(FieldError::not_supported(&at, operation, &OPERATIONS));
    }
}

fn validate_mutation(
    mutation: &Mutation,
    environment: &Environment,
    path: &Path,
    errors: &mut Errors,
) {
    let apply = mutation.apply_configuration.as_ref().map(|one| check::text(&one.expression));
    let patch = mutation.json_patch.as_ref().map(|one| check::text(&one.expression));
    let (apply, patch) = (("applyConfiguration", apply), ("jsonPatch", patch));
    let kind = mutation.patch_type.as_str();
    let ((name, source), (other, unused)) = match kind {
        "ApplyConfiguration" => (apply, patch),
        "JSONPatch" => (patch, apply),
        _ => {
            let (at, all) = (path.child("patchType"), ["ApplyConfiguration", "JSONPatch"]);
            return check::one_of(kind, &all, &at, errors);
        }
    };
    let at = path.child(name);
    match source {
        None => {
            let why = format!("must be specified when patchType is {kind}");
            errors.push(FieldError::required(&at, why));
        }
        Some(source) => {
            let (source, at) = (source.trim(), at.child("expression"));
            if source.is_empty() {
                errors.push(FieldError::required(&at, ""));
            } else if let Err(why) = compile(environment, kind, source) {
                errors.push(FieldError::invalid(&at, source, why));
            }
        }
    }
    if unused.is_some() {
        let why = format!("must not be specified when patchType is {kind}");
        errors.push(FieldError::invalid(path.child(other), format!("{{{other}}}"), why));
    }
}

fn compile(environment: &Environment, kind: &str, source: &str) -> Result<Expression, String> {
    match kind {
        "JSONPatch" => environment.json_patch(source),
        _ => environment.apply_configuration(source),
    }
}

fn validate_binding(binding: &MutatingAdmissionPolicyBinding) -> Errors {
    let mut errors = Errors::new();
    let (spec, path) = (binding.spec.clone().unwrap_or_default(), Path::new("spec"));
    admission_policy::binding(
        check::text(&spec.policy_name),
        spec.param_ref.as_ref(),
        spec.match_resources.as_ref(),
        &path,
        &mut errors,
    );
    operations(spec.match_resources.as_ref(), &path.child("matchResources"), &mut errors);
    errors
}

impl Strategy for Policies {
    type Object = MutatingAdmissionPolicy;

    fn default(&self, policy: &mut MutatingAdmissionPolicy) {
        if let Some(spec) = &mut policy.spec {
            fill::missing(&mut spec.failure_policy, "Fail");
            spec.match_constraints.iter_mut().for_each(default_match);
        }
    }

    fn validate_create(&self, policy: &MutatingAdmissionPolicy) -> Errors {
        validate_policy(policy, None)
    }

    fn validate_update(
        &self,
        new: &MutatingAdmissionPolicy,
        old: &MutatingAdmissionPolicy,
    ) -> Errors {
        validate_policy(new, old.spec.as_ref())
    }

    fn generation_changes(
        &self,
        new: &MutatingAdmissionPolicy,
        old: &MutatingAdmissionPolicy,
    ) -> Option<bool> {
        Some(new.spec != old.spec)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        POLICY_COLUMNS
    }

    fn cells(&self, policy: &MutatingAdmissionPolicy, now: Timestamp) -> Vec<Value> {
        let spec = policy.spec.as_ref();
        let mutations = spec.and_then(|spec| spec.mutations.as_ref());
        vec![
            columns::name(&policy.metadata),
            mutations.map_or(0, Vec::len).into(),
            admission_policy::param_kind_cell(spec.and_then(|spec| spec.param_kind.as_ref())),
            columns::age(&policy.metadata, now),
        ]
    }
}

impl Strategy for Bindings {
    type Object = MutatingAdmissionPolicyBinding;

    fn default(&self, binding: &mut MutatingAdmissionPolicyBinding) {
        let spec = binding.spec.as_mut();
        spec.and_then(|spec| spec.match_resources.as_mut()).into_iter().for_each(default_match);
    }

    fn validate(&self, binding: &MutatingAdmissionPolicyBinding) -> Errors {
        validate_binding(binding)
    }

    fn generation_changes(
        &self,
        new: &MutatingAdmissionPolicyBinding,
        old: &MutatingAdmissionPolicyBinding,
    ) -> Option<bool> {
        Some(new.spec != old.spec)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        BINDING_COLUMNS
    }

    fn cells(&self, binding: &MutatingAdmissionPolicyBinding, now: Timestamp) -> Vec<Value> {
        let spec = binding.spec.clone().unwrap_or_default();
        vec![
            columns::name(&binding.metadata),
            check::text(&spec.policy_name).into(),
            admission_policy::param_ref_cell(spec.param_ref.as_ref()),
            columns::age(&binding.metadata, now),
        ]
    }
}
