//! The values of selectable fields, extracted without decoding the object.
//!
//! Names and fallbacks are those of upstream's `ToSelectableFields` and field label conversions.

use api::KindRow;

use crate::scan;

/// The values of `row.selectable`, in its order.
pub fn values(row: &KindRow, json: &[u8]) -> Box<[Box<str>]> {
    row.selectable.iter().map(|path| value(row, json, path).into()).collect()
}

fn value(row: &KindRow, json: &[u8], path: &str) -> String {
    let read = |path: &str| scan::at_path(json, path).map(scan::scalar);
    let fallback = |path: &str, default: &str| {
        read(path).filter(|value| !value.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    match (&*row.kind, path) {
        _ if row.custom.is_some() => fallback(path, ""),
        ("Pod", "spec.hostNetwork") | ("Node", "spec.unschedulable") => fallback(path, "false"),
        // Accepted, but without a value, as upstream.
        ("Pod", "status.podIPs") => String::new(),
        ("Job", "status.successful") => fallback("status.succeeded", "0"),
        (_, "status.replicas") => fallback(path, "0"),
        ("Event", "source") => fallback("source.component", &fallback("reportingComponent", "")),
        _ => fallback(path, ""),
    }
}
