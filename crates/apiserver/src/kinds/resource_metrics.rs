//! NodeMetrics and PodMetrics, which are computed: only their columns are here.
//!
//! Upstream: metrics-server's `pkg/api/table.go`.

use api::custom::CustomObject;
use api::quantity::Quantity;
use jiff::Timestamp;
use serde_json::Value;

use super::{Column, Strategy, columns};

/// The strategy of both kinds.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::NAME,
    Column { format: "quantity", ..columns::text("cpu", "Processors in use.") },
    Column { format: "quantity", ..columns::text("memory", "Memory in use.") },
    Column { format: "duration", ..columns::text("Window", "Time that usage was measured over.") },
];

impl Strategy for Rules {
    type Object = CustomObject;

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &CustomObject, _: Timestamp) -> Vec<Value> {
        let of_containers = object.body.get("containers").and_then(Value::as_array);
        let parts = of_containers.into_iter().flatten().map(|container| &container["usage"]);
        let usages: Vec<&Value> = object.body.get("usage").into_iter().chain(parts).collect();
        let total = |resource: &str| -> Quantity {
            let amounts = usages.iter().filter_map(|usage| usage[resource].as_str());
            amounts.filter_map(|amount| amount.parse::<Quantity>().ok()).sum()
        };
        vec![
            columns::name(&object.metadata),
            total("cpu").to_string().into(),
            total("memory").to_string().into(),
            object.body.get("window").cloned().unwrap_or_default(),
        ]
    }
}
