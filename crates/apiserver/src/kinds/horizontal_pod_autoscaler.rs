//! HorizontalPodAutoscalers, in both versions: they are stored as `autoscaling/v2`.

mod columns;
pub mod conversion;
mod validate;

use api::Kind;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler as Older;
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, MetricSpec, MetricTarget,
    ResourceMetricSource,
};
use serde_json::Value;

use super::rules::status_apart;
use super::{Column, Strategy, status};

/// Utilization that is aimed at when no metric is named, in percent.
const DEFAULT_CPU_UTILIZATION: i32 = 80;

/// The strategy of HorizontalPodAutoscalers.
pub struct Rules;

/// The strategy of those of `autoscaling/v1`, which are printed like the others and stored as them.
pub struct OlderRules;

impl Strategy for OlderRules {
    type Object = Older;

    fn columns(&self) -> &'static [Column] {
        columns::COLUMNS
    }

    fn cells(&self, object: &Older, now: Timestamp) -> Vec<Value> {
        let newer = serde_json::from_slice(&object.encode()).map(conversion::to_v2);
        match newer.and_then(serde_json::from_value::<HorizontalPodAutoscaler>) {
            Ok(newer) => columns::cells(&newer, now),
            Err(_) => vec![Value::Null; columns::COLUMNS.len()],
        }
    }
}

impl Strategy for Rules {
    type Object = HorizontalPodAutoscaler;

    status_apart!();

    fn default(&self, object: &mut HorizontalPodAutoscaler) {
        let spec = &mut object.spec;
        spec.min_replicas.get_or_insert(1);
        if spec.metrics.as_ref().is_none_or(Vec::is_empty) {
            spec.metrics = Some(vec![default_metric()]);
        }
        if let Some(behavior) = &mut spec.behavior {
            fill(behavior.scale_up.get_or_insert_default(), default_scale_up());
            fill(behavior.scale_down.get_or_insert_default(), default_scale_down());
        }
        object.status.get_or_insert_default();
    }

    fn validate_create(&self, object: &HorizontalPodAutoscaler) -> Vec<FieldError> {
        validate::spec(object, 1)
    }

    fn validate_update(
        &self,
        new: &HorizontalPodAutoscaler,
        old: &HorizontalPodAutoscaler,
    ) -> Vec<FieldError> {
        // What scales to zero already may go on doing so.
        validate::spec(new, i32::from(old.spec.min_replicas != Some(0)))
    }

    fn validate_status_update(
        &self,
        new: &HorizontalPodAutoscaler,
        _: &HorizontalPodAutoscaler,
    ) -> Vec<FieldError> {
        let now = new.status.clone().unwrap_or_default();
        let counts = [
            ("currentReplicas", now.current_replicas),
            ("desiredReplicas", Some(now.desired_replicas)),
        ];
        status::not_negative(&counts, None)
    }

    fn allow_unconditional_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        columns::COLUMNS
    }

    fn cells(&self, object: &HorizontalPodAutoscaler, now: Timestamp) -> Vec<Value> {
        columns::cells(object, now)
    }
}

fn default_metric() -> MetricSpec {
    let target = MetricTarget {
        type_: "Utilization".to_owned(),
        average_utilization: Some(DEFAULT_CPU_UTILIZATION),
        ..MetricTarget::default()
    };
    let resource = ResourceMetricSource { name: "cpu".to_owned(), target };
    MetricSpec { type_: "Resource".to_owned(), resource: Some(resource), ..MetricSpec::default() }
}

fn policy(type_: &str, value: i32) -> HPAScalingPolicy {
    HPAScalingPolicy { type_: type_.to_owned(), value, period_seconds: 15 }
}

fn default_scale_up() -> HPAScalingRules {
    HPAScalingRules {
        stabilization_window_seconds: Some(0),
        select_policy: Some("Max".to_owned()),
        policies: Some(vec![policy("Pods", 4), policy("Percent", 100)]),
        tolerance: None,
    }
}

/// Without a window: the controller has its own.
fn default_scale_down() -> HPAScalingRules {
    HPAScalingRules {
        stabilization_window_seconds: None,
        select_policy: Some("Max".to_owned()),
        policies: Some(vec![policy("Percent", 100)]),
        tolerance: None,
    }
}

/// Fills what the rules leave open.
fn fill(rules: &mut HPAScalingRules, defaults: HPAScalingRules) {
    rules.select_policy = rules.select_policy.take().or(defaults.select_policy);
    let window = rules.stabilization_window_seconds.or(defaults.stabilization_window_seconds);
    rules.stabilization_window_seconds = window;
    rules.policies = rules.policies.take().or(defaults.policies);
}
