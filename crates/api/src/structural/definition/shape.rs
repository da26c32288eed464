//! What makes a schema structural (`k8s.io/apiextensions-apiserver`, `schema/validation.go` and
//! `schema/complete.go`).

use serde_json::{Value, json};

use super::Errors;
use super::schema::Schema;
use crate::status::FieldError;
use crate::structural::pattern;

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Whether a schema is not structural.
pub fn is_wrong(schema: Schema<'_>) -> bool {
    let mut errors = Vec::new();
    validate(schema, "", &mut errors);
    !errors.is_empty()
}

/// Adds the errors in the order of their texts, as upstream does.
pub fn validate(schema: Schema<'_>, path: &str, errors: &mut Errors) {
    let mut found = Vec::new();
    invariants(schema, Level::Root, path, &mut found);
    for name in ["not", "allOf", "anyOf", "oneOf"] {
        nested_of(schema, name, path, |nested, at| {
            complete(nested, Some(schema), path, &at, &mut found)
        });
    }
    found.sort_by_cached_key(ToString::to_string);
    errors.append(&mut found);
}

/// Calls `visit` for each schema below a logical junctor.
fn nested_of<'a>(
    schema: Schema<'a>,
    name: &str,
    path: &str,
    mut visit: impl FnMut(Schema<'a>, String),
) {
    if name == "not" {
        schema.schema(name).into_iter().for_each(|not| visit(not, format!("{path}.not")));
    }
    for (index, nested) in schema.schemas(name) {
        visit(nested, format!("{path}.{name}[{index}]"));
    }
}

fn invariants(schema: Schema<'_>, level: Level, path: &str, errors: &mut Errors) {
    let ty = schema.text("type");
    let embedded = schema.flag("x-kubernetes-embedded-resource");
    let preserves = schema.flag("x-kubernetes-preserve-unknown-fields");
    let int_or_string = schema.flag("x-kubernetes-int-or-string");
    if ty == "array" && schema.get("items").is_none() {
        errors.push(FieldError::required(format!("{path}.items"), "must be specified"));
    }
    if let Some(items) = schema.items() {
        invariants(items, Level::Item, &format!("{path}.items"), errors);
    }
    for (name, property) in schema.properties() {
        invariants(property, Level::Field, &format!("{path}.properties[{name}]"), errors);
    }
    if schema.get("additionalProperties").is_some() {
        let path = format!("{path}.additionalProperties");
        if level == Level::Root {
            errors.push(FieldError::forbidden(path.clone(), "must not be used at the root"));
        }
        if let Some(additional) = schema.schema("additionalProperties") {
            invariants(additional, Level::Field, &path, errors);
        }
    }
    if int_or_string {
        for (name, set) in [("preserve-unknown-fields", preserves), ("embedded-resource", embedded)]
        {
            if set {
                let detail = "must be false if x-kubernetes-int-or-string is true";
                errors.push(FieldError::invalid(
                    format!("{path}.x-kubernetes-{name}"),
                    true,
                    detail,
                ));
            }
        }
    }
    let pattern = json!([{"type": "integer"}, {"type": "string"}]);
    let is_pattern = |schema: Schema<'_>| schema.get("anyOf") == Some(&pattern);
    let first_of_all = schema.schemas("allOf").next().is_some_and(|(_, first)| is_pattern(first));
    value_validation(schema, is_pattern(schema), first_of_all, path, errors);
    type_rules(schema, level, path, errors);
    let resource = level == Level::Root || embedded;
    for name in ["kind", "apiVersion"] {
        if let Some(property) =
            schema.property(name).filter(|property| resource && property.text("type") != "string")
        {
            let path = format!("{path}.properties[{name}].type");
            errors.push(FieldError::invalid(path, property.text("type"), "must be string"));
        }
    }
    if let Some(metadata) = schema.property("metadata") {
        metadata_rules(metadata, resource, level, &format!("{path}.properties[metadata]"), errors);
    }
    if embedded && !preserves && !schema.has_properties() {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(format!("{path}.properties"), detail));
    }
}

