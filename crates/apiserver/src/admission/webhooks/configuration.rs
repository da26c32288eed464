//! The webhooks of all configurations, compiled once per version of a configuration.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use api::cel::{Environment, Expression};
use api::labels::{Selector, SelectorError};
use api::webhook::{WebhookClient, as_mutating};
use api::{Kind, KindRow};
use arc_swap::ArcSwap;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhook, MutatingWebhookConfiguration, RuleWithOperations,
    ValidatingWebhookConfiguration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use tokio_util::sync::CancellationToken;

use super::select::Uses;
use crate::admission::policies::Policies;
use crate::cache::{Filter, Version, derive};
use crate::core::Core;
use crate::kinds::REVIEW_VERSIONS;

/// How long a webhook may take that says nothing about it.
const TIMEOUT_SECONDS: i32 = 10;

/// When webhooks are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Mutating,
    Validating,
}

impl Phase {
    /// As metrics name it.
    pub fn step(self) -> &'static str {
        match self {
            Self::Mutating => "admit",
            Self::Validating => "validating",
        }
    }
}

/// A webhook.
#[derive(Debug)]
pub struct Hook {
    pub name: String,
    /// Unique among all of its phase, and the same as long as it stays where it is.
    pub id: String,
    pub client: WebhookClient,
    pub rules: Vec<RuleWithOperations>,
    pub ignores_failures: bool,
    /// Whether requests in other versions are converted to one that the rules name.
    pub equivalent: bool,
    pub namespaces: Result<Selector, SelectorError>,
    pub objects: Result<Selector, SelectorError>,
    /// Match conditions, or why they cannot be compiled.
    pub conditions: Vec<Result<Expression, String>>,
    /// What the conditions read.
    pub uses: Uses,
    pub dry_runs: bool,
    pub timeout: Duration,
    /// The version of AdmissionReview that it is sent.
    pub review_version: Option<&'static str>,
    /// Whether it is called again after others have changed the object.
    pub reinvoked: bool,
    pub is_mutating: bool,
}

impl Hook {
    /// The name of its configuration.
    pub fn configuration(&self) -> &str {
        self.id.split('/').next().unwrap_or_default()
    }

    pub fn new(configuration: &str, index: usize, hook: MutatingWebhook, phase: Phase) -> Self {
        let conditions = conditions(hook.match_conditions.as_deref(), &Environment::new(false));
        let seconds = hook.timeout_seconds.unwrap_or(TIMEOUT_SECONDS);
        let known = |version: &String| REVIEW_VERSIONS.into_iter().find(|known| known == version);
        let is = |field: &Option<String>, value: &str| field.as_deref() == Some(value);
        Self {
            id: format!("{configuration}/{}/{index}", hook.name),
            client: WebhookClient::from(&hook.client_config),
            ignores_failures: is(&hook.failure_policy, "Ignore"),
            equivalent: !is(&hook.match_policy, "Exact"),
            namespaces: selector(hook.namespace_selector.as_ref()),
            objects: selector(hook.object_selector.as_ref()),
            uses: Uses::of(conditions.iter().flatten()),
            conditions,
            dry_runs: matches!(hook.side_effects.as_str(), "None" | "NoneOnDryRun"),
            timeout: Duration::from_secs(u64::try_from(seconds).unwrap_or_default().max(1)),
            review_version: hook.admission_review_versions.iter().find_map(known),
            reinvoked: is(&hook.reinvocation_policy, "IfNeeded"),
            rules: hook.rules.unwrap_or_default(),
            name: hook.name,
            is_mutating: phase == Phase::Mutating,
        }
    }
}

/// Compiled match conditions.
pub fn conditions(
    all: Option<&[MatchCondition]>,
    environment: &Environment,
) -> Vec<Result<Expression, String>> {
    let all = all.unwrap_or_default().iter();
    all.map(|condition| environment.condition(condition.expression.trim())).collect()
}

/// A selector that selects everything if it is missing.
///
/// # Errors
/// When it is not valid.
pub fn selector(selector: Option<&LabelSelector>) -> Result<Selector, SelectorError> {
    match selector {
        None => Ok(Selector::everything()),
        some => Selector::from_label_selector(some),
    }
}

/// Positions in a list, by the plural name of the resources that rules name there.
#[derive(Debug, Default)]
pub struct Index {
    /// Ascending.
    by_resource: HashMap<String, Vec<usize>>,
    /// Of resources that no rule names: those about all.
    everywhere: Vec<usize>,
}

