//! Arguments of plugins.

use k8s_openapi::api::core::v1::{
    NodeSelectorRequirement, NodeSelectorTerm, TopologySpreadConstraint,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::file::PluginConfig;
use crate::plugin::Plugin;
use crate::pod::node_term;
use crate::profile::{Profile, Strategy};

/// The largest score in a shape, which is scaled to 100.
const SHAPE_SCORE_MAX: i64 = 10;

/// Applies `pluginConfig`. Errors begin with the index of the entry.
pub fn apply(configs: Vec<PluginConfig>, profile: &mut Profile) -> Result<(), String> {
    let mut seen = std::collections::HashSet::new();
    for (index, config) in configs.into_iter().enumerate() {
        if !seen.insert(config.name.clone()) {
            return Err(format!("[{index}]: Duplicate value: {:?}", config.name));
        }
        one(config, profile).map_err(|problem| format!("[{index}].{problem}"))?;
    }
    Ok(())
}

fn one(config: PluginConfig, profile: &mut Profile) -> Result<(), String> {
    let PluginConfig { name, args } = config;
    let args = without_type(&name, args)?;
    match Plugin::by_name(&name) {
        Some(Plugin::DefaultPreemption) => preemption(read(args)?, profile),
        Some(Plugin::InterPodAffinity) => inter_pod_affinity(read(args)?, profile),
        Some(Plugin::NodeAffinity) => node_affinity(read(args)?, profile),
        Some(Plugin::NodeResourcesFit) => fit(read(args)?, profile),
        Some(Plugin::NodeResourcesBalancedAllocation) => balanced(read(args)?, profile),
        Some(Plugin::PodTopologySpread) => spread(read(args)?, profile),
        Some(Plugin::VolumeBinding) => volume_binding(&read(args)?),
        Some(_) => Err(format!("args: plugin {name:?} takes no arguments")),
        None => Err(format!("name: plugin {name:?} does not exist")),
    }
}

/// Removes `apiVersion` and `kind`, which must be those of the plugin.
fn without_type(plugin: &str, args: Value) -> Result<Value, String> {
    let Value::Object(mut fields) = args else {
        return Err("args: must be an object".to_owned());
    };
    let kind = format!("{plugin}Args");
    let known = [("apiVersion", "kubescheduler.config.k8s.io/v1"), ("kind", kind.as_str())];
    for (field, only) in known {
        if let Some(value) = fields.remove(field).filter(|value| value != only) {
            return Err(format!("args.{field}: Invalid value: {value}: has to match plugin args"));
        }
    }
    Ok(fields.into())
}

fn read<T: DeserializeOwned>(args: Value) -> Result<T, String> {
    serde_json::from_value(args).map_err(|error| format!("args: {error}"))
}

fn invalid<T>(field: &str, value: impl std::fmt::Display, why: &str) -> Result<T, String> {
    Err(format!("args.{field}: Invalid value: {value}: {why}"))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PreemptionArgs {
    min_candidate_nodes_percentage: Option<i64>,
    min_candidate_nodes_absolute: Option<i64>,
}

fn preemption(args: PreemptionArgs, profile: &mut Profile) -> Result<(), String> {
    let percentage = args.min_candidate_nodes_percentage.unwrap_or(10);
    let absolute = args.min_candidate_nodes_absolute.unwrap_or(100);
    if !(0..=100).contains(&percentage) {
        return invalid("minCandidateNodesPercentage", percentage, "not in valid range [0, 100]");
    }
    let Ok(least) = u64::try_from(absolute) else {
        return invalid("minCandidateNodesAbsolute", absolute, "not in valid range [0, inf)");
    };
    if percentage == 0 && least == 0 {
        let why = "cannot be zero at the same time as minCandidateNodesAbsolute";
        return invalid("minCandidateNodesPercentage", percentage, why);
    }
    profile.arguments.candidates_percentage = percentage.unsigned_abs();
    profile.arguments.candidates_absolute = least;
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct InterPodAffinityArgs {
    hard_pod_affinity_weight: Option<i64>,
    #[serde(default)]
    ignore_preferred_terms_of_existing_pods: bool,
}

fn inter_pod_affinity(args: InterPodAffinityArgs, profile: &mut Profile) -> Result<(), String> {
    let weight = args.hard_pod_affinity_weight.unwrap_or(1);
    if !(0..=100).contains(&weight) {
        return invalid("hardPodAffinityWeight", weight, "not in valid range [0, 100]");
    }
    profile.arguments.hard_pod_affinity_weight = weight;
    profile.arguments.ignores_preferences_of_placed_pods =
        args.ignore_preferred_terms_of_existing_pods;
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NodeAffinityArgs {
    added_affinity: Option<AddedAffinity>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AddedAffinity {
    required_during_scheduling_ignored_during_execution: Option<Required>,
    #[serde(default)]
    preferred_during_scheduling_ignored_during_execution: Vec<Preferred>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Required {
    node_selector_terms: Vec<Term>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Preferred {
    weight: i64,
    preference: Term,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct Term {
    match_expressions: Vec<Expression>,
    match_fields: Vec<Expression>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

impl Term {
    fn read(self) -> Result<NodeSelectorTerm, String> {
        let operators = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
        let all = |expressions: Vec<Expression>| {
            let one = |expression: Expression| match expression {
                Expression { operator, .. } if !operators.contains(&operator.as_str()) => invalid(
                    "addedAffinity",
                    format!("{operator:?}"),
                    "not a valid selector operator",
                ),
                Expression { key, operator, values } => {
                    Ok(NodeSelectorRequirement { key, operator, values: Some(values) })
                }
            };
            expressions.into_iter().map(one).collect::<Result<Vec<_>, String>>()
        };
        Ok(NodeSelectorTerm {
            match_expressions: Some(all(self.match_expressions)?),
            match_fields: Some(all(self.match_fields)?),
        })
    }
}

fn node_affinity(args: NodeAffinityArgs, profile: &mut Profile) -> Result<(), String> {
    let Some(added) = args.added_affinity else {
        return Ok(());
    };
    if let Some(required) = added.required_during_scheduling_ignored_during_execution {
        let terms = required.node_selector_terms.into_iter();
        let terms: Result<Vec<_>, String> =
            terms.map(|term| Ok(node_term(&term.read()?))).collect();
        profile.arguments.added_terms = Some(terms?);
    }
    for preferred in added.preferred_during_scheduling_ignored_during_execution {
        let term = node_term(&preferred.preference.read()?);
        profile.arguments.added_preferences.push((preferred.weight, term));
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FitArgs {
    #[serde(default)]
    ignored_resources: Vec<String>,
    #[serde(default)]
    ignored_resource_groups: Vec<String>,
    scoring_strategy: Option<ScoringStrategy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ScoringStrategy {
    r#type: Option<String>,
    #[serde(default)]
    resources: Vec<ResourceSpec>,
    requested_to_capacity_ratio: Option<Ratio>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceSpec {
    name: String,
    #[serde(default)]
    weight: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ratio {
    shape: Vec<Point>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    utilization: i64,
    score: i64,
}

fn fit(args: FitArgs, profile: &mut Profile) -> Result<(), String> {
    if let Some(group) = args.ignored_resource_groups.iter().find(|group| group.contains('/')) {
        let why = "resource group name can't contain '/'";
        return invalid("ignoredResourceGroups", format!("{group:?}"), why);
    }
    profile.arguments.ignored_resources = args.ignored_resources;
    profile.arguments.ignored_resource_groups = args.ignored_resource_groups;
    let Some(strategy) = args.scoring_strategy else {
        return Ok(());
    };
    let field = "scoringStrategy.requestedToCapacityRatio";
    profile.arguments.strategy = match (
        strategy.r#type.as_deref(),
        strategy.requested_to_capacity_ratio,
    ) {
        (Some("RequestedToCapacityRatio"), Some(ratio)) => shape(ratio)?,
        (Some("RequestedToCapacityRatio"), None) => {
            return Err(format!(
                "args.{field}: Required value: must be specified when type is RequestedToCapacityRatio"
            ));
        }
        (_, Some(_)) => {
            return Err(format!(
                "args.{field}: Forbidden: must be nil when type is not RequestedToCapacityRatio"
            ));
        }
        (None | Some("LeastAllocated"), None) => Strategy::LeastAllocated,
        (Some("MostAllocated"), None) => Strategy::MostAllocated,
        (Some(other), None) => {
            return Err(format!(
                "args.scoringStrategy.type: Unsupported value: {other:?}: supported values: \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\""
            ));
        }
    };
    if !strategy.resources.is_empty() {
        profile.arguments.fit_resources = resources(strategy.resources)?;
    }
    Ok(())
}

fn resources(specs: Vec<ResourceSpec>) -> Result<Vec<(String, i64)>, String> {
    let one = |(index, ResourceSpec { name, weight }): (usize, ResourceSpec)| {
        // Zero is unset.
        let weight = if weight == 0 { 1 } else { weight };
        if !(1..=100).contains(&weight) {
            let field = format!("scoringStrategy.resources[{index}].weight");
            let why = format!("resource weight of {name} not in valid range (0, 100]");
            return invalid(&field, weight, &why);
        }
        Ok((name, weight))
    };
    specs.into_iter().enumerate().map(one).collect()
}

fn shape(ratio: Ratio) -> Result<Strategy, String> {
    let field = "scoringStrategy.requestedToCapacityRatio.shape";
    if ratio.shape.is_empty() {
        return Err(format!("args.{field}: Required value: at least one point must be specified"));
    }
    let mut points: Vec<(i64, i64)> = Vec::new();
    for (index, Point { utilization, score }) in ratio.shape.into_iter().enumerate() {
        let at = |name: &str| format!("{field}[{index}].{name}");
        if points.last().is_some_and(|(before, _)| *before >= utilization) {
            let why = "values must be sorted in increasing order";
            return invalid(&at("utilization"), utilization, why);
        }
        if !(0..=100).contains(&utilization) {
            return invalid(&at("utilization"), utilization, "not in valid range [0, 100]");
        }
        if !(0..=SHAPE_SCORE_MAX).contains(&score) {
            return invalid(&at("score"), score, "not in valid range [0, 10]");
        }
        points.push((utilization, score * 100 / SHAPE_SCORE_MAX));
    }
    Ok(Strategy::RequestedToCapacityRatio(points))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BalancedArgs {
    #[serde(default)]
    resources: Vec<ResourceSpec>,
}

fn balanced(args: BalancedArgs, profile: &mut Profile) -> Result<(), String> {
    let mut names = Vec::new();
    for (index, ResourceSpec { name, weight }) in args.resources.into_iter().enumerate() {
        if names.contains(&name) {
            return Err(format!("args.resources[{index}].name: Duplicate value: {name:?}"));
        }
        if !(0..=1).contains(&weight) {
            return invalid(&format!("resources[{index}].weight"), weight, "must be 1");
        }
        names.push(name);
    }
    if !names.is_empty() {
        profile.arguments.balanced_resources = names;
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SpreadArgs {
    #[serde(default)]
    default_constraints: Vec<Constraint>,
    defaulting_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Constraint {
    max_skew: i32,
    #[serde(default)]
    topology_key: String,
    #[serde(default)]
    when_unsatisfiable: String,
    min_domains: Option<i32>,
    node_affinity_policy: Option<String>,
    node_taints_policy: Option<String>,
    match_label_keys: Option<Vec<String>>,
    label_selector: Option<Value>,
}

fn spread(args: SpreadArgs, profile: &mut Profile) -> Result<(), String> {
    match (args.defaulting_type.as_deref(), args.default_constraints.is_empty()) {
        (None | Some("System"), true) => return Ok(()),
        (None | Some("System"), false) => {
            let why = "when .defaultConstraints are not empty";
            return invalid("defaultingType", "\"System\"", why);
        }
        (Some("List"), _) => {}
        (Some(other), _) => {
            return Err(format!(
                "args.defaultingType: Unsupported value: {other:?}: supported values: \"System\", \"List\""
            ));
        }
    }
    let mut constraints: Vec<TopologySpreadConstraint> = Vec::new();
    for (index, constraint) in args.default_constraints.into_iter().enumerate() {
        let field = |name: &str| format!("defaultConstraints[{index}].{name}");
        let required =
            |name: &str| Err(format!("args.{}: Required value: can not be empty", field(name)));
        if constraint.max_skew <= 0 {
            return invalid(&field("maxSkew"), constraint.max_skew, "not in valid range (0, inf)");
        }
        if constraint.topology_key.is_empty() {
            return required("topologyKey");
        }
        match constraint.when_unsatisfiable.as_str() {
            "DoNotSchedule" | "ScheduleAnyway" => {}
            "" => return required("whenUnsatisfiable"),
            other => {
                return Err(format!(
                    "args.{}: Unsupported value: {other:?}: supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
                    field("whenUnsatisfiable")
                ));
            }
        }
        if constraint.label_selector.is_some() {
            let why = "constraint must not define a selector, as they deduced for each pod";
            return Err(format!("args.{}: Forbidden: {why}", field("labelSelector")));
        }
        if constraints.iter().any(|known| {
            (&known.topology_key, &known.when_unsatisfiable)
                == (&constraint.topology_key, &constraint.when_unsatisfiable)
        }) {
            let both =
                format!("{{{}, {}}}", constraint.topology_key, constraint.when_unsatisfiable);
            return Err(format!("args.defaultConstraints[{index}]: Duplicate value: {both:?}"));
        }
        constraints.push(TopologySpreadConstraint {
            max_skew: constraint.max_skew,
            topology_key: constraint.topology_key,
            when_unsatisfiable: constraint.when_unsatisfiable,
            min_domains: constraint.min_domains,
            node_affinity_policy: constraint.node_affinity_policy,
            node_taints_policy: constraint.node_taints_policy,
            match_label_keys: constraint.match_label_keys,
            label_selector: None,
        });
    }
    profile.arguments.default_constraints = Some(constraints);
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VolumeBindingArgs {
    bind_timeout_seconds: Option<i64>,
}

/// Volumes are bound by the controller-manager; the scheduler waits for it by watching.
fn volume_binding(args: &VolumeBindingArgs) -> Result<(), String> {
    match args.bind_timeout_seconds {
        None | Some(600) => Ok(()),
        Some(other) => invalid("bindTimeoutSeconds", other, "only 600 is supported"),
    }
}
