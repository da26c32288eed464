//! NodeMetrics and PodMetrics as JSON.

use api::quantity::Quantity;
use api::{Kind, KindRow, duration};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::sample::Usage;
use super::sampler::Sampler;
use crate::cache::Version;

/// The metrics of a node or pod. `None`: it does not run, or has no figures yet.
pub fn of(row: &KindRow, of: &Version, sampler: &Sampler, now: Timestamp) -> Option<Value> {
    if !row.namespaced() {
        let usage = sampler.node(&of.name)?;
        return Some(object(row, of, now, &usage, ("usage", amounts(&usage))));
    }
    if of.field(Pod::ROW, "status.phase") != "Running" {
        return None;
    }
    let containers = sampler.pod(of.field(Pod::ROW, "spec.nodeName"), &of.key())?;
    let usage = containers.iter().map(|(_, usage)| *usage).min_by_key(|usage| usage.time)?;
    let listed = containers.iter();
    let listed = listed.map(|(name, usage)| json!({"name": name, "usage": amounts(usage)}));
    Some(object(row, of, now, &usage, ("containers", listed.collect())))
}

fn object(
    row: &KindRow,
    of: &Version,
    now: Timestamp,
    usage: &Usage,
    (field, value): (&str, Value),
) -> Value {
    let mut metadata = json!({"name": of.name, "creationTimestamp": seconds(now)});
    if row.namespaced() {
        metadata["namespace"] = (*of.namespace).into();
    }
    if let Some(labels) = &of.labels {
        metadata["labels"] = json!(labels);
    }
    json!({
        "kind": row.kind,
        "apiVersion": row.api_version(),
        "metadata": metadata,
        "timestamp": seconds(usage.time),
        "window": duration::go(usage.window),
        field: value,
    })
}

fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn amounts(usage: &Usage) -> Value {
    json!({
        "cpu": Quantity::from_nanos(usage.cpu_nanos).to_string(),
        "memory": Quantity::from_bytes(usage.memory_bytes).to_string(),
    })
}