fn type_rules(schema: Schema<'_>, level: Level, path: &str, errors: &mut Errors) {
    let ty = schema.text("type");
    let embedded = schema.flag("x-kubernetes-embedded-resource");
    let any = schema.flag("x-kubernetes-int-or-string")
        || schema.flag("x-kubernetes-preserve-unknown-fields");
    let field = format!("{path}.type");
    if embedded && ty != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(match ty {
            "" => FieldError::required(field.clone(), detail),
            ty => FieldError::invalid(field.clone(), ty, detail),
        });
    } else if ty.is_empty() && !any {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(field.clone(), detail));
    }
    if embedded && schema.get("additionalProperties").is_some() {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(FieldError::forbidden(format!("{path}.additionalProperties"), detail));
    }
    if level == Level::Root && !ty.is_empty() && ty != "object" {
        errors.push(FieldError::invalid(field, ty, "must be object at the root"));
    }
}

/// A schema of metadata may restrict the name, and nothing else.
fn metadata_rules(
    metadata: Schema<'_>,
    resource: bool,
    level: Level,
    path: &str,
    errors: &mut Errors,
) {
    if resource && metadata.text("type") != "object" {
        let ty = metadata.text("type");
        errors.push(FieldError::invalid(format!("{path}.type"), ty, "must be object"));
    }
    if level != Level::Root {
        return;
    }
    let names_only = metadata.properties().all(|(name, _)| matches!(name, "name" | "generateName"));
    let more = metadata.members().any(|name| match name {
        "type" | "default" => false,
        "properties" => !names_only,
        _ => true,
    });
    if more {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(FieldError::forbidden(path, detail));
    }
}

fn value_validation(
    schema: Schema<'_>,
    skip_any_of: bool,
    skip_first_any_of: bool,
    path: &str,
    errors: &mut Errors,
) {
    if !skip_any_of {
        nested_of(schema, "anyOf", path, |schema, at| nested(schema, false, &at, errors));
    }
    let mut first = skip_first_any_of;
    nested_of(schema, "allOf", path, |schema, at| {
        nested(schema, std::mem::take(&mut first), &at, errors);
    });
    nested_of(schema, "oneOf", path, |schema, at| nested(schema, false, &at, errors));
    nested_of(schema, "not", path, |schema, at| nested(schema, false, &at, errors));
    let pattern = schema.text("pattern");
    if !pattern.is_empty()
        && let Err(why) = pattern::compile(pattern)
    {
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(FieldError::invalid(format!("{path}.pattern"), pattern, detail));
    }
}

/// Members that a schema below a logical junctor must not have, with what they must be.
const FORBIDDEN: &[(&str, &str)] = &[
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
];

fn nested(schema: Schema<'_>, skip_any_of: bool, path: &str, errors: &mut Errors) {
    value_validation(schema, skip_any_of, false, path, errors);
    if let Some(items) = schema.items() {
        nested(items, false, &format!("{path}.items"), errors);
    }
    for (name, property) in schema.properties() {
        nested(property, false, &format!("{path}.properties[{name}]"), errors);
    }
    for (name, detail) in FORBIDDEN {
        let set = match *name {
            "default" => schema.get(name).is_some(),
            "additionalProperties" => {
                schema.get(name).is_some_and(|value| *value != Value::Bool(false))
            }
            name => schema.is_set(name),
        };
        if set {
            errors.push(FieldError::forbidden(format!("{path}.{name}"), *detail));
        }
    }
    if schema.property("metadata").is_some() {
        let detail = "must not be specified in a nested context";
        errors.push(FieldError::forbidden(format!("{path}.properties[metadata]"), detail));
    }
}

/// Whatever a schema below a logical junctor judges must be specified outside of it.
fn complete(
    nested: Schema<'_>,
    outer: Option<Schema<'_>>,
    path: &str,
    at: &str,
    errors: &mut Errors,
) {
    let Some(outer) = outer else {
        let detail = format!("because it is defined in {at}");
        return errors.push(FieldError::required(path, detail));
    };
    for name in ["not", "allOf", "anyOf", "oneOf"] {
        nested_of(nested, name, at, |schema, at| complete(schema, Some(outer), path, &at, errors));
    }
    if let Some(items) = nested.items() {
        complete(items, outer.items(), &format!("{path}.items"), &format!("{at}.items"), errors);
    }
    for (name, property) in nested.properties() {
        let (path, at) = (format!("{path}.properties[{name}]"), format!("{at}.properties[{name}]"));
        complete(property, outer.property(name), &path, &at, errors);
    }
}
