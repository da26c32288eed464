//! What is accepted in schemas without doing what its author may expect.

use std::collections::BTreeSet;

use serde_json::Value;

use super::schema::Schema;
use crate::structural::format::Format;

/// Warnings about a new definition, or about what an update adds.
pub fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let before = old.map(all).unwrap_or_default();
    all(new).into_iter().filter(|warning| !before.contains(warning)).collect()
}

fn all(definition: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for version in definition["spec"]["versions"].as_array().into_iter().flatten() {
        if let Some(schema) = version.pointer("/schema/openAPIV3Schema") {
            visit(Schema(schema), &mut found);
        }
    }
    found
}

fn visit(schema: Schema<'_>, found: &mut BTreeSet<String>) {
    let format = schema.text("format");
    if !format.is_empty() && Format::of(format, schema.text("type")).is_none() {
        found.insert(format!("unrecognized format {format:?}"));
    }
    if schema.text("x-kubernetes-list-type") == "set"
        && let Some(ty @ ("object" | "array")) = schema.items().map(|items| items.text("type"))
    {
        found.insert(format!(
            "x-kubernetes-list-type: set for items of type {ty:?} is not supported by server-side apply or CEL validation rules"
        ));
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        schema.schemas(name).for_each(|(_, below)| visit(below, found));
    }
    for name in ["items", "not", "additionalProperties", "additionalItems"] {
        schema.schema(name).into_iter().for_each(|below| visit(below, found));
    }
    for name in ["properties", "patternProperties", "definitions"] {
        schema.map(name).for_each(|(_, below)| visit(below, found));
    }
}
