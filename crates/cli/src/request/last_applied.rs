//! The last-applied-configuration annotation, and the patches that `apply` and `edit` make.

use anyhow::Context;
use api::strategic::{three_way, two_way};
use client::PatchKind;
use serde_json::Value;

use crate::discovery::Resource;

/// The annotation in which kubectl keeps the last applied manifest.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Field manager of client-side writes.
pub const FIELD_MANAGER: &str = "skiff-client-side-apply";

/// The manifest with its namespace, as it is applied by the server.
pub fn with_namespace(object: &Value, namespace: &str, resource: &Resource) -> Value {
    let mut object = object.clone();
    if resource.namespaced
        && let Some(metadata) = object["metadata"].as_object_mut()
    {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    object
}

/// The manifest with its namespace, annotated with itself.
pub fn with_last_applied(
    object: &Value,
    namespace: &str,
    resource: &Resource,
) -> anyhow::Result<Value> {
    let mut object = object.clone();
    let metadata = object
        .as_object_mut()
        .context("the manifest must be an object")?
        .entry("metadata")
        .or_insert_with(|| Value::Object(Default::default()))
        .as_object_mut()
        .context("metadata must be an object")?;
    if resource.namespaced {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    let annotations =
        metadata.entry("annotations").or_insert_with(|| Value::Object(Default::default()));
    if annotations.is_null() {
        *annotations = Value::Object(Default::default());
    }
    annotations.as_object_mut().context("annotations must be an object")?.remove(LAST_APPLIED);
    let text = format!("{object}\n");
    object["metadata"]["annotations"][LAST_APPLIED] = text.into();
    Ok(object)
}

/// The three-way patch that brings the live object to the manifest, and its kind.
pub fn three_way_patch(
    resource: &Resource,
    modified: &Value,
    current: &Value,
) -> anyhow::Result<(PatchKind, Value)> {
    let original: Value = current["metadata"]["annotations"][LAST_APPLIED]
        .as_str()
        .map(serde_json::from_str)
        .transpose()
        .context("the last-applied-configuration annotation is not JSON")?
        .unwrap_or(Value::Object(Default::default()));
    let schema = api::schema::kind(&resource.group, &resource.version, &resource.kind);
    let kind = if schema.is_some() { PatchKind::Strategic } else { PatchKind::Merge };
    Ok((kind, three_way(&original, modified, current, schema)))
}

/// The two-way patch from one state to another, and its kind.
pub fn two_way_patch(resource: &Resource, before: &Value, after: &Value) -> (PatchKind, Value) {
    let schema = api::schema::kind(&resource.group, &resource.version, &resource.kind);
    let kind = if schema.is_some() { PatchKind::Strategic } else { PatchKind::Merge };
    (kind, two_way(before, after, schema))
}
