//! Which objects a quota with scopes matches.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuotaSpec,
    ScopedResourceSelectorRequirement,
};

use crate::object::Object;
use crate::pod::qos_class;

/// Whether an object is in every scope of a quota. Scopes are properties of pods, and one of
/// claims; other objects are in none.
pub fn in_scope(spec: &ResourceQuotaSpec, object: &dyn Object) -> bool {
    expressions(spec).all(|expression| is_in(&expression, object))
}

/// The scopes of a quota that an object is in.
pub fn scopes_of(spec: &ResourceQuotaSpec, object: &dyn Object) -> Vec<String> {
    let own = expressions(spec).filter(|expression| is_in(expression, object));
    own.map(|expression| expression.scope_name).collect()
}

/// What a quota's scopes select.
fn expressions(
    spec: &ResourceQuotaSpec,
) -> impl Iterator<Item = ScopedResourceSelectorRequirement> + '_ {
    let exists = |scope: &String| ScopedResourceSelectorRequirement {
        operator: "Exists".to_owned(),
        scope_name: scope.clone(),
        values: None,
    };
    let selected = spec.scope_selector.as_ref();
    let selected = selected.and_then(|selector| selector.match_expressions.as_deref());
    let scopes = spec.scopes.iter().flatten().map(exists);
    scopes.chain(selected.unwrap_or_default().iter().cloned())
}

/// Whether an object is in what is selected of a scope.
pub fn is_in(expression: &ScopedResourceSelectorRequirement, object: &dyn Object) -> bool {
    if let Some(pod) = object.downcast_ref::<Pod>() {
        return pod_is_in(expression, pod);
    }
    if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
        return expression.scope_name == "VolumeAttributesClass"
            && matches(expression, &attributes_classes(claim));
    }
    false
}

fn pod_is_in(expression: &ScopedResourceSelectorRequirement, pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else {
        return false;
    };
    let terminating = spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0);
    match expression.scope_name.as_str() {
        "Terminating" => terminating,
        "NotTerminating" => !terminating,
        "BestEffort" => qos_class(spec) == "BestEffort",
        "NotBestEffort" => qos_class(spec) != "BestEffort",
        "PriorityClass" => {
            let class = spec.priority_class_name.as_deref();
            let classes: Vec<&str> = class.into_iter().filter(|name| !name.is_empty()).collect();
            matches(expression, &classes)
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

/// Whether one of an object's values of a scope is selected.
fn matches(expression: &ScopedResourceSelectorRequirement, own: &[&str]) -> bool {
    let listed = |value: &&str| expression.values.iter().flatten().any(|listed| listed == value);
    match expression.operator.as_str() {
        "In" => own.iter().any(listed),
        "NotIn" => own.is_empty() || own.iter().any(|value| !listed(value)),
        "Exists" => !own.is_empty(),
        "DoesNotExist" => own.is_empty(),
        _ => false,
    }
}

fn attributes_classes(claim: &PersistentVolumeClaim) -> Vec<&str> {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let status = claim.status.as_ref();
    let current = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let target = status
        .and_then(|status| status.modify_volume_status.as_ref())
        .and_then(|modify| modify.target_volume_attributes_class_name.as_deref());
    let all = [wanted, current, target];
    all.into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

fn crosses_namespaces(pod: &Pod) -> bool {
    let Some(affinity) = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()) else {
        return false;
    };
    let crosses = |term: &PodAffinityTerm| {
        let named = term.namespaces.as_ref();
        term.namespace_selector.is_some() || named.is_some_and(|names| !names.is_empty())
    };
    let near = affinity.pod_affinity.as_ref();
    let far = affinity.pod_anti_affinity.as_ref();
    let required = near
        .and_then(|near| near.required_during_scheduling_ignored_during_execution.as_ref())
        .into_iter()
        .chain(
            far.and_then(|far| far.required_during_scheduling_ignored_during_execution.as_ref()),
        );
    let preferred = near
        .and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_ref())
        .into_iter()
        .chain(
            far.and_then(|far| far.preferred_during_scheduling_ignored_during_execution.as_ref()),
        );
    required.flatten().any(crosses)
        || preferred.flatten().any(|weighted| crosses(&weighted.pod_affinity_term))
}
