//! The column of the metrics of HorizontalPodAutoscalers (`printHorizontalPodAutoscaler`).

use serde_json::Value;

use crate::kinds::columns::NONE;
use crate::kinds::table::{items, text_at};

/// Metrics that are shown.
const SHOWN: usize = 2;

/// Current and wanted values of the metrics of an object of v2.
pub fn targets(object: &Value) -> String {
    let specs = items(&object["spec"]["metrics"]);
    if specs.is_empty() {
        return NONE.to_owned();
    }
    let statuses = &object["status"]["currentMetrics"];
    let all = specs.iter().zip(0..).map(|(spec, index)| metric(spec, &statuses[index]));
    let shown: Vec<String> = all.take(SHOWN).collect();
    match specs.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} + {more} more...", shown.join(", ")),
    }
}

fn metric(spec: &Value, status: &Value) -> String {
    let sources = ["external", "pods", "object", "resource", "containerResource"];
    let Some(source) = sources.into_iter().find(|source| !spec[*source].is_null()) else {
        return "<unknown type>".to_owned();
    };
    let (target, current) = (&spec[source]["target"], &status[source]["current"]);
    let amount = |part: &Value, field: &str| part[field].as_str().unwrap_or("<unknown>").to_owned();
    let amounts = |field: &str| format!("{}/{}", amount(current, field), amount(target, field));
    let averages = !target["averageValue"].is_null();
    match source {
        "external" | "object" if averages => format!("{} (avg)", amounts("averageValue")),
        "external" | "object" => amounts("value"),
        "pods" => amounts("averageValue"),
        _ => {
            let name = text_at(&spec[source], "name");
            if averages {
                return format!("{name}: {}", amounts("averageValue"));
            }
            let percent = |part: &Value, none: &str| match &part["averageUtilization"] {
                Value::Null => none.to_owned(),
                number => format!("{number}%"),
            };
            format!("{name}: {}/{}", percent(current, "<unknown>"), percent(target, "<auto>"))
        }
    }
}