impl Index {
    /// Of the resources (`pods/log`) that the rules at each position name.
    pub fn new<'a, R: Iterator<Item = &'a str>>(all: impl Iterator<Item = R>) -> Self {
        const ALL: &str = "*";
        let mut named: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, resources) in all.enumerate() {
            for text in resources {
                let resource = text.split('/').next().unwrap_or_default();
                let indexes = named.entry(resource).or_default();
                if indexes.last() != Some(&index) {
                    indexes.push(index);
                }
            }
        }
        let everywhere = named.remove(ALL).unwrap_or_default();
        let merged = |indexes: Vec<usize>| {
            let mut indexes = [indexes, everywhere.clone()].concat();
            indexes.sort_unstable();
            indexes.dedup();
            indexes
        };
        let by_resource =
            named.into_iter().map(|(name, indexes)| (name.to_owned(), merged(indexes))).collect();
        Self { by_resource, everywhere }
    }

    /// The positions at which some rule names a resource.
    pub fn about(&self, plural: &str) -> &[usize] {
        self.by_resource.get(plural).unwrap_or(&self.everywhere)
    }
}

/// All webhooks of a phase in the order of their configurations' names.
#[derive(Debug, Default)]
pub struct Hooks {
    all: Vec<Arc<Hook>>,
    index: Index,
}

impl Hooks {
    pub fn new(all: Vec<Arc<Hook>>) -> Self {
        let resources = all.iter().map(|hook| {
            let rules = hook.rules.iter().flat_map(|rule| rule.resources.iter().flatten());
            rules.map(String::as_str)
        });
        Self { index: Index::new(resources), all }
    }

    /// The webhooks of which some rule names a resource.
    pub fn about<'a>(&'a self, plural: &str) -> impl Iterator<Item = &'a Arc<Hook>> {
        self.index.about(plural).iter().map(|index| &self.all[*index])
    }
}

/// What requests read: the webhooks of both phases, as of the last change of a configuration.
#[derive(Debug, Default)]
pub struct Snapshots {
    mutating: ArcSwap<Hooks>,
    validating: ArcSwap<Hooks>,
    pub policies: Policies,
}

impl Snapshots {
    pub(super) fn of(&self, phase: Phase) -> arc_swap::Guard<Arc<Hooks>> {
        match phase {
            Phase::Mutating => self.mutating.load(),
            Phase::Validating => self.validating.load(),
        }
    }

    /// The names of all webhooks that are in force.
    pub fn names(&self) -> Vec<String> {
        let phases = [Phase::Mutating, Phase::Validating].map(|phase| self.of(phase));
        phases.iter().flat_map(|hooks| hooks.all.iter().map(|hook| hook.name.clone())).collect()
    }

    fn set(&self, phase: Phase, hooks: Hooks) {
        match phase {
            Phase::Mutating => self.mutating.store(Arc::new(hooks)),
            Phase::Validating => self.validating.store(Arc::new(hooks)),
        }
    }
}

/// The webhooks of a configuration, and its revision.
type Compiled = (u64, Vec<Arc<Hook>>);

/// The configurations of a phase as they were seen last, by name.
struct Known {
    phase: Phase,
    compiled: BTreeMap<Box<str>, Compiled>,
}

impl Known {
    fn new(phase: Phase) -> Self {
        Self { phase, compiled: BTreeMap::new() }
    }

    fn row(&self) -> &'static KindRow {
        match self.phase {
            Phase::Mutating => MutatingWebhookConfiguration::ROW,
            Phase::Validating => ValidatingWebhookConfiguration::ROW,
        }
    }

    /// Compiles what has changed, and publishes all of it.
    fn refresh(&mut self, core: &Core) {
        let row = self.row();
        let mut before = std::mem::take(&mut self.compiled);
        for version in core.cache.resource(row).list(&Filter::everything(row, "")) {
            let same = before.remove(&version.name).filter(|(seen, _)| *seen == version.revision);
            let compiled = same.unwrap_or_else(|| (version.revision, self.compile(&version)));
            self.compiled.insert(version.name.clone(), compiled);
        }
        let all = self.compiled.values().flat_map(|(_, hooks)| hooks.iter().cloned()).collect();
        core.admission.webhooks.set(self.phase, Hooks::new(all));
    }

    fn compile(&self, version: &Version) -> Vec<Arc<Hook>> {
        let hooks: Vec<MutatingWebhook> = match self.phase {
            Phase::Mutating => MutatingWebhookConfiguration::decode(&version.json)
                .map(|found| found.webhooks.unwrap_or_default())
                .unwrap_or_default(),
            Phase::Validating => ValidatingWebhookConfiguration::decode(&version.json)
                .map(|found| found.webhooks.iter().flatten().map(as_mutating).collect())
                .unwrap_or_default(),
        };
        let hooks = hooks.into_iter().enumerate();
        hooks
            .map(|(index, hook)| Arc::new(Hook::new(&version.name, index, hook, self.phase)))
            .collect()
    }
}

/// Publishes the webhooks that there are, and keeps following their configurations until
/// `shutdown`.
pub fn keep(core: &Arc<Core>, shutdown: &CancellationToken) {
    for phase in [Phase::Mutating, Phase::Validating] {
        let mut known = Known::new(phase);
        let row = known.row();
        derive(core, &[row], shutdown, move |core| known.refresh(core));
    }
}
