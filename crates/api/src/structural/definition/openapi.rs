//! The rules for the OpenAPI of a version
//! (`ValidateCustomResourceDefinitionOpenAPISchema` upstream).

use serde_json::Value;

use super::schema::Schema;
use super::{Errors, Options, columns, defaults, invalid, shape, text};
use crate::status::FieldError;
use crate::structural::Structural;
use crate::structural::prune::META_FIELDS;

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
const REASONS: &[&str] =
    &["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Members that a root schema may have next to a status subresource, with Go's names, as errors
/// list them.
const AT_ROOT: &[(&str, &str)] = &[
    ("description", "Description"),
    ("type", "Type"),
    ("format", "Format"),
    ("title", "Title"),
    ("maximum", "Maximum"),
    ("exclusiveMaximum", "ExclusiveMaximum"),
    ("minimum", "Minimum"),
    ("exclusiveMinimum", "ExclusiveMinimum"),
    ("maxLength", "MaxLength"),
    ("minLength", "MinLength"),
    ("pattern", "Pattern"),
    ("maxItems", "MaxItems"),
    ("minItems", "MinItems"),
    ("uniqueItems", "UniqueItems"),
    ("multipleOf", "MultipleOf"),
    ("required", "Required"),
    ("items", "Items"),
    ("properties", "Properties"),
    ("externalDocs", "ExternalDocs"),
    ("example", "Example"),
    ("x-kubernetes-preserve-unknown-fields", "XPreserveUnknownFields"),
    ("x-kubernetes-validations", "XValidations"),
];

pub fn has_invalid_type(schema: Schema<'_>) -> bool {
    let ty = schema.text("type");
    !ty.is_empty() && !TYPES.contains(&ty)
}

/// Whether a schema has what only structural schemas may have.
pub fn is_extended(schema: Schema<'_>) -> bool {
    const EXTENSIONS: &[&str] = &[
        "x-kubernetes-embedded-resource",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-validations",
    ];
    schema.get("default").is_some() || EXTENSIONS.iter().any(|name| schema.is_set(name))
}

/// Whether a list is a set of elements that merge.
pub fn has_granular_set(schema: Schema<'_>) -> bool {
    let mut errors = Vec::new();
    set_elements(schema, "", &mut errors);
    !errors.is_empty()
}

/// Whether a list of type map has keys that may be missing.
pub fn has_loose_map_keys(schema: Schema<'_>) -> bool {
    let mut errors = Vec::new();
    map_keys(schema, "", &mut errors);
    !errors.is_empty()
}

/// Validates the `schema` of a version. `unchanged`: it is that of the old definition.
pub fn validate_version(
    validation: &Value,
    has_status: bool,
    path: &str,
    options: &Options,
    unchanged: bool,
    errors: &mut Errors,
) {
    let Some(schema) = validation.get("openAPIV3Schema").filter(|schema| !schema.is_null()) else {
        return;
    };
    let schema = Schema(schema);
    let path = format!("{path}.openAPIV3Schema");
    let before = errors.len();
    if has_status {
        at_root(schema, &path, errors);
    }
    if schema.flag("nullable") {
        let detail = "nullable cannot be true at the root";
        errors.push(FieldError::forbidden(format!("{path}.nullable"), detail));
    }
    let structural = Structural::new(schema.0);
    let mut rules = false;
    if options.structural
        && let Ok(structural) = &structural
    {
        let start = errors.len();
        shape::validate(schema, &path, errors);
        if errors.len() == start {
            defaults::validate(structural, &path, options.pruned_defaults, errors);
        }
        rules = errors.len() == start;
    }
    let context = Context { options, defaults: Ok(()), in_metadata: false, is_root: true };
    let start = errors.len();
    walk(schema, &path, context, errors);
    if rules
        && errors.len() == start
        && let Ok(structural) = &structural
    {
        errors.extend(structural.rule_errors(&path, unchanged));
    }
    if errors.len() == before
        && let Err(why) = structural
    {
        errors.push(FieldError::invalid(path, "", why.to_string()));
    }
}

fn at_root(schema: Schema<'_>, path: &str, errors: &mut Errors) {
    if schema.is_set("type") && schema.text("type") != "object" {
        let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        return errors.push(FieldError::invalid(
            format!("{path}.type"),
            schema.text("type"),
            detail,
        ));
    }
    let known = |name: &str| AT_ROOT.iter().any(|(known, _)| *known == name);
    if schema.members().any(|name| !known(name)) {
        let names: Vec<&str> = AT_ROOT.iter().map(|(_, name)| *name).collect();
        let detail = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            names.join(" ")
        );
        errors.push(invalid(path, schema.0, detail));
    }
}

