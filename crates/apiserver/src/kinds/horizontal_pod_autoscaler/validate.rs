//! Validation of HorizontalPodAutoscalers (`pkg/apis/autoscaling/validation`).

use api::names;
use api::quantity::Quantity;
use api::status::FieldError;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingRules, HorizontalPodAutoscaler, MetricIdentifier,
    MetricSpec, MetricTarget,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::kinds::check::{self, Errors};
use crate::kinds::path::Path;

/// Longest stabilization window.
const WINDOW_MAX_SECONDS: i32 = 3_600;
/// Longest period of a policy.
const PERIOD_MAX_SECONDS: i32 = 1_800;
const SOURCES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
const NOT_BOTH: &str = "may not set both a target raw value and a target utilization";
const NEITHER: &str = "must set either a target raw value or a target utilization";

/// Checks the specification; `least` is what `minReplicas` may be at least.
pub fn spec(object: &HorizontalPodAutoscaler, least: i32) -> Errors {
    let mut errors = Errors::new();
    let spec = &object.spec;
    let path = Path::new("spec");
    if let Some(min) = spec.min_replicas.filter(|min| *min < least) {
        let problem = format!("must be greater than or equal to {least}");
        errors.push(FieldError::invalid(path.child("minReplicas"), min, problem));
    }
    let mut max = |problem: &str| {
        errors.push(FieldError::invalid(path.child("maxReplicas"), spec.max_replicas, problem));
    };
    if spec.max_replicas < 1 {
        max("must be greater than 0");
    }
    if spec.min_replicas.is_some_and(|min| spec.max_replicas < min) {
        max("must be greater than or equal to `minReplicas`");
    }
    let target = path.child("scaleTargetRef");
    reference(&spec.scale_target_ref, &target, &mut errors);
    let version = check::text(&spec.scale_target_ref.api_version);
    if version.matches('/').count() > 1 {
        let problem = format!("unexpected GroupVersion string: {version}");
        errors.push(FieldError::invalid(target.child("apiVersion"), version, problem));
    }
    let metrics = spec.metrics.as_deref().unwrap_or_default();
    for (index, spec) in metrics.iter().enumerate() {
        metric(spec, &path.child("metrics").index(index), &mut errors);
    }
    let scales_to_zero = |metric: &MetricSpec| matches!(&*metric.type_, "Object" | "External");
    if spec.min_replicas == Some(0) && !metrics.iter().any(scales_to_zero) {
        let problem = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden(path.child("metrics"), problem));
    }
    if let Some(behavior) = &spec.behavior {
        let path = path.child("behavior");
        for (field, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)]
        {
            if let Some(rules) = rules {
                scaling(rules, &path.child(field), &mut errors);
            }
        }
    }
    errors
}

fn reference(reference: &CrossVersionObjectReference, path: &Path, errors: &mut Errors) {
    for (field, text) in [("kind", &reference.kind), ("name", &reference.name)] {
        let path = path.child(field);
        if text.is_empty() {
            errors.push(FieldError::required(path, ""));
        } else {
            check::invalid(names::path_segment(text), text, &path, errors);
        }
    }
}

fn scaling(rules: &HPAScalingRules, path: &Path, errors: &mut Errors) {
    if let Some(window) = rules.stabilization_window_seconds {
        let path = path.child("stabilizationWindowSeconds");
        if window < 0 {
            errors.push(FieldError::invalid(
                &path,
                window,
                "must be greater than or equal to zero",
            ));
        }
        if window > WINDOW_MAX_SECONDS {
            let problem = format!("must be less than or equal to {WINDOW_MAX_SECONDS}");
            errors.push(FieldError::invalid(&path, window, problem));
        }
    }
    let select = path.child("selectPolicy");
    check::one_of_or_unset(&rules.select_policy, &["Disabled", "Max", "Min"], &select, errors);
    let (path, tolerance) = (path.child("policies"), path.child("tolerance"));
    let policies = rules.policies.as_deref().unwrap_or_default();
    if policies.is_empty() {
        errors.push(FieldError::required(&path, "must specify at least one Policy"));
    }
    for (index, policy) in policies.iter().enumerate() {
        let path = path.index(index);
        if !matches!(&*policy.type_, "Pods" | "Percent") {
            let kinds = &["Percent", "Pods"];
            errors.push(FieldError::not_supported(path.child("type"), &policy.type_, kinds));
        }
        for (field, number) in [("value", policy.value), ("periodSeconds", policy.period_seconds)] {
            if number <= 0 {
                let problem = "must be greater than zero";
                errors.push(FieldError::invalid(path.child(field), number, problem));
            }
        }
        if policy.period_seconds > PERIOD_MAX_SECONDS {
            let problem = format!("must be less than or equal to {PERIOD_MAX_SECONDS}");
            let path = path.child("periodSeconds");
            errors.push(FieldError::invalid(path, policy.period_seconds, problem));
        }
    }
    if let Some(amount) = &rules.tolerance {
        check::amount(amount, &tolerance, errors);
    }
}

