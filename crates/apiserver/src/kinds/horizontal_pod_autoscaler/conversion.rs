//! Conversion between `autoscaling/v2` and `autoscaling/v1`, which knows one metric: what else there
//! is goes into annotations.
//!
//! Upstream: `pkg/apis/autoscaling/v1/conversion.go`.

use api::{Kind, KindRow};
use k8s_openapi::api::autoscaling::{v1, v2};
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// The sources of metrics: the member of both versions, v1's names of the fields of the source
/// itself, and whether the target has them too.
const SOURCES: [(&str, Names); 5] = [
    (
        "object",
        &[
            ("/describedObject", "target"),
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/target/value", "targetValue"),
            ("/target/averageValue", "averageValue"),
            ("/current/value", "currentValue"),
            ("/current/averageValue", "averageValue"),
        ],
    ),
    (
        "pods",
        &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "selector"),
            ("/target/averageValue", "targetAverageValue"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    ),
    ("resource", RESOURCE),
    ("containerResource", RESOURCE),
    (
        "external",
        &[
            ("/metric/name", "metricName"),
            ("/metric/selector", "metricSelector"),
            ("/target/value", "targetValue"),
            ("/target/averageValue", "targetAverageValue"),
            ("/current/value", "currentValue"),
            ("/current/averageValue", "currentAverageValue"),
        ],
    ),
];

/// Paths of v2, and the fields of v1.
type Names = &'static [(&'static str, &'static str)];

const RESOURCE: Names = &[
    ("/name", "name"),
    ("/container", "container"),
    ("/target/averageUtilization", "targetAverageUtilization"),
    ("/target/averageValue", "targetAverageValue"),
    ("/current/averageUtilization", "currentAverageUtilization"),
    ("/current/averageValue", "currentAverageValue"),
];

/// A `v2` object as JSON of `v1`.
pub fn to_v1(object: Value) -> Value {
    let mut out = named(&object, v1::HorizontalPodAutoscaler::ROW);
    let (spec, status) = (&object["spec"], &object["status"]);
    let metrics = spec["metrics"].as_array().cloned().unwrap_or_default();
    let statuses = status["currentMetrics"].as_array().cloned().unwrap_or_default();
    if spec.is_object() {
        copy(spec, &["scaleTargetRef", "minReplicas", "maxReplicas"], &mut out["spec"]);
        if let Some(metric) = metrics.iter().find(|metric| is_cpu_utilization(metric, "target")) {
            out["spec"]["targetCPUUtilizationPercentage"] =
                metric["resource"]["target"]["averageUtilization"].clone();
        }
    }
    if status.is_object() {
        let same = ["observedGeneration", "lastScaleTime", "currentReplicas", "desiredReplicas"];
        copy(status, &same, &mut out["status"]);
        for required in ["currentReplicas", "desiredReplicas"] {
            if out["status"][required].is_null() {
                out["status"][required] = 0.into();
            }
        }
        if let Some(metric) = statuses.iter().find(|metric| is_cpu_utilization(metric, "current")) {
            out["status"]["currentCPUUtilizationPercentage"] =
                metric["resource"]["current"]["averageUtilization"].clone();
        }
    }
    let others = metrics.iter().filter(|metric| !is_cpu_utilization(metric, "target"));
    annotate(&mut out, METRICS, others.map(older).collect());
    annotate(&mut out, CURRENT_METRICS, statuses.iter().map(older).collect());
    annotate(&mut out, CONDITIONS, status["conditions"].clone());
    annotate(&mut out, BEHAVIOR, recased(&spec["behavior"], char::to_ascii_uppercase));
    out
}

/// A `v1` object as JSON of `v2`. Annotations that cannot be read are ignored, as upstream does it.
pub fn to_v2(object: Value) -> Value {
    let mut out = named(&object, v2::HorizontalPodAutoscaler::ROW);
    let annotation = |name: &str| -> Value {
        let text = object["metadata"]["annotations"][name].as_str().unwrap_or_default();
        serde_json::from_str(text).unwrap_or_default()
    };
    let (spec, status) = (&object["spec"], &object["status"]);
    let list = |name: &str| annotation(name).as_array().cloned().unwrap_or_default();
    if spec.is_object() {
        copy(spec, &["scaleTargetRef", "minReplicas", "maxReplicas"], &mut out["spec"]);
        let percent = &spec["targetCPUUtilizationPercentage"];
        let cpu = (!percent.is_null()).then(|| cpu("target", percent));
        let metrics: Vec<Value> = cpu
            .into_iter()
            .chain(list(METRICS).iter().map(|metric| newer(metric, "target")))
            .collect();
        if !metrics.is_empty() {
            out["spec"]["metrics"] = metrics.into();
        }
        let behavior = recased(&annotation(BEHAVIOR), char::to_ascii_lowercase);
        if behavior.is_object() {
            out["spec"]["behavior"] = behavior;
        }
    }
    if status.is_object() {
        let same = ["observedGeneration", "lastScaleTime", "currentReplicas", "desiredReplicas"];
        copy(status, &same, &mut out["status"]);
        let percent = &status["currentCPUUtilizationPercentage"];
        let metrics: Vec<Value> =
            list(CURRENT_METRICS).iter().map(|metric| newer(metric, "current")).collect();
        if !metrics.is_empty() {
            out["status"]["currentMetrics"] = metrics.into();
        } else if !percent.is_null() {
            out["status"]["currentMetrics"] = json!([cpu("current", percent)]);
        }
        let conditions = list(CONDITIONS);
        if !conditions.is_empty() {
            out["status"]["conditions"] = conditions.into();
        }
    }
    out
}

