//! MutatingAdmissionPolicies: what they change
//! (`k8s.io/apiserver/pkg/admission/plugin/policy/mutating`).
//!
//! [`Policies::mutate`] first finds all that applies to the object as it came, each policy once for
//! each parameter of each binding, and then lets one after the other change it. A mutation that fails
//! denies the request, if that is the policy's failure policy, but only once all have been tried.

use std::sync::Arc;

use api::apply::Schema;
use api::cel::{Environment, Expression};
use api::{ApiError, KindRef};
use arc_swap::ArcSwap;
use clock::monotonic;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, Mutation as Given,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::Value;

use super::compiled::{Binding, Bound, Compiled, Parts, Policy, Rules, Set};
use super::evaluate::{self, Made};
use super::{Policies, Shared, params};
use crate::admission::subject::Subject;
use crate::admission::webhooks::{Asked, Rounds};
use crate::body;
use crate::request::FieldValidation;
use crate::verbs::patch::json;

/// What a policy changes.
pub struct Mutating {
    pub mutations: Vec<Mutation>,
    /// Whether they run again after something else has changed the object.
    pub reinvoked: bool,
}

pub struct Mutation {
    pub patch: Patch,
    pub expression: Compiled,
}

/// How a mutation changes an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patch {
    /// `ApplyConfiguration`
    Configuration,
    /// `JSONPatch`
    Operations,
}

impl Rules for Mutating {
    type Policy = MutatingAdmissionPolicy;
    type Binding = MutatingAdmissionPolicyBinding;

    fn compile(
        policy: MutatingAdmissionPolicy,
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
        let environment = environment.with_patches();
        let mutation = |given: Given| {
            let source = |text: Option<String>| text.unwrap_or_default();
            Some(match (given.patch_type.as_str(), given.json_patch, given.apply_configuration) {
                ("JSONPatch", Some(given), _) => Mutation {
                    patch: Patch::Operations,
                    expression: environment.json_patch(&source(given.expression)),
                },
                ("ApplyConfiguration", _, Some(given)) => Mutation {
                    patch: Patch::Configuration,
                    expression: environment.apply_configuration(&source(given.expression)),
                },
                _ => return None,
            })
        };
        Self {
            mutations: spec.mutations.into_iter().flatten().filter_map(mutation).collect(),
            reinvoked: spec.reinvocation_policy.as_deref() == Some("IfNeeded"),
        }
    }

    fn bound(binding: MutatingAdmissionPolicyBinding) -> Bound {
        let spec = binding.spec.unwrap_or_default();
        Bound {
            policy: spec.policy_name.unwrap_or_default(),
            param_ref: spec.param_ref,
            matched: spec.match_resources,
            actions: Vec::new(),
        }
    }

    fn expressions(&self) -> impl Iterator<Item = &Expression> {
        self.mutations.iter().flat_map(|mutation| &mutation.expression)
    }

    fn set(policies: &Policies) -> &ArcSwap<Set<Self>> {
        &policies.mutating
    }
}

/// A policy that is to change an object, with one parameter of one of its bindings.
struct Invocation {
    policy: Arc<Policy<Mutating>>,
    /// Its place among the policy's bindings.
    binding: usize,
    /// The resource in the version that its rules name.
    resource: KindRef,
    param: Option<Value>,
}

impl Invocation {
    fn binding(&self) -> &Binding {
        &self.policy.bindings[self.binding]
    }

    /// The same in both rounds, and of no other.
    fn key(&self) -> String {
        let param = self.param.as_ref().map(|param| &param["metadata"]);
        let text = |name| param.and_then(|param| param[name].as_str()).unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        format!("{}/{}/{namespace}/{name}", self.policy.name, self.binding().name)
    }
}

/// What is wrong with the policies about a request, of those that do not ignore it.
#[derive(Default)]
struct Failures(Vec<Failure>);

struct Failure {
    message: String,
    /// The object is not what a policy can change, rather than the policy misconfigured.
    invalid: bool,
}

impl Failures {
    fn add(&mut self, policy: &Policy<Mutating>, binding: Option<&Binding>, why: &str) {
        let what = if binding.is_some() { "binding" } else { "policy" };
        self.push(policy, binding, &format!("failed to configure {what}: {why}"), false);
    }

    fn push(
        &mut self,
        policy: &Policy<Mutating>,
        binding: Option<&Binding>,
        why: &str,
        invalid: bool,
    ) {
        if policy.ignores_failures {
            tracing::debug!(policy = policy.name, why, "a mutating policy failed");
            return;
        }
        let name = &policy.name;
        let message = match binding {
            Some(binding) => {
                format!("policy '{name}' with binding '{}' denied request: {why}", binding.name)
            }
            None => format!("policy {name:?} denied request: {why}"),
        };
        self.0.push(Failure { message, invalid });
    }