/// Where the walk is.
#[derive(Clone, Copy)]
struct Context<'a> {
    options: &'a Options,
    /// Why defaults are not allowed.
    defaults: Result<(), &'a str>,
    in_metadata: bool,
    is_root: bool,
}

fn walk(schema: Schema<'_>, path: &str, context: Context<'_>, errors: &mut Errors) {
    standard(schema, path, context, errors);
    if schema.flag("uniqueItems") {
        let detail =
            "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(format!("{path}.uniqueItems"), detail));
    }
    let below = Context { is_root: false, ..context };
    if let Some(additional) = schema.get("additionalProperties") {
        let path = format!("{path}.additionalProperties");
        if schema.has_properties() && *additional != Value::Bool(true) {
            let detail = "additionalProperties and properties are mutual exclusive";
            errors.push(FieldError::forbidden(path.clone(), detail));
        }
        if let Some(additional) = schema.schema("additionalProperties") {
            let reason = "inside additionalProperties applying to object metadata";
            let defaults = if context.in_metadata { Err(reason) } else { context.defaults };
            walk(additional, &path, Context { defaults, ..below }, errors);
        }
    }
    let resource = context.is_root || schema.flag("x-kubernetes-embedded-resource");
    for (name, property) in schema.properties() {
        let path = format!("{path}.properties[{name}]");
        let in_metadata = context.in_metadata || (resource && META_FIELDS.contains(&name));
        let reason = format!("in top-level {name}");
        let top = context.is_root && META_FIELDS.contains(&name);
        let defaults = if top { Err(reason.as_str()) } else { context.defaults };
        walk(property, &path, Context { in_metadata, defaults, ..below }, errors);
    }
    for name in ["not", "items"] {
        if let Some(single) = schema.schema(name) {
            walk(single, &format!("{path}.{name}"), below, errors);
        }
    }
    for name in ["allOf", "oneOf", "anyOf", "items"] {
        for (index, element) in schema.schemas(name) {
            walk(element, &format!("{path}.{name}[{index}]"), below, errors);
        }
    }
    extensions(schema, path, context.options, errors);
    for (index, rule) in schema.list("x-kubernetes-validations").iter().enumerate() {
        rule_form(schema, rule, &format!("{path}.x-kubernetes-validations[{index}]"), errors);
    }
}

/// What is not OpenAPI v3, or not supported.
fn standard(schema: Schema<'_>, path: &str, context: Context<'_>, errors: &mut Errors) {
    let ty = schema.text("type");
    if context.options.valid_types && has_invalid_type(schema) {
        errors.push(FieldError::not_supported(format!("{path}.type"), ty, TYPES));
    }
    let mut forbid = |name: &str, detail: String| {
        errors.push(FieldError::forbidden(format!("{path}.{name}"), detail));
    };
    if let (true, Err(reason)) = (schema.get("default").is_some(), context.defaults) {
        forbid("default", format!("must not be set {reason}"));
    }
    for (name, set) in [
        ("id", schema.is_set("id")),
        ("additionalItems", schema.get("additionalItems").is_some()),
        ("patternProperties", schema.is_set("patternProperties")),
        ("definitions", schema.is_set("definitions")),
        ("dependencies", schema.get("dependencies").is_some()),
        ("$ref", schema.get("$ref").is_some()),
    ] {
        if set {
            forbid(name, format!("{name} is not supported"));
        }
    }
    if ty == "null" {
        forbid("type", "type cannot be set to null, use nullable as an alternative".to_owned());
    }
    if !schema.list("items").is_empty() {
        forbid("items", "items must be a schema object and not an array".to_owned());
    }
    if context.in_metadata && schema.flag("x-kubernetes-embedded-resource") {
        forbid(
            "x-kubernetes-embedded-resource",
            "must not be used inside of resource meta".to_owned(),
        );
    }
}

