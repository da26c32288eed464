//! Events.

pub mod conversion;

use api::schema::zero::is_zero_time;
use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource};
use k8s_openapi::api::events::v1::Event as NewerEvent;
use serde_json::Value;

use super::check::{self, Errors};
use super::path::Path;
use super::{Column, Dependents, Strategy, columns};

/// Longest reporting instance, action and reason of an Event with an `eventTime`.
const MAX_TEXT: usize = 128;
/// Longest message of such an Event.
const MAX_NOTE: usize = 1024;

/// The strategy of Events.
pub struct Rules;

static COLUMNS: &[Column] = &[
    columns::text("Last Seen", "Time since the event last happened."),
    columns::text("Type", "Normal or Warning."),
    columns::text("Reason", "Why the event was made."),
    columns::text("Object", "Object that the event is about."),
    columns::wide("Subobject", "Part of the object."),
    columns::wide("Source", "Component that reported the event."),
    columns::text("Message", "What happened."),
    columns::wide("First Seen", "Time since the event first happened."),
    columns::wide("Count", "How often the event happened."),
    Column { priority: 1, ..columns::NAME },
];

/// The strategy of Events of `events.k8s.io`, which are printed like those of the core group and
/// stored as them.
pub struct NewerRules;

impl Strategy for NewerRules {
    type Object = NewerEvent;

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, event: &NewerEvent, now: Timestamp) -> Vec<Value> {
        let core = serde_json::to_value(event).map(conversion::to_core);
        match core.and_then(serde_json::from_value::<Event>) {
            Ok(core) => Rules.cells(&core, now),
            Err(_) => vec![Value::Null; COLUMNS.len()],
        }
    }
}

impl Strategy for Rules {
    type Object = Event;

    fn default(&self, event: &mut Event) {
        event.source.get_or_insert_default();
    }

    fn dependents(&self) -> Dependents {
        Dependents::Unsupported
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, event: &Event) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let about = event.involved_object.namespace.as_deref();
        let about = about.unwrap_or_default();
        // Events about cluster-scoped objects live in the default namespace.
        let nowhere = about.is_empty() && matches!(namespace, "default" | "kube-system" | "");
        let dated = event.event_time.is_some();
        if !nowhere && about != namespace && (!dated || about.is_empty()) {
            let problem = "does not match event.namespace";
            errors.push(FieldError::invalid("involvedObject.namespace", about, problem));
        }
        if dated {
            validate_dated(event, &mut errors);
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, event: &Event, now: Timestamp) -> Vec<Value> {
        let time = event.event_time.as_ref().map(|time| time.0);
        let first = columns::moment(&event.first_timestamp).or(time);
        let series = event.series.as_ref();
        let last = series.and_then(|series| series.last_observed_time.as_ref()).map(|time| time.0);
        let last = last.or(columns::moment(&event.last_timestamp)).or(first);
        let count = series.and_then(|series| series.count).or(event.count).unwrap_or(1);
        let about = &event.involved_object;
        let kind = about.kind.as_deref().unwrap_or_default().to_lowercase();
        vec![
            columns::since(last, now).into(),
            event.type_.clone().unwrap_or_default().into(),
            event.reason.clone().unwrap_or_default().into(),
            format!("{kind}/{}", about.name.as_deref().unwrap_or_default()).into(),
            about.field_path.clone().unwrap_or_default().into(),
            source(event).into(),
            event.message.as_deref().unwrap_or_default().trim().into(),
            columns::since(first, now).into(),
            count.max(1).to_string().into(),
            columns::name(&event.metadata),
        ]
    }
}

/// What an Event with an `eventTime` must have (`legacyValidateEvent`).
fn validate_dated(event: &Event, errors: &mut Errors) {
    let component = check::text(&event.reporting_component);
    let path = Path::new("reportingController");
    check::required(component, &path, errors);
    check::qualified_name(component, &path, errors);
    let texts = [
        ("reportingInstance", &event.reporting_instance),
        ("action", &event.action),
        ("reason", &event.reason),
    ];
    for (field, text) in texts {
        let path = Path::new(field);
        check::required(check::text(text), &path, errors);
        at_most(text, MAX_TEXT, &path, errors);
    }
    at_most(&event.message, MAX_NOTE, &Path::new("message"), errors);
}

fn at_most(text: &Option<String>, limit: usize, path: &Path, errors: &mut Errors) {
    if check::text(text).len() > limit {
        let problem = format!("can have at most {limit} characters");
        errors.push(FieldError::invalid(path, "", problem));
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
pub fn check_new(event: &Value) -> Errors {
    let mut errors = Vec::new();
    if event["eventTime"].is_null() {
        errors.push(FieldError::required("eventTime", ""));
    }
    let kind = event["type"].as_str().unwrap_or_default();
    if !matches!(kind, "Normal" | "Warning") {
        let problem = format!("has invalid value: {kind}");
        errors.push(FieldError::invalid("type", "", problem));
    }
    if let Some(series) = event["series"].as_object() {
        if series.get("count").and_then(Value::as_i64).unwrap_or(0) < 2 {
            let problem = "should be at least 2";
            errors.push(FieldError::invalid("series.count", "", problem));
        }
        let observed = series.get("lastObservedTime").and_then(Value::as_str);
        if observed.is_none_or(is_zero_time) {
            errors.push(FieldError::required("series.lastObservedTime", ""));
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
            errors.push(FieldError::invalid(field, "", "needs to be unset"));
        }
    }
    errors
}
