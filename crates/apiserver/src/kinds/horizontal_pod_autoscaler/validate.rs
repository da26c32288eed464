//! Validation of HorizontalPodAutoscalers (`pkg/apis/autoscaling/validation`).

use api::names;
use api::quantity::Quantity;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use serde_json::Value;

use crate::kinds::at::At;
use crate::kinds::table::{self, Check, Row, items, text_at};

const NOT_BOTH: &str = "may not set both a target raw value and a target utilization";
const NEITHER: &str = "must set either a target raw value or a target utilization";

/// Checks the specification; `least` is what `minReplicas` may be at least.
pub fn spec(object: &HorizontalPodAutoscaler, least: i32, at: &At<'_>) {
    let (spec, at) = (&object.spec, at.child("spec"));
    if let Some(min) = spec.min_replicas.filter(|min| *min < least) {
        at.child("minReplicas").invalid(min, format!("must be greater than or equal to {least}"));
    }
    let max = at.child("maxReplicas");
    if spec.max_replicas < 1 {
        max.invalid(spec.max_replicas, "must be greater than 0");
    }
    if spec.min_replicas.is_some_and(|min| spec.max_replicas < min) {
        max.invalid(spec.max_replicas, "must be greater than or equal to `minReplicas`");
    }
    table::run(SPEC, &table::value(spec), &at);
}

const SPEC: &[Row] = &[
    ("scaleTargetRef", Check::Inside(REFERENCE)),
    ("scaleTargetRef.apiVersion", Check::Text(group_version)),
    ("metrics", Check::Each(&[("", Check::Relation(metric))])),
    ("", Check::Relation(scaling_to_zero)),
    ("behavior.scaleUp", Check::Inside(SCALING)),
    ("behavior.scaleDown", Check::Inside(SCALING)),
];

const REFERENCE: &[Row] = &[
    ("kind", Check::RequiredText(names::path_segment)),
    ("name", Check::RequiredText(names::path_segment)),
];

const SCALING: &[Row] = &[
    ("stabilizationWindowSeconds", Check::AtLeast(0, "must be greater than or equal to zero")),
    ("stabilizationWindowSeconds", Check::AtMost(3_600, "must be less than or equal to 3600")),
    ("selectPolicy", Check::SetOneOf(&["Disabled", "Max", "Min"])),
    ("policies", Check::Required("must specify at least one Policy")),
    (
        "policies",
        Check::Each(&[
            ("type", Check::SetOneOf(&["Percent", "Pods"])),
            ("value", Check::AtLeast(1, "must be greater than zero")),
            ("periodSeconds", Check::AtLeast(1, "must be greater than zero")),
            ("periodSeconds", Check::AtMost(1_800, "must be less than or equal to 1800")),
        ]),
    ),
    ("tolerance", Check::Amount),
];

/// The types of metrics, the fields of their sources, and what is checked there.
const SOURCES: [(&str, &str, &[Row]); 5] = [
    (
        "Object",
        "object",
        &[
            ("describedObject", Check::Inside(REFERENCE)),
            ("metric", Check::Inside(IDENTIFIER)),
            ("target", Check::Inside(TARGET)),
            ("target", Check::Relation(some_value)),
        ],
    ),
    (
        "External",
        "external",
        &[
            ("metric", Check::Inside(IDENTIFIER)),
            ("target", Check::Inside(TARGET)),
            ("target", Check::Relation(one_value)),
        ],
    ),
    (
        "Pods",
        "pods",
        &[
            ("metric", Check::Inside(IDENTIFIER)),
            ("target", Check::Inside(TARGET)),
            ("target.averageValue", Check::Present("must specify a positive target averageValue")),
        ],
    ),
    (
        "Resource",
        "resource",
        &[
            ("name", Check::Required("must specify a resource name")),
            ("target", Check::Inside(TARGET)),
            ("target", Check::Relation(usage)),
        ],
    ),
    (
        "ContainerResource",
        "containerResource",
        &[
            ("name", Check::Required("must specify a resource name")),
            ("name", Check::TextIfAny(names::qualified_name)),
            ("container", Check::Required("must specify a container")),
            ("container", Check::TextIfAny(names::dns_label)),
            ("target", Check::Inside(TARGET)),
            ("target", Check::Relation(usage)),
        ],
    ),
];