/// `x-kubernetes-*`
fn extensions(schema: Schema<'_>, path: &str, options: &Options, errors: &mut Errors) {
    const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
    if schema.get(PRESERVE) == Some(&Value::Bool(false)) {
        errors.push(FieldError::invalid(
            format!("{path}.{PRESERVE}"),
            false,
            "must be true or undefined",
        ));
    }
    let ty = schema.text("type");
    let of_type = |wanted: &str, extension: &str, errors: &mut Errors| {
        let detail = format!("must be {wanted} if {extension} is specified");
        let field = format!("{path}.type");
        errors.push(match ty {
            "" => FieldError::required(field, detail),
            ty => FieldError::invalid(field, ty, detail),
        });
    };
    const MAP_TYPE: &str = "x-kubernetes-map-type";
    if let Some(map_type) = schema.get(MAP_TYPE) {
        if ty != "object" {
            of_type("object", MAP_TYPE, errors);
        }
        let known = &["atomic", "granular"];
        if !known.contains(&text(Some(map_type))) {
            errors.push(FieldError::not_supported(format!("{path}.{MAP_TYPE}"), map_type, known));
        }
    }
    const LIST_TYPE: &str = "x-kubernetes-list-type";
    const KEYS: &str = "x-kubernetes-list-map-keys";
    let list_type = schema.get(LIST_TYPE);
    if list_type.is_some() && ty != "array" {
        of_type("array", LIST_TYPE, errors);
    } else if options.atomic_sets {
        set_elements(schema, path, errors);
    }
    if let Some(list_type) = list_type {
        let known = &["atomic", "set", "map"];
        if !known.contains(&text(Some(list_type))) {
            errors.push(FieldError::not_supported(format!("{path}.{LIST_TYPE}"), list_type, known));
        }
    }
    let is_map = text(list_type) == "map";
    if !schema.list(KEYS).is_empty() && !is_map {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        let field = format!("{path}.{LIST_TYPE}");
        errors.push(match list_type {
            None => FieldError::required(field, detail),
            Some(other) => invalid(field, other, detail),
        });
    }
    if is_map {
        list_map(schema, path, errors);
    }
    if options.map_keys {
        map_keys(schema, path, errors);
    }
}

/// The elements of a set must be atomic.
fn set_elements(schema: Schema<'_>, path: &str, errors: &mut Errors) {
    let Some(items) = schema.items().filter(|_| schema.text("x-kubernetes-list-type") == "set")
    else {
        return;
    };
    let wrong = match items.text("type") {
        "array" if !matches!(items.text("x-kubernetes-list-type"), "" | "atomic") => "list",
        "object" if items.text("x-kubernetes-map-type") != "atomic" => "map",
        _ => return,
    };
    let value = items.get("x-kubernetes-list-type").unwrap_or(&Value::Null);
    let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
    errors.push(invalid(format!("{path}.items.x-kubernetes-{wrong}-type"), value, detail));
}

