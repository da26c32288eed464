//! Defaults in schemas must be valid and pruned (`k8s.io/apiextensions-apiserver`,
//! `schema/defaulting/validation.go`).

use serde_json::{Value, json};

use super::schema::Schema;
use super::{Errors, invalid};
use crate::status::FieldError;
use crate::structural::node::Node;
use crate::structural::path::Path;
use crate::structural::prune::META_FIELDS;
use crate::structural::{Structural, metadata, prune, rules, validate as values};

/// Whether a schema has defaults with unknown fields.
pub fn are_unpruned(schema: Schema<'_>) -> bool {
    let has_defaults = schema.any(&|schema: Schema<'_>| schema.get("default").is_some());
    has_defaults
        && Structural::new(schema.0).is_ok_and(|structural| {
            let mut errors = Vec::new();
            walk(&structural.root, true, None, "", true, &mut errors);
            errors.iter().any(|error| error.detail == UNPRUNED)
        })
}

const UNPRUNED: &str = "must not have unknown fields";

pub fn validate(structural: &Structural, path: &str, pruned: bool, errors: &mut Errors) {
    walk(&structural.root, true, None, path, pruned, errors);
}

/// A field of the metadata of an object, by the steps from that object; `""` is an element.
type InMetadata<'a> = Option<&'a [&'a str]>;

fn walk(
    node: &Node,
    is_root: bool,
    in_metadata: InMetadata<'_>,
    path: &str,
    pruned: bool,
    errors: &mut Errors,
) {
    let resource = is_root || node.embedded;
    let in_metadata = in_metadata.filter(|_| !resource);
    if let Some(default) = &node.default {
        let path = format!("{path}.default");
        match in_metadata {
            Some(steps) => of_metadata(node, default, steps, &path, errors),
            None => of_value(node, default, &path, pruned, errors),
        }
    }
    let below = |name: &str, child: &Node, path: String, errors: &mut Errors| {
        let first = resource && META_FIELDS.contains(&name);
        let steps: Option<Vec<&str>> = match in_metadata {
            Some(steps) => Some(steps.iter().copied().chain([name]).collect()),
            None => first.then(|| vec![name]),
        };
        walk(child, false, steps.as_deref(), &path, pruned, errors);
    };
    if let Some(items) = &node.items {
        below("", items, format!("{path}.items"), errors);
    }
    for (name, property) in node.properties() {
        below(name, property, format!("{path}.properties[{name}]"), errors);
    }
}

fn of_value(node: &Node, default: &Value, path: &str, pruned: bool, errors: &mut Errors) {
    if pruned {
        let mut copy = default.clone();
        if prune::prune(&mut copy, node, node.embedded, true).changed {
            errors.push(invalid(path, default, UNPRUNED));
        }
    }
    let mut found = Vec::new();
    metadata::validate(node, default, &Path::ROOT, &mut found);
    for error in &mut found {
        error.field = match error.field.is_empty() {
            true => path.to_owned(),
            false => format!("{path}.{}", error.field),
        };
    }
    if found.is_empty() {
        found = values::validate(node, default, None, path);
    }
    // Once as if it was there before, and once as a new value.
    for old in [Some(default), None] {
        if found.is_empty() {
            found = rules::judge(node, default, old, path);
        }
    }
    errors.append(&mut found);
}

/// The default of a field of metadata is judged within an object.
fn of_metadata(node: &Node, default: &Value, steps: &[&str], path: &str, errors: &mut Errors) {
    let mut value = default.clone();
    for step in steps.iter().rev() {
        value = if step.is_empty() { json!([value]) } else { json!({*step: value}) };
    }
    let mut object = json!({"apiVersion": "validation/v1", "kind": "Validation"});
    if let (Value::Object(object), Value::Object(more)) = (&mut object, value) {
        object.extend(more);
    }
    let mut found = Vec::new();
    if let Some(map) = object.as_object() {
        metadata::object(map, &Path::ROOT, &mut found);
    }
    if found.is_empty() {
        errors.extend(values::validate(node, default, None, path));
        return;
    }
    let texts: Vec<String> = found.iter().map(FieldError::to_string).collect();
    let texts = if texts.len() == 1 { texts[0].clone() } else { format!("[{}]", texts.join(", ")) };
    errors.push(invalid(path, default, format!("must result in valid metadata: {texts}")));
}