    /// The first one is the answer's message, and all of them are its causes.
    fn refusal(self, asked: &Asked<'_>) -> Result<(), ApiError> {
        let Some(first) = self.0.first() else {
            return Ok(());
        };
        let (message, invalid) = (first.message.clone(), first.invalid);
        let mut error = ApiError::forbidden(&asked.resource, &asked.name, &message);
        let status = error.status_mut();
        status.message = Some(message);
        if invalid {
            status.reason = Some("Invalid".to_owned());
        }
        let cause = |failure: Failure| StatusCause {
            message: Some(failure.message),
            ..StatusCause::default()
        };
        let causes = self.0.into_iter().map(cause).collect();
        status.details.get_or_insert_default().causes = Some(causes);
        Err(error)
    }
}

/// Why a mutation changes nothing.
enum Fault {
    /// What the failure policy is about.
    Failed(String),
    /// What ends the request whatever that is.
    Refused(ApiError),
}

impl Policies {
    /// Lets all policies that match a request change its object. `old`: null if no policy reads it.
    ///
    /// # Errors
    /// What a policy denies it with.
    pub async fn mutate(
        &self,
        asked: &Asked<'_>,
        subject: &mut dyn Subject,
        old: &Value,
        rounds: &mut Rounds,
    ) -> Result<(), ApiError> {
        let (set, mut shared, mut failures) =
            (self.mutating.load_full(), Shared::default(), Failures::default());
        let mut new = subject.value()?;
        let mut invocations = Vec::new();
        for policy in set.about(&asked.resource.plural) {
            let found = matching(policy, asked, &new, old, &mut failures).await;
            invocations.extend(found);
        }
        rounds.begin_policies(&new);
        let mut changed = Vec::new();
        for invocation in &invocations {
            let run = Run { asked, invocation, old };
            let outcome = run.all(subject, &mut new, &mut shared, rounds, &mut failures).await?;
            if outcome {
                changed.push(&invocation.resource);
            }
        }
        // As upstream: whoever may run again does so, if the last one has done anything at all.
        if invocations.last().is_some_and(|last| changed.contains(&&last.resource)) {
            rounds.policies_changed();
        }
        rounds.end_policies(new);
        failures.refusal(asked)
    }
}

/// How a policy is to be invoked.
async fn matching(
    policy: &Arc<Policy<Mutating>>,
    asked: &Asked<'_>,
    new: &Value,
    old: &Value,
    failures: &mut Failures,
) -> Vec<Invocation> {
    let mut invocations = Vec::new();
    let resource = match policy.constraints.matched(asked, new, old).await {
        Ok(Some(resource)) => resource,
        Ok(None) => return invocations,
        Err(error) => {
            failures.add(policy, None, error.message());
            return invocations;
        }
    };
    for (index, binding) in policy.bindings.iter().enumerate() {
        if let Some(matches) = &binding.matches {
            match matches.matched(asked, new, old).await {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(error) => {
                    failures.add(policy, Some(binding), error.message());
                    continue;
                }
            }
        }
        match params::collect(policy, binding, asked).await {
            Ok(params) => invocations.extend(params.into_iter().map(|param| Invocation {
                policy: policy.clone(),
                binding: index,
                resource: resource.clone(),
                param,
            })),
            Err(why) => failures.add(policy, Some(binding), &why),
        }
    }
    invocations
}

/// An invocation about a request.
struct Run<'a, 'r> {
    asked: &'r Asked<'a>,
    invocation: &'r Invocation,
    old: &'r Value,
}