fn metric(spec: &MetricSpec, path: &Path, errors: &mut Errors) {
    if spec.type_.is_empty() {
        let problem = "must specify a metric source type";
        errors.push(FieldError::required(path.child("type"), problem));
    }
    if !SOURCES.contains(&&*spec.type_) {
        errors.push(FieldError::not_supported(path.child("type"), &spec.type_, SOURCES));
    }
    let sources: [(&str, &str, bool); 5] = [
        ("Object", "object", spec.object.is_some()),
        ("External", "external", spec.external.is_some()),
        ("Pods", "pods", spec.pods.is_some()),
        ("Resource", "resource", spec.resource.is_some()),
        ("ContainerResource", "containerResource", spec.container_resource.is_some()),
    ];
    let present: Vec<_> = sources.iter().filter(|(_, _, there)| *there).collect();
    if let Some((_, field, _)) = present.first() {
        source(spec, field, &path.child(field), errors);
    }
    match sources.iter().find(|(kind, _, _)| spec.type_ == *kind) {
        Some((_, field, false)) => {
            let problem = "must populate information for the given metric source";
            errors.push(FieldError::required(path.child(field), problem));
        }
        Some(_) => {}
        None => errors.push(FieldError::not_supported(path.child("type"), &spec.type_, SOURCES)),
    }
    if present.len() != 1 {
        for (_, field, _) in present.iter().filter(|(kind, _, _)| spec.type_ != *kind) {
            let problem = "must populate the given metric source only";
            errors.push(FieldError::forbidden(path.child(field), problem));
        }
    }
}

/// The only source of a metric, or the first one.
fn source(spec: &MetricSpec, field: &str, path: &Path, errors: &mut Errors) {
    let of_target = path.child("target");
    let missing = |field: &str, problem: &str, errors: &mut Errors| {
        errors.push(FieldError::required(of_target.child(field), problem));
    };
    if let Some(object) = spec.object.as_ref().filter(|_| field == "object") {
        reference(&object.described_object, &path.child("describedObject"), errors);
        identifier(&object.metric, &path.child("metric"), errors);
        target(&object.target, &path.child("target"), errors);
        if object.target.value.is_none() && object.target.average_value.is_none() {
            let problem = "must set either a target value or averageValue";
            missing("averageValue", problem, errors);
        }
    } else if let Some(external) = spec.external.as_ref().filter(|_| field == "external") {
        identifier(&external.metric, &path.child("metric"), errors);
        target(&external.target, &path.child("target"), errors);
        match (&external.target.value, &external.target.average_value) {
            (None, None) => {
                let problem = "must set either a target value for metric or a per-pod target";
                missing("averageValue", problem, errors);
            }
            (Some(_), Some(_)) => {
                let problem = "may not set both a target value for metric and a per-pod target";
                errors.push(FieldError::forbidden(path.child("target").child("value"), problem));
            }
            _ => {}
        }
    } else if let Some(pods) = spec.pods.as_ref().filter(|_| field == "pods") {
        identifier(&pods.metric, &path.child("metric"), errors);
        target(&pods.target, &path.child("target"), errors);
        if pods.target.average_value.is_none() {
            missing("averageValue", "must specify a positive target averageValue", errors);
        }
    } else if let Some(resource) = spec.resource.as_ref().filter(|_| field == "resource") {
        if resource.name.is_empty() {
            errors.push(FieldError::required(path.child("name"), "must specify a resource name"));
        }
        usage(&resource.target, &path.child("target"), errors);
    } else if let Some(resource) = &spec.container_resource {
        if resource.name.is_empty() {
            errors.push(FieldError::required(path.child("name"), "must specify a resource name"));
        } else {
            check::qualified_name(&resource.name, &path.child("name"), errors);
        }
        if resource.container.is_empty() {
            let problem = "must specify a container";
            errors.push(FieldError::required(path.child("container"), problem));
        } else {
            check::dns_label(&resource.container, &path.child("container"), errors);
        }
        usage(&resource.target, &path.child("target"), errors);
    }
}

/// The target of a metric of resources.
fn usage(of: &MetricTarget, path: &Path, errors: &mut Errors) {
    target(of, path, errors);
    match (of.average_utilization, &of.average_value) {
        (None, None) => {
            errors.push(FieldError::required(path.child("averageUtilization"), NEITHER));
        }
        (Some(_), Some(_)) => {
            errors.push(FieldError::forbidden(path.child("averageValue"), NOT_BOTH));
        }
        _ => {}
    }
}

fn target(target: &MetricTarget, path: &Path, errors: &mut Errors) {
    if target.type_.is_empty() {
        errors.push(FieldError::required(path.child("type"), "must specify a metric target type"));
    }
    if !matches!(&*target.type_, "Utilization" | "Value" | "AverageValue") {
        let problem = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(path.child("type"), &target.type_, problem));
    }
    let mut positive = |field: &str, amount: &Option<Text>| {
        let Some(text) = amount else { return };
        match text.0.parse::<Quantity>() {
            Ok(amount) if !amount.is_negative() && !amount.is_zero() => {}
            Ok(_) => {
                let problem = "must be positive";
                errors.push(FieldError::invalid(path.child(field), &text.0, problem));
            }
            Err(error) => {
                let problem = error.to_string();
                errors.push(FieldError::invalid(path.child(field), &text.0, problem));
            }
        }
    };
    positive("value", &target.value);
    positive("averageValue", &target.average_value);
    if let Some(percent) = target.average_utilization.filter(|percent| *percent < 1) {
        let path = path.child("averageUtilization");
        errors.push(FieldError::invalid(path, percent, "must be greater than 0"));
    }
}

fn identifier(metric: &MetricIdentifier, path: &Path, errors: &mut Errors) {
    let path = path.child("name");
    if metric.name.is_empty() {
        errors.push(FieldError::required(path, "must specify a metric name"));
    } else {
        check::invalid(names::path_segment(&metric.name), &metric.name, &path, errors);
    }
}
