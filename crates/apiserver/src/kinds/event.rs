//! Events.

use api::status::FieldError;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource};
use serde_json::Value;

use super::{Column, Strategy, columns};

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
    Column {
        priority: 1,
        ..columns::NAME
    },
];

impl Strategy for Rules {
    type Object = Event;

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, event: &Event) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let about = event
            .involved_object
            .namespace
            .as_deref()
            .unwrap_or_default();
        // Events about what has no namespace live in the default one.
        if about != namespace
            && !(about.is_empty() && matches!(namespace, "default" | "kube-system" | ""))
        {
            let problem = "does not match event.namespace";
            errors.push(FieldError::invalid(
                "involvedObject.namespace",
                about,
                problem,
            ));
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
        let last = series
            .and_then(|series| series.last_observed_time.as_ref())
            .map(|time| time.0);
        let last = last.or(columns::moment(&event.last_timestamp)).or(first);
        let count = series
            .and_then(|series| series.count)
            .or(event.count)
            .unwrap_or(1);
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

fn source(event: &Event) -> String {
    let none = EventSource::default();
    let source = event.source.as_ref().unwrap_or(&none);
    let first = |old: &Option<String>, new: &Option<String>| {
        old.clone()
            .filter(|text| !text.is_empty())
            .or_else(|| new.clone())
            .unwrap_or_default()
    };
    let component = first(&source.component, &event.reporting_component);
    let instance = first(&source.host, &event.reporting_instance);
    if instance.is_empty() {
        component
    } else {
        format!("{component}, {instance}")
    }
}
