//! Policies and bindings, compiled once per version.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::cel::{Environment, Expression};
use api::labels::{Selector, SelectorError};
use api::{ApiError, Kind, KindRef};
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ParamKind, ParamRef, RuleWithOperations,
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, Validation as Given,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::admission::webhooks::Asked;
use crate::admission::webhooks::configuration::{Index, conditions, selector};
use crate::admission::webhooks::select::{Head, equivalents_of, is_selected, matches};
use crate::cache::{Filter, derive};
use crate::core::Core;

/// An expression, or why it cannot be compiled.
pub type Compiled = Result<Expression, String>;

/// A policy with its bindings.
pub struct Policy {
    pub name: String,
    pub ignores_failures: bool,
    pub param_kind: Option<ParamKind>,
    pub constraints: Match,
    pub conditions: Vec<Compiled>,
    /// The members of `variables`.
    pub variables: Vec<(String, Expression)>,
    /// A member that cannot be compiled, and why.
    pub broken: Option<(String, String)>,
    pub validations: Vec<Validation>,
    pub annotations: Vec<(String, Compiled)>,
    pub bindings: Vec<Binding>,
}

/// One rule of a policy.
pub struct Validation {
    pub source: String,
    pub expression: Compiled,
    pub message: Option<String>,
    pub message_expression: Option<Compiled>,
    pub reason: Option<String>,
}

/// Where and with what a policy is in force.
pub struct Binding {
    pub name: String,
    pub param_ref: Option<ParamRef>,
    pub matches: Option<Match>,
    pub actions: Vec<String>,
}

/// Which requests a policy or a binding is about.
pub struct Match {
    namespaces: Result<Selector, SelectorError>,
    objects: Result<Selector, SelectorError>,
    rules: Vec<NamedRule>,
    excluded: Vec<NamedRule>,
    equivalent: bool,
}

/// A rule, and the names that it is about; none: all.
struct NamedRule {
    rule: RuleWithOperations,
    names: Vec<String>,
}

impl From<NamedRuleWithOperations> for NamedRule {
    fn from(given: NamedRuleWithOperations) -> Self {
        let rule = RuleWithOperations {
            api_groups: given.api_groups,
            api_versions: given.api_versions,
            operations: given.operations,
            resources: given.resources,
            scope: given.scope,
        };
        Self { rule, names: given.resource_names.unwrap_or_default() }
    }
}

impl Match {
    fn new(given: MatchResources) -> Self {
        let rules = |given: Option<Vec<NamedRuleWithOperations>>| {
            given.unwrap_or_default().into_iter().map(NamedRule::from).collect()
        };
        Self {
            namespaces: selector(given.namespace_selector.as_ref()),
            objects: selector(given.object_selector.as_ref()),
            rules: rules(given.resource_rules),
            excluded: rules(given.exclude_resource_rules),
            equivalent: given.match_policy.as_deref() != Some("Exact"),
        }
    }

    /// The resource of a request that is matched, in the version that the rules name.
    ///
    /// # Errors
    /// When a selector is not valid, or the namespace is missing.
    pub async fn matched(
        &self,
        asked: &Asked<'_>,
        new: &Value,
        old: &Value,
    ) -> Result<Option<KindRef>, ApiError> {
        let [objects, namespaces] = [&self.objects, &self.namespaces]
            .map(|selector| selector.as_ref().map_err(|error| ApiError::internal(&error.0)));
        if !is_selected(asked, objects?, namespaces?, new, old).await?
            || self.found(&self.excluded, asked).is_some()
        {
            return Ok(None);
        }
        if self.rules.is_empty() {
            return Ok(Some(asked.resource.clone()));
        }
        Ok(self.found(&self.rules, asked))
    }

    fn found(&self, rules: &[NamedRule], asked: &Asked<'_>) -> Option<KindRef> {
        let head = Head {
            operation: asked.operation,
            subresource: asked.subresource,
            is_in_namespace: asked.resource.namespaced() && !asked.call.target.namespace.is_empty(),
        };
        let named =
            rules.iter().filter(|rule| rule.names.is_empty() || rule.names.contains(&asked.name));
        let named: Vec<&NamedRule> = named.collect();
        if named.iter().any(|rule| matches(&rule.rule, &head, &asked.resource)) {
            return Some(asked.resource.clone());
        }
        if !self.equivalent || named.is_empty() {
            return None;
        }
        let others = equivalents_of(asked.call, &asked.resource);
        let pairs = named.iter().flat_map(|rule| others.iter().map(move |other| (rule, other)));
        let found = pairs.into_iter().find(|(rule, other)| matches(&rule.rule, &head, other));
        found.map(|(_, other)| other.clone())
    }
}

