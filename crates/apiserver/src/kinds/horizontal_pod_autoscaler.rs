//! HorizontalPodAutoscalers, in both versions: they are stored as `autoscaling/v2`.

mod columns;
pub mod conversion;
mod validate;

use api::Kind;
use k8s_openapi::api::autoscaling::v1::HorizontalPodAutoscaler as Older;
use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, MetricSpec, MetricTarget,
    ResourceMetricSource,
};

use super::columns::text;
use super::table::{Check, Rows, age, name, status_apart, text_at};

/// Utilization that is aimed at when no metric is named, in percent.
const DEFAULT_CPU_UTILIZATION: i32 = 80;

/// Those of `autoscaling/v1` are printed like the others, and stored as them.
pub static OLDER_RULES: Rows<Older> = Rows::AUTOSCALER;

pub static RULES: Rows<HorizontalPodAutoscaler> = Rows {
    default: |object| {
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
    },
    parts: status_apart!(),
    create: |object, at| validate::spec(object, 1, at),
    // What scales to zero already may go on doing so.
    update: |new, old, at| {
        validate::spec(new, i32::from(old.spec.min_replicas != Some(0)), at);
    },
    status: &[
        ("status.currentReplicas", Check::NotNegative),
        ("status.desiredReplicas", Check::NotNegative),
    ],
    ..Rows::AUTOSCALER
};

impl<K: Kind> Rows<K> {
    const AUTOSCALER: Self = Self {
        columns: &[
            name(),
            text("Reference", "What is scaled.").json(|object| {
                let target = &object["spec"]["scaleTargetRef"];
                format!("{}/{}", text_at(target, "kind"), text_at(target, "name")).into()
            }),
            text("Targets", "Current and wanted values of the metrics.").json(
                |object| match object["apiVersion"] == *Older::ROW.api_version() {
                    true => columns::targets(&conversion::to_v2(object.clone())).into(),
                    false => columns::targets(object).into(),
                },
            ),
            text("MinPods", "Minimum number of pods.").json(|object| {
                let least = object["spec"]["minReplicas"].as_i64();
                least.map_or("<unset>".to_owned(), |number| number.to_string()).into()
            }),
            text("MaxPods", "Maximum number of pods.").number("spec.maxReplicas"),
            text("Replicas", "Number of pods when it was last looked at.")
                .number("status.currentReplicas"),
            age(),
        ],
        ..Self::NEW
    };
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
