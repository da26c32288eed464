//! ValidatingAdmissionPolicies: what they deny
//! (`k8s.io/apiserver/pkg/admission/plugin/policy/validating`).

use api::ApiError;
use api::cel::{Environment, Expression};
use arc_swap::ArcSwap;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, Validation as Given,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::{Value, json};

use super::compiled::{Binding, Bound, Compiled, Parts, Policy, Rules, Set};
use super::evaluate::{self, Evaluated, Violation};
use super::{Policies, Shared, params};
use crate::admission::webhooks::Asked;

/// Where violations are recorded whose action is Audit.
const FAILURES: &str = "validation.policy.admission.k8s.io/validation_failure";
/// How many of them are recorded of one request.
const FAILURES_MAX: usize = 50;

/// The rules of a policy, and what it says for the audit log.
pub struct Validating {
    pub validations: Vec<Validation>,
    pub annotations: Vec<(String, Compiled)>,
}

/// One rule of a policy.
pub struct Validation {
    pub source: String,
    pub expression: Compiled,
    pub message: Option<String>,
    pub message_expression: Option<Compiled>,
    pub reason: Option<String>,
}

impl Rules for Validating {
    type Policy = ValidatingAdmissionPolicy;
    type Binding = ValidatingAdmissionPolicyBinding;

    fn compile(
        policy: ValidatingAdmissionPolicy,
        compile: &mut dyn FnMut(Parts) -> Environment,
    ) -> Self {
        let spec = policy.spec.unwrap_or_default();
        let environment = compile(Parts {
            name: policy.metadata.name,
            failure_policy: spec.failure_policy,
            param_kind: spec.param_kind,
            constraints: spec.match_constraints,
            conditions: spec.match_conditions,
            variables: spec.variables,
        });
        let validation = |given: Given| Validation {
            expression: environment.condition(&given.expression),
            message: given.message,
            message_expression: given
                .message_expression
                .filter(|source| !source.trim().is_empty())
                .map(|source| environment.without_authorizer().compile(&source, &["string"])),
            reason: given.reason,
            source: given.expression,
        };
        let validations = spec.validations.into_iter().flatten().map(validation).collect();
        let wanted = ["string", "null_type"];
        let annotations = spec.audit_annotations.into_iter().flatten().map(|given| {
            let compiled = environment.compile(given.value_expression.trim(), &wanted);
            (given.key, compiled)
        });
        Self { validations, annotations: annotations.collect() }
    }

    fn bound(binding: ValidatingAdmissionPolicyBinding) -> Bound {
        let spec = binding.spec;
        Bound {
            policy: spec.policy_name,
            param_ref: spec.param_ref,
            matched: spec.match_resources,
            actions: spec.validation_actions,
        }
    }

    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        let rules = self.validations.iter().flat_map(|validation| {
            [Some(&validation.expression), validation.message_expression.as_ref()]
        });
        let annotations = self.annotations.iter().map(|(_, compiled)| Some(compiled));
        rules.chain(annotations).flatten().flatten()
    }

    fn set(policies: &Policies) -> &ArcSwap<Set<Self>> {
        &policies.validating
    }
}

/// Why a request is denied.
struct Denial {
    message: String,
    /// `Forbidden` and the like; `None`: the object is not valid.
    reason: Option<String>,
}

impl Policies {
    /// Judges a request by all policies that match it.
    ///
    /// # Errors
    /// What a policy denies it with.
    pub async fn judge(&self, asked: &Asked<'_>, new: &Value, old: &Value) -> Result<(), ApiError> {
        let (set, mut shared, mut verdict) =
            (self.validating.load_full(), Shared::default(), Verdict::default());
        for policy in set.about(&asked.resource.plural) {
            judge_by(policy, asked, (new, old), &mut shared, &mut verdict).await?;
        }
        verdict.record(asked);
        match verdict.denied {
            None => Ok(()),
            Some(denial) => Err(refusal(asked, denial)),
        }
    }
}

/// What all policies together say about a request.
#[derive(Default)]
struct Verdict {
    /// The first denial.
    denied: Option<Denial>,
    /// Violations for the audit log.
    failures: Vec<Value>,
}

impl Verdict {
    fn deny(&mut self, denial: Option<Denial>) {
        self.denied = self.denied.take().or(denial);
    }

    /// Writes the violations to the audit log: all in one annotation, which has one value only.
    fn record(&mut self, asked: &Asked<'_>) {
        let mut failures = std::mem::take(&mut self.failures);
        if failures.is_empty() {
            return;
        }
        if failures.len() > FAILURES_MAX {
            let count = failures.len();
            tracing::warn!(count, "not all violations of admission policies are recorded");
            failures.truncate(FAILURES_MAX);
        }
        asked.call.options.trail.annotate(FAILURES, Value::Array(failures).to_string());
    }
}

