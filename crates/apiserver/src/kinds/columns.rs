//! Columns and cells of Tables, as `pkg/printers/internalversion` prints them.

use std::collections::BTreeMap;

use api::ObjectMeta;
use api::labels::Selector;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use serde_json::Value;

use super::table::{at, items};
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

fn containers(template: Option<&PodTemplateSpec>) -> &[Container] {
    let spec = template.and_then(|template| template.spec.as_ref());
    spec.map_or(&[], |spec| spec.containers.as_slice())
}

/// Names of a template's containers.
pub fn container_names(template: Option<&PodTemplateSpec>) -> Value {
    let names = containers(template).iter().map(|container| container.name.as_str());
    names.collect::<Vec<_>>().join(",").into()
}

/// Images of a template's containers.
pub fn images(template: Option<&PodTemplateSpec>) -> Value {
    let images = containers(template).iter().map(|own| own.image.as_deref().unwrap_or_default());
    images.collect::<Vec<_>>().join(",").into()
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
pub fn access_modes(modes: &Value) -> Value {
    const SHORT: [(&str, &str); 4] = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let has = |long: &str| items(modes).iter().any(|mode| mode == long);
    let found: Vec<&str> =
        SHORT.iter().filter(|(long, _)| has(long)).map(|(_, short)| *short).collect();
    found.join(",").into()
}

/// Addresses or names of the load balancer of a Service or an Ingress.
pub fn balancer_addresses(object: &Value) -> Vec<&str> {
    let all = items(at(object, "status.loadBalancer.ingress")).iter();
    all.filter_map(|one| one["ip"].as_str().or(one["hostname"].as_str())).collect()
}

/// The first three, and how many there are besides.
pub fn first_three(all: &[String], none: &str) -> Value {
    match all.len() {
        0 => none.into(),
        1..=3 => all.join(",").into(),
        more => format!("{} + {} more...", all[..3].join(","), more - 3).into(),
    }
}
