//! Conversion between the core group's Events and those of `events.k8s.io`, which have newer names
//! for the same fields.
//!
//! Upstream: `pkg/apis/core/v1/conversion.go` and `pkg/apis/events/v1/conversion.go`.

use api::{Kind, KindRow};
use k8s_openapi::api::core::v1::Event as CoreEvent;
use k8s_openapi::api::events::v1::Event;
use serde_json::{Map, Value};

/// The core group's names of fields, and those of `events.k8s.io`.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// A core Event as JSON of an `events.k8s.io` one.
pub fn from_core(event: Value) -> Value {
    renamed(event, Event::ROW, |names| names)
}

/// An `events.k8s.io` Event as JSON of a core one.
pub fn to_core(event: Value) -> Value {
    renamed(event, CoreEvent::ROW, |(core, newer)| (newer, core))
}

/// The core group's name of a field that `events.k8s.io` selects by.
pub fn field_to_core(field: &str) -> String {
    let (first, rest) =
        field.split_once('.').map_or((field, None), |(first, rest)| (first, Some(rest)));
    let core = NAMES.into_iter().find(|(_, newer)| *newer == first).map_or(first, |(core, _)| core);
    rest.map_or_else(|| core.to_owned(), |rest| format!("{core}.{rest}"))
}

/// Renames fields, from the first of a pair to the second; `apiVersion` and `kind` come first.
fn renamed(
    event: Value,
    row: &KindRow,
    direction: fn((&'static str, &'static str)) -> (&'static str, &'static str),
) -> Value {
    let Value::Object(fields) = event else {
        return event;
    };
    let mut out = Map::new();
    out.insert("apiVersion".to_owned(), row.api_version().into());
    out.insert("kind".to_owned(), row.kind.to_string().into());
    for (field, value) in fields {
        if matches!(field.as_str(), "apiVersion" | "kind") {
            continue;
        }
        let mut names = NAMES.into_iter().map(direction);
        let pair = names.find(|(from, _)| *from == field);
        out.insert(pair.map_or(field, |(_, to)| to.to_owned()), value);
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn both_groups_hold_the_same() {
        let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"},
            "message": "m", "source": {"component": "c"}, "count": 3, "reportingComponent": "r", "reason": "why"});
        let newer = from_core(core.clone());
        assert_eq!(newer["regarding"]["kind"], "Pod");
        assert_eq!(newer["note"], "m");
        assert_eq!(newer["deprecatedCount"], 3);
        assert_eq!(newer["apiVersion"], "events.k8s.io/v1");
        assert_eq!(to_core(newer), core);
    }

    #[test]
    fn every_selectable_field_has_one_in_the_core_group() {
        let core = &CoreEvent::ROW.selectable;
        for field in Event::ROW.selectable.iter() {
            assert!(core.contains(&field_to_core(field).into()), "{field}");
        }
        assert_eq!(field_to_core("regarding.fieldPath"), "involvedObject.fieldPath");
        assert_eq!(field_to_core("metadata.name"), "metadata.name");
    }
}
