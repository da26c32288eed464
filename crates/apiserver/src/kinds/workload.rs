//! Validation shared by the kinds with pod templates.

use api::ObjectMeta;
use api::labels::Selector;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use super::at::At;
use super::check;
use super::pod_spec::{validate, warnings};

/// A label selector as an error prints it.
pub fn printed(selector: &LabelSelector) -> Value {
    let mut json = json!({});
    if let Some(labels) = &selector.match_labels {
        let map: serde_json::Map<String, Value> =
            labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect();
        json["matchLabels"] = map.into();
    }
    if let Some(expressions) = &selector.match_expressions {
        let list = expressions.iter().map(|expression| {
            json!({"key": expression.key, "operator": expression.operator, "values": expression.values})
        });
        json["matchExpressions"] = list.collect();
    }
    json
}

/// The selector of a workload of this type (`deployment`): set, valid and not empty.
pub fn selector(selector: &LabelSelector, sort: &str, at: &At<'_>) {
    if *selector == LabelSelector::default() {
        at.required("");
        return;
    }
    at.label_selector(Some(selector));
    let empty = selector.match_labels.as_ref().is_none_or(|labels| labels.is_empty())
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
    if empty {
        at.invalid(json!({}), format!("empty selector is invalid for {sort}"));
    }
}

pub fn immutable_selector(new: &LabelSelector, old: &LabelSelector, at: &At<'_>) {
    if new != old {
        at.child("spec.selector").invalid(printed(new), check::IMMUTABLE);
    }
}

/// A template whose labels the selector must match.
pub fn template(template: &PodTemplateSpec, selector: &LabelSelector, at: &At<'_>) {
    selected(template, selector, at);
    validate::template(template, at);
}

/// Checks that a selector matches a template's labels.
fn selected(template: &PodTemplateSpec, selector: &LabelSelector, at: &At<'_>) {
    let labels =
        template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    // A missing selector matches nothing.
    let missing = *selector == LabelSelector::default();
    if let Ok(selector) = Selector::from_label_selector(Some(selector))
        && (missing || !selector.matches(Some(&labels)))
    {
        at.child("metadata.labels").invalid(&labels, "`selector` does not match template `labels`");
    }
}

/// The template of a StatefulSet. Its containers may mount a claim's volume, so Kubernetes leaves
/// validating the pod's spec to the creation of pods
/// (`k8s.io/kubernetes/pkg/apis/apps/validation.ValidatePodTemplateSpecForStatefulSet`).
pub fn stateful_template(template: &PodTemplateSpec, selector: &LabelSelector, at: &At<'_>) {
    selected(template, selector, at);
    validate::template_metadata(template, at);
}

/// Pods of this type of workload (`ReplicaSet`) must have restart policy Always.
pub fn runs_for_ever(template: &PodTemplateSpec, sort: &str, at: &At<'_>) {
    let Some(spec) = &template.spec else { return };
    let at = at.child("spec");
    let policy = check::text(&spec.restart_policy);
    if policy != "Always" {
        at.child("restartPolicy").not_supported(policy, &["Always"]);
    }
    if spec.active_deadline_seconds.is_some() {
        let problem = format!("activeDeadlineSeconds in {sort} is not Supported");
        at.child("activeDeadlineSeconds").forbidden(problem);
    }
}

/// Warnings about a workload whose spec is new or has changed.
pub fn warnings(
    metadata: &ObjectMeta,
    template: Option<&PodTemplateSpec>,
    is_new: bool,
) -> Vec<String> {
    let name = is_new.then(|| warnings::name(metadata, "Pod names and hostnames")).flatten();
    let template = template.map(warnings::template).unwrap_or_default();
    name.into_iter().chain(template).collect()
}