impl Policy {
    fn new(policy: ValidatingAdmissionPolicy, bindings: Vec<Binding>) -> Self {
        let spec = policy.spec.unwrap_or_default();
        let mut environment = Environment::new(spec.param_kind.is_some());
        let conditions = conditions(spec.match_conditions.as_deref(), &environment);
        let (mut variables, mut broken) = (Vec::new(), None);
        for variable in spec.variables.into_iter().flatten() {
            match environment.compile(&variable.expression, &[]) {
                Ok(expression) => {
                    environment.compose(&variable.name, Some(&expression));
                    variables.push((variable.name, expression));
                }
                Err(why) => {
                    environment.compose(&variable.name, None);
                    broken.get_or_insert((variable.name, why));
                }
            }
        }
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
        Self {
            name: policy.metadata.name.unwrap_or_default(),
            ignores_failures: spec.failure_policy.as_deref() == Some("Ignore"),
            constraints: Match::new(spec.match_constraints.unwrap_or_default()),
            conditions,
            variables,
            broken,
            validations,
            annotations: annotations.collect(),
            param_kind: spec.param_kind,
            bindings,
        }
    }
}

impl Binding {
    fn new(name: &str, spec: &BindingSpec) -> Self {
        Self {
            name: name.to_owned(),
            param_ref: spec.param_ref.clone(),
            matches: spec.match_resources.clone().map(Match::new),
            actions: spec.validation_actions.clone(),
        }
    }
}

type BindingSpec =
    k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBindingSpec;

/// All policies that have a binding, by name.
#[derive(Default)]
pub struct Set {
    all: Vec<Arc<Policy>>,
    index: Index,
}

impl Set {
    fn new(all: Vec<Arc<Policy>>) -> Self {
        let resources = all.iter().map(|policy| {
            let rules = policy.constraints.rules.iter();
            rules.flat_map(|named| named.rule.resources.iter().flatten()).map(String::as_str)
        });
        Self { index: Index::new(resources), all }
    }

    /// The policies of which some rule names a resource.
    pub fn about<'a>(&'a self, plural: &str) -> impl Iterator<Item = &'a Arc<Policy>> {
        self.index.about(plural).iter().map(|index| &self.all[*index])
    }

    pub fn binding_names(&self) -> Vec<String> {
        let bindings = self.all.iter().flat_map(|policy| &policy.bindings);
        bindings.map(|binding| binding.name.clone()).collect()
    }
}

/// What was seen last: the revisions of a policy and of all its bindings, and what they came to.
type Seen = (Vec<(String, u64)>, Arc<Policy>);

/// Compiles what has changed, and publishes all of it.
fn refresh(core: &Core, known: &mut BTreeMap<String, Seen>) {
    let (policies, bindings) =
        (ValidatingAdmissionPolicy::ROW, ValidatingAdmissionPolicyBinding::ROW);
    let mut bound: BTreeMap<String, Vec<(String, u64, BindingSpec)>> = BTreeMap::new();
    for version in core.cache.resource(bindings).list(&Filter::everything(bindings, "")) {
        let Ok(binding) = ValidatingAdmissionPolicyBinding::decode(&version.json) else { continue };
        let spec = binding.spec;
        let same = bound.entry(spec.policy_name.clone()).or_default();
        same.push((version.name.to_string(), version.revision, spec));
    }
    let mut before = std::mem::take(known);
    for version in core.cache.resource(policies).list(&Filter::everything(policies, "")) {
        let name = version.name.to_string();
        let Some(mut own) = bound.remove(&name) else { continue };
        own.sort_by(|one, other| one.0.cmp(&other.0));
        let mut revisions = vec![(name.clone(), version.revision)];
        revisions.extend(own.iter().map(|(name, revision, _)| (name.clone(), *revision)));
        let same = before.remove(&name).filter(|(seen, _)| *seen == revisions);
        let seen = same.or_else(|| {
            let policy = ValidatingAdmissionPolicy::decode(&version.json).ok()?;
            let own = own.iter().map(|(name, _, spec)| Binding::new(name, spec)).collect();
            Some((revisions, Arc::new(Policy::new(policy, own))))
        });
        known.extend(seen.map(|seen| (name, seen)));
    }
    let all = known.values().map(|(_, policy)| policy.clone()).collect();
    core.admission.webhooks.policies.set(Set::new(all));
}

/// Publishes the policies that there are, and keeps following them until `shutdown`.
pub fn keep(core: &Arc<Core>, shutdown: &CancellationToken) {
    let rows = [ValidatingAdmissionPolicy::ROW, ValidatingAdmissionPolicyBinding::ROW];
    let mut known = BTreeMap::new();
    derive(core, &rows, shutdown, move |core| refresh(core, &mut known));
}
