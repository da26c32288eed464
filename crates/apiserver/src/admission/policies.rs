//! ValidatingAdmissionPolicies: rules in CEL about requests
//! (`k8s.io/apiserver/pkg/admission/plugin/policy/validating`).
//!
//! Flow: [`compiled`] compiles policies once per version and joins them with their bindings into one
//! snapshot, indexed by resource; [`Policies::judge`] finds those that match a request, [`params`]
//! the parameters of their bindings, and [`evaluate`] evaluates a policy for one parameter. The
//! first denial is the answer. What a policy says for the audit log goes to the request's trail.

pub mod authorize;
pub mod compiled;
mod evaluate;
mod params;

use std::sync::Arc;

use api::{ApiError, Kind, KindRef};
use arc_swap::ArcSwap;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::{Value, json};

use super::webhooks::Asked;
use super::webhooks::forms::Forms;
use super::webhooks::select::Facts;
use compiled::{Binding, Policy, Set};
use evaluate::{Evaluated, Violation};
pub use params::row_of;

/// Kinds that are never stored and that a cluster cannot do without: no policy is about them.
const EXCLUDED: [(&str, &str); 6] = [
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authentication.k8s.io", "tokenreviews"),
    ("authorization.k8s.io", "localsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authorization.k8s.io", "subjectaccessreviews"),
];

/// Where violations are recorded whose action is Audit.
const FAILURES: &str = "validation.policy.admission.k8s.io/validation_failure";

/// The policies that are in force, with their bindings.
#[derive(Default)]
pub struct Policies(ArcSwap<Set>);

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Policies").field(&self.names()).finish()
    }
}

/// Why a request is denied.
struct Denial {
    message: String,
    /// `Forbidden` and the like; `None`: the object is not valid.
    reason: Option<String>,
}

impl Policies {
    fn set(&self, set: Set) {
        self.0.store(Arc::new(set));
    }

    /// Whether a policy with a binding names a resource.
    pub fn any_about(&self, plural: &str) -> bool {
        self.0.load().about(plural).next().is_some()
    }

    /// The bindings that are in force.
    pub fn names(&self) -> Vec<String> {
        self.0.load().binding_names()
    }

    /// Judges a request by all policies that match it.
    ///
    /// # Errors
    /// What a policy denies it with.
    pub async fn judge(&self, asked: &Asked<'_>, new: &Value, old: &Value) -> Result<(), ApiError> {
        let (group, plural) = (&*asked.resource.group, &*asked.resource.plural);
        if EXCLUDED.contains(&(group, plural)) {
            return Ok(());
        }
        let (set, mut shared, mut denied) = (self.0.load_full(), Shared::default(), None);
        for policy in set.about(plural) {
            let first = judge_by(policy, asked, new, old, &mut shared).await?;
            denied = denied.or(first);
        }
        match denied {
            None => Ok(()),
            Some(denial) => Err(refusal(asked, denial)),
        }
    }
}

/// What the policies about one request share, made when the first one needs it.
#[derive(Default)]
struct Shared<'a> {
    forms: Forms,
    /// By the version of the resource.
    facts: Vec<(KindRef, Arc<Facts<'a>>)>,
    namespace: Option<Arc<Value>>,
}

