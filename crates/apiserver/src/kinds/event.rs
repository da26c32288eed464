//! Events.

pub mod conversion;

use api::object::Object;
use api::schema::zero::is_zero_time;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource};
use k8s_openapi::api::events::v1::Event as NewerEvent;
use serde_json::Value;

use super::at::At;
use super::columns::{self, NAME, text, wide};
use super::table::{Rows, Table, parsed};
use super::{Column, Dependents, Strategy, check};

/// Longest reporting instance, action and reason of an Event with an `eventTime`.
const MAX_TEXT: usize = 128;
/// Longest message of such an Event.
const MAX_NOTE: usize = 1024;

/// Events of `events.k8s.io` are printed like those of the core group, and stored as them.
pub static NEWER_RULES: Rows<NewerEvent> = Rows {
    table: Some(Table {
        columns: || RULES.columns(),
        cells: |event, now| match parsed::<Event>(&conversion::to_core(event.json())) {
            Some(core) => RULES.cells(&core, now),
            None => vec![Value::Null; RULES.columns.len()],
        },
    }),
    ..Rows::NEW
};

pub static RULES: Rows<Event> = Rows {
    default: |event| {
        event.source.get_or_insert_default();
    },
    judge: |event, at| {
        let namespace = check::text(&event.metadata.namespace);
        let about = check::text(&event.involved_object.namespace);
        // Events about cluster-scoped objects live in the default namespace.
        let nowhere = about.is_empty() && matches!(namespace, "default" | "kube-system" | "");
        let dated = event.event_time.is_some();
        if !nowhere && about != namespace && (!dated || about.is_empty()) {
            at.child("involvedObject.namespace").invalid(about, "does not match event.namespace");
        }
        if dated {
            validate_dated(event, at);
        }
    },
    create_on_update: true,
    dependents: Dependents::Unsupported,
    columns: &[
        text("Last Seen", "Time since the event last happened.").now(|event, now| {
            let last = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
            let last = last.map(|time| time.0).or(columns::moment(&event.last_timestamp));
            columns::since(last.or(first_seen(event)), now).into()
        }),
        text("Type", "Normal or Warning.").of(|event| check::text(&event.type_).into()),
        text("Reason", "Why the event was made.").of(|event| check::text(&event.reason).into()),
        text("Object", "Object that the event is about.").of(|event| {
            let about = &event.involved_object;
            let kind = check::text(&about.kind).to_lowercase();
            format!("{kind}/{}", check::text(&about.name)).into()
        }),
        wide("Subobject", "Part of the object.")
            .of(|event| check::text(&event.involved_object.field_path).into()),
        wide("Source", "Component that reported the event.").of(|event| source(event).into()),
        text("Message", "What happened.").of(|event| check::text(&event.message).trim().into()),
        wide("First Seen", "Time since the event first happened.")
            .now(|event, now| columns::since(first_seen(event), now).into()),
        wide("Count", "How often the event happened.").of(|event| {
            let count = event.series.as_ref().and_then(|series| series.count);
            count.or(event.count).unwrap_or(1).max(1).to_string().into()
        }),
        Column { priority: 1, ..NAME }.of(|event| columns::name(&event.metadata)),
    ],
    ..Rows::NEW
};

fn first_seen(event: &Event) -> Option<Timestamp> {
    let time = event.event_time.as_ref().map(|time| time.0);
    columns::moment(&event.first_timestamp).or(time)
}

/// What an Event with an `eventTime` must have (`legacyValidateEvent`).
fn validate_dated(event: &Event, at: &At<'_>) {
    let component = check::text(&event.reporting_component);
    at.child("reportingController").not_empty(component);
    at.child("reportingController").qualified_name(component);
    let texts = [
        ("reportingInstance", &event.reporting_instance),
        ("action", &event.action),
        ("reason", &event.reason),
    ];
    for (field, text) in texts {
        let at = at.child(field);
        at.not_empty(check::text(text));
        at_most(text, MAX_TEXT, &at);
    }
    at_most(&event.message, MAX_NOTE, &at.child("message"));
}

fn at_most(text: &Option<String>, limit: usize, at: &At<'_>) {
    if check::text(text).len() > limit {
        at.invalid("", format!("can have at most {limit} characters"));
    }
}

fn source(event: &Event) -> String {
    let none = EventSource::default();
    let source = event.source.as_ref().unwrap_or(&none);
    let first = |old: &Option<String>, new: &Option<String>| {
        old.clone().filter(|text| !text.is_empty()).or_else(|| new.clone()).unwrap_or_default()
    };
    let component = first(&source.component, &event.reporting_component);
    let instance = first(&source.host, &event.reporting_instance);
    if instance.is_empty() { component } else { format!("{component}, {instance}") }
}

/// Fields of an Event of the newer group that must be unset: it has `eventTime` and `series` instead.
const DEPRECATED: [&str; 4] = ["firstTimestamp", "lastTimestamp", "count", "source"];

/// What the newer group requires of a new Event (`ValidateEventCreate`).
pub fn check_new(event: &Value) -> Vec<FieldError> {
    At::object(|at| judge_new(event, at))
}

fn judge_new(event: &Value, at: &At<'_>) {
    if event["eventTime"].is_null() {
        at.child("eventTime").required("");
    }
    let kind = event["type"].as_str().unwrap_or_default();
    if !matches!(kind, "Normal" | "Warning") {
        at.child("type").invalid("", format!("has invalid value: {kind}"));
    }
    if let Some(series) = event["series"].as_object() {
        if series.get("count").and_then(Value::as_i64).unwrap_or(0) < 2 {
            at.child("series.count").invalid("", "should be at least 2");
        }
        let observed = series.get("lastObservedTime").and_then(Value::as_str);
        if observed.is_none_or(is_zero_time) {
            at.child("series.lastObservedTime").required("");
        }
    }
    for field in DEPRECATED {
        let set = match &event[field] {
            Value::Null => false,
            Value::Object(parts) => !parts.is_empty(),
            Value::Number(number) => number.as_i64() != Some(0),
            _ => true,
        };
        if set {
            at.child(field).invalid("", "needs to be unset");
        }
    }
}