/// Judges a request by one policy.
async fn judge_by<'a>(
    policy: &Policy<Validating>,
    asked: &Asked<'a>,
    (new, old): (&Value, &Value),
    shared: &mut Shared<'a>,
    verdict: &mut Verdict,
) -> Result<(), ApiError> {
    let resource = match policy.constraints.matched(asked, new, old).await {
        Ok(Some(resource)) => resource,
        Ok(None) => return Ok(()),
        Err(error) => {
            verdict.deny(misconfigured(policy, None, error.message()));
            return Ok(());
        }
    };
    let facts = shared.facts(asked, &resource, policy.uses);
    let namespace = shared.namespace(asked, policy.uses).await?;
    let (shown, before) = match shared.forms.of(asked, &resource, new, old).await {
        Ok(shown) => shown,
        Err(error) => {
            let why = format!("failed to convert object version: {error}");
            verdict.deny(misconfigured(policy, None, &why));
            return Ok(());
        }
    };
    let mut recorded = Annotations::new();
    for binding in &policy.bindings {
        if let Some(matches) = &binding.matches {
            match matches.matched(asked, new, old).await {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(error) => {
                    verdict.deny(misconfigured(policy, Some(binding), error.message()));
                    continue;
                }
            }
        }
        let params = match params::collect(policy, binding, asked).await {
            Ok(params) => params,
            Err(why) => {
                verdict.deny(misconfigured(policy, Some(binding), &why));
                continue;
            }
        };
        for param in params {
            let objects = [shown, before, &namespace];
            let evaluate = || evaluate::evaluate(policy, &facts, objects, param.as_ref());
            let mut evaluated = facts.settle(evaluate).await;
            for (key, value) in std::mem::take(&mut evaluated.annotations) {
                let values = recorded.entry(key).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            act(policy, binding, asked, evaluated, verdict);
        }
    }
    for (key, values) in recorded {
        let key = format!("{}/{key}", policy.name);
        asked.call.options.trail.annotate(&key, values.join(", "));
    }
    Ok(())
}

/// Values by key, of all bindings of a policy.
type Annotations = std::collections::BTreeMap<String, Vec<String>>;

/// Does what a binding says about violations.
fn act(
    policy: &Policy<Validating>,
    binding: &Binding,
    asked: &Asked<'_>,
    evaluated: Evaluated,
    verdict: &mut Verdict,
) {
    let options = asked.call.options;
    let metrics = &asked.call.core.metrics.policies;
    for violation in evaluated.violations {
        let Violation { message, reason, error, index } = violation;
        for action in &binding.actions {
            metrics.decided(&policy.name, &binding.name, action, error);
            match action.as_str() {
                "Deny" => {
                    let message = denial(policy, Some(binding), &message);
                    verdict.deny(Some(Denial { message, reason: reason.clone() }));
                }
                "Warn" => options.notes.add(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                    policy.name, binding.name
                )),
                _ if options.trail.is_kept() => verdict.failures.push(json!({"message": message,
                    "policy": policy.name, "binding": binding.name, "expressionIndex": index,
                    "validationActions": binding.actions})),
                _ => tracing::info!(
                    policy = policy.name,
                    binding = binding.name,
                    message,
                    "a request violates an admission policy"
                ),
            }
        }
    }
    // An annotation that cannot be made denies whatever the actions are.
    verdict.deny(
        evaluated
            .annotation_error
            .map(|why| Denial { message: denial(policy, Some(binding), &why), reason: None }),
    );
}

/// A denial because a policy or a binding cannot be carried out, if that is its failure policy.
fn misconfigured(
    policy: &Policy<Validating>,
    binding: Option<&Binding>,
    why: &str,
) -> Option<Denial> {
    if policy.ignores_failures {
        return None;
    }
    let what = if binding.is_some() { "binding" } else { "policy" };
    let why = format!("failed to configure {what}: {why}");
    Some(Denial { message: denial(policy, binding, &why), reason: None })
}

fn denial(policy: &Policy<Validating>, binding: Option<&Binding>, why: &str) -> String {
    let with = binding.map(|binding| format!(" with binding '{}'", binding.name));
    let (name, with) = (&policy.name, with.unwrap_or_default());
    format!("ValidatingAdmissionPolicy '{name}'{with} denied request: {why}")
}

fn refusal(asked: &Asked<'_>, denial: Denial) -> ApiError {
    let mut error = ApiError::forbidden(&asked.resource, &asked.name, &denial.message);
    let reason = denial.reason.unwrap_or_else(|| "Invalid".to_owned());
    let status = error.status_mut();
    status.code = Some(match reason.as_str() {
        "Unauthorized" => 401,
        "Forbidden" => 403,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    });
    status.reason = Some(reason);
    let cause = StatusCause { message: Some(denial.message), ..StatusCause::default() };
    status.details.get_or_insert_default().causes = Some(vec![cause]);
    error
}