impl<'a> Run<'a, '_> {
    /// Runs all mutations; whether any did.
    async fn all(
        &self,
        subject: &mut dyn Subject,
        new: &mut Value,
        shared: &mut Shared<'a>,
        rounds: &mut Rounds,
        failures: &mut Failures,
    ) -> Result<bool, ApiError> {
        let Invocation { policy, resource, param, .. } = self.invocation;
        let (asked, binding) = (self.asked, self.invocation.binding());
        let facts = shared.facts(asked, resource, policy.uses);
        let namespace = shared.namespace(asked, policy.uses).await?;
        let held = {
            let (shown, before) = match shared.forms.of(asked, resource, new, self.old).await {
                Ok(shown) => shown,
                Err(error) => {
                    failures.add(policy, None, &error.to_string());
                    return Ok(false);
                }
            };
            let objects = [shown, before, &*namespace];
            let holds = || {
                let variables = evaluate::variables(policy, &facts, objects, param.as_ref());
                evaluate::holds(policy, &variables)
            };
            facts.settle(holds).await
        };
        match held {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => {
                failures.push(policy, Some(binding), &why, true);
                return Ok(false);
            }
        }
        let key = self.invocation.key();
        if rounds.skips_policy(&key) {
            return Ok(false);
        }
        let (mut ran, mut changed) = (false, false);
        for mutation in &policy.rules.mutations {
            // As upstream: there is nothing to change.
            if new.is_null() {
                break;
            }
            let started = monotonic();
            let outcome = {
                let (shown, before) = shared.forms.of(asked, resource, new, self.old).await?;
                let objects = [shown, before, &*namespace];
                let made = || {
                    let variables = evaluate::variables(policy, &facts, objects, param.as_ref());
                    evaluate::mutation(policy, mutation, &variables)
                };
                let made = facts.settle(made).await.map_err(Fault::Failed);
                made.and_then(|made| self.changed(shown, made))
            };
            let metrics = &asked.call.core.metrics.policies;
            let fault = outcome.as_ref().err().map(Fault::kind).unwrap_or("no_error");
            metrics.mutated(&policy.name, &binding.name, fault, started.elapsed());
            match outcome {
                Ok(None) => ran = true,
                Ok(Some(patched)) => {
                    let patched = shared.forms.back(asked, resource, patched).await?;
                    subject.replace(patched)?;
                    *new = subject.value()?;
                    shared.forms.clear();
                    (ran, changed) = (true, true);
                }
                Err(Fault::Refused(error)) => return Err(error),
                Err(Fault::Failed(why)) => failures.push(policy, Some(binding), &why, true),
            }
        }
        if changed {
            rounds.policies_changed();
        }
        if policy.rules.reinvoked {
            rounds.policy_called(key);
        }
        Ok(ran)
    }

    /// The object after a mutation; `None`: as it was.
    fn changed(&self, shown: &Value, made: Made) -> Result<Option<Value>, Fault> {
        let patched = match made {
            Made::Configuration(mut config) => {
                for name in ["apiVersion", "kind"] {
                    config[name] = shown[name].clone();
                }
                let schema = self.schema()?;
                api::apply::overlay(shown, &config, schema)
                    .map_err(|why| Fault::Failed(format!("error applying patch: {why}")))?
            }
            Made::Operations(operations) => match patched(shown, &operations)? {
                None => return Ok(None),
                Some(patched) => {
                    self.check_fields(&patched)?;
                    patched
                }
            },
        };
        Ok((patched != *shown).then_some(patched))
    }

    fn schema(&self) -> Result<Schema<'_>, Fault> {
        let Some(own) = &self.asked.own_kind else {
            return Ok(self.invocation.resource.merge_schema());
        };
        let found = api::schema::kind(&own.group, &own.version, &own.kind);
        found.map(Schema::Table).ok_or_else(|| {
            let (group, version, kind) = (&own.group, &own.version, &own.kind);
            Fault::Failed(format!(
                "error applying patch: failed to convert patch object to typed object: no corresponding type for {group}/{version}, Kind={kind}"
            ))
        })
    }

    /// What a patch makes of a built-in kind is decoded strictly.
    fn check_fields(&self, patched: &Value) -> Result<(), Fault> {
        let resource = &self.invocation.resource;
        if resource.custom.is_some() || self.asked.own_kind.is_some() {
            return Ok(());
        }
        let json = serde_json::to_vec(patched).map_err(ApiError::internal)?;
        let decoded = body::decode(resource, &json, FieldValidation::Warn)
            .map_err(|error| ApiError::internal(error.message()))?;
        let unknown = decoded.warnings.iter().filter(|why| why.starts_with("unknown field"));
        let unknown: Vec<&str> = unknown.map(String::as_str).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let why = format!("strict decoding error: {}", unknown.join(", "));
        Err(Fault::Refused(ApiError::internal(why)))
    }
}

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl Fault {
    /// As metrics name it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Failed(why) if why.starts_with("compilation") => "compile_error",
            Self::Failed(why)
                if why.starts_with("validation failed due to running out of cost budget") =>
            {
                "out_of_budget"
            }
            _ => "invalid_error",
        }
    }
}

/// An object after a patch; `None`: one of its tests has failed, so that it is not applied.
fn patched(object: &Value, operations: &[Value]) -> Result<Option<Value>, Fault> {
    let failed = |why: &str| Fault::Failed(format!("JSON Patch: {why}"));
    let patch = json::parse(operations).map_err(|error| failed(&error.to_string()))?;
    let mut patched = object.clone();
    match json::apply(&mut patched, &patch) {
        Ok(()) => Ok(Some(patched)),
        Err(why) if why.is_test => Ok(None),
        Err(why) => Err(failed(&why.to_string())),
    }
}
