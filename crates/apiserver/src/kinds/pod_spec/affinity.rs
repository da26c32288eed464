//! Affinity of pods to nodes and to one another, and topology spread.

use api::names;
use api::status::FieldError;
use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};

use super::label_keys;
use crate::kinds::check::{self, Errors, Unique};
use crate::kinds::path::Path;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub fn validate(affinity: Option<&Affinity>, path: &Path, errors: &mut Errors) {
    let Some(affinity) = affinity else { return };
    if let Some(node) = &affinity.node_affinity {
        let path = path.child("nodeAffinity");
        if let Some(selector) = &node.required_during_scheduling_ignored_during_execution {
            node_selector(selector, &path.child(REQUIRED), errors);
        }
        let terms = node.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        for (index, term) in terms.enumerate() {
            let path = path.child(PREFERRED).index(index);
            weight(term.weight, &path, errors);
            node_term(&term.preference, true, &path.child("preference"), errors);
        }
    }
    if let Some(pods) = &affinity.pod_affinity {
        let required = pods.required_during_scheduling_ignored_during_execution.as_deref();
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.as_deref();
        pod_terms(required, preferred, &path.child("podAffinity"), errors);
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let required = pods.required_during_scheduling_ignored_during_execution.as_deref();
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.as_deref();
        pod_terms(required, preferred, &path.child("podAntiAffinity"), errors);
    }
}

fn weight(weight: i32, path: &Path, errors: &mut Errors) {
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(
            path.child("weight"),
            weight,
            "must be in the range 1-100",
        ));
    }
}

/// Also the node affinity of a PersistentVolume.
pub fn node_selector(selector: &NodeSelector, path: &Path, errors: &mut Errors) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(FieldError::required(&path, "must have at least one node selector term"));
    }
    for (index, term) in selector.node_selector_terms.iter().enumerate() {
        node_term(term, false, &path.index(index), errors);
    }
}

/// A preferred term may have any values: nothing has to match it.
fn node_term(term: &NodeSelectorTerm, any_value: bool, path: &Path, errors: &mut Errors) {
    for (index, requirement) in term.match_expressions.iter().flatten().enumerate() {
        node_requirement(
            requirement,
            any_value,
            &path.child("matchExpressions").index(index),
            errors,
        );
    }
    for (index, requirement) in term.match_fields.iter().flatten().enumerate() {
        node_field(requirement, &path.child("matchFields").index(index), errors);
    }
}

fn node_requirement(
    requirement: &NodeSelectorRequirement,
    any_value: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let values_path = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
            &values_path,
            "must be specified when `operator` is 'In' or 'NotIn'",
        )),
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
            &values_path,
            "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        )),
        "Gt" | "Lt" if values.len() != 1 => errors.push(FieldError::required(
            &values_path,
            "must be specified single value when `operator` is 'Lt' or 'Gt'",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => {
            errors.push(FieldError::invalid(
                path.child("operator"),
                other,
                "not a valid selector operator",
            ));
        }
    }
    check::qualified_name(&requirement.key, &path.child("key"), errors);
    if !any_value {
        for (index, value) in values.iter().enumerate() {
            check::invalid(names::label_value(value), value, &values_path.index(index), errors);
        }
    }
}

fn node_field(requirement: &NodeSelectorRequirement, path: &Path, errors: &mut Errors) {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => errors.push(FieldError::required(
            path.child("values"),
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        )),
        other => {
            errors.push(FieldError::invalid(
                path.child("operator"),
                other,
                "not a valid selector operator",
            ));
        }
    }
    if requirement.key == "metadata.name" {
        for (index, value) in values.iter().enumerate() {
            check::dns_subdomain(value, &path.child("values").index(index), errors);
        }
    } else {
        errors.push(FieldError::invalid(
            path.child("key"),
            &requirement.key,
            "not a valid field selector key",
        ));
    }
}

fn pod_terms(
    required: Option<&[PodAffinityTerm]>,
    preferred: Option<&[WeightedPodAffinityTerm]>,
    path: &Path,
    errors: &mut Errors,
) {
    for (index, term) in required.into_iter().flatten().enumerate() {
        pod_term(term, &path.child(REQUIRED).index(index), errors);
    }
    for (index, term) in preferred.into_iter().flatten().enumerate() {
        let path = path.child(PREFERRED).index(index);
        weight(term.weight, &path, errors);
        pod_term(&term.pod_affinity_term, &path.child("podAffinityTerm"), errors);
    }
}

fn pod_term(term: &PodAffinityTerm, path: &Path, errors: &mut Errors) {
    check::label_selector(term.label_selector.as_ref(), &path.child("labelSelector"), errors);
    check::label_selector(
        term.namespace_selector.as_ref(),
        &path.child("namespaceSelector"),
        errors,
    );
    for name in term.namespaces.iter().flatten() {
        check::dns_label(name, &path.child("namespace"), errors);
    }
    topology_key(&term.topology_key, path, errors);
    label_keys::validate(
        term.match_label_keys.as_deref(),
        term.mismatch_label_keys.as_deref(),
        term.label_selector.as_ref(),
        path,
        errors,
    );
}

fn topology_key(key: &str, path: &Path, errors: &mut Errors) {
    let path = path.child("topologyKey");
    if key.is_empty() {
        errors.push(FieldError::required(&path, "can not be empty"));
    }
    check::qualified_name(key, &path, errors);
}

pub fn spread(constraints: &[TopologySpreadConstraint], path: &Path, errors: &mut Errors) {
    const ACTIONS: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
    const POLICIES: &[&str] = &["Honor", "Ignore"];
    let mut seen = Unique::default();
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        if constraint.max_skew <= 0 {
            let problem = "must be greater than zero";
            errors.push(FieldError::invalid(path.child("maxSkew"), constraint.max_skew, problem));
        }
        topology_key(&constraint.topology_key, &path, errors);
        let action = constraint.when_unsatisfiable.as_str();
        if !ACTIONS.contains(&action) {
            errors.push(FieldError::not_supported(
                path.child("whenUnsatisfiable"),
                action,
                ACTIONS,
            ));
        }
        let pair = format!("{{{}, {action}}}", constraint.topology_key);
        seen.insert(&pair, &path.child("{topologyKey, whenUnsatisfiable}"), errors);
        if let Some(domains) = constraint.min_domains {
            let path = path.child("minDomains");
            if domains <= 0 {
                errors.push(FieldError::invalid(&path, domains, "must be greater than 0"));
            }
            if action != "DoNotSchedule" {
                let problem = format!(
                    "can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
                );
                errors.push(FieldError::invalid(&path, domains, problem));
            }
        }
        check::one_of_or_unset(
            &constraint.node_affinity_policy,
            POLICIES,
            &path.child("nodeAffinityPolicy"),
            errors,
        );
        check::one_of_or_unset(
            &constraint.node_taints_policy,
            POLICIES,
            &path.child("nodeTaintsPolicy"),
            errors,
        );
        check::label_selector(
            constraint.label_selector.as_ref(),
            &path.child("labelSelector"),
            errors,
        );
        label_keys::validate(
            constraint.match_label_keys.as_deref(),
            None,
            constraint.label_selector.as_ref(),
            &path,
            errors,
        );
    }
}