const IDENTIFIER: &[Row] = &[
    ("name", Check::Required("must specify a metric name")),
    ("name", Check::TextIfAny(names::path_segment)),
];

const TARGET: &[Row] = &[
    ("type", Check::Required("must specify a metric target type")),
    ("type", Check::Text(target_type)),
    ("value", Check::Relation(positive)),
    ("averageValue", Check::Relation(positive)),
    ("averageUtilization", Check::AtLeast(1, "must be greater than 0")),
];

fn group_version(version: &str) -> Vec<String> {
    let problem = || format!("unexpected GroupVersion string: {version}");
    (version.matches('/').count() > 1).then(problem).into_iter().collect()
}

fn target_type(name: &str) -> Vec<String> {
    let problem = "must be either Utilization, Value, or AverageValue".to_owned();
    let known = matches!(name, "Utilization" | "Value" | "AverageValue");
    (!known).then_some(problem).into_iter().collect()
}

fn scaling_to_zero(spec: &Value, at: &At<'_>) {
    let mut metrics = items(&spec["metrics"]).iter();
    if spec["minReplicas"] == 0
        && !metrics.any(|metric| matches!(text_at(metric, "type"), "Object" | "External"))
    {
        let problem = "must specify at least one Object or External metric to support scaling to zero replicas";
        at.child("metrics").forbidden(problem);
    }
}

fn metric(metric: &Value, at: &At<'_>) {
    const TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
    let (name, of_type) = (text_at(metric, "type"), at.child("type"));
    if name.is_empty() {
        of_type.required("must specify a metric source type");
    }
    if !TYPES.contains(&name) {
        of_type.not_supported(name, TYPES);
    }
    let present: Vec<_> =
        SOURCES.iter().filter(|(_, field, _)| !metric[*field].is_null()).collect();
    // The only source of a metric, or the first one.
    if let Some((_, field, rows)) = present.first() {
        table::run(rows, &metric[*field], &at.child(field));
    }
    match SOURCES.iter().find(|(own, _, _)| *own == name) {
        Some((_, field, _)) if metric[*field].is_null() => {
            at.child(field).required("must populate information for the given metric source");
        }
        Some(_) => {}
        None => of_type.not_supported(name, TYPES),
    }
    let others = present.iter().filter(|(own, _, _)| *own != name && present.len() != 1);
    others.for_each(|(_, field, _)| {
        at.child(field).forbidden("must populate the given metric source only");
    });
}

fn positive(amount: &Value, at: &At<'_>) {
    let Some(text) = amount.as_str() else { return };
    match text.parse::<Quantity>() {
        Ok(amount) if !amount.is_negative() && !amount.is_zero() => {}
        Ok(_) => at.invalid(text, "must be positive"),
        Err(error) => at.invalid(text, error.to_string()),
    }
}

fn some_value(target: &Value, at: &At<'_>) {
    if target["value"].is_null() && target["averageValue"].is_null() {
        at.child("averageValue").required("must set either a target value or averageValue");
    }
}

fn one_value(target: &Value, at: &At<'_>) {
    match (target["value"].is_null(), target["averageValue"].is_null()) {
        (true, true) => {
            let problem = "must set either a target value for metric or a per-pod target";
            at.child("averageValue").required(problem);
        }
        (false, false) => {
            let problem = "may not set both a target value for metric and a per-pod target";
            at.child("value").forbidden(problem);
        }
        _ => {}
    }
}

/// The target of a metric of resources.
fn usage(target: &Value, at: &At<'_>) {
    match (target["averageUtilization"].is_null(), target["averageValue"].is_null()) {
        (true, true) => at.child("averageUtilization").required(NEITHER),
        (false, false) => at.child("averageValue").forbidden(NOT_BOTH),
        _ => {}
    }
}
