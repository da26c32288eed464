//! Columns and cells of Tables, as `pkg/printers/internalversion` prints them.

use std::collections::BTreeMap;

use api::ObjectMeta;
use api::labels::Selector;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use serde_json::Value;

use super::{Column, human_duration};

/// What an absent value prints as.
pub const NONE: &str = "<none>";

pub const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    priority: 0,
    description: "Name of the object, unique within its namespace.",
};

pub const AGE: Column = text("Age", "Time since the object was created.");
pub const CREATED_AT: Column =
    Column { kind: "date", ..text("Created At", "When the object was created.") };
pub const CONTAINERS: Column = wide("Containers", "Names of each container in the template.");
pub const IMAGES: Column = wide("Images", "Images referenced by each container in the template.");
pub const SELECTOR: Column = wide("Selector", "Label selector of the object's pods.");

/// A column that is always shown.
pub const fn text(name: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", format: "", priority: 0, description }
}

/// A column of numbers that is always shown.
pub const fn integer(name: &'static str, description: &'static str) -> Column {
    Column { kind: "integer", ..text(name, description) }
}

/// A column of flags that is always shown.
pub const fn boolean(name: &'static str, description: &'static str) -> Column {
    Column { kind: "boolean", ..text(name, description) }
}

/// A column of `-o wide`.
pub const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { priority: 1, ..text(name, description) }
}

/// The object's name as a cell.
pub fn name(metadata: &ObjectMeta) -> Value {
    metadata.name.clone().unwrap_or_default().into()
}

/// The object's age as a cell.
pub fn age(metadata: &ObjectMeta, now: Timestamp) -> Value {
    super::age(metadata, now).into()
}

/// When the object was created, as text.
pub fn created_at(metadata: &ObjectMeta) -> Value {
    match &metadata.creation_timestamp {
        Some(time) => time.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into(),
        None => "<unknown>".into(),
    }
}

/// Time since a moment, `<unknown>` without one.
pub fn since(time: Option<Timestamp>, now: Timestamp) -> String {
    time.map_or_else(
        || "<unknown>".to_owned(),
        |time| human_duration(now.as_second() - time.as_second()),
    )
}

pub fn moment(time: &Option<Time>) -> Option<Timestamp> {
    time.as_ref().map(|time| time.0)
}

/// The text, or `<none>`.
pub fn or_none(text: Option<&str>) -> Value {
    match text {
        Some(text) if !text.is_empty() => text.into(),
        _ => NONE.into(),
    }
}

/// The texts separated by commas, or `<none>`.
pub fn joined<S: AsRef<str>>(texts: &[S]) -> Value {
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    or_none(Some(&texts.join(",")))
}

/// `a=1,b=2`, or `<none>`.
pub fn labels(labels: Option<&BTreeMap<String, String>>) -> Value {
    let pairs: Vec<String> =
        labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    joined(&pairs)
}

/// A label selector as text, or `<none>`.
pub fn selector(selector: Option<&LabelSelector>) -> Value {
    match Selector::from_label_selector(selector) {
        Ok(parsed) if selector.is_some() => or_none(Some(&parsed.to_string())),
        Ok(_) => NONE.into(),
        Err(_) => "<error>".into(),
    }
}

/// Names and images of containers: two cells.
pub fn containers(containers: &[Container]) -> [Value; 2] {
    let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
    let images: Vec<&str> =
        containers.iter().map(|container| container.image.as_deref().unwrap_or_default()).collect();
    [names.join(",").into(), images.join(",").into()]
}

/// Names and images of a template's containers: two cells.
pub fn template(template: Option<&PodTemplateSpec>) -> [Value; 2] {
    let spec = template.and_then(|template| template.spec.as_ref());
    containers(spec.map_or(&[], |spec| spec.containers.as_slice()))
}

/// `True` and `False`, as kubectl prints pointers to booleans.
pub fn flag(flag: Option<bool>) -> Value {
    match flag {
        Some(true) => "True".into(),
        Some(false) => "False".into(),
        None => "<unset>".into(),
    }
}

/// `RWO,ROX,RWX,RWOP`, each once, in this order.
pub fn access_modes(modes: Option<&Vec<String>>) -> Value {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |long: &str| modes.into_iter().flatten().any(|mode| mode == long);
    let found: Vec<&str> =
        SHORT.iter().filter(|(long, _)| has(long)).map(|(_, short)| *short).collect();
    found.join(",").into()
}
