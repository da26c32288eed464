//! Policies and bindings, compiled once per version.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::cel::{Environment, Expression};
use api::labels::{Selector, SelectorError};
use api::{ApiError, Kind, KindRef};
use arc_swap::ArcSwap;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, NamedRuleWithOperations, ParamKind, ParamRef,
    RuleWithOperations, Variable,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Policies;
use super::mutating::Mutating;
use super::validating::Validating;
use crate::admission::webhooks::Asked;
use crate::admission::webhooks::configuration::{Index, conditions, selector};
use crate::admission::webhooks::select::{Head, Uses, equivalents_of, is_selected, matches};
use crate::cache::{Filter, derive};
use crate::core::Core;

/// An expression, or why it cannot be compiled.
pub type Compiled = Result<Expression, String>;

/// A policy with its bindings.
pub struct Policy<R> {
    pub name: String,
    pub ignores_failures: bool,
    pub param_kind: Option<ParamKind>,
    pub constraints: Match,
    pub conditions: Vec<Compiled>,
    /// The members of `variables`.
    pub variables: Vec<(String, Expression)>,
    /// A member that cannot be compiled, and why.
    pub broken: Option<(String, String)>,
    /// What it does.
    pub rules: R,
    /// What its expressions read.
    pub uses: Uses,
    pub bindings: Vec<Binding>,
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

    /// Whether it is about some labels only, so that those before a change count, too.
    fn selects(&self) -> bool {
        self.objects.as_ref().is_ok_and(|objects| !objects.is_everything())
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

/// What the kinds of policies have in common.
#[derive(Default)]
pub struct Parts {
    pub name: Option<String>,
    pub failure_policy: Option<String>,
    pub param_kind: Option<ParamKind>,
    pub constraints: Option<MatchResources>,
    pub conditions: Option<Vec<MatchCondition>>,
    pub variables: Option<Vec<Variable>>,
}

/// A binding as it is stored.
#[derive(Clone)]
pub struct Bound {
    pub policy: String,
    pub param_ref: Option<ParamRef>,
    pub matched: Option<MatchResources>,
    pub actions: Vec<String>,
}

/// What a kind of policies does.
pub trait Rules: Send + Sync + Sized + 'static {
    type Policy: Kind;
    type Binding: Kind;

    /// Compiles a policy, whose other parts `compile` gets and answers with what the rules are
    /// compiled in.
    fn compile(policy: Self::Policy, compile: &mut dyn FnMut(Parts) -> Environment) -> Self;

    fn bound(binding: Self::Binding) -> Bound;

    /// Their expressions.
    fn expressions(&self) -> impl Iterator<Item = &Expression>;

    /// Where the policies that are in force are kept.
    fn set(policies: &Policies) -> &ArcSwap<Set<Self>>;
}

impl<R: Rules> Policy<R> {
    pub fn new(policy: R::Policy, bindings: Vec<Binding>) -> Self {
        let mut common = None;
        let rules = R::compile(policy, &mut |parts| {
            let (policy, environment) = Policy::common(parts);
            common = Some(policy);
            environment
        });
        let common = common.unwrap_or_else(|| Policy::common(Parts::default()).0);
        let conditions = common.conditions.iter().flatten();
        let variables = common.variables.iter().map(|(_, expression)| expression);
        let uses = Uses::of(conditions.chain(variables).chain(rules.expressions()));
        let Policy { name, ignores_failures, param_kind, constraints, .. } = common;
        let Policy { conditions, variables, broken, .. } = common;
        Self {
            name,
            ignores_failures,
            param_kind,
            constraints,
            conditions,
            variables,
            broken,
            rules,
            uses,
            bindings,
        }
    }

