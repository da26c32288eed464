//! Validation shared by the kinds with pod templates.

use api::labels::Selector;
use api::status::FieldError;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use super::check::{self, Errors};
use super::path::Path;
use super::pod_spec::validate;

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
pub fn selector(selector: &LabelSelector, sort: &str, path: &Path, errors: &mut Errors) {
    if *selector == LabelSelector::default() {
        errors.push(FieldError::required(path, ""));
        return;
    }
    check::label_selector(Some(selector), path, errors);
    let empty = selector.match_labels.as_ref().is_none_or(|labels| labels.is_empty())
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
    if empty {
        errors.push(FieldError::invalid(
            path,
            json!({}),
            format!("empty selector is invalid for {sort}"),
        ));
    }
}

pub fn immutable_selector(new: &LabelSelector, old: &LabelSelector, errors: &mut Errors) {
    if new != old {
        errors.push(FieldError::invalid("spec.selector", printed(new), check::IMMUTABLE));
    }
}

/// A template whose labels the selector must match.
pub fn template(
    template: &PodTemplateSpec,
    selector: &LabelSelector,
    path: &Path,
    errors: &mut Errors,
) {
    selected(template, selector, path, errors);
    validate::template(template, path, errors);
}

/// Checks that a selector matches a template's labels.
fn selected(
    template: &PodTemplateSpec,
    selector: &LabelSelector,
    path: &Path,
    errors: &mut Errors,
) {
    let labels =
        template.metadata.as_ref().and_then(|metadata| metadata.labels.clone()).unwrap_or_default();
    // A missing selector matches nothing.
    let missing = *selector == LabelSelector::default();
    if let Ok(selector) = Selector::from_label_selector(Some(selector))
        && (missing || !selector.matches(Some(&labels)))
    {
        let problem = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(path.child("metadata").child("labels"), &labels, problem));
    }
}

/// The template of a StatefulSet. Its containers may mount a claim's volume, so Kubernetes leaves
/// validating the pod's spec to the creation of pods
/// (`k8s.io/kubernetes/pkg/apis/apps/validation.ValidatePodTemplateSpecForStatefulSet`).
pub fn stateful_template(
    template: &PodTemplateSpec,
    selector: &LabelSelector,
    path: &Path,
    errors: &mut Errors,
) {
    selected(template, selector, path, errors);
    validate::template_metadata(template, path, errors);
}

/// Pods of this type of workload (`ReplicaSet`) must have restart policy Always.
pub fn runs_for_ever(template: &PodTemplateSpec, sort: &str, path: &Path, errors: &mut Errors) {
    let Some(spec) = &template.spec else { return };
    let path = path.child("spec");
    let policy = check::text(&spec.restart_policy);
    if policy != "Always" {
        errors.push(FieldError::not_supported(path.child("restartPolicy"), policy, &["Always"]));
    }
    if spec.active_deadline_seconds.is_some() {
        let problem = format!("activeDeadlineSeconds in {sort} is not Supported");
        errors.push(FieldError::forbidden(path.child("activeDeadlineSeconds"), problem));
    }
}

/// Numbers of the spec that may be unset but not negative.
pub fn not_negative(numbers: &[(&str, Option<i32>)], path: &Path, errors: &mut Errors) {
    for (field, number) in numbers {
        check::not_negative(number.unwrap_or(0), &path.child(field), errors);
    }
}
