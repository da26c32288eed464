//! Affinity of pods to nodes and to one another, and topology spread.

use api::names;
use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};

use super::label_keys;
use crate::kinds::at::At;
use crate::kinds::check::Unique;

pub const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
pub const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub fn validate(affinity: Option<&Affinity>, at: &At<'_>) {
    let Some(affinity) = affinity else { return };
    if let Some(node) = &affinity.node_affinity {
        let at = at.child("nodeAffinity");
        if let Some(selector) = &node.required_during_scheduling_ignored_during_execution {
            node_selector(selector, &at.child(REQUIRED));
        }
        let terms = node.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        for (index, term) in terms.enumerate() {
            let at = at.item(PREFERRED, index);
            weight(term.weight, &at);
            node_term(&term.preference, true, &at.child("preference"));
        }
    }
    if let Some(pods) = &affinity.pod_affinity {
        let required = pods.required_during_scheduling_ignored_during_execution.as_deref();
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.as_deref();
        pod_terms(required, preferred, &at.child("podAffinity"));
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let required = pods.required_during_scheduling_ignored_during_execution.as_deref();
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.as_deref();
        pod_terms(required, preferred, &at.child("podAntiAffinity"));
    }
}

fn weight(weight: i32, at: &At<'_>) {
    if !(1..=100).contains(&weight) {
        at.child("weight").invalid(weight, "must be in the range 1-100");
    }
}

/// Also the node affinity of a PersistentVolume.
pub fn node_selector(selector: &NodeSelector, at: &At<'_>) {
    let at = at.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        at.required("must have at least one node selector term");
    }
    for (index, term) in selector.node_selector_terms.iter().enumerate() {
        node_term(term, false, &at.index(index));
    }
}

/// A preferred term may have any values: nothing has to match it.
fn node_term(term: &NodeSelectorTerm, any_value: bool, at: &At<'_>) {
    for (index, requirement) in term.match_expressions.iter().flatten().enumerate() {
        node_requirement(requirement, any_value, &at.item("matchExpressions", index));
    }
    for (index, requirement) in term.match_fields.iter().flatten().enumerate() {
        node_field(requirement, &at.item("matchFields", index));
    }
}

fn node_requirement(requirement: &NodeSelectorRequirement, any_value: bool, at: &At<'_>) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let values_path = at.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            values_path.required("must be specified when `operator` is 'In' or 'NotIn'")
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => values_path
            .forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
        "Gt" | "Lt" if values.len() != 1 => {
            values_path.required("must be specified single value when `operator` is 'Lt' or 'Gt'")
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => at.child("operator").invalid(other, "not a valid selector operator"),
    }
    at.child("key").qualified_name(&requirement.key);
    if !any_value {
        for (index, value) in values.iter().enumerate() {
            values_path.index(index).texts(names::label_value(value), value);
        }
    }
}

fn node_field(requirement: &NodeSelectorRequirement, at: &At<'_>) {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => at.child("values").required(
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        ),
        other => at.child("operator").invalid(other, "not a valid selector operator"),
    }
    if requirement.key == "metadata.name" {
        for (index, value) in values.iter().enumerate() {
            at.item("values", index).dns_subdomain(value);
        }
    } else {
        at.child("key").invalid(&requirement.key, "not a valid field selector key");
    }
}

fn pod_terms(
    required: Option<&[PodAffinityTerm]>,
    preferred: Option<&[WeightedPodAffinityTerm]>,
    at: &At<'_>,
) {
    for (index, term) in required.into_iter().flatten().enumerate() {
        pod_term(term, &at.item(REQUIRED, index));
    }
    for (index, term) in preferred.into_iter().flatten().enumerate() {
        let at = at.item(PREFERRED, index);
        weight(term.weight, &at);
        pod_term(&term.pod_affinity_term, &at.child("podAffinityTerm"));
    }
}

fn pod_term(term: &PodAffinityTerm, at: &At<'_>) {
    at.child("labelSelector").label_selector(term.label_selector.as_ref());
    at.child("namespaceSelector").label_selector(term.namespace_selector.as_ref());
    for name in term.namespaces.iter().flatten() {
        at.child("namespace").dns_label(name);
    }
    topology_key(&term.topology_key, at);
    label_keys::validate(
        term.match_label_keys.as_deref(),
        term.mismatch_label_keys.as_deref(),
        term.label_selector.as_ref(),
        at,
    );
}

fn topology_key(key: &str, at: &At<'_>) {
    let at = at.child("topologyKey");
    if key.is_empty() {
        at.required("can not be empty");
    }
    at.qualified_name(key);
}

pub fn spread(constraints: &[TopologySpreadConstraint], at: &At<'_>) {
    const ACTIONS: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
    const POLICIES: &[&str] = &["Honor", "Ignore"];
    let mut seen = Unique::default();
    for (index, constraint) in constraints.iter().enumerate() {
        let at = at.index(index);
        if constraint.max_skew <= 0 {
            at.child("maxSkew").invalid(constraint.max_skew, "must be greater than zero");
        }
        topology_key(&constraint.topology_key, &at);
        let action = constraint.when_unsatisfiable.as_str();
        if !ACTIONS.contains(&action) {
            at.child("whenUnsatisfiable").not_supported(action, ACTIONS);
        }
        let pair = format!("{{{}, {action}}}", constraint.topology_key);
        seen.add(&pair, &at.child("{topologyKey, whenUnsatisfiable}"));
        if let Some(domains) = constraint.min_domains {
            let at = at.child("minDomains");
            if domains <= 0 {
                at.invalid(domains, "must be greater than 0");
            }
            if action != "DoNotSchedule" {
                let problem = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                );
                at.invalid(domains, problem);
            }
        }
        at.child("nodeAffinityPolicy").one_of_or_unset(&constraint.node_affinity_policy, POLICIES);
        at.child("nodeTaintsPolicy").one_of_or_unset(&constraint.node_taints_policy, POLICIES);
        at.child("labelSelector").label_selector(constraint.label_selector.as_ref());
        label_keys::validate(
            constraint.match_label_keys.as_deref(),
            None,
            constraint.label_selector.as_ref(),
            &at,
        );
    }
}