    /// Whether it has to be known how an object was before.
    fn reads_old(&self) -> bool {
        let matches = self.bindings.iter().filter_map(|binding| binding.matches.as_ref());
        self.uses.old || self.constraints.selects() || matches.into_iter().any(Match::selects)
    }
}

impl Policy<()> {
    fn common(parts: Parts) -> (Self, Environment) {
        let mut environment = Environment::new(parts.param_kind.is_some());
        let conditions = conditions(parts.conditions.as_deref(), &environment);
        let (mut variables, mut broken) = (Vec::new(), None);
        for variable in parts.variables.into_iter().flatten() {
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
        let policy = Self {
            name: parts.name.unwrap_or_default(),
            ignores_failures: parts.failure_policy.as_deref() == Some("Ignore"),
            constraints: Match::new(parts.constraints.unwrap_or_default()),
            conditions,
            variables,
            broken,
            rules: (),
            uses: Uses::default(),
            param_kind: parts.param_kind,
            bindings: Vec::new(),
        };
        (policy, environment)
    }
}

impl Binding {
    fn new(name: &str, bound: Bound) -> Self {
        Self {
            name: name.to_owned(),
            param_ref: bound.param_ref,
            matches: bound.matched.map(Match::new),
            actions: bound.actions,
        }
    }
}

/// All policies of a kind that have a binding, by name.
pub struct Set<R> {
    all: Vec<Arc<Policy<R>>>,
    index: Index,
}

impl<R> Default for Set<R> {
    fn default() -> Self {
        Self { all: Vec::new(), index: Index::default() }
    }
}

impl<R: Rules> Set<R> {
    fn new(all: Vec<Arc<Policy<R>>>) -> Self {
        let resources = all.iter().map(|policy| {
            let rules = policy.constraints.rules.iter();
            rules.flat_map(|named| named.rule.resources.iter().flatten()).map(String::as_str)
        });
        Self { index: Index::new(resources), all }
    }

    /// The policies of which some rule names a resource.
    pub fn about<'a>(&'a self, plural: &str) -> impl Iterator<Item = &'a Arc<Policy<R>>> {
        self.index.about(plural).iter().map(|index| &self.all[*index])
    }

    /// Whether one of them reads how an object was before.
    pub fn reads_old(&self, plural: &str) -> bool {
        self.about(plural).any(|policy| policy.reads_old())
    }

    pub fn binding_names(&self) -> impl Iterator<Item = &str> {
        let bindings = self.all.iter().flat_map(|policy| &policy.bindings);
        bindings.map(|binding| binding.name.as_str())
    }
}

/// What was seen last: the revisions of a policy and of all its bindings, and what they came to.
type Seen<R> = (Vec<(String, u64)>, Arc<Policy<R>>);

/// The policies of a kind as they were seen last, by name.
struct Known<R>(BTreeMap<String, Seen<R>>);

impl<R: Rules> Known<R> {
    /// Compiles what has changed, and publishes all of it.
    fn refresh(&mut self, core: &Core) {
        let (policies, bindings) = (R::Policy::ROW, R::Binding::ROW);
        let mut bound: BTreeMap<String, Vec<(String, u64, Bound)>> = BTreeMap::new();
        for version in core.cache.resource(bindings).list(&Filter::everything(bindings, "")) {
            let Ok(binding) = R::Binding::decode(&version.json) else { continue };
            let binding = R::bound(binding);
            let same = bound.entry(binding.policy.clone()).or_default();
            same.push((version.name.to_string(), version.revision, binding));
        }
        let mut before = std::mem::take(&mut self.0);
        for version in core.cache.resource(policies).list(&Filter::everything(policies, "")) {
            let name = version.name.to_string();
            let Some(mut own) = bound.remove(&name) else { continue };
            own.sort_by(|one, other| one.0.cmp(&other.0));
            let mut revisions = vec![(name.clone(), version.revision)];
            revisions.extend(own.iter().map(|(name, revision, _)| (name.clone(), *revision)));
            let same = before.remove(&name).filter(|(seen, _)| *seen == revisions);
            let seen = same.or_else(|| {
                let policy = R::Policy::decode(&version.json).ok()?;
                let own = own.into_iter().map(|(name, _, bound)| Binding::new(&name, bound));
                Some((revisions, Arc::new(Policy::new(policy, own.collect()))))
            });
            self.0.extend(seen.map(|seen| (name, seen)));
        }
        let all = self.0.values().map(|(_, policy)| policy.clone()).collect();
        R::set(&core.admission.webhooks.policies).store(Arc::new(Set::new(all)));
    }
}

/// Publishes the policies that there are, and keeps following them until `shutdown`.
pub fn keep(core: &Arc<Core>, shutdown: &CancellationToken) {
    keep_kind::<Mutating>(core, shutdown);
    keep_kind::<Validating>(core, shutdown);
}

fn keep_kind<R: Rules>(core: &Arc<Core>, shutdown: &CancellationToken) {
    let rows = [R::Policy::ROW, R::Binding::ROW];
    let mut known = Known::<R>(BTreeMap::new());
    derive(core, &rows, shutdown, move |core| known.refresh(core));
}
