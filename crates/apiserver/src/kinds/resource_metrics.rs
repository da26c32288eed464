//! NodeMetrics and PodMetrics, which are computed: only their columns are here.
//!
//! Upstream: metrics-server's `pkg/api/table.go`.

use api::custom::CustomObject;
use api::quantity::Quantity;
use serde_json::Value;

use super::Column;
use super::columns::text;
use super::table::{Rows, items, name};

/// The columns of both kinds.
pub static RULES: Rows<CustomObject> = Rows {
    columns: &[
        name(),
        Column { format: "quantity", ..text("cpu", "Processors in use.") }
            .json(|metrics| total(metrics, "cpu")),
        Column { format: "quantity", ..text("memory", "Memory in use.") }
            .json(|metrics| total(metrics, "memory")),
        Column { format: "duration", ..text("Window", "Time that usage was measured over.") }
            .json(|metrics| metrics["window"].clone()),
    ],
    ..Rows::NEW
};

/// Of the node, or of all containers of the pod.
fn total(metrics: &Value, resource: &str) -> Value {
    let of_containers = items(&metrics["containers"]).iter().map(|container| &container["usage"]);
    let usages = std::iter::once(&metrics["usage"]).chain(of_containers);
    let amounts = usages.filter_map(|usage| usage[resource].as_str());
    let total: Quantity = amounts.filter_map(|amount| amount.parse::<Quantity>().ok()).sum();
    total.to_string().into()
}