/// An object of a version with the same metadata, but for the annotations of the conversion.
fn named(object: &Value, row: &KindRow) -> Value {
    let mut metadata = object["metadata"].clone();
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.retain(|name, _| {
            ![METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR].contains(&name.as_str())
        });
        if annotations.is_empty()
            && let Some(metadata) = metadata.as_object_mut()
        {
            metadata.remove("annotations");
        }
    }
    json!({"apiVersion": row.api_version(), "kind": row.kind, "metadata": metadata})
}

fn copy(from: &Value, fields: &[&str], to: &mut Value) {
    *to = json!({});
    for field in fields {
        if let Some(value) = from.get(field) {
            to[field] = value.clone();
        }
    }
}

fn annotate(object: &mut Value, name: &str, value: Value) {
    let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    if !empty {
        object["metadata"]["annotations"][name] = value.to_string().into();
    }
}

/// Whether a metric is the one that v1 has fields for; `part`: `target` or `current`.
fn is_cpu_utilization(metric: &Value, part: &str) -> bool {
    let resource = &metric["resource"];
    metric["type"] == "Resource"
        && resource["name"] == "cpu"
        && !resource[part]["averageUtilization"].is_null()
}

fn cpu(part: &str, percent: &Value) -> Value {
    let mut value = json!({"averageUtilization": percent});
    if part == "target" {
        value["type"] = "Utilization".into();
    }
    json!({"type": "Resource", "resource": {"name": "cpu", part: value}})
}

/// A metric, or its status, as v1 has it in annotations.
fn older(metric: &Value) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (member, names) in SOURCES {
        let Some(source) = metric.get(member).filter(|source| source.is_object()) else { continue };
        let mut made = Map::new();
        for (path, name) in names {
            if let Some(value) = source.pointer(path).filter(|value| !value.is_null()) {
                made.insert((*name).to_owned(), value.clone());
            }
        }
        out[member] = made.into();
    }
    out
}

/// The same of v1 as v2 has it; `part` is `target` for a metric and `current` for its status.
fn newer(metric: &Value, part: &str) -> Value {
    let mut out = json!({"type": metric["type"]});
    for (member, names) in SOURCES {
        let Some(source) = metric.get(member).filter(|source| source.is_object()) else { continue };
        let mut made = json!({part: {}});
        let other = if part == "target" { "/current/" } else { "/target/" };
        for (path, name) in names.iter().filter(|(path, _)| !path.starts_with(other)) {
            let Some(value) = source.get(*name).filter(|value| !value.is_null()) else { continue };
            match path.trim_start_matches('/').split_once('/') {
                Some((outer, inner)) => made[outer][inner] = value.clone(),
                None => made[path.trim_start_matches('/')] = value.clone(),
            }
        }
        if part == "target" {
            let has = |field: &str| !made["target"][field].is_null();
            let kind = match () {
                () if has("averageUtilization") => "Utilization",
                () if has("averageValue") => "AverageValue",
                () => "Value",
            };
            made["target"]["type"] = kind.into();
        }
        out[member] = made;
    }
    out
}

/// The value with the first letter of every member changed: upstream writes `behavior` with Go's
/// names of the fields.
fn recased(value: &Value, letter: fn(&char) -> char) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| {
                let mut characters = name.chars();
                let first = characters.next().map(|first| letter(&first));
                let name: String = first.into_iter().chain(characters).collect();
                (name, recased(value, letter))
            })
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(|item| recased(item, letter)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_keeps_in_annotations_what_it_has_no_fields_for() {
        let target = |kind: &str, field: &str, value: Value| json!({"type": kind, field: value});
        let object = json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "a", "annotations": {"mine": "yes"}},
            "spec": {
                "scaleTargetRef": {"kind": "Deployment", "name": "web"}, "minReplicas": 1, "maxReplicas": 5,
                "metrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "target": target("Utilization", "averageUtilization", 60.into())}},
                    {"type": "Resource", "resource": {"name": "memory", "target": target("AverageValue", "averageValue", "1Gi".into())}},
                    {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"},
                        "metric": {"name": "hits", "selector": {"matchLabels": {"a": "b"}}}, "target": target("Value", "value", "10".into())}},
                    {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": target("AverageValue", "averageValue", "5".into())}},
                    {"type": "External", "external": {"metric": {"name": "q"}, "target": target("AverageValue", "averageValue", "30".into())}},
                    {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
                        "target": target("Utilization", "averageUtilization", 70.into())}},
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]}},
            },
            "status": {"currentReplicas": 2, "desiredReplicas": 3,
                "currentMetrics": [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 50, "averageValue": "100m"}}}],
                "conditions": [{"type": "AbleToScale", "status": "True"}]},
        });
        let older = to_v1(object.clone());
        assert_eq!(older["apiVersion"], "autoscaling/v1");
        assert_eq!(older["spec"]["targetCPUUtilizationPercentage"], 60);
        assert_eq!(older["status"]["currentCPUUtilizationPercentage"], 50);
        let annotations = older["metadata"]["annotations"].as_object().unwrap();
        assert_eq!(annotations.len(), 5);
        let behavior = annotations[BEHAVIOR].as_str().unwrap();
        assert!(behavior.contains(r#"{"ScaleDown":{"Policies":[{"#), "{behavior}");
        assert_eq!(to_v2(older), object);
    }

    #[test]
    fn annotations_that_cannot_be_read_are_ignored() {
        let object = json!({"metadata": {"annotations": {METRICS: "{", BEHAVIOR: "[]", CONDITIONS: "5"}},
            "spec": {"maxReplicas": 3}});
        let newer = to_v2(object);
        assert_eq!(newer["spec"], json!({"maxReplicas": 3}));
        assert!(newer["metadata"].get("annotations").is_none());
    }
}
