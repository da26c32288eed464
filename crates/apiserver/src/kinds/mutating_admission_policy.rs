//! MutatingAdmissionPolicies and their bindings
//! (`k8s.io/kubernetes/pkg/apis/admissionregistration`).

use api::cel::Environment;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, Mutation,
};

use super::admission_policy::expressions::environment;
use super::admission_policy::{self, default_match, param_kind_cell};
use super::at::At;
use super::columns::{integer, text};
use super::table::{Rows, age, items, name};
use super::{check, fill};

/// What a mutating policy may be about: there is nothing to change in what is deleted.
const OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const REINVOCATION: [&str; 2] = ["IfNeeded", "Never"];

pub static POLICIES: Rows<MutatingAdmissionPolicy> = Rows {
    any_finalizer: true,
    default: |policy| {
        if let Some(spec) = &mut policy.spec {
            fill::missing(&mut spec.failure_policy, "Fail");
            spec.match_constraints.iter_mut().for_each(default_match);
        }
    },
    create: |policy, at| validate(policy, None, &at.child("spec")),
    update: |new, old, at| validate(new, Some(old), &at.child("spec")),
    generation: |new, old| Some(new.spec != old.spec),
    unconditional: false,
    columns: &[
        name(),
        integer("Mutations", "How many mutations the policy has.")
            .json(|policy| items(&policy["spec"]["mutations"]).len().into()),
        text("ParamKind", "What its parameters are.").json(param_kind_cell),
        age(),
    ],
    ..Rows::NEW
};

pub static BINDINGS: Rows<MutatingAdmissionPolicyBinding> = Rows {
    default: |binding| {
        let spec = binding.spec.as_mut();
        spec.and_then(|spec| spec.match_resources.as_mut()).into_iter().for_each(default_match);
    },
    judge: |binding, at| {
        let (spec, at) = (binding.spec.clone().unwrap_or_default(), at.child("spec"));
        let matched = spec.match_resources.as_ref();
        let (policy, reference) = (check::text(&spec.policy_name), spec.param_ref.as_ref());
        admission_policy::binding(policy, reference, matched, &at);
        operations(matched, &at.child("matchResources"));
    },
    generation: |new, old| Some(new.spec != old.spec),
    ..Rows::POLICY_BINDINGS
};

fn validate(policy: &MutatingAdmissionPolicy, old: Option<&MutatingAdmissionPolicy>, at: &At<'_>) {
    let spec = policy.spec.clone().unwrap_or_default();
    let (params, constraints) = (spec.param_kind.as_ref(), spec.match_constraints.as_ref());
    admission_policy::definition(&spec.failure_policy, params, constraints, at);
    operations(constraints, &at.child("matchConstraints"));
    let is_same = old.and_then(|old| old.spec.as_ref()).is_some_and(|old| {
        old.match_conditions == spec.match_conditions && old.param_kind == spec.param_kind
    });
    let conditions = spec.match_conditions.as_deref().filter(|_| !is_same);
    let environment = environment(params.is_some(), conditions, spec.variables.as_ref(), at);
    let environment = environment.with_patches();
    let mutations = spec.mutations.as_deref().unwrap_or_default();
    if mutations.is_empty() {
        at.child("mutations").required("mutations must contain at least one item");
    }
    for (index, mutation) in mutations.iter().enumerate() {
        validate_mutation(mutation, &environment, &at.item("mutations", index));
    }
    let reinvocation = check::text(&spec.reinvocation_policy);
    at.child("reinvocationPolicy").one_of(reinvocation, &REINVOCATION);
}

fn operations(matched: Option<&MatchResources>, at: &At<'_>) {
    let rules = matched.and_then(|matched| matched.resource_rules.as_ref());
    let named = rules.into_iter().flatten().flat_map(|rule| rule.operations.iter().flatten());
    // The path is upstream's: without the index of the rule.
    let at = at.child("resourceRules.operations");
    for operation in named.filter(|operation| !OPERATIONS.contains(&operation.as_str())) {
        at.not_supported(operation, &OPERATIONS);
    }
}

fn validate_mutation(mutation: &Mutation, environment: &Environment, at: &At<'_>) {
    let apply = mutation.apply_configuration.as_ref().map(|one| check::text(&one.expression));
    let patch = mutation.json_patch.as_ref().map(|one| check::text(&one.expression));
    let (apply, patch) = (("applyConfiguration", apply), ("jsonPatch", patch));
    let kind = mutation.patch_type.as_str();
    let ((name, source), (other, unused)) = match kind {
        "ApplyConfiguration" => (apply, patch),
        "JSONPatch" => (patch, apply),
        _ => {
            return at.child("patchType").one_of(kind, &["ApplyConfiguration", "JSONPatch"]);
        }
    };
    let own = at.child(name);
    match source.map(str::trim) {
        None => own.required(format!("must be specified when patchType is {kind}")),
        Some("") => own.child("expression").required(""),
        Some(source) => {
            let compiled = match kind {
                "JSONPatch" => environment.json_patch(source),
                _ => environment.apply_configuration(source),
            };
            if let Err(why) = compiled {
                own.child("expression").invalid(source, why);
            }
        }
    }
    if unused.is_some() {
        let why = format!("must not be specified when patchType is {kind}");
        at.child(other).invalid(format!("{{{other}}}"), why);
    }
}
