//! The columns of HorizontalPodAutoscalers (`printHorizontalPodAutoscaler`).

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, MetricSpec, MetricStatus, MetricTarget, MetricValueStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::Value;

use crate::kinds::{Column, columns};

/// Metrics that are shown.
const SHOWN: usize = 2;

pub static COLUMNS: &[Column] = &[
    columns::NAME,
    columns::text("Reference", "What is scaled."),
    columns::text("Targets", "Current and wanted values of the metrics."),
    columns::text("MinPods", "Minimum number of pods."),
    columns::text("MaxPods", "Maximum number of pods."),
    columns::text("Replicas", "Number of pods when it was last looked at."),
    columns::AGE,
];

pub fn cells(object: &HorizontalPodAutoscaler, now: Timestamp) -> Vec<Value> {
    let spec = &object.spec;
    let status = object.status.clone().unwrap_or_default();
    let target = &spec.scale_target_ref;
    let least = spec.min_replicas.map_or("<unset>".to_owned(), |number| number.to_string());
    vec![
        columns::name(&object.metadata),
        format!("{}/{}", target.kind, target.name).into(),
        metrics(
            spec.metrics.as_deref().unwrap_or_default(),
            status.current_metrics.as_deref().unwrap_or_default(),
        )
        .into(),
        least.into(),
        spec.max_replicas.into(),
        status.current_replicas.unwrap_or_default().into(),
        columns::age(&object.metadata, now),
    ]
}

fn metrics(specs: &[MetricSpec], statuses: &[MetricStatus]) -> String {
    if specs.is_empty() {
        return columns::NONE.to_owned();
    }
    let all = specs.iter().enumerate().map(|(index, spec)| metric(spec, statuses.get(index)));
    let shown: Vec<String> = all.take(SHOWN).collect();
    match specs.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} + {more} more...", shown.join(", ")),
    }
}

fn metric(spec: &MetricSpec, status: Option<&MetricStatus>) -> String {
    if let Some(external) = &spec.external {
        let current = status.and_then(|status| Some(&status.external.as_ref()?.current));
        return value(&external.target, current);
    }
    if let Some(pods) = &spec.pods {
        let current = status.and_then(|status| Some(&status.pods.as_ref()?.current));
        let current = text(current.and_then(|current| current.average_value.as_ref()));
        return format!("{current}/{}", text(pods.target.average_value.as_ref()));
    }
    if let Some(object) = &spec.object {
        let current = status.and_then(|status| Some(&status.object.as_ref()?.current));
        return value(&object.target, current);
    }
    if let Some(resource) = &spec.resource {
        let current = status.and_then(|status| Some(&status.resource.as_ref()?.current));
        return usage(&resource.name, &resource.target, current);
    }
    if let Some(resource) = &spec.container_resource {
        let current = status.and_then(|status| Some(&status.container_resource.as_ref()?.current));
        return usage(&resource.name, &resource.target, current);
    }
    "<unknown type>".to_owned()
}

fn text(quantity: Option<&Quantity>) -> &str {
    quantity.map_or("<unknown>", |quantity| &quantity.0)
}

fn value(target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    match &target.average_value {
        Some(average) => {
            let current = text(current.and_then(|current| current.average_value.as_ref()));
            format!("{current}/{} (avg)", average.0)
        }
        None => {
            let current = text(current.and_then(|current| current.value.as_ref()));
            format!("{current}/{}", text(target.value.as_ref()))
        }
    }
}

fn usage(name: &str, target: &MetricTarget, current: Option<&MetricValueStatus>) -> String {
    if let Some(average) = &target.average_value {
        let current = text(current.and_then(|current| current.average_value.as_ref()));
        return format!("{name}: {current}/{}", average.0);
    }
    let percent = |number: Option<i32>, none: &str| {
        number.map_or(none.to_owned(), |number| format!("{number}%"))
    };
    let current = current.and_then(|current| current.average_utilization);
    let (current, wanted) =
        (percent(current, "<unknown>"), percent(target.average_utilization, "<auto>"));
    format!("{name}: {current}/{wanted}")
}
