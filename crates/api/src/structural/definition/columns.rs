//! Printer columns, subresources and selectable fields.

use std::collections::HashSet;

use serde_json::Value;

use super::schema::Schema;
use super::{Errors, text, versions};
use crate::status::FieldError;

/// Selectable fields of a version.
const SELECTABLE_MAX: usize = 8;
const TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const FORMATS: &[&str] =
    &["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

pub fn columns(list: Option<&Value>, path: &str, errors: &mut Errors) {
    for (index, column) in list.and_then(Value::as_array).into_iter().flatten().enumerate() {
        let path = format!("{path}[{index}]");
        if text(column.get("name")).is_empty() {
            errors.push(FieldError::required(format!("{path}.name"), ""));
        }
        let one_of = |known: &[&str]| format!("must be one of {}", known.join(","));
        match text(column.get("type")) {
            "" => errors.push(FieldError::required(format!("{path}.type"), one_of(TYPES))),
            known if TYPES.contains(&known) => {}
            other => errors.push(FieldError::invalid(format!("{path}.type"), other, one_of(TYPES))),
        }
        let format = text(column.get("format"));
        if !format.is_empty() && !FORMATS.contains(&format) {
            errors.push(FieldError::invalid(format!("{path}.format"), format, one_of(FORMATS)));
        }
        match text(column.get("jsonPath")) {
            "" => errors.push(FieldError::required(format!("{path}.JSONPath"), "")),
            json_path => {
                simple_path(json_path, &format!("{path}.JSONPath"), errors);
            }
        }
    }
}

/// Whether a path begins with a dot; else there is an error.
fn simple_path(json_path: &str, path: &str, errors: &mut Errors) -> bool {
    let simple = json_path.starts_with('.');
    if !simple {
        let detail = "must be a simple json path starting with .";
        errors.push(FieldError::invalid(path, json_path, detail));
    }
    simple
}

pub fn subresources(subresources: Option<&Value>, path: &str, errors: &mut Errors) {
    let Some(scale) =
        subresources.and_then(|all| all.get("scale")).filter(|scale| !scale.is_null())
    else {
        return;
    };
    let mut check = |name: &str, roots: &[&str], required: bool, below: &str| {
        let (json_path, path) = (text(scale.get(name)), format!("{path}.scale.{name}"));
        if json_path.is_empty() {
            if required {
                errors.push(FieldError::required(path, ""));
            }
        } else if simple_path(json_path, &path, errors)
            && !roots.iter().any(|root| json_path.starts_with(root))
        {
            let detail = format!("should be a json path under {below}");
            errors.push(FieldError::invalid(path, json_path, detail));
        }
    };
    check("specReplicasPath", &[".spec."], true, ".spec");
    check("statusReplicasPath", &[".status."], true, ".status");
    check("labelSelectorPath", &[".spec.", ".status."], false, "either .spec or .status");
}

/// The names of versions that may keep too many selectable fields; `""` for shared ones.
pub fn too_many_before(new: &Value, old: Option<&Value>) -> Vec<String> {
    let count = |version: &Value| version["selectableFields"].as_array().map_or(0, Vec::len);
    let kept = |version: &&Value| {
        let name = version.get("name");
        let same = |old: &&Value| {
            old.get("name") == name
                && old.get("selectableFields") == version.get("selectableFields")
        };
        old.is_some_and(|old| versions(old).any(|old| same(&old) && count(old) > SELECTABLE_MAX))
    };
    let mut names: Vec<String> =
        versions(new).filter(kept).map(|version| text(version.get("name")).to_owned()).collect();
    if !names.is_empty() && names.len() == versions(new).count() {
        names.push(String::new());
    }
    names
}

pub fn selectable(
    fields: &Value,
    schema: Schema<'_>,
    path: &str,
    allow_many: bool,
    errors: &mut Errors,
) {
    let mut unique = HashSet::new();
    for (index, field) in fields.as_array().into_iter().flatten().enumerate() {
        let (json_path, path) = (text(field.get("jsonPath")), format!("{path}[{index}].jsonPath"));
        if json_path.is_empty() {
            errors.push(FieldError::required(path, ""));
            continue;
        }
        let (steps, found) = match field_path(json_path, schema, false) {
            Ok(found) => found,
            Err(why) => {
                let detail = format!("is an invalid path: {why}");
                errors.push(FieldError::invalid(path, json_path, detail));
                continue;
            }
        };
        if steps.first().is_some_and(|step| step == "metadata") {
            let detail = "must not point to fields in metadata";
            errors.push(FieldError::invalid(path.clone(), json_path, detail));
        }
        if !matches!(found.text("type"), "string" | "boolean" | "integer") {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
            errors.push(FieldError::invalid(path.clone(), json_path, detail));
        }
        if !unique.insert(steps) {
            errors.push(FieldError::duplicate(path, json_path));
        }
    }
    if unique.len() > SELECTABLE_MAX && !allow_many {
        errors.push(FieldError::too_many(path, unique.len(), SELECTABLE_MAX));
    }
}

/// Follows `.spec.foo` or `['foo']` through a schema; returns the names and the schema at the end.
///
/// # Errors
/// Why the path leads nowhere.
pub fn field_path<'a>(
    json_path: &str,
    mut schema: Schema<'a>,
    brackets: bool,
) -> Result<(Vec<String>, Schema<'a>), String> {
    let mut steps = Vec::new();
    let mut rest = json_path;
    while !rest.is_empty() {
        let name = if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            let name = match &after[..end] {
                "" if after.is_empty() => return Err("unexpected end of JSON path".to_owned()),
                // The scanner's next token is the delimiter.
                "" => &after[..1],
                name => name,
            };
            rest = &after[name.len()..];
            name.to_owned()
        } else if let Some(after) = rest.strip_prefix('[') {
            if !brackets {
                return Err("array notation is not allowed".to_owned());
            }
            let (name, after) = bracketed(after)?;
            rest = after;
            name
        } else {
            let end = rest.find(['.', '[']).filter(|end| *end > 0).unwrap_or(rest.len());
            return Err(format!("expected [ or . but got: {}", &rest[..end]));
        };
        let below = match schema.has_properties() {
            true => schema.property(&name),
            false => schema.schema("additionalProperties"),
        };
        schema = below.ok_or("does not refer to a valid field")?;
        steps.push(name);
    }
    Ok((steps, schema))
}

/// The name in `'name']`, and what follows.
fn bracketed(text: &str) -> Result<(String, &str), String> {
    if text.is_empty() {
        return Err("unexpected end of JSON path".to_owned());
    }
    let Some(inner) = text.strip_prefix('\'') else {
        let first = text.chars().next().map_or(0, char::len_utf8);
        let end = text.find(['.', '[', ']']).filter(|end| *end > 0).unwrap_or(first);
        return Err(format!("expected single quoted string but got {}", &text[..end]));
    };
    let mut name = String::new();
    let mut characters = inner.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some((_, escaped @ ('\'' | '\\'))) => name.push(escaped),
                _ => return Err("invalid string literal: invalid escape sequence".to_owned()),
            },
            '\'' => {
                let after = &inner[at + 1..];
                return match after.strip_prefix(']') {
                    Some(after) => Ok((name, after)),
                    None if after.is_empty() => Err("unexpected end of JSON path".to_owned()),
                    None => Err(format!("expected ] but got {after}")),
                };
            }
            other => name.push(other),
        }
    }
    Err(format!("expected single quoted string but got {text}"))
}