impl<'a> Shared<'a> {
    fn facts(&mut self, asked: &Asked<'a>, resource: &KindRef) -> Arc<Facts<'a>> {
        if let Some((_, facts)) = self.facts.iter().find(|(known, _)| known == resource) {
            return facts.clone();
        }
        let facts = Arc::new(Facts::new(asked, resource));
        self.facts.push((resource.clone(), facts.clone()));
        facts
    }

    async fn namespace(&mut self, asked: &Asked<'_>) -> Result<Arc<Value>, ApiError> {
        if let Some(namespace) = &self.namespace {
            return Ok(namespace.clone());
        }
        let namespace = Arc::new(namespace_of(asked).await?);
        Ok(self.namespace.insert(namespace).clone())
    }
}

/// The first denial of a policy.
async fn judge_by<'a>(
    policy: &Policy,
    asked: &Asked<'a>,
    new: &Value,
    old: &Value,
    shared: &mut Shared<'a>,
) -> Result<Option<Denial>, ApiError> {
    let resource = match policy.constraints.matched(asked, new, old).await {
        Ok(Some(resource)) => resource,
        Ok(None) => return Ok(None),
        Err(error) => return Ok(misconfigured(policy, None, error.message())),
    };
    let facts = shared.facts(asked, &resource);
    let namespace = shared.namespace(asked).await?;
    let (shown, before) = match shared.forms.of(asked, &resource, new, old).await {
        Ok(shown) => shown,
        Err(error) => {
            let why = format!("failed to convert object version: {error}");
            return Ok(misconfigured(policy, None, &why));
        }
    };
    let (mut denied, mut recorded) = (None, Annotations::new());
    for binding in &policy.bindings {
        if let Some(matches) = &binding.matches {
            match matches.matched(asked, new, old).await {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(error) => {
                    denied = denied.or(misconfigured(policy, Some(binding), error.message()));
                    continue;
                }
            }
        }
        let params = match params::collect(policy, binding, asked).await {
            Ok(params) => params,
            Err(why) => {
                denied = denied.or(misconfigured(policy, Some(binding), &why));
                continue;
            }
        };
        for param in params {
            let objects = [shown, before, &namespace];
            let mut evaluated = evaluate::evaluate(policy, &facts, objects, param.as_ref());
            for (key, value) in std::mem::take(&mut evaluated.annotations) {
                let values = recorded.entry(key).or_default();
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            let first = act(policy, binding, asked, evaluated);
            denied = denied.or(first);
        }
    }
    for (key, values) in recorded {
        let key = format!("{}/{key}", policy.name);
        asked.call.options.trail.annotate(&key, values.join(", "));
    }
    Ok(denied)
}

/// Values by key, of all bindings of a policy.
type Annotations = std::collections::BTreeMap<String, Vec<String>>;

/// Does what a binding says about violations; returns the first that denies the request.
fn act(
    policy: &Policy,
    binding: &Binding,
    asked: &Asked<'_>,
    evaluated: Evaluated,
) -> Option<Denial> {
    let (options, mut denied, mut failures) = (asked.call.options, None, Vec::new());
    let metrics = &asked.call.core.metrics.policies;
    for violation in evaluated.violations {
        let Violation { message, reason, error, index } = violation;
        for action in &binding.actions {
            metrics.decided(&policy.name, &binding.name, action, error);
            match action.as_str() {
                "Deny" => {
                    denied = denied.or_else(|| {
                        let message = denial(policy, Some(binding), &message);
                        Some(Denial { message, reason: reason.clone() })
                    });
                }
                "Warn" => options.notes.add(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                    policy.name, binding.name
                )),
                _ if options.trail.is_kept() => failures.push(json!({"message": message,
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
    if !failures.is_empty() {
        options.trail.annotate(FAILURES, Value::Array(failures).to_string());
    }
    // An annotation that cannot be made denies whatever the actions are.
    denied.or_else(|| {
        let why = evaluated.annotation_error?;
        Some(Denial { message: denial(policy, Some(binding), &why), reason: None })
    })
}

/// A denial because a policy or a binding cannot be carried out, if that is its failure policy.
fn misconfigured(policy: &Policy, binding: Option<&Binding>, why: &str) -> Option<Denial> {
    if policy.ignores_failures {
        return None;
    }
    let what = if binding.is_some() { "binding" } else { "policy" };
    let why = format!("failed to configure {what}: {why}");
    Some(Denial { message: denial(policy, binding, &why), reason: None })
}

fn denial(policy: &Policy, binding: Option<&Binding>, why: &str) -> String {
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

/// The namespace of the object; null for what is in none, and for a namespace itself.
async fn namespace_of(asked: &Asked<'_>) -> Result<Value, ApiError> {
    if asked.namespace.is_empty() || asked.resource == *Namespace::ROW {
        return Ok(Value::Null);
    }
    let found = asked.call.core.find(Namespace::ROW, &asked.namespace).await?;
    let found = found.ok_or_else(|| ApiError::not_found(Namespace::ROW, &asked.namespace))?;
    let mut namespace: Value = serde_json::from_slice(&found.json).map_err(ApiError::internal)?;
    if let Some(metadata) = namespace["metadata"].as_object_mut() {
        metadata.remove("managedFields");
        metadata.remove("ownerReferences");
    }
    Ok(namespace)
}