/// A list of type map has objects with the keys as scalar properties.
fn list_map(schema: Schema<'_>, path: &str, errors: &mut Errors) {
    let keys = schema.list("x-kubernetes-list-map-keys");
    let keys_path = format!("{path}.x-kubernetes-list-map-keys");
    if keys.is_empty() {
        let detail = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(keys_path.clone(), detail));
    }
    let items = match (schema.get("items"), schema.items()) {
        (None, _) => {
            let detail = "must have a schema if x-kubernetes-list-type is map";
            return errors.push(FieldError::required(format!("{path}.items"), detail));
        }
        (Some(other), None) => {
            let detail = "must only have a single schema if x-kubernetes-list-type is map";
            return errors.push(invalid(format!("{path}.items"), other, detail));
        }
        (_, Some(items)) => items,
    };
    let ty = items.text("type");
    if ty != "object" {
        let detail = "must be object if parent array's x-kubernetes-list-type is map";
        return errors.push(FieldError::invalid(format!("{path}.items.type"), ty, detail));
    }
    let all = Value::Array(keys.to_vec());
    for (index, key) in keys.iter().enumerate() {
        let key_text = text(Some(key));
        match items.property(key_text) {
            None => {
                let detail = "entries must all be names of item properties";
                errors.push(invalid(keys_path.clone(), &all, detail));
            }
            Some(property) if matches!(property.text("type"), "array" | "object") => {
                let field = format!("{path}.items.properties[{key_text}].type");
                let detail =
                    "must be a scalar type if parent array's x-kubernetes-list-type is map";
                errors.push(FieldError::invalid(field, ty, detail));
            }
            Some(_) => {}
        }
        if keys[..index].contains(key) {
            errors.push(invalid(keys_path.clone(), &all, "must not contain duplicate entries"));
        }
    }
}

/// Elements of sets and maps, and keys of maps, cannot be null, and keys cannot be missing.
fn map_keys(schema: Schema<'_>, path: &str, errors: &mut Errors) {
    let list_type = schema.text("x-kubernetes-list-type");
    let Some(items) = schema.items().filter(|_| matches!(list_type, "set" | "map")) else {
        return;
    };
    if items.flag("nullable") {
        let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.push(FieldError::forbidden(format!("{path}.items.nullable"), detail));
    }
    if list_type != "map" {
        return;
    }
    for key in schema.list("x-kubernetes-list-map-keys") {
        let Some(property) = items.property(text(Some(key))) else {
            continue;
        };
        let path = format!("{path}.items.properties[{}]", text(Some(key)));
        if !items.list("required").contains(key) && property.get("default").is_none() {
            let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(FieldError::required(format!("{path}.default"), detail));
        }
        if property.flag("nullable") {
            let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(FieldError::forbidden(format!("{path}.nullable"), detail));
        }
    }
}

/// The form of a validation rule; whether it compiles is judged later.
fn rule_form(schema: Schema<'_>, rule: &Value, path: &str, errors: &mut Errors) {
    let field = |name: &str| format!("{path}.{name}");
    let (expression, message) = (text(rule.get("rule")), text(rule.get("message")));
    let breaks = |text: &str| text.contains(['\n', '\r']);
    if expression.trim().is_empty() {
        errors.push(FieldError::required(field("rule"), "rule is not specified"));
    } else if !message.is_empty() && message.trim().is_empty() {
        errors.push(FieldError::invalid(
            field("message"),
            message,
            "must be non-empty if specified",
        ));
    } else if breaks(message.trim()) {
        errors.push(FieldError::invalid(field("message"), message, "must not contain line breaks"));
    } else if breaks(expression.trim()) && message.trim().is_empty() {
        let detail = "message must be specified if rule contains line breaks";
        errors.push(FieldError::required(field("message"), detail));
    }
    let message_expression = text(rule.get("messageExpression"));
    if !message_expression.is_empty() && message_expression.trim().is_empty() {
        let detail = "messageExpression must be non-empty if specified";
        errors.push(FieldError::required(field("messageExpression"), detail));
    }
    if let Some(reason) = rule.get("reason").and_then(Value::as_str)
        && !REASONS.contains(&reason)
    {
        errors.push(FieldError::not_supported(field("reason"), reason, REASONS));
    }
    let field_path = text(rule.get("fieldPath"));
    if field_path.is_empty() {
        return;
    }
    if field_path.trim().is_empty() {
        let detail = "must be non-empty if specified";
        errors.push(FieldError::invalid(field("fieldPath"), field_path, detail));
    }
    if breaks(field_path) {
        errors.push(FieldError::invalid(
            field("fieldPath"),
            field_path,
            "must not contain line breaks",
        ));
    }
    if columns::field_path(field_path, schema, true).is_err() {
        errors.push(FieldError::invalid(field("fieldPath"), field_path, "must be a valid path"));
    }
}
